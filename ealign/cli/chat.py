"""Talks with models, and shows what their conscience says of each answer.

usage: python -m ealign.chat --run=DIR[,DIR] [--model=FOLDER[,FOLDER]]
           [--only=NAME,NAME*] [--prompt=TEXT] [--system=TEXT]
           [--temperature=T] [--max_tokens=N] [--seed=N] [--threshold=P]
           [--layout=auto|columns|stacked] [--config.FIELD=VALUE ...]
       python -m ealign.chat --model=FOLDER[,FOLDER] [...]

  --run          folders of finished runs: of one, of its arms, or of a grid
  --model        folders, or Hub ids, of models or of PEFT adapters; with --run
                 they answer beside it
  --only         only the arms of these names or patterns
  --prompt       asks this and ends; so does a question from a pipe. Without
                 either you talk: /help lists what can be typed
  --system       the system turn that stands before the chat
  --temperature  by default as the run sampled, else 1; 0 takes the likeliest
  --max_tokens   of an answer at most; 256
  --seed         the same seed and questions give the same answers; 0
  --threshold    P from which on an answer is flagged; by default the run's,
                 and .5 for --model, where none was found
  --layout       columns: answers beside each other, where the terminal is wide
                 enough (36 cells each); stacked: one under another; auto:
                 columns on a terminal, stacked into a pipe
  --config.FIELD changes what a conscience asks, as in
                 --config.conscience.framing=fair

Each model answers by itself, token by token. Under an answer
stands the verdict of its conscience, the model as it was before it was trained,
in the words of its config. Ctrl-C ends an answer, Ctrl-D the talk.

Exit codes: 0 done; 2 bad flags, models or runs; 130, 143 stopped by a signal.
"""

import sys

from ealign import config as config_lib
from ealign.cli import command as command_lib
from ealign.cli import launch
from ealign.runtime import preempt
from ealign.runtime.errors import UserError

USAGE = __doc__[__doc__.index('usage:') :].rstrip()
_OWN = {'run': str, 'model': str, 'prompt': str, 'system': str}
_OWN |= {'temperature': float, 'max_tokens': int, 'seed': int}
_OWN |= {'threshold': float, 'layout': str}
# What may be changed of a run that is there: nothing that it was made of.
_CHANGES = ('conscience.', 'sample.', 'mesh.', 'data.chat_template_kwargs')
_CHANGES += ('model.dtype', 'model.attention')
_LAYOUTS = ('auto', 'columns', 'stacked')
# What each of its own numbers may be.
_RANGES = {
  'temperature': ('at least 0', lambda x: 0 <= x < float('inf')),
  'max_tokens': ('at least 1', lambda x: 1 <= x < 2**31),
  'seed': ('at least 0 and below 2**31', lambda x: 0 <= x < 2**31),
  'threshold': ('above 0 and at most 1', lambda x: 0 < x <= 1),
}


def main(argv: list[str] | None = None) -> int:
  """Runs the command line; returns the exit code."""
  argv, left = sys.argv if argv is None else argv, []
  for stream in (sys.stdin, sys.stdout):  # what is no text is shown, not fatal
    if hasattr(stream, 'reconfigure'):
      stream.reconfigure(errors='backslashreplace')
  code = preempt.command(lambda: left.append(run(argv)))
  if code or left == [None]:
    return code
  from ealign.cli import talk

  return talk.converse(*left[0])


def run(argv: list[str]):
  """Answers one question; or, to talk, what `talk.converse` takes.

  Raises:
    UserError: flags, models or runs cannot be used.
  """
  config, chosen = read(argv)
  question = chosen.get('prompt')
  if question is None and not sys.stdin.isatty():
    question = sys.stdin.read().strip()
    if not question:
      raise UserError(
        'there is no question: write --prompt=..., or one into the pipe'
      )
  launch.compile_cache()
  from ealign.cli import speakers, talk

  found = speakers.find(config, chosen)
  if question is None:
    return found, chosen
  chosen['prompt'] = question
  talk.turn(found, talk.begin(found, chosen), question, chosen)
  return None


def read(argv: list[str]):
  """(ConfigDict of --model, flags that were given) of the command line.

  `chosen` has 'changed' too: fields that the command line sets.
  """
  command = command_lib.parse(
    argv, usage=USAGE, own=_OWN, start=_start, folder=False
  )
  own, config = dict(command.own), command.config
  problems = [*command.problems, *command_lib.foreign(command, 'only')]
  for name, given in (('config', command.module), ('workdir', command.workdir)):
    if given:
      problems.append(f'--{name}: is not of ealign.chat; name a --run')
  for name, (allowed, holds) in _RANGES.items():
    if name in own and not holds(own[name]):
      problems.append(f'--{name}={own[name]}: must be {allowed}')
  if own.get('layout', 'auto') not in _LAYOUTS:
    problems.append(f'--layout={own["layout"]}: must be {", ".join(_LAYOUTS)}')
  if own.get('run'):
    problems += [
      f'--config.{name}: a run is what it was made of; leave it out'
      for name in command.changed
      if not name.startswith(_CHANGES)
    ]
  if problems := problems + config_lib.validate(config):
    raise UserError(*dict.fromkeys(problems))
  flat = config_lib.flatten(config)
  own['changed'] = {name: flat[name] for name in command.changed}
  own['only'] = command.only
  return config, own


def _start(own):
  """The config that --model begins with, and that a run's is put over."""
  paths = [path for path in own.get('model', '').split(',') if path]
  if not paths and not own.get('run'):
    raise UserError(f'--run or --model is missing\n{USAGE}')
  config = config_lib.default()
  config.train.steps = config.conscience.every = 0
  config.conscience.threshold = 0.5  # a run finds one; nobody has, here
  if paths:
    config.model.path = paths[0]
  return config
