"""`python -m ealign.launch ... --plan`: reads all but the weights and compiles.

Everything a run would read is read and checked as the run would, but for the
weights, of which only the shapes are needed: a model on the Hub costs its
config.json and its tokenizer.
"""

import dataclasses

import jax

from ealign.alone import ALONE
from ealign.assembly import data, fit, parts, weights
from ealign.conscience import prompts
from ealign.evals import suites as suites_lib
from ealign.fields import Config, reflects
from ealign.method import Method
from ealign.models import flops, layout
from ealign.plan import (
  bill,
  compiling,
  costs,
  inference,
  programs,
  show,
  stack,
  suites,
)
from ealign.plan import data as data_lib
from ealign.runtime import mesh as mesh_lib
from ealign.runtime import peaks
from ealign.sampling.prompts import bucket
from ealign.workdir.folder import Folder


def plan(
  config: Config,
  folder: Folder,
  *,
  slice_name: str = '',
  name: str = '',
  arms: int = 1,
  auto: bool = False,
  method: Method | None = None,
  price: float | None = None,
):
  """Prints what a run would be, and writes it to plan.json there.

  Args:
    config: the frozen Config.
    folder: the folder of the run.
    slice_name: such as 'v5e:4x4'; '': the devices that are here.
    name: of the arm that is planned, if there are arms.
    arms: runs of this config that are one program.
    auto: whether fewer are, where no more pay.
    method: that the config names, by default the paper's. Its terms are
      planned, on SFT rows and pairs.
    price: dollars for a chip and hour.

  Raises:
    UserError: bad data, model, mesh or slice, libtpu is missing, or the folder
      cannot be written.
    Unfit: the plan shows a run that would fail or waste its chips.
  """
  mesh = mesh_lib.make(
    **dataclasses.asdict(config.mesh), devices=compiling.devices(slice_name)
  )
  screen = show.console()
  show.config(screen, compiling.own(config))
  conscience = _conscience(config, mesh)
  model = conscience.frozen.model.config
  fit.sizes(config, model.max_positions, layout.shards(model))
  read, sizes = _data(config, conscience, screen)
  if auto:
    arms = _auto(config, mesh, arms, screen)
  second = conscience.reviewer.model.config
  other = second if config.conscience.review.by.startswith('other:') else None
  terms = method and method.terms(config)
  judge = conscience.others.get(config.eval.judge)
  second = judge and judge.model.config
  if config.eval.judge == config.conscience.review.by:
    second = None  # it is there already
  run = programs.shapes(
    config, model, mesh, other, judge=second, arms=arms, terms=terms
  )
  trained = _trained(run, screen)
  listed = programs.listed(run, sizes)
  listed += _suites(run, conscience, (judge or conscience.frozen).model)
  listed = [(run, program) for program in listed]
  found = compiling.compiled(listed, screen, slice_name)
  facts = {'arm': name, 'slice': slice_name, **read, **trained, 'arms': arms}
  cases, facts['conscience'] = _cost(run, sizes, found, screen)
  facts['suites_s'] = show.suites(screen, suites.seconds(found))
  if config.train.steps:
    asked = (facts['suites_s'] or {}).get('in all', 0.0)
    whole = bill.bills(cases, found, config.train.steps, asked, run.mesh, price)
    show.bills(screen, whole, config.train.steps)
    facts['run'] = {name: one.as_dict() for name, one in whole.items()}
  compiling.conclude(run, found, screen, facts, folder)


def _suites(run, conscience, judge) -> list:
  """The programs that ask the suites of a run when it ends."""
  c, model = run.config, conscience.policy.model
  if not c.eval.suites:
    return []
  asked = suites_lib.read(c.eval, c.data.max_mib)
  here = None if c.eval.judge.startswith('openai:') else judge
  found = suites.needs(asked, model, here, c.eval, run.mesh)
  own = suites.asked(run, found, run.model, run.of_policy, arms=run.arms)
  holds = 'judge' if 'judge' in run.resident else 'other'
  holds = holds if c.eval.judge in conscience.others else 'frozen'
  by = judge.config, run.of_frozen, holds
  return [*own, *suites.judged(run, found, *by, arms=run.arms)]


def _cost(run, sizes, found, screen) -> tuple[dict, dict | None]:
  """Shows what the conscience costs of a step, and what would make it less.

  Returns the cost of each case, and the facts for plan.json.
  """
  if not costs.known(found):
    return {}, None
  model, _, weights = run.policy
  # Rows of several arms are never fewer than they are planned for.
  rows = run.config.conscience.prompts * run.config.conscience.samples
  base = costs.Base(
    *(found, run.config, run.mesh),
    weights=inference.device_bytes(weights),
    reviewer=inference.device_bytes(run.reviewer[2]),
    prompt=sizes.prompt,
    review=sizes.review,
    parts=layout.shards(model) if run.arms == 1 else rows,
  )
  cases = {
    f'{case}{slow}': costs.cost(base, expected=expected, latency=latency)
    for case, expected in (('expected', True), ('worst', False))
    for slow, latency in (('', peaks.LATENCY), ('_slow', peaks.SLOW))
  }
  show.costs(screen, cases)
  levers = costs.levers(base)
  show.levers(screen, cases, levers)
  return cases, {
    **{name: case.as_dict() for name, case in cases.items()},
    'levers': [
      {'fields': fields, 'expected_s': few.step, 'worst_s': most.step}
      for fields, few, most in levers
    ],
  }


def _auto(config, mesh, arms: int, screen) -> int:
  """How many of `arms` runs to put into one program; prints the reason."""
  pay, why = stack.auto(config, mesh)
  if pay > arms:
    why = 'no more cells share its base and shapes'
  arms = min(arms, pay)
  show.pairs(screen, f'--stack=auto: {arms} in a program', {'because': why})
  return arms


def demand(config, arms: int = 1) -> tuple:
  """A sort key: larger if a run compiles more programs, or larger ones.

  arms: how many runs like it are one program.
  """
  c = config
  pairing = reflects(c.dpo.lam, c.conscience.every) and c.train.steps > 0
  pairs = 2 * c.dpo.pairs * c.dpo.length if pairing else 0
  rows = c.conscience.prompts * c.conscience.samples if pairing else 0
  return (
    *(pairing, c.model.train == 'full', c.dpo.reference == 'step'),
    arms * (c.data.batch_size * c.data.length * bool(c.data.train) + pairs),
    *(arms * rows * c.sample.max_new_tokens, arms * c.model.lora.rank),
  )


def _conscience(config, mesh) -> prompts.Conscience:
  """The run's conscience with models that have no weights."""

  def read(spec):
    return *weights.read_model(spec, mesh), None

  main = read(config.model)
  if weights.adapts(config):
    fit.targets(config, main[0])
  # A second model that only writes is no program of the plan.
  by = config.conscience.review.by, config.eval.judge
  second = parts.second_models(config)
  others = {name: read(second[name]) for name in second if name in by}
  return parts.make_conscience(config, main, others, mesh=mesh, backend=ALONE)


def _data(config, conscience, screen):
  """The tables of SFT data and pool, and the sizes of the prompts."""
  model = conscience.frozen.model
  chats, own = data.training_chats(config)
  facts = {}
  if asked := data.read_audited(config):
    facts['audit'] = {'exchanges': len(asked)}
    title = 'before the first step the conscience is asked about: '
    show.pairs(screen, title + config.conscience.exchanges, facts['audit'])
  if chats:
    rows = data.encoded(config, model, chats, own)
    loader = data.loader(config, rows)
    epochs = loader.epochs(config.train.steps)
    table = data_lib.table(rows, loader.stats, epochs)
    facts['data'] = table
    facts['examples'] = data_lib.examples(model.tokenizer, rows)
    show.pairs(screen, f'data: {config.data.train}', _readable(table))
    for number, example in enumerate(facts['examples'], start=1):
      show.row(screen, example, number)
  pool, held = data.pools(config, conscience, chats)
  if not pool:
    return facts, None
  asked = [*held, *(chat for _, chats in pool for chat in chats)]
  lengths = [len(model.prompt(chat)) for chat in asked]
  facts['pool'] = {'prompts': len(lengths)} | data_lib.percentiles(lengths)
  show.pairs(screen, 'pool (tokens)', facts['pool'])
  if held:
    numbers = {'answers': len(held), 'prompts left': len(asked) - len(held)}
    facts['calibration'] = numbers
    why = f'conscience.threshold={config.conscience.threshold!r}'
    title = f'first the frozen model is sampled and reviewed: {why}'
    show.pairs(screen, title, numbers)
  longest, reviewer = max(lengths), conscience.reviewer.model
  after = config.sample.max_new_tokens + prompts.overhead(conscience, reviewer)
  return facts, programs.Sizes(bucket(longest), bucket(longest + after))


def _readable(table: dict) -> dict:
  shares = ('supervised', 'truncated')
  facts = {k: f'{v:,}' for k, v in table.items() if isinstance(v, int)}
  facts['lengths'] = ', '.join(f'{k} {v}' for k, v in table['lengths'].items())
  facts |= {name: show.percent(table[name]) for name in shares}
  return facts | {'epochs, at most': f'{table["epochs"]:,g}'}


def _trained(run, screen) -> dict:
  """Parameters, tokens of a step, and where arrays lie."""
  c = run.config
  counted = {
    'parameters': flops.parameters(run.model),
    **({'arms of a program': run.arms} if run.arms > 1 else {}),
    'trained': sum(x.size for x in jax.tree.leaves(run.state.params)),
    'SFT tokens of a step': (
      c.data.batch_size * c.data.length * bool(c.data.train)
    ),
    'tokens of pairs of a step': 2 * c.dpo.pairs * c.dpo.length * c.reflects,
  }
  numbers = {name: f'{value:,}' for name, value in counted.items()}
  show.pairs(screen, 'model and step', numbers)
  rules = {path: str(tuple(spec)) for path, spec in layout.RULES}
  show.pairs(screen, f'mesh {dict(run.mesh.shape)}; split by path:', rules)
  return {'model': counted, 'rules': rules}
