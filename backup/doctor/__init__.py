"""What is wrong with a set-up, found by trying, without changing anything."""
