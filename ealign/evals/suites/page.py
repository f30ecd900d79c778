"""All measures of all suites as a page: what is counted, of what, what to know.

usage: python -m ealign.evals.suites.page > docs/measures.md

Made of the measures themselves, so that nothing is written twice.
"""

from collections.abc import Iterator, Sequence

from ealign.evals.judges.measure import Measure
from ealign.evals.suites import SUITES

HEAD = """# All measures

Made by `ealign/evals/suites/page.py` of the measures of each suite; a test
insists that it is current, and says how. A figure that is cited needs
the suite and its `split` (whose questions), how many questions and answers, the
judge with its hash, its filter and its interval: all of it is on the page of an
evaluation and in `results.csv` and `evaluation.json`.
[What a number is](evaluation.md#what-a-number-is) says how intervals and
differences are made.

- *printed* is the head of the column, *in files* the name in `results.csv`; in
  logs of Inspect it stands before kind and split.
- *of* is the denominator, *counted* what is counted of it. A mean says so.
- Answers that no judge could score are in no denominator. They are `unscored`
  in `results.csv`, and are told beside each rate.
"""
_TABLE = (
  '| printed | in files | counted | of | before it is cited |',
  '|---|---|---|---|---|',
)


def page() -> str:
  """The page, as Markdown."""
  lines, seen, verdicts = [HEAD], {}, {}
  for name, suite in SUITES.items():
    measures = suite.judge.measures
    verdicts |= {m.name: m for m in measures if m.needs == 'verdict'}
    own = [m for m in measures if m.needs != 'verdict']
    lines += [f'## {name}', '', f'{suite.title}.{_as(own, seen)}', '']
    lines += _rows([m for m in own if _line(m) not in seen])
    seen |= {_line(m): name for m in own if _line(m) not in seen}
  about = 'Of answers that a conscience reviewed: `eval.questions` of a run.'
  lines += ['## Verdicts', '', about, '', *_rows([*verdicts.values()])]
  return '\n'.join(lines).rstrip('\n') + '\n'


def _as(measures: Sequence[Measure], seen: dict) -> str:
  """Which suites have the others of these measures."""
  others = dict.fromkeys(seen[_line(m)] for m in measures if _line(m) in seen)
  names = [f'[{name}](#{name})' for name in others]
  new = any(_line(m) not in seen for m in measures)
  word = 'Also those of' if new else 'As'
  return f' {word} {" and ".join(names)}.' if names else ''


def _rows(measures: Sequence[Measure]) -> Iterator[str]:
  if measures:
    yield from (*_TABLE, *map(_line, measures), '')


def _line(measure: Measure) -> str:
  said, word = measure.note.partition(': ')[2], measure.title.partition(', %')
  if not said or said.startswith(('of ', 'in ')):  # does not say what it is
    said = ', '.join(filter(None, (word[0].lower(), said)))
  counted = f'mean: {said}' if measure.number else said
  cells = measure.short, f'`{measure.name}`', counted, measure.those
  escaped = (x.replace('|', '\\|') for x in (*cells, measure.caveat))
  return f'| {" | ".join(escaped)} |'


if __name__ == '__main__':
  print(page().rstrip('\n'))
