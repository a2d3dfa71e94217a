"""Measured time and memory of stitches."""
