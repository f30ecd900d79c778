"""What changed while a run was trained: of runs and of the cells of a grid."""

from collections.abc import Iterable, Mapping, Sequence

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
    made[measure.name] = measure, among if arms else binned(among)
  seen = records.latest(r for r in answers if r['phase'] == 'reflect')
  seen = binned([*filter(has_verdict, seen)], few=0 if arms else BINS)
  return made | {REFLECTED: (judge['flagged'], seen)}


def line(measure: Measure, among: Sequence[Mapping]) -> list[tuple]:
  """The measure at each step: (step, Share)."""
  return [(at, counts.count(measure, found)) for at, found in by_step(among)]


def by_step(rows: Iterable[Mapping]) -> list[tuple[int, list[Mapping]]]:
  """Groups records or metrics by their step, in the order of steps."""
  return sorted(records.grouped(rows, lambda row: row['step']).items())


def binned(rows: Sequence[Mapping], few: int = BINS) -> list[Mapping]:
  """At the middle of their bins; if at most `few` steps differ, as they are."""
  steps = {row['step'] for row in rows}
  if len(steps) <= few:
    return rows
  width = -(-(max(steps) + 1) // BINS)
  middle = lambda step: step // width * width + width // 2
  return [row | {'step': middle(row['step'])} for row in rows]
