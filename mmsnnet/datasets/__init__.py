"""Data that anyone can make: ``mmsnnet.datasets.rooms`` renders furnished indoor rooms."""
