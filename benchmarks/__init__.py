"""Measures what a sync costs, beside the textbook algorithm, the least a driver can do, and other tools. See
README.md."""
