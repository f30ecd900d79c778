"""What changed while a run was trained: of runs and of the cells of a grid."""

from collections.abc import Mapping, Sequence

from ealign.evals import counts, records
from ealign.evals.judges.measure import Judge, Measure, has_verdict

BINS = 20  # points of a curve
REFLECTED = 'reflected'  # panel of the verdicts on answers sampled in training


def panels(
  answers: Sequence[Mapping], kind: str, judge: Judge, *, arms: bool = False
) -> dict[str, tuple[Measure, list[Mapping]]]:
  """Name of the panel -> measure, records: one a measure that has figures.

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


def title(judge: Judge, name: str, reflected: str) -> str:
  """Of a panel; reflected: of that of the verdicts in training."""
  return reflected if name == REFLECTED else judge[name].title


def line(measure: Measure, among: Sequence[Mapping]) -> list[tuple]:
  """(step, Share) of the records."""
  by_step = {}
  for record in among:
    by_step.setdefault(record['step'], []).append(record)
  return [(at, counts.count(measure, r)) for at, r in sorted(by_step.items())]


def binned(steps: Sequence[int], few: int = 0) -> dict[int, int]:
  """step -> the middle of its bin; up to `few` different ones stay alone."""
  width = -(-(max(steps, default=0) + 1) // BINS)
  width = 1 if len(set(steps)) <= few else width
  return {step: step // width * width + width // 2 for step in steps}
