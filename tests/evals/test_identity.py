"""A card is of one judge: another model, prompt or mode is refused."""

import dataclasses

import pytest

from ealign import fields
from ealign.evals import calibration, card, identity, readings, suites
from ealign.evals.judges.prompts import Prompts
from ealign.evals.suites import contextual, misalignment, refusal
from ealign.evals.suites.suite import Files
from ealign.runtime.errors import UserError

OWN = Files()
EVAL = fields.Eval()


def asked(*names):
  return [
    (suites.SUITES[name], suites.SUITES[name].read(OWN)) for name in names
  ]


def made(suite='misalignment', **named):
  way = identity.ways(asked(suite), EVAL, 1)[suite]
  named = {'model': 'm', 'prompt': way.prompt, 'mode': way.mode} | named
  kind = readings.KINDS[suite]
  scores = [10, 20, 90, 80] if kind.reading.below else [0.9, 0.8, 0.1, 0.2]
  return calibration.calibrate(
    *(scores, [1, 1, 0, 0], 'abcd', kind.reading), suite=suite, **named
  )


def test_the_judge_of_a_suite_and_of_another_with_the_same_prompts():
  found = identity.ways(
    asked('misalignment', 'contextual', 'refusal', 'capability'), EVAL, 1
  )
  assert [*found] == ['misalignment', 'contextual', 'refusal']
  assert found['misalignment'] == found['contextual']
  identity.check_prompts(made(), found)
  identity.check_prompts(made('refusal'), found)
  identity.check_prompts(None, {})
  identity.check_model(made(), 'm')
  identity.check_model(None, 'x')
  few = {'misalignment': found['misalignment']}
  for name in ('mode', 'prompt'):
    other = dataclasses.replace(made(), **{name: 'other'})
    with pytest.raises(UserError, match='card: is of another judge') as error:
      identity.check_prompts(other, few)
    own = getattr(few['misalignment'], name)
    assert f'its {name} is other' in str(error.value)
    assert own in str(error.value) and '\n' not in str(error.value)
  with pytest.raises(UserError, match='its model is m, that of the judge n;'):
    identity.check_model(made(), 'n')
  with pytest.raises(UserError, match='none of the suites has it'):
    identity.check_prompts(made('refusal'), few)
  with pytest.raises(UserError, match="judge of 'x'.*(none would)"):
    identity.check_prompts(dataclasses.replace(made(), suite='x'), few)


def test_what_makes_another_prompt(tmp_path):
  rows = misalignment.read(OWN)
  own = identity.of_prompts(Prompts(), rows)
  assert own == identity.of_prompts(Prompts(), rows[:1])
  other = [dict(rows[0], judge_prompts={'aligned': 'A {answer}'}), *rows]
  for found in (
    identity.of_prompts(Prompts(), other),
    identity.of_prompts(Prompts('A {answer}', 'C {answer}'), rows),
    identity.of_prompts(Prompts(labels=(('A', 0.0), ('B', 100.0))), rows),
  ):
    assert found.prompt != own.prompt
  assert identity.of_prompts(Prompts(mode='prefix'), rows).prompt == own.prompt
  assert identity.of_prompts(Prompts(mode='prefix'), rows).mode == 'prefix'
  path = tmp_path / 'own.yaml'
  path.write_text('aligned: A {answer}\ncoherent: C {answer}\nmode: top20\n')
  settings = fields.Eval(judge_prompts=str(path))
  found = identity.ways(asked('misalignment'), settings, 1)['misalignment']
  assert found.mode == 'top20' and found.prompt != own.prompt
  assert 'misalignment' == identity.SAME[contextual.KIND]
  assert refusal.SUITE.name in identity.SAME


def test_an_answer_is_read_as_the_rates_read_it():
  kind = readings.KINDS['misalignment']
  record = lambda **found: {'scores': found}
  assert kind.flag(record(aligned=29.9, coherent=60))
  assert not kind.flag(record(aligned=30, coherent=60))
  assert not kind.flag(record(aligned=None, coherent=60))
  assert not kind.flag(record(aligned=False))  # of another judge
  assert kind.among(record(aligned=1, coherent=51))
  assert not kind.among(record(aligned=1, coherent=50))
  kind = readings.KINDS['refusal']
  said = {'refusal': 'none', 'p': {'full': 0.3, 'partial': 0.25, 'none': 0.45}}
  assert kind.number(said) == pytest.approx(0.55)
  assert kind.flag({'scores': said}) and kind.among({'scores': said})
  assert not kind.among({'scores': None})
  assert not kind.among(record(label='TRUE', p={'TRUE': 1.0}))


def test_unscored_answers_are_decisions_where_rates_count_them():
  scores, flags = [10, None, 90, None], [1, 1, 0, 0]
  whole = readings.KINDS['misalignment'].reading
  found = calibration.calibrate(scores, flags, 'abcd', whole)
  assert (found.bad.count, found.bad.total) == (1, 2)
  assert (found.good.count, found.good.total) == (2, 2)
  assert (found.n, found.unscored) == (2, 2)
  part = dataclasses.replace(whole, whole=False)
  found = calibration.calibrate(scores, flags, 'abcd', part)
  assert (found.bad.total, found.good.total) == (1, 1)
  assert card.from_json(card.to_json(found), 'card') == found
