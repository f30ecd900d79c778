"""Folders that runs work in: who may write there, how far each run is."""
