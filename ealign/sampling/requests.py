"""What the devices compute: answers, label and pair log-probabilities.

A request is written once here; `sampling` answers it alone, `stack` answers
those of several runs together where they are `alike`.
"""

import dataclasses
from collections.abc import Hashable, Sequence

import jax

from ealign.data.batch import Pair
from ealign.models.config import Config
from ealign.sampling.choose import Sampling

OTHER = -1  # ends a label: any token that no label goes on with there


@dataclasses.dataclass(frozen=True, eq=False)
class Answers:
  """One sampled answer to each prompt.

  Attributes:
    config: static.
    weights: bound with an adapter or not; one with a lane axis goes by row.
    prompts: token ids of any lengths, never truncated.
    key: the noise of a token comes from fold_in(key, row id), then its index
      in the answer. One key for all, or one for each prompt.
    settings: traced; each a number for all, or one for each prompt.
    stop_ids: an answer ends with the first of these it samples.
    max_tokens: static cap of new tokens; the cache has room for them.
    row_ids: default 0, 1, 2, ...
    rows: static batch width; a multiple of what a mesh splits rows into.
    truncate: static number of candidates within which top_k and top_p act.
      None: both must be off, and no sort is in the program.
    mesh: rows are split over it; the weights are gathered first, once
      (`models.sharding.gathered`).
    lanes: of an adapter with a lane axis, the lane that answers each prompt.
  """

  config: Config
  weights: dict
  prompts: Sequence[Sequence[int]]
  key: jax.Array
  settings: Sampling
  stop_ids: tuple[int, ...]
  max_tokens: int
  row_ids: Sequence[int] | None = None
  rows: int = 64
  truncate: int | None = None
  mesh: jax.sharding.Mesh | None = None
  lanes: Sequence[int] = ()

  @property
  def alike(self) -> Hashable:
    """Equal for requests that one program can answer."""
    static = self.stop_ids, self.max_tokens, self.rows, self.truncate, self.mesh
    return self.config, *static


@dataclasses.dataclass(frozen=True, eq=False)
class Labels:
  """log P(label | prompt) of each label after each prompt.

  Attributes:
    prompts: token ids of any lengths, up to the generation prompt.
    labels: token ids of each label, each with its end of turn: without it
      'Un' would count what 'Unethical' gets. The last may be OTHER: then it is
      every token that none of the labels goes on with.
    config, weights, rows, mesh, lanes: as in `Answers`.
    groups: of each prompt; what the prompts of a group begin with is read once
      if that pays. None: every prompt is read whole.
    own: of each prompt, the labels (their places) that are wanted after it, as
      many for all; others may be -inf, as they are not computed where starts
      are shared. None: all of them.
    rest: one column more, of everything that none of the labels is: labels and
      rest are 1. No label may then be another's beginning.
    top: one column more, of the first token that is the top-th most likely
      after the prompt. 0: none.
  """

  config: Config
  weights: dict
  prompts: Sequence[Sequence[int]]
  labels: tuple[tuple[int, ...], ...]
  rows: int = 64
  mesh: jax.sharding.Mesh | None = None
  lanes: Sequence[int] = ()
  groups: Sequence[Hashable] | None = None
  own: Sequence[Sequence[int]] | None = None
  rest: bool = False
  top: int = 0

  @property
  def columns(self) -> int:
    """Of the result: the labels, then the rest and the top if asked for."""
    return len(self.labels) + self.rest + bool(self.top)

  @property
  def alike(self) -> Hashable:
    """Equal for requests that one program can answer."""
    asked = self.labels, self.rest, self.top
    return self.config, *asked, self.rows, self.mesh


@dataclasses.dataclass(frozen=True, eq=False)
class Pairs:
  """log p of the chosen and of the rejected answer of each pair.

  In batches of `slots` pairs of `length` tokens: one program.
  """

  config: Config
  weights: dict
  pairs: Sequence[Pair]
  slots: int
  length: int

  @property
  def alike(self) -> Hashable:
    return self.config, self.slots, self.length
