"""The named things that are backed up, made from the settings and from backup.toml."""
