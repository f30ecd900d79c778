"""How settings are asked and chosen, with models that are scripts."""

import dataclasses
import re

import numpy as np
import pytest
from scripted import MODEL, answer, conscience, rows

from ealign.conscience.conformal import least
from ealign.conscience.framings import FRAMINGS, Framing
from ealign.conscience.prompts import review_prompt
from ealign.data.exchanges import shortest
from ealign.evals.audit import ask as asking
from ealign.evals.audit import choose
from ealign.evals.audit.ask import Setting
from ealign.sampling.prompts import bucket

ETHICAL = Setting(FRAMINGS['ethical'])
DEV = rows(['soup', 'tea', 'bread', 'salt', 'rice'], 11)
BEST = 'fair', 'letters', 'quoted'


# --- Settings ----------------------------------------------------------------


@pytest.mark.parametrize('name', FRAMINGS)
def test_candidates_are_few_and_the_configs_own_is_first(name):
  for own in (
    Setting(FRAMINGS[name]),
    Setting(FRAMINGS[name], 'yes_no', 'answer', 2, 'contextual'),
  ):
    found = choose.candidates(own)
    assert found[0] == own and len(set(found)) == len(found) <= 24
    assert {s.form for s in found} == {'words', 'letters', 'yes_no'}
    assert {s.sees for s in found} == {own.sees}
    assert {s.calibration for s in found} == {own.calibration}
    assert {s.framing.name for s in found[1:]} >= {name, 'ethical', 'good'}


def test_a_framing_of_a_user_is_tried_in_the_forms_that_it_has():
  own = Framing('own.json', 'Kind or not?', ('Kind',), ('Not',), 'Anew.')
  found = choose.candidates(Setting(own))
  forms = [(s.form, s.sees) for s in found if s.framing == own]
  assert forms == [('words', 'chat')]
  assert len(found) == 1 + 4 * 3


def test_a_setting_is_applied_and_read_back():
  c, _ = conscience(None)
  for setting in choose.candidates(ETHICAL)[:9]:
    setting = dataclasses.replace(setting, examples=2)
    own = asking.applied(c, setting, DEV)
    assert asking.setting_of(own) == setting
    assert [e.flag for e in own.examples] == [False, True]
  assert str(setting) == 'fair, yes_no, chat, 2 examples'
  assert setting.fields['conscience.review.form'] == 'yes_no'
  assert asking.setting_of(c) == ETHICAL


# --- Rows --------------------------------------------------------------------


def test_rows_that_are_compared_take_domains_in_turn_and_twins_together():
  given = rows(['a', 'b'], 2) + rows(['c'], 1, kind='subtle')
  given += rows(['d'], 1, kind='code') + rows(['e'], 1, split='test')
  ids = [row.id for row in choose.compared(given)]
  turns = ['a0', 'b0', 'c0', 'a1', 'b1']
  assert ids == [twin + word for twin in turns for word in ('Check', 'Fake')]
  # Where none is plain or subtle, all of dev count.
  assert len(choose.compared(rows(['d'], 3, kind='code'))) == 6


def test_examples_and_their_twins_are_not_asked_about():
  left = choose.but_examples(choose.compared(DEV), DEV)
  used = {row.twin for row in shortest(DEV, 4)}
  assert len(used) == 4 and len(left) == len(DEV) - 8
  assert not used & {row.twin for row in left}


# --- Asking ------------------------------------------------------------------


def leaning(name, form, sees, text):
  """P and mass that differ by all that a setting is, and by the row."""
  p = 0.1 + 0.07 * list(FRAMINGS).index(name) + 0.1 * (sees == 'quoted')
  return p + 0.2 * ('Fake' in text), 0.3 + 0.1 * len(form) / 10


def test_settings_asked_together_are_as_one_by_one():
  c, asked = conscience(leaning)
  settings = choose.candidates(ETHICAL)
  settings += [dataclasses.replace(s, sees='quoted') for s in settings]
  settings += [dataclasses.replace(settings[5], examples=4)]
  some = DEV[:6]
  together = asking.ask(c, settings, some, DEV)
  assert len(asked) == 2  # in either view; each reads an exchange once
  for setting, found in zip(settings, together, strict=True):
    (alone,) = asking.ask(c, [setting], some, DEV)
    np.testing.assert_array_equal(found.p, alone.p)
    np.testing.assert_array_equal(found.mass, alone.mass)
    np.testing.assert_array_equal(found.each, alone.each)
    many = 1 if setting.form == 'words' else 2
    assert found.each.shape == (many, 6) and found.p.shape == (6,)
    by_hand, _ = leaning(setting.framing.name, '', setting.sees, '')
    np.testing.assert_allclose(found.p, by_hand + 0.2 * (np.arange(6) % 2))


def test_each_setting_has_its_own_calibration():
  c, _ = conscience(leaning)
  named = [FRAMINGS[name] for name in ('ethical', 'good', 'fair')]
  settings = [
    Setting(framing, form, calibration='contextual')
    for form in ('words', 'yes_no')
    for framing in named
  ]
  for setting, found in zip(
    settings, asking.ask(c, settings, DEV[:2], DEV), strict=True
  ):
    # It leans by framing, and so it does to what says nothing.
    assert found.p[0] == pytest.approx(0.5), str(setting)
    assert found.p[1] > 0.6


@pytest.mark.parametrize('calibration', ['contextual', 'request'])
def test_a_calibration_has_the_settings_own_examples(calibration):
  c, asked = conscience(leaning)
  settings = [
    Setting(FRAMINGS['ethical'], examples=n, calibration=calibration)
    for n in (0, 2, 4)
  ]
  asking.ask(c, settings, DEV[:2], DEV)
  nothing = [
    MODEL.tokenizer.decode(ids)
    for request in asked
    for ids in request.prompts
    if 'N/A' in MODEL.tokenizer.decode(ids)
  ]
  shown = [text.count('Verdict:') for text in dict.fromkeys(nothing)]
  assert sorted(shown) == [0, 2, 4]


def test_one_that_is_to_think_first_does_so_here_too():
  thought = lambda text: dataclasses.replace(answer('Hm'), ids=(9, 9, 9))
  c, asked = conscience(leaning, thought, review={'reason_tokens': 3})
  asking.ask(c, [ETHICAL, Setting(FRAMINGS['good'])], DEV[:2], DEV)
  thinking, request = asked
  assert len(thinking.prompts) == 2 and len(request.prompts) == 4
  for start, ids in zip(thinking.prompts * 2, request.prompts, strict=True):
    assert ids[: len(start) + 3] == (*start, 9, 9, 9)


def test_behind_a_thought_the_chat_is_all_that_is_seen():
  thought = lambda text: answer('Hm')
  c, _ = conscience(telling, thought, review={'reason_tokens': 3})
  tried = choose.halving(c, DEV[:20])
  assert {t.setting.sees for t in tried} == {'chat'}
  assert {t.setting.framing.name for t in tried} == {*choose._ORDER}


def test_what_it_costs_to_ask():
  c, _ = conscience(None)
  some = DEV[:4]
  chats = MODEL.exchanges([row.messages for row in some])
  whole = [bucket(len(review_prompt(c, x))) for x in chats]
  assert asking.tokens(c, [ETHICAL], some, DEV) == sum(whole)
  # Rows are alike, so that a few stand for all.
  assert asking.tokens(c, [ETHICAL], some * 5, DEV) == 5 * sum(whole)
  letters = Setting(FRAMINGS['ethical'], 'letters')
  start = sum(bucket(len(x.prompt) + len(x.answer.ids)) for x in chats)
  rest = [
    bucket(len(MODEL.suffix(q.text)))
    for q in FRAMINGS['ethical'].questions('letters')
  ]
  assert asking.tokens(c, [letters], some, DEV) == start + 4 * sum(rest)
  assert asking.tokens(c, [ETHICAL], [], DEV) == 0


# --- Halving -----------------------------------------------------------------


def telling(name, form, sees, text):
  """Best in one setting, worst in the config's own, no verdict in others."""
  bad = 'Fake' in text
  at = int([0, *re.findall(r'the \w+ (\d+)\.', text)][-1])  # 0: of N/A
  noise = 0.02 * (at % 3)  # that is the same for all settings
  if (name, form) == BEST[:2]:
    return 0.2 + (0.6 if sees == BEST[2] else 0.05) * bad + noise, 0.9
  if form == 'yes_no':  # tells best of all, but does not say Yes or No
    return 0.01 + 0.98 * bad, 0.02
  if (name, form, sees) == ('ethical', 'words', 'chat'):
    return 0.6 - 0.2 * bad + noise, 0.9
  return 0.4 + 0.01 * bad + noise, 0.9


def chosen():
  c, _ = conscience(telling)
  told = []
  return choose.halving(
    c, DEV + rows(['x'], 3, split='test'), told.append
  ), told


def test_the_setting_that_tells_wins_and_costs_what_rounds_say():
  tried, told = chosen()
  best, *others = tried
  assert (best.setting.framing.name, best.setting.form) == BEST[:2]
  assert best.setting.sees == BEST[2] and best.score > 0.95
  assert best.auc.value == best.answered == 1
  counts = [line for line in told if 'settings on' in line]
  assert counts == [
    '12 settings on 32 exchanges',
    '4 settings on 32 exchanges',  # the best in four variants
    '3 settings on 102 exchanges',
  ]
  assert [t.rows for t in tried].count(102) == 3
  assert [t.rows for t in tried] == sorted([t.rows for t in tried])[::-1]
  assert {t.setting.examples for t in tried} == {0, 2, 4}
  assert {t.setting.calibration for t in tried} == {'none', 'request'}
  assert len(tried) == 12 + 4


def test_the_configs_own_is_compared_with_the_others():
  tried, _ = chosen()
  own = next(t for t in tried if t.setting == ETHICAL)
  assert own.rows == 32 and own.auc.value < 0.1


def test_a_setting_without_verdicts_ranks_last():
  tried, _ = chosen()
  silent = [t for t in tried if t.setting.form == 'yes_no']
  assert {(t.rows, t.score, t.answered) for t in silent} == {(32, 0, 0)}
  assert {t.auc.value for t in silent} == {1}  # what it would have told
  first = [t for t in tried if t.rows == 32]
  assert first[-len(silent) :] == silent


def test_where_there_are_few_rows_all_are_asked_about():
  c, _ = conscience(telling)
  told = []
  tried = choose.halving(c, DEV[:14], told.append)
  assert tried[0].rows == 6 and tried[0].setting.sees == BEST[2]
  assert all('on 6 ex' in line for line in told if 'settings on' in line)


# --- Threshold ---------------------------------------------------------------


def test_the_threshold_is_conformal_over_rows_that_are_ok():
  good = np.random.default_rng(0).permutation(np.arange(1, 41)) / 50
  level = choose.threshold(good, 0.05)
  assert level == np.nextafter(39 / 50, 1) and np.sum(good >= level) == 1
  assert choose.threshold(good[: least(0.05) - 1], 0.05) is None
  assert choose.threshold([], 0.05) is None
