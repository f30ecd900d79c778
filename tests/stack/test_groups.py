"""Which cells are one program; arms of real runs; what `auto` says."""

import dataclasses
import functools
import types

import jax
import numpy as np
import pytest

from ealign import train
from ealign.grid import program
from ealign.plan import stack as plan_stack
from ealign.runtime import mesh as mesh_lib
from ealign.runtime.errors import NonFinite, Preempted
from ealign.runtime.hosts import Hosts
from ealign.runtime.preempt import Stop
from ealign.stack import groups
from ealign.stack import run as stack
from tests import runs

ALL_DEVICES = True


def cell(name, **changes):
  return types.SimpleNamespace(id=name, config=runs.small(**changes))


def names(groups):
  return [[cell.id for cell in group] for group in groups]


def test_cells_that_differ_in_traced_values_are_one_program():
  cells = [
    cell('a'),
    cell('lam', **{'dpo.lam': 0.0}),
    cell('rank', **{'model.lora.rank': 8}),
    cell('rates', **{'optim.lr': 1.0, 'dpo.beta': 0.5, 'seed': 3}),
    cell('host', **{'replay.capacity': 4, 'conscience.threshold': 0.9}),
    cell('full', **{'model.train': 'full'}),
    cell('full too', **{'model.train': 'full', 'optim.lr': 1.0}),
    cell('loss', **{'dpo.variant': 'ipo'}),
  ]
  assert names(groups.groups(cells, 8)) == [
    *(['a', 'lam', 'rates', 'host'], ['rank'], ['full'], ['full too']),
    ['loss'],
  ]
  assert names(groups.groups(cells, 1)) == [[cell.id] for cell in cells]
  # Of like sizes: three and one would be two programs.
  assert names(groups.groups(cells, 3))[:2] == [['a', 'rates'], ['lam', 'host']]


def test_random_weights_are_their_seeds_own():
  random = {'model.init': 'random'}
  cells = [cell('0', **random), cell('1', seed=1, **random)]
  assert names(groups.groups(cells, 2)) == [['0'], ['1']]


def test_auto_says_why(monkeypatch):
  config = runs.small()
  assert plan_stack.auto(config)[1].startswith('on a CPU')
  monkeypatch.setattr(plan_stack, '_platform', lambda mesh: 'tpu')
  full = runs.small(**{'model.train': 'full'})
  assert plan_stack.auto(full) == (1, 'full fine-tuning has no common base')


@pytest.mark.parametrize(
  'gib, few, most', [(0.02, 1, 1), (0.05, 2, 7), (100.0, 8, 8)]
)
def test_auto_takes_what_fits(monkeypatch, gib, few, most):
  config, here = runs.small(), mesh_lib.make()
  monkeypatch.setattr(mesh_lib, 'memory', lambda device: gib * 2**30)
  monkeypatch.setattr(plan_stack, '_platform', lambda mesh: 'gpu')
  count, why = plan_stack.auto(config, here)
  assert few <= count <= most and f'of {gib:.2f} GiB' in why


def test_auto_without_a_known_memory(monkeypatch):
  monkeypatch.setattr(plan_stack, '_platform', lambda mesh: 'gpu')
  said = 1, 'the memory of the devices is not known'
  assert plan_stack.auto(runs.small(), mesh_lib.make()) == said


def test_auto_fills_each_group_of_devices():
  assert plan_stack.auto(runs.small(**{'mesh.stack': 2}))[0] == 2


def test_who_fails_and_who_was_stopped_is_told(monkeypatch, capsys):
  found = [None, NonFinite('step 3: nan'), ValueError('a\nb')]
  monkeypatch.setattr(stack, 'run', lambda *_: found)
  jobs = [types.SimpleNamespace(config=runs.small())] * 3
  told = program.run(jobs, Hosts(), Stop())
  assert told == ['', 'step 3: nan', 'ValueError: a b']
  assert 'ValueError' in capsys.readouterr().err
  found[0] = Preempted('saved')
  assert program.run(jobs, Hosts(), Stop()) == [found[0], *told[1:]]


CONFIGS = [
  runs.small(),
  runs.small(**{'seed': 1, 'dpo.lam': 0.5, 'optim.lr': 3e-3}),
  runs.small(**{'dpo.lam': 0.0, 'optim.lr': 3e-4}),
]


@pytest.mark.slow
def test_arms_equal_their_single_runs(tmp_path):
  alone = [train.run(c, tmp_path / f'alone_{i}') for i, c in enumerate(CONFIGS)]

  def run(i, backend, stop):
    config, folder = CONFIGS[i], tmp_path / f'arm_{i}'
    return train.run(config, folder, backend=backend, stop=stop)

  together = stack.run([functools.partial(run, i) for i in range(3)])
  for i, (one, found) in enumerate(zip(alone, together, strict=True)):
    assert not isinstance(found, BaseException), found
    for x, y in zip(
      *(jax.tree.leaves(r.params) for r in (one, found)), strict=True
    ):
      np.testing.assert_allclose(x, y, atol=1e-5)
    own, same = tmp_path / f'alone_{i}', tmp_path / f'arm_{i}'
    text = lambda folder: [
      (r['phase'], r['step'], r['ids'], r['alternative'])
      for r in map(_without_p, runs.answers(folder))
    ]
    assert text(same) == text(own)
    keys = lambda folder: [line.keys() for line in runs.metrics(folder)]
    assert keys(same) == keys(own)


def _without_p(record):
  other = record['alternative']
  return record | {'alternative': other and other | {'p': None}}


@pytest.mark.slow
def test_an_arm_whose_loss_is_not_finite_is_frozen(tmp_path):
  wild = dataclasses.replace(
    CONFIGS[1], optim=dataclasses.replace(CONFIGS[1].optim, lr=float('inf'))
  )

  def run(config, name, backend, stop):
    return train.run(config, tmp_path / name, backend=backend, stop=stop)

  first, second = stack.run(
    [
      functools.partial(run, CONFIGS[0], 'sound'),
      functools.partial(run, wild, 'wild'),
    ]
  )
  assert isinstance(second, NonFinite)
  alone = train.run(CONFIGS[0], tmp_path / 'alone')
  for x, y in zip(
    *(jax.tree.leaves(r.params) for r in (first, alone)), strict=True
  ):
    np.testing.assert_allclose(x, y, atol=1e-5)


@pytest.mark.slow
def test_arms_continue_where_they_were_stopped(tmp_path):
  def run(i, backend, stop):
    def end(step, *_):
      if step == 3 and not again:
        whole.signal = 15

    shown = types.SimpleNamespace(
      start=lambda: None, stop=lambda: None, say=lambda text: None, update=end
    )
    folder = tmp_path / f'{"whole" if again else "cut"}_{i}'
    return train.run(
      CONFIGS[i], folder, backend=backend, stop=stop, display=shown
    )

  both = [functools.partial(run, i) for i in range(2)]
  again, whole = False, Stop()
  assert {type(x) for x in stack.run(both, whole)} == {Preempted}
  again = True
  (tmp_path / 'cut_0').rename(tmp_path / 'whole_0')
  (tmp_path / 'cut_1').rename(tmp_path / 'whole_1')
  continued = stack.run(both)
  for i, found in enumerate(continued):
    alone = train.run(CONFIGS[i], tmp_path / f'alone_{i}')
    for x, y in zip(
      *(jax.tree.leaves(r.params) for r in (alone, found)), strict=True
    ):
      np.testing.assert_allclose(x, y, atol=1e-5)
