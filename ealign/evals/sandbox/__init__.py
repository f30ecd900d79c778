"""Runs code that a model wrote, apart from everything else.

`run` is the library's side, `inside` what runs there, `locks` what it may not.
"""
