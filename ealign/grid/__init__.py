"""Ablation grids: many runs of one config file, in one work folder.

`python -m ealign.launch --config=FILE.py --workdir=DIR --sweep=a,seeds`: the
config file's functions sweep_*() say which; `sweeps` makes cells of them,
`cells` keeps their states and leases, `run` runs them. docs/grids.md tells it.
"""
