"""A container on Cosmos DB, as a store."""
