"""Scheduled backups of live databases into queryable mirrors."""
