"""The launcher: runs as cells of one work folder, resumable and shared.

`cells` are the arms of a config, a single run, or what `sweeps` makes of the
functions sweep_*() of a config file (--sweep=NAME,NAME). `ledger` keeps what
must not be mixed, `claims` says which cell is free, `run` runs them one program
at a time (`program`), `plan` says what is left. docs/grids.md is its manual.
"""
