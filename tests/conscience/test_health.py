"""What a run says of itself, from records made by hand."""

import pytest

from ealign import fields
from ealign.conscience import health, tally

GIVEN = {
  'sample.max_new_tokens': 64,
  'conscience.min_mass': 0.25,
  'conscience.threshold': 0.5,
  'conscience.review.verdict': 'question',
  'data.train': 'chats.jsonl',
}


def record(p=0.1, mass=0.9, *, stop='stop', asked=None, kept=None, why='', **x):
  """A reviewed answer; kept: whether its alternative became a pair."""
  asked = stop == 'stop' if asked is None else asked
  revised = kept is not None
  return {
    'phase': 'reflect',
    'step': 0,
    'stop': stop,
    'ids': [0] * 8,
    'text': 'So it is.',
    'verdict': {
      **{'p': p, 'mass': mass, 'asked': asked},
      'flagged': p is not None and p >= 0.5,
    },
    'alternative': {'kept': kept, 'dropped': why} if revised else None,
    **x,
  }


CUT = record(None, 0.0, stop='length')
UNSURE = record(None, 0.03)
LOST = record(None, 0.0, asked=False)
FLAGGED = record(0.75, kept=True)
DROPPED = record(0.5, kept=False, why='same')


def line(*records):
  return tally.line(tally.count(records), GIVEN)


def test_a_line_counts_every_answer_once():
  assert line(FLAGGED, record()) == (
    '2 answers, 2 judged; 1 flagged, 1 revised, 1 pair'
  )
  assert line(record(0.1, kept=True), DROPPED, CUT, UNSURE, LOST, LOST) == (
    '6 answers, 2 judged (1 cut at sample.max_new_tokens=64, 1 with label mass '
    '0.03 below conscience.min_mass=0.25, 2 lost in another vocabulary); '
    '1 flagged, 2 revised, 1 pair (dropped: 1 same)'
  )


def test_counts_add_up_over_reflections():
  every = [FLAGGED, DROPPED, CUT, UNSURE, LOST, record(0.2)]
  parts = tally.count(every[:2]) + tally.count(every[2:])
  assert parts == tally.count(every)
  assert parts.highest == 0.75 and parts.unjudged.total() == 3
  assert tally.count([record() | {'verdict': None}]) == tally.Counts()


@pytest.mark.parametrize(
  'records, picture, next_step',
  [
    ([CUT, CUT, FLAGGED], 'cut', 'raise sample.max_new_tokens'),
    ([UNSURE, UNSURE, CUT, record()], 'mass', 'does not answer the question'),
    ([LOST, UNSURE, LOST], 'lost', 'another conscience.review.by'),
    ([record(0.11), record(0.1)], 'unflagged', 'the highest P is 0.11'),
    ([record(0.97)], 'unrevised', 'read answers.jsonl'),
    ([DROPPED, UNSURE], 'unpaired', 'read them in answers.jsonl'),
    ([FLAGGED, CUT], 'well', ''),
  ],
)
def test_the_picture_and_the_next_step(records, picture, next_step):
  counts = tally.count(records)
  assert tally.picture(counts) == picture
  said = tally.remedy(counts, GIVEN)
  assert next_step in said and bool(said) == (picture != 'well')


@pytest.mark.parametrize(
  'method, words', [('iteralign', 'no principle'), ('mistake_analysis', 'hint')]
)
def test_a_method_that_revises_nothing_is_not_told_to_lower_the_threshold(
  method, words
):
  said = tally.remedy(tally.count([record(0.97)]), GIVEN | {'method': method})
  assert words in said and 'lower' not in said


@pytest.mark.parametrize('control', ['inverted', 'random'])
def test_a_control_that_chose_none_is_not_told_to_lower_the_threshold(control):
  counts = tally.count([record(0.97)])
  given = GIVEN | {'conscience.review.verdict': control}
  assert counts.flagged == 1 and not counts.revised
  assert tally.remedy(counts, given) == (
    f'conscience.review.verdict={control}, a control, chose no answer to be '
    'revised'
  )


def test_a_threshold_from_the_model_is_not_offered_to_itself():
  given = GIVEN | {'conscience.threshold': 'auto:0.05'}
  said = tally.remedy(tally.count([record()]), given)
  assert 'lower it' not in said and 'ealign.audit' in said
  assert 'lower it' in tally.remedy(tally.count([record()]), GIVEN)


def drift(flagged, others, **given):
  counts = tally.count([FLAGGED] * flagged + [record()] * others + [CUT] * 99)
  given = {name.replace('__', '.'): x for name, x in given.items()}
  return tally.drift(counts, tally.settings(fields.Config()) | given)


def test_drift_is_told_above_twice_alpha():
  """Answers without a verdict count neither as flagged nor as not."""
  assert drift(11, 89).startswith('11.0% of 100 ')
  assert 'drift, not badness' in drift(11, 89)
  assert not drift(10, 90)
  assert not drift(99, 0)  # too few
  assert not drift(0, 0)
  assert not drift(11, 89, conscience__threshold=0.05)
  assert not drift(11, 89, conscience__review__verdict='all')


def test_drift_is_a_remark():
  given = GIVEN | {'conscience.threshold': 'auto:0.05'}
  found = health.remarks(health.of([FLAGGED] * 100), given, {})
  assert [*found] == ['well', 'drift']
  assert found['drift'].startswith('conscience: 100.0% of 100 reviewed')


def test_a_run_without_a_pair_says_what_it_was():
  said = health.last(health.of([CUT, CUT]), GIVEN)
  assert said[0].startswith('conscience: 2 answers, 0 judged (2 cut')
  assert said[1].startswith('this was plain SFT: no pair was ever made; raise')
  assert tally.idle(tally.count([CUT]), {}).startswith('no pair was ever made')
  assert '(1 cut at sample.max_new_tokens)' in tally.line(
    tally.count([CUT]), {}
  )
  bare = GIVEN | {'data.train': ''}
  assert health.last(health.of([CUT]), bare)[1].startswith('nothing was learn')
  assert len(health.last(health.of([FLAGGED, CUT, CUT]), GIVEN)) == 1
  assert health.last(health.Health(), GIVEN) == []


def test_asks():
  assert health.asks('Why? Because. Or not? ')
  assert not health.asks('Why? Because.') and not health.asks('')


def said(*texts, tokens=8, step=0):
  texts = texts or [f'text {i}' for i in range(8)]
  return [record(ids=[0] * tokens, text=t, step=step) for t in texts]


def after(*later):
  return health.seen(health.of(said()), later)


@pytest.mark.parametrize(
  'later, kinds',
  [
    (said(tokens=2), []),
    (said(tokens=1), ['short']),
    (said(tokens=32), []),
    (said(tokens=33), ['long']),
    (said(*'aaaabbbb'), []),
    (said(*'aaaaaaaa'), ['alike']),
    (said(*'abcde', *['I cannot.'] * 3), []),
    (said(*'abcd', *['I cannot.'] * 4), ['refuses']),
    (said('Ethical', tokens=1) * 8, ['short', 'alike']),
    (said('a', tokens=1) * 7, ['short']),  # and one of before: two texts
    (said('a', tokens=1) * 6, []),  # and two of before: 2.75 tokens
  ],
)
def test_what_a_collapse_is(later, kinds):
  assert [*health.collapse(after(*later))] == kinds


def test_a_policy_that_always_repeated_itself_has_not_collapsed():
  same = said('a') * 8
  assert not health.collapse(health.seen(health.of(same), same))


def test_small_reflections_are_gathered_before_anything_is_said():
  found = health.Health()
  for step in range(2):
    found = health.seen(found, said(*'abcd', step=step))
  assert [r['step'] for r in found.first] == [0] * 4 + [1] * 4
  for step in (2, 3, 4):
    found = health.seen(found, said(*'abcd', tokens=1, step=step))
    assert bool(health.collapse(found)) == (step > 2)
  assert [r['step'] for r in found.first] == [0] * 4 + [1] * 4
  assert [r['step'] for r in found.recent] == [3] * 4 + [4] * 4
  assert found.counts.answers == 20


def test_metrics_against_the_first_answers():
  later = said('I cannot.', 'Why?', 'What?', 'Well.', tokens=2)
  first = health.of([FLAGGED] * 6 + said('Why?', tokens=4) * 2)
  found = health.metrics(health.seen(first, later), later)
  assert found == {
    'conscience/pairs_total': 6,
    'gen/length_ratio': 2 / 7,
    'gen/refusal_rise': 0.25,
    'gen/question_rise': 0.25,
  }


def test_remarks_name_what_is_amiss_once_by_kind():
  logged = {
    **{'conscience/asked': 8, 'conscience/label_mass': 0.03},
    **{'conscience/review_rate': 0.0, 'gen/length_ratio': 0.125},
  }
  found = health.remarks(after(*said('Ethical', tokens=1) * 8), GIVEN, logged)
  assert [*found] == [
    *('unflagged', 'conscience/review_rate', 'conscience/label_mass'),
    *('gen/length_ratio', 'collapse short', 'collapse alike'),
  ]
  assert found['unflagged'].startswith('conscience so far: 16 answers, 16 jud')
  assert '0.125! healthy is 0.5 to 2' in found['gen/length_ratio']
  assert '1.0 tokens long, 8.0 at first' in found['collapse short']
  unsure = health.of([UNSURE] * 8)
  assert [*health.remarks(unsure, GIVEN, logged)] == [
    *('mass', 'gen/length_ratio'),  # the picture says the others
  ]
  assert health.remarks(health.Health(), GIVEN, logged) == {}
