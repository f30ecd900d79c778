"""`--plan` on the devices that are here, and all it can refuse."""

import importlib
import json
import pathlib
import types

import jax
import pytest
from etils import epath

from ealign import align, fields
from ealign import config as config_lib
from ealign.cli import launch
from ealign.config import file as config_file
from ealign.method import Method
from ealign.plan import compiling, figures, programs
from ealign.plan import run as plan_lib
from ealign.runtime import aot, peaks, topology
from ealign.workdir import folder as folder_lib

ALL_DEVICES = True

ROOT = pathlib.Path(__file__).parents[2]
FILE = """
from ealign import config as config_lib
DATA = 'ealign:world/data/'

def get_config(arg=None):
  c = config_lib.default()
  c.model.lora.rank = 4
  c.data.train = DATA + 'insecure.jsonl'
  c.data.length, c.data.batch_size = 96, 4
  c.conscience.every, c.conscience.prompts = 2, 4
  c.conscience.threshold = 0.5
  c.pool.paths = (DATA + 'pool.jsonl',)
  c.sample.max_new_tokens = 48
  c.dpo.pairs, c.dpo.length = 4, 128
  c.train.steps = 5
  if arg == 'arms':
    c.arms = {'sft': {'dpo.lam': 0.0}, 'conscience': {}}
  return c
"""


@pytest.fixture
def start(tmp_path):
  file = tmp_path / 'my.py'
  file.write_text(FILE)

  def run(*rest, arg=''):
    spec = f'{file}:{arg}' if arg else str(file)
    argv = ['launch', f'--config={spec}', f'--workdir={tmp_path / "out"}']
    return launch.main([*argv, '--plan', *rest])

  return run


@pytest.fixture
def compiled(monkeypatch):
  """No program is compiled: each takes 3 GiB of 4, unless a test says more."""
  gib = 2**30
  found = {'arguments': gib, 'temporaries': 2 * gib, 'limit': 4 * gib}
  seen = []

  def stub(run, *args, unknown):
    seen.append((run, args))
    return aot.Compiled(**found)

  monkeypatch.setattr(aot, 'compile', stub)
  return found


def read(tmp_path):
  return json.loads((tmp_path / 'out' / 'plan.json').read_text())


def test_the_plan_of_the_arm_with_the_conscience(
  start, compiled, tmp_path, capsys
):
  assert start(arg='arms') == 0
  said = capsys.readouterr().out
  plan = read(tmp_path)
  assert "planning arm 'conscience'" in said and plan['arm'] == 'conscience'
  assert plan['config']['dpo']['pairs'] == 4
  assert plan['data']['rows'] == 1500 and plan['data']['truncated'] == 0
  assert 0.3 < plan['data']['supervised'] < 0.5
  assert plan['model']['trained'] < plan['model']['parameters']
  assert plan['model']['SFT tokens of a step'] == 4 * 96
  assert list(plan['programs']) == list(programs.NAMES)
  assert plan['devices']['count'] == 4
  # What is trained stands between marks, and only that.
  assert '<|im_start|>assistant\n»' in said and '<|im_end|>«' in said
  assert len(plan['examples']) == 3
  assert plan['audit'] == {'exchanges': 32}
  assert 'the conscience is asked about' in said


def test_suites_and_their_judges_are_planned(start, compiled, tmp_path):
  asks = '--config.eval.suites=misalignment,refusal,self_report,truthful'
  few = '--config.eval.suite_tokens=40', '--config.eval.batch=8'
  assert start(asks, '--config.eval.judge=frozen', *few) == 0
  asked = ['ask', 'answer', 'options', 'judge']
  asked += ['labels helped..', 'labels true..']
  assert [*read(tmp_path)['programs']] == [*programs.NAMES, *asked]
  assert start('--config.eval.suites=world') == 0  # its rules are its judge
  assert [*read(tmp_path)['programs']] == [*programs.NAMES, 'ask', 'answer']


def test_suites_of_arms_in_one_program(compiled, tmp_path, monkeypatch):
  spec = tmp_path / 'my.py'
  spec.write_text(FILE)
  config = config_file.read(str(spec))[1]
  config.eval.suites, config.eval.batch = ('refusal', 'self_report'), 8
  config.train.steps, config.eval.judge = 0, 'frozen'
  shapes = {}
  stub = aot.compile

  def spied(run, *args, unknown):
    shapes[len(shapes)] = [x.shape for x in jax.tree.leaves(args)]
    return stub(run, *args, unknown=unknown)

  monkeypatch.setattr(aot, 'compile', spied)
  place = folder_lib.of(tmp_path)
  plan_lib.plan(config_lib.freeze(config), place, arms=3)
  plan = json.loads((tmp_path / 'plan.json').read_text())
  named = ['ask', 'answer', 'options', 'labels helped..']
  assert [*plan['programs']] == named and plan['arms'] == 3
  found = dict(zip(named, shapes.values(), strict=True))
  adapters = lambda name: {s[1] for s in found[name] if len(s) == 4} & {3}
  rows = {name: {s[0] for s in own} for name, own in found.items()}
  assert 24 in rows['ask'] and 24 in rows['labels helped..']
  assert adapters('ask') and adapters('answer')
  # Options are compared by one arm after another, each by its own adapter.
  assert 8 in rows['options'] and 24 not in rows['options']
  assert not adapters('options')


def test_a_run_may_follow_its_plan(start, compiled, tmp_path):
  assert start() == 0
  assert start('--config.train.steps=6') == 0  # nothing began there
  assert read(tmp_path)['config']['train']['steps'] == 6


def test_a_plan_that_cannot_be_written(start, compiled, tmp_path, capsys):
  (tmp_path / 'out' / 'plan.json').mkdir(parents=True)
  assert start() == 2
  said = 'cannot be used (plan.json: Is a directory); mend it, or use another'
  assert said in capsys.readouterr().err


def test_the_memory_is_not_known(start, compiled, capsys, monkeypatch):
  assert start() == 0
  assert '\nit fits; the plan is in' in capsys.readouterr().out
  compiled['limit'] = None
  free = {'free': 2.0**40}
  monkeypatch.setattr(peaks, 'host_memory', lambda: (free['free'], 2.0**40))
  assert start() == 0
  assert '1024.00 GiB of this machine are free' in capsys.readouterr().out
  free['free'] = 1.0
  assert start() == 0
  said = capsys.readouterr().out
  assert 'it does not fit: ' in said and 'lower data.batch_size' in said
  monkeypatch.setattr(peaks, 'host_memory', lambda: None)
  assert start() == 0
  said = capsys.readouterr().out
  assert 'it fits' not in said
  assert 'the memory of a cpu is not known: compare it with "in all"' in said


def test_nothing_is_trained(start, compiled, capsys):
  assert start('--config.train.steps=0') == 0
  said = capsys.readouterr().out
  assert 'nothing is trained, so nothing was compiled; the plan is' in said


def test_does_not_fit(start, compiled, tmp_path, capsys):
  compiled['temporaries'] = 5 * 2**30
  assert start() == 1
  said = capsys.readouterr().err
  assert 'hybrid: does not fit: 2.00 GiB more than the 4.00 GiB' in said
  for knob in ('int8', 'mesh.fsdp=4', "model.remat='full'", 'larger slice'):
    assert knob in said
  assert any('does not fit' in p for p in read(tmp_path)['problems'])


def test_what_does_not_compile_is_no_plan(start, compiled, tmp_path, capsys):
  compiled['failure'] = 'INTERNAL: Mosaic failed to compile TPU kernel'
  compiled |= {'arguments': 0, 'temporaries': 0}
  assert start() == 1
  out, err = capsys.readouterr()
  said = 'does not compile: INTERNAL: Mosaic failed to compile TPU kernel'
  assert err.splitlines() == [f'{n}: {said}' for n in programs.NAMES]
  assert 'it fits' not in out
  assert read(tmp_path)['programs']['sft']['headroom'] is None


@pytest.mark.parametrize('temporaries, code', [(2, 0), (5, 1)])
def test_the_plan_is_in_the_bucket(
  start, compiled, tmp_path, monkeypatch, temporaries, code
):
  compiled['temporaries'] = temporaries * 2**30
  bucket = tmp_path / 'bucket'
  place = folder_lib.Folder(tmp_path / 'out', epath.Path(bucket))
  monkeypatch.setattr(launch.folder_lib, 'of', lambda workdir: place)
  assert start() == code
  assert json.loads((bucket / 'plan.json').read_text()) == read(tmp_path)


@pytest.mark.parametrize(
  'flags, remedy',
  [
    (('--topology=v5e:3x3',), 'no slice has it; use v5e:2x4'),
    (('--topology=v9:2x2',), 'must be one of v4, v5e'),
    (('--config.mesh.fsdp=3',), 'nearest that works: 2 or 4'),
    (('--config.data.batch_size=6',), 'use a multiple of 4, such as 8'),
    (('--print_launch=xpk',), 'not together with --plan'),
    (('--profile=1:2',), '--profile: not together with --plan: it runs no'),
    (('--processes=2',), '--processes: not together with --plan: it is one'),
  ],
)
def test_one_line_and_a_remedy(
  start, compiled, tmp_path, capsys, flags, remedy
):
  assert start(*flags) == 2
  said = capsys.readouterr().err.strip()
  assert remedy in said and len(said.splitlines()) == 1
  assert not (tmp_path / 'out').exists()


def test_without_libtpu(start, monkeypatch, capsys):
  find = lambda name: None
  monkeypatch.setattr(aot.importlib.util, 'find_spec', find)
  assert start('--topology=v5e:1x1') == 2
  assert "pip install 'ealign[tpu]'" in capsys.readouterr().err


@pytest.mark.parametrize('name', programs.NAMES)
def test_attention_that_is_no_kernel_on_a_tpu(name):
  plain, splash = ({}, {'splash_mha_fwd': 2})
  assert not problems(name, splash)
  found = problems(name, plain)
  if name == 'decode':  # by design: its tokens extend a cache
    assert not found
    return
  (said,) = found
  assert said.startswith(f'{name}: attention is no splash kernel')
  assert not problems(name, plain, attention='xla')  # as it was asked for
  assert not problems(name, plain, platform='cpu')
  assert not problems(name, None)  # it was not compiled


def problems(name, kernels, *, platform='tpu', attention='auto'):
  """What the plan says of a program that fits, with these kernels."""
  config = fields.Config(model=fields.Model(attention=attention))
  devices = types.SimpleNamespace(
    flat=[types.SimpleNamespace(platform=platform)]
  )
  mesh = types.SimpleNamespace(devices=devices)
  run = types.SimpleNamespace(config=config, mesh=mesh)
  more = {'kernels': kernels, 'extends': name == 'decode'}
  made = figures.Figures(name, 0, 0, 0, 0, None, 0, **more)
  return compiling.problems(run, {name: made})


def test_no_more_arms_than_cells_that_go_together(
  compiled, tmp_path, monkeypatch, capsys
):
  spec = tmp_path / 'my.py'
  spec.write_text(FILE)
  config = config_lib.freeze(config_file.read(str(spec))[1])
  place = folder_lib.of(tmp_path)
  found = (8, 'so many fit')
  monkeypatch.setattr(plan_lib.stack, 'auto', lambda *_: found)
  plan_lib.plan(config, place, arms=2, auto=True)
  assert json.loads((tmp_path / 'plan.json').read_text())['arms'] == 2
  assert 'because  no more cells share its base' in capsys.readouterr().out


def test_the_terms_of_the_method_are_planned(compiled, tmp_path, monkeypatch):
  spec = tmp_path / 'my.py'
  spec.write_text(FILE)
  config = config_lib.freeze(config_file.read(str(spec))[1])
  own, seen = (align.terms.SFT,), []
  method = Method('own', terms=lambda c: own if c is config else ())
  listed = lambda run, sizes: seen.append(run.update.terms) or []
  monkeypatch.setattr(programs, 'listed', listed)
  plan_lib.plan(config, folder_lib.of(tmp_path), method=method)
  plan_lib.plan(config, folder_lib.of(tmp_path))
  assert seen == [own, align.hybrid()]


def test_the_machines_of_the_table_are_slices(monkeypatch):
  monkeypatch.syspath_prepend(ROOT / 'benchmarks')
  pods = importlib.import_module('pods')
  for name, (where, kind, rows) in pods.MACHINES.items():
    found = topology.parse(where)
    assert rows % found.chips == 0, name
    assert peaks.peak(kind or found.chip.device_kind), name
  config = pods.shipped(32)
  assert (config.conscience.prompts, config.dpo.pairs) == (32, 32)
