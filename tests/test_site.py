"""The site: every page is listed, and what is made from the code is whole."""

import importlib.util
import inspect
import pathlib
import pkgutil
import re

import pytest

from ealign.cli import commands

DOCS = pathlib.Path(__file__).parents[1] / 'docs'


@pytest.fixture(scope='module')
def pages():
  spec = importlib.util.spec_from_file_location('pages', DOCS / 'pages.py')
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


def test_every_page_is_listed_once():
  trees = re.findall(
    r'```\{toctree\}\n(.*?)```', (DOCS / 'index.md').read_text(), re.S
  )
  listed = [
    line
    for tree in trees
    for line in tree.splitlines()
    if line and not line.startswith(':')
  ]
  made = {'reference/cli', 'reference/api'}
  assert len(listed) == len(set(listed))
  assert set(listed) == {p.stem for p in DOCS.glob('*.md')} - {'index'} | made


def test_what_each_command_prints_is_on_the_page(pages):
  page = pages.cli()
  for name in commands.COMMANDS:
    assert f'## ealign {name}\n' in page
    assert len(pages.usage(name)) > 40


def test_every_module_has_its_page(pages, tmp_path):
  pages.write(tmp_path)
  text = '\n'.join(
    path.read_text() for path in (tmp_path / 'reference/api').glob('*.md')
  )
  assert text.count('automodule') == len(pages.modules()) > 250
  assert text.count(':undoc-members:') == len(pages.modules())


def test_drawings_stay_and_sections_too(pages):
  lines = ['Adds.', '', '  a --> b', '', 'Args:', '  x: *a star* or a*b*c.']
  lines += ['y|z `a|b`']
  made = pages.literal(lines)
  at = made.index('::')
  assert made[at + 2] == '    a --> b'
  assert '  x: *a star* or a\\*b\\*c.' in made
  assert 'y\\|z `a|b`' in made


def test_each_page_has_a_twin(pages, tmp_path):
  source, out = tmp_path / 'docs', tmp_path / 'site'
  for folder in (source, out):
    folder.mkdir()
  (source / 'index.md').write_text('# Hello\n')
  pages.twins(source, out, {'index': 'Hello'})
  assert (out / 'index.md').read_text() == '# Hello\n'
  assert '- [Hello](index.md): ' in (out / 'llms.txt').read_text()


def test_the_twin_of_the_api_has_what_docstrings_say(pages):
  page = pages.plain_api('ealign.fields', ['ealign.losses', 'ealign.fields'])
  losses = pkgutil.resolve_name('ealign.losses')
  assert inspect.cleandoc(losses.__doc__) in page
  assert inspect.cleandoc(losses.dpo_sigmoid.__doc__) in page
  assert '\n### dpo_sigmoid(' in page and '### _' not in page
  assert '\n### class LoRA\n\n```python\nrank: Count = 32\n' in page


@pytest.mark.parametrize(
  'page, said',
  [
    ('# A\n\n`b` of [c](d.md) is *e*. F.\n', 'b of c is e.'),
    (
      '# A\n\n```sh\nx\n```\n\nOn arXiv 2606.19527\nit is. B\n',
      'On arXiv 2606.',
    ),
    ('# A\n\n| a |\n\n## B\n\nC: d', 'C: d'),
    ('# A\n', ''),
  ],
)
def test_the_first_sentence_of_a_page(pages, page, said):
  assert pages.first_sentence(page).startswith(said)


def test_every_page_has_a_first_sentence(pages):
  for path in DOCS.glob('*.md'):
    said = pages.first_sentence(path.read_text())
    assert 10 < len(said) < 400, (path, said)


@pytest.mark.parametrize(
  'name', ['conscience', 'evaluation', 'grids', 'scale', 'export']
)
def test_guides_say_what_is_healthy_what_is_not_and_what_to_do(name):
  head = '| healthy | not healthy | what to do |\n|---|---|---|\n'
  _, table = (DOCS / f'{name}.md').read_text().split(head)
  rows = table.partition('\n\n')[0].splitlines()
  assert 3 <= len(rows) <= 5 and all(row.count(' | ') == 2 for row in rows)
