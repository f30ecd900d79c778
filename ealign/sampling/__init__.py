"""Sampling on the device, and exact probabilities of given labels."""
