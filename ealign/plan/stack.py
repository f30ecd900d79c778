"""How many runs of a grid to put into one program."""

import dataclasses
import math

from ealign.assembly import weights
from ealign.fields import Config
from ealign.plan import inference, programs
from ealign.runtime import mesh as mesh_lib
from ealign.stack import rows
from ealign.stack.groups import MOST

_FILL = 0.8  # share of a device's memory that it plans with


def auto(config: Config, mesh=None) -> tuple[int, str]:
  """How many cells to run as one program, and why.

  Updates are bound by arithmetic, so cells together take as long as one after
  another. Sampling on a GPU or TPU reads all weights for every token, and there
  cells together save time: as many as the memory holds, up to MOST. The memory
  is an estimate; `--plan --stack=N` compiles the programs.

  Args:
    config: of one of the cells.
    mesh: the devices; None: those that are here.

  Raises:
    UserError: the model cannot be read.
  """
  if mesh is None:
    mesh = mesh_lib.make(**dataclasses.asdict(config.mesh))
  groups = rows.groups(mesh)  # each has its own share of the arms
  if _platform(mesh) == 'cpu':
    return groups, 'on a CPU arms take as long as single runs'
  if config.model.train == 'full':
    return 1, 'full fine-tuning has no common base'
  model = weights.read_model(config.model, mesh)[0]
  memory = mesh_lib.memory(mesh.devices.flat[0])
  if memory == math.inf:
    return groups, 'the memory of the devices is not known'
  run = programs.shapes(config, model, mesh)
  base = inference.device_bytes(run.resident['frozen'])
  arm = 4 / 3 * inference.device_bytes(run.state)  # and gradients
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
