"""The command line: what may be typed, grouped by job, and what is printed for it."""
