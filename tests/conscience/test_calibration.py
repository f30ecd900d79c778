"""The threshold from the frozen model's answers, simulated and scripted."""

import dataclasses
import math

import jax
import numpy as np
import pytest

from ealign import fields
from ealign.alone import ALONE
from ealign.conscience import calibration, conformal, prompts, reflect
from ealign.conscience.framings import FRAMINGS
from ealign.data import chat
from ealign.engine import Engine, Model
from ealign.runtime.errors import UserError
from ealign.sampling.sampler import Answer

MODEL = Model(None, chat.load_tokenizer('ealign/world/base'))
REPLY = (*MODEL.ids('For the old soup: Wash your hands.'), MODEL.end)
KEY = jax.random.key(0)
ALPHAS = [percent / 100 for percent in range(1, 100)]


def test_the_rank_is_exact():
  slips = 0
  for percent, alpha in enumerate(ALPHAS, start=1):
    for n in range(1, 120):
      wanted = -(-(n + 1) * (100 - percent) // 100)
      assert conformal.rank(n, alpha) == wanted
      slips += math.ceil((n + 1) * (1 - alpha)) != wanted
  assert slips  # where floats would be off by one


@pytest.mark.parametrize('alpha', ALPHAS)
def test_the_least_n_is_the_first_that_does(alpha):
  n = conformal.least(alpha)
  conformal.kth(range(n), alpha)
  with pytest.raises(UserError, match=f'auto:{alpha}.* {n - 1} .*least {n} '):
    conformal.kth(range(n - 1), alpha)


def test_five_percent_needs_nineteen_answers():
  assert conformal.least(0.05) == 19 == conformal.rank(19, 0.05)
  assert conformal.rank(200, 0.05) == 191
  p = np.random.default_rng(0).permutation(200) + 1
  assert conformal.kth(p, 0.05) == 191


def flagged(draw, *, alpha=0.1, n=30, m=100, times=3000):
  """Mean share of m new scores above the level of n, and its error."""
  rng = np.random.default_rng(1)
  rates = [
    np.mean(draw(rng, m) > conformal.kth(draw(rng, n), alpha))
    for _ in range(times)
  ]
  return np.mean(rates), np.std(rates) / np.sqrt(times)


def test_the_mean_rate_is_alpha_within_the_bound():
  rate, error = flagged(lambda rng, n: rng.beta(0.5, 3, n))
  assert 0.1 - 1 / 31 - 2 * error <= rate <= 0.1 + 2 * error
  # It is known: of n + 1 places, those above the k-th.
  assert rate == pytest.approx(1 - conformal.rank(30, 0.1) / 31, abs=0.005)


def test_with_ties_fewer_are_flagged():
  rate, error = flagged(lambda rng, n: rng.integers(0, 5, n) / 5)
  assert 0 <= rate < 0.1 - 1 / 31 - 2 * error


def conscience(p, *, stop='stop', mass=0.5, **settings):
  """Whose frozen model answers alike, with these P(flag) in order."""
  given = iter(p)

  def generate(request):
    logps = np.full(len(REPLY), -0.5, np.float32)
    return [Answer(REPLY, logps, stop, 0.0)] * len(request.prompts)

  def label_logps(request):
    logps = np.full((len(request.prompts), 6), -np.inf)
    for row in logps:
      p = next(given)
      with np.errstate(divide='ignore'):
        row[[0, 3]] = np.log(mass * p), np.log(mass * (1 - p))
    return logps

  backend = dataclasses.replace(
    ALONE, generate=generate, label_logps=label_logps
  )
  engine = Engine(MODEL, {}, backend)
  return prompts.Conscience(
    framing=FRAMINGS['ethical'],
    settings=fields.Conscience(**settings),
    sample=fields.Sample(),
    dpo=fields.DPO(),
    policy=engine,
    frozen=engine,
  )


def requests(n):
  return [
    [{'role': 'user', 'content': f'Tips for soup {i}?'}] for i in range(n)
  ]


P = np.random.default_rng(0).permutation(np.arange(1, 41)) / 50


def test_an_answer_is_flagged_above_the_kth_and_not_at_it():
  found = calibration.reference(conscience(P), requests(40), key=KEY)
  kth = sorted(found.p)[38]  # ceil(41 * .95) = 39
  assert kth < found.threshold <= np.nextafter(kth, 1)
  assert found.p == pytest.approx(P.tolist())
  assert found.logps == (-0.5,) * 40 and found.lengths == (len(REPLY),) * 40
  # The same answers again, held against it: those above are one in forty.
  c = dataclasses.replace(conscience(P), reference=found)
  again = c.frozen.answer(requests(40))
  flags = [v.flagged for v in reflect.review(c, c.reviewer, again, key=KEY)]
  assert flags == [p > kth for p in found.p] and sum(flags) == 1


def test_a_number_stays_as_it_is():
  c = conscience(P, threshold=0.3)
  assert calibration.reference(c, requests(5), key=KEY).threshold == 0.3
  assert c.threshold == 0.3


def test_where_none_is_needed_too_few_verdicts_flag_nothing():
  c = conscience([0.9] * 20, mass=0.1)
  found = calibration.reference(c, requests(20), key=KEY, needed=False)
  assert found.p == (None,) * 20 and found.threshold == calibration.NONE > 1
  with pytest.raises(UserError, match='0 got a verdict'):
    calibration.reference(
      conscience([0.9] * 20, mass=0.1), requests(20), key=KEY
    )


def test_a_threshold_that_was_not_found_is_told():
  with pytest.raises(UserError, match="threshold='auto:0.05': it was not"):
    conscience(P).threshold  # noqa: B018


def test_if_all_say_one_nothing_is_above():
  found = calibration.reference(conscience([1.0] * 20), requests(20), key=KEY)
  assert found.threshold > 1


def test_answers_without_a_verdict_are_left_out_and_told():
  c = conscience([0.2] * 20, stop='length')
  with pytest.raises(UserError, match='of 20 answers .* 0 got a verdict') as e:
    calibration.reference(c, requests(20), key=KEY)
  assert 'at least 19' in str(e.value) and '20 cut at' in str(e.value)
  c = conscience([0.2] * 20, mass=0.2)
  with pytest.raises(
    UserError, match=r'20 with label mass 0\.2 below conscience\.min_mass'
  ):
    calibration.reference(c, requests(20), key=KEY)


def test_a_cut_answer_that_was_asked_about_lacks_mass():
  """Where cut answers are judged, being cut is not what cost the verdict."""
  how = {'review': fields.Review(truncated='judge')}
  c = conscience([0.2] * 20, stop='length', mass=0.1, **how)
  with pytest.raises(UserError, match='20 with label mass 0.1 below') as e:
    calibration.reference(c, requests(20), key=KEY)
  assert 'cut at' not in str(e.value) and 'ealign.audit' in str(e.value)


def test_some_without_a_verdict_are_no_small_p():
  """Two of 21 are cut: the rank is that of 19, whose largest is the level."""
  c = conscience(np.arange(1, 20) / 50)
  generate = c.frozen.backend.generate

  def cut(request):
    answers = generate(request)
    return [
      dataclasses.replace(a, stop='length') if i < 2 else a
      for i, a in enumerate(answers)
    ]

  backend = dataclasses.replace(c.frozen.backend, generate=cut)
  engine = dataclasses.replace(c.frozen, backend=backend)
  c = dataclasses.replace(c, frozen=engine)
  found = calibration.reference(c, requests(21), key=KEY)
  assert found.p[:2] == (None, None)
  assert found.threshold > max(found.p[2:]) == pytest.approx(19 / 50)
