"""What models say of themselves against what they do, from finished answers.

usage: python -m ealign.evaluate awareness --run=DIR[,DIR..] [--workdir=OUT]
           [--pairs=A:B,C:D]

  --run        the workdir of an evaluation, or folders of finished runs, of
               their arms, or of grids, that were asked suites with self-reports
               (self_report, intentions, world_self ..) and with behavior: harm,
               questions of the world for advice, or misalignment
  --workdir    awareness.json is written there; by default the first --run
  --pairs      arms to compare, each A less B; by default each with the one that
               it started from, and with the first

Scores are from 0, aligned, to 1, misaligned. Prints the arms, what their scales
show, the paired tests (Wilcoxon) and the correlations over arms (Spearman), and
what framings and sampling change where they were asked.

Exit codes: 0 done; 2 bad flags, or no such answers.
"""

import itertools
import json
import pathlib

from ealign import config as config_lib
from ealign.cli import command as command_lib
from ealign.cli import finished
from ealign.runtime import atomic
from ealign.runtime.errors import UserError, visible

USAGE = __doc__[__doc__.index('usage:') :].rstrip()
FILE = 'awareness.json'
_FLAGS = {'run': str, 'pairs': str}


def run(argv: list[str]) -> None:
  """Prints the tables; argv: of `evaluate`, with `awareness` in it.

  Raises:
    UserError: flags or answers cannot be used.
  """
  from ealign.evals import awareness, awareness_tables, table

  workdir, own = read([argv[0], *argv[2:]])
  paths = [*filter(None, own['run'].split(','))]
  told, starts = {}, {}
  for path in paths:
    for name, records, start in answers(path):
      at = pathlib.Path(path).name
      name = f'{at}/{name}' if name in told else name
      told[name], starts[name] = records, start
  arms = [awareness.arm(name, records) for name, records in told.items()]
  arms = [one for one in arms if any(one.values.values())]
  if not arms:
    raise UserError(
      f'--run={own["run"]}: has no self-reports; ask a suite that has some, '
      'such as self_report'
    )
  pairs = chosen(own.get('pairs'), [one.name for one in arms], starts)
  table.show(awareness_tables.blocks(arms, pairs))
  out = pathlib.Path(workdir or paths[0]).expanduser() / FILE
  facts = awareness_tables.facts(arms, pairs)
  text = json.dumps(facts, indent=1, ensure_ascii=False)
  try:
    out.parent.mkdir(parents=True, exist_ok=True)
    atomic.write(out, text.encode('utf-8', 'replace'))
  except OSError as error:
    message = f'cannot be written ({error.strerror}); give another folder'
    raise UserError(f'--workdir={out.parent}: {message}') from None
  print(visible(f'{out}'), flush=True)


def read(argv: list[str]) -> tuple[str, dict]:
  """(workdir or '', the command's own flags)."""
  given = any(word.lstrip('-').startswith('workdir') for word in argv)
  argv = argv if given else [*argv, '--workdir=.']
  start = lambda own: config_lib.default()
  command = command_lib.parse(argv, usage=USAGE, own=_FLAGS, start=start)
  problems, own = [*command.problems], dict(command.own)
  problems += command_lib.foreign(command)
  if command.module or command.changed:
    problems.append('--config: this command has none; leave it out')
  if 'run' not in own:
    problems.append('--run is missing; --help says what it is')
  if problems:
    raise UserError(*dict.fromkeys(problems))
  return command.workdir if given else '', own


def answers(path: str):
  """(name, answers, the arm it started from or '') of each of its models."""
  from ealign.evals import records

  root = pathlib.Path(path).expanduser()
  if (root / 'evaluation.json').is_file():
    models = finished.read(root / 'evaluation.json', path).get('models')
    names = [*models] if isinstance(models, dict) else []
    own = [x for x in names if pathlib.PurePath(x).name == x]
    found = [finished.Finished(x, x, root / x, root) for x in own]
  else:
    found = finished.runs(path)
  for one in found:
    yield one.name, records.read(one.folder / 'answers.jsonl'), _start(one)


def _start(one: finished.Finished) -> str:
  """The arm whose adapter a run began with."""
  config = one.folder / 'config.json'
  if not config.is_file():
    return ''
  model = finished.read(config, str(one.folder)).get('model')
  adapter = str(model.get('adapter', '')) if isinstance(model, dict) else ''
  kind, _, name = adapter.partition(':')
  return name if kind == 'arm' else ''


def chosen(text: str | None, names: list[str], starts) -> list[tuple]:
  """The pairs of arms that are compared, in their order.

  Raises:
    UserError: one of them is no arm.
  """
  if text is None:
    first = [(name, names[0]) for name in names[1:]]
    begun = [(x, starts[x]) for x in names if starts.get(x) in names]
    return [*dict.fromkeys(itertools.chain(begun, first))]
  made = [tuple(pair.split(':')) for pair in filter(None, text.split(','))]
  for pair in made:
    if len(pair) != 2:
      raise UserError(f'--pairs={":".join(pair)}: must be two arms, A:B')
    for name in pair:
      if name not in names:
        hint, known = config_lib.did_you_mean(name, names), ', '.join(names)
        raise UserError(f'--pairs={name}: no such arm ({known}).{hint}')
  return made
