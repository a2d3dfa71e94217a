"""What files say of stitches, and which stitch to choose by them. Standard library only."""
