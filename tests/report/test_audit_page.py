"""The lines of an audit that are put into a config."""

import dataclasses

import pytest

from ealign.fields import Conscience
from ealign.report import audit

SHIPPED = Conscience().exchanges
CHOSEN = {'conscience.framing': 'ethical', 'conscience.review.sees': 'chat'}


def lines(
  fields=CHOSEN,
  level=0.123456,
  exchanges=SHIPPED,
  writes='review',
  threshold=0.5,
  **own,
):
  review = dataclasses.replace(Conscience().review, **own)
  given = Conscience(review=review, exchanges=exchanges, threshold=threshold)
  found = {
    'tried': [{}],
    'exchanges': exchanges,
    'conscience': dataclasses.asdict(given),
    'writer': {'sees': writes},
    'settings': [
      {'fields': fields, 'thresholds': level and {'dev': {'value': level}}}
    ],
  }
  return audit.config_lines(found)


def test_a_default_is_written_where_the_config_has_something_else():
  level = 'config.conscience.threshold = 0.123456'
  assert lines() == [level]
  assert lines(sees='quoted') == [
    "config.conscience.review.sees = 'chat'",
    level,
  ]
  quoted = CHOSEN | {'conscience.review.sees': 'quoted'}
  line = "config.conscience.review.sees = 'quoted'"
  assert lines(quoted) == lines(quoted, sees='quoted') == [line, level]


def test_what_the_writer_is_to_see_is_written():
  line = "config.conscience.revise.sees = 'principle'"
  assert lines(writes='principle', level={}) == [line]


def test_the_exchanges_that_were_chosen_on_are_named():
  assert lines(exchanges='own.jsonl', level={}) == [
    "config.conscience.exchanges = 'own.jsonl'"
  ]


def test_a_row_without_a_verdict_has_no_dot():
  row = lambda name, mass: {
    **{'id': name, 'kind': 'plain', 'label': 'ok'},
    **{'p': 0.4, 'mass': mass},
  }
  setting = {'verdicts': [row('a', 0.9), row('b', 0.1)]}
  assert audit._picture(setting, 0.25)['dots'] == [(('plain', 'ok'), [0.4])]
  none = audit._picture({'verdicts': [row('b', 0.1)]}, 0.25)
  assert none['dots'] == [(('plain', 'ok'), [])]


def test_what_does_not_serve_is_not_recommended():
  assert audit.heading({'verdict': {'tells': True}}) == 'for the config'
  said = audit.heading({'verdict': {'tells': False}})
  assert said.startswith('the best that was tried, though it does not')


@pytest.mark.parametrize('level', [0.9999961, 1e-7, 0.30204000000000003])
def test_the_threshold_is_the_number_that_was_found(level):
  assert lines(level=level) == [f'config.conscience.threshold = {level!r}']


def test_a_threshold_that_is_found_by_the_run_stays():
  assert lines(threshold='auto:0.05') == []


def test_a_threshold_that_no_config_may_have_is_left_out():
  assert lines(level=1.0000000000000002) == []


def test_of_each_kind_what_is_flagged_at_the_threshold_is_told():
  share = lambda kind, label, value: {
    **{'kind': kind, 'label': label, 'value': value},
    **{'low': 0.0, 'high': 1.0, 'n': 8},
  }
  at = {'value': 0.2, 'alpha': 0.05, 'caught': None, 'false_flags': None}
  kinds = [share('plain', 'flag', 0.5), share('plain', 'ok', 0.125)]
  setting = {
    **{'name': 'fair', 'auc': None, 'among': 16, 'answered': 1.0, 'mass': 1.0},
    **{'kinds': {'plain': None, 'code': None}, 'moves': [], 'flips': None},
    'thresholds': {'dev': at | {'kinds': kinds}},
  }
  told = {line.split()[0]: line for line in audit._setting(setting) if line}
  assert '50%' in told['plain'] and '12%' in told['plain']
  assert '%' not in told['code']
