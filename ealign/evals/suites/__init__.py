"""Suites: one file and one line in SUITES each."""
