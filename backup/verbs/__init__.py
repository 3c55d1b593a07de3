"""What a run may do: sync, undo, restore, verify, drill, purge."""
