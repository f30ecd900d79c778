"""The whole run: hours, chip-hours, money."""

import types

import pytest
from test_show import shown

from ealign.plan import bill, show
from ealign.plan.costs import Cost
from ealign.plan.figures import Figures


def mesh(size, kind='TPU v5 lite'):
  device = types.SimpleNamespace(device_kind=kind)
  return types.SimpleNamespace(
    size=size, devices=types.SimpleNamespace(flat=[device])
  )


def sft(seconds):
  return {'sft': Figures('sft', 0, 0, 0, 0, None, seconds=seconds)}


CASES = {
  'expected': Cost(1.0, 0.5, 4.0, 8, 100.0),
  'worst': Cost(1.0, 1.0, 8.0, 8, 200.0),
}


def test_a_run_by_hand():
  found = bill.bills(CASES, sft(1.0), 300, 60.0, mesh(16), 1.5)
  one = found['expected']
  # A step is 1 + .5 + 4 / 8 s; calibration comes before, suites after.
  assert one.seconds == pytest.approx(100 + 300 * 2 + 60)
  assert one.chip_hours == pytest.approx(760 * 16 / 3600)
  assert one.dollars == pytest.approx(760 * 16 / 3600 * 1.5)
  assert found['worst'].seconds == pytest.approx(200 + 300 * 3 + 60)


def test_without_a_price_or_a_conscience():
  found = bill.bills({}, sft(2.0), 10, 0.0, mesh(4))
  assert found.keys() == {'expected'} and found['expected'].seconds == 20
  assert found['expected'].dollars is None
  assert bill.bills({}, sft(None), 10, 0.0, mesh(4)) == {}
  assert bill.bills({}, {}, 10, 0.0, mesh(4)) == {}


def test_two_devices_of_a_chip_are_one():
  (one,) = bill.bills({}, sft(3600.0), 1, 0.0, mesh(8, 'TPU7x')).values()
  assert one.chips == 4 and one.chip_hours == pytest.approx(4)


def test_what_is_shown():
  found = bill.bills(CASES, sft(1.0), 300, 60.0, mesh(16), 1.5)
  said = shown(show.bills, found, 300)
  assert 'the whole run, 300 steps on 16 chips' in said
  assert '  expected  12m40s, 3.38 chip-hours, 5.07 dollars\n' in said
  assert '  at worst  19m20s, 5.16 chip-hours, 7.73 dollars\n' in said
  bare = shown(show.bills, bill.bills(CASES, sft(1.0), 300, 0, mesh(16)), 300)
  assert 'chip-hours\n' in bare and '--chip_price' in bare
  said = shown(show.bills, {}, 300)
  assert 'not known' in said and '--topology' in said
