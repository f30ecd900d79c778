"""Models by their name on the Hub; no test needs the network."""

import os
import pathlib
import subprocess
import sys

import pytest

from ealign.config import default, flatten, limits
from ealign.models import hub
from ealign.runtime.errors import UserError

ROOT = pathlib.Path(__file__).parents[2]


@pytest.mark.parametrize(
  'name, is_id',
  [
    ('Qwen/Qwen3-4B-Instruct-2507', True),
    ('Qwen/Qwen3-4B@refs/pr/1', True),
    ('Qwen3-4B', False),
    ('./Qwen/Qwen3-4B', False),
    ('/models/Qwen3-4B', False),
    ('a/b/c', False),
    ('tests/nothing', False),  # tests is a folder here: a slip, not a name
  ],
)
def test_what_is_a_name_on_the_hub(monkeypatch, name, is_id):
  monkeypatch.chdir(ROOT)
  assert hub.is_id(name) is is_id
  told = limits.problems(flatten(default()) | {'model.path': name})
  assert (told == []) is is_id


def test_a_path_is_left_alone(tmp_path):
  assert hub.fetch(tmp_path) == tmp_path
  assert hub.fetch(tmp_path / 'x' / 'y') == tmp_path / 'x' / 'y'


def test_the_cache_of_hf_home_serves_offline(tmp_path):
  model = tmp_path / 'hub' / 'models--some--model'
  (model / 'snapshots' / 'c0ffee').mkdir(parents=True)
  (model / 'snapshots' / 'c0ffee' / 'config.json').write_text('{}')
  (model / 'refs').mkdir()
  (model / 'refs' / 'main').write_text('c0ffee')
  code = (
    'from ealign.models import hub\n'
    "print(hub.fetch('some/model'))\n"
    "try: hub.fetch('some/other')\n"
    'except hub.UserError as e: print(e)'
  )
  env = os.environ | {'PYTHONPATH': str(ROOT)}
  env |= {'HF_HOME': str(tmp_path), 'HF_HUB_OFFLINE': '1'}
  done = subprocess.run(
    [sys.executable, '-c', code], env=env, capture_output=True, text=True
  )
  assert not done.returncode, done.stderr
  found, said = done.stdout.splitlines()
  assert found == str(model / 'snapshots' / 'c0ffee')
  assert said.startswith('some/other: there is no such folder, and it could')


def test_what_is_fetched(monkeypatch, tmp_path):
  import fnmatch

  import huggingface_hub

  asked = {}
  monkeypatch.setattr(
    huggingface_hub,
    'snapshot_download',
    lambda name, **kw: asked.update(kw, name=name) or str(tmp_path),
  )
  assert hub.fetch('some/model@v2') == tmp_path
  assert (asked['name'], asked['revision']) == ('some/model', 'v2')
  fits = lambda file, field: any(fnmatch.fnmatch(file, p) for p in asked[field])
  wanted = (
    'model-00001-of-00002.safetensors config.json tokenizer.json merges.txt '
    'model.safetensors.index.json chat_template.jinja generation_config.json'
  ).split()
  assert all(fits(file, 'allow_patterns') for file in wanted)
  unwanted = 'pytorch_model.bin modeling_x.py consolidated.safetensors a.gguf'
  assert not any(fits(file, 'allow_patterns') for file in unwanted.split())
  assert fits('original/model.safetensors', 'ignore_patterns')


def test_an_error_of_the_hub_is_one_line(monkeypatch):
  import huggingface_hub

  def fail(*_, **__):
    raise OSError('no route\nmore')

  monkeypatch.setattr(huggingface_hub, 'snapshot_download', fail)
  with pytest.raises(UserError, match=r'\(no route\); mend the name'):
    hub.fetch('some/model')


def test_a_pipe_in_the_place_of_a_model(tmp_path):
  os.mkfifo(tmp_path / 'x.gguf')
  with pytest.raises(UserError, match='x.gguf: is no regular file'):
    hub.fetch(tmp_path / 'x.gguf')


@pytest.mark.parametrize('name', ['config.json', 'model.safetensors'])
def test_a_pipe_in_the_folder_is_not_waited_for(tmp_path, name):
  os.mkfifo(tmp_path / name)
  with pytest.raises(UserError, match=f'{name}: is no regular file'):
    hub.fetch(tmp_path)
