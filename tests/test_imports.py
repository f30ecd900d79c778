"""Imports point down the floor plan, and the maths does no I/O."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parent.parent / 'ealign'
# From the top down, one line a folder: a module imports what stands on its own
# line or below. Commands (`__main__`, `launch`) and what builds the world's
# model stand with `cli`.
FLOORS = (
  'cli __main__ audit chat doctor evaluate launch export.__main__ '
  'report.__main__ world.__main__ world.build world.card',
  'methods',
  'grid',
  'plan',
  'stack',
  'report',
  'export',
  'config',
  'train',
  'resume',
  'method',
  'assembly',
  'evals',
  'conscience',
  'alone',
  'engine',
  'align',
  'sampling',
  'losses',
  'replay',
  'world',
  'fields',
  'kinds',
  'workdir',
  'data',
  'models',
  'runtime configs',
)
FLOORS = tuple(tuple(line.split()) for line in FLOORS)
MATHS = ('models', 'losses', 'sampling', 'align', 'conscience', 'engine')
MAY_READ_FILES = tuple(
  f'ealign.models.{name}'
  for name in ('config', 'files', 'hub', 'peft', 'weights')
  + ('gguf', 'gguf_file', 'gguf_tokenizer')
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


def ours(name):
  """The modules of the package that a module imports; itself is all's."""
  found = (x for x in imports(name) if x.split('.')[0] == 'ealign')
  return set(found) - {'ealign', name}


def within(name, part):
  return f'{name}.'.startswith(f'ealign.{part}.')


def floor(name):
  found = [
    (len(part), i)
    for i, parts in enumerate(FLOORS)
    for part in parts
    if within(name, part)
  ]
  return max(found)[1] if found else None  # the longest match decides


@pytest.mark.parametrize('name', sorted(MODULES.keys() - {'ealign'}))
def test_imports_point_down(name):
  assert floor(name) is not None, f'{name}: no floor; give it one in FLOORS'
  for other in ours(name):
    assert floor(name) <= floor(other), f'{name} imports {other}: upwards'


def test_every_folder_has_a_floor_of_its_own():
  folders = {p.parent.name for p in ROOT.glob('*/__init__.py')}
  lines = [set(line) & folders for line in FLOORS]
  assert set().union(*lines) == folders
  assert all(len(line) <= 1 for line in lines)


def test_no_module_imports_itself_through_others():
  done = set()

  def visit(name, path):
    assert name not in path, ' -> '.join((*path, name))
    if name not in done:
      for other in sorted(ours(name)):
        # A package's __init__ only lists what its modules have.
        if not name.startswith(f'{other}.'):
          visit(other, (*path, name))
      done.add(name)

  for name in sorted(MODULES):
    visit(name, ())


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


def test_align_has_no_prompts_and_conscience_no_optimizer():
  of = lambda part: {
    x for name in MODULES if within(name, part) for x in imports(name)
  }
  words = {'chat', 'framings', 'prompts', 'sampler'}
  assert not [x for x in of('align') if x.split('.')[-1] in words]
  assert not [x for x in of('conscience') if 'optax' in x]


@pytest.mark.parametrize('name', MODULES)
def test_an_import_only_defines(name):
  """No call for its effect: listeners and filters are set when needed."""
  acts = [
    node.lineno
    for node in MODULES[name].body
    if isinstance(node, ast.Expr) and not isinstance(node.value, ast.Constant)
    # The gradient of a function is part of its definition.
    if not ast.unparse(node.value).partition('(')[0].endswith('.defvjp')
  ]
  assert not acts, f'{name}: line {acts} does something when imported'
