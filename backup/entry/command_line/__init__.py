"""The command line: the commands, grouped by job, and what they print."""
