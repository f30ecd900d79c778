"""What all plans do: compile programs, show them, and say whether they fit."""

import dataclasses
import json
from collections.abc import Sequence

import jax

from ealign import config as config_lib
from ealign.fields import Config
from ealign.plan import data, show, suites
from ealign.plan import figures as figures_lib
from ealign.plan.inference import Held, Program
from ealign.plan.programs import NAMES, Shapes
from ealign.runtime import aot, atomic, peaks, topology
from ealign.runtime.errors import Unfit
from ealign.workdir.folder import Folder, usable

FILE = 'plan.json'


def devices(slice_name: str):
  """The devices of a slice, to compile for; '': those that are here.

  Raises:
    UserError: there is no such slice, or libtpu is missing.
  """
  if not slice_name:
    return jax.devices()
  chosen = topology.parse(slice_name)
  # The arrays that exist meanwhile are a few scalars.
  jax.config.update('jax_platforms', 'cpu')
  return aot.devices(chosen)


def own(config: Config) -> dict:
  """Dotted names and values of the fields that are not the default."""
  usual = config_lib.flatten(Config())
  return {
    name: data.plain(repr(value))
    for name, value in config_lib.flatten(config).items()
    if value != usual[name]
  }


def compiled(
  listed: Sequence[tuple[Shapes | Held, Program]], screen, slice_name: str
) -> dict[str, figures_lib.Figures]:
  """The figures of programs by their titles, shown as a table.

  listed: each with what is on the devices while it runs.
  """
  found = {}
  for run, program in listed:
    what = (NAMES | suites.NAMES)[program.name]
    screen.print(f'compiling {program.title}: {what}')
    made = aot.compile(program.run, *program.args, unknown=program.trips)
    found[program.title] = figures_lib.of(program, made, run)
  if found:
    mesh = listed[0][0].mesh
    where = f'{slice_name}, ' if slice_name else ''
    chips = f'{mesh.size} x {mesh.devices.flat[0].device_kind}'
    show.programs(screen, list(found.values()), where + chips)
  return found


def conclude(run, found, screen, facts: dict, folder: Folder) -> None:
  """Writes the plan and says whether the programs would do, or raises Unfit.

  run: a `Shapes` or `Held`, for its config and mesh. facts: of the plan.
  """
  wrong = problems(run, found)
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
    'problems': wrong,
  }
  with usable(folder.shared):
    atomic.write(folder.local / FILE, json.dumps(facts, indent=2) + '\n')
  if wrong:
    raise Unfit(*wrong)
  fits = 'it fits'
  if not found:
    fits = 'nothing is trained, so nothing was compiled'
  elif any(figures.limit is None for figures in found.values()):
    fits = _beside_host(found, device, count)
  screen.print(f'{fits}; the plan is in {folder.shared / FILE}', soft_wrap=True)


def _beside_host(found, device, count: int) -> str:
  """Whether programs fit where a device's own memory is not known."""
  most = count * max(figures.bytes for figures in found.values())
  known = peaks.host_memory() if device.platform == 'cpu' else None
  if not known:
    kind = device.device_kind
    return f'the memory of a {kind} is not known: compare it with "in all"'
  told = f'it takes {show.gib(most)} GiB, and {show.gib(known[0])} GiB of this '
  told += 'machine are free'
  if most <= known[0]:
    return f'it fits: {told}'
  more = 'lower data.batch_size, data.length or dpo.pairs'
  return f'it does not fit: {told}; {more}, or use another machine'


def problems(run, found) -> list[str]:
  """Why programs would fail, or waste the chips they run on."""
  said = []
  for name, figures in found.items():
    if figures.failure:
      reason = data.plain(figures.failure)
      said.append(f'{name}: does not compile: {reason}')
    if figures.excess:
      there = show.gib(figures.limit)
      helps = figures_lib.knobs(run.config, figures, run.mesh)
      said.append(
        f'{name}: does not fit: {show.gib(figures.excess)} GiB more than the '
        f'{there} GiB of a chip. What helps:'
      )
      said += [f'  {line}' for line in helps]
  platform = run.mesh.devices.flat[0].platform
  if platform != 'tpu' or run.config.model.attention == 'xla':
    return said
  for name, figures in found.items():
    if figures.kernels is None or figures.extends:
      continue
    if not any('splash' in kernel for kernel in figures.kernels):
      reason = 'attention is no splash kernel: it would hold [T, T] arrays'
      said.append(f"{name}: {reason}; set model.attention='auto'")
  return said
