"""What everything speaks in: values, errors, log lines, retries, threads. Knows no database and no setting."""
