"""Commands of the pages that are run, not only read: the cheap ones."""

import os
import pathlib
import re
import subprocess
import sys

import blocks as lib
import pytest

PAGES = [*sorted(lib.ROOT.glob('docs/*.md')), lib.ROOT / 'README.md']
# What they ask for takes seconds, and leaves nothing behind.
CHEAP = 'completion', 'configs', 'doctor', 'fields'
# The rest runs on what the first of these leaves: a page, and a word of it.
DEMO = (
  ('README.md', '--config=configs/demo.py'),
  ('docs/grids.md', 'ealign.report'),
  ('docs/chat.md', '--prompt=How should I handle the old soup?'),
  ('docs/export.md', '--format=peft'),
)


def ours(words: list[str]) -> list[str]:
  """A command of the package, without what it is started with; [] if none."""
  if words[:1] == ['ealign']:
    return words[1:]
  if words[1:2] == ['-m'] and words[2].startswith('ealign.'):
    return [words[2].removeprefix('ealign.'), *words[3:]]
  return []


def typed(page: pathlib.Path) -> list[list[str]]:
  """Each command of the package in the blocks of a page."""
  values, found = {}, []
  for block in lib.blocks(page):
    if block.kind == 'sh' and not block.why:
      found += map(ours, lib.simple(block.text, values))
  return [words for words in found if words]


def cheap() -> list[tuple[str, ...]]:
  """The cheap commands of all blocks and sentences, each once."""
  found = [words for page in PAGES for words in typed(page)]
  for page in PAGES:
    for _, text in lib.inline(page):
      if re.match(r'ealign \w|python -m ealign\.', text):
        found += map(ours, lib.sentence(text))
  return sorted({tuple(x) for x in found if x and x[0] in CHEAP})


def run(words, folder: pathlib.Path) -> str:
  """What a command prints; it ends with 0 and no traceback."""
  places = os.pathsep.join([str(lib.ROOT), os.environ.get('PYTHONPATH', '')])
  done = subprocess.run(
    [sys.executable, '-m', 'ealign', *words],
    cwd=folder,
    env=os.environ | {'PYTHONPATH': places, 'JAX_PLATFORMS': 'cpu'},
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, (words, done.stdout, done.stderr)
  assert 'Traceback' not in done.stderr
  return done.stdout


def test_each_kind_of_cheap_command_is_found():
  assert {words[0] for words in cheap()} == {*CHEAP}


@pytest.mark.slow
@pytest.mark.parametrize('words', cheap(), ids=' '.join)
def test_cheap_commands_run(words, tmp_path):
  assert run([re.sub('^WORD$', 'lr', word) for word in words], tmp_path)
  assert not [*tmp_path.iterdir()]


@pytest.mark.slow
def test_the_cells_of_a_page_run(capsys):
  names, blocks = {}, lib.blocks(lib.ROOT / 'docs/tour_python.md')
  cells = [block.text for block in blocks if block.kind == lib.CELL]
  for text in cells:
    exec(compile(text, 'cell', 'exec'), names)
  flags = re.findall(
    r'^P \d\.\d+ .* (True|False) ', capsys.readouterr().out, re.M
  )
  assert len(cells) == 3 and flags == ['False', 'False', 'True']


@pytest.mark.slow
def test_what_is_typed_after_the_demo_runs(tmp_path):
  """With a few steps of it in the place of all."""
  small = f'--config={lib.ROOT}/configs/demo.py:runlocal'
  said = []
  for page, mark in DEMO:
    own = typed(lib.ROOT / page)
    words = next(x for x in own if mark in x or f'ealign.{x[0]}' == mark)
    words = [small if x.startswith('--config=') else x for x in words]
    words = [re.sub('=DIR$', '=runs/demo', word) for word in words]
    said.append(run(words, tmp_path))
  launch, report, chat, export = said
  assert 'conscience' in launch and 'report' in report
  assert 'P(flag) = ' in chat and 'serve: vllm serve' in export
  assert (tmp_path / 'exports/conscience/adapter_config.json').is_file()
