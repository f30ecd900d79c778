"""The paper's method: a frozen copy of the model is the trainee's conscience.

Emergent Alignment, arXiv 2606.19527. It reflects as `conscience.reflect` does,
adds up L_SFT + lambda L_DPO, and logs what `conscience.records` counts: all of
them are the defaults of `Method`, so that another method names only what it
does otherwise. `train.run` trains so if it is given no method.
"""

from ealign.method import Method

CONSCIENCE = Method('conscience')
