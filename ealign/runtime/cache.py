"""Where compiled programs are kept for the next start."""

import os
from collections.abc import Mapping

VARIABLE = 'JAX_COMPILATION_CACHE_DIR'


def folder(env: Mapping[str, str] = os.environ) -> tuple[str, str]:
  """The folder, and what names it."""
  if VARIABLE in env:
    return os.path.expanduser(env[VARIABLE]), VARIABLE
  home = env.get('XDG_CACHE_HOME', '~/.cache')
  why = 'XDG_CACHE_HOME' if 'XDG_CACHE_HOME' in env else 'the default'
  return os.path.expanduser(f'{home}/ealign/jax'), why
