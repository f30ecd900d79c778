"""python -m ealign.launch --config=configs/demo.py --workdir=DIR

Checks everything that can be checked before a model is loaded, then runs the
config, its arms one after another, or the cells of a grid (--sweep), each in a
folder of its own. The same command continues what was stopped; with
--print_launch=KIND it only prints a script that runs it on a cluster, with
--plan it prints what would run. Exit codes: 0 done; 1 a run failed (a loss that
is not finite, answers that collapsed) or does not fit; 2 bad flags, config,
data or workdir; 143, or 130 of Ctrl-C, stopped by a signal, after saving.
"""

import dataclasses
import sys

from ealign import config as config_lib
from ealign import fields
from ealign.cli import command as command_lib
from ealign.cli import scripts
from ealign.grid import cells
from ealign.runtime import cache, preempt
from ealign.runtime import hosts as hosts_lib
from ealign.runtime.errors import Preempted, UserError, visible
from ealign.workdir import folder as folder_lib

_BEFORE = 'stopped before anything ran; the same command continues'


def main(argv: list[str] | None = None) -> int:
  """Runs the command line; returns the exit code."""
  try:
    with preempt.watch() as stop, stop.at_once(Preempted(_BEFORE)):
      command = command_lib.parse(sys.argv if argv is None else argv)
      grid = _cells(command)
      if begins := not _printed(command, grid):
        compile_cache()
    if begins:
      start(command, grid)
    sys.stdout.flush()
  except UserError as error:
    print(error, file=sys.stderr)
    return error.exit_code
  except KeyboardInterrupt:
    print('interrupted; the same command continues', file=sys.stderr)
    return 130
  except BrokenPipeError:
    return preempt.unread()
  return 0


def _printed(command: command_lib.Command, grid: cells.Grid) -> bool:
  """Prints what the command asks for instead of a run, and any notes."""
  chosen = cells.choose(grid, command.only) if grid.cells else []
  script = ''
  if command.print_launch:
    from ealign.stack import groups

    workers = len(groups.groups(chosen, command.stack or 1))
    script = scripts.fill(command, workers=workers)
  for note in (*grid.notes, *cells.hidden(grid, chosen, command.changed)):
    print(f'note: {visible(note)}', file=sys.stderr)
  if script:
    print(script, end='')
  elif command.plan:
    from ealign.grid import plan
    from ealign.methods import METHODS

    plan.plan(grid, command, folder_lib.of(command.workdir), METHODS)
  return bool(script or command.plan)


def _cells(command: command_lib.Command) -> cells.Grid:
  """The cells of a command.

  Raises:
    UserError: all that is wrong with command line, config and sweeps.
  """
  if not command.sweep:
    arms = command.config.get('arms', {}).values()
    names = [arm.get('method') for arm in arms if hasattr(arm, 'get')]
    found = _unknown_methods([command.config.get('method'), *names])
    problems = (*command.problems, *found)
    return cells.of_arms(dataclasses.replace(command, problems=problems))
  from ealign.grid import prepare, sweeps

  grid = sweeps.read(command)
  problems = prepare.problems(command.module, grid.cells)
  problems += _unknown_methods(cell.config.method for cell in grid.cells)
  if problems:
    raise UserError(*problems)
  return grid


def _unknown_methods(names) -> list[str]:
  """What is wrong with `method`; the paper's is known without loading JAX."""
  names = set(filter(None, names)) - {fields.Config.method}
  if not names:
    return []
  from ealign.methods import METHODS

  known, hint = ', '.join(METHODS), config_lib.did_you_mean
  return [
    f'method={name!r}: must be one of {known}.{hint(name, METHODS)}'
    for name in sorted(names - METHODS.keys())
  ]


def start(command: command_lib.Command, grid: cells.Grid) -> None:
  """Runs the grid on each host, once all hosts are there.

  Each host checks everything; a mistake that only one of them sees ends all.
  """
  folder = folder_lib.of(command.workdir)
  about = _digest(command, folder.shared)
  with hosts_lib.join(command.cluster, about) as hosts:
    if hosts.index:
      folder = folder_lib.of(command.workdir, index=hosts.index)
    # Of several hosts JAX tells all of a signal, so that they stop together.
    with preempt.watch(alone=hosts.count == 1) as stop:
      with stop.at_once(Preempted(f'{folder.shared}: {_BEFORE}')):
        from ealign.grid import run  # JAX has joined the other hosts
        from ealign.methods import METHODS

        folder_lib.check(folder, hosts)
        hosts.keep(folder.shared / 'hosts')
        folder.pull()
        hosts.gather(None)  # nothing is written before all have read
      run.run(grid, command, folder, hosts, stop, methods=METHODS)


def _digest(command, shared) -> str:
  """A hash of what all hosts must agree on."""
  from ealign.runtime import provenance

  config, versions = config_lib.to_json(command.config), provenance.versions()
  about = (config, command.only, command.sweep, str(shared), versions)
  return provenance.text_hash(repr(about))


def compile_cache() -> None:
  """Keeps compiled programs on disk for the next start, also small ones."""
  import jax

  jax.config.update('jax_compilation_cache_dir', cache.folder()[0])
  jax.config.update('jax_persistent_cache_min_compile_time_secs', 0)
  jax.config.update('jax_persistent_cache_min_entry_size_bytes', 0)


if __name__ == '__main__':
  sys.exit(main())
