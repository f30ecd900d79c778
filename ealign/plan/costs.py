"""What the conscience costs of a step, by the estimates of a plan's programs.

A step is an update, with pairs or without, and its share of a reflection. At
*worst* every answer has all its tokens, is flagged, and gives a pair that every
update trains on. *Expected* is what a run on advice and small talk meets:
answers as long as those that were measured (`LONGEST`), of which `FLAGGED` is
flagged, and pairs that are gone after `replay.max_uses` updates, if it is set.
"""

import dataclasses
import functools
import math

import numpy as np

from ealign.fields import Config, Conscience
from ealign.plan.figures import Figures, estimate
from ealign.runtime import cost as cost_lib
from ealign.runtime import peaks
from ealign.sampling import prompts

# Tokens of the longest of n answers, on average: of Qwen2.5-Coder-0.5B to the
# shipped pool (python benchmarks/lengths.py --model=FOLDER --count=64).
LONGEST = {1: 161, 4: 316, 16: 426, 64: 497, 160: 524}
# Of the answers; a threshold of 'auto:0.05' begins with half as many at most.
FLAGGED = 0.1
PROGRAMS = 'sft', 'hybrid', 'prefill', 'decode', 'review', 'score'


@dataclasses.dataclass(frozen=True)
class Base:
  """A plan's figures and what they are of.

  Attributes:
    found: by name, all of `PROGRAMS`.
    config: that they are of.
    mesh: the devices.
    weights: bytes of a device that each token of a decode reads, however many
      rows there are.
    reviewer: likewise of a review.
    prompt, review: tokens that are read of a row, to sample and to review.
    parts: that the rows of a decode are split into.
  """

  found: dict[str, Figures]
  config: Config
  mesh: object
  weights: float
  reviewer: float
  prompt: int
  review: int
  parts: int = 1


@dataclasses.dataclass(frozen=True)
class Cost:
  """Seconds; calibration before the first step, 0 if the threshold is known."""

  sft: float
  pairs: float  # of a step
  reflection: float  # a whole one
  every: int
  calibration: float

  @property
  def step(self) -> float:
    return self.sft + self.pairs + self.reflection / self.every

  @property
  def share(self) -> float:
    return 1 - self.sft / self.step

  def as_dict(self) -> dict:
    shares = self.pairs / self.step, self.reflection / self.every / self.step
    return {
      'calibration_s': self.calibration,
      'reflection_s': self.reflection,
      'step_s': self.step,
      'times_sft': self.step / self.sft,
      'share': self.share,
      'share_pairs': shares[0],
      'share_reflections': shares[1],
    }


def known(found: dict[str, Figures]) -> bool:
  """Whether there are all the estimates that a cost needs."""
  return all(n in found and found[n].seconds is not None for n in PROGRAMS)


def cost(
  base: Base,
  config: Config | None = None,
  *,
  expected: bool = False,
  latency: float = peaks.LATENCY,
) -> Cost:
  """The cost of a config that differs from the base's in sizes alone.

  Args:
    base: what was compiled.
    config: by default the base's. Rows, tokens, pairs and int8 are accounted
      for by what the programs read, send and compute of each.
    expected: or at worst.
    latency: seconds of a transfer beside its bytes.
  """
  c = config or base.config
  own, new, rows = c.conscience, c.sample.max_new_tokens, _rows(c)
  time = functools.partial(program_seconds, base, c, latency)
  flagged = math.ceil(_flagged(own) * rows) if expected else rows
  few = min(rows, prompts.width(flagged, rows, base.parts))
  at = lambda width: width / _rows(base.config)
  read = lambda width: time('prefill', rows=at(width))

  def write(width, count, limit):
    trips = _longest(limit, count, expected) if limit else 0
    return time('decode', rows=at(width), trips=trips)

  def judge(width, count):
    tokens = base.review - base.config.sample.max_new_tokens + new
    asked = time('review', rows=at(width) * tokens / base.review)
    thought = write(width, count, own.review.reason_tokens)
    return (1 if own.review.form == 'words' else 2) * (asked + thought)

  # Sampled and reviewed; the flagged ones rewritten, which reads as much as a
  # review, and reviewed again; and plain answers, where a guard compares them.
  first = read(rows) + write(rows, rows, new) + judge(rows, rows)
  limit = own.revise.max_new_tokens or new
  again = time('review', rows=at(few)) + write(few, flagged, limit)
  again += judge(few, flagged)
  if own.guards.measures:
    again += read(few) + write(few, flagged, new)
  calls = math.ceil(flagged / c.dpo.pairs)
  scored = calls * time('score', rows=_pairs(base, c))
  sft, hybrid = time('sft'), time('hybrid')
  batches = math.ceil(own.held_out / rows) * c.calibrates
  return Cost(
    sft=sft,
    pairs=(hybrid - sft) * _pairs(base, c) * _trained(c, flagged, expected),
    reflection=first + again + scored,
    every=own.every,
    calibration=batches * first,
  )


def _flagged(own: Conscience) -> float:
  """The share of the answers that is rewritten, as it is expected."""
  rule = own.review.verdict
  by_rule = {
    'all': 1.0,
    'inverted': 1 - FLAGGED,
    'random': own.review.random_rate,
  }
  return by_rule.get(rule, FLAGGED) * own.review.share


def _rows(c: Config) -> int:
  return c.conscience.prompts * c.conscience.samples


def _pairs(base: Base, c: Config) -> float:
  """Tokens of pairs in an update, beside those that were compiled."""
  size = lambda dpo: dpo.pairs * dpo.length
  return size(c.dpo) / size(base.config.dpo)


def _trained(c: Config, flagged: int, expected: bool) -> float:
  """The share of the updates that have pairs."""
  if not expected or not c.replay.max_uses:
    return 1.0
  updates = c.replay.max_uses * max(1, flagged / c.dpo.pairs)
  return min(1.0, updates / c.conscience.every)


def _longest(limit: int, rows: int, expected: bool) -> float:
  """Tokens until all rows have ended, the average over such batches."""
  if not expected:
    return limit
  n, tokens = zip(*LONGEST.items(), strict=True)
  return min(limit, float(np.interp(np.log(rows), np.log(n), tokens)))


def program_seconds(
  base: Base, c: Config, latency: float, name: str, *, rows=1.0, trips=None
) -> float:
  """The estimate of a program of a config, as `cost` takes it.

  rows: how many times those that were compiled. trips: of the loop of a decode,
  by default all.
  """
  f, decodes = base.found[name], name == 'decode'
  most = base.config.sample.max_new_tokens if decodes else 1
  times = 1.0 if trips is None else trips / most
  read = {'prefill': base.weights, 'decode': base.weights * most}
  read['review'] = base.reviewer
  fixed = min(read.get(name, 0.0), f.hbm_bytes)
  moving, sums = f.hbm_bytes - fixed, times * f.transfers
  if decodes and c.model.quantize != base.config.model.quantize:
    # The sums of matrix and adapter are no longer one: a scale comes between.
    fixed, sums = fixed / 2, 2 * sums
  moved = times * (fixed + moving * rows)
  counts = cost_lib.Counts(hbm_bytes=moved, transfers=sums)
  for kind, size in (f.collectives or {}).items():
    # Weights are gathered, whatever there is to compute with them.
    scale = 1.0 if kind == 'all-gather' else rows
    counts.collectives[kind] = times * scale * size
  flops = times * rows * f.flops
  return estimate(base.mesh, flops, counts, latency)[0]


def levers(base: Base) -> list[tuple[dict, Cost, Cost]]:
  """What would make a step cheaper: fields, the cost expected and at worst.

  The one that saves most of what is expected comes first. What they cost in
  alignment no plan knows (docs/speed.md).
  """
  c = base.config
  own, dpo, new = c.conscience, c.dpo, c.sample.max_new_tokens
  cut, half = 128, dpo.length // 2
  short = {
    'sample.max_new_tokens': cut,
    'conscience.review.truncated': 'judge',
    'dpo.length': min(dpo.length, prompts.bucket(base.prompt + cut)),
  }
  plain = {'conscience.guards.shortest': 0.0, 'conscience.guards.longest': 0.0}
  rare = {
    'conscience.every': 10 * own.every,
    'conscience.prompts': 10 * own.prompts,
  }
  possible = (
    (10 * own.every < c.train.steps, rare),
    (new > cut, short),
    (
      c.model.quantize == 'none' and c.model.train == 'lora',
      {'model.quantize': 'int8'},
    ),
    (half >= base.prompt + new, {'dpo.length': half}),
    (own.guards.measures, plain),
  )
  found = []
  for applies, fields in possible:
    if applies:
      config = changed(c, fields)
      each = (cost(base, config, expected=e) for e in (True, False))
      found.append((fields, *each))
  return sorted(found, key=lambda lever: lever[1].step)


def changed(config, fields: dict):
  """The config with other values, by dotted names."""
  for name, value in fields.items():
    config = _replaced(config, name.split('.'), value)
  return config


def _replaced(section, path: list[str], value):
  name, *rest = path
  if rest:
    value = _replaced(getattr(section, name), rest, value)
  return dataclasses.replace(section, **{name: value})
