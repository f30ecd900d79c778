"""The loop, top to bottom: reflect, draw, update, log, save, evaluate.

`run(config, workdir)` is the whole of a run, for the command line and for a
notebook alike; `ealign.launch` only reads flags and calls it.
"""

import contextlib
import dataclasses
import functools
import pathlib

import jax
import numpy as np

from ealign import align, resume
from ealign import replay as replay_lib
from ealign.alone import ALONE
from ealign.assembly import audited, data, threshold
from ealign.assembly import parts as parts_lib
from ealign.assembly import weights as assembled
from ealign.conscience import health, tally
from ealign.conscience.reflect import with_review
from ealign.data import batch as batch_lib
from ealign.engine import Backend, Engine
from ealign.evals import answers
from ealign.fields import Config
from ealign.method import Method
from ealign.models import flops, sharding
from ealign.resume import Progress, Setup
from ealign.runtime import checkpoint, metrics, preempt, provenance
from ealign.runtime import mesh as mesh_lib
from ealign.runtime import profile as profile_lib
from ealign.runtime.errors import NonFinite, Preempted, UserError
from ealign.runtime.hosts import Hosts
from ealign.workdir import folder as folder_lib


@dataclasses.dataclass(frozen=True)
class Result:
  """What a finished run leaves: its folder, weights and last metrics."""

  workdir: pathlib.Path
  engine: Engine  # of the trained policy
  params: dict
  frozen: dict
  metrics: dict


def run(
  config: Config,
  workdir,
  *,
  method: Method | None = None,
  name: str = '',
  profile: tuple[int, int] | None = None,
  hosts: Hosts | None = None,
  display=None,
  backend: Backend = ALONE,
  stop: preempt.Stop | None = None,
) -> Result:
  """Trains one run, or continues it, and evaluates it.

  Args:
    config: the frozen Config (`ealign.config.freeze`).
    workdir: its folder, or a `workdir.folder.Folder` where hosts share it; a
      checkpoint there is continued.
    method: that config.method names (`ealign.methods.METHODS`), by default the
      paper's.
    name: of the arm, for records and display.
    profile: first step of a trace, host 0's, and the step before which it
      ends.
    hosts: the processes of the run (`runtime.hosts.join`). They compute in step
      over the mesh of all devices, and each fetches all answers, so that all
      hold the same replay, and results do not depend on their number.
    display: what shows how far it is (`runtime.display`), by default a bar.
    backend: what it computes with, if not for itself alone (`stack`).
    stop: Stop object to poll instead of installing signal handlers.

  Raises:
    UserError: bad data or a checkpoint that cannot be used.
    NonFinite: the loss became nan or inf.
    Collapsed: the answers did, and train.on_collapse='stop'; the run is saved.
    Preempted: SIGTERM came; the run is saved.
  """
  provenance.compiles()  # counts from here on
  hosts, method = hosts or Hosts(), method or Method('conscience')
  if config.method != method.name:
    known = f'ealign.methods.METHODS[{config.method!r}]'
    raise UserError(f'method={config.method!r}: give train.run method={known}')
  folder = folder_lib.of(workdir, index=hosts.index)
  watching = preempt.watch(alone=hosts.count == 1)
  if stop is not None:
    watching = contextlib.nullcontext(stop)
  with watching as stop:
    with stop.at_once(_stopped(folder.local, 'while it was loaded')):
      s, start = _setup(config, method, folder, hosts, backend, name)
      at, stored, notes = resume.restore(s, start)
      log = metrics.Metrics(
        s.workdir,
        config.train.steps,
        tensorboard=config.log.tensorboard,
        prefix=name,
        quiet=not hosts.writes,
        shown=display,
        after=at.step,
      )
      s, found = _examined(s, start, at, stored, log.say)
      notes += found
    if profile and at.step > profile[0]:
      notes.append(f'no trace: step {profile[0]} is done')
    # On other hosts this folder is a temporary copy.
    trace = profile_lib.Profile(s.workdir, profile if hosts.writes else None)
    with log, s.saved, trace:
      for note in notes:
        log.say(note)
      at, shown = _loop(s, at, log, trace, stop)
      trace.at(config.train.steps, at.state)
      return _final(s, at, shown, log, stop)


def _stopped(workdir, when: str) -> Preempted:
  message = f'stopped {when}; the same command continues'
  return Preempted(f'{workdir}: {message}')


# ---- Setup ------------------------------------------------------------------


def _setup(config, method, folder, hosts, backend, name):
  """What the run is made of, and where it stands before its first step."""
  folder.local.mkdir(parents=True, exist_ok=True)
  parts = parts_lib.assemble(config, backend, method.terms(config))
  frozen, others = parts.conscience.frozen, parts.conscience.others
  stored = functools.partial(sharding.unpadded, frozen.model.config)
  size = lambda tree: sum(x.size for x in jax.tree.leaves(tree))
  state = align.init_state(parts.update, parts.params, align.hyper(config))
  state = sharding.place(frozen.mesh, state)

  def hashed(name, engine):
    tree = lambda: sharding.unpadded(engine.model.config, engine.weights)
    make = lambda: provenance.tree_hash(tree())
    return backend.share(f'hash of {name}', make)

  origin = {
    'frozen': hashed('frozen', frozen),
    'others': {by: hashed(by, other) for by, other in others.items()},
  }
  provenance.write(
    folder.local / 'run.json',
    seed=config.seed,
    **origin,
    template=provenance.text_hash(str(frozen.model.tokenizer.chat_template)),
    data=parts.loader and parts.loader.stats,
    parameters=size(stored(frozen.weights)),
    trained=size(stored(state.params)),
    **audited.kept(folder.shared),
  )
  setup = Setup(
    config=config,
    method=method,
    backend=backend,
    hosts=hosts,
    folder=folder,
    parts=parts,
    origin=origin,
    tag={'run': folder.shared.name, 'arm': name, 'seed': config.seed},
    saved=checkpoint.Checkpoints(
      folder.shared / 'checkpoints', config.train.keep
    ),
  )
  replay = replay_lib.Replay(config.replay, seed=config.seed)
  return setup, Progress(0, state, replay, memory=method.begun(config))


def _examined(s: Setup, start: Progress, at: Progress, stored: dict, say):
  """The setup with its threshold, and notes of that and of its audit.

  The audit comes first: where there are no verdicts, a threshold on them is not
  looked for. stored: what it was found on, of a checkpoint. say: shows a line.
  """
  at_start = s.parts, start.state.params, s.origin
  of = s.config, *threshold.reviewing(s.config, *at_start), s.backend
  record, notes = functools.partial(provenance.add, s.workdir / 'run.json'), []
  asks = s.method.reviews and at.step < s.config.train.steps
  # All hosts ask, or none: by what host 0 has read.
  kept = s.hosts.gather(audited.kept(s.folder.shared))[0]
  rows = s.parts.exchanges if asks and s.config.audits else ()
  if facts := audited.found(*of, rows, kept):
    record(audit=facts)
    audited.check(s.config, facts)
  if found := threshold.found(*of, s.parts.held, stored, say):
    c = dataclasses.replace(s.parts.conscience, reference=found)
    s = dataclasses.replace(s, parts=dataclasses.replace(s.parts, conscience=c))
    level, note = threshold.told(s.config, s.parts)
    record(threshold=level)
    notes.append(note)
  if facts:
    facts = audited.told(s.parts.conscience, facts)
    record(audit=facts)
    notes += [facts['line'], *facts['warnings']]
  return s, notes


# ---- Loop -------------------------------------------------------------------


def _loop(s: Setup, at: Progress, log, trace, stop) -> tuple[Progress, dict]:
  """Trains to the last step; returns where it stands and what was logged."""
  train, begun, updated, logged = s.config.train, at.step, {}, {}
  seen, given = {}, tally.settings(s.config)  # seen: of the last reflection
  first = at.step + 1  # of the steps whose losses nobody has looked at
  while at.step < train.steps:
    resume.stop_if_collapsed(s, at)
    if stop.requested or s.hosts.stopping():
      _fetch(s, updated, first, at.step)
      trace.stop()  # so that it is in the folder that `save` copies
      resume.save(s, at, wait=True)
      raise Preempted(
        f'{s.workdir}: stopped at step {at.step} and saved; the same command '
        'continues'
      )
    # Until a step is done, and its program compiled, nothing can be lost.
    lost = at.step == begun and _stopped(s.workdir, f'before step {begun + 1}')
    with stop.later(lost or None):
      trace.at(at.step, at.state)
      try:
        at, reflected = _reflect(s, at, stop)
      except Preempted:
        continue  # to save what was before
      at, updated = _update(s, at)
    last = at.step == train.steps
    saving = last or at.step % train.checkpoint_every == 0
    logging = saving or at.step % train.logged_every == 0
    if logging or reflected:
      with s.clock('train'):
        fetched = _fetch(s, updated, first, at.step)
      first = at.step + 1
      logged = _metrics(s, at, fetched, reflected)
      shown = log.write(at.step, logged)
      seen = reflected or seen
    if reflected:
      log.once(health.remarks(at.health, given, shown))
    log.progress(at.step, seen | logged if logging else None)
    if saving:
      resume.save(s, at)
  resume.stop_if_collapsed(s, at)
  return at, logged


def _reflect(s: Setup, at: Progress, stop) -> tuple[Progress, dict]:
  """Answers of the policy, and what its conscience prefers, if it is time.

  Returns metrics too: none if it is not.

  Raises:
    Preempted: a signal came, and nothing was recorded.
  """
  config, step, curve = s.config, at.step, []
  reflects = config.reflects and step % config.conscience.every == 0
  asks = config.train.eval_every and step % config.train.eval_every == 0
  if not (reflects or asks):
    return at, {}
  with stop.at_once(_stopped(s.workdir, f'at step {step}'), ends=False):
    if asks:
      curve = _curve(s, at)
    if reflects := reflects and resume.begun(s, at):
      before = s.parts.spent.flops
      pairs, made, memory = _reflected(s, at)
      at = at.asked(s.parts.spent.flops - before)
  s.record('curve', step, curve)
  if not reflects:
    return at, {}
  s.record('reflect', step, made)
  at = dataclasses.replace(
    at,
    replay=replay_lib.push(at.replay, pairs),
    health=health.seen(at.health, made),
    memory=memory,
  )
  own = s.method.logged(s.parts.conscience, made, memory)
  return at, own | health.metrics(at.health, made)


def _reflected(s: Setup, at: Progress) -> tuple[list, list[dict], dict | None]:
  """The pairs of a reflection, its records and what its method remembers."""
  requests, rows = data.draw_requests(s.config, s.parts.pool, at.step)
  with s.clock('train'):  # the updates that are still under way
    jax.block_until_ready(at.state)
  pairs, made, memory = s.method.reflected(
    s.parts.with_policy(at.state.params),
    requests,
    key=jax.random.fold_in(s.root, at.step),
    step=at.step,
    rows=rows,
    held=at.replay.pairs,
    clock=s.clock,
    memory=at.memory,
  )
  judge = s.parts.questions.judge
  return pairs, [answers.judged(record, judge) for record in made], memory


def _update(s: Setup, at: Progress) -> tuple[Progress, dict]:
  """One step; its metrics stay on the devices."""
  config, loader = s.config, s.parts.loader
  with s.clock('train'):
    drawn, replay = replay_lib.draw(
      at.replay, step=at.step, slots=config.dpo.pairs
    )
    batch = batch_lib.step_batch(
      loader and loader.next(), drawn, config.dpo.pairs, config.dpo.length
    )
    adapter = assembled.adapter_size(config, s.model)
    parts = [*batch.parts.values()]
    needed = flops.of_batch(s.model, parts, adapter)
    s.clock.count(*needed)
    tokens = float(batch.supervised)
    batch = sharding.place(s.mesh, batch)
    frozen = s.parts.frozen
    state, updated = s.backend.step(s.parts.update, at.state, frozen, batch)
  return at.after(state, replay, tokens=tokens, flops=needed[1]), updated


def _metrics(s: Setup, at: Progress, fetched: dict, reflected: dict) -> dict:
  """What is logged of a step, by name."""
  of_step = dict(fetched)
  of_step.pop('tokens', None)  # of this step; num_tokens is their sum
  pairs = of_step.pop('pairs', 0.0)
  return {
    **of_step,
    **replay_lib.metrics(at.replay, step=at.step - 1),
    **reflected,
    'conscience/pairs_in_step': pairs,
    'num_tokens': at.tokens,
    'total_flos': at.flops,
    'global_step': at.step,
    **s.clock.metrics(),
    **({'epoch': s.parts.loader.epoch} if s.parts.loader else {}),
  }


def _curve(s: Setup, at: Progress) -> list[dict]:
  with s.clock('eval'):
    c = s.parts.with_policy(at.state.params)
    return answers.curve(s.parts.questions, c, key=s.root)


# ---- Final ------------------------------------------------------------------


def _final(s: Setup, at: Progress, logged: dict, log, stop) -> Result:
  """Evaluates what was trained, and keeps it."""
  state = s.backend.state(at.state)
  taught = s.parts.with_policy(state.params)
  s.saved.wait()
  stopped = _stopped(s.workdir, 'while it evaluated what is trained and saved')
  if s.hosts.stopping():  # they ask next before another run
    raise stopped
  log.say('sampling answers to the held-out questions')
  with stop.at_once(stopped):
    curve = _curve(s, at) if s.config.train.eval_every else []
    how = {'key': s.root, 'keep': s.kept}
    made, measured = answers.final(s.parts.questions, taught, **how)
  if not np.all(np.isfinite(list(measured.values()))):
    raise _diverged(f'{s.workdir}: after step {at.step} the loss')
  s.record('curve', at.step, curve)
  s.record('eval', at.step, made)
  if measured:
    log.write(at.step, measured)
  params = state.params
  if s.hosts.count > 1:
    params = jax.tree.map(mesh_lib.to_host, params)
  assembled.keep_params(s.config, s.workdir, s.model, params)
  s.folder.push()
  for line in health.last(at.health, tally.settings(s.config)):
    log.say(line)
  found = with_review(taught), state.params, s.parts.frozen, logged | measured
  return Result(s.workdir, *found)


def _fetch(s: Setup, updated, first: int, last: int) -> dict[str, float]:
  """The metrics of an update, from the devices.

  first, last: the steps since metrics were fetched before. A nan stays, so the
  last of them shows whether the loss was finite in all.
  """
  if not updated:  # no SFT data and no pair yet: nothing was updated
    return {}
  fetched = {k: float(v) for k, v in jax.device_get(updated).items()}
  if not np.isfinite([fetched['loss'], fetched['grad_norm']]).all():
    span = f'step {last}' if first == last else f'steps {first} to {last}'
    raise _diverged(f'{s.workdir}: {span}: the loss or its gradient')
  return fetched


def _diverged(what: str) -> NonFinite:
  return NonFinite(
    f'{what} became nan or inf; checkpoints saved before are kept. Lower '
    'optim.lr, or set optim.clip, and start anew'
  )
