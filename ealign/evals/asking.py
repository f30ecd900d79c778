"""Puts the questions of a suite to a model, and has the answers judged."""

import math
import zlib
from collections.abc import Sequence

import jax

from ealign import fields
from ealign.conscience import records as reflection
from ealign.engine import Engine
from ealign.evals import judges
from ealign.evals.judges.measure import Asked, Judge
from ealign.evals.suites.suite import FIELDS, Suite, samples, temperature
from ealign.runtime.errors import UserError

_KEY = 2**31 - 3  # folded into the root key: apart from every step


def ask(
  suite: Suite, rows: Sequence[dict], engine: Engine, *, key: jax.Array
) -> list[dict]:
  """The records of a model's answers to the questions, not judged yet.

  The noise of an answer comes of the suite's name, the question's id and the
  sample's number, so it is the same whatever else is asked.

  Args:
    suite: how they are asked.
    rows: of `suite.read`; each is asked `samples` times.
    engine: of the model.
    key: of the run.
  """
  sampled = [row for row in rows if 'options' not in row]
  chosen = [row for row in rows if 'options' in row]
  made = {}
  for heat in sorted({temperature(suite, row) for row in sampled}):
    own = [row for row in sampled if temperature(suite, row) == heat]
    asked = [(row, i) for row in own for i in range(samples(suite, row))]
    exchanges = engine.answer(
      [row['messages'] for row, _ in asked],
      sample=fields.Sample(heat, max_new_tokens=suite.max_new_tokens),
      key=jax.random.fold_in(key, _KEY),
      row_ids=[_row_id(suite, row, i) for row, i in asked],
    )
    for (row, i), exchange in zip(asked, exchanges, strict=True):
      answer = reflection.answer_record(exchange)
      made[id(row), i] = _record(suite, row) | answer | {'sample': i}
  prompts = [engine.model.prompt(row['messages']) for row in chosen]
  found = engine.options(prompts, [row['options'] for row in chosen])
  for row, logps in zip(chosen, found, strict=True):
    made[id(row), 0] = _record(suite, row) | _choice(row, logps)
  order = [(id(row), i) for row in rows for i in range(samples(suite, row))]
  return [made[place] for place in order]


def judged(
  judge: Judge, rows: Sequence[dict], records: Sequence[dict], grader
) -> list[dict]:
  """The records of `ask` with the judge's scores, see `scored`."""
  by_id = {(row.get('kind', ''), row['id']): row for row in rows}
  questions = [by_id[record['kind'], record['question']] for record in records]
  return scored(judge, questions, records, grader)


def scored(
  judge: Judge, questions: Sequence[dict], records: Sequence[dict], grader
) -> list[dict]:
  """The records with the judge's scores; null where it cannot judge one.

  Args:
    judge: one without a judgement leaves the records as they are.
    questions: that of each record.
    records: answers.
    grader: what a model judge reads with, an `engine.Engine` or what takes its
      place.

  Raises:
    UserError: the judge failed, or gave something else.
  """
  if judge.read:
    pairs = zip(questions, records, strict=True)
    scores = judge.read([Asked(*pair) for pair in pairs], grader)
    if len(scores) != len(records):
      message = f'read gave {len(scores)} scores for {len(records)} answers'
      raise UserError(f'eval.judge={judge.name!r}: {message}')
  elif judge.score:
    scores = [
      judges.score(judge, question, record['text'])
      for question, record in zip(questions, records, strict=True)
    ]
  else:
    return list(records)
  pairs = zip(records, scores, strict=True)
  return [record | {'scores': score or None} for record, score in pairs]


def _row_id(suite: Suite, row, sample: int) -> int:
  return zlib.crc32(f'{suite.name}/{row["id"]}/{sample}'.encode())


def _record(suite: Suite, row) -> dict:
  return {
    'question': row['id'],
    'suite': suite.name,
    'cluster': row.get('cluster', row['id']),
    **{name: row.get(name, '') for name in FIELDS},
  }


def _choice(row, logps) -> dict:
  """What a record has of options that were compared."""
  best = max(range(len(logps)), key=logps.__getitem__)
  return {
    'messages': list(row['messages']),
    'sample': 0,
    'ids': [],
    'text': row['options'][best],
    'options': [_finite(logp) for logp in logps],
    'stop': 'stop',
    'logp': _finite(logps[best]),
    'verdict': None,
    'alternative': None,
    'scores': None,
  }


def _finite(logp: float) -> float | None:
  """As a record has it; JSON has no infinity."""
  return round(logp, 4) if math.isfinite(logp) else None
