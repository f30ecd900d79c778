"""What users type: flags, exit codes, printed scripts."""
