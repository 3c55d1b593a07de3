"""Tells programs and people what happened: the sinks, the delivery of events, and the watch for silence."""
