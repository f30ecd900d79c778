"""Every method by the name that the config's field `method` gives.

A method is a file here that makes a `Method`, and a line of `METHODS`. The
paper's is `Method` as it is, and what `train.run` does if it is given none.
"""

from ealign.method import CONSCIENCE, Method

METHODS: dict[str, Method] = {
  'conscience': CONSCIENCE,
}
