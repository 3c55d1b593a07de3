"""Requests to run: their records, who works on them, and what is told of them."""
