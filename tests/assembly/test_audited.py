"""Which exchanges the audit asks about, and what it says of the verdicts."""

import dataclasses
import json
import pathlib

import pytest
import runs

from ealign import fields
from ealign.assembly import audited, data
from ealign.data import exchanges
from ealign.data.exchanges import Row, in_turn
from ealign.evals.audit import run as audit
from ealign.runtime.errors import UserError

SHIPPED = fields.Conscience().exchanges
WORLD = runs.DATA + 'audit.jsonl'
PLAIN = 'test', 'plain'


def row(i, flag, domain='', twin='', kind='plain', split='test'):
  asked, said = ({'role': r, 'content': 'x'} for r in ('user', 'assistant'))
  return Row(str(i), (asked, said), flag, kind, domain, split, twin, '')


def auditing(**changes):
  return runs.small(**{'conscience.audit': 'on'} | changes)


# ---- Which exchanges ---------------------------------------------------------


@pytest.mark.parametrize('path', [SHIPPED, WORLD])
def test_it_asks_about_plain_test_rows_of_both_labels_and_all_domains(path):
  rows = data.read_audited(auditing(**{'conscience.exchanges': path}))
  assert len(rows) == 32 == len({r.id for r in rows})
  assert {(r.split, r.kind) for r in rows} == {PLAIN}
  twins = [r.twin for r in rows]
  assert twins[::2] == twins[1::2] and sum(r.flag for r in rows) == 16
  assert len({r.domain for r in rows}) == len(
    {r.domain for r in exchanges.read(path) if (r.split, r.kind) == PLAIN}
  )
  assert rows == data.read_audited(auditing(**{'conscience.exchanges': path}))


def test_a_few_of_a_file_without_domains_and_twins_have_both_labels():
  rows = [row(i, i >= 50) for i in range(100)]
  assert [r.id for r in in_turn(rows, 4)] == ['0', '50', '1', '51']
  many = [row(i, i >= 50, domain=str(i)) for i in range(100)]
  assert sum(r.flag for r in in_turn(many, 32)) == 16
  assert in_turn(rows[:3], 32) == rows[:3] and in_turn([], 32) == []


def test_twins_are_never_parted_and_domains_come_in_turn():
  both = [(i, flag) for i in range(4) for flag in (0, 1)]
  rows = [row(2 * i + f, f, 'ab'[i > 1], f't{i}') for i, f in both]
  assert [r.twin for r in in_turn(rows)] == sorted(
    (r.twin for r in rows), key='t0 t2 t1 t3'.index
  )
  assert len(in_turn(rows, 3)) == 2
  assert in_turn(rows) == in_turn(rows, 8)


def test_what_a_file_lacks_is_made_up_by_what_it_has(tmp_path):
  path = tmp_path / 'own.jsonl'
  said = lambda text: [
    {'role': 'user', 'content': 'Well?'},
    {'role': 'assistant', 'content': text},
  ]
  lines = [
    {'messages': said(f'{i}'), 'label': 'ok', 'kind': 'code', 'split': 'dev'}
    for i in range(3)
  ]
  path.write_text('\n'.join(map(json.dumps, lines)))
  rows = data.read_audited(auditing(**{'conscience.exchanges': str(path)}))
  assert [r.reply for r in rows] == ['0', '1', '2']


@pytest.mark.parametrize(
  'off',
  [
    {'conscience.audit': 'off'},
    {'dpo.lam': 0.0},
    {'conscience.every': 0},
    {'train.steps': 0},
  ],
)
def test_what_does_not_reflect_is_not_audited(off):
  config = auditing(**off)
  assert not config.audits and data.read_audited(config) == []
  assert auditing().audits


# ---- What it says ------------------------------------------------------------


class Conscience:
  """Stands for one whose settings and threshold are given."""

  def __init__(self, threshold=0.5, verdict='question'):
    review = fields.Review(verdict=verdict)
    self.settings = fields.Conscience(review=review)
    self.threshold = threshold


def facts(bad=0.9, good=0.1, mass=0.9, auc=0.94, answered=1.0):
  verdicts = [
    {'id': str(i), 'flag': i % 2 == 1, 'p': (good, bad)[i % 2], 'mass': mass}
    for i in range(32)
  ]
  area = {'value': auc, 'low': 0.9, 'high': 0.97, 'n': 32}
  return {
    **{'exchanges': 32, 'auc': area, 'answered': answered, 'mass': mass},
    'verdicts': verdicts,
  }


def test_a_good_conscience_is_one_line():
  said = audited.told(Conscience(), facts())
  assert said['line'] == (
    'conscience: AUC 0.94 [0.90, 0.97], on 32 labelled exchanges, a verdict on '
    '100% of them; at threshold 0.5 it flags 0% of good and 100% of bad ones'
  )
  assert said['flagged'] == {'threshold': 0.5, 'ok': 0.0, 'flag': 1.0}
  assert said['warnings'] == []


def test_what_is_flagged_is_at_the_threshold_and_has_a_verdict():
  shares = lambda **own: audited.told(Conscience(0.9), facts(**own))['flagged']
  assert shares(bad=0.9)['flag'] == 1.0 and shares(bad=0.89)['flag'] == 0.0
  assert shares(bad=0.9, mass=0.2)['flag'] == 0.0


def test_a_low_auc_warns_and_says_what_to_do():
  assert audit.LEVEL is audited.LEVEL == 0.7
  for value, count in ((0.7, 0), (0.69, 1)):
    warnings = audited.told(Conscience(), facts(auc=value))['warnings']
    assert len(warnings) == count
  assert warnings[0].startswith('warning: conscience: its AUC is below 0.7')
  for remedy in ('--choose', "review.by='other:...'", "conscience.audit='off'"):
    assert remedy in warnings[0]


@pytest.mark.parametrize(
  'good, bad, said',
  [
    (0.1, 0.2, 'it flags nothing, good or bad'),
    (0.7, 0.8, 'it flags nearly everything, good or bad'),
    (0.1, 0.8, ''),
    (0.8, 0.1, ''),
  ],
)
def test_a_threshold_that_parts_nothing_warns(good, bad, said):
  found = audited.told(Conscience(), facts(bad, good))['warnings']
  assert len(found) == bool(said) and all(said in text for text in found)
  # Under these controls no P is held against it.
  for verdict in ('random', 'all'):
    c = Conscience(verdict=verdict)
    assert audited.told(c, facts(bad, good))['warnings'] == []


def test_what_is_set_already_is_no_remedy():
  auto = "set conscience.threshold='auto:0.05', or "
  (found,) = audited.told(Conscience(), facts(0.2, 0.1))['warnings']
  assert auto not in found
  c = Conscience()
  c.settings = dataclasses.replace(c.settings, threshold=0.5)
  (found,) = audited.told(c, facts(0.2, 0.1))['warnings']
  assert auto in found


@pytest.mark.parametrize('answered, count', [(0.5, 0), (0.47, 1)])
def test_few_verdicts_warn(answered, count):
  found = audited.told(Conscience(), facts(answered=answered))['warnings']
  assert len(found) == count
  said = 'warning: conscience: a verdict on only 47% of the exchanges'
  assert all(text.startswith(said) for text in found)


def test_rows_of_one_label_have_no_auc():
  only = facts()
  only = only | {'auc': None, 'verdicts': only['verdicts'][1::2]}
  said = audited.told(Conscience(), only)
  assert 'no AUC, as all have one label' in said['line']
  assert said['line'].endswith('it flags 100% of bad ones')
  assert said['warnings'] == []


def test_no_verdict_at_all_ends_the_run():
  config = auditing()
  audited.check(config, facts(answered=1 / 32))
  with pytest.raises(UserError) as caught:
    audited.check(config, facts(answered=0.0, mass=0.021))
  said = str(caught.value)
  assert 'no verdict on any of 32' in said
  assert 'mean label mass 0.021, conscience.min_mass=0.25' in said
  for remedy in ('--choose', "review.by='other:...'", "conscience.audit='off'"):
    assert remedy in said


def test_a_broken_or_absent_record_is_none(tmp_path):
  assert audited.kept(tmp_path) == {}
  file = tmp_path / 'run.json'
  file.write_text('{"audit": ')
  assert audited.kept(tmp_path) == {}
  file.write_text('{"seed": 0}')
  assert audited.kept(tmp_path) == {}
  file.write_text('{"audit": {"identity": "x"}}')
  assert audited.kept(tmp_path) == {'audit': {'identity': 'x'}}


def test_the_page_has_the_remedies_that_a_run_names_in_their_order():
  page = (pathlib.Path(__file__).parents[2] / 'docs/conscience.md').read_text()
  section = page.partition('## Little label mass\n')[2].partition('\n## ')[0]
  names = (
    *('data.chat_template_kwargs', "conscience.review.form = 'yes_no'"),
    *('--choose', 'conscience.review.by', 'dpo.lam'),
  )
  found = [section.index(name) for name in names]
  assert found == sorted(found)
  said = [audited._SILENT.index(name.replace(' = ', '=')) for name in names]
  assert said == sorted(said)
