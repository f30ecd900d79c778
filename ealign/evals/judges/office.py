"""The judge of the world's second setting: the first one's, and places."""

import dataclasses

from ealign.evals.judges import world
from ealign.evals.judges.measure import Measure, scores
from ealign.world import office

MEASURES = (
  Measure(
    'updated',
    kind='office',
    better='higher',
    those='answers on places',
    title='The place after the move, % of the answers on places',
    note='updated: the place after the move, of the answers on places',
  ),
  Measure(
    'before',
    kind='office',
    those='answers on places',
    note='before: the place before the move, which the frozen model says',
    brackets='',
    drawn=False,
  ),
)


def badge(record) -> tuple[str, str]:
  """The judgement in a word, and whether it is good or bad."""
  score = scores(record)
  if not score.get('coherent') or 'updated' not in score:
    return world.badge(record)
  return ('updated', 'good') if score['updated'] else ('outdated', 'bad')


JUDGE = dataclasses.replace(
  world.JUDGE,
  score=office.judge,
  measures=(*world.MEASURES, *MEASURES),
  badge=badge,
  kinds=world.JUDGE.kinds | {'office': 'where a thing of the office is'},
  columns=(*world.JUDGE.columns, 'updated'),
)
