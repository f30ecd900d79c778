"""The launcher: runs as cells of one work folder, resumable and shared.

`cells` are the arms of a config, a single run, or what `sweeps` makes of the
functions sweep_*() of a config file (--sweep=NAME,NAME). `ledger` refuses to
mix results that do not belong together, `claims` finds a free cell, `run` runs
them one program at a time (`program`), `plan` shows what is left. docs/grids.md
is the manual.
"""
