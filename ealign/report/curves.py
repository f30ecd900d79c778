"""What changed while a run was trained: of runs and of the cells of a grid."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ealign.evals import counts, records
from ealign.evals.judges.measure import Judge, Measure, has_verdict

BINS = 20  # points of a curve
REFLECTED = 'reflected'  # panel of the verdicts on answers sampled in training


def panels(
  answers: Sequence[Mapping], kind: str, judge: Judge, *, arms: bool = False
) -> dict[str, tuple[Measure, list[Mapping]]]:
  """Panel name -> its measure and records, for each measure with figures.

  kind: of the questions that no measure claims. arms: of several runs, one
  that answered nothing on the way stands with its final answers.
  """
  held_out = records.latest(r for r in answers if r['phase'] == 'curve')
  if arms:
    drawn = {record['arm'] for record in held_out}
    held_out += [r for r in counts.final(answers) if r['arm'] not in drawn]
  made = {}
  for measure in (*judge.figures(), judge['flagged']):
    part = judge.part(measure) or kind
    among = measure.known(r for r in held_out if r['kind'] == part)
    made[measure.name] = measure, among if arms else _in_bins(among, few=BINS)
  seen = records.latest(r for r in answers if r['phase'] == 'reflect')
  seen = _in_bins([*filter(has_verdict, seen)], few=0 if arms else BINS)
  return made | {REFLECTED: (judge['flagged'], seen)}


def _in_bins(among, few) -> list[Mapping]:
  middle = binned([record['step'] for record in among], few)
  return [{**record, 'step': middle[record['step']]} for record in among]


def line(measure: Measure, among: Sequence[Mapping]) -> list[tuple]:
  """The measure at each step: (step, Share)."""
  steps = by_step((record['step'], record) for record in among)
  return [(at, counts.count(measure, found)) for at, found in steps]


def by_step(pairs: Iterable[tuple[int, Any]]) -> list[tuple[int, list]]:
  """Groups values by their step, in the order of steps."""
  found = {}
  for step, value in pairs:
    found.setdefault(step, []).append(value)
  return sorted(found.items())


def binned(steps: Sequence[int], few: int = 0) -> dict[int, int]:
  """step -> middle of its bin; if at most `few` differ, the step itself."""
  width = -(-(max(steps, default=0) + 1) // BINS)
  width = 1 if len(set(steps)) <= few else width
  return {step: step // width * width + width // 2 for step in steps}
