import dataclasses
import types

import pytest

from ealign import fields
from ealign.plan import costs
from ealign.plan.figures import Figures
from ealign.runtime import peaks

# A TPU v5e: 197e12 FLOP/s, 819e9 and 400e9 bytes/s.
DEVICE = types.SimpleNamespace(device_kind='TPU v5 lite')
MESH = types.SimpleNamespace(
  size=16, devices=types.SimpleNamespace(flat=[DEVICE])
)
OFF = fields.Guards(shortest=0.0, longest=0.0)


def config(**conscience):
  values = {'every': 4, 'prompts': 16, 'guards': OFF, 'threshold': 0.5}
  return fields.Config(
    conscience=fields.Conscience(**values | conscience),
    sample=fields.Sample(max_new_tokens=600),
    dpo=fields.DPO(pairs=16, length=1024),
    replay=fields.Replay(max_uses=4),
  )


def figures(name, seconds, **more):
  """A program that takes so long because of its FLOPs alone."""
  own = {'flops': 197e12 * seconds, 'hbm_bytes': 0.0, 'seconds': seconds}
  return Figures(name, 0, 0, 0, 0, None, **own | more)


def base(of=None, weights=0.0, **decode):
  found = {
    name: figures(name, seconds)
    for name, seconds in (
      *(('sft', 1.0), ('hybrid', 2.0), ('prefill', 0.1), ('decode', 0.4)),
      *(('review', 0.2), ('score', 0.5)),
    )
  }
  if decode:
    found['decode'] = figures('decode', 1.0, **{'flops': 0.0} | decode)
  return costs.Base(
    found, of or config(), MESH, weights, reviewer=0.0, prompt=128, review=1024
  )


def test_at_worst_all_is_flagged_and_every_update_has_its_pairs():
  found = costs.cost(base())
  assert (found.sft, found.pairs) == pytest.approx((1.0, 1.0))
  # Sampled, reviewed, rewritten, reviewed by two; 16 pairs are one batch.
  assert found.reflection == pytest.approx(0.1 + 2 * 0.4 + 3 * 0.2 + 0.5)
  assert found.step == pytest.approx(2.0 + 2.0 / 4)
  assert found.share == pytest.approx(1.5 / 2.5)
  known = found.as_dict()
  assert known['share_pairs'] == pytest.approx(1 / 2.5)
  assert known['share_reflections'] == pytest.approx(0.5 / 2.5)
  assert known['times_sft'] == pytest.approx(2.5)


def test_lengths_are_compared_with_plain_answers():
  guarded = config(guards=fields.Guards())
  more = costs.cost(base(guarded)).reflection - costs.cost(base()).reflection
  assert more == pytest.approx(0.1 + 0.4)


def test_a_threshold_is_found_before_the_first_step():
  found = costs.cost(base(config(threshold='auto:0.05')))
  # 200 answers of the frozen model, 16 at a time.
  assert found.calibration == pytest.approx(13 * (0.1 + 0.4 + 0.2))
  assert not costs.cost(base()).calibration


def test_expected_is_what_few_flags_and_short_answers_take():
  found = costs.cost(base(), expected=True)
  # Two of 16 are flagged: they fill a batch of four, drawn four times, which
  # is each step of the four.
  assert found.pairs == pytest.approx(1.0)
  few, many = (costs._longest(600, rows, True) / 600 for rows in (2, 16))
  assert few < many < 1
  whole = 0.1 + 0.4 * many + 0.2
  again = (0.4 * few + 2 * 0.2) / 4
  assert found.reflection == pytest.approx(whole + again + 0.5)
  rare = config(every=40, prompts=160)
  assert costs.cost(base(rare), expected=True).pairs == pytest.approx(4 / 40)
  unlimited = dataclasses.replace(rare, replay=fields.Replay())
  assert costs.cost(base(unlimited), expected=True).pairs == pytest.approx(1.0)


def test_fewer_and_shorter_pairs():
  short = dataclasses.replace(config(), dpo=fields.DPO(pairs=8, length=512))
  assert costs.cost(base(), short).pairs == pytest.approx(1 / 4)


def test_more_rows_read_the_weights_as_often():
  # Of 10 GB a token 8 are weights; 600 tokens.
  own = {'hbm_bytes': 600 * 10e9, 'transfers': 600 * 76}
  known = base(weights=8e9, **own)
  time = lambda c, **how: costs.program_seconds(
    known, c, peaks.LATENCY, 'decode', **how
  )
  waits = 600 * 76e-6
  assert time(config()) == pytest.approx(600 * 10e9 / 819e9 + waits)
  assert time(config(), rows=10) == pytest.approx(600 * 28e9 / 819e9 + waits)
  half = time(config(), rows=10, trips=300)
  assert half == pytest.approx(time(config(), rows=10) / 2)
  int8 = dataclasses.replace(config(), model=fields.Model(quantize='int8'))
  assert time(int8) == pytest.approx(600 * 6e9 / 819e9 + 2 * waits)


def test_the_lever_that_saves_most_comes_first():
  guarded = config(guards=fields.Guards())
  known = base(guarded, weights=9e9, hbm_bytes=600 * 10e9)
  found = costs.levers(known)
  steps = [expected.step for _, expected, _ in found]
  assert steps == sorted(steps) and steps[0] < costs.cost(known).step
  first, expected, worst = found[0]
  assert first == {'conscience.every': 40, 'conscience.prompts': 160}
  changed = costs.changed(known.config, first)
  assert changed.conscience.every == 40
  assert changed.conscience.guards == known.config.conscience.guards
  assert expected == costs.cost(known, changed, expected=True)
  assert worst.step > expected.step
  names = [name for fields, _, _ in found for name in fields]
  # A run of 200 steps, and pairs that have to hold 128 + 600 tokens.
  later = dataclasses.replace(known.config, train=fields.Train(steps=40))
  others = costs.levers(dataclasses.replace(known, config=later))
  assert all('conscience.every' not in own for own, _, _ in others)
  assert {'dpo.length': 512} not in [own for own, _, _ in found]
  short = next(own for own, _, _ in found if 'sample.max_new_tokens' in own)
  assert short['dpo.length'] == 256
  full = dataclasses.replace(known.config, model=fields.Model(train='full'))
  trained = costs.levers(dataclasses.replace(known, config=full))
  assert all('model.quantize' not in own for own, _, _ in trained)
  assert 'model.quantize' in names and 'dpo.length' in names


def test_what_is_unknown_costs_nothing_known():
  found = base().found
  assert costs.known(found)
  assert not costs.known({n: f for n, f in found.items() if n != 'decode'})
  found['score'] = dataclasses.replace(found['score'], seconds=None)
  assert not costs.known(found)


def test_what_a_reflection_is_asked_to_do():
  def of(conscience=(), **review):
    own = config(review=fields.Review(**review), **dict(conscience))
    found = (costs.cost(base(own), expected=e) for e in (True, False))
    return [cost.reflection for cost in found]

  expected, worst = of()
  letters = of(form='letters')  # asks twice, in both orders
  assert letters[1] - worst == pytest.approx(2 * 0.2)
  thought = of(reason_tokens=300)  # half as long as an answer
  assert thought[1] - worst == pytest.approx(2 * 0.2)
  every = of(verdict='all')
  assert every[1] == worst and expected < every[0] < worst
  short = of({'revise': fields.Revise(max_new_tokens=60)})
  assert worst - short[1] == pytest.approx(0.9 * 0.4)


def test_weights_are_gathered_once_for_any_number_of_rows():
  known = base()
  sent = {'all-gather': 200e9, 'all-reduce': 20e9}
  review = figures('review', 0.0, collectives=sent)
  known.found['review'] = dataclasses.replace(review, seconds=1.0)
  time = lambda rows: costs.program_seconds(
    known, known.config, 0.0, 'review', rows=rows
  )
  assert time(1) == pytest.approx((200 + 2 * 20) / 200)
  assert time(0.25) == pytest.approx((200 + 2 * 5) / 200)


def test_few_rows_are_never_more_than_there_are():
  one, many = (
    costs.cost(dataclasses.replace(base(), parts=parts), expected=True)
    for parts in (16, 64)
  )
  assert many.reflection == one.reflection
