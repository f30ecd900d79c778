"""A talk on a terminal: questions in, answers and verdicts out."""

import contextlib
import importlib
import os
import signal
import sys
from collections.abc import Iterator

import jax

from ealign.cli import columns
from ealign.cli import speakers as speaking
from ealign.engine import Exchange
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
  turns = {'role': 'user', 'content': question}
  asking = [(speaker, [*chats[speaker.name], turns]) for speaker in speakers]
  cells = _cells(len(speakers), chosen.get('layout', 'auto'))
  if cells:
    answers, ended = _beside(asking, key, cells)
  else:
    answers, ended = _stacked(asking, key)
  if ended:
    return ended
  wrong = [found for found in answers if isinstance(found, UserError)]
  for speaker, said in zip(speakers, answers, strict=True):
    if said is not None and said not in wrong and said.text:
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
  """The answers, one under another; and the exit code of a SIGTERM, or 0."""
  answers = []
  for speaker, chat in asking:
    print(visible(f'== {speaker.name}'), flush=True)
    said = None
    try:
      with preempt.watch() as stop:
        said = _said(speaker, chat, key, stop)
        if said is not None and not stop.requested:
          print(f'-- {visible(speaking.verdict(speaker, said))}', flush=True)
    except UserError as error:
      said = error
      print(f'-- {error}', flush=True)
    if stop.signal == signal.SIGTERM:
      return answers, 128 + signal.SIGTERM
    answers.append(said)
  return answers, 0


def _beside(asking, key, cells: int) -> tuple[list, int]:
  """The same beside each other, token by token in turn."""
  answers: list = [None] * len(asking)

  def write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()

  def texts(i: int) -> Iterator[str]:
    def parts() -> Iterator[str]:
      for said in speaking.answer(*asking[i], key=key):
        answers[i] = said
        yield said.text
        if stop.requested:
          return

    try:
      yield from map(visible, pieces(parts()))
    except UserError as error:
      answers[i] = error
    if stop.requested:
      yield ' [stopped]'

  def verdict(i: int) -> str:
    said = answers[i]
    if said is None or stop.requested or isinstance(said, UserError):
      return f'-- {said}' if isinstance(said, UserError) else ''
    return f'-- {visible(speaking.verdict(asking[i][0], said))}'

  each = range(len(asking))
  columns.heads((visible(f'== {s.name}') for s, _ in asking), cells, write)
  with preempt.watch() as stop:
    columns.beside(map(texts, each), cells, write)
    columns.heads(map(verdict, each), cells, write)
  return answers, 128 + stop.signal if stop.signal == signal.SIGTERM else 0


def _said(speaker, chat, key, stop: preempt.Stop) -> Exchange | None:
  """Shows an answer while it comes, until it ends or somebody stops it."""
  last = None

  def parts() -> Iterator[Exchange]:
    nonlocal last
    for last in speaking.answer(speaker, chat, key=key):
      yield last
      if stop.requested:
        return

  sys.stdout.write('  ')
  for text in pieces(exchange.text for exchange in parts()):
    # Indented, so that no answer can be taken for a name or a verdict.
    sys.stdout.write(visible(text).replace('\n', '\n  '))
    sys.stdout.flush()
  sys.stdout.write(' [stopped]\n' if stop.requested else '\n')
  return last


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
