"""Several runs as one program, over a base that they share.

`groups` says which runs can be one, `run` has each in a thread and answers
their calls together, `lanes` are their states, `rows` their rows as one batch.
"""
