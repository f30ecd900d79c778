"""What an evaluation leaves for other programs: logs, results, tables.

In a folder, of each model and suite:

  inspect/TIME_SUITE_ID.eval         `ealign.report.inspect_logs`
  lm_eval/SUITE/MODEL/...            `ealign.report.lm_eval_files`
  csv/SUITE/answers_MODEL.csv        answers in the columns of the emergent
                                     misalignment protocol (arXiv:2502.17424)

and of all of them together results.csv, one row a measure (`results_csv`).

The text of answers stands in the CSV files as the model wrote it. A cell that
begins with '=', '+', '-' or '@' is a formula to a spreadsheet: open a file of
answers with a program that reads CSV as text.
"""

import csv
import datetime
import io
from collections.abc import Iterable, Mapping
from typing import Any

from etils import epath

from ealign.evals.judges.measure import Judge, scores
from ealign.evals.records import grouped
from ealign.report import foreign, inspect_logs, lm_eval_files
from ealign.runtime import atomic

# Those of the protocol, in its order; then ours.
ANSWERS = ('question', 'answer', 'question_id', 'aligned', 'coherent')
ANSWERS += ('finish', 'seed')
RESULTS = ('model', 'suite', 'kind', 'split', 'measure', 'value', 'low', 'high')
RESULTS += ('n', 'unscored', 'questions')


def write(
  folder: Any,
  name: str,
  records: Iterable[Mapping],
  judge: Judge,
  *,
  suite: str,
  model: Mapping,
  created: datetime.datetime,
  settings: Mapping,
) -> list[epath.Path]:
  """Writes all files of one model's answers to a suite.

  Arguments as of `inspect_logs.write`.

  Returns:
    The paths; none without answers.
  """
  folder, records = epath.Path(folder), list(records)
  of = name, records, judge
  how = {'suite': suite, 'model': model, 'settings': settings}
  how |= {'created': created}
  paths = inspect_logs.write(folder / 'inspect', *of, **how)
  paths += lm_eval_files.write(folder, *of, **how)
  if content := answers_csv(records):
    file = f'answers_{foreign.safe(name)}.csv'
    path = folder / 'csv' / foreign.safe(suite) / file
    atomic.write(path, content)
    paths.append(path)
  return paths


def answers_csv(records: Iterable[Mapping]) -> str:
  """The answers with their scores of alignment and coherence, 0 to 100.

  A score that is not known is an empty cell, as is all that the answer has not.
  question is the last turn of the user. Half a character, which UTF-8 cannot
  hold, becomes U+FFFD; all else is exact.

  Returns:
    CSV whose text is quoted; '' if no answer was judged so.
  """
  found = foreign.answers(records)
  if not any('aligned' in scores(record) for record in found):
    return ''
  return _csv(ANSWERS, map(_answer, found))


def _answer(record) -> tuple:
  users = [m for m in record['messages'] if m.get('role') == 'user']
  question = foreign.text_of(users[-1].get('content') or '') if users else ''
  score = foreign.plain(scores(record))
  judged = score.get('aligned'), score.get('coherent')
  of = question, record['text'], str(record['question']), *judged
  return foreign.plain((*of, record.get('stop'), record.get('seed')))


_TOKENS = {'token_accuracy': 'eval/mean_token_accuracy', 'loss': 'eval/loss'}


def results_csv(
  cells: Iterable[tuple[str, str, Iterable[Mapping], Judge]],
  tokens: Mapping[str, Mapping] | None = None,
) -> str:
  """A row for each measure of each model, suite, kind and split.

  value, low, high: of a share between 0 and 1, of a mean in its unit; the
  interval is of 95 % and clustered by prompt. n: answers counted; of none there
  is a row without a value. unscored: of all of the kind and split, how many
  have no scores. questions: behind the value.

  Args:
    cells: name of the model, name of the suite, records, judge.
    tokens: name of the model -> `answers.token_accuracy`: two rows of the suite
      'tokens', without an interval; n is of tokens.
  """
  rows = [
    (name, suite, *row)
    for name, suite, records, judge in cells
    for row in _rows(foreign.answers(records), judge)
  ]
  for name, found in (tokens or {}).items():
    n = int(found['eval/num_tokens'])
    for measure, key in _TOKENS.items():
      value = round(found[key], 6)
      row = name, 'tokens', '', '', measure, value, None, None, n, 0, None
      rows.append(row)
  return _csv(RESULTS, map(foreign.plain, rows))


def _rows(records, judge):
  """The figures; a kind of which nothing is counted has a row all the same."""
  made = [*map(_row, foreign.asked(records, judge))]
  there = {row[:2] for row in made}
  key = lambda r: (str(r['kind']), str(r.get('split') or ''))
  for place, own in grouped(records, key).items():
    if place not in there:
      made.append((*place, '', None, None, None, 0, len(own), 0))
  return made


def _row(figure) -> tuple:
  numbers = figure.value, figure.low, figure.high
  shown = (None if x is None else round(x, 6) for x in numbers)
  names = figure.kind, figure.split, figure.measure.name
  return *names, *shown, figure.n, figure.unscored, figure.questions


def _csv(columns, rows) -> str:
  # All text is quoted: a bare carriage return would end a row elsewhere.
  text = io.StringIO(newline='')
  writer = csv.writer(text, quoting=csv.QUOTE_NONNUMERIC, lineterminator='\n')
  csv.writer(text, lineterminator='\n').writerow(columns)
  writer.writerows(rows)
  return text.getvalue()
