"""What developers use: the local host, the sample, the demo."""
