"""`python -m ealign.launch ... --plan`: reads all but the weights and compiles.

Everything a run would read is read and checked as the run would, but for the
weights, of which only the shapes are needed: a model on the Hub costs its
config.json and its tokenizer.
"""

import dataclasses
import json

import jax

from ealign import config as config_lib
from ealign.alone import ALONE
from ealign.assembly import data, fit, parts, weights
from ealign.conscience import prompts
from ealign.fields import Config, reflects
from ealign.method import Method
from ealign.models import flops, layout
from ealign.plan import costs, programs, show, stack, suites
from ealign.plan import data as data_lib
from ealign.plan import figures as figures_lib
from ealign.runtime import aot, atomic, peaks, topology
from ealign.runtime import mesh as mesh_lib
from ealign.runtime.errors import Unfit
from ealign.sampling.prompts import bucket
from ealign.workdir.folder import Folder, usable

FILE = 'plan.json'


def plan(
  config: Config,
  folder: Folder,
  *,
  slice_name: str = '',
  name: str = '',
  arms: int = 1,
  auto: bool = False,
  method: Method | None = None,
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

  Raises:
    UserError: bad data, model, mesh or slice, libtpu is missing, or the folder
      cannot be written.
    Unfit: the plan shows a run that would fail or waste its chips.
  """
  mesh = mesh_lib.make(
    **dataclasses.asdict(config.mesh), devices=_devices(slice_name)
  )
  screen = show.console()
  show.pairs(screen, 'config (fields that are not the default)', _own(config))
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
  asked = suites.sizes(
    config, conscience.policy.model, (judge or conscience.frozen).model
  )
  run = programs.shapes(
    config, model, mesh, other, judge=second, arms=arms, terms=terms
  )
  trained = _trained(run, screen)
  listed = programs.listed(run, sizes)
  if asked and arms == 1:
    listed += suites.listed(run, asked, second)
  found = _compiled(run, listed, screen, slice_name)
  facts = {'arm': name, 'slice': slice_name, **read, **trained, 'arms': arms}
  facts['conscience'] = _cost(run, sizes, found, screen)
  _conclude(run, found, screen, facts, folder)


def _cost(run, sizes, found, screen) -> dict | None:
  """Shows what the conscience costs of a step, and what would make it less."""
  if not costs.known(found):
    return None
  model, _, weights = run.policy
  # Rows of several arms are never fewer than they are planned for.
  rows = run.config.conscience.prompts * run.config.conscience.samples
  base = costs.Base(
    *(found, run.config, run.mesh),
    weights=programs.device_bytes(weights),
    reviewer=programs.device_bytes(run.reviewer[2]),
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
  return {
    **{name: case.as_dict() for name, case in cases.items()},
    'levers': [
      {'fields': fields, 'expected_s': few.step, 'worst_s': most.step}
      for fields, few, most in levers
    ],
  }


def _conclude(run, found, screen, facts: dict, folder: Folder) -> None:
  """Writes the plan and says whether the run would do, or raises Unfit."""
  problems = _problems(run, found)
  device, count = run.mesh.devices.flat[0], run.mesh.size
  facts |= {
    'config': dataclasses.asdict(run.config),
    'devices': {
      'kind': device.device_kind,
      'count': count,
      'mesh': dict(run.mesh.shape),
    },
    'programs': {
      name: dataclasses.asdict(figures)
      | {key: getattr(figures, key) for key in ('bytes', 'headroom', 'excess')}
      for name, figures in found.items()
    },
    'problems': problems,
  }
  with usable(folder.shared):
    atomic.write(folder.local / FILE, json.dumps(facts, indent=2) + '\n')
  if problems:
    raise Unfit(*problems)
  fits = 'it fits'
  if not found:
    fits = 'nothing is trained, so nothing was compiled'
  elif any(figures.limit is None for figures in found.values()):
    kind = device.device_kind
    fits = f'the memory of a {kind} is not known: compare it with "in all"'
  screen.print(f'{fits}; the plan is in {folder.shared / FILE}', soft_wrap=True)


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


def _devices(slice_name: str):
  if not slice_name:
    return jax.devices()
  chosen = topology.parse(slice_name)
  # The arrays that exist meanwhile are a few scalars.
  jax.config.update('jax_platforms', 'cpu')
  return aot.devices(chosen)


def _own(config: Config) -> dict:
  """Dotted names and values of the fields that are not the default."""
  usual = config_lib.flatten(Config())
  return {
    name: data_lib.plain(repr(value))
    for name, value in config_lib.flatten(config).items()
    if value != usual[name]
  }


def _conscience(config, mesh) -> prompts.Conscience:
  """The run's conscience with models that have no weights."""

  def read(spec):
    return *weights.read_model(spec, mesh, weights=False)[1:], None

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
    stats = data.loader(config, rows).stats
    table = data_lib.table(rows, stats)
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
  return facts | {name: show.percent(table[name]) for name in shares}


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


def _compiled(
  run, listed, screen, slice_name
) -> dict[str, figures_lib.Figures]:
  """The figures of each program of the run, by name."""
  found = {}
  for program in listed:
    name, what = program.name, programs.NAMES | suites.NAMES
    screen.print(f'compiling {name}: {what[name]}')
    compiled = aot.compile(program.run, *program.args, unknown=program.trips)
    found[name] = figures_lib.of(program, compiled, run)
  where = f'{slice_name}, ' if slice_name else ''
  chips = f'{run.mesh.size} x {run.mesh.devices.flat[0].device_kind}'
  if found:
    show.programs(screen, list(found.values()), where + chips)
  return found


def _problems(run, found) -> list[str]:
  """Why the run would fail, or waste the chips it runs on."""
  problems = []
  for name, figures in found.items():
    if figures.failure:
      reason = data_lib.plain(figures.failure)
      problems.append(f'{name}: does not compile: {reason}')
    if figures.excess:
      there = show.gib(figures.limit)
      helps = figures_lib.knobs(run.config, figures, run.mesh)
      problems.append(
        f'{name}: does not fit: {show.gib(figures.excess)} GiB more than the '
        f'{there} GiB of a chip. What helps:'
      )
      problems += [f'  {line}' for line in helps]
  platform = run.mesh.devices.flat[0].platform
  chosen = run.config.model.attention == 'xla'
  if platform != 'tpu' or chosen:
    return problems
  for name, figures in found.items():
    if figures.kernels is None or name in (
      'decode',
      'answer',
    ):  # it extends a cache
      continue
    if not any('splash' in kernel for kernel in figures.kernels):
      reason = 'attention is no splash kernel: it would hold [T, T] arrays'
      problems.append(f"{name}: {reason}; set model.attention='auto'")
  return problems
