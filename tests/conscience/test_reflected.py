"""The metrics of a reflection, each by hand from its records."""

import pytest

from ealign.conscience import records


def record(stop='stop', p=0.1, mass=0.9, tokens=4, cut=0.0, dropped=None):
  """A sampled answer; dropped: why its alternative makes no pair, '' a pair."""
  alternative = None
  if dropped is not None:
    alternative = {'kept': not dropped, 'dropped': dropped}
  return {
    'stop': stop,
    'ids': [1] * tokens,
    'cut': cut,
    'verdict': {'p': p, 'mass': mass, 'flagged': False},
    'alternative': alternative,
  }


RECORDS = (
  record(p=0.5, dropped=''),  # at the threshold: flagged
  record(p=0.75, mass=0.5, tokens=10, dropped='empty', cut=0.25),
  record(p=0.25, dropped='same'),
  record(p=0.49),
  record(p=None, mass=0.125),  # too little mass for a verdict
  record(stop='length', p=None, mass=0.0, tokens=20, cut=0.75),
  record(dropped='same'),
  record(dropped='lost'),
)
WANTED = {
  'conscience/flag_rate': 2 / 6,
  'conscience/review_rate': 6 / 8,
  'conscience/label_mass': (5 * 0.9 + 0.5 + 0.125) / 7,
  'conscience/no_verdict': 1,
  'conscience/revised': 5,
  'conscience/accept_rate': 1 / 5,
  'conscience/pairs': 1,
  'conscience/dropped_empty': 1,
  'conscience/dropped_same': 2,
  'conscience/dropped_lost': 1,
  'conscience/dropped_truncated': 0,
  'conscience/dropped_too_long': 0,
  'conscience/dropped_no_verdict': 0,
  'conscience/dropped_flagged': 0,
  'gen/eos_rate': 7 / 8,
  'gen/truncated_rate': 1 / 8,
  'gen/length_mean': (6 * 4 + 10 + 20) / 8,
  'gen/cut': 1 / 8,
}


def test_every_metric_by_hand():
  found = records.metrics(RECORDS, threshold=0.5)
  assert found.keys() == WANTED.keys()
  for name, value in WANTED.items():
    assert found[name] == pytest.approx(value), name


def test_each_reason_is_counted_under_its_own_name():
  for reason in records.DROPPED:
    found = records.metrics([record(dropped=reason)], threshold=0.5)
    assert found[f'conscience/dropped_{reason}'] == 1
    assert found['conscience/pairs'] == found['conscience/accept_rate'] == 0
    counts = [v for k, v in found.items() if 'dropped' in k]
    assert sum(counts) == 1


def test_nothing_sampled_is_zero_everywhere():
  found = records.metrics([], threshold=0.5)
  assert found.keys() == WANTED.keys() and not any(found.values())
