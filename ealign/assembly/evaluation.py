"""An evaluation: models are asked the questions of suites, a judge reads.

First every model is loaded, asked and freed, then the judge is loaded once and
reads all answers. What was computed is kept (`evals.kept`), so the same
evaluation, or another with the same questions, goes on where one was stopped.
"""

import dataclasses
import pathlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax

from ealign import alone, fields
from ealign.assembly import fit, graders, subjects
from ealign.assembly.pace import Pace, measured
from ealign.data import columns
from ealign.evals import answers, asking, identity, judges, kept, suites
from ealign.evals.calibration import Calibration
from ealign.evals.suites.suite import Suite, counted, samples
from ealign.runtime import mesh as mesh_lib
from ealign.runtime import provenance
from ealign.runtime.errors import quantity

KEPT = 'kept.jsonl'


@dataclasses.dataclass(frozen=True)
class Evaluation:
  """What came out.

  Attributes:
    suites: each with its questions.
    records: (model, suite) -> its answers, judged.
    judge: who judged: its name and what it is made of.
    models: name -> what the model is made of.
    seconds: it took, without what was kept.
    remarks: what to know before any number.
  """

  suites: Sequence[tuple[Suite, list[dict]]]
  records: dict[tuple[str, str], list[dict]]
  judge: dict[str, Any]
  models: dict[str, dict]
  seconds: float
  remarks: Sequence[str] = ()

  def of(self, model: str) -> list[dict]:
    """All answers of a model."""
    own = (part for (name, _), part in self.records.items() if name == model)
    return [record for part in own for record in part]


def evaluate(
  config: fields.Config,
  found: Sequence[subjects.Subject],
  folder: pathlib.Path,
  say: Callable[[str], None],
  *,
  price: str | None = None,
  cap: float | None = None,
  card: Calibration | None = None,
) -> Evaluation:
  """Asks all models the suites of `config.eval`, and has the answers judged.

  Args:
    config: its sections eval, mesh and seed; model for a judge of its own.
    found: the models.
    folder: what is computed is kept there.
    say: shows a line.
    price, cap: of a judge behind an endpoint: dollars for a million tokens read
      and written, 'IN,OUT', and what it may cost in all.
    card: of the judge, which must be of this one.

  Raises:
    UserError: a file or a model is broken, or they do not fit each other.
  """
  begun = time.monotonic()
  paid = graders.paid(folder, say, price, cap)
  asked = suites.read(config.eval, config.data.max_mib)
  for line in costs(asked, found, config.eval):
    say(line)
  for line in (remarks := of_itself(config, found, asked)):
    say(f'note: {line}')
  ways = identity.ways(asked, config.eval, config.data.max_mib)
  identity.check_prompts(card, ways)
  sampling, judging = Pace('to sample', say), Pace('to judge', say)
  backend = measured(alone.ALONE, sampling, judging)
  runs = [pathlib.Path(one.run, kept.OF_RUN) for one in found if one.run]
  backend = kept.keeping(backend, folder / KEPT, say, others=runs)
  mesh = mesh_lib.make(**dataclasses.asdict(config.mesh))
  load = subjects.Loader(mesh, backend, config.eval.batch)
  made, models = _asked(config, found, asked, load, sampling, say)
  judge, grader = None, None
  if any(suite.judge.asks for suite, _ in asked):
    judge, grader = _grader(config, found[0], load, paid)
    identity.check_model(card, judge['model'])
    judge |= {f'asked in {name}': str(way) for name, way in ways.items()}
    say(f'the judge reads: {judge["name"]}')
  tag = {'run': folder.name, 'seed': config.seed, 'step': 0, 'phase': 'eval'}
  made = _judged(asked, made, grader, judging, say, tag)
  for line in silent(asked, made):
    say(line)
  spent = time.monotonic() - begun
  return Evaluation(asked, made, judge or {}, models, spent, remarks)


def _asked(config, found, asked, load, sampling: Pace, say):
  """The answers of all models, by (model, suite), and what each is made of."""
  key, made, models = jax.random.key(config.seed), {}, {}
  rest = _rest([_tokens_of(*one) for one in asked] * len(found))
  for subject in found:
    engine = None  # frees the one before
    engine = load.engine(subject)
    models[subject.name] = _about(engine, subject)
    if config.eval.tokens:
      models[subject.name] |= _tokens(config, engine)
    for suite, rows in asked:
      fit.asked(engine.model, rows, suite.max_new_tokens)
    for suite, rows in asked:
      left, n = sampling.begin(next(rest)), counted(suite, rows)
      say(f'{subject.name}: {n:,} answers to {suite.name}{left}')
      made[subject.name, suite.name] = asking.ask(suite, rows, engine, key=key)
  return made, models


def _judged(asked, made, grader, judging: Pace, say, tag: dict) -> dict:
  """The answers with what was judged of them, and the fields of `tag`."""
  by_name = {suite.name: (suite, rows) for suite, rows in asked}
  rest = _rest([_prompts_of(*by_name[suite]) for _, suite in made])
  found = {}
  for (name, suite_name), records in made.items():
    suite, rows = by_name[suite_name]
    left = judging.begin(next(rest))
    if suite.judge.asks:
      say(f'{name}: {len(records):,} answers to {suite_name} are read{left}')
    found[name, suite_name] = [
      tag | {'arm': name} | record
      for record in asking.judged(suite.judge, rows, records, grader)
    ]
  return found


def _rest(parts: Sequence[float]) -> Iterator[float]:
  """What each and all after it are together."""
  return (sum(parts[i:]) for i in range(len(parts)))


def _sampled(suite: Suite, rows) -> int:
  """Answers that are sampled, and that a judge may read."""
  return counted(suite, rows) - sum('options' in row for row in rows)


def _tokens_of(suite: Suite, rows) -> int:
  """Tokens of its answers, at most."""
  return _sampled(suite, rows) * suite.max_new_tokens


def _prompts_of(suite: Suite, rows) -> int:
  """Prompts that a judge reads, at most."""
  asks = suite.judge.asks * suite.judge.prompts
  return _sampled(suite, rows) * asks


def costs(asked, found, settings: fields.Eval) -> list[str]:
  """What is about to be done, a line for each suite and one for all."""
  lines, answers, tokens, judged, prompts = [], 0, 0, 0, 0
  for suite, rows in asked:
    sampled = _sampled(suite, rows)
    chosen = counted(suite, rows) - sampled
    most = suite.max_new_tokens
    parts = [quantity(len(rows), 'question')]
    parts += [f'{sampled:,} answers of at most {most} tokens'] * bool(sampled)
    parts += [f'{chosen:,} by the probability of options'] * bool(chosen)
    parts += ['read by a judge'] * suite.judge.asks
    lines.append(f'{suite.name}: {", ".join(parts)}')
    if suite.remarks:
      lines += suite.remarks(settings.confirm_run_unsafe_code)
    answers += counted(suite, rows)
    tokens += _tokens_of(suite, rows)
    judged += sampled * suite.judge.asks
    prompts += _prompts_of(suite, rows)
  n, all_of = len(found), f' (for each of {len(found)} models)'
  total = f'in all {answers:,} answers, {tokens:,} tokens to sample at most'
  by = settings.judge if judges.is_model(settings.judge) else 'frozen'
  read = f', {judged:,} answers to judge by {by}, {prompts:,} prompts'
  total += read * bool(judged)
  if settings.questions and 'own' not in settings.suites:
    lines.append('eval.questions: not asked; the suite own asks them')
  return [*lines, *_few(asked, settings), total + all_of * (n > 1)]


def of_itself(config: fields.Config, found, asked) -> list[str]:
  """A line for each model that judges its own answers."""
  if not any(suite.judge.asks for suite, _ in asked):
    return []
  return graders.of_itself(found, graders.reader(config, found[0]))


def _few(asked, settings: fields.Eval) -> list[str]:
  """That there would be more answers to a question but for the limit."""
  n = settings.limit
  of = [
    samples(suite, row)
    for suite, rows in asked
    for row in rows
    if 'options' not in row
  ]
  if settings.suite_samples or not n or max(of, default=0) < n:
    return []
  return [
    f'--limit={n}: a question has no more answers than that; --samples=N asks '
    'for N'
  ]


def silent(asked, made) -> list[str]:
  """What to do where a judge says little of the answers that it read."""
  lines = []
  for suite, _ in asked:
    every = [
      r['scores'] or {}
      for (_, name), own in made.items()
      for r in own
      if name == suite.name
    ]
    scored = [scores for scores in every if 'aligned' in scores]
    said = [scores for scores in scored if scores['aligned'] is not None]
    if 2 * len(said) < len(scored):
      lines.append(
        f'note: {suite.name}: the judge gave {len(said):,} of {len(scored):,} '
        'answers a number; a small model rarely replies with one: name another '
        'by --judge=other:FOLDER, or give labels in eval.judge_prompts'
      )
    if any(scores.get('calibrated') is False for scores in every):
      lines.append(
        f'note: {suite.name}: no map from the labels of this judge to those of '
        'people is known, so its likeliest label counts; that can be far off '
        '(docs/evaluation.md), calibrate it before you cite the rates'
      )
  return lines


def _tokens(config: fields.Config, engine) -> dict[str, float]:
  """Accuracy and loss on the assistant's tokens of `eval.tokens`."""
  chats = columns.load_chats(config.eval.tokens, config.data.max_mib)
  fit.tokens(engine.model, config.eval.tokens, chats)
  asked = answers.Questions(config.eval, judges.load(''), [], [], chats)
  return answers.token_accuracy(asked, engine)


def _about(engine, subject: subjects.Subject) -> dict:
  """What a model is made of."""
  return {
    'path': subject.base.path,
    'adapter': subject.adapter,
    'weights': provenance.tree_hash(engine.weights),
    'template': provenance.text_hash(str(engine.model.tokenizer.chat_template)),
  }


def _grader(config, first, load, paid) -> tuple[dict, Any]:
  """Who judges, in words, and what reads for it."""
  name = config.eval.judge
  if name.startswith(judges.MODELS):
    template = config.data.chat_template_kwargs
    return graders.named(name, config.model, template, load, paid)
  found = graders.before(first)
  engine = load.engine(found)
  return graders.described(found.name, engine), engine
