"""Requests to run: their records, their workers, and summaries of runs."""
