"""What a run is made of, and whether it fits.

`data` is what it reads, `weights` its models, `parts` what is built of both,
`fit` whether they suit the sizes that the config asks for, `audited` and
`threshold` what its conscience is worth, and from where on it flags.
"""
