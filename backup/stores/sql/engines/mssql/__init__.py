"""SQL Server, as an engine of the SQL store."""
