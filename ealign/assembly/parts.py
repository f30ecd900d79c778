"""What a run is made of: engine, conscience, data and the update."""

import dataclasses
import functools
from collections.abc import Sequence

import optax

from ealign import align
from ealign.assembly import data, fit
from ealign.assembly import weights as weights_lib
from ealign.assembly.spent import Spent, counted
from ealign.conscience.prompts import Conscience
from ealign.data import chat
from ealign.data.loader import Loader
from ealign.engine import Backend, Engine, Model
from ealign.evals import answers, judges
from ealign.evals.judges import endpoint
from ealign.fields import Config
from ealign.models import layout, lora, sharding
from ealign.runtime import mesh as mesh_lib
from ealign.runtime.errors import UserError


@dataclasses.dataclass(frozen=True)
class Parts:
  """What a run is made of before its first step.

  conscience: its engines are those of the run; its policy has no weights yet.
  held: prompts of the pool that no reflection draws (`threshold`).
  exchanges: labelled ones that its conscience is asked about (`audited`).
  spent: what its models were asked for, in FLOPs.
  """

  conscience: Conscience
  update: align.Update
  params: dict
  loader: Loader | None
  pool: list
  questions: answers.Questions
  spent: Spent
  held: Sequence = ()
  exchanges: Sequence = ()

  @property
  def frozen(self) -> dict:
    return self.conscience.frozen.weights

  def with_policy(self, params) -> Conscience:
    """The conscience beside the policy that has these parameters."""
    c = self.conscience
    policy = c.policy.of(self.update.bind(params, self.frozen))
    return dataclasses.replace(c, policy=policy)


def assemble(config: Config, backend: Backend, terms=None) -> Parts:
  """Reads model, tokenizer and data, and builds the update.

  Args:
    config: of the run.
    backend: what it computes with; runs that share a model load it once.
    terms: of the objective, by default those of the paper's method.

  Raises:
    UserError: any of them is broken, or they do not fit each other.
  """
  # Data comes first: an error in it is reported before a model is loaded.
  asked = answers.read(config.eval, config.data.max_mib)
  if config.eval.judge.startswith('openai:'):
    raise UserError(
      f'eval.judge={config.eval.judge!r}: a run is judged by a model that is '
      "here; name 'frozen', and ask what it left by python -m ealign.evaluate "
      '--run=DIR --judge=...'
    )
  chats, own = data.training_chats(config)
  labelled = data.read_audited(config)
  backend, spent = counted(backend)
  c = conscience_of(config, backend)
  mesh, model, frozen = c.frozen.mesh, c.frozen.model.config, c.frozen.weights
  params = sharding.place(
    mesh, weights_lib.trained_weights(config, model, frozen)
  )
  rows = data.encoded(config, c.frozen.model, chats, own) if chats else []
  stream = data.loader(config, rows) if chats else None
  pool, held = data.pools(config, c, chats)
  fit.questions(c, asked.final + asked.curve, config.eval.max_new_tokens)
  fit.tokens(c.policy.model, config.eval.tokens, asked.tokens)
  for suite, rows in asked.suites:
    fit.asked(c.policy.model, rows, suite.max_new_tokens)
  update = make_update(config, model, terms)
  c = dataclasses.replace(c, held_out=tuple(held))
  own = update, params, stream, pool, asked, spent
  return Parts(c, *own, held, labelled)


def conscience_of(config: Config, backend: Backend) -> Conscience:
  """The conscience of a run from the files of its models, without data.

  Its policy has no weights yet.
  """
  mesh = mesh_lib.make(**dataclasses.asdict(config.mesh))
  place = functools.partial(sharding.place, mesh)
  # Before its weights: a wrong argument would cost the time to load them.
  own = config.model, config.seed, mesh, config.data.chat_template_kwargs
  load = lambda: weights_lib.load_model(*own)

  def load_other(spec):
    *model, weights = weights_lib.load_model(spec, config.seed, mesh)
    return *model, place(weights_lib.quantized(spec, weights))

  model, tokenizer, base = backend.share('model', load)
  fit.sizes(config, model.max_positions, layout.shards(model))
  if weights_lib.adapts(config):
    fit.targets(config, model)
  fix = lambda: place(weights_lib.frozen_weights(config, model, base))
  frozen = backend.share('frozen', fix)
  others = {
    by: backend.share(by, functools.partial(load_other, spec))
    for by, spec in second_models(config).items()
  }
  main = model, tokenizer, frozen
  c = make_conscience(config, main, others, mesh=mesh, backend=backend)
  return dataclasses.replace(c, endpoints=endpoints(config))


def endpoints(config: Config) -> dict:
  """The servers that judge or propose, by name; replies are not kept."""
  own, found = config.iteralign, {}
  if config.method != 'iteralign':
    return found
  for field, by in (('judged_by', own.judged_by), ('proposer', own.proposer)):
    if by.startswith(endpoint.PREFIX) and by not in found:
      found[by] = endpoint.connect(by, None, field=f'iteralign.{field}')
  return found


def with_start(config: Config, c: Conscience) -> Conscience:
  """The conscience beside the policy as it is before the first step."""
  model, frozen = c.frozen.model.config, c.frozen.weights
  if not config.model.adapter:  # nothing is trained yet
    return dataclasses.replace(c, policy=c.frozen)
  params = sharding.place(
    c.frozen.mesh, weights_lib.trained_weights(config, model, frozen)
  )
  policy = c.policy.of(make_update(config, model).bind(params, frozen))
  return dataclasses.replace(c, policy=policy)


def second_models(config: Config) -> dict:
  """The `fields.Model` of each second model that reviews or writes."""
  c, proposer = config.conscience, ''
  if config.method == 'iteralign':
    proposer = config.iteralign.proposer
  return {
    by: dataclasses.replace(
      config.model, path=by.removeprefix('other:'), init='weights'
    )
    for by in sorted({c.review.by, c.revise.by, config.eval.judge, proposer})
    if by.startswith('other:')
  }


def make_conscience(
  config: Config, model, others: dict, *, mesh, backend: Backend
) -> Conscience:
  """The conscience of a run; its policy has no weights yet.

  model: its (Config, tokenizer, frozen weights). others: the same of each
  second model, by its name.
  """
  c = config.conscience
  template = config.data.chat_template_kwargs
  chat.check_arguments(model[1], dict(template), 'data.chat_template_kwargs')

  def engine(shape, tokenizer, weights):
    model = Model(shape, tokenizer, template)
    return Engine(model, weights, backend, mesh, rows=c.prompts * c.samples)

  frozen = engine(*model)
  return Conscience(
    framing=data.read_framing(c.framing),
    settings=c,
    sample=config.sample,
    dpo=config.dpo,
    policy=frozen.of(None),
    frozen=frozen,
    others={by: engine(*other) for by, other in others.items()},
    examples=data.read_examples(config),
    truth=_truth(config),
    own=_own(config),
  )


def _own(config: Config):
  """The section of the config that its method alone reads, if it has one."""
  sections = {'mistake_analysis': config.mistakes}
  return sections.get(config.method) or getattr(config, config.method, None)


def _truth(config: Config):
  """(messages, reply) -> whether the judge's rule calls it bad, or None."""
  if config.conscience.review.noise is None:
    return None
  judge = judges.load(config.eval.judge)

  def bad(messages, reply):
    scores = judges.score(judge, {'messages': [*messages]}, reply)
    return judge.truth({'scores': scores})

  return bad


def make_update(config: Config, model, terms=None) -> align.Update:
  """The static part of an update, with the paper's terms if none are given.

  The very same object for all runs that differ in traced values only: they
  share its compiled program.
  """
  return _update(
    model,
    None if config.model.train == 'full' else weights_lib.lora_scale(config),
    dataclasses.replace(config.optim, lr=0.0),
    config.train.steps if config.optim.schedule != 'constant' else 0,
    terms=align.hybrid(config.dpo.variant) if terms is None else terms,
    reference=config.dpo.reference,
    microbatches=config.train.microbatches,
    chunk=config.train.chunk,
  )


@functools.lru_cache(maxsize=16)
def _update(model, scale, optim, steps, **static):
  bind = align.full if scale is None else functools.partial(lora.bind, scale)
  return align.Update(
    model=model,
    bind=bind,
    tx=optax.chain(
      optax.clip_by_global_norm(optim.clip) if optim.clip else optax.identity(),
      optax.scale_by_adam(b1=optim.b1, b2=optim.b2, eps=optim.eps),
      optax.add_decayed_weights(optim.weight_decay),
    ),
    schedule=align.schedule(optim.schedule, optim.warmup, steps),
    **static,
  )
