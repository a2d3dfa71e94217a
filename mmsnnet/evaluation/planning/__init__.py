"""What a training will take, told before it starts and without a GPU."""
