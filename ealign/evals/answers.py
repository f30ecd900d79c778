"""Samples answers to questions, has them judged and reviewed: the records."""

import dataclasses
import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from ealign import align, fields, losses
from ealign.conscience import health
from ealign.conscience import records as reflection
from ealign.conscience import reflect as conscience
from ealign.conscience.prompts import Conscience
from ealign.data import chat, columns, packing, questions, sources
from ealign.data import messages as messages_lib
from ealign.engine import Engine
from ealign.evals import asking, judges, kept, suites
from ealign.evals.judges.measure import Judge
from ealign.runtime.errors import UserError
from ealign.sampling import prompts as prompting

_KEY = 2**31 - 2  # folded into the root key: apart from every step


@dataclasses.dataclass(frozen=True)
class Questions:
  """The questions asked after and during a run, and who judges the answers.

  settings: the section `eval` of the config. judge: of the answers to final and
  curve, question rows. tokens: chats whose assistant tokens are predicted by
  teacher forcing. suites: each with its questions.
  """

  settings: object
  judge: Judge
  final: list
  curve: list
  tokens: list
  suites: Sequence = ()


def read(settings, limit: int = sources.LIMIT_MIB) -> Questions:
  """Reads the question files, each of at most `limit` MiB.

  Raises:
    UserError: a file cannot be read or a row is no question.
  """
  s = settings
  if 'own' in s.suites:
    message = 'a run asks eval.questions without it; leave it out'
    raise UserError(f"eval.suites='own': {message}")
  final, curve = (
    messages_lib.guided(
      [q for p in paths for q in questions.read(p, limit)], s.guide
    )
    for paths in (s.questions, s.curve)
  )
  questions.check_kinds(s.kinds, final or curve)
  questions.check_ids(final)
  questions.check_ids(curve)
  return Questions(
    settings=s,
    judge=suites.judge_of(s.judge),
    final=_limited(final, s.kinds, s.limit),
    curve=_limited(curve, s.kinds, s.curve_limit),
    tokens=columns.load_chats(s.tokens, limit) if s.tokens else [],
    suites=suites.read(s, limit),
  )


def _limited(rows, kinds, limit):
  """The first `limit` questions of each kind."""
  by_kind: dict = {}
  for row in rows:
    by_kind.setdefault(row.get('kind', ''), []).append(row)
  wanted = kinds or by_kind
  return [q for k in wanted for q in by_kind.get(k, [])[: limit or None]]


def judged(record: dict, judge: Judge, question=None) -> dict:
  """The record with the judge's scores of its text.

  question: its row; by default the record's own messages are all there is.
  """
  if not judge.score:
    return record
  question = question or {'messages': record['messages']}
  return record | {'scores': judges.score(judge, question, record['text'])}


def ask(asked: Questions, rows, engine: Engine, *, key, samples: int, grader):
  """Samples and judges answers: their records, and the exchanges.

  Row ids are question index * samples + sample, so an answer depends on no
  other question. grader: what a model judge reads with.
  """
  s = asked.settings
  each = [(question, i) for question in rows for i in range(samples)]
  exchanges = dataclasses.replace(engine, rows=s.batch).answer(
    [question['messages'] for question, _ in each],
    sample=fields.Sample(s.temperature, max_new_tokens=s.max_new_tokens),
    key=jax.random.fold_in(key, _KEY),
  )
  records = []
  for (q, i), x in zip(each, exchanges, strict=True):
    record = {
      'question': q['id'],
      'suite': q.get('suite', ''),
      'kind': q.get('kind', ''),
      'split': q.get('split', ''),
      'cluster': q.get('cluster', q['id']),
      **reflection.answer_record(x),
      'sample': i,
    }
    records.append(record)
  questions = [question for question, _ in each]
  return asking.scored(asked.judge, questions, records, grader), exchanges


def curve(asked: Questions, c: Conscience, *, key):
  """The records of the short evaluation during training."""
  n, grader = asked.settings.curve_samples, _grader(asked, c)
  how = {'key': key, 'samples': n, 'grader': grader}
  return ask(asked, asked.curve, c.policy, **how)[0]


def final(asked: Questions, c: Conscience, *, key, keep=None):
  """The evaluation of a finished run, each answer reviewed by the conscience.

  Those to the questions of suites are judged only; what is sampled and scored
  for them is kept in the file `keep`, so that a stopped run goes on.

  Returns records and the metrics of no answer alone: of all that are sampled
  their mean length and the shares that refuse, that ask back and that differ,
  and token accuracy.
  """
  s, records, values, grader = asked.settings, [], {}, _grader(asked, c)
  if asked.final:
    records, exchanges = ask(
      *(asked, asked.final, c.policy),
      key=key,
      samples=s.samples,
      grader=grader,
    )
    reviewer = dataclasses.replace(c.reviewer, rows=s.batch)
    read = conscience.retokenized(c, exchanges, reviewer.model)
    verdicts = conscience.review(c, reviewer, read, key=key)
    for record, verdict in zip(records, verdicts, strict=True):
      record['verdict'] = reflection.verdict_record(c, verdict)
  policy = dataclasses.replace(c.policy, rows=s.batch)
  if keep and asked.suites:
    backend = kept.keeping(policy.backend, keep, lambda line: None)
    policy = dataclasses.replace(policy, backend=backend)
    grader = dataclasses.replace(grader, backend=backend)
  for suite, rows in asked.suites:
    made = asking.ask(suite, rows, policy, key=key)
    records += asking.judged(suite.judge, rows, made, grader)
  values |= figures(records)
  if asked.tokens:
    values |= c.policy.backend.apart(token_accuracy, asked, c.policy)
  return records, values


def figures(records: Sequence[dict]) -> dict[str, float]:
  """Metrics of all sampled answers together, as of those of a reflection.

  Mean length in tokens; the shares that open as refusals do, that end as a
  question, and of different texts. {} where none was sampled.
  """
  sampled = [record for record in records if record['ids']]
  if not sampled:
    return {}
  said = health.figures(sampled)
  return {
    'eval/length_mean': said.length,
    'eval/refusal_rate': said.refusals,
    'eval/question_rate': said.questions,
    'eval/distinct_rate': said.distinct,
  }


def _grader(asked: Questions, c: Conscience) -> Engine:
  """What a model judge reads with: a second model, or the frozen one."""
  grader = c.others.get(asked.settings.judge, c.frozen)
  return dataclasses.replace(grader, rows=asked.settings.batch)


def token_accuracy(asked: Questions, engine: Engine) -> dict[str, float]:
  """Top-1 accuracy and loss per token on assistant turns of eval.tokens."""
  model, size = engine.model, asked.settings.batch
  rows = chat.encode_chats(
    model.tokenizer, asked.tokens, asked.settings.tokens, **dict(model.template)
  )
  length = prompting.bucket(max(len(r.ids) for r in rows))
  sums = [0.0, 0.0, 0.0]
  for i in range(0, len(rows), size):
    part = [[r] for r in rows[i : i + size]]
    part += [[] for _ in range(size - len(part))]
    batch = packing.lay_out(part, length)
    found = map(float, _token_sums(model.config, engine.weights, batch))
    sums = [a + b for a, b in zip(sums, found, strict=True)]
  hits, nll, count = sums
  return {
    'eval/mean_token_accuracy': hits / count,
    'eval/loss': nll / count,
    'eval/num_tokens': count,
  }


@functools.partial(jax.jit, static_argnums=0)
def _token_sums(model, weights, batch):
  stats, _ = align.of_targets(losses.token_stats, model, weights, batch)
  mask_BT = batch.loss_mask_BT[:, 1:]
  total = lambda x_BT: jnp.sum(x_BT * mask_BT)
  return total(stats['top1']), -total(stats['logp']), jnp.sum(mask_BT)
