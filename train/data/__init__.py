"""Images with their labels: files found, opened, brought onto one grid, shared out among the parts of a training."""
