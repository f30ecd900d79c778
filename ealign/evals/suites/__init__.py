"""Suites: one file and one line in SUITES each."""

import collections
import dataclasses
import hashlib
import pathlib
from collections.abc import Sequence

from ealign import fields
from ealign.evals import judges
from ealign.evals.judges import prompts as prompts_lib
from ealign.evals.judges import scale
from ealign.evals.judges.measure import Judge
from ealign.evals.suites import (
  capability,
  contextual,
  harm,
  misalignment,
  own,
  refusal,
  self_report,
  truthful,
  world,
)
from ealign.evals.suites.suite import Files, Suite, settled
from ealign.runtime.errors import UserError

SUITES = {
  'misalignment': misalignment.SUITE,
  'contextual': contextual.SUITE,
  'harm': harm.SUITE,
  'refusal': refusal.SUITE,
  'capability': capability.SUITE,
  'truthful': truthful.SUITE,
  'self_report': self_report.SUITE,
  'intentions': self_report.INTENTIONS,
  'self_report_framed': self_report.FRAMED,
  'self_report_sampled': self_report.SAMPLED,
  'world': world.SUITE,
  'world_self': world.SELF,
  own.NAME: own.SUITE,
}


def read(settings: fields.Eval, limit: int) -> list[tuple[Suite, list[dict]]]:
  """The suites that `eval.suites` names, with their questions.

  limit: MiB of a file.

  Raises:
    UserError: a file is not there, or broken.
  """
  found = []
  for name in dict.fromkeys(settings.suites):
    suite = SUITES[name]
    own_of = {'questions': settings.questions, 'kinds': settings.kinds}
    files = Files(settings.folder, limit, **own_of)
    if suite.permitted and settings.confirm_run_unsafe_code:
      suite = dataclasses.replace(suite, judge=suite.permitted)
    if suite.ruled and settings.judge and not judges.is_model(settings.judge):
      judge = judges.load(settings.judge)
      suite = dataclasses.replace(suite, judge=judge, prompted=None)
    if suite.prompted and settings.judge_prompts:
      prompts = prompts_lib.read(settings.judge_prompts, limit)
      suite = dataclasses.replace(suite, judge=suite.prompted(prompts))
    rows = suite.read(files)
    ids = collections.Counter((row.get('kind', ''), row['id']) for row in rows)
    (_, id), times = ids.most_common(1)[0]
    if times > 1:
      raise UserError(
        f'eval.suites={name!r}: {id!r} is the id of two questions; ids must '
        'differ'
      )
    used = tuple((p.name, _sha256(p)) for p in dict.fromkeys(files.used))
    suite = dataclasses.replace(suite, files=used)
    found.append(settled(suite, rows, settings))
  return found


def judge_of(
  name: str | None, suites: Sequence[str] = (), asks: bool = True
) -> Judge:
  """What judges a run: that of `eval.judge`, and those of its suites.

  asks: whether there are questions beside the suites; if not, the first suite's
  measures come first.

  Raises:
    UserError: there is none of this name, or its file cannot be used.
  """
  judge = scale.judge(kind='') if judges.is_model(name) else judges.load(name)
  judge = dataclasses.replace(judge, name=name or judge.name)
  own = {
    suite: SUITES[suite].judge for suite in suites or () if suite in SUITES
  }
  if not own:
    return judge
  first, *others = own.values()
  if asks or judge.score:
    first, others = judge, [*own.values()]
  measures = {measure.name: measure for measure in first.measures}
  for each in others:
    for measure in each.measures:
      if measure.needs == 'verdict':
        continue  # their answers are not reviewed
      if measure.name in measures:  # of another kind of questions
        of_kind = f'{measure.kind}_{measure.name}'
        measure = dataclasses.replace(measure, name=of_kind)
      measures[measure.name] = measure
  return dataclasses.replace(
    first, measures=tuple(measures.values()), suites=own, name=judge.name
  )


def _sha256(path: pathlib.Path) -> str:
  if path.is_dir():
    return ''
  return hashlib.sha256(path.read_bytes()).hexdigest()
