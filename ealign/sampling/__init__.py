"""Sampling on the device, and exact probabilities of given labels."""

from ealign.sampling.sampler import Answer, Sampling, generate

__all__ = ['Answer', 'Sampling', 'generate']
