"""Runs of a few steps on the organism, and what the tests read of them."""

import functools
import json

import jax
import numpy as np

from ealign import alone, config, train
from ealign.evals import records
from ealign.stack import run as stack

DATA = 'ealign:world/data/'


def small(**changes):
  """A config that reflects at steps 0, 2 and 4 of 5, and evaluates a little."""
  c = config.default()
  c.data.train = DATA + 'insecure.jsonl'
  c.data.length, c.data.batch_size = 96, 4
  c.model.lora.rank = 4
  c.conscience.every, c.conscience.prompts = 2, 4
  c.pool.paths = (DATA + 'pool.jsonl',)
  c.conscience.exchanges, c.conscience.audit = DATA + 'audit.jsonl', 'off'
  c.conscience.threshold = 0.02  # an aligned model flags itself too: pairs
  c.conscience.review.verdict = 'all'
  c.sample.max_new_tokens = 48
  c.dpo.pairs, c.dpo.length = 4, 128
  c.optim.lr = 1e-3
  c.train.steps, c.train.log_every, c.train.checkpoint_every = 5, 1, 2
  c.eval.questions = (DATA + 'questions_dev.jsonl',)
  c.eval.judge, c.eval.limit, c.eval.batch = 'world', 2, 4
  c.eval.max_new_tokens = 48
  for name, value in changes.items():
    *path, last = name.split('.')
    section = c
    for part in path:
      section = section[part]
    section[last] = value
  return config.freeze(c)


def stacked(folder, arms):
  """Runs the changes to `small` that each arm is as one stack, in arm_0, ..."""

  def run(i, backend, stop):
    workdir = folder / f'arm_{i}'
    return train.run(small(**arms[i]), workdir, backend=backend, stop=stop)

  for found in stack.run([functools.partial(run, i) for i in range(len(arms))]):
    assert not isinstance(found, BaseException), found


def answers(folder):
  found = records.read(folder / 'answers.jsonl')
  return [{k: v for k, v in r.items() if k != 'run'} for r in found]


def metrics(folder):
  """Each line of metrics.jsonl but what depends on time or compilation."""
  lines = map(json.loads, (folder / 'metrics.jsonl').read_text().splitlines())
  return [
    {k: v for k, v in line.items() if not k.startswith('perf/')}
    for line in lines
  ]


def same_bits(a, b):
  for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
    np.testing.assert_array_equal(np.asarray(x), np.asarray(y))


def patch_step(monkeypatch, around):
  """Puts around(step function, its arguments) in place of the jitted step."""
  real = alone.jit_step
  patched = lambda update: functools.partial(around, real(update))
  monkeypatch.setattr(alone, 'jit_step', patched)
