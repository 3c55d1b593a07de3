"""PostgreSQL, as an engine of the SQL store."""
