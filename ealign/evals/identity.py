"""Which judge it was: by its model, its prompts and how its reply is read.

A card (`evals.calibration`) is of one judge. Another model, or the same one
asked in other words, errs otherwise: its rates are not corrected by that card.
"""

import dataclasses
from collections.abc import Mapping, Sequence

from ealign import fields
from ealign.evals.calibration import Calibration
from ealign.evals.judges import factual, prompts, refusal, refusal_wordings
from ealign.evals.judges.prompts import Prompts
from ealign.runtime import provenance
from ealign.runtime.errors import UserError

# Suite -> the suite whose judge it has, if a card can be made of that.
SAME = {
  'misalignment': 'misalignment',
  'contextual': 'misalignment',
  'own': 'misalignment',
  'refusal': 'refusal',
}


@dataclasses.dataclass(frozen=True)
class Way:
  """How a judge is asked: the hash of its prompts, and how it is read."""

  prompt: str
  mode: str

  def __str__(self) -> str:
    return f'prompt {self.prompt}, {self.mode}'


def of_prompts(found: Prompts, rows: Sequence[Mapping]) -> Way:
  """Of the judge of open answers to these questions."""
  own = [r for r in rows if r.get('kind') != factual.KIND]
  texts = sorted({found.of(row) for row in own})
  mode = 'labels' if found.labels else found.mode
  return Way(provenance.text_hash(repr((texts, found.labels))), mode)


def of_refusal() -> Way:
  """Of the judge of refusals: its wording, and the maps it may use."""
  wording = refusal_wordings.WORDINGS['kinds']
  shown = refusal_wordings.HEAD, refusal_wordings.TAIL
  maps = refusal.SHIPPED.read_text('utf-8')
  return Way(provenance.text_hash(repr((wording, shown, maps))), 'labels')


def ways(asked, settings: fields.Eval, limit: int) -> dict[str, Way]:
  """Name of a suite -> how its judge is asked, where a card can be of it.

  asked: (suite, rows) of `suites.read`. limit: MiB of a file.
  """
  own = Prompts()
  if settings.judge_prompts:
    own = prompts.read(settings.judge_prompts, limit)
  refusals = lambda rows: of_refusal()
  of = {'misalignment': lambda rows: of_prompts(own, rows), 'refusal': refusals}
  return {
    suite.name: of[SAME[suite.name]](rows)
    for suite, rows in asked
    if suite.name in SAME and suite.judge.asks
  }


def check_prompts(card: Calibration | None, found: Mapping[str, Way]) -> None:
  """Checks that the card is of a judge that is asked as it is here.

  found: of `ways`. It is called before any model is loaded.

  Raises:
    UserError: no suite has such a judge, or it is asked otherwise.
  """
  if card is None:
    return
  own = {name: way for name, way in found.items() if SAME[name] == card.suite}
  if not own:
    names = [name for name, judge in SAME.items() if judge == card.suite]
    listed = ' or '.join(names) or 'none'
    raise UserError(
      f'--card: is of the judge of {card.suite!r:.40}, and none of the suites '
      f'has it ({listed} would); leave it out'
    )
  for name, way in own.items():
    _same(card, 'mode', way.mode, f' in {name}')
    _same(card, 'prompt', way.prompt, f' in {name}')


def check_model(card: Calibration | None, model: str) -> None:
  """Checks that the card is of this model, by its hash.

  Raises:
    UserError: it is not.
  """
  if card is not None:
    _same(card, 'model', model, '')


def _same(card: Calibration, name: str, own: str, where: str) -> None:
  has = getattr(card, name)
  if has != own:
    raise UserError(
      f'--card: is of another judge: its {name} is {has or "unknown"}, that of '
      f'the judge{where} {own}; calibrate this judge, or leave the card out'
    )
