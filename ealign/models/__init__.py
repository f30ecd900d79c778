"""The decoder as functions over a plain dict of arrays."""
