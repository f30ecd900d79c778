"""Answers for blind readers, and P against their labels, worked out by hand."""

import dataclasses

import numpy as np
import pytest

from ealign.evals import blind, stats
from ealign.evals.audit import measures


def answer(i, p=0.5, arm='a', weight=1.0, flagged=False, text='Yes.'):
  turns = ({'role': 'user', 'content': f'Shall I, {i}?'},)
  return blind.Answer(arm, turns, text, p, flagged, weight=weight)


def many(arm, n, seed=0):
  rng = np.random.default_rng(seed)
  return [
    answer(f'{arm}{i}', float(p), arm) for i, p in enumerate(rng.random(n))
  ]


# --- The AUC by weight --------------------------------------------------------


def test_the_weighted_auc_by_hand():
  # Bad: .9 stands for 1, .4 for 3; good: .6 and .1 for 2 each.
  p, flags, w = [0.9, 0.4, 0.6, 0.1], [1, 1, 0, 0], [1, 3, 2, 2]
  found = measures.auc(p, flags, [*'abcd'], w)
  assert found.value == pytest.approx(1 / 4 * 1 + 3 / 4 * 1 / 2)
  # Each alone: (1 - 5/8) / 4, (1/2 - 5/8) 3/4, (1/4 - 5/8) / 2, (1 - 5/8) / 2.
  off = np.array([3 / 32, -3 / 32, -3 / 16, 3 / 16])
  half = stats.t_quantile(3) * np.sqrt(4 / 3 * (off**2).sum())
  assert found.low == pytest.approx(max(0, 5 / 8 - half))
  assert found.high == pytest.approx(min(1, 5 / 8 + half))


def test_a_weight_of_two_is_the_row_twice():
  rng = np.random.default_rng(0)
  p, y = rng.random(40), rng.random(40) < 0.4
  names, w = np.arange(40) // 2, rng.integers(1, 4, 40)
  weighted = measures.auc(p, y, names, w)
  repeated = measures.auc(*(np.repeat(x, w) for x in (p, y, names)))
  ends = lambda found: (found.value, found.low, found.high)
  assert ends(weighted) == pytest.approx(ends(repeated))


def test_weights_that_are_alike_change_nothing():
  rng = np.random.default_rng(1)
  p, y, names = rng.random(30), rng.random(30) < 0.5, np.arange(30) // 3
  plain = measures.auc(p, y, names)
  same = measures.auc(p, y, names, [7.0] * 30)
  assert (same.value, same.low) == pytest.approx((plain.value, plain.low))


# --- The share by weight ------------------------------------------------------


def test_the_weighted_share_by_hand():
  found = blind.rate([1, 0, 0, 1], [*'abcd'], [1, 1, 3, 3])
  assert found.value == 0.5
  # Offs 1/16, -1/16, -3/16, 3/16: the variance is 4/3 x 20/256.
  size = 0.25 / (4 / 3 * 20 / 256)
  ends = stats.score(size / 2, size, stats.t_quantile(3))
  assert (found.low, found.high) == pytest.approx(ends)


def test_no_share_is_surer_than_as_many_clusters():
  for flags in ([0] * 8, [1] * 8):
    found = blind.rate(flags, [*'aabbccdd'], [1.0] * 8)
    assert (found.low, found.high) == stats.wilson(flags[0] * 4, 4)
  balanced = blind.rate([0, 1] * 4, [*'aabbccdd'], [1.0] * 8)
  assert (balanced.low, balanced.high) == stats.wilson(2, 4)


# --- Drawing ------------------------------------------------------------------


def test_how_many_of_each_stratum_by_hand():
  sizes = {('a', 0): 10, ('a', 1): 1, ('b', 0): 2}
  assert blind.allot(sizes, 6) == {('a', 0): 3, ('a', 1): 1, ('b', 0): 2}
  assert blind.allot(sizes, 1) == {('a', 0): 0, ('a', 1): 1, ('b', 0): 0}
  assert blind.allot(sizes, 99) == sizes


def test_bands_are_the_halves_and_tails_of_an_arm():
  drawn = blind.draw(many('a', 100), 100, 0)
  by_p = [a.band for a in sorted(drawn, key=lambda a: a.p)]
  assert by_p == [0] * 50 + [1] * 30 + [2] * 15 + [3] * 5
  assert {a.weight for a in drawn} == {1.0}


def test_each_arm_and_band_alike_and_weights_say_what_they_stand_for():
  answers = many('a', 400) + many('b', 80, seed=1)
  drawn = blind.draw(answers, 40, 0)
  count = lambda arm, band: sum(a.stratum == (arm, band) for a in drawn)
  assert [count('a', b) for b in range(4)] == [5] * 4
  # The highest band of b has four answers; the others give the twentieth.
  assert [count('b', b) for b in range(4)] == [5, 5, 6, 4]
  for arm, size in (('a', 400), ('b', 80)):
    weights = [a.weight for a in drawn if a.arm == arm]
    assert sum(weights) == pytest.approx(size)


def test_the_same_seed_draws_the_same_and_another_others():
  answers = many('a', 300)
  one, same, other = (blind.draw(answers, 30, seed) for seed in (0, 0, 1))
  assert one == same and one != other
  assert [a.p for a in one] != sorted(a.p for a in one)  # shuffled


def test_by_weight_the_drawn_are_right_about_all():
  """Of 40 drawings, where P knows much and most are of the high bands."""
  rng = np.random.default_rng(3)
  bad = rng.random(400) < 0.15
  p = np.clip(rng.normal(0.3 + 0.15 * bad, 0.1), 0, 1)
  answers = [answer(i, float(x)) for i, x in enumerate(p)]
  label = {a.request: bool(b) for a, b in zip(answers, bad, strict=True)}
  truth = measures.auc(p, bad, range(400)).value
  shares, aucs, plain = [], [], []
  for seed in range(40):
    drawn = blind.draw(answers, 80, seed)
    said = [label[a.request] for a in drawn]
    part = blind.compare(drawn, said, said)[0]
    shares.append(part.share.value)
    aucs.append(part.auc.value)
    plain.append(np.mean(said))
  assert np.mean(shares) == pytest.approx(bad.mean(), abs=0.02)
  assert np.mean(aucs) == pytest.approx(truth, abs=0.02)
  assert np.mean(plain) > bad.mean() + 0.05  # without weights


# --- Readers ------------------------------------------------------------------


def test_two_readers_by_hand():
  answers = [answer(i, p) for i, p in enumerate((0.9, 0.4, 0.6, 0.1))]
  answers[0] = dataclasses.replace(answers[0], flagged=True)
  (part,) = blind.compare(answers, [1, 1, 0, 0], [1, 0, 0, 0])
  assert (part.n, part.bad, part.stands_for) == (4, (2, 1, 1, 2), 4)
  # Bad .9, .4, .9; good .6, .1, .4, .6, .1: 1, (2 + 1/2) / 5 and 1.
  assert part.auc.value == pytest.approx(2.5 / 3)
  assert [x.value for x in part.each] == [0.75, 1, 1]
  assert (part.share.value, part.agrees.value) == (3 / 8, 3 / 4)
  assert part.kappa.value == pytest.approx(1 - (1 / 4) / (1 / 2))
  assert part.caught.value == pytest.approx(2 / 3)
  assert (part.false.value, part.auc.n) == (0, 4)


def test_p_of_several_questions_has_an_auc_for_each_and_none_of_all():
  turns = ({'role': 'user', 'content': 'Why?'},)
  make = lambda p, framing: blind.Answer(
    'sft', turns, 'x', p, False, of={'framing': framing}
  )
  # Within a question P says nothing; the bad ones are of the one whose P is
  # higher, so that together it would look as if P knew.
  answers = [make(0.4, 'fair')] * 4 + [make(0.1, 'ethical')] * 4
  bad = [True, True, False, False] + [False] * 4
  whole, *parts = blind.compare(answers, bad, bad)
  assert whole.auc is None and whole.each == (None,) * 3 and whole.bad[0] == 2
  assert [part.asked for part in parts] == ['ethical', 'fair']
  assert parts[0].auc is None and parts[1].auc.value == 0.5


def test_who_reads_first_changes_nothing():
  answers = many('a', 50) + many('b', 50, seed=1)
  rng = np.random.default_rng(2)
  one, other = rng.random((2, 100)) < 0.3
  a = blind.compare(answers, one, other)
  b = blind.compare(answers, other, one)
  ends = lambda *found: [z for x in found for z in (x.value, x.low, x.high)]
  for x, y in zip(a, b, strict=True):
    assert ends(x.auc, x.share) == pytest.approx(ends(y.auc, y.share))
    assert ends(x.kappa) == pytest.approx(ends(y.kappa))
    assert ends(*x.each[:2]) == pytest.approx(ends(*y.each[1::-1]))
  assert [part.arm for part in a] == ['', 'a', 'b']


def test_labels_that_are_all_alike_have_no_auc():
  answers = [answer(i) for i in range(3)]
  (part,) = blind.compare(answers, [0] * 3, [0] * 3)
  assert part.auc is None and part.kappa is None and part.caught is None
  assert part.share.value == 0 and part.false.value == 0


def test_labels_must_be_as_many_as_answers():
  with pytest.raises(ValueError, match='labels of both readers'):
    blind.compare([answer(0)], [1], [])
  with pytest.raises(ValueError, match='labels of both readers'):
    blind.compare([], [], [])


# --- Which answers ------------------------------------------------------------


def record(phase='reflect', text='Yes.', p=0.3, flagged=False):
  turns = [{'role': 'user', 'content': 'Shall I?'}]
  verdict = {'p': p, 'mass': 0.9, 'framing': 'fair', 'flagged': flagged}
  return {'phase': phase, 'step': 4, 'messages': turns, 'text': text} | {
    'verdict': verdict
  }


def test_reviewed_answers_are_those_with_text_and_a_verdict():
  records = [
    record(),
    record('eval', p=0.7, flagged=True),
    record('curve'),
    record(text=' \n'),
    record(p=None),
    record() | {'verdict': None},
  ]
  found = blind.reviewed('sft', records)
  assert [(a.p, a.flagged, a.of['phase']) for a in found] == [
    (0.3, False, 'reflect'),
    (0.7, True, 'eval'),
  ]
  assert {a.arm for a in found} == {'sft'}


def test_a_reader_sees_all_turns_where_there_are_several():
  assert answer(3).request == 'Shall I, 3?'
  roles = ('system', 'user', 'assistant', 'user')
  turns = tuple({'role': r, 'content': r[0]} for r in roles)
  made = dataclasses.replace(answer(3), messages=turns)
  assert made.request == 'SYSTEM: s\n\nUSER: u\n\nASSISTANT: a\n\nUSER: u'


def test_rare_bad_answers_of_unequal_weight_have_honest_intervals():
  """400 answers, 16 bad, all below the median of P: the worst for the draw."""
  every = [answer(i, i / 400) for i in range(400)]
  missed = 0
  for seed in range(150):
    bad = set(np.random.default_rng(seed).permutation(200)[:16].tolist())
    drawn = blind.draw(every, 100, seed)
    labels = [round(400 * a.p) in bad for a in drawn]
    names, weights = [a.request for a in drawn], [a.weight for a in drawn]
    found = blind.rate(labels, names, weights)
    missed += found.high < 16 / 400
  assert missed <= 0.06 * 150


def test_weights_that_differ_are_worth_fewer_answers():
  names = [*'abcd']
  assert measures.worth([1, 1, 1, 1], names) == 4
  assert measures.worth([3, 1], 'ab') == pytest.approx(16 / 10)
  assert measures.worth([1, 2, 1], 'aab') == pytest.approx(16 / 10)
  alike = blind.rate([False] * 4, names, [1] * 4)
  unlike = blind.rate([False] * 4, names, [5, 1, 1, 1])
  assert unlike.high > alike.high


def test_fewest_are_the_strata_that_have_answers():
  assert blind.fewest(many('a', 100) + many('b', 40)) == 8
  assert blind.fewest(many('a', 1)) == 1
  of = lambda n: len({x.band for x in blind.draw(many('a', n), n, 0)})
  for n in (1, 2, 3, 5, 10, 40):
    assert blind.fewest(many('a', n)) == of(n)
