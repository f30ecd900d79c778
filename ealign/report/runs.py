"""Reads what the runs of a work folder left behind."""

import contextlib
import dataclasses
import functools
import json
import pathlib
from collections.abc import Mapping
from typing import Any

from ealign import fields
from ealign.config import flatten
from ealign.conscience import health, tally
from ealign.evals import judges, records, suites
from ealign.evals.judges.measure import Judge
from ealign.runtime.errors import UserError
from ealign.workdir import done


@dataclasses.dataclass(frozen=True)
class Run:
  """One arm. What has not been written yet is empty, and named in `missing`."""

  name: str
  config: dict  # dotted field -> value
  answers: list[dict]
  metrics: list[dict]
  info: dict  # dotted name -> value: versions, devices, hashes
  missing: tuple[str, ...]

  @property
  def judge(self) -> Judge:
    return judge_at_hand(self.config)[0]

  @functools.cached_property
  def health(self) -> health.Health:
    return health.of(self.answers)

  @property
  def idle(self) -> str:
    """What it was if its conscience made no pair, in words; else ''."""
    return tally.idle(self.health.counts, self.config)

  @property
  def audit(self) -> list[str]:
    """What was said of its conscience before its first step."""
    line = self.info.get('audit.line') or ''
    said = [line.removeprefix('conscience: ')] * bool(line)
    return [*said, *(self.info.get('audit.warnings') or ())]

  @property
  def collapsed(self) -> list[str]:
    return [*health.collapse(self.health).values()]


_FILES = ('config.json', 'answers.jsonl', 'metrics.jsonl', 'run.json')


def read(workdir: Any) -> list[Run]:
  """The runs of a work folder, in the order of its config where it has one.

  Raises:
    UserError: there is no such folder, no run in it, or a file is broken.
  """
  workdir = pathlib.Path(workdir).resolve()
  if not workdir.is_dir():
    raise UserError(
      f'{workdir}: there is no such folder; give --workdir that of the runs'
    )
  folders = [path for path in workdir.iterdir() if _is_run(path)]
  # A single run may hold folders with a config.json of their own: the model.
  if (workdir / 'answers.jsonl').is_file() or not folders:
    folders = [workdir] if _is_run(workdir) else []
  runs = [*map(read_run, folders)]
  if not runs:
    message = f'{workdir}: holds no run (no {" or ".join(_FILES[:3])})'
    raise UserError(message)
  listed = json_object(workdir / 'config.json').get('arms')
  listed = list(listed) if isinstance(listed, Mapping) else []
  return sorted(runs, key=lambda run: _order(run, listed))


def _is_run(path: pathlib.Path) -> bool:
  return path.is_dir() and any((path / file).is_file() for file in _FILES[:3])


def _order(run: Run, listed: list[str]):
  # As written in the config; else from the plainest to the one built on others.
  place = listed.index(run.name) if run.name in listed else len(listed)
  get = run.config.get
  trained = get('train.steps') != 0 and run.name != 'base'
  taught = fields.reflects(get('dpo.lam'), get('conscience.every'))
  built = bool(get('model.adapter'))
  return place, trained, taught, built, str(get('data.train')), run.name


def read_run(folder: pathlib.Path) -> Run:
  """What one run left in its folder; of records written twice the later.

  Raises:
    UserError: a file is broken, or has changed since the run ended.
  """
  missing = tuple(file for file in _FILES if not (folder / file).is_file())
  done.check(folder)
  path = folder / 'answers.jsonl'
  answers = [] if path.name in missing else records.read(path)
  answers = [{**record, 'arm': folder.name} for record in answers]
  return Run(
    name=folder.name,
    config=flatten(json_object(folder / 'config.json')),
    answers=records.latest(answers),
    metrics=json_lines(folder / 'metrics.jsonl'),
    info=flatten(json_object(folder / 'run.json')),
    missing=missing,
  )


def judge_at_hand(config: Mapping) -> tuple[Judge, str]:
  """The judge that a run's config names, and an empty reason.

  If its file is not to be had where the report is made: the one that knows
  what is known of every answer, and the reason.
  """
  try:
    named = config.get('eval.judge'), config.get('eval.suites') or ()
    asks = bool(config.get('eval.questions') or config.get('eval.curve'))
    return suites.judge_of(*named, asks=asks), ''
  except UserError as error:
    return judges.load(''), str(error)


def json_object(path: pathlib.Path) -> dict:
  """A file's JSON object; {} where there is no file.

  Raises:
    UserError: the file is broken, or holds something else.
  """
  if not path.is_file():
    return {}
  try:
    tree = json.loads(path.read_text('utf-8'))
  except (OSError, ValueError, RecursionError) as error:
    raise UserError(f'{path}: broken JSON ({error})') from None
  if not isinstance(tree, dict):
    raise UserError(f'{path}: must hold a JSON object')
  return tree


def json_lines(path: pathlib.Path) -> list[dict]:
  """The rows of metrics.jsonl, broken lines left out; [] without a file.

  Of rows of the same step and names, which a killed run may have written
  twice, the later one.
  """
  if not path.is_file():
    return []
  rows = {}
  for line in path.read_text('utf-8', 'replace').split('\n'):
    # A metric lost to a kill is no reason for no report.
    with contextlib.suppress(ValueError, RecursionError, AttributeError):
      row = json.loads(line)
      rows[row.get('step'), frozenset(row)] = row
  return list(rows.values())
