"""The settings, and the only reader of the environment; schedules."""
