"""Every method by the name that the config's field `method` gives.

A method is a file here that makes a `Method`, and a line of `METHODS`.
"""

from ealign.method import Method
from ealign.methods.conscience import CONSCIENCE
from ealign.methods.iteralign import ITERALIGN
from ealign.methods.mistake_analysis import MISTAKE_ANALYSIS

METHODS: dict[str, Method] = {
  'conscience': CONSCIENCE,
  'iteralign': ITERALIGN,
  'mistake_analysis': MISTAKE_ANALYSIS,
}
