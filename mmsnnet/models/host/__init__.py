"""What is known of, and done to, the model around the backbone."""
