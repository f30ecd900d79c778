"""From cells to settings: estimates over seeds, and the primary contrasts."""

import dataclasses
import functools
import json
from collections.abc import Mapping, Sequence

from ealign.evals import counts
from ealign.evals import seeds as stats
from ealign.evals.judges.measure import Judge
from ealign.evals.records import grouped
from ealign.report import runs
from ealign.report.grid import results
from ealign.report.grid.results import Grid, Result
from ealign.runtime.errors import quantity


@dataclasses.dataclass(frozen=True)
class Evidence:
  """How much an interval rests on; `unscored` is a share of the answers."""

  seeds: int
  questions: int
  answers: int
  unscored: float

  def __str__(self) -> str:
    named = {'seed': self.seeds, 'question': self.questions}
    named |= {'answer': self.answers}
    counted = ', '.join(quantity(n, what) for what, n in named.items())
    return f'{counted}, {100 * self.unscored:.1f} % of them unscored'


@dataclasses.dataclass(frozen=True)
class Setting:
  """The cells that differ in their replicate alone.

  changes: overrides that differ from the base config; {} is the baseline.
  """

  cells: list[Result]

  @property
  def label(self) -> str:
    return self.cells[0].label or 'default'

  @property
  def changes(self) -> dict:
    return self.cells[0].setting

  @property
  def old(self) -> bool:
    """No cell belongs to the sweep any more; they are then counted, apart."""
    return not any(cell.current for cell in self.cells)

  @property
  def counted(self) -> list[Result]:
    return [c for c in self.cells if c.done and (c.current or self.old)]

  @property
  def wanted(self) -> int:
    """How many replicates it should have."""
    return sum(c.current or self.old for c in self.cells)


@dataclasses.dataclass(frozen=True)
class Tested:
  """A declared contrast.

  p is adjusted by Holm; if the contrast is not primary it is None, and
  `reason` says why.
  """

  name: str
  metric: str
  a: str
  b: str
  sides: Sequence[Setting | None]
  effect: stats.Contrast | None = None
  evidence: Evidence | None = None
  p: float | None = None
  reason: str = ''


@dataclasses.dataclass(frozen=True)
class Comparison:
  """All settings of a grid with what can be said about them."""

  grid: Grid
  judge: Judge
  settings: list[Setting]
  baseline: Setting
  kind: str  # of the headline's questions
  rows: dict[str, dict[str, Mapping]]  # part of the judge -> folder -> row
  spreads: dict[str, stats.Spread | None]
  contrasts: list[Tested]

  def standing(self, setting: Setting) -> str:
    if setting.old:
      return 'old'
    sides = (s for c in self.contrasts if not c.reason for s in c.sides)
    return 'primary' if any(s is setting for s in sides) else 'exploratory'

  def part(self, metric: str) -> str:
    """The kind of questions whose table shows this metric."""
    return self.judge.part(self.judge[metric])

  def values(self, setting: Setting, metric: str) -> dict[str, counts.Share]:
    """Replicate -> Share (or Mean) of the metric, where it is known."""
    rows = self.rows[self.part(metric)]
    found = {c.at: rows.get(c.folder, {}).get(metric) for c in setting.counted}
    if metric == self.judge.tokens.name:
      found = {c.at: c.token_accuracy for c in setting.counted}
    return {at: share for at, share in found.items() if share and share.total}

  def estimate(self, setting: Setting, metric: str) -> stats.Estimate | None:
    """From its own spread if primary, else from the pooled one."""
    shares = list(self.values(setting, metric).values())
    if self.judge[metric].number:
      return stats.average(shares)
    primary = self.standing(setting) == 'primary'
    return stats.rate(shares, None if primary else self.spreads[metric])

  def difference(self, setting: Setting, metric: str) -> float | None:
    """Mean of setting - baseline over the replicates that both have."""
    a, b = (self.values(s, metric) for s in (setting, self.baseline))
    both = [a[at].value - b[at].value for at in a if at in b]
    return sum(both) / len(both) if both else None

  def evidence(self, cells: Sequence[Result], part: str) -> Evidence | None:
    """How much the figures of these cells rest on, in a part of the tables."""
    rows = self.rows[part]
    counted = [rows[cell.folder] for cell in cells if cell.folder in rows]
    of = lambda name: [row[name] for row in counted]
    if not counted:
      return None
    answers, unscored = sum(of('answers')), sum(of('unscored'))
    questions = max(of('questions'))
    return Evidence(len(counted), questions, answers, unscored / answers)


def twins(compared: Comparison) -> list[list[Setting]]:
  """Groups of settings with the same counts in every seed that they share."""
  groups = []
  for setting in (s for s in compared.settings if s.counted and not s.old):
    alike = (g for g in groups if all(_alike(setting, other) for other in g))
    if group := next(alike, None):
      group.append(setting)
    else:
      groups.append([setting])
  return [group for group in groups if len(group) > 1]


def _alike(*settings) -> bool:
  found = lambda c: [*(x | {'arm': ''} for x in c.rows), c.token_accuracy]
  a, b = ({c.at: found(c) for c in s.counted} for s in settings)
  both = a.keys() & b.keys()
  return bool(both) and all(a[at] == b[at] for at in both)


def compare(grid: Grid) -> Comparison:
  """Settings in the grid's order; the baseline is the one without changes.

  Without such a setting the first current one is the baseline.
  """
  by_setting = grouped(grid.cells, lambda cell: results.key(cell.setting))
  settings = [Setting(cells) for cells in by_setting.values()]
  current = [s for s in settings if not s.old] or settings
  baseline = next((s for s in current if not s.changes), current[0])
  rows = [row for s in settings for c in s.counted for row in c.rows]
  judge, _ = runs.judge_at_hand(grid.config)
  kind = counts.headline_kind(rows, judge)
  by_part = counts.by_part(rows, judge)
  compared = Comparison(grid, judge, settings, baseline, kind, by_part, {}, [])
  for name in (*judge.contrasted(), judge.tokens.name):
    compared.spreads[name] = stats.pooled(
      [stats.logit(s.count, s.total) for s in compared.values(x, name).values()]
      for x in current
    )
  contrasts = [_tested(compared, current, c) for c in grid.contrasts]
  p_values = [None if c.reason else c.effect.p for c in contrasts]
  for c, p in zip(contrasts, stats.holm(p_values), strict=True):
    compared.contrasts.append(dataclasses.replace(c, p=p))
  return compared


def _tested(of: Comparison, settings, contrast) -> Tested:
  changed = [results.changes(contrast[x], of.grid.config) for x in 'ab']
  sides = [next((s for s in settings if s.changes == x), None) for x in changed]
  named = lambda x, s: s.label if s else json.dumps(contrast[x])
  names = map(named, 'ab', sides)
  metric = contrast.get('metric', of.judge.first.name)
  made = Tested(contrast['name'], metric, *names, sides)
  because = functools.partial(dataclasses.replace, made)
  if metric not in of.judge.contrasted():
    known = ', '.join(of.judge.contrasted())
    return because(reason=f'metric is none of {known}')
  if None in sides:
    return because(reason='no such setting in this grid')
  a, b = (of.values(setting, metric) for setting in sides)
  both = [at for at in a if at in b]
  used = [c for s in sides for c in s.counted if c.at in both]
  evidence = of.evidence(used, of.part(metric))
  reason = ''
  if len(both) < stats.FEWEST_SEEDS:
    reason = f'{len(both)} seeds of both; a test needs {stats.FEWEST_SEEDS}'
  if of.grid.declared_late:
    reason = 'declared after cells had begun'
  return because(
    reason=reason,
    effect=stats.contrast([a[at] for at in both], [b[at] for at in both]),
    evidence=evidence and dataclasses.replace(evidence, seeds=len(both)),
  )
