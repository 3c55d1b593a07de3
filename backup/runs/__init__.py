"""One run as it is recorded: its lock, its owner, its entry in SyncHistory."""
