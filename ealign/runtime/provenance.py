"""What a run was made with: versions, devices, code and hashes, in run.json."""

import functools
import hashlib
import importlib.metadata
import json
import pathlib
import platform
import subprocess

import jax

from ealign.runtime import atomic, mesh

PACKAGES = (
  *('jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint', 'transformers'),
  *('tokenizers', 'grain', 'numpy', 'ealign'),
)


@functools.cache  # one listener a process: JAX calls all that are registered
def _compiled() -> list[str]:
  """The list that JAX's event of each compilation is appended to."""
  events = []

  def listen(event: str, duration: float, **_) -> None:
    del duration
    if event == '/jax/core/compile/backend_compile_duration':
      events.append(event)

  jax.monitoring.register_event_duration_secs_listener(listen)
  return events


def compiles() -> int:
  """Programs compiled, or fetched from the cache, since the first call.

  A run calls it first of all, so that the programs it is made of count too.
  """
  return len(_compiled())


def tree_hash(tree) -> str:
  """First 16 hex digits of a sha256 over all leaves in tree order."""
  digest = hashlib.sha256()
  for leaf in jax.tree.leaves(tree):
    digest.update(mesh.to_host(leaf).tobytes())
  return digest.hexdigest()[:16]


def text_hash(text: str) -> str:
  """First 16 hex digits of the text's sha256."""
  return hashlib.sha256(text.encode()).hexdigest()[:16]


def _version(package):
  try:
    return importlib.metadata.version(package)
  except importlib.metadata.PackageNotFoundError:
    return 'not installed'


def versions() -> dict[str, str]:
  """The versions of Python and of the packages that results may depend on."""
  return {'python': platform.python_version()} | {
    package: _version(package) for package in PACKAGES
  }


def _commit() -> str | None:
  """The commit of the source tree, '+' if it was changed; None outside git."""
  root = pathlib.Path(__file__).parents[2]
  git = lambda *args: subprocess.run(
    ('git', '-C', root, *args), capture_output=True, text=True, timeout=10
  ).stdout.strip()
  try:
    if not (root / '.git').exists():
      return None
    commit = git('rev-parse', '--short=12', 'HEAD')
    return commit + ('+' if git('status', '--porcelain', '-uno') else '')
  except (OSError, subprocess.SubprocessError):
    return None


def add(path, **facts) -> None:
  """Adds facts to those of the JSON file."""
  facts = json.loads(path.read_text()) | facts
  atomic.write(path, json.dumps(facts, indent=2) + '\n')


def write(path, **facts) -> dict:
  """Writes versions, devices, commit and the given facts as JSON."""
  facts = {
    'versions': versions(),
    'devices': sorted({d.device_kind for d in jax.devices()}),
    'device_count': jax.device_count(),
    'commit': _commit(),
  } | facts
  atomic.write(path, json.dumps(facts, indent=2) + '\n')
  return facts
