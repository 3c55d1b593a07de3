"""What all packages share: values, errors, log lines, retries, threads. Knows no database and no setting."""
