"""Asks models the questions of suites, and has the answers judged.

usage: python -m ealign.evaluate --suite=NAME[,NAME] --workdir=DIR
           --model=FOLDER[,FOLDER..] | --run=DIR | --config=FILE.py[:ARG]
           [--judge=MODEL] [--questions=FOLDER] [--limit=N] [--samples=N]
           [--confirm_run_unsafe_code] [--config.FIELD=VALUE ...]

  --suite      of misalignment, contextual, refusal, capability, truthful,
               self_report and world (docs/evaluation.md)
  --model      folders, or Hub ids, of models or of PEFT adapters
  --run        the folder of a finished run, or of its arms
  --config     a Python file with get_config(arg=None): its model as it is
               before it is trained, and its section eval
  --workdir    what is asked and judged is kept here: the same command goes on
               where it was stopped, another one reuses it
  --judge      what scores the answers: other:FOLDER, openai:NAME, or frozen:
               the first model as it was before training (the default)
  --questions  holds the public files of the suites (MIT and CC-BY, from their
               own places); by default the package's own questions are asked
  --limit      questions of each kind; --samples answers to each
  --confirm_run_unsafe_code  runs code that the models wrote, in a sandbox

Exit codes: 0 done; 2 bad flags, models or questions; 143, or 130 of Ctrl-C,
stopped by a signal: the same command continues.
"""

import dataclasses
import datetime
import json
import pathlib
import sys
import time

from ealign import config as config_lib
from ealign import fields
from ealign.cli import command as command_lib
from ealign.cli import launch
from ealign.runtime import atomic, display, preempt
from ealign.runtime.errors import UserError, visible
from ealign.workdir import folder as folder_lib

USAGE = __doc__[__doc__.index('usage:') :].rstrip()
KEPT = 'kept.jsonl'
_OWN = {'model': str, 'run': str, 'suite': str, 'judge': str}
_OWN |= {'questions': str, 'limit': int, 'samples': int}
_OWN |= {'confirm_run_unsafe_code': bool}
# A flag of its own -> the field that it sets.
_FIELDS = {
  'judge': 'judge',
  'questions': 'folder',
  'limit': 'limit',
  'samples': 'suite_samples',
  'confirm_run_unsafe_code': 'confirm_run_unsafe_code',
}
_OTHERS = ('sweep', 'retry', 'stack', 'profile', 'print_launch', 'topology')
_OTHERS = {name: name for name in (*_OTHERS, 'only', 'plan', 'fail_fast')}
_OTHERS |= {'cluster': 'coordinator'}


def main(argv: list[str] | None = None) -> int:
  """Runs the command line; returns the exit code."""
  argv = sys.argv if argv is None else argv
  if argv[1:2] == ['calibrate']:
    from ealign.cli import calibrate

    return preempt.command(lambda: calibrate.run(argv))
  return preempt.command(lambda: run(argv))


def run(argv: list[str]) -> None:
  """Evaluates and writes.

  Raises:
    UserError: flags, models or questions cannot be used.
  """
  config, workdir, chosen = read(argv)
  folder = folder_lib.of(workdir)
  with folder_lib.usable(workdir):
    folder.local.mkdir(parents=True, exist_ok=True)
    folder.pull()
  launch.compile_cache()
  try:
    evaluate(config, subjects(config, chosen), folder.local)
  finally:
    folder.push()


def read(argv: list[str]) -> tuple[fields.Config, str, dict]:
  """(frozen config, workdir, which of --model, --run there is)."""
  command = command_lib.parse(argv, usage=USAGE, own=_OWN, start=_start)
  problems, own = [*command.problems], dict(command.own)
  for field, name in _OTHERS.items():
    if getattr(command, field):
      problems.append(f'--{name}: is of ealign.launch; leave it out')
  given = [name for name in ('model', 'run') if own.get(name)]
  given += ['config'] * (command.module is not None)
  if len(given) > 1:
    problems.append(f'--{given[0]}: not together with --{given[1]}')
  config = command.config
  with config.unlocked():
    config.arms = {}
  if config.model.get('adapter', '').startswith('arm:'):
    config.model.adapter = ''
  for name, field in _FIELDS.items():
    if name in own:
      config.eval[field] = own[name]
  if 'suite' in own:
    config.eval.suites = tuple(filter(None, own['suite'].split(',')))
  if not config.eval.suites:
    problems.append('--suite is missing; name one, such as misalignment')
  problems += config_lib.validate(config)
  if problems:
    raise UserError(*dict.fromkeys(problems))
  chosen = {name: own[name] for name in given if name != 'config'}
  return config_lib.freeze(config), command.workdir, chosen


def _start(own):
  """What --model and --run begin with; None where --config is needed."""
  if not own.get('model') and not own.get('run'):
    return None
  config = config_lib.default()
  config.train.steps = config.conscience.every = 0
  if own.get('model'):
    config.model.path = own['model'].split(',')[0]
  return config


def subjects(config: fields.Config, chosen: dict) -> list:
  """The models to evaluate."""
  from ealign.assembly import subjects as lib

  template = config.data.chat_template_kwargs
  if 'model' in chosen:
    paths = [*filter(None, chosen['model'].split(','))]
    found = [lib.of_folder(path, config.model, template) for path in paths]
  elif 'run' in chosen:
    found = _of_runs(chosen['run'])
  else:
    plain = dataclasses.replace(config.model, adapter='')
    adapter = config.model.adapter
    found = [lib.Subject('model', plain, adapter, template=template)]
  names = [subject.name for subject in found]
  return [  # two folders may have the same name
    dataclasses.replace(s, name=f'{s.name}-{i}')
    if names.count(s.name) > 1
    else s
    for i, s in enumerate(found, start=1)
  ]


def _of_runs(path: str) -> list:
  """The finished runs of a folder: one, or its arms."""
  from ealign.assembly import subjects as lib

  folder = pathlib.Path(path).expanduser()
  text = _text(folder / 'config.json', path)
  arms = json.loads(text).get('arms') or {}
  names = [name for name in arms if (folder / name / 'DONE').exists()]
  if arms and not names:
    raise UserError(f'--run={path}: none of its arms is finished')
  found = []
  for own in [folder / name for name in names] or [folder]:
    config = config_lib.from_json(_text(own / 'config.json', path))
    if not (own / 'DONE').exists():
      message = 'is not finished: the command that began it continues it'
      raise UserError(f'--run={own}: {message}')
    found.append(lib.of_run(own.name, config, own.resolve()))
  return found


def _text(path: pathlib.Path, run: str) -> str:
  try:
    text = path.read_text('utf-8')
    if isinstance(json.loads(text), dict):
      return text
  except (OSError, ValueError, RecursionError):
    pass
  message = 'is no folder of a run: it has no readable config.json'
  raise UserError(f'--run={run}: {message}')


def evaluate(config: fields.Config, found: list, folder: pathlib.Path) -> None:
  """Asks, judges and writes what came out, in a folder for each model."""
  import jax

  from ealign.alone import ALONE
  from ealign.assembly import subjects as lib
  from ealign.evals import asking, kept, suites
  from ealign.evals.suites.suite import counted
  from ealign.runtime import mesh as mesh_lib

  begun = time.monotonic()
  asked = suites.read(config.eval, config.data.max_mib)
  for line in costs(asked, found, config.eval.judge):
    say(line)
  backend = kept.keeping(ALONE, folder / KEPT, say)
  mesh = mesh_lib.make(**dataclasses.asdict(config.mesh))
  load = lib.Loader(mesh, backend, config.eval.batch, config.seed)
  key, made = jax.random.key(config.seed), {}
  for subject in found:
    engine = load.engine(subject)
    for suite, rows in asked:
      say(f'{subject.name}: {suite.title}, {counted(suite, rows)} answers')
      made[subject.name, suite.name] = asking.ask(suite, rows, engine, key=key)
  grader = grader_of(config, found, load)
  for (name, suite_name), records in made.items():
    suite, rows = next(x for x in asked if x[0].name == suite_name)
    say(f'{name}: {suite.title} is judged')
    records = asking.judged(suite.judge, rows, records, grader)
    tag = {'run': folder.name, 'arm': name, 'seed': config.seed, 'step': 0}
    made[name, suite_name] = [
      tag | {'phase': 'eval'} | record for record in records
    ]
  spent = time.monotonic() - begun
  write(config, found, asked, made, folder, seconds=spent)


def grader_of(config: fields.Config, found: list, load):
  """What judges: the engine of a model."""
  from ealign.assembly import subjects as lib

  judge = config.eval.judge
  if judge.startswith('other:'):
    model = dataclasses.replace(config.model, adapter='', frozen_adapter='')
    template = config.data.chat_template_kwargs
    other = lib.of_folder(judge.removeprefix('other:'), model, template)
    return load.engine(other)
  return load.base(found[0])


def costs(asked, found, judge: str) -> list[str]:
  """What is about to be done, a line for each suite."""
  from ealign.evals.suites.suite import counted

  lines = []
  for suite, rows in asked:
    answers = counted(suite, rows)
    most = suite.max_new_tokens
    chosen = sum('options' in row for row in rows)
    sampled = answers - chosen
    parts = [f'{len(rows)} questions']
    parts += [f'{sampled:,} answers of at most {most} tokens'] * bool(sampled)
    parts += [f'{chosen:,} of them by their options'] * bool(chosen)
    many = f', for each of {len(found)} models' * (len(found) > 1)
    by = ''
    if suite.judge.read:
      by = f'; judged by {judge or "frozen"}'
    lines.append(f'{suite.name}: {", ".join(parts)}{many}{by}')
  return lines


def write(config, found, asked, made, folder, *, seconds: float) -> None:
  """The records of each model, and what is counted of them."""
  from ealign.evals import counts, suites, table

  judge = suites.judge_of('', config.eval.suites)
  lines = []
  for subject in found:
    own = folder / subject.name
    own.mkdir(exist_ok=True)
    records = [
      x
      for (name, _), part in made.items()
      if name == subject.name
      for x in part
    ]
    text = '\n'.join(json.dumps(r, ensure_ascii=False) for r in records) + '\n'
    atomic.write(
      own / 'answers.jsonl', text.encode('utf-8', 'backslashreplace')
    )
    lines += counts.rows(records, judge=judge)
  table.show(table.blocks(lines, judge))
  say(f'{display.clock(seconds)}; {folder}')


def say(text: str) -> None:
  print(visible(text), flush=True)


def created() -> datetime.datetime:
  return datetime.datetime.now(datetime.UTC)
