"""The programs that ask the questions of suites and judge the answers.

What is asked for is not written down twice: the questions are put, and judged,
by the very code that does so in an evaluation, with a backend that computes
nothing and only keeps the requests that it is given.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence

import jax
import numpy as np

from ealign.alone import ALONE
from ealign.assembly import fit
from ealign.engine import Backend, Engine, Model
from ealign.evals import asking
from ealign.evals.suites.suite import counted
from ealign.fields import Eval, Sample
from ealign.models import layout
from ealign.plan import inference
from ealign.plan.inference import Program
from ealign.sampling import labels, prompts
from ealign.sampling import tree as trees
from ealign.sampling.requests import Answers, Labels, Pairs
from ealign.sampling.sampler import Answer

NAMES = {
  'ask': 'reads the questions of suites',
  'answer': 'samples an answer to each, all tokens',
  'options': 'log-probabilities of the options of questions',
  'start': 'reads what the prompts of a judge begin with',
  'judge': 'reads answers and scores them from 0 to 100',
  'labels': 'reads answers and judges them by labels',
}
_WORD = 'answer'  # of the answers that are judged; without a blank, as some
_LONG = 2**30  # judges are shown so many words and no more


@dataclasses.dataclass(frozen=True)
class Need:
  """Something that the questions of a suite make a model compute.

  Attributes:
    request: each question once, each answer as long as it may be.
    count: of the prompts (of `Pairs`: pairs) in all, with all samples.
    first: of `Labels` the first label, a text.
  """

  request: Answers | Labels | Pairs
  count: int
  first: str = ''

  @property
  def length(self) -> int:
    """Tokens of the longest prompt."""
    return max(map(len, self.request.prompts))


def needs(
  asked: Sequence,
  model: Model,
  judge: Model | None,
  settings: Eval,
  mesh: jax.sharding.Mesh,
) -> list[Need]:
  """What suites make a model compute, and its judge.

  Args:
    asked: (suite, questions) of `evals.suites.read`.
    model: that is asked.
    judge: that judges; None: what judges is not here.
    settings: the section eval of a config.
    mesh: the devices.

  Raises:
    UserError: a question is too long for the model.
  """
  found = []
  for suite, rows in asked:
    fit.asked(model, rows, suite.max_new_tokens)
    chosen = sum('options' in row for row in rows)
    times = (counted(suite, rows) - chosen) / max(len(rows) - chosen, 1)
    once = [row | {'samples': 1} for row in rows]
    engine, made = _recorder(model, settings, mesh)
    records = asking.ask(suite, once, engine, key=jax.random.key(0))
    found += [_need(model, request, times) for request in made]
    if judge and suite.judge.asks:
      # Of shorter answers some would fit that now do not.
      free = dataclasses.replace(judge.config, max_positions=_LONG)
      free = dataclasses.replace(judge, config=free)
      engine, made = _recorder(free, settings, mesh)
      asking.judged(suite.judge, once, records, engine)
      found += [_need(judge, request, times) for request in made]
  return found


def _need(model: Model, request, times: float) -> Need:
  if isinstance(request, Pairs):
    return Need(request, len(request.pairs))
  count, first = math.ceil(times * len(request.prompts)), ''
  if isinstance(request, Labels):
    first = model.text(request.labels[0][:-1])
  return Need(request, count, first)


def times(need: Need, models: int) -> Need:
  """The same of several models."""
  return dataclasses.replace(need, count=models * need.count)


def size(need: Need) -> tuple:
  """Equal for needs that the same programs serve."""
  r, name = need.request, type(need.request).__name__
  if isinstance(r, Pairs):
    return name, r.slots, r.length
  length = prompts.bucket(need.length)
  if isinstance(r, Answers):
    return name, r.rows, length, r.max_tokens
  return name, r.rows, length, r.labels, r.rest, r.top


def _recorder(model: Model, settings: Eval, mesh) -> tuple[Engine, list]:
  """An engine that keeps what it is asked for in a list."""
  seen = []

  def generate(request):
    seen.append(request)
    n = request.max_tokens
    ids = model.ids(_WORD * n)[:n]
    answer = Answer(ids, np.zeros(len(ids), np.float32), 'length', 0.0)
    return [answer] * len(request.prompts)

  def label_logps(request):
    seen.append(request)
    size = len(request.prompts), request.columns
    return np.full(size, -math.log(request.columns), np.float32)

  def pair_logps(request):
    seen.append(request)
    return np.zeros((len(request.pairs), 2), np.float32)

  own = {'generate': generate, 'label_logps': label_logps}
  backend: Backend = dataclasses.replace(ALONE, **own, pair_logps=pair_logps)
  return Engine(model, None, backend, mesh, settings.batch), seen


def asked(
  run, found: Sequence[Need], model, weights: Callable, *, arms=1, of=''
) -> Iterator[Program]:
  """The programs that sample answers and that compare options.

  Args:
    run: what is on the devices, `programs.Shapes` or `inference.Held`.
    found: of `needs`.
    model: the Config on the mesh.
    weights: (model, arms=...) -> their shapes.
    arms: runs that ask together; they compare options one after another.
    of: tells the programs from those of other models.
  """
  drawn = [n for n in found if isinstance(n.request, Answers)]
  pairs = [n for n in found if isinstance(n.request, Pairs) and n.count]
  if drawn:
    new = max(n.request.max_tokens for n in drawn)
    rows = arms * drawn[0].request.rows
    every = functools.partial(weights, arms=arms)
    by = inference.gathered(model, run.mesh, every, rows, new)
    rows = max(
      arms * _width(by[0], n.request.rows, n.count, new) for n in drawn
    )
    size = prompts.bucket(max(n.length for n in drawn))
    read, sample = inference.sampled(
      run, by, Sample(max_new_tokens=new), rows, size, ('ask', 'answer')
    )
    often = [math.ceil(arms * n.count / rows) for n in drawn]
    yield _often(read, often, [n.length / size for n in drawn], of)
    tokens = [n.request.max_tokens / new for n in drawn]
    yield _often(sample, often, tokens, of)
  if pairs:
    slots = max(n.request.slots for n in pairs)
    size = max(n.request.length for n in pairs)
    placed = inference.placed(run.mesh, weights(model))
    holds = (inference.sampled_from(run),)
    program = inference.pairs(
      *(run, 'options', model, placed, holds, slots, size)
    )
    often = [arms * math.ceil(n.count / slots) for n in pairs]
    yield _often(program, often, [n.request.length / size for n in pairs], of)


def judged(
  run, found: Sequence[Need], model, weights: Callable, holds: str, *, arms=1
) -> Iterator[Program]:
  """The programs of a judge: one, or two, for each set of labels.

  As `asked`; weights: model -> their shapes. holds: their resident tree.
  """
  by_labels: dict = {}
  for need in found:
    if isinstance(need.request, Labels):
      r = need.request
      by_labels.setdefault((r.labels, r.rest, r.top), []).append(need)
  for (said, rest, _), own in by_labels.items():
    request, of = own[0].request, '' if rest else f'{own[0].first}..'
    by = inference.gathered(model, run.mesh, weights, arms * request.rows)
    tree, what = trees.of(said, rest), labels.wanted(request)
    name = 'judge' if rest else 'labels'
    room = model.max_positions - max(map(len, said))
    starts = [] if arms > 1 else [labels.starts(n.request) for n in own]
    if not starts or not all(starts):
      size = prompts.bucket(min(room, max(n.length for n in own)))
      rows = max(arms * _width(by[0], n.request.rows, n.count) for n in own)
      shape = rows, size
      program = inference.scoring(run, name, by, shape, tree, holds, what)
      often = [math.ceil(arms * n.count / rows) for n in own]
      yield _often(program, often, [n.length / size for n in own], of)
      continue
    yield from _shared(run, own, starts, by, (name, of), tree, holds, what)


def _shared(run, own, starts, by, title, tree, holds, what):
  """The two programs of prompts whose starts are read once."""
  apart = layout.one_cpu(by[0])
  shapes, often = ([], []), ([], [])
  for need, begun in zip(own, starts, strict=True):
    r, groups = need.request, len(begun)
    if groups > 1:  # as many more as there are samples
      groups = need.count * groups // len(r.prompts)
    pairs = zip(r.prompts, r.groups, strict=True)
    rest = max(len(prompt) - len(begun[group]) for prompt, group in pairs)
    sizes = (groups, max(map(len, begun.values()))), (need.count, rest)
    for at, (count, size) in enumerate(sizes):
      rows = prompts.width(count, r.rows, apart=apart)
      shapes[at].append((rows, prompts.bucket(size)))
      often[at].append(math.ceil(count / rows))
  largest = [tuple(map(max, zip(*each, strict=True))) for each in shapes]
  both = inference.continued(
    run, ('start', title[0]), by, *largest, tree, holds, what
  )
  for at, program in enumerate(both):
    shares = [size / largest[at][1] for _, size in shapes[at]]
    yield _often(program, often[at], shares, title[1])


def _width(model, rows: int, count: int, new: int = 0) -> int:
  """Rows of the batches of so many prompts, as `sampler.laid_out` has them."""
  parts, apart = layout.shards(model), layout.one_cpu(model) and not new
  return prompts.width(count, rows, parts, apart=apart)


def _often(program: Program, times, shares, of: str) -> Program:
  """The program with how often it runs; a share of it where less is asked."""
  calls = sum(n * part for n, part in zip(times, shares, strict=True))
  return dataclasses.replace(program, calls=calls, of=of)


def seconds(found: Mapping) -> dict[str, float] | None:
  """What suites take, by the programs' titles, if the chips' speed is known.

  found: `figures.Figures` by title. By their estimates, as if each answer had
  all its tokens.
  """
  own = {name: f for name, f in found.items() if f.calls}
  if not own or any(f.seconds is None for f in own.values()):
    return None
  return {name: f.calls * f.seconds for name, f in own.items()}
