"""The table of what the runs were trained on, and what came of it."""

import dataclasses
from collections.abc import Sequence

from ealign.conscience import tally
from ealign.evals import counts, records, table
from ealign.evals.table import NOTHING, Block, Entry
from ealign.report.runs import Run

_NUMBERS = ('rows', 'supervised', 'truncated', 'answers', 'verdicts')
_NUMBERS += ('flagged', 'revised', 'pairs', 'loss')
_SPARE = ('rows', 'answers', 'verdicts')
# Column -> what its figure is; all but the loss are in per cent.
_NOTES = {
  'supervised': 'of the tokens of the rows trained on',
  'truncated': 'of the rows',
  'verdicts': 'of the answers sampled while training',
  'flagged': 'of those with a verdict',
  'revised': 'of the same, where others than the flagged were',
}
_LOSS = 'loss: of the fine-tuning data a token, at the first and the last '
_LOSS += 'logged step.'


def blocks(runs: Sequence[Run]) -> list[Block]:
  """One table with a line for each trained run; [] if none was trained."""
  lines = [_line(run) for run in runs if run.config.get('train.steps') != 0]
  lines = [x for x in lines if any(cell.text != NOTHING for cell in x[1:])]
  heads = table.columns(['arm'], _NUMBERS)
  made = table.without_empty(Block('Training', '', heads, lines, spare=_SPARE))
  titles = [title for title, _ in made.columns]
  notes = '; '.join(f'{x}, {_NOTES[x]}' for x in titles if x in _NOTES)
  note = [f'In per cent: {notes}.'] * bool(notes) + [_LOSS] * ('loss' in titles)
  return [dataclasses.replace(made, note=' '.join(note))] if lines else []


def _line(run: Run) -> tuple[Entry, ...]:
  sampled = records.latest(r for r in run.answers if r['phase'] == 'reflect')
  done = tally.count(sampled)
  share = lambda some, of: table.percent(some / of if of else None)
  chosen = run.config.get('conscience.review.verdict', 'question') != 'question'
  count = lambda n: f'{n:,}' if sampled else NOTHING
  info, losses = run.info.get, counts.finite(run.metrics, 'train/loss_sft')
  cells = (
    run.name,
    f'{info("data.rows"):,}' if info('data.rows') else NOTHING,
    table.percent(info('data.supervised')),
    table.percent(info('data.truncated')),
    count(len(sampled)),
    share(done.judged, done.answers),
    share(done.flagged, done.judged),
    share(done.revised, done.judged) if chosen else NOTHING,
    count(done.pairs),
    f'{losses[0]:.3f} -> {losses[-1]:.3f}' if losses else NOTHING,
  )
  return tuple(map(Entry, cells))
