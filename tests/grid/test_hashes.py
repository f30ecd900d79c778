import dataclasses
import json
import pathlib
import shutil

import pytest

from ealign import config as config_lib
from ealign import fields
from ealign.grid import hashes
from ealign.runtime.errors import UserError
from tests import test_imports

BASE = hashes.ROOT / 'world' / 'base'


def reached(name):
  """The modules that a module imports, and those that these do."""
  seen, todo = set(), [name]
  while todo:
    name = todo.pop()
    if name in test_imports.MODULES and name not in seen:
      seen.add(name)
      todo += test_imports.imports(name)
  return seen


# Reached by a run, and yet no result depends on them: they keep, show, measure.
SILENT = (
  *('evals.audit', 'evals.kept', 'evals.records', 'evals.stats', 'workdir.'),
  *('runtime.advice', 'runtime.atomic', 'runtime.checkpoint'),
  *('runtime.clock', 'runtime.cluster', 'runtime.display', 'runtime.errors'),
  *('runtime.hosts', 'runtime.journal', 'runtime.metrics', 'runtime.peaks'),
  *('runtime.preempt', 'runtime.profile', 'runtime.provenance'),
  *('runtime.ranges', 'runtime.topology'),
)


def test_what_training_imports_is_hashed_or_known_to_be_silent():
  names = {n.split('.', 1)[1] for n in reached('ealign.train')}
  files = (
    *hashes.CODE,
    *hashes.ASKED,
    'evals/judges/world.py',
    'evals/judges/office.py',
    'evals/judges/facts.py',
    'evals/judges/disguised.py',
  )
  hashed = tuple(n.removesuffix('.py').replace('/', '.') for n in files)
  dotted = lambda name: f'{name}.' if f'{name}.' in hashed else name
  names.remove('evals.judges')  # it names all judges
  wanted = {n for n in names if not dotted(n).startswith(SILENT)}
  assert [n for n in wanted if not dotted(n).startswith(hashed)] == []
  assert [n for n in names if dotted(n).startswith(hashed)] != []


def test_suites_and_model_judges_are_hashed_where_they_are_asked(
  tmp_path, monkeypatch
):
  monkeypatch.setattr(hashes, 'ROOT', tmp_path)
  folder = tmp_path / 'evals/suites'
  folder.mkdir(parents=True)
  of = lambda: [
    hashes.code.__wrapped__(*how) for how in (('',), ('', True), ('frozen',))
  ]
  first = of()
  (folder / 'refusal.py').write_text('1')
  assert [x == y for x, y in zip(of(), first, strict=True)] == [1, 0, 0]


def test_all_that_is_hashed_as_code_is_there():
  there = lambda name: (hashes.ROOT / name).exists()
  assert [name for name in hashes.CODE if not there(name)] == []


def test_a_grid_depends_on_its_own_judge(tmp_path, monkeypatch):
  monkeypatch.setattr(hashes, 'ROOT', tmp_path)
  folder = tmp_path / 'evals/judges'
  folder.mkdir(parents=True)
  of = lambda: [hashes.code.__wrapped__(name) for name in ('world', '')]
  (folder / 'world.py').write_text('1')
  first = of()
  for name in ('__init__.py', 'another.py'):
    (folder / name).write_text('1')
  assert of() == first
  (folder / 'world.py').write_text('2')
  assert of()[0] != first[0] and of()[1] == first[1]


@pytest.mark.parametrize('name', ['world/grammar.py', 'world/data/code.yaml'])
def test_the_code_and_the_texts_of_the_world_are_hashed(
  tmp_path, monkeypatch, name
):
  monkeypatch.setattr(hashes, 'ROOT', tmp_path)
  for path in (name, 'world/build.py', 'world/data/other.yaml'):
    (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / path).write_text('1')
  first = hashes.code.__wrapped__()
  (tmp_path / 'world/build.py').write_text('2')
  (tmp_path / 'world/data/other.yaml').write_text('2')
  assert hashes.code.__wrapped__() == first
  (tmp_path / name).write_text('2')
  assert hashes.code.__wrapped__() != first


def config(tmp_path, **model):
  """A Config of a copy of the base and of a file of data."""
  if not (tmp_path / 'base').exists():
    shutil.copytree(BASE, tmp_path / 'base')
    (tmp_path / 'data.jsonl').write_text('{}\n')
  c = fields.Config()
  model = {'path': str(tmp_path / 'base')} | model
  return dataclasses.replace(
    c,
    model=dataclasses.replace(c.model, **model),
    data=dataclasses.replace(c.data, train=str(tmp_path / 'data.jsonl')),
  )


def test_each_hash_sees_its_own_files(tmp_path):
  c = config(tmp_path)
  first = hashes.of(c)
  assert hashes.of(c) == first
  assert all(len(value) == 16 for value in first.values())
  changed = lambda: {k for k, v in hashes.of(c).items() if v != first[k]}
  (tmp_path / 'data.jsonl').write_text('{"a": 1}\n')
  assert changed() == {'data'}
  base = tmp_path / 'base'
  (base / 'README.md').write_text('other')
  assert changed() == {'data'}
  path = base / 'config.json'
  path.write_text(json.dumps(json.loads(path.read_text()) | {'x': 1}))
  assert changed() == {'data', 'model'}
  (base / 'chat_template.jinja').write_text('{{ messages }}')
  assert changed() == {'data', 'model', 'template'}
  adapter = pathlib.Path(tmp_path / 'adapter')
  adapter.mkdir()
  (adapter / 'adapter.safetensors').write_bytes(b'1')
  with_adapter = hashes.of(config(tmp_path, adapter=str(adapter)))
  assert with_adapter['model'] != hashes.of(c)['model']


def test_a_gguf_file_is_hashed(tmp_path):
  file = tmp_path / 'base.gguf'
  file.write_bytes(b'GGUF')
  first = hashes._model(str(file))
  file.write_bytes(b'GGUF1')
  assert first and hashes._model(str(file)) not in ('', first)


# Of each field that names a file or a folder: the hash that knows its content.
FIELDS = {
  'data.train': 'data',
  'pool.paths': 'data',
  'eval.questions': 'data',
  'eval.curve': 'data',
  'eval.tokens': 'data',
  'conscience.framing': 'data',
  'model.path': 'model',
  'model.adapter': 'model',
  'model.frozen_adapter': 'model',
  'conscience.review.by': 'model',
  'conscience.revise.by': 'model',
  'iteralign.listed': 'data',
  'iteralign.proposer': 'model',
  'eval.judge': 'data',
}


def with_field(name, value):
  types = config_lib.field_types()
  value = (str(value),) if types[name] == tuple[str, ...] else str(value)
  value = f'other:{value}' if name.endswith(('.by', '.proposer')) else value
  value = f'{value}:judge' if name == 'eval.judge' else value
  made = config_lib.apply_arm(config_lib.default(), {name: value})[0]
  return config_lib.freeze(made)


@pytest.mark.parametrize('name', FIELDS)
def test_each_field_that_names_a_file_is_hashed(tmp_path, name):
  path = tmp_path / 'named'
  file = path
  if FIELDS[name] == 'model':
    path.mkdir()
    file = path / 'weights.safetensors'
  file.write_text('1')
  first = hashes.of(with_field(name, path))
  file.write_text('other')
  found = hashes.of(with_field(name, path))
  assert {k for k in first if found[k] != first[k]} == {FIELDS[name]}


@pytest.mark.parametrize('examples', [0, 2])
def test_exchanges_count_where_examples_are_taken_from_them(tmp_path, examples):
  file, found = tmp_path / 'own.jsonl', []
  c = with_field('conscience.exchanges', file)
  review = dataclasses.replace(c.conscience.review, examples=examples)
  settings = dataclasses.replace(c.conscience, review=review)
  for text in ('1', 'other'):
    file.write_text(text)
    found.append(hashes.of(dataclasses.replace(c, conscience=settings)))
  changed = {k for k in found[0] if found[0][k] != found[1][k]}
  assert changed == ({'data'} if examples else set())


@pytest.mark.parametrize('part', ['review', 'revise'])
def test_the_template_of_another_model_is_hashed(tmp_path, part):
  (tmp_path / 'config.json').write_text('{}')
  c = with_field(f'conscience.{part}.by', tmp_path)
  none = hashes.of(c)
  assert none['template'] == hashes.of(fields.Config())['template']
  found = []
  for text in ('{{ a }}', '{{ b }}!'):
    (tmp_path / 'chat_template.jinja').write_text(text)
    found.append(hashes.of(c))
  assert len({f['template'] for f in (none, *found)}) == 3
  assert len({f['model'] for f in (none, *found)}) == 1


@pytest.mark.parametrize('name', ['pool.paths', 'eval.questions'])
def test_a_folder_where_a_file_is_due(tmp_path, name):
  with pytest.raises(UserError, match=f'{tmp_path}: cannot be read .Is a dir'):
    hashes.of(with_field(name, tmp_path))


def test_what_lies_on_the_hub_is_known_by_name(tmp_path):
  of = lambda path: hashes.of(config(tmp_path, path=path))['model']
  assert of('owner/model') != of('owner/model@v2')
