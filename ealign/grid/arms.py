"""Which cells run as one program, and how many of them (`grid.stack`)."""

import dataclasses
import functools
import math
import traceback
from collections.abc import Callable, Sequence

import jax

from ealign import config as config_lib
from ealign.fields import Config
from ealign.grid import rows, stack
from ealign.runtime import mesh as mesh_lib
from ealign.runtime import preempt
from ealign.runtime.errors import NonFinite, Preempted, UserError, line
from ealign.runtime.hosts import Hosts

# What cells of one program must agree on: the base, and all shapes. Everything
# else is traced, or a matter of the host, which each arm has for itself.
_SHARED = (
  'model.',
  'mesh.',
  'data.length',
  'data.batch_size',
  'conscience.prompts',
  'conscience.samples',
  'dpo.variant',
  'dpo.reference',
  'dpo.pairs',
  'dpo.length',
  'optim.',
  'train.steps',
  'train.microbatches',
  'train.chunk',
)
_OWN = ('model.adapter', 'optim.lr')  # but for these
MOST = 8  # arms that `auto` takes at most
_FILL = 0.8  # share of a device's memory that it plans with


def alike(config: Config) -> tuple:
  """Equal for cells that can run as one program."""
  shared = [
    (name, value)
    for name, value in config_lib.flatten(config).items()
    if name.startswith(_SHARED) and name not in _OWN
  ]
  learns = bool(config.data.train)
  # Random weights are the seed's own, and full fine-tuning has no common base.
  alone = config.seed if config.model.init == 'random' else None
  return *shared, learns, alone


def groups(cells: Sequence, arms: int) -> list[list]:
  """The cells cut into those that run as one program, `arms` of them at most.

  In the order of their first cells, and of like sizes: another size would be
  another program.
  """
  found = {}
  for cell in cells:
    own = cell.id if cell.config.model.train == 'full' else None
    found.setdefault((own, alike(cell.config)), []).append(cell)
  made = []
  for together in found.values():
    count = -(-len(together) // arms)
    made += [together[i::count] for i in range(count)]
  order = {cell.id: i for i, cell in enumerate(cells)}
  return sorted(made, key=lambda group: order[group[0].id])


def auto(config: Config, mesh=None) -> tuple[int, str]:
  """How many cells to run as one program, and why.

  Updates are bound by arithmetic: together they take as long as one after
  another. What is gained is gained where weights are read for every token, in
  sampling, on a GPU or TPU; there it is as many as the memory holds, up to
  MOST. The memory is an estimate; `--plan --arms=N` compiles the programs.

  Args:
    config: of one of the cells.
    mesh: the devices; None: those that are here.

  Raises:
    UserError: the model cannot be read.
  """
  from ealign import assembly
  from ealign.plan import programs

  if mesh is None:
    mesh = mesh_lib.make(**dataclasses.asdict(config.mesh))
  groups = rows.groups(mesh)  # each has its own share of the arms
  if _platform(mesh) == 'cpu':
    return groups, 'on a CPU arms take as long as single runs'
  if config.model.train == 'full':
    return 1, 'full fine-tuning has no common base'
  model = assembly.read_model(config.model, mesh, weights=False)[1]
  memory = mesh_lib.memory(mesh.devices.flat[0])
  if memory == math.inf:
    return groups, 'the memory of the devices is not known'
  found = programs.shapes(config, model, mesh)
  base = programs.device_bytes(found.frozen)
  arm = 4 / 3 * programs.device_bytes(found.state)  # and gradients
  arm += _activations(config, model) * groups / mesh.size
  count = groups * int((_FILL * memory - base) / arm)
  gib = lambda size: f'{size / 2**30:.2f} GiB'
  why = f'{gib(base)} of base and about {gib(arm)} an arm, of {gib(memory)}'
  return max(groups, min(count, max(groups, MOST))), why


def _platform(mesh) -> str:
  return mesh.devices.flat[0].platform


def _activations(config, model) -> float:
  """Bytes of one arm's update beside its state, about, on all devices."""
  sft = config.data.batch_size * config.data.length if config.data.train else 0
  tokens = max(sft, 2 * config.dpo.pairs * config.dpo.length)
  layer = 12 * model.d_model + 3 * model.d_ff * max(model.experts_per_token, 1)
  kept = model.layers * (layer if model.remat == 'none' else model.d_model)
  return 2 * tokens * (kept + 2 * layer) + 8 * config.train.chunk * (
    model.vocab_size
  )


def run(
  jobs,
  hosts: Hosts,
  stop: preempt.Stop,
  ended: Callable[..., bool] = lambda job, error: False,
) -> list[str | Preempted]:
  """Runs the cells of a group, several as one program (`grid.stack`).

  Args:
    jobs: `grid.run.Job` of each.
    hosts, stop: as `train.run` takes them; several hosts run one cell.
    ended: called in the thread of one of several cells as soon as it has
      ended, with its job and what is returned of it; if true the others stop.

  Returns:
    the one-line error of each, '' of one that is done; the Preempted of one
    that was saved when a signal came. Of several hosts those and errors that
    may be one host's alone are raised.
  """
  if len(jobs) > 1:
    count = len(jobs)
    arms = [functools.partial(_run, job, count=count) for job in jobs]
    each = lambda arm, result: ended(jobs[arm], _told(result))
    results = stack.run(arms, stop, each)
  else:
    try:
      results = [_run(jobs[0], hosts=hosts)]
    except Exception as error:
      # Perhaps it is this host's alone: then all end.
      if hosts.count > 1 and not isinstance(error, NonFinite):
        raise
      results = [error]
  for result in results:
    ours = isinstance(result, BaseException)
    if ours and not isinstance(result, UserError):
      traceback.print_exception(result)
  return [_told(result) for result in results]


def _told(result) -> str | Preempted:
  if isinstance(result, Preempted):
    return result
  return line(result) if isinstance(result, BaseException) else ''


def _run(job, calls=None, stop=None, *, hosts=None, count: int = 1):
  from ealign import train

  config, together = job.config, {}
  if calls:
    together = {'calls': calls, 'stop': stop}
    # They share the rows of eval.batch.
    devices = jax.device_count()
    rows = -(-config.eval.batch // (count * devices)) * devices
    section = dataclasses.replace(config.eval, batch=rows)
    config = dataclasses.replace(config, eval=section)
  return train.run(
    *(config, job.place),
    name=job.cell.label,
    hosts=hosts,
    display=job.watch,
    **together,
  )
