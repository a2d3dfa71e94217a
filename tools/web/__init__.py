"""The web page that shows two stitches of a model on a picture."""
