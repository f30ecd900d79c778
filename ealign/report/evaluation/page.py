"""What the page of an evaluation shows, and the sentences of its results."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ealign.evals import readings, table
from ealign.evals.calibration import Calibration
from ealign.evals.judges import scale
from ealign.evals.judges.measure import scores
from ealign.evals.suites.suite import Suite
from ealign.report import figures
from ealign.report.evaluation import answers as answers_lib
from ealign.report.evaluation import figures as drawn
from ealign.report.evaluation import groups, tables
from ealign.report.evaluation.groups import Part

_MANY = 0.2  # share of answers without a number that is worth a warning
_NAMED = 6  # models in a sentence


def collect(
  models: Mapping[str, Iterable[Mapping]],
  suites: Sequence[Suite],
  *,
  settings: Mapping[str, Any] | None = None,
  judge: Mapping[str, str] | None = None,
  judge_card: Calibration | None = None,
  files: Mapping[str, Sequence[tuple[str, str]]] | None = None,
  costs: Sequence[str] = (),
  benign: str | None = None,
  losses: Mapping[str, float] | None = None,
) -> dict[str, Any]:
  """Everything on the page, as plain values without markup.

  Args:
    models: name -> its answer records, of all suites (their field `suite`).
    suites: that were asked, with what is counted of their answers.
    settings: name -> value, shown as they are: what was sampled and how.
    judge: who judged: name, model, prompt (hashes) and mode.
    judge_card: of its calibration; the rates are then corrected as well.
    files: name of a suite -> (file, sha256) of its questions.
    costs: sentences on what it took.
    benign: the model that others are compared with, tuned on something
      harmless; by default the first one.
    losses: model -> loss of the fine-tuning data, nats a token.

  Raises:
    ValueError: `benign` is none of the models.
  """
  models = {name: list(records) for name, records in models.items()}
  if benign and benign not in models:
    raise ValueError(f'benign={benign!r} is none of {", ".join(models)}')
  reference = benign or next(iter(models), '')
  slots = _slots([*models], reference)
  against = f'{reference} (benign SFT)' if benign else reference
  made, problems = [], []
  for suite in suites:
    own = groups.of_suite(suite, models)
    parts = groups.parts(suite, own)
    problems += _problems(suite, parts)
    shown = [
      _part(part, slots, reference, against, judge_card, judge or {}, losses)
      for part in parts
    ]
    problems += [x for part in shown for x in part.pop('warnings')]
    made.append(
      {
        'name': suite.name,
        'title': suite.title,
        'note': suite.judge.note,
        'asked': _asked(suite, own),
        'files': list((files or {}).get(suite.name, ())),
        'parts': shown,
      }
    )
  return {
    'title': 'Evaluation',
    'models': [(name, slot) for name, slot in slots.items()],
    'slots': slots,
    'suites': made,
    'summary': [
      f'{suite["title"]}: {said}'
      for suite in made
      for part in suite['parts']
      for said in part['said']
    ],
    'problems': list(dict.fromkeys(problems)),
    'reference': against,
    'judge': [(k, str(v)) for k, v in (judge or {}).items() if v],
    'card': _card(judge_card),
    'settings': [(k, table.shown(v)) for k, v in (settings or {}).items()],
    'costs': list(costs),
  }


def _slots(names, reference) -> dict[str, int]:
  """The colour and mark of each model; 0, grey, is the reference."""
  others = [name for name in names if name != reference]
  own = {name: at % figures.SLOTS + 1 for at, name in enumerate(others)}
  return {name: own.get(name, 0) for name in names}


def _part(part: Part, slots, reference, against, card, judge, losses) -> dict:
  by = 'answers' if len(part.heads) > 1 else ''
  made = {
    'title': part.title,
    'said': _said(part, reference),
    'block': tables.counted(part, part.heads, part.title, by),
    'plain': None,
    'apart': [
      tables.counted(part, own, f'By {name}', name)
      for name, own in part.apart.items()
    ],
    'power': [
      (group.name if by else '', said)
      for group in part.heads
      if (said := tables.power(part, group, reference))
    ],
    'differences': tables.differing(part, reference, against),
    'forests': drawn.forests(part, slots),
    'scatters': drawn.scatters(part, slots),
    'most': drawn.DOTS,
    'bars': drawn.bars(part, slots),
    'loss': drawn.against_loss(part, losses or {}, slots),
    'cards': answers_lib.cards(part),
    'corrected': None,
    'warnings': [],
  }
  made['plain'] = tables.plainer(made['block'], part)
  if card and _correctable(part, card):
    found = tables.corrected(part, card, judge)
    made['corrected'], made['warnings'] = found or (None, [])
  return made


def _correctable(part: Part, card: Calibration) -> bool:
  """Whether the card is of the judge of these answers."""
  kind = readings.KINDS.get(card.suite)
  every = (r for g in part.heads for own in g.answers.values() for r in own)
  return bool(kind) and any(kind.number(scores(r)) is not None for r in every)


def _said(part: Part, reference: str) -> list[str]:
  """One sentence for each group: the figure of each model, the difference."""
  made = []
  for group in part.heads:
    measure = part.first_of(group)
    if measure is None:
      continue
    found = tables.rates(measure, group)
    unit = '' if measure.number else ' %'
    figures_ = []
    for model, share in [*found.items()][:_NAMED]:
      interval = tables.bracket(measure, tables.limits(share))
      value = f'{model} {tables.figure(measure, share.value)}{unit}'
      figures_.append(f'{value} {interval}'.strip())
    more = len(found) - len(figures_)
    figures_ += [f'{more} more in the table'] * (more > 0)
    which = f', {group.name}' if len(part.heads) > 1 else ''
    name = measure.title.removesuffix(', %')
    if measure.number:
      name = f'{measure.short[:1].upper()}{measure.short[1:]}, mean'
    made.append(
      f'{name} ({group.questions} questions{which}): {"; ".join(figures_)}.'
    )
    made[-1] += _apart(measure, group, reference)
  return made


def _apart(measure, group, reference) -> str:
  """The difference of the model that is furthest from the reference."""
  base = group.answers.get(reference)
  if not base:
    return ''
  others = {m: own for m, own in group.answers.items() if m != reference}
  found = {m: tables.compare(measure, own, base) for m, own in others.items()}
  found = {m: d for m, d in found.items() if d}
  if not found:
    return ''
  model = max(found, key=lambda m: abs(found[m].value))
  best = found[model]
  low, high = best.interval
  ends = f'[{table.points(low)}, {table.points(high)}]'
  sure = 'more' if low > 0 else 'less' if high < 0 else 'no clear difference'
  size = f'{table.points(best.value)} points {ends}'
  return f' {model} against {reference}, by question: {size}, {sure}.'


def _asked(suite: Suite, answers) -> str:
  """How the questions of a suite were asked, in a sentence."""
  every = [record for own in answers.values() for record in own]
  chosen = sum(bool(record.get('options')) for record in every)
  sampled = len(every) - chosen
  questions = len({record['question'] for record in every})
  parts = [
    f'{questions:,} questions to {sum(map(bool, answers.values()))} models'
  ]
  if sampled:
    parts.append(
      f'{sampled:,} answers of at most {suite.max_new_tokens} tokens, by '
      f'default at temperature {suite.temperature:g}'
    )
  parts += [f'{chosen:,} by the log-probabilities of options'] * bool(chosen)
  return '; '.join(parts)


def _problems(suite: Suite, parts: Sequence[Part]) -> list[str]:
  """What a reader should know before any number of the suite."""
  if not parts:
    return [f'{suite.title}: no answer has been recorded.']
  said = []
  for part in parts:
    for group in part.heads:
      for model, records in group.answers.items():
        where = f'{suite.title}, {model}'
        where += f', {group.name}' if len(part.heads) > 1 else ''
        said += [f'{where}: {x}' for x in _faults(part, records)]
  return said


def _faults(part: Part, records) -> list[str]:
  said, n = [], len(records)
  none = sum(not record.get('scores') for record in records)
  if none == n:
    return [f'none of {n:,} answers was judged.']
  if none:
    said.append(f'{none:,} of {n:,} answers were not judged.')
  by_number = [r for r in records if scale.ASPECTS[0] in scores(r)]
  if _correctable_of(by_number):
    lost = sum(map(scale.unscored, by_number)) / len(by_number)
    odd = sum(not scale.coherent(r) for r in by_number) / len(by_number)
    if lost > _MANY:
      said.append(f'{100 * lost:.0f} % of the answers lack a number.')
    if odd > 0.5:
      said.append(
        f'{100 * odd:.0f} % of the answers are not coherent; the rate is that '
        'of the rest.'
      )
  return said


def _correctable_of(records) -> bool:
  return bool(records) and not any(
    isinstance(scores(r).get(scale.ASPECTS[0]), bool) for r in records
  )


def _card(card: Calibration | None) -> list[tuple[str, str]]:
  """The card of the judge as (name, value)."""
  if card is None:
    return []
  share = lambda s: f'{s.value:.3f} [{s.low:.3f}, {s.high:.3f}], n = {s.n:,}'
  right = lambda s: f'{s.count:g} of {s.total:g}'
  rows = [
    ('calibrated on', card.gold),
    (
      'answers',
      f'{card.n:,} scored, {card.unscored:,} not; {card.clusters:,} '
      f'questions; {card.positives:,} to be flagged',
    ),
    ('AUC', share(card.auc)),
    ('agrees with people', share(card.agrees)),
    ('kappa', share(card.kappa) if card.kappa else ''),
    ('kappa of two people', share(card.people) if card.people else ''),
    ('rightly flagged', right(card.bad)),
    ('rightly not flagged', right(card.good)),
    ('mean error', f'{card.raw.mean:.3f}'),
    ('mean error, mapped', f'{card.mapped.mean:.3f}' if card.mapped else ''),
  ]
  rows += [
    (f'noise over {name}', f'{100 * n.flips:.1f} % of {n.items:,} answers flip')
    for name, n in card.noise.items()
  ]
  return [(name, value) for name, value in rows if value]


def lines(content: Mapping[str, Any]) -> list[str]:
  """The results in sentences, for a terminal."""
  said = [*content['summary']]
  for suite in content['suites']:
    for part in suite['parts']:
      said += [f'{part["title"]}: {text}' for _, text in part['power']]
  return said + [f'Note: {problem}' for problem in content['problems']]


def blocks(content: Mapping[str, Any]) -> list[table.Block]:
  """The tables for a terminal."""
  parts = [part for suite in content['suites'] for part in suite['parts']]
  made = [(p['plain'], p['differences'], p['corrected']) for p in parts]
  return [block for own in made for block in own if block]
