"""What developers use: the local host, the sample, the demo, the libraries of the page."""
