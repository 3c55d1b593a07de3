"""Scheduled backups of live databases into queryable mirrors."""

__version__ = "1.0.0"
