"""docs/measures.md: current, and each measure of each suite stands there."""

import pathlib

from ealign.evals.suites import SUITES, page

DOCS = pathlib.Path(__file__).parents[2] / 'docs' / 'measures.md'


def test_the_page_is_current():
  remedy = 'run `python -m ealign.evals.suites.page > docs/measures.md`'
  assert DOCS.read_text('utf-8') == page.page(), remedy


def test_each_measure_has_a_line_and_a_caveat():
  text = DOCS.read_text('utf-8')
  lines = text.splitlines()
  for name, suite in SUITES.items():
    assert f'## {name}' in lines
    for measure in suite.judge.measures:
      head = f'| {measure.short} | `{measure.name}` | '
      assert any(line.startswith(head) for line in lines), (name, head)
      assert len(measure.caveat) > 9, (name, measure.name)
  rows = [line for line in lines if line.startswith('| ') and '`' in line]
  assert all(all(cell.strip() for cell in x.split('|')[1:-1]) for x in rows)


def test_a_measure_of_two_suites_stands_once():
  text = page.page()
  assert '## contextual\n\nMisalignment by context. As [misalignment]' in text
  assert text.count('`acquiescence`') == 1
