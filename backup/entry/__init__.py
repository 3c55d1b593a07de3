"""The ways in: HTTP, timers, the command line; and what they answer."""
