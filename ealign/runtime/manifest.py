"""What a checkpoint holds: path, shape, dtype and sha256 of each leaf."""

import hashlib
import json
from typing import Any

import jax
import numpy as np
from etils import epath

from ealign.runtime import atomic, mesh

Path = tuple[str, ...]  # the keys that lead to a leaf


def leaf_path(path) -> Path:
  """JAX's key path as plain strings."""
  return tuple(jax.tree_util.keystr((key,), simple=True) for key in path)


def sha256(leaf: jax.Array | np.ndarray) -> str:
  """The hash of the leaf's bytes in row-major order, on whichever devices."""
  host = np.ascontiguousarray(mesh.to_host(leaf))
  return hashlib.sha256(host.reshape(-1).view(np.uint8)).hexdigest()


def rows(leaves: dict[Path, Any]) -> list[dict]:
  """One row per leaf; its 'key' is the leaf's name in the checkpoint."""
  return [
    {
      'key': f'{index:05d}',
      'path': list(path),
      'shape': list(leaf.shape),
      'dtype': str(leaf.dtype),
      'sha256': sha256(leaf),
    }
    for index, (path, leaf) in enumerate(leaves.items())
  ]


def write(path: epath.Path, content: dict) -> None:
  """Writes JSON and its own sha256; a kill leaves no half file."""
  text = json.dumps(content)
  sealed = {'sha256': hashlib.sha256(text.encode()).hexdigest(), 'body': text}
  atomic.write(path, json.dumps(sealed))


def read(path: epath.Path) -> dict:
  """What `write` wrote. ValueError or OSError when it is damaged or missing."""
  sealed = json.loads(path.read_text())
  text = sealed['body']
  if hashlib.sha256(text.encode()).hexdigest() != sealed['sha256']:
    raise ValueError(f'{path.name} is damaged (sha256)')
  return json.loads(text)
