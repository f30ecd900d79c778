"""What stays as it is during a run, where it stands, and its checkpoints."""

import dataclasses
import functools
import json
import pathlib

import jax

from ealign import align
from ealign import replay as replay_lib
from ealign.assembly import begun as begun_lib
from ealign.assembly.parts import Parts
from ealign.conscience import health as health_lib
from ealign.engine import Backend
from ealign.evals import kept, records
from ealign.fields import Config
from ealign.method import Method
from ealign.models import sharding
from ealign.runtime import atomic, checkpoint, clock, journal, metrics
from ealign.runtime.errors import Collapsed, UserError
from ealign.runtime.hosts import Hosts
from ealign.workdir.folder import Folder

_GROWING = 'answers.jsonl', 'metrics.jsonl'


@dataclasses.dataclass(frozen=True)
class Setup:
  """What stays as it is during a run.

  origin: hashes of the frozen weights and of second models. A checkpoint is
    continued beside the same ones only. tag: what every record begins with.
  """

  config: Config
  method: Method
  backend: Backend
  hosts: Hosts
  folder: Folder
  parts: Parts
  origin: dict
  tag: dict
  saved: checkpoint.Checkpoints

  @functools.cached_property
  def clock(self) -> clock.Clock:
    """Made at its first use, so that it does not count reading a checkpoint."""
    return clock.Clock(self.mesh.devices.flat)

  @property
  def workdir(self) -> pathlib.Path:
    return self.folder.local

  @property
  def kept(self) -> pathlib.Path | None:
    """Where answers to suites are kept by their hashes; None: nowhere.

    A stopped run goes on by them, and an evaluation of the run reads them.
    Hosts that share a run, and runs that are one program, ask in step.
    """
    alone = self.backend.alone and self.hosts.count == 1
    return self.workdir / kept.OF_RUN if alone else None

  @property
  def model(self):
    return self.parts.conscience.frozen.model.config

  @property
  def mesh(self):
    return self.parts.conscience.frozen.mesh

  @property
  def root(self) -> jax.Array:
    """The one key that all others are folded from."""
    return jax.random.key(self.config.seed)

  def record(self, phase: str, step: int, made: list[dict]) -> None:
    """Appends records of answers to answers.jsonl, with run, step and phase."""
    facts = self.tag | {'step': step, 'phase': phase}
    path = self.workdir / 'answers.jsonl'
    if made:
      records.append(path, [facts | record for record in made])


@dataclasses.dataclass(frozen=True)
class Progress:
  """Where a run stands. A checkpoint holds this and the loader's position.

  tokens: supervised tokens that it was trained on. flops: that the model needs
  for its updates and reflections. health: of its answers so far, which a
  continued run finds in answers.jsonl. memory: of the method.
  """

  step: int
  state: align.TrainState
  replay: replay_lib.Replay
  tokens: float = 0.0
  flops: float = 0.0
  health: health_lib.Health = health_lib.Health()
  memory: dict | None = None

  def asked(self, flops: float) -> 'Progress':
    """After questions to the models, which took so many FLOPs."""
    return dataclasses.replace(self, flops=self.flops + flops)

  def after(self, state, replay, *, tokens: float, flops: float) -> 'Progress':
    """After an update, which took so many tokens and FLOPs."""
    more = {'tokens': self.tokens + tokens, 'flops': self.flops + flops}
    own = {'step': self.step + 1, 'state': state, 'replay': replay}
    return dataclasses.replace(self, **own, **more)


def restore(s: Setup, start: Progress) -> tuple[Progress, dict, list[str]]:
  """The state of the last checkpoint, or `start`.

  Also what the threshold was found on then, if it was, and notes to show.
  """
  loader, files, reference = s.parts.loader, {}, {}
  notes, at, steps = [], start, s.config.train.steps
  if loader:
    epochs = f'; {steps:,} steps are at most {loader.epochs(steps):,.3g} epochs'
    notes.append(f'data: {loader}{epochs * bool(steps)}')
  if saved := s.saved.restore(_tree(s, start)):
    step, tree, extra, note = saved
    _check_origin(s, extra)
    files, reference = extra.get('files'), extra.get('reference') or {}
    state = sharding.padded(s.model, tree['state'])
    at = Progress(
      step,
      sharding.place(s.mesh, state),
      replay_lib.from_arrays(start.replay, tree['replay']),
      extra['tokens'] if step else 0.0,
      extra.get('flops', 0.0),  # older checkpoints have none
      memory=extra.get('memory'),
    )
    if loader:
      loader.restore(extra['loader'])
    notes.append(note or f'continuing from step {step}')
  for name in _GROWING:
    if files is None:  # an older version's checkpoint
      metrics.jsonl_truncate(s.workdir / name, at.step)
    else:
      journal.rewind(s.workdir / name, files.get(name, journal.NOTHING))
  write_memory(s, at)
  path = s.workdir / 'answers.jsonl'
  made = records.read(path) if path.exists() else []
  at = dataclasses.replace(at, health=health_lib.of(made))
  return at, reference, notes


def write_memory(s: Setup, at: Progress) -> None:
  """Writes what the method remembers to <name>.json, for readers."""
  if at.memory is not None:
    text = json.dumps(at.memory, indent=2, ensure_ascii=False)
    atomic.write(s.workdir / f'{s.method.name}.json', text + '\n')


def begun(s: Setup, at: Progress) -> bool:
  """Whether the conscience has begun, or can begin now (`conscience.start`)."""
  if not s.config.begins or at.health.counts.answers:
    return True
  taught = s.parts.with_policy(s.backend.state(at.state).params)
  how = s.config, taught, s.parts.exchanges
  return s.backend.apart(begun_lib.can, *how)


def _check_origin(s: Setup, extra) -> None:
  """Refuses to continue a checkpoint beside other weights than its own."""
  for name, was, remedy in (
    ('frozen', 'trained on another base', 'model.path'),
    ('others', 'reviewed by other models', 'them'),
  ):
    if extra[name] != s.origin[name]:
      raise UserError(
        f'{s.workdir}: the checkpoint was {was} ({extra[name]}, now '
        f'{s.origin[name]}); restore {remedy}, or start in a new workdir'
      )


def _tree(s: Setup, at: Progress) -> dict:
  """The arrays of a checkpoint."""
  return {
    'state': sharding.unpadded(s.model, s.backend.state(at.state)),
    'replay': replay_lib.to_arrays(at.replay),
  }


def save(s: Setup, at: Progress, *, wait: bool = False) -> None:
  loader, reference = s.parts.loader, s.parts.conscience.reference
  extra = {
    'reference': reference and dataclasses.asdict(reference),
    'loader': loader and loader.state(),
    'tokens': at.tokens,
    'flops': at.flops,
    'memory': at.memory,
    'files': {name: journal.mark(s.workdir / name) for name in _GROWING},
  }
  write_memory(s, at)
  s.folder.push()  # before the checkpoint, whose files must be there
  # Orbax cannot write two checkpoints of one process at a time.
  save = functools.partial(s.saved.save, wait=wait or not s.backend.alone)
  s.backend.apart(save, at.step, _tree(s, at), extra | s.origin)


def stop_if_collapsed(s: Setup, at: Progress) -> None:
  """Ends a run whose answers have collapsed, if it is to end so.

  Raises:
    Collapsed: it is saved, and ends.
  """
  words = health_lib.collapse(at.health).values()
  if not words or s.config.train.on_collapse != 'stop':
    return
  save(s, at, wait=True)
  raise Collapsed(
    f'{s.workdir}: stopped at step {at.step} and saved: the answers have '
    f'collapsed: {", ".join(words)}. Read its pairs in answers.jsonl; in a '
    "new workdir lower optim.lr or dpo.lam, or set train.on_collapse='warn'"
  )
