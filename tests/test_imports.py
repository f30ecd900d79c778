"""Imports point down, and the maths does no I/O."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parent.parent / 'ealign'
LEAVES = {'ealign', 'ealign.runtime.errors', 'ealign.fields', 'ealign.framing'}
LAYERS = [  # from the top down; a module may import its own layer and below
  (
    'launch',
    'plan',
    'grid',
    'command',
    'export',
    'report',
    'scripts',
    'workdir',
    'world.build',
    'world.card',
    'world.__main__',
  ),
  ('config', 'limits'),
  ('train', 'assembly', 'fit'),
  ('evals', 'grid.stats'),
  ('conscience', 'prompts', 'reflection', 'calls'),
  ('align', 'folding'),
  ('sampling', 'data', 'replay', 'runtime', 'world'),
  ('models', 'losses'),
]
MATHS = ('models', 'losses', 'sampling', 'align', 'folding')
MATHS += ('conscience', 'prompts', 'reflection', 'calls')
MAY_READ_FILES = tuple(
  f'ealign.models.{name}'
  for name in ('config', 'files', 'hub', 'peft', 'weights')
)
IO = set(
  'absl argparse builtins datasets epath etils fsspec grain io json '
  'ml_collections optparse orbax os pathlib pickle requests rich '
  'safetensors shutil socket subprocess sys tempfile urllib yaml'.split()
)
IO_CALLS = {'open', 'input', 'print', 'exec', 'eval', '__import__'}


def name_of(path):
  parts = path.relative_to(ROOT.parent).with_suffix('').parts
  return '.'.join(p for p in parts if p != '__init__')


MODULES = {name_of(p): ast.parse(p.read_text()) for p in ROOT.rglob('*.py')}


def imports(name):
  """Full names of what a module imports, also inside its functions."""
  for node in ast.walk(MODULES[name]):
    if isinstance(node, ast.Import):
      yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
      assert not node.level, f'{name}: a relative import'
      for alias in node.names:
        full = f'{node.module}.{alias.name}'
        yield full if full in MODULES else node.module


def within(name, part):
  return f'{name}.'.startswith(f'ealign.{part}.')


def layer(name):
  found = [
    (len(part), i)
    for i, parts in enumerate(LAYERS)
    for part in parts
    if within(name, part)
  ]
  return max(found)[1] if found else None  # the longest match decides


@pytest.mark.parametrize('name', sorted(MODULES))
def test_imports_point_down(name):
  ours = [x for x in imports(name) if x.split('.')[0] == 'ealign']
  if name in LEAVES:
    assert set(ours) <= LEAVES, f'{name} is imported by all: a leaf'
    return
  assert layer(name) is not None, f'{name}: no layer; give it one in LAYERS'
  for other in set(ours) - LEAVES:
    assert layer(name) <= layer(other), f'{name} imports {other}: upwards'


@pytest.mark.parametrize(
  'name', sorted(n for n in MODULES if any(within(n, m) for m in MATHS))
)
def test_the_maths_does_no_io(name):
  if name in MAY_READ_FILES:
    return
  roots = {x.split('.')[0] for x in imports(name)}
  assert not roots & IO, f'{name} imports {roots & IO}'
  calls = {
    node.func.id
    for node in ast.walk(MODULES[name])
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
  }
  assert not calls & IO_CALLS, f'{name} calls {calls & IO_CALLS}'


def test_train_knows_no_config_file_and_align_no_prompts():
  assert 'ealign.config' not in set(imports('ealign.train'))
  words = ('chat', 'conscience', 'framing', 'sampling')
  assert not [x for x in imports('ealign.align') if x.split('.')[-1] in words]
  optimizers = [x for x in imports('ealign.conscience') if 'optax' in x]
  assert not optimizers
