"""A table on any SQL server, as a store."""
