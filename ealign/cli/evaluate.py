"""Asks models the questions of suites, and has the answers judged.

usage: python -m ealign.evaluate --suite=NAME[,NAME] --workdir=DIR
           --model=FOLDER[,FOLDER..] | --run=DIR | --config=FILE.py[:ARG]
           [--judge=MODEL] [--questions=FOLDER] [--limit=N] [--samples=N]
           [--benign=NAME] [--card=FILE] [--price=IN,OUT [--cap=DOLLARS]]
           [--confirm_run_unsafe_code] [--plan [--topology=NAME]]
           [--config.FIELD=VALUE ...]
       python -m ealign.evaluate calibrate|sheet|labels|awareness --help

  --suite      of misalignment, contextual, harm, refusal, capability, truthful,
               self_report, self_report_framed, self_report_sampled, intentions,
               world and world_self; own: your questions, those of
               --config.eval.questions=FILE.jsonl (docs/evaluation.md)
  --model      folders, or Hub ids, of models or of PEFT adapters
  --run        the folder of a finished run, of its arms, or of a grid
  --config     a Python file with get_config(arg=None): its model as it is
               before it is trained, and its section eval
  --workdir    what is asked and judged is kept here: the same command goes on
               where it was stopped, another one reuses it
  --judge      what scores the answers: other:FOLDER, openai:NAME, or frozen:
               the first model without its adapter, or as its run found it;
               a folder of full weights is then its own judge (the default)
  --questions  holds the public files of the suites (MIT and CC-BY, from their
               own places); by default the package's own questions are asked
  --limit      questions of each kind, for a quick look; at most as many answers
               to each, or as many as --samples says
  --benign     the name of a model that was trained on something harmless: the
               others are compared with it, by default with the first
  --card       of this judge, from ealign.evaluate calibrate: each rate is shown
               corrected for the judge's errors as well
  --price      of openai:NAME, dollars for a million tokens read and written, as
               in 2.50,10; --cap the dollars that it may cost in all
  --plan       compiles without running: what it asks, takes and costs, on the
               devices here or on those of --topology, such as v5e:4x4; no
               weights are read; DIR/plan.json
  --confirm_run_unsafe_code  runs code that the models wrote, in a sandbox

Exit codes: 0 done; 1 what is planned does not fit; 2 bad flags, models or
questions; 143, or 130 of Ctrl-C, stopped by a signal: the same command
continues.
"""

import contextlib
import dataclasses
import datetime
import json
import pathlib
import sys

from ealign import config as config_lib
from ealign import fields
from ealign.cli import command as command_lib
from ealign.cli import finished, launch
from ealign.runtime import atomic, display, preempt
from ealign.runtime.errors import UserError, visible
from ealign.workdir import folder as folder_lib

USAGE = __doc__[__doc__.index('usage:') :].rstrip()
_OWN = {'model': str, 'run': str, 'suite': str, 'judge': str}
_OWN |= {'questions': str, 'limit': int, 'samples': int, 'benign': str}
_OWN |= {'card': str, 'price': str, 'cap': float}
_OWN |= {'confirm_run_unsafe_code': bool}
# What stands in a workdir beside the folders of models.
_FILES = ('inspect', 'lm_eval', 'csv', 'kept.jsonl', 'replies.jsonl')
_FILES += ('results.csv', 'evaluation.json', 'evaluation.html', 'card.json')
_FILES += ('plan.json',)
_MORE = ('benign', 'card', 'price', 'cap')
_PLAN = ('plan', 'topology')
# More rows at once are no faster there, and hold more memory (docs/log.md).
_CPU_ROWS = 16
# A flag of its own -> the field that it sets.
_FIELDS = {
  'judge': 'judge',
  'questions': 'folder',
  'limit': 'limit',
  'samples': 'suite_samples',
  'confirm_run_unsafe_code': 'confirm_run_unsafe_code',
}


def main(argv: list[str] | None = None) -> int:
  """Runs the command line; returns the exit code."""
  argv = sys.argv if argv is None else argv
  if argv[1:2] == ['calibrate']:
    from ealign.cli import calibrate

    return preempt.command(lambda: calibrate.run(argv))
  if argv[1:2] in (['sheet'], ['labels']):
    from ealign.cli import sheet

    return preempt.command(lambda: sheet.run(argv))
  if argv[1:2] == ['awareness']:
    from ealign.cli import awareness

    return preempt.command(lambda: awareness.run(argv))
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
  try:
    if chosen['plan']:
      return _plan(config, folder, chosen)
    launch.compile_cache()
    from ealign.assembly import evaluation
    from ealign.evals import card as card_lib

    card = card_lib.read(chosen['card']) if 'card' in chosen else None
    found, benign = subjects(config, chosen), chosen.get('benign')
    config = _sized(config, chosen)
    more = {name: chosen.get(name) for name in ('price', 'cap')}
    more['card'] = card
    made = evaluation.evaluate(config, found, folder.local, say, **more)
    write(made, found, config, folder.local, benign, card)
  finally:
    folder.push()


def _sized(config: fields.Config, chosen: dict) -> fields.Config:
  """With few rows at once on a CPU, where nobody says how many."""
  import jax

  free = chosen['free_batch'] and not chosen['topology']
  if not free or jax.default_backend() != 'cpu':
    return config
  few = dataclasses.replace(config.eval, batch=_CPU_ROWS)
  return dataclasses.replace(config, eval=few)


def _plan(config: fields.Config, folder, chosen: dict) -> None:
  """Prints what would be done; a folder without a plan is not left."""
  from ealign.plan import evaluation

  try:
    found = subjects(config, chosen)
    sized = _sized(config, chosen)
    evaluation.plan(sized, found, folder, slice_name=chosen['topology'])
  finally:
    with contextlib.suppress(OSError):  # it is not empty: there is a plan
      folder.local.rmdir()


def read(argv: list[str]) -> tuple[fields.Config, str, dict]:
  """(frozen config, workdir, flags: which of --model, --run there is)."""
  command = command_lib.parse(argv, usage=USAGE, own=_OWN, start=_start)
  problems, own = [*command.problems], dict(command.own)
  problems += command_lib.foreign(command, *_PLAN)
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
  chosen |= {name: own[name] for name in _MORE if name in own}
  chosen |= {name: getattr(command, name) for name in _PLAN}
  free = 'model' in chosen and 'eval.batch' not in command.changed
  chosen['free_batch'] = free
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
  from ealign.assembly import graders
  from ealign.assembly import subjects as lib

  template = config.data.chat_template_kwargs
  if 'model' in chosen:
    paths = [*filter(None, chosen['model'].split(','))]
    found = [lib.of_folder(path, config.model, template) for path in paths]
  elif 'run' in chosen:
    found = _of_runs(chosen['run'])
  else:
    plain = {'adapter': '', 'frozen_adapter': ''}
    plain = dataclasses.replace(config.model, **plain)
    own = {'adapter': config.model.adapter, 'seed': config.seed}
    own |= {'frozen_adapter': config.model.frozen_adapter}
    found = [lib.Subject('model', plain, template=template, **own)]
  for subject in found:
    lib.check(subject)
  judges = [name for name in [config.eval.judge] if name.startswith('other:')]
  reads = [graders.subject(name, config.model, template) for name in judges]
  lib.check_arguments([*found, *reads])
  found = _told_apart(found)
  benign, names = chosen.get('benign'), [subject.name for subject in found]
  if benign and benign not in names:
    hint, known = config_lib.did_you_mean(benign, names), ', '.join(names)
    raise UserError(f'--benign={benign}: no such model ({known}).{hint}')
  return found


def _told_apart(found: list) -> list:
  """The models with names that differ and are those of folders here."""
  from ealign.report import foreign

  used, made = set(_FILES), []
  for subject in found:
    name = at = foreign.safe(subject.name)
    number = 1
    while at in used:
      number += 1
      at = f'{name}-{number}'
    used.add(at)
    made.append(dataclasses.replace(subject, name=at))
  return made


def _of_runs(path: str) -> list:
  """The finished runs of a folder: one, its arms, or the cells of a grid."""
  from ealign.assembly import subjects as lib

  found = []
  for run in finished.runs(path):
    text = finished.text(run.folder / 'config.json', path)
    config = config_lib.from_json(text)
    names = 'path', 'frozen_adapter'
    own = {name: run.path(getattr(config.model, name)) for name in names}
    model = dataclasses.replace(config.model, **own)
    config = dataclasses.replace(config, model=model)
    one = lib.of_run(run.name, config, run.folder.resolve())
    cell = (run.arm, run.seed) if run.seed else None
    found.append(dataclasses.replace(one, cell=cell))
  return found


def write(
  made,
  found,
  config: fields.Config,
  folder: pathlib.Path,
  benign=None,
  card=None,
) -> None:
  """Writes the records, figures and pages, and prints the tables."""
  from ealign.evals import table
  from ealign.report import evaluation, exports

  settings = dataclasses.asdict(config.eval)
  about = {'judge': made.judge, 'models': made.models, 'settings': settings}
  _json(folder / 'evaluation.json', about)
  cells, now = [], datetime.datetime.now(datetime.UTC)
  for subject in found:
    own = folder / subject.name
    own.mkdir(exist_ok=True)
    lines = [json.dumps(r, ensure_ascii=False) for r in made.of(subject.name)]
    text = '\n'.join([*lines, ''])
    atomic.write(own / 'answers.jsonl', text.encode('utf-8', 'replace'))
    for suite, _ in made.suites:
      records = made.records[subject.name, suite.name]
      cells.append((subject.name, suite.name, records, suite.judge))
      exports.write(
        *(folder, subject.name, records, suite.judge),
        suite=suite.name,
        model=made.models[subject.name],
        created=now,
        settings=settings,
      )
  tokens = {n: x for n, x in made.models.items() if 'eval/loss' in x}
  atomic.write(folder / 'results.csv', exports.results_csv(cells, tokens))
  content = evaluation.collect(
    {subject.name: made.of(subject.name) for subject in found},
    [suite for suite, _ in made.suites],
    settings={'seed': config.seed} | settings,
    judge={name: str(value) for name, value in made.judge.items()},
    judge_card=card,
    files={suite.name: suite.files for suite, _ in made.suites},
    costs=[f'It took {display.clock(made.seconds)}.'],
    benign=benign,
    losses=_losses(found) | _measured(made),
    remarks=made.remarks,
    cells={subject.name: subject.cell for subject in found if subject.cell},
  )
  page = evaluation.write(folder, content)
  table.show(evaluation.blocks(content))
  for line in evaluation.lines(content):
    say(line)
  for name, about in made.models.items():
    if 'eval/loss' in about:
      right, loss = about['eval/mean_token_accuracy'], about['eval/loss']
      say(
        f'{name}: of {about["eval/num_tokens"]:,.0f} tokens of '
        f'{config.eval.tokens} {100 * right:.1f} % are predicted, at '
        f'{-loss:.3f} nats each'
      )
  say(f'\n{display.clock(made.seconds)}; {page}')


def _measured(made) -> dict[str, float]:
  models = made.models.items()
  return {n: about['eval/loss'] for n, about in models if 'eval/loss' in about}


def _losses(found) -> dict[str, float]:
  """The last loss on SFT tokens of each model that a run left."""
  from ealign.evals import counts
  from ealign.report import runs

  losses = {}
  for subject in found:
    folder = subject.adapter or subject.whole.removesuffix('/model')
    rows = (
      runs.json_lines(pathlib.Path(folder, 'metrics.jsonl')) if folder else []
    )
    for name in ('eval/loss', 'train/loss_sft', 'train/loss'):
      loss = counts.last_metric(rows, name)
      if loss is not None:
        losses[subject.name] = loss
        break
  return losses


def _json(path: pathlib.Path, facts: dict) -> None:
  text = json.dumps(facts, indent=1, ensure_ascii=False)
  atomic.write(path, text.encode('utf-8', 'replace'))


def say(text: str) -> None:
  print(visible(text), flush=True)
