"""Files that stand beside the package in a clone, and inside it in a wheel.

`setup.cfg` puts the folders configs/ and launch/ of the repository below
`ealign/shipped` of a wheel; there is no such folder in a clone.
"""

import pathlib

PACKAGE = pathlib.Path(__file__).parents[1]
FOLDERS = ('configs', 'launch')
PREFIX = 'ealign:'


def path(inside: str, package: pathlib.Path = PACKAGE) -> pathlib.Path:
  """Where `configs/demo.py` or `world/base` lies, whether or not it is there.

  package: the folder of the package ealign.
  """
  if inside.partition('/')[0] not in FOLDERS:
    return package / inside
  wheel = package / 'shipped'
  return (wheel if wheel.is_dir() else package.parent) / inside
