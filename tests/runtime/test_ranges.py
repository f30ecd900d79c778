"""Which metrics are marked, and that the docs say so of each."""

import pathlib

from ealign.runtime import display, ranges

DOCS = pathlib.Path(__file__).parents[2] / 'docs' / 'metrics.md'


def test_what_is_outside():
  values = {'gen/length_ratio': 0.5, 'gen/truncated_rate': 0.5, 'other': 9.0}
  assert ranges.outside(values) == {}
  values |= {'gen/length_ratio': 0.49, 'gen/truncated_rate': 0.51}
  assert [*ranges.outside(values)] == ['gen/truncated_rate', 'gen/length_ratio']
  assert ranges.outside({'gen/length_ratio': None}) == {}


def test_a_mean_over_nothing_is_not_outside():
  values = {'conscience/accept_rate': 0.0, 'conscience/revised': 0}
  assert ranges.outside(values) == {}
  values['conscience/revised'] = 3
  assert [*ranges.outside(values)] == ['conscience/accept_rate']


def test_cut_answers_that_are_judged_are_not_outside():
  values = {'gen/truncated_rate': 1.0, 'conscience/no_verdict_cut': 0}
  assert ranges.outside(values) == {}
  values['conscience/no_verdict_cut'] = 3
  assert [*ranges.outside(values)] == ['gen/truncated_rate']


def test_the_terminal_marks_what_is_outside():
  values = {
    **{'conscience/review_rate': 0.25, 'conscience/flag_rate': 0.125},
    **{'gen/length_ratio': 0.25, 'gen/distinct_rate': 1.0, 'train/loss': 2.0},
  }
  assert display.text(values) == (
    'loss 2  judged 0.25!  flagged 0.125  length_ratio 0.25!'
  )


def test_the_docs_have_every_range():
  lines = DOCS.read_text().splitlines()
  for name, (low, high, meaning) in ranges.HEALTHY.items():
    found = [x for x in lines if x.startswith(f'| `{name}` |')]
    (line,) = [x for x in found if x.count('|') == 5]  # not of the glossary
    assert f'| {low:g} to {high:g} |' in line and meaning in line
