"""python -m ealign.launch --config=configs/demo.py --workdir=DIR

Checks everything that can be checked before a model is loaded, then runs the
config, its arms one after another, or the cells of a grid (--sweep), each in a
folder of its own. The same command continues what was stopped; with
--print_launch=KIND it only prints a script that runs it on a cluster, with
--plan it tells what would run. Exit codes: 0 done; 1 a run failed (a loss that
is not finite) or does not fit; 2 bad flags, config, data or workdir; 143
stopped by a signal, after saving.
"""

import dataclasses
import fnmatch
import functools
import os
import pathlib
import sys

from ml_collections import config_dict

from ealign import config as config_lib
from ealign.cli import claim as workdir_lib
from ealign.cli import command as command_lib
from ealign.cli import scripts
from ealign.fields import Config
from ealign.runtime import hosts as hosts_lib
from ealign.runtime import preempt
from ealign.runtime.errors import NonFinite, Preempted, Unfit, UserError
from ealign.workdir import folder as folder_lib


@dataclasses.dataclass(frozen=True)
class Run:
  """One run: its name ('' for a config without arms), folder and config."""

  name: str
  folder: pathlib.Path
  config: config_dict.ConfigDict

  @property
  def done(self) -> bool:
    return (self.folder / 'DONE').exists()

  @property
  def needs(self) -> set[str]:
    """Names of the arms whose adapter it starts from."""
    model = self.config.model
    named = (model.adapter, model.frozen_adapter)
    return {name[4:] for name in named if name.startswith('arm:')}


def main(argv: list[str] | None = None) -> int:
  """Runs the command line; returns the exit code."""
  try:
    command = command_lib.parse(sys.argv if argv is None else argv)
    if command.sweep:
      grid(command)
    elif command.plan:
      plan(command)
    elif command.print_launch:
      print_launch(command)
    else:
      launch(command)
  except UserError as error:
    print(error, file=sys.stderr)
    return error.exit_code
  except KeyboardInterrupt:
    print('interrupted; the same command continues', file=sys.stderr)
    return 130
  return 0


def print_launch(command: command_lib.Command) -> None:
  """Prints the script; what only this machine may lack is a note beside it."""
  script = scripts.fill(command)
  for problem in config_lib.validate(command.config):
    print(f'note: {problem}', file=sys.stderr)
  print(script, end='')


def plan(command: command_lib.Command) -> None:
  """Checks all, and tells what would run; of arms the most demanding one."""
  _check(command)
  folder = folder_lib.of(command.workdir)
  folder.pull()
  workdir = folder.local
  _, chosen = _chosen(command, workdir)
  from ealign.methods import METHODS
  from ealign.plan import run as plan_lib

  run = max(chosen, key=lambda run: plan_lib.demand(run.config))
  if len(chosen) > 1:
    said = 'of all the largest by what it trains on and samples'
    print(f'planning arm {run.name!r}: {said}')
  workdir_lib.claim(workdir, command.config)
  try:
    config = _frozen(run, workdir)
    own = {'name': run.name, 'method': METHODS[config.method]}
    plan_lib.plan(config, folder, slice_name=command.topology, **own)
  except Unfit:
    folder.push()
    raise
  except UserError:
    workdir_lib.unclaim(workdir)
    raise
  folder.push()


def grid(command: command_lib.Command) -> None:
  """Runs, plans or prints the launch of the cells of a grid."""
  from ealign.grid import prepare, sweeps
  from ealign.grid import run as grid_lib

  found = sweeps.read(command)
  problems = [*prepare.problems(command.module, found.cells)]
  problems += _method_problems(cell.config.method for cell in found.cells)
  if problems:
    raise UserError(*problems)
  chosen = grid_lib.choose(found.cells, command.only)
  for note in (*found.notes, *sweeps.hidden(found, command.changed)):
    print(f'note: {note}', file=sys.stderr)
  if command.print_launch:
    from ealign.stack import groups

    workers = len(groups.groups(chosen, command.arms or 1))
    print(scripts.fill(command, workers=workers), end='')
  elif command.plan:
    from ealign.grid import plan as plan_lib
    from ealign.methods import METHODS

    folder = folder_lib.of(command.workdir, many=True)
    plan_lib.plan(found, command, folder, METHODS)
  else:
    from ealign.methods import METHODS

    run = functools.partial(grid_lib.launch, found, methods=METHODS)
    start(command, run)


def _check(command) -> None:
  """Raises a UserError of all that is wrong with command line and config."""
  problems = [*command.problems, *config_lib.validate(command.config)]
  arms = command.config.get('arms', {}).values()
  own = [arm.get('method') for arm in arms if hasattr(arm, 'get')]
  named = [command.config.get('method'), *own]
  problems += _method_problems(filter(None, named))
  mesh = command.config.get('mesh', {})
  if isinstance(mesh.get('arm', 1), int) and mesh.get('arm', 1) > 1:
    said = 'is for the arms of a grid; use 1 without --sweep'
    problems.append(f'mesh.arm={mesh.arm}: {said}')
  if problems:
    raise UserError(*problems)


def _method_problems(names) -> list[str]:
  from ealign.methods import METHODS  # loads JAX

  return [
    f'method={name!r}: must be one of {", ".join(METHODS)}.'
    f'{config_lib.did_you_mean(name, METHODS)}'
    for name in dict.fromkeys(names)
    if name not in METHODS
  ]


def _chosen(command, workdir) -> tuple[list[Run], list[Run]]:
  """All runs, and those that --only leaves."""
  runs = _runs(command.config, workdir)
  return runs, _choose(runs, command.only)


def launch(command: command_lib.Command) -> None:
  """Checks all, runs what is left to do, writes the report.

  Of several hosts each does so; a mistake that only one sees ends all.
  """
  _check(command)
  _chosen(command, folder_lib.of(command.workdir).local)
  start(command, _launch)


def start(command: command_lib.Command, run) -> None:
  """Calls run(command, folder, hosts) on each host, once all are there."""
  folder = folder_lib.of(command.workdir, many=bool(command.sweep))
  compile_cache()
  hosts = hosts_lib.join(command.cluster, _digest(command, folder.shared))
  if hosts.index:
    folder = folder_lib.of(command.workdir, index=hosts.index)
  try:
    folder_lib.check(folder, hosts)
    hosts.keep(folder.shared / 'hosts')
    folder.pull()
    hosts.gather(None)  # nothing is written before all have read
    run(command, folder, hosts)
  except (NonFinite, Preempted):  # all hosts see it
    hosts.leave()
    raise
  except UserError as error:
    hosts.fail(error.exit_code, str(error))
    raise
  except KeyboardInterrupt:
    hosts.fail(130, 'interrupted; the same command continues')
    raise
  except Exception as error:
    hosts.failed(error)
    raise
  hosts.leave()


def _digest(command, shared) -> str:
  """Of what all hosts must agree on: config, arms, folder, versions."""
  from ealign.runtime import provenance

  about = (config_lib.to_json(command.config), command.only, command.sweep)
  about = (*about, str(shared), provenance.versions())
  return provenance.text_hash(repr(about))


def _launch(command, place: folder_lib.Folder, hosts: hosts_lib.Hosts) -> None:
  workdir = place.local
  runs, chosen = _chosen(command, workdir)
  if command.profile:
    _check_profile(command.profile, chosen)
  workdir_lib.claim(workdir, command.config)
  for run in chosen:
    if run.name:
      workdir_lib.claim(run.folder, run.config)
  if hosts.writes:
    _tell_hidden(command, chosen)
  try:
    with preempt.watch(alone=hosts.count == 1) as stop:
      failed = _run_all(chosen, place, stop, hosts, command.profile)
  except UserError:
    for folder in (*(run.folder for run in runs), workdir):
      workdir_lib.unclaim(folder)
    raise
  ran = any((run.folder / 'metrics.jsonl').exists() for run in runs)
  if ran and hosts.writes:
    _report(workdir)
    place.push()
  if failed:
    listed = ', '.join(failed)
    raise NonFinite(f'{len(failed)} of {len(chosen)} runs failed: {listed}')


def _check_profile(profile: tuple[int, int], runs: list[Run]) -> None:
  most = max(run.config.train.steps for run in runs)
  if profile[1] > most:
    said = f'must end by step {most}, that of train.steps'
    raise UserError(f'--profile={profile[0]}:{profile[1]}: {said}')


def _report(workdir: pathlib.Path) -> None:
  from ealign import report
  from ealign.evals import table
  from ealign.report import page, runs

  table.show(page.collect(runs.read(workdir))['blocks'])
  print(f'report: {report.write(workdir)}')


def _runs(config, workdir: pathlib.Path) -> list[Run]:
  arms = config_lib.arms(config)
  if not arms:
    return [Run('', workdir, config)]
  return [Run(name, workdir / name, arm) for name, arm in arms.items()]


def _choose(runs: list[Run], only: tuple[str, ...]) -> list[Run]:
  """The runs whose names match; what they start from must be at hand."""
  if not only:
    return runs
  names = [run.name for run in runs]
  for pattern in only:
    if not fnmatch.filter(names, pattern):
      known = ', '.join(filter(None, names)) or 'none'
      hint = config_lib.did_you_mean(pattern, names)
      raise UserError(f'--only={pattern}: no such arm (arms: {known}).{hint}')
  fits = lambda run: any(fnmatch.fnmatch(run.name, each) for each in only)
  chosen = [run for run in runs if fits(run)]
  at_hand = {run.name for run in runs if run.done or run in chosen}
  for run in chosen:
    if missing := run.needs - at_hand:
      said = f'arm {run.name!r} starts from {", ".join(sorted(missing))}'
      raise UserError(f'--only={",".join(only)}: {said}; add it')
  return chosen


def _tell_hidden(command: command_lib.Command, runs: list[Run]) -> None:
  """Says which fields of the command line one of the runs sets for itself."""
  for name in filter(None, (run.name for run in runs)):
    own = config_lib.flatten(command.config.arms[name])
    for field in command.changed:
      if field in own:
        said = f'arm {name!r} sets {field}={own[field]!r} itself'
        print(f'note: --config.{field} does not reach it: {said}')


def compile_cache() -> None:
  """Keeps compiled programs on disk for the next start, also small ones."""
  import jax

  home = os.environ.get('XDG_CACHE_HOME', '~/.cache')
  folder = os.environ.get('JAX_COMPILATION_CACHE_DIR', f'{home}/ealign/jax')
  jax.config.update('jax_compilation_cache_dir', os.path.expanduser(folder))
  jax.config.update('jax_persistent_cache_min_compile_time_secs', 0)
  jax.config.update('jax_persistent_cache_min_entry_size_bytes', 0)


def _run_all(
  runs: list[Run], place, stop: preempt.Stop, hosts, profile=None
) -> list[str]:
  """Runs what is not done; says why runs failed and returns their names."""
  from ealign import train
  from ealign.methods import METHODS

  tell = print if hosts.writes else lambda *_, **__: None
  failed = []
  for number, run in enumerate(runs, start=1):
    label = f'{run.name or run.folder} ({number}/{len(runs)})'
    if stop.requested or hosts.stopping():
      raise Preempted(f'stopped before {label}; the same command continues')
    if run.done:
      untraced = ', --profile traces nothing' if profile else ''
      tell(f'{label}: done already{untraced}')
      continue
    if lost := run.needs & set(failed):
      failed.append(run.name)
      said = f'not run, {", ".join(sorted(lost))} failed'
      tell(f'{label}: {said}', file=sys.stderr)
      continue
    own = place / run.name if run.name else place
    tell(f'{label}: in {own.shared}', flush=True)
    hosts.gather(None)  # what an earlier arm wrote is there
    place.pull()
    try:
      config = _frozen(run, place.local)
      method = METHODS[config.method]
      more = {'name': run.name, 'profile': profile, 'hosts': hosts}
      train.run(config, own, method=method, **more)
    except NonFinite as error:
      failed.append(run.name or str(run.folder))
      tell(error, file=sys.stderr)
      continue
    if hosts.writes and run.config.train.export:
      _export(run.folder, run.config.train.export)
    (run.folder / 'DONE').write_text('')
    own.push()
  return failed


def _export(folder, format: str) -> None:
  from ealign import export

  print(export.export(folder, folder / 'export', format, overwrite=True))


def _frozen(run: Run, workdir: pathlib.Path) -> Config:
  """The run's Config, with the folders of the arms it starts from."""
  config = config_lib.freeze(run.config)
  folder = lambda name: (
    str(workdir / name[4:]) if name.startswith('arm:') else name
  )
  model = dataclasses.replace(
    config.model,
    adapter=folder(config.model.adapter),
    frozen_adapter=folder(config.model.frozen_adapter),
  )
  return dataclasses.replace(config, model=model)


if __name__ == '__main__':
  sys.exit(main())
