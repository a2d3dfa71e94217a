"""A stitch outside of the laboratory: extraction, export and what checks them."""
