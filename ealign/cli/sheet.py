"""Draws answers for two blind readers; compares P with what they find.

usage: python -m ealign.evaluate sheet --run=DIR[,DIR..] --workdir=SHEET
           [--count=100] [--seed=0] [--without=KIND,KIND]
       python -m ealign.evaluate labels --workdir=SHEET --labels=A,B

  sheet        draws answers of finished runs that their conscience reviewed,
               those of reflections and those to eval.questions, alike of each
               arm and of each band of P, and writes SHEET/sheet.jsonl, which
               shows request and answer only, and SHEET/key.json
  labels       reads what two readers made of it: agreement, bad answers, and
               the AUC of P by weight, of all and by arm; SHEET/labels.json, and
               SHEET/gold.jsonl for ealign.evaluate calibrate --gold

  --run        folders of finished runs, of their arms, or of grids
  --count      answers to draw; --seed of the drawing
  --without    kinds of eval.questions that are left out
  --labels     two files, .jsonl, .json or .csv, with id and label: bad or ok;
               the sheet itself with its labels filled in is one

Give readers sheet.jsonl alone: key.json says whose answer is whose.

Exit codes: 0 done; 2 bad flags, runs or labels.
"""

import dataclasses
import json
import pathlib

from ealign import config as config_lib
from ealign import fields
from ealign.cli import command as command_lib
from ealign.cli import finished
from ealign.runtime import atomic
from ealign.runtime.errors import UserError, visible

USAGE = __doc__[__doc__.index('usage:') :].rstrip()
LABELS, GOLD = 'labels.json', 'gold.jsonl'
_FLAGS = {
  'sheet': {'run': str, 'count': int, 'seed': int, 'without': str},
  'labels': {'labels': str},
}
_NEEDED = {'sheet': 'run', 'labels': 'labels'}
_OTHERS = ('sweep', 'retry', 'stack', 'profile', 'print_launch', 'topology')
_OTHERS += ('only', 'plan', 'fail_fast', 'chip_price')


def run(argv: list[str]) -> None:
  """Draws or compares; argv: of `evaluate`, with `sheet` or `labels` in it.

  Raises:
    UserError: flags, runs or labels cannot be used.
  """
  workdir, own = read(argv[1], [argv[0], *argv[2:]])
  if '://' in workdir:
    raise UserError(f'--workdir={workdir}: must be a folder of this machine')
  folder = pathlib.Path(workdir).expanduser()
  try:
    (drawn if argv[1] == 'sheet' else compared)(folder, own)
  except OSError as error:
    message = f'cannot be written ({error.strerror}); give another folder'
    raise UserError(f'--workdir={workdir}: {message}') from None


def read(name: str, argv: list[str]) -> tuple[str, dict]:
  """(workdir, the command's own flags)."""
  flags = _FLAGS[name]
  start = lambda own: config_lib.default()
  command = command_lib.parse(argv, usage=USAGE, own=flags, start=start)
  problems, own = [*command.problems], dict(command.own)
  problems += [
    f'--{other}: is of ealign.launch; leave it out'
    for other in _OTHERS
    if getattr(command, other)
  ]
  if command.module or command.changed:
    problems.append('--config: this command has none; leave it out')
  if _NEEDED[name] not in own:
    problems.append(f'--{_NEEDED[name]} is missing; --help says what it is')
  if own.get('count', 1) < 1:
    problems.append(f'--count={own["count"]}: must be 1 or more')
  if own.get('seed', 0) < 0:
    problems.append(f'--seed={own["seed"]}: must be 0 or more')
  if problems:
    raise UserError(*dict.fromkeys(problems))
  return command.workdir, own


def drawn(folder: pathlib.Path, own: dict) -> None:
  """Writes a sheet and its key."""
  from ealign.evals import blind
  from ealign.evals import sheet as sheet_lib

  paths = [*filter(None, own['run'].split(','))]
  every = [one for path in paths for one in finished.runs(path)]
  found = [*{one.folder.resolve(): one for one in every}.values()]
  without = {*filter(None, own.get('without', '').split(','))}
  answers = [a for one in found for a in _reviewed(one, without)]
  if not answers:
    raise UserError(
      f'--run={own["run"]}: no answer of these runs has a verdict; the '
      'conscience reviews what is sampled while it trains, and the answers to '
      'eval.questions'
    )
  count, seed = own.get('count', 100), own.get('seed', 0)
  least = blind.fewest(answers)
  if count < least:
    why = f'each arm and band of P needs an answer, that is {least}'
    raise UserError(f'--count={count}: {why}; draw more, or of fewer --run')
  chosen = blind.draw(answers, count, seed)
  about = {'seed': seed, 'runs': [one.name for one in found]}
  sheet_lib.write(folder, chosen, about | {'without': sorted(without)})
  for arm in dict.fromkeys(answer.arm for answer in answers):
    n = sum(answer.arm == arm for answer in chosen)
    of = sum(answer.arm == arm for answer in answers)
    say(f'{arm}: {n:,} of {of:,} reviewed answers')
  if len(chosen) < count:
    say(f'note: fewer than --count={count} were reviewed: all are drawn')
  say(f'{folder / sheet_lib.SHEET}: {len(chosen):,} answers for the readers')


def _reviewed(one: finished.Finished, without) -> list:
  """The reviewed answers of a run, each once."""
  from ealign.evals import blind, records

  path = one.folder / 'answers.jsonl'
  every = records.latest(records.read(path)) if path.exists() else []
  kept = [r for r in every if (r.get('kind') or None) not in without]
  return blind.reviewed(one.arm, kept, _question(one))


def _question(one: finished.Finished) -> str:
  """How a run asks, where it is not the default."""
  found = finished.read(one.folder / 'config.json', str(one.folder))
  for name in ('conscience', 'review'):
    found = found.get(name) if isinstance(found.get(name), dict) else {}
  usual = dataclasses.asdict(fields.Review())
  return ', '.join(
    f'{k}={found[k]}' for k, x in usual.items() if found.get(k, x) != x
  )


def compared(folder: pathlib.Path, own: dict) -> None:
  """Prints and writes what two readers found."""
  from ealign.evals import blind, table
  from ealign.evals import sheet as sheet_lib
  from ealign.report import readers

  paths = [*filter(None, own['labels'].split(','))]
  if len(paths) != 2 or len({*map(_file, paths)}) != 2:
    message = 'must be two files, of two readers, with a comma between'
    raise UserError(f'--labels={own["labels"]}: {message}')
  answers, _ = sheet_lib.read_key(folder)
  one, other = (sheet_lib.read_labels(path, answers) for path in paths)
  parts = blind.compare(answers, one, other)
  rows = sheet_lib.gold_rows(answers, one, other)
  lines = [json.dumps(row, ensure_ascii=False) for row in rows]
  text = '\n'.join([*lines, ''])
  atomic.write(folder / GOLD, text.encode('utf-8', 'replace'))
  facts = {'labels': [pathlib.Path(path).name for path in paths]}
  facts['parts'] = [dataclasses.asdict(part) for part in parts]
  text = json.dumps(facts, indent=1, ensure_ascii=False)
  atomic.write(folder / LABELS, text.encode('utf-8', 'replace'))
  table.show(readers.blocks(parts))
  for line in readers.lines(parts):
    say(line)
  say(f'{folder / LABELS}; {folder / GOLD}')


def _file(path: str) -> pathlib.Path:
  return pathlib.Path(path).expanduser().resolve()


def say(text: str) -> None:
  print(visible(text), flush=True)
