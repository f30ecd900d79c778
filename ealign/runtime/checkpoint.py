"""Checkpoints that are verified: Orbax writes them, a sha256 per leaf beside.

  <folder>/<step>/       an Orbax checkpoint, renamed into place when complete
  <folder>/<step>.json   paths, shapes and hashes of its leaves, and `extra`

Orbax loads flipped bits without a word, so every leaf is hashed when saved and
again when restored. A step that fails is moved aside to <folder>/bad-<step>,
the one before it is used, and a note names both.
"""

import asyncio
import contextlib
import hashlib
import json
import logging
import threading
from collections.abc import Iterable, Iterator
from typing import Any

import jax
import numpy as np
import uvloop
from etils import epath
from jax.experimental import multihost_utils
from orbax.checkpoint import v1 as ocp

from ealign.runtime import atomic, mesh
from ealign.runtime.errors import UserError

_PARTIAL = '.orbax-checkpoint-tmp'  # how Orbax ends the name of what it writes
_ONE_READER = threading.Lock()


class Checkpoints:
  """The checkpoints of one run, the last `keep` of them."""

  def __init__(self, folder: epath.PathLike, keep: int = 2):
    self._folder = epath.Path(folder)
    self._keep = keep
    self._writing = None  # (step, Orbax's response)

  def save(
    self, step: int, tree: Any, extra: dict, *, wait: bool = False
  ) -> None:
    """Saves a pytree of jax and numpy arrays, and a dict that JSON can hold.

    Returns as soon as the arrays are copied and hashed (about 1 s per GB); they
    may then be donated. `wait` returns when all is on disk. A step that is
    there already is left as it is: a run has one state per step.

    Raises:
      UserError: this or the save before it could not be written.
    """
    self.wait()
    if step in self._steps():
      return
    paths = jax.tree_util.tree_leaves_with_path(tree)
    leaves = {_leaf_path(path): leaf for path, leaf in paths}
    rows = _rows(leaves)
    arrays = {r['key']: x for r, x in zip(rows, leaves.values(), strict=True)}
    # Orbax refuses arrays without elements; their row says enough.
    arrays = {key: leaf for key, leaf in arrays.items() if leaf.size}
    # Adding a filter that is there already changes nothing.
    logging.getLogger('absl').addFilter(_not_from_threads)
    try:
      if _first():
        self._folder.mkdir(parents=True, exist_ok=True)
        _seal(self._manifest(step), {'leaves': rows, 'extra': extra})
      response = ocp.save_async(self._folder / str(step), arrays)
    except OSError as error:
      raise _unwritten(step, error) from error
    self._writing = step, response
    if wait:
      self.wait()

  def __enter__(self):
    return self

  def __exit__(self, *error):
    self.wait()  # what has been begun is kept, however the run ends

  def wait(self) -> None:
    """Returns when the save in progress is on disk and old ones are gone."""
    if self._writing is None:
      return
    (step, response), self._writing = self._writing, None
    try:
      response.result()
    except Exception as error:
      raise _unwritten(step, error) from error
    for old in sorted(self._steps())[: -self._keep] if _first() else ():
      (self._folder / str(old)).rmtree()
      self._manifest(old).unlink(missing_ok=True)

  def restore(self, template: Any) -> tuple[int, Any, dict, str] | None:
    """The last good checkpoint: step, tree, extra and a note. None if nothing
    was saved.

    Args:
      template: gives the structure, and for device arrays shape, dtype and
        sharding. Where it has a numpy array, the saved one comes back with the
        shape and dtype it was saved with.

    Returns:
      The note is '' or says which later steps were bad, and what was used.

    Raises:
      UserError: no saved step is good, or it is of another kind of run.
    """
    self.wait()
    _meet('restore')  # no host looks while another still mends
    bad = self._half_written()
    for step in sorted(self._steps(), reverse=True):
      try:
        tree, extra = self._load(step, template)
      except UserError:
        raise
      except Exception as error:  # whatever Orbax makes of damaged files
        bad[step] = _one_line(error)
        continue
      return step, tree, extra, self._move_aside(bad, step)
    if not self._steps():  # at most a first save that was cut short
      return None
    reasons = _reasons(bad)
    remedy = 'restore it from a backup, or delete it to start anew'
    raise UserError(f'{self._folder}: no good checkpoint ({reasons}); {remedy}')

  def _steps(self) -> list[int]:
    names = [path.name for path in self._folder.glob('*') if path.is_dir()]
    return [int(name) for name in names if name.isdecimal()]

  def _manifest(self, step: int) -> epath.Path:
    return self._folder / f'{step}.json'

  def _half_written(self) -> dict[int, str]:
    paths = self._folder.glob(f'*{_PARTIAL}*')
    steps = [path.name.partition(_PARTIAL)[0] for path in paths]
    return dict.fromkeys(map(int, steps), 'half-written')

  def _load(self, step: int, template):
    content = _unseal(self._manifest(step))
    rows = {tuple(row['path']): row for row in content['leaves']}
    entries, treedef = jax.tree_util.tree_flatten_with_path(template)
    wanted = {_leaf_path(path): leaf for path, leaf in entries}
    _check_same_fields(step, wanted, rows)
    arrays = self._read(step, wanted, rows)
    values = [_restored(arrays[path], leaf) for path, leaf in wanted.items()]
    return jax.tree.unflatten(treedef, values), content['extra']

  def _read(self, step: int, wanted: dict, rows: dict) -> dict:
    """The arrays by path, each compared with the hash it was saved with."""
    abstract = {
      rows[path]['key']: _abstract(step, leaf, rows[path])
      for path, leaf in wanted.items()
      if 0 not in rows[path]['shape']
    }
    with _patient_loops():
      loaded = ocp.load(self._folder / str(step), abstract)
    arrays = {}
    for path in wanted:
      row = rows[path]
      empty = np.zeros(row['shape'], row['dtype'])
      arrays[path] = loaded[row['key']] if empty.size else empty
      if _sha256(arrays[path]) != row['sha256']:
        raise ValueError(f'{"/".join(path)} is damaged (sha256)')
    return arrays

  def _move_aside(self, bad: dict[int, str], good: int) -> str:
    """Makes room for the bad steps to be saved again; returns the note."""
    _meet('restored')
    for step in bad if _first() else ():
      for path in self._folder.glob(f'{step}{_PARTIAL}*'):
        path.rmtree()
      for path in (self._folder / str(step), self._manifest(step)):
        aside = self._folder / f'bad-{path.name}'
        if aside.is_dir():
          aside.rmtree()
        if path.exists():
          path.replace(aside)
    if not bad:
      return ''
    reasons = _reasons(bad)
    return f'bad checkpoint ({reasons}); continued from step {good}'


class _PatientLoop(uvloop.Loop):
  """An event loop that finishes what is pending before it closes."""

  def close(self):
    while pending := asyncio.all_tasks(self):
      done = asyncio.gather(*pending, return_exceptions=True)
      self.run_until_complete(done)
    super().close()


@contextlib.contextmanager
def _patient_loops() -> Iterator[None]:
  """Within the block Orbax reads in event loops that finish their reads.

  Orbax makes a uvloop for each load and closes it as soon as one read fails.
  The other reads then fail whenever they are collected: each prints a page, or
  raises in code that has nothing to do with checkpoints. Orbax takes no loop
  from its caller, so the function by which it makes one is replaced here, by
  one thread at a time (arms are threads). To others in the process a patient
  loop is like any other.
  """
  with _ONE_READER:
    original, uvloop.new_event_loop = uvloop.new_event_loop, _PatientLoop
    try:
      yield
    finally:
      uvloop.new_event_loop = original


def _not_from_threads(record: logging.LogRecord) -> bool:
  """False for what Orbax's threads log of a failed save.

  The failure is raised once, as a UserError.
  """
  return 'run() raised an exception' not in record.getMessage()


def _first() -> bool:
  """Whether this host is the one that writes what is not an array."""
  return jax.process_index() == 0


def _meet(name: str) -> None:
  if jax.process_count() > 1:
    multihost_utils.sync_global_devices(name)


def _check_same_fields(step: int, wanted: Iterable, rows: Iterable) -> None:
  names = [set(map('/'.join, paths)) for paths in (wanted, rows)]
  lacks, has = sorted(names[0] - names[1]), sorted(names[1] - names[0])
  if lacks or has:
    message = f'it lacks {lacks[:3]} and has {has[:3]} besides'
    remedy = 'it is of another kind of run; use another workdir'
    raise UserError(f'checkpoint {step}: {message}; {remedy}')


def _abstract(step: int, leaf, row: dict):
  """What to load: an array as the template's, or as saved, for the host."""
  if not isinstance(leaf, jax.Array):
    return np.empty(row['shape'], row['dtype'])
  if list(leaf.shape) != row['shape'] or str(leaf.dtype) != row['dtype']:
    was = f'{row["dtype"]}{row["shape"]}'
    now = f'{leaf.dtype}{list(leaf.shape)}'
    name = '/'.join(row['path'])
    message = f'{name} was saved as {was} and is {now} in this run'
    raise UserError(f'checkpoint {step}: {message}; use another workdir')
  return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)


def _restored(value, leaf):
  """The loaded array as the template has it."""
  if not isinstance(leaf, jax.Array):
    return np.asarray(value)
  # An array without a fixed place stays so: else it could not meet arrays on
  # other devices, and the step would be compiled anew.
  if not leaf.committed:
    return jax.numpy.asarray(jax.device_get(value))
  there = isinstance(value, jax.Array)  # one without elements is made here
  return value if there else jax.device_put(value, leaf.sharding)


def _reasons(bad: dict[int, str]) -> str:
  return '; '.join(f'step {step}: {why}' for step, why in bad.items())


def _one_line(error: Exception) -> str:
  text = ' '.join(str(error).split()) or type(error).__name__
  return text if len(text) <= 120 else text[:117] + '...'


def _unwritten(step: int, error: Exception) -> UserError:
  message = f'could not be written ({_one_line(error)})'
  remedy = 'free some space and run the same command to continue'
  return UserError(f'checkpoint {step}: {message}; {remedy}')


# ---- The manifest -----------------------------------------------------------


def _leaf_path(path) -> tuple[str, ...]:
  """JAX's key path as plain strings."""
  return tuple(jax.tree_util.keystr((key,), simple=True) for key in path)


def _sha256(leaf: jax.Array | np.ndarray) -> str:
  """The hash of the leaf's bytes in row-major order, on whichever devices."""
  host = np.ascontiguousarray(mesh.to_host(leaf))
  return hashlib.sha256(host.reshape(-1).view(np.uint8)).hexdigest()


def _rows(leaves: dict[tuple, Any]) -> list[dict]:
  """One row per leaf; its 'key' is the leaf's name in the checkpoint."""
  return [
    {
      'key': f'{index:05d}',
      'path': list(path),
      'shape': list(leaf.shape),
      'dtype': str(leaf.dtype),
      'sha256': _sha256(leaf),
    }
    for index, (path, leaf) in enumerate(leaves.items())
  ]


def _seal(path: epath.Path, content: dict) -> None:
  """Writes JSON and its own sha256; a kill leaves no half file."""
  text = json.dumps(content)
  sealed = {'sha256': hashlib.sha256(text.encode()).hexdigest(), 'body': text}
  atomic.write(path, json.dumps(sealed))


def _unseal(path: epath.Path) -> dict:
  """What `_seal` wrote. ValueError or OSError when it is damaged or missing."""
  sealed = json.loads(path.read_text())
  text = sealed['body']
  if hashlib.sha256(text.encode()).hexdigest() != sealed['sha256']:
    raise ValueError(f'{path.name} is damaged (sha256)')
  return json.loads(text)
