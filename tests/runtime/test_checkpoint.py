import asyncio
import gc
import json
import os
import pathlib
import signal
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from ealign.models import sharding
from ealign.runtime import checkpoint
from ealign.runtime import mesh as mesh_lib
from ealign.runtime.checkpoint import Checkpoints
from ealign.runtime.errors import UserError

ALL_DEVICES = True


def whole(mesh, tree):
  return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))


def latest(checkpoints) -> int:
  names = [path.name for path in checkpoints._folder.iterdir()]
  return max(int(name) for name in names if name.isdecimal())


def make(n):
  """A state of every kind of leaf; the host arrays differ in shape with n."""
  mesh = mesh_lib.make()
  rng = np.random.default_rng(n)
  return {
    'params': {
      'w': sharding.shard_rows(mesh, rng.normal(size=(8, 64, 16))),
      'b': whole(mesh, jnp.full(3, n, jnp.bfloat16)),
    },
    'step': jnp.int32(n),
    'replay': {
      'ids': rng.integers(0, 2**40, size=(n, 3)),
      'refs': rng.normal(size=n),
      'flags': np.array([True, False]),
      'none': np.zeros((0, 4), np.float32),
    },
  }


def assert_same(got, want):
  assert jax.tree.structure(got) == jax.tree.structure(want)
  for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
    assert type(a) is type(b)
    assert (a.dtype, a.shape) == (b.dtype, b.shape)
    assert np.asarray(a).tobytes() == np.asarray(b).tobytes()
    if isinstance(b, jax.Array):
      assert a.sharding == b.sharding
      assert a.committed == b.committed


def saved(folder, *steps, keep=2):
  checkpoints = Checkpoints(folder, keep)
  for step in steps:
    checkpoints.save(step, make(step), {'cursor': [step, 0.1, None]})
  checkpoints.wait()
  return checkpoints


def largest_file(folder):
  files = [path for path in folder.rglob('*') if path.is_file()]
  return max(files, key=lambda path: path.stat().st_size)


def flip_bit(path):
  content = bytearray(path.read_bytes())
  content[len(content) // 2] ^= 16
  path.write_bytes(content)


def test_restores_the_last_step_bit_for_bit(tmp_path):
  saved(tmp_path, 3, 5)
  step, tree, extra, note = Checkpoints(tmp_path).restore(make(1))
  assert (step, extra, note) == (5, {'cursor': [5, 0.1, None]}, '')
  assert_same(tree, make(5))


def test_no_checkpoint_is_none(tmp_path):
  assert Checkpoints(tmp_path / 'none').restore(make(1)) is None


def test_keeps_the_last_n(tmp_path):
  checkpoints = saved(tmp_path, 1, 2, 3, 4, keep=2)
  assert sorted(path.name for path in tmp_path.iterdir()) == [
    *('3', '3.json', '4', '4.json')
  ]
  assert latest(checkpoints) == 4


def test_restores_onto_other_shardings(tmp_path):
  mesh = mesh_lib.make()
  checkpoints = Checkpoints(tmp_path)
  rows = np.arange(8.0, dtype=np.float32)
  checkpoints.save(1, {'w': sharding.shard_rows(mesh, rows)}, {})
  template = {'w': whole(mesh, rows)}
  _, tree, _, _ = checkpoints.restore(template)
  assert tree['w'].sharding == template['w'].sharding
  np.testing.assert_array_equal(tree['w'], rows)


def test_a_flipped_bit_falls_back_to_the_step_before(tmp_path):
  saved(tmp_path, 3, 5)
  flip_bit(largest_file(tmp_path / '5'))
  step, tree, _, note = Checkpoints(tmp_path).restore(make(1))
  assert step == 3
  assert 'step 5' in note and 'damaged' in note and 'from step 3' in note
  assert_same(tree, make(3))


def test_the_bad_step_can_be_saved_again(tmp_path):
  saved(tmp_path, 3, 5)
  flip_bit(largest_file(tmp_path / '5'))
  checkpoints = Checkpoints(tmp_path)
  checkpoints.restore(make(1))
  assert latest(checkpoints) == 3
  assert (tmp_path / 'bad-5').is_dir()  # nothing is lost
  checkpoints.save(5, make(5), {}, wait=True)
  step, tree, _, note = Checkpoints(tmp_path).restore(make(1))
  assert (step, note) == (5, '')
  assert_same(tree, make(5))


def test_a_changed_manifest_is_noticed(tmp_path):
  saved(tmp_path, 3, 5)
  path = tmp_path / '5.json'
  sealed = json.loads(path.read_text())
  sealed['body'] = sealed['body'].replace('0.1', '0.2')
  path.write_text(json.dumps(sealed))
  assert Checkpoints(tmp_path).restore(make(1))[0] == 3


def test_a_leftover_of_a_cut_save_is_told_and_removed(tmp_path):
  saved(tmp_path, 3)
  (tmp_path / '5.orbax-checkpoint-tmp' / 'state').mkdir(parents=True)
  step, _, _, note = Checkpoints(tmp_path).restore(make(1))
  assert (step, note[:38]) == (3, 'bad checkpoint (step 5: half-written);')
  assert Checkpoints(tmp_path).restore(make(1))[3] == ''


def test_only_a_first_save_cut_short_is_no_checkpoint(tmp_path):
  (tmp_path / '5.orbax-checkpoint-tmp').mkdir()
  assert Checkpoints(tmp_path).restore(make(1)) is None


@pytest.mark.parametrize('damage', ['truncated', 'missing', 'no manifest'])
def test_half_a_step_falls_back(tmp_path, damage):
  saved(tmp_path, 3, 5)
  path = largest_file(tmp_path / '5')
  if damage == 'truncated':
    path.write_bytes(path.read_bytes()[:100])
  elif damage == 'missing':
    path.unlink()
  else:
    (tmp_path / '5.json').unlink()
  step, tree, _, note = Checkpoints(tmp_path).restore(make(1))
  assert step == 3 and 'step 5' in note
  assert_same(tree, make(3))
  gc.collect()  # what is left of the failed read would raise here


def test_reads_beside_a_failed_one_are_waited_for(tmp_path, monkeypatch):
  beside = []

  def close(loop):
    beside.append(loop.create_task(asyncio.sleep(0.01, 'read')))
    whole(loop)

  whole = checkpoint._PatientLoop.close
  monkeypatch.setattr(checkpoint._PatientLoop, 'close', close)
  saved(tmp_path, 3)
  Checkpoints(tmp_path).restore(make(1))
  assert {task.result() for task in beside} == {'read'}


def test_no_good_step_is_an_error_and_loses_nothing(tmp_path):
  saved(tmp_path, 3, 5)
  for step in '35':
    flip_bit(largest_file(tmp_path / step))
  with pytest.raises(UserError, match='no good checkpoint') as error:
    Checkpoints(tmp_path).restore(make(1))
  assert 'step 3' in str(error.value) and 'step 5' in str(error.value)
  assert (tmp_path / '3').is_dir() and (tmp_path / '5').is_dir()


def test_another_kind_of_run_is_an_error(tmp_path):
  saved(tmp_path, 3)
  other = make(1) | {'step': jnp.zeros(2, jnp.int32)}
  with pytest.raises(UserError, match='step was saved as int32'):
    Checkpoints(tmp_path).restore(other)
  with pytest.raises(UserError, match='lacks .*momentum'):
    Checkpoints(tmp_path).restore(make(1) | {'momentum': jnp.ones(2)})
  lacking = make(1)
  del lacking['params']['b']
  with pytest.raises(UserError, match='besides'):
    Checkpoints(tmp_path).restore(lacking)
  assert Checkpoints(tmp_path).restore(make(1))[0] == 3


def test_donating_after_save_changes_nothing(tmp_path):
  checkpoints = Checkpoints(tmp_path)
  ones = lambda: {'w': jnp.ones(2_000_000)}
  update = jax.jit(
    lambda tree: jax.tree.map(lambda x: x * 2 + 1, tree), donate_argnums=0
  )
  tree = ones()
  checkpoints.save(1, tree, {})
  for _ in range(20):
    tree = update(tree)
  jax.block_until_ready(tree)
  host = {'w': np.ones(2_000_000)}
  checkpoints.save(2, host, {})
  host['w'][:] = 3
  np.testing.assert_array_equal(checkpoints.restore(host)[1]['w'], 1)
  assert latest(checkpoints) == 2
  (tmp_path / '2.json').unlink()
  step, tree, _, _ = checkpoints.restore(ones())
  assert step == 1
  np.testing.assert_array_equal(tree['w'], 1)


def test_a_failed_save_is_told(tmp_path):
  (tmp_path / 'file').write_text('')
  checkpoints = Checkpoints(tmp_path / 'file' / 'folder')
  with pytest.raises(UserError, match='checkpoint 1: could not be written'):
    checkpoints.save(1, make(1), {}, wait=True)


KILLED = """
import os, signal, sys
import numpy as np
from ealign.runtime.checkpoint import Checkpoints
checkpoints = Checkpoints(sys.argv[1])
checkpoints.save(1, {'w': np.ones(4)}, {}, wait=True)
checkpoints.save(2, {'w': np.random.default_rng(0).random(8_000_000)}, {})
while not any('tmp' in name for name in os.listdir(sys.argv[1])):
  pass
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_sigkill_during_a_save_leaves_the_step_before(tmp_path):
  root = pathlib.Path(__file__).parents[2]
  code = subprocess.run(
    [sys.executable, '-c', KILLED, tmp_path],
    env=os.environ | {'PYTHONPATH': str(root)},
  ).returncode
  assert code == -signal.SIGKILL
  step, tree, _, note = Checkpoints(tmp_path).restore({'w': np.zeros(1)})
  assert step == 1
  assert note == 'bad checkpoint (step 2: half-written); continued from step 1'
  np.testing.assert_array_equal(tree['w'], np.ones(4))
  assert not list(tmp_path.glob('*tmp*'))
  assert Checkpoints(tmp_path).restore({'w': np.zeros(1)})[3] == ''
