"""ealign doctor: what it tells, and what it survives."""

import importlib.metadata
import os
import sys
import types

import pytest

from ealign.cli import doctor, requirements
from ealign.runtime import cache

FOUND = {'devices': [['tpu', 'TPU v5 lite', 2**34]] * 4, 'hosts': 1}
SECRET = 'hf_abcDEF012345'


@pytest.fixture
def quick(monkeypatch):
  """No other process is started; the devices are these."""
  found = [FOUND, '']
  monkeypatch.setattr(doctor, 'probe', lambda env: tuple(found))
  return found


def told(env):
  return '\n'.join(map(str, doctor.lines(env)))


def test_the_devices_of_another_process():
  env = dict(os.environ) | {'JAX_PLATFORMS': 'cpu'}
  found, problem = doctor.probe(env)
  assert not problem and found['hosts'] == 1
  assert {platform for platform, _, _ in found['devices']} == {'cpu'}


@pytest.mark.parametrize(
  'program, said',
  [
    ('raise RuntimeError("no chip")', 'RuntimeError: no chip'),
    ('print("[]")', 'exit 0'),
    ('import sys; sys.exit(3)', 'exit 3'),
    ('print(chr(10) + "{\\"devices\\": []}")', 'exit 0'),
    (
      'raise RuntimeError("The TPU is already in use by process 7")',
      'another process holds them: end it',
    ),
  ],
)
def test_devices_that_cannot_be_had(program, said):
  found, problem = doctor.probe(dict(os.environ), program)
  assert not found and said in problem


def test_a_slice_that_does_not_answer(monkeypatch):
  monkeypatch.setattr(doctor, 'PROBE_S', 0.2)
  found, problem = doctor.probe(dict(os.environ), 'while True: pass')
  assert not found and 'no answer' in problem


def test_what_is_told(quick, tmp_path):
  env = {'HF_TOKEN': SECRET, 'JAX_COMPILATION_CACHE_DIR': str(tmp_path)}
  (tmp_path / 'a').write_bytes(b'x' * 2**20)
  text = told(env)
  assert '4 x TPU v5 lite (tpu), 16.0 GiB each' in text
  assert 'tpu, as the fastest that JAX found: bfloat16' in text
  assert f'{tmp_path} (JAX_COMPILATION_CACHE_DIR): 1 files, 1 MiB' in text
  assert f'jax               {importlib.metadata.version("jax")}' in text
  assert 'hosts             one' in text


def test_no_value_of_a_token_is_told(quick, tmp_path):
  names = [name for names in doctor.TOKENS.values() for name in names]
  text = told(dict.fromkeys(names, SECRET))
  assert SECRET not in text and text.count('is set') == 3
  (tmp_path / 'token').write_text(SECRET)
  text = told({'HF_HOME': str(tmp_path)})
  assert SECRET not in text and f'{tmp_path}/token is there' in text
  assert 'OPENAI_API_KEY is not set' in text


def test_exit_codes(quick, monkeypatch, capsys):
  monkeypatch.setattr(requirements, 'needed', lambda: [])
  assert doctor.main(['doctor']) == 0
  assert capsys.readouterr().out.endswith('all is well\n')
  quick[1] = 'no chip'
  assert doctor.main(['doctor']) == 1
  said = capsys.readouterr().out
  assert '! devices           JAX finds none: no chip' in said
  assert said.endswith('to be mended: devices\n')
  assert doctor.main(['doctor', '--all']) == 2


def test_what_one_check_trips_over_stops_no_other(quick, monkeypatch):
  def broken(env):
    raise OSError('no disk')

  broken.__name__ = 'machine'
  monkeypatch.setattr(doctor, 'machine', broken)
  found = list(doctor.lines({}))
  (wrong,) = [x for x in found if x.what == 'machine']
  assert wrong.wrong and wrong.text == 'cannot be told: OSError: no disk'
  assert found[-1].what == 'token'


def test_a_gpu_or_tpu_that_is_left_aside(tmp_path):
  used = lambda env: doctor.used('cpu', env, str(tmp_path))
  assert not used({}).wrong
  (tmp_path / 'dev').mkdir()
  (tmp_path / 'dev/accel0').touch()
  line = used({})
  assert line.wrong and "a TPU: pip install 'ealign[tpu]'" in line.text
  line = used({'JAX_PLATFORMS': 'cpu'})
  assert not line.wrong and 'unset JAX_PLATFORMS=cpu' in line.text
  (tmp_path / 'dev/nvidia0').touch()
  assert 'an NVIDIA GPU' in used({}).text
  assert not doctor.used('gpu', {}, str(tmp_path)).wrong


@pytest.mark.parametrize(
  'cpuinfo, slower',
  [
    ('flags\t\t: fma avx2 avx512_bf16', False),
    ('Features\t: fp asimd bf16', False),
    ('flags\t\t: fma avx2', True),
    ('model name: unknown', False),  # nobody tells
  ],
)
def test_cores_without_bfloat16(tmp_path, cpuinfo, slower):
  (tmp_path / 'proc').mkdir()
  (tmp_path / 'proc/cpuinfo').write_text(f'processor\t: 0\n{cpuinfo}\n')
  said = lambda name: doctor.used(name, {}, str(tmp_path)).text
  assert ('bfloat16 would be slower' in said('cpu')) is slower
  assert 'slower' not in said('tpu')


def test_several_hosts():
  env = {'TPU_WORKER_HOSTNAMES': 'a,b', 'TPU_WORKER_ID': '1'}
  assert doctor.cluster(env).text == '1 of 2, host 0 at a'


def test_a_cache_that_cannot_be_written(tmp_path, monkeypatch):
  file = tmp_path / 'file'
  file.touch()
  env = {'XDG_CACHE_HOME': str(file)}
  (line,) = doctor.cache(env)
  assert line.wrong and 'set JAX_COMPILATION_CACHE_DIR' in line.text
  (line,) = doctor.cache({cache.VARIABLE: 'gs://bucket/cache'})
  assert not line.wrong


def test_requirements(monkeypatch, capsys, quick):
  texts = ['a>=2.1', 'b[x]>=1,<3', 'c', 'd>=1; extra == "more"', 'e (>=5)']
  here = {'a': '2.0.9', 'b': '2.0', 'e': '5.0.0'}
  monkeypatch.setattr(importlib.metadata, 'requires', lambda name: texts)
  monkeypatch.setattr(requirements, 'version', lambda name: here.get(name, ''))
  wrong = {x.name: x.wrong for x in requirements.needed()}
  assert wrong == {'a': True, 'b': False, 'c': True, 'e': False}
  text = told({})
  assert "2.0.9; it needs a>=2.1: pip install 'a>=2.1'" in text
  assert 'not installed; it needs c' in text


@pytest.mark.parametrize(
  'here, bounds, allowed',
  [
    ('0.10.0', '>=0.9.2', True),
    ('0.7.2', '>=0.10', False),
    ('1.0', '>=1.0.0', True),
    ('2.0rc1', '<2', False),
    ('3.1', '>=1,<3', False),
    ('1.5', '', True),
    ('1.5', '!=1.5', False),
  ],
)
def test_versions(here, bounds, allowed):
  assert requirements.allowed(here, bounds) is allowed


def test_a_python_that_is_too_old(monkeypatch):
  old = types.SimpleNamespace(version_info=(3, 10))
  monkeypatch.setattr(doctor, 'sys', old)
  line = next(iter(doctor.versions({})))
  assert line.wrong and '3.11 or later' in line.text
  assert sys.version_info >= (3, 11)
