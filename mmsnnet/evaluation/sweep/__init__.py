"""Scores stitches on a data set, in pieces that survive kills."""
