"""Folders that runs work in: whose they are, and how far each has come."""
