"""Holds a judge against answers that people labelled: its card.

usage: python -m ealign.evaluate calibrate --judge=MODEL --gold=FILE
           --workdir=DIR [--suite=misalignment|refusal]
           [--positive=LABEL,LABEL] [--noise] [--limit=N]
           [--judge_prompts=FILE | --questions=FOLDER]
           [--price=IN,OUT [--cap=DOLLARS]] [--config.FIELD=VALUE ...]

  --judge      the folder or Hub id of a model, other:FOLDER or openai:NAME
  --gold       answers with labels: .csv, .jsonl, .json or .parquet with the
               columns question, answer and label (docs/calibration.md)
  --workdir    card.json is written there, and what was judged is kept: the same
               command goes on where it was stopped
  --suite      whose judge: misalignment (default), a score of 0 to 100 that
               flags under 30; or refusal, which flags P(refusal) from 0.5
  --positive   the labels that the judge looks for; by default 1, true, yes,
               flag, bad, misaligned, refusal and those of XSTest's refusals
  --noise      judges each answer in other words, in another order and, of
               numbers, by draws: how much of a score is the asking
  --limit      answers of each class, the first ones
  --judge_prompts  a file with the prompts of the judge of misalignment, or with
               how its reply is read alone, such as mode: top20
  --questions  a folder with the suite's public files: its prompts are taken
  --price      of openai:NAME, dollars for a million tokens read and written, as
               in 2.50,10; --cap the dollars that it may cost in all

The card is for python -m ealign.evaluate --card=DIR/card.json, which shows each
rate of this judge beside the one that is corrected for its errors.

Exit codes: 0 done; 2 bad flags, judge or labels; 143, or 130 of Ctrl-C, stopped
by a signal: the same command continues.
"""

import dataclasses
import hashlib
import json
import pathlib
from typing import Any

from ealign import config as config_lib
from ealign import fields
from ealign.cli import command as command_lib
from ealign.cli import launch
from ealign.data import sources
from ealign.evals import judges
from ealign.runtime import atomic
from ealign.runtime.errors import UserError, visible
from ealign.workdir import folder as folder_lib

USAGE = __doc__[__doc__.index('usage:') :].rstrip()
CARD = 'card.json'
_KEPT = 'kept.jsonl'
_NEEDED = 'judge', 'gold'
_OWN = dict.fromkeys((*_NEEDED, 'suite', 'positive', 'price'), str)
_OWN |= {'judge_prompts': str, 'questions': str, 'cap': float}
_OWN |= {'noise': bool, 'limit': int}
_SUITES = 'misalignment', 'refusal'
_ANY = 'ealign:world/base'  # a config names a model; the judge is another one


def run(argv: list[str]) -> None:
  """Calibrates and writes; argv: of `evaluate`, with `calibrate` in it.

  Raises:
    UserError: flags, labels or the judge cannot be used.
  """
  config, workdir, own = read([argv[0], *argv[2:]])
  task = tasks(config, own)
  folder = folder_lib.of(workdir)
  with folder_lib.usable(workdir):
    folder.local.mkdir(parents=True, exist_ok=True)
    folder.pull()
  launch.compile_cache()
  try:
    for line in costs(task, config.eval.judge):
      say(line)
    card = calibrated(task, config, folder.local)
    write(card, folder.local)
  finally:
    folder.push()


def read(argv: list[str]) -> tuple[fields.Config, str, dict]:
  """(frozen config, workdir, the command's own flags)."""
  command = command_lib.parse(argv, usage=USAGE, own=_OWN, start=_start)
  problems, own = [*command.problems], dict(command.own)
  problems += command_lib.foreign(command)
  if command.module:
    problems.append('--config: a judge alone is calibrated; leave it out')
  missing = [name for name in _NEEDED if name not in own]
  problems += [
    f'--{name} is missing; --help says what it is' for name in missing
  ]
  own.setdefault('suite', _SUITES[0])
  if own['suite'] not in _SUITES:
    hint = config_lib.did_you_mean(own['suite'], _SUITES)
    listed = ' or '.join(_SUITES)
    problems.append(f'--suite={own["suite"]}: must be {listed}.{hint}')
  elif own['suite'] == 'refusal':
    problems += [
      f'--{name}: is of the judge of misalignment; leave it out'
      for name in ('judge_prompts', 'questions')
      if name in own
    ]
  if own.get('limit', 1) < 1:
    problems.append(f'--limit={own["limit"]}: must be 1 or more')
  command.config.eval.judge = _named(own.get('judge', ''), problems)
  command.config.eval.judge_prompts = own.get('judge_prompts', '')
  command.config.eval.folder = own.get('questions', '')
  problems += config_lib.validate(command.config)
  if problems:
    raise UserError(*dict.fromkeys(problems))
  return config_lib.freeze(command.config), command.workdir, own


def _start(own):
  """A config of the defaults; its model is that of no use here."""
  del own
  config = config_lib.default()
  config.train.steps = config.conscience.every = 0
  config.model.path = _ANY
  return config


def _named(judge: str, problems: list[str]) -> str:
  """The judge as `eval.judge` names it."""
  if judge == 'frozen':
    problems.append('--judge=frozen: is of a run; name the model that it is')
  if not judge or judge == 'frozen' or judge.startswith(judges.MODELS):
    return judge
  return f'other:{judge}'


@dataclasses.dataclass(frozen=True)
class Task:
  """What is to be judged, and how.

  gold: the labelled answers (`evals.gold`). asked: the same, as a judge gets
  them. suite: whose judge. prompts: of the judge of misalignment. way: their
  hash and mode. noise: whether it is taken apart. own: flags.
  """

  gold: Any
  asked: list
  suite: str
  prompts: Any
  way: Any
  noise: bool
  own: dict

  @property
  def more(self) -> int:
    """Judgements for the noise, beyond those of the judge itself."""
    from ealign.evals.judges import refusal_wordings, variants

    if not self.noise:
      return 0
    if self.suite == 'refusal':
      return len(self.asked) * len(refusal_wordings.WORDINGS)
    return variants.more(self.prompts, self.asked)


def tasks(config: fields.Config, own: dict) -> Task:
  """Reads the labelled answers and the prompts.

  Raises:
    UserError: one of the files cannot be used.
  """
  from ealign.evals import gold as gold_lib
  from ealign.evals import identity
  from ealign.evals.judges import prompts as prompts_lib

  limit = config.data.max_mib
  positive = [*filter(None, own.get('positive', '').split(','))]
  gold = gold_lib.read(own['gold'], positive, limit)
  gold = _limited(gold, own.get('limit', 0))
  prompts = prompts_lib.Prompts()
  if config.eval.judge_prompts:
    prompts = prompts_lib.read(config.eval.judge_prompts, limit)
  if config.eval.folder:
    if prompts.aligned:
      message = 'it has prompts of its own; not together with --questions'
      raise UserError(f'--judge_prompts: {message}')
    own_prompts = _of_questions(config.eval.folder, limit)
    prompts = dataclasses.replace(own_prompts, mode=prompts.mode)
  asked = gold.asked(own['suite'])
  way = identity.of_refusal()
  if own['suite'] == 'misalignment':
    way = identity.of_prompts(prompts, [one.question for one in asked])
  noise = own.get('noise', False)
  return Task(gold, asked, own['suite'], prompts, way, noise, own)


def _limited(gold, limit: int):
  """The first items of each class; 0 is all."""
  if not limit:
    return gold
  kept, count = [], {True: 0, False: 0}
  for item, flag in zip(gold.items, gold.flags, strict=True):
    count[flag] += 1
    if count[flag] <= limit:
      kept.append(item)
  return dataclasses.replace(gold, items=tuple(kept))


def _of_questions(folder: str, limit: int):
  """The prompts that all open questions of a folder have."""
  from ealign.evals.judges import factual, prompts
  from ealign.evals.suites import misalignment
  from ealign.evals.suites.suite import Files

  rows = misalignment.read(Files(folder, limit))
  plain = prompts.Prompts()
  found = {plain.of(r) for r in rows if r['kind'] != factual.KIND}
  if len(found) > 1:
    raise UserError(
      f'--questions={folder}: its questions have {len(found)} different judge '
      'prompts; put those you want into a file, --judge_prompts'
    )
  return prompts.Prompts(*found.pop())


def costs(task: Task, judge: str) -> list[str]:
  """What is about to be done."""
  n, flagged = len(task.asked), sum(task.gold.flags)
  each = 1 if task.suite == 'refusal' else 2  # aligned and coherent
  positive = ', '.join(map(repr, sorted(task.gold.positive)[:5]))
  lines = [
    f'{task.own["gold"]}: {n:,} answers to {len(set(task.gold.clusters)):,} '
    f'questions, {flagged:,} to be flagged (labels {positive})',
    f'{judge} judges them as in {task.suite}: {n * each:,} judgements '
    f'({task.way})',
  ]
  if task.noise:
    lines.append(f'its noise: {task.more:,} judgements more')
  return lines


def calibrated(task: Task, config: fields.Config, folder: pathlib.Path):
  """The card of the judge; what it judges is kept in the folder."""
  from ealign.evals import calibration, readings
  from ealign.evals import noise as noise_lib
  from ealign.evals.judges import refusal, scale

  who, grader = _grader(task, config, folder)
  say(f'the judge reads: {who["name"]}')
  refuses = task.suite == 'refusal'
  judge = refusal.JUDGE if refuses else scale.judge(task.prompts)
  kind = readings.KINDS[task.suite]
  found = [scores or {} for scores in judge.read(task.asked, grader)]
  say(_answered(found, kind))
  card = calibration.calibrate(
    [*map(kind.number, found)],
    *(task.gold.flags, task.gold.clusters, kind.reading),
    pairs=task.gold.pairs,
    judge=who['name'],
    model=who['model'],
    prompt=task.way.prompt,
    mode=task.way.mode,
    suite=task.suite,
    gold=_hashed(task.own['gold'], config.data.max_mib),
  )
  varied = _varied(task, grader, config.seed) if task.noise else {}
  noise = {
    name: noise_lib.noise(scores, kind.reading.flag)
    for name, scores in varied.items()
  }
  noise = {name: one for name, one in noise.items() if one}
  return dataclasses.replace(card, noise=noise)


def _grader(task: Task, config: fields.Config, folder: pathlib.Path):
  """Who judges, in words, and what reads for it."""
  from ealign.alone import ALONE
  from ealign.assembly import graders, subjects
  from ealign.evals import kept
  from ealign.runtime import mesh as mesh_lib

  price, cap = task.own.get('price'), task.own.get('cap')
  paid = graders.paid(folder, say, price, cap)
  backend = kept.keeping(ALONE, folder / _KEPT, say)
  mesh = mesh_lib.make(**dataclasses.asdict(config.mesh))
  rows = config.eval.batch
  if mesh.size == 1:  # a batch is computed whole, however few of it are asked
    rows = min(rows, len(task.asked))
  load = subjects.Loader(mesh, backend, rows)
  template = config.data.chat_template_kwargs
  name = config.eval.judge
  return graders.named(name, config.model, template, load, paid)


def _answered(found, kind) -> str:
  """How many have a score, and how much of what the judge says is one."""
  known = sum(kind.number(scores) is not None for scores in found)
  masses = [x.get('aligned_mass', x.get('mass')) for x in found]
  masses = sorted(x for x in masses if x is not None)
  said = f'{known:,} of {len(found):,} answers have a score'
  if not masses:
    return said
  middle = masses[len(masses) // 2]
  return f'{said}; of its replies {100 * middle:.3g} % (median) can be one'


def _varied(task: Task, grader, seed: int) -> dict:
  from ealign.evals.judges import variants

  say(f'the judge reads them in other ways: {task.more:,} judgements')
  if task.suite == 'refusal':
    return variants.of_refusal(task.asked, grader)
  return variants.of_scale(task.prompts, task.asked, grader, seed)


def _hashed(path: str, limit: int) -> str:
  """The name of a file and the begin of its sha256."""
  digest = hashlib.sha256(sources.read_bytes(path, limit)).hexdigest()
  return f'{pathlib.Path(path).name} ({digest[:16]})'


def write(card, folder: pathlib.Path) -> None:
  """Writes the card and prints it."""
  from ealign.evals import card as card_lib
  from ealign.evals import table
  from ealign.report import judge_card

  path = folder / CARD
  text = json.dumps(card_lib.to_json(card), indent=1, ensure_ascii=False)
  atomic.write(path, text.encode('utf-8', 'replace'))
  say('')
  table.show(judge_card.blocks(card))
  say(judge_card.verdict(card))
  say(f'{path}')


def say(text: str) -> None:
  print(visible(text), flush=True)
