"""Pages: what they tell one to type can be typed, and their links lead on.

A block of a shell is read command by command (`blocks.check`), one of Python is
run by a test below that names it. What is marked `<!-- not run: why -->` is
neither.
"""

import re

import blocks as lib
import pytest

PAGES = sorted(lib.ROOT.glob('docs/*.md')) + [
  lib.ROOT / name for name in ('README.md', 'CONTRIBUTING.md')
]
BLOCKS = [block for page in PAGES for block in lib.blocks(page)]
SHELL = [b for b in BLOCKS if b.kind == 'sh' and not b.why]
INLINE = [
  (page.relative_to(lib.ROOT).as_posix(), line, text)
  for page in PAGES
  for line, text in lib.inline(page)
]
COMMANDS = re.compile(r'(ealign|python|make|pip|\.venv/\S*|\.ci/\S*) (?!-m$).*')


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch):
  monkeypatch.chdir(lib.ROOT)


def wrong(words: list[str], whole: bool) -> str:
  """Why a command could not be run; '' if it could."""
  try:
    lib.check(words, whole)
  except ValueError as error:
    return f'{" ".join(words)}: {error}'
  return ''


@pytest.mark.parametrize('page', sorted({b.page for b in SHELL}))
def test_each_command_of_a_block_can_be_typed(page):
  values = {}  # a variable is known to the blocks below
  for block in SHELL:
    if block.page == page:
      found = [wrong(x, True) for x in lib.simple(block.text, values)]
      assert found and not any(found), block


def test_each_command_in_a_sentence_can_be_typed():
  found = [
    f'{page}:{line}: {why}'
    for page, line, text in INLINE
    if COMMANDS.fullmatch(text)
    for words in lib.sentence(text)
    if (why := wrong(words, False))
  ]
  assert not found, '\n'.join(found)
