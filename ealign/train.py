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

from ealign import align, assembly
from ealign import replay as replay_lib
from ealign.alone import ALONE
from ealign.conscience import records as reflection
from ealign.conscience import reflect as conscience
from ealign.data import batch as batch_lib
from ealign.engine import Backend, Engine
from ealign.evals import answers as answers_lib
from ealign.evals import records as records_lib
from ealign.fields import Config
from ealign.models import flops, sharding
from ealign.models import weights as weights_lib
from ealign.runtime import checkpoint, preempt, provenance
from ealign.runtime import clock as clock_lib
from ealign.runtime import mesh as mesh_lib
from ealign.runtime import metrics as metrics_lib
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
    workdir: its folder, or a `runtime.folder.Folder` where hosts share it; a
      checkpoint there is continued.
    name: of the arm, for records and display.
    profile: first step of a trace, host 0's, and the step before which it
      ends.
    hosts: the processes of the run (`runtime.hosts.join`). They compute in step
      over the mesh of all devices, and each fetches all answers, so that all
      hold the same replay, and results do not depend on their number.
    display: what shows how far it is (`runtime.display`), by default a bar.
    backend: what it computes with, if not for itself alone (`stack`).
    stop: who asks it to stop, if not a signal.

  Raises:
    UserError: bad data or a checkpoint that cannot be used.
    NonFinite: the loss became nan or inf.
    Preempted: SIGTERM came; the run is saved.
  """
  hosts = hosts or Hosts()
  folder = folder_lib.of(workdir, index=hosts.index)
  workdir = folder.local
  workdir.mkdir(parents=True, exist_ok=True)

  # ---- What it is made of -------------------------------------------------
  parts = assembly.assemble(config, backend)
  update, frozen = parts.update, parts.frozen
  engine = parts.conscience.frozen
  model, mesh = engine.model.config, engine.mesh
  state = align.init_state(update, parts.params, align.hyper(config))
  state = sharding.place(mesh, state)
  replay = replay_lib.Replay(
    **dataclasses.asdict(config.replay), seed=config.seed
  )
  root = jax.random.key(config.seed)
  stored = functools.partial(sharding.unpadded, model)
  hashed = lambda name, model, tree: backend.share(
    f'hash of {name}',
    lambda: provenance.tree_hash(sharding.unpadded(model, tree)),
  )
  base_hash = hashed('frozen', model, frozen)
  others = {
    by: hashed(by, other.model.config, other.weights)
    for by, other in parts.conscience.others.items()
  }
  provenance.write(
    workdir / 'run.json',
    seed=config.seed,
    frozen=base_hash,
    others=others,
    template=provenance.text_hash(engine.model.tokenizer.chat_template),
    data=parts.loader and parts.loader.stats,
    parameters=sum(x.size for x in jax.tree.leaves(stored(frozen))),
    trained=sum(x.size for x in jax.tree.leaves(stored(state.params))),
  )

  # ---- Continue where a checkpoint stands ---------------------------------
  saved = checkpoint.Checkpoints(
    folder.shared / 'checkpoints', config.train.keep
  )
  start, values = 0, {}
  notes = [f'data: {parts.loader}'] if parts.loader else []
  if found := saved.restore(
    {'state': stored(state), 'replay': replay_lib.to_arrays(replay)}
  ):
    start, tree, extra, note = found
    if extra['frozen'] != base_hash:
      raise UserError(
        f'{workdir}: the checkpoint was trained on another base ('
        f'{extra["frozen"]}, now {base_hash}); restore model.path, or start '
        'in a new workdir'
      )
    if extra['others'] != others:
      raise UserError(
        f'{workdir}: the checkpoint was reviewed by other models ('
        f'{extra["others"]}, now {others}); restore them, or start in a new '
        'workdir'
      )
    state = sharding.place(mesh, sharding.padded(model, tree['state']))
    replay = replay_lib.from_arrays(replay, tree['replay'])
    if parts.loader:
      parts.loader.restore(extra['loader'])
    notes.append(note or f'continuing from step {start}')
    if profile and start > profile[0]:
      notes.append(f'no trace: step {profile[0]} is done')
  answers_path = workdir / 'answers.jsonl'
  metrics_lib.jsonl_truncate(answers_path, start)

  log = metrics_lib.Metrics(
    workdir,
    config.train.steps,
    tensorboard=config.log.tensorboard,
    prefix=name,
    quiet=not hosts.writes,
    shown=display,
  )
  tag = {'run': folder.shared.name, 'arm': name, 'seed': config.seed}
  clock = clock_lib.Clock(mesh.devices.flat)
  tokens = extra['tokens'] if start else 0.0
  last_good = start
  shown = {}

  def save(step, wait=False):
    extra = {
      'loader': parts.loader and parts.loader.state(),
      'tokens': tokens,
      'frozen': base_hash,
      'others': others,
    }
    tree = {'state': stored(backend.state(state))}
    tree['replay'] = replay_lib.to_arrays(replay)
    # Orbax cannot write two checkpoints of one process at a time.
    wait = wait or not backend.alone
    backend.apart(functools.partial(saved.save, wait=wait), step, tree, extra)
    folder.push()

  def curve(step):
    with clock('eval'):
      policy = parts.with_policy(state.params).policy
      records = answers_lib.curve(parts.questions, policy, key=root)
    facts = tag | {'step': step, 'phase': 'curve'}
    records_lib.append(answers_path, [facts | r for r in records])

  # Of other hosts the folder is a copy that goes with them.
  trace = profile_lib.Profile(workdir, profile if hosts.writes else None)
  watching = preempt.watch(alone=hosts.count == 1)
  if stop is not None:
    watching = contextlib.nullcontext(stop)
  with log, saved, trace, watching as stop:
    log.truncate(start)
    for note in notes:
      log.say(note)
    if config.train.eval_every and not start:
      curve(0)
    for step in range(start, config.train.steps):
      if stop.requested or hosts.stopping():
        _fetch(values, f'{workdir}: {_span(last_good + 1, step)}')
        trace.stop()  # so that it is in the folder that `save` copies
        save(step, wait=True)
        raise Preempted(
          f'{workdir}: stopped at step {step} and saved; the same command '
          'continues'
        )
      trace.at(step, state)
      key = jax.random.fold_in(root, step)

      # ---- Reflect: what it would say, what its conscience prefers --------
      reflected = {}
      if config.reflects and step % config.conscience.every == 0:
        requests, rows = draw_requests(config, parts.pool, step)
        with clock('train'):  # the updates that are still under way
          jax.block_until_ready(state)
        pairs, records = conscience.reflect(
          parts.with_policy(state.params),
          requests,
          key=key,
          step=step,
          rows=rows,
          clock=clock,
        )
        threshold = config.conscience.threshold
        reflected = reflection.metrics(records, threshold=threshold)
        replay = replay_lib.push(replay, pairs)
        facts = tag | {'step': step, 'phase': 'reflect'}
        judge = parts.questions.judge
        records_lib.append(
          answers_path, [answers_lib.judged(facts | r, judge) for r in records]
        )

      # ---- Update ---------------------------------------------------------
      with clock('train'):
        drawn, replay = replay_lib.draw(
          replay, step=step, slots=config.dpo.pairs
        )
        batch = batch_lib.Batch(
          parts.loader and parts.loader.next(),
          batch_lib.pair_batch(drawn, config.dpo.pairs, config.dpo.length)
          if drawn
          else None,
        )
        if batch.sft is not None:
          tokens += float(batch.sft.loss_mask_BT[:, 1:].sum())
        clock.count(*work(config, model, batch))
        batch = sharding.place(mesh, batch)
        state, values = backend.step(update, state, frozen, batch)

      # ---- Log, save, evaluate --------------------------------------------
      done, every = step + 1, config.train.eval_every
      last = done == config.train.steps
      saving = last or done % config.train.checkpoint_every == 0
      logging = saving or done % config.train.log_every == 0
      if logging or reflected:
        with clock('train'):
          where = f'{workdir}: {_span(last_good + 1, done)}'
          shown = _fetch(values, where)
        last_good = done
        shown |= replay_lib.metrics(replay, step=step) | reflected
        shown.pop('tokens', None)  # of this step; num_tokens is their sum
        shown['conscience/pairs_in_step'] = shown.pop('pairs', 0.0)
        shown |= {'num_tokens': tokens, 'global_step': done} | clock.metrics()
        shown |= epoch(parts)
        log.write(done, shown)
      log.progress(done, shown if logging else None)
      if every and (done % every == 0 or last):
        curve(done)  # before saving: a run killed here asks again
      if saving:
        save(done)

    # ---- What it says now -------------------------------------------------
    trace.at(config.train.steps, state)
    state = backend.state(state)
    taught = parts.with_policy(state.params)
    saved.wait()
    said = 'stopped while it evaluated; it is trained and saved, the same'
    stopped = Preempted(f'{workdir}: {said} command continues')
    if hosts.stopping():  # they ask next before another run
      raise stopped
    log.say('sampling answers to the held-out questions')
    with stop.at_once(stopped):
      records, values = answers_lib.final(parts.questions, taught, key=root)
    steps = config.train.steps
    if not np.all(np.isfinite(list(values.values()))):
      raise _diverged(f'{workdir}: after step {steps} the loss')
    records_lib.append(
      answers_path,
      [tag | {'step': steps, 'phase': 'eval'} | r for r in records],
    )
    if values:
      log.write(steps, values)
    params = state.params
    if hosts.count > 1:
      params = jax.tree.map(mesh_lib.to_host, params)
    keep_params(config, workdir, model, params)
    folder.push()
  engine = conscience.with_review(taught)
  return Result(workdir, engine, state.params, frozen, shown | values)


def work(config: Config, model, batch) -> tuple[float, float]:
  """Tokens of a batch, padding left out, and FLOPs the model needs for it."""
  adapter = None
  if config.model.train == 'lora':
    spec = config.model.lora
    adapter = flops.adapted(model, spec.rank, spec.targets)
  tokens = total = 0.0
  for part in filter(None, (batch.sft, batch.pairs)):
    tokens += float((part.positions_BT >= 0).sum())
    total += flops.training(model, *part.tokens_BT.shape, adapter)
  return tokens, total


def draw_requests(config: Config, pool, step: int):
  """The requests of one reflection and their row ids.

  pool: list of (weight, chats). Drawn with a generator keyed by seed and
  step alone, so a run resumes, and spreads over hosts, with the same draws.
  """
  c = config.conscience
  rng = np.random.default_rng(np.random.SeedSequence((config.seed, step, 2)))
  weights = np.asarray([w for w, _ in pool], float)
  requests = []
  for source in rng.choice(len(pool), c.prompts, p=weights / weights.sum()):
    chats = pool[source][1]
    requests += [chats[rng.integers(len(chats))]] * c.samples
  first = step * c.prompts * c.samples
  return requests, list(range(first, first + len(requests)))


def epoch(parts: assembly.Parts) -> dict[str, float]:
  """How often the SFT data was read, where there is any."""
  return {'epoch': parts.loader.epoch} if parts.loader else {}


def keep_params(config: Config, workdir, model, params):
  """Writes what was trained as safetensors: adapter, or the whole model."""
  if config.model.train == 'full':
    weights_lib.save(workdir / 'model', model, params, dtype='float32')
  else:
    weights_lib.save_adapter(
      workdir / 'adapter.safetensors', params, assembly.lora_scale(config)
    )


def _span(first: int, last: int) -> str:
  return f'step {last}' if first == last else f'steps {first} to {last}'


def _fetch(values, where):
  if not values:  # no SFT data and no pair yet: nothing was updated
    return {}
  values = {k: float(v) for k, v in jax.device_get(values).items()}
  if not np.isfinite(values['loss']) or not np.isfinite(values['grad_norm']):
    raise _diverged(f'{where}: the loss or its gradient')
  return values


def _diverged(what: str) -> NonFinite:
  return NonFinite(
    f'{what} became nan or inf; checkpoints saved before are kept. Lower '
    'optim.lr, or set optim.clip, and start anew'
  )
