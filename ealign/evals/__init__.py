"""Sampled answers, judged and counted."""
