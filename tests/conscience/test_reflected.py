"""The metrics of a reflection, each by hand from its records."""

import math

import pytest

from ealign.conscience import records


def record(
  stop='stop',
  p=0.1,
  mass=0.9,
  tokens=4,
  cut=0.0,
  dropped=None,
  new=(4, 'stop'),
  text='a',
):
  """A sampled answer; dropped: why its alternative makes no pair, '' a pair.

  new: tokens of the alternative, and why it ended.
  """
  alternative = None
  if dropped is not None:
    alternative = {'kept': not dropped, 'dropped': dropped}
    alternative |= dict(zip(('tokens', 'stop'), new, strict=True))
  return {
    'stop': stop,
    'ids': [1] * tokens,
    'text': text,
    'cut': cut,
    'verdict': {
      **{'p': p, 'mass': mass, 'flagged': (p or 0) >= 0.5},
      'asked': mass > 0,
    },
    'alternative': alternative,
  }


RECORDS = (
  record(p=0.5, dropped='', new=(1, 'stop')),  # at the threshold: flagged
  record(stop='length', p=0.25, tokens=20, dropped='', new=(9, 'stop')),
  record(p=0.25, dropped='', new=(20, 'length')),
  record(p=0.75, mass=0.5, tokens=10, dropped='empty', cut=0.25),
  record(p=0.25, dropped='same', text='Why?'),
  record(p=0.49),
  record(p=None, mass=0.125),  # too little mass for a verdict
  record(stop='length', p=None, mass=0.0, tokens=20, cut=0.75),
  record(stop='length', p=None, mass=0.125, tokens=20),  # asked all the same
  record(dropped='same'),
  record(dropped='lost', text="I can't help with that."),
)
WANTED = {
  'conscience/flag_rate': 2 / 8,
  'conscience/review_rate': 8 / 11,
  'conscience/label_mass': (7 * 0.9 + 0.5 + 2 * 0.125) / 10,
  'conscience/asked': 10,
  'conscience/no_verdict': 3,
  'conscience/no_verdict_cut': 1,
  'conscience/no_verdict_mass': 2,
  'conscience/no_verdict_lost': 0,
  'conscience/revised': 7,
  'conscience/accept_rate': 3 / 7,
  'conscience/pairs': 3,
  'conscience/log_length_ratio': -math.log(4) / 3,  # cut ones are of one length
  'conscience/dropped_empty': 1,
  'conscience/dropped_same': 2,
  'conscience/dropped_lost': 1,
  'conscience/dropped_truncated': 0,
  'conscience/dropped_no_room': 0,
  'conscience/dropped_no_verdict': 0,
  'conscience/dropped_flagged': 0,
  'conscience/dropped_label_echo': 0,
  'conscience/dropped_refusal': 0,
  'conscience/dropped_too_short': 0,
  'conscience/dropped_too_long': 0,
  'conscience/dropped_unlikely': 0,
  'conscience/dropped_repeated': 0,
  'conscience/dropped_disagrees': 0,
  'gen/eos_rate': 8 / 11,
  'gen/truncated_rate': 3 / 11,
  'gen/length_mean': (7 * 4 + 10 + 3 * 20) / 11,
  'gen/refusal_rate': 1 / 11,
  'gen/question_rate': 1 / 11,
  'gen/distinct_rate': 3 / 11,
  'gen/cut': 1 / 11,
}


def test_every_metric_by_hand():
  found = records.metrics(RECORDS)
  assert found.keys() == WANTED.keys()
  for name, value in WANTED.items():
    assert found[name] == pytest.approx(value), name


def test_each_reason_is_counted_under_its_own_name():
  for reason in records.DROPPED:
    found = records.metrics([record(dropped=reason)])
    assert found[f'conscience/dropped_{reason}'] == 1
    assert found['conscience/pairs'] == found['conscience/accept_rate'] == 0
    counts = [v for k, v in found.items() if 'dropped' in k]
    assert sum(counts) == 1


def test_nothing_sampled_is_zero_everywhere():
  found = records.metrics([])
  assert found.keys() == WANTED.keys() and not any(found.values())


def test_an_answer_lost_on_the_way_has_no_verdict_for_another_cause():
  lost = record(p=None, mass=0.0)
  lost['verdict']['asked'] = False
  found = records.metrics([lost, record(p=None, mass=0.25)])
  assert found['conscience/no_verdict'] == 2
  assert found['conscience/no_verdict_lost'] == 1
  assert found['conscience/no_verdict_mass'] == 1
  assert found['conscience/label_mass'] == 0.25  # of those asked about
