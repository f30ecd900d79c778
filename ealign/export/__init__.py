"""What leaves: adapters for PEFT, merged or whole models (`export.write`)."""

FORMATS = ('peft', 'merged', 'full')
# By dtype, how far a weight may be off by rounding, as a share of itself.
ROUNDING = {'float32': 0.0, 'bfloat16': 2**-8, 'float16': 2**-11}
