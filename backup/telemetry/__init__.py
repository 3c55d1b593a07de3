"""Spans and numbers of runs, brought to OpenTelemetry; its library is imported only when a setting asks for it."""
