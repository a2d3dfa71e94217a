"""A stitch outside of the laboratory: extraction, export and what checks them."""

from .extraction import extract, load, save_extracted

__all__ = ['extract', 'load', 'save_extracted']
