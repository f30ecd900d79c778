"""Ablation grids: many runs from one config file."""
