"""What runs overwrote or deleted, kept and found again."""
