"""One sync as values: what differs, what is written, what is proven. Knows no database, history or lock."""
