"""A talk on a terminal: questions in, answers and verdicts out."""

import contextlib
import importlib
import itertools
import os
import signal
import sys
from collections.abc import Iterator

import jax

from ealign.cli import columns
from ealign.cli import speakers as speaking
from ealign.runtime import preempt
from ealign.runtime.errors import UserError, visible

HELP = """/reset  forgets what was said
/quit   ends, as does Ctrl-D; Ctrl-C ends an answer
/help   this
What begins with another / is none of these; put a blank before it to ask it."""
_HALF = '\ufffd'  # a character whose other bytes are in the next token


def begin(speakers, chosen: dict) -> dict[str, list]:
  """The chat of each speaker before anything is asked, by its name."""
  system = chosen.get('system')
  turns = [{'role': 'system', 'content': system}] if system else []
  return {speaker.name: list(turns) for speaker in speakers}


def converse(speakers, chosen: dict) -> int:
  """Asks and answers until the person ends it; returns the exit code.

  chosen: the flags of `cli.chat`.
  """
  with contextlib.suppress(ImportError):
    importlib.import_module('readline')  # lines can be edited, and called back
  names = ', '.join(speaker.name for speaker in speakers)
  print(visible(f'{names}; /help, /reset, /quit'))
  chats, asked = begin(speakers, chosen), 0
  try:
    while (line := _line()) is not None:
      if line in ('/quit', '/exit'):
        return 0
      if line == '/reset':
        chats = begin(speakers, chosen)
      elif line.startswith('/'):
        wrong = '' if line == '/help' else f'{line}: no such command\n'
        print(visible(f'{wrong}{HELP}'))
      elif line.strip():
        if ended := turn(speakers, chats, line, chosen, asked):
          return ended
        asked += 1
    print()
  except KeyboardInterrupt:  # a second one while an answer was to end
    print()
    return 128 + signal.SIGINT
  except BrokenPipeError:
    return preempt.unread()
  return 0


def _line() -> str | None:
  """What is typed next; None at the end of it."""
  while True:
    try:
      return input('you> ')
    except EOFError:
      return None
    except KeyboardInterrupt:
      print('\n/quit, or Ctrl-D, ends')


def turn(speakers, chats, question: str, chosen: dict, asked: int = 0) -> int:
  """Each speaker answers; its chat goes on. What is too long is told.

  chats: of `begin`, changed. asked: how many questions came before, which
  decides the noise.

  Returns the exit code of a SIGTERM that came meanwhile, else 0.

  Raises:
    UserError: there is but this question, and no speaker can answer it.
  """
  key = jax.random.fold_in(jax.random.key(chosen.get('seed', 0)), asked)
  asked_now = {'role': 'user', 'content': question}
  asking = [(x, [*chats[x.name], asked_now]) for x in speakers]
  cells = _cells(len(speakers), chosen.get('layout', 'auto'))
  if cells:
    answers, ended = _beside(asking, key, cells)
  else:
    answers, ended = _stacked(asking, key)
  if ended:
    return ended
  wrong = [found for found in answers if isinstance(found, UserError)]
  for speaker, said in zip(speakers, answers, strict=True):
    if said is not None and not isinstance(said, UserError) and said.text:
      chats[speaker.name] = said.chat
  if len(wrong) == len(speakers) and 'prompt' in chosen:
    raise wrong[0]
  return 0


def _cells(count: int, layout: str) -> int:
  """Of a column; 0: one answer under another."""
  if layout == 'stacked' or (layout == 'auto' and not sys.stdout.isatty()):
    return 0
  return columns.fit(count)


def _stacked(asking, key) -> tuple[list, int]:
  """The answers, one under another; and the exit code of a SIGTERM, or 0.

  Of each speaker its Exchange, the UserError that ended it, or None.
  """
  answers = []
  for speaker, chat in asking:
    print(visible(f'== {speaker.name}'), flush=True)
    found = []
    try:
      with preempt.watch() as stop:
        sys.stdout.write('  ')
        for text in _coming(speaker, chat, key, stop, found):
          # Indented, so that no answer can be taken for a name or a verdict.
          sys.stdout.write(text.replace('\n', '\n  '))
          sys.stdout.flush()
        sys.stdout.write('\n')
        if found and not stop.requested:
          print(f'-- {visible(speaking.verdict(speaker, *found))}', flush=True)
    except UserError as error:
      found = [error]
      print(f'-- {error}', flush=True)
    if stop.signal == signal.SIGTERM:
      return answers, 128 + signal.SIGTERM
    answers += found or [None]
  return answers, 0


def _beside(asking, key, cells: int) -> tuple[list, int]:
  """The same beside each other, token by token in turn."""
  every = [(speaker, chat, []) for speaker, chat in asking]

  def write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()

  def coming(speaker, chat, found) -> Iterator[str]:
    try:
      yield from _coming(speaker, chat, key, stop, found)
    except UserError as error:
      found[:] = [error]

  def judged(speaker, _, found) -> str:
    if stop.requested or not found:
      return ''
    (said,) = found
    try:
      wrong = isinstance(said, UserError)
      return f'-- {said if wrong else visible(speaking.verdict(speaker, said))}'
    except UserError as error:
      found[:] = [error]
      return f'-- {error}'

  columns.heads((visible(f'== {s.name}') for s, _ in asking), cells, write)
  with preempt.watch() as stop:
    columns.beside(itertools.starmap(coming, every), cells, write)
    columns.heads(itertools.starmap(judged, every), cells, write)
  answers = [next(iter(found), None) for *_, found in every]
  return answers, 128 + stop.signal if stop.signal == signal.SIGTERM else 0


def _coming(speaker, chat, key, stop, found: list) -> Iterator[str]:
  """What an answer adds, while it comes, until it ends or somebody stops it.

  found: holds the Exchange as far as it has come.
  """

  def texts() -> Iterator[str]:
    for said in speaking.answer(speaker, chat, key=key):
      found[:] = [said]
      yield said.text
      if stop.requested:
        return

  yield from map(visible, pieces(texts()))
  if stop.requested:
    yield ' [stopped]'


def pieces(texts: Iterator[str]) -> Iterator[str]:
  """What each text adds to the one before; a character only once it is whole.

  A tokenizer may decode what it has decoded before otherwise: then nothing is
  added until the text goes on from what was shown, or ends.
  """
  shown = text = ''
  for text in texts:
    whole = text.rstrip(_HALF)
    if whole.startswith(shown):
      yield whole[len(shown) :]
      shown = whole
  yield text[len(os.path.commonprefix((shown, text))) :]
