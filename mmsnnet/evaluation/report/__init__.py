"""What is drawn and written of a sweep: table, plot, page."""
