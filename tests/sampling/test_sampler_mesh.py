"""Answers and label probabilities are the same on a mesh of any shape."""

import dataclasses
import functools
import itertools
import math
import re

import jax
import numpy as np
import pytest

from ealign.models import sharding, transformer
from ealign.models.config import Config
from ealign.runtime import mesh as mesh_lib
from ealign.sampling import labels as labels_lib
from ealign.sampling import prompts as prompting
from ealign.sampling import requests, sampler
from ealign.sampling.sampler import Sampling, generate

CONFIG = Config(
  vocab_size=29,
  d_model=24,
  layers=2,
  heads=8,
  kv_heads=8,
  head_dim=4,
  d_ff=24,
  max_positions=128,
)
# Of 6 heads 3 devices can have equal shares, and neither 4 nor 8 can.
SIX = dataclasses.replace(CONFIG, heads=6, kv_heads=6)
PROMPTS = [[3, 1, 4], [1, 5, 9, 2, 6, 5], [3], [5, 8, 9, 7]] * 2
T = 8
FOUR = jax.device_count() == 4
SIZES = (2, 4) if FOUR else (8,)


def shapes_of(size):
  """All (data, fsdp, tensor) of so many devices."""
  sides = itertools.product(range(1, size + 1), repeat=3)
  return [shape for shape in sides if math.prod(shape) == size]


MESHES = [shape for size in SIZES for shape in shapes_of(size)]


@functools.cache
def weights_of(config):
  return transformer.init(config, key=jax.random.key(0), std=0.5)


def placed(shape, config=CONFIG):
  """The model and its weights on a mesh, as a run has them."""
  devices = jax.devices()[: math.prod(shape)]
  mesh = mesh_lib.make(*shape, devices=devices)
  model = sharding.on_mesh(config, mesh)
  weights = sharding.padded(model, weights_of(config))
  return model, mesh, sharding.place(mesh, weights)


def say(model, mesh, weights, temperature, truncate):
  request = requests.Answers(
    model,
    weights,
    PROMPTS,
    key=jax.random.key(7),
    settings=Sampling(temperature=temperature, max_new_tokens=T),
    stop_ids=(7,),
    max_tokens=T,
    rows=8,
    truncate=truncate,
    mesh=mesh,
  )
  return generate(request)


@functools.cache
def alone(temperature, config=CONFIG):
  return say(config, None, weights_of(config), temperature, 8)


def read(model, weights, mesh=None):
  labels = ((1, 2), (3, 4, 5))
  request = requests.Labels(model, weights, PROMPTS, labels, rows=8, mesh=mesh)
  return labels_lib.label_logps(request)


@pytest.mark.parametrize('shape', MESHES, ids=str)
def test_answers_and_verdicts_are_those_of_one_device(shape):
  check(shape, CONFIG)


@pytest.mark.slow
def test_three_devices_change_nothing_either():
  check((1, 1, 3), SIX)  # 8 rows have no other shape


def check(shape, config):
  model, mesh, weights = placed(shape, config)
  for temperature in (0.0, 1.0):
    answers = say(model, mesh, weights, temperature, 8)
    for got, wanted in zip(answers, alone(temperature, config), strict=True):
      assert (got.ids, got.stop) == (wanted.ids, wanted.stop)
      np.testing.assert_allclose(got.logps, wanted.logps, atol=3e-5)
  wanted = read(config, weights_of(config))
  np.testing.assert_allclose(read(model, weights, mesh=mesh), wanted, atol=3e-5)


def test_weights_are_gathered_once_or_else_split_like_heads(monkeypatch):
  model, mesh, weights = placed((1, 2, 2) if FOUR else (2, 2, 2), SIX)
  shapes = lambda: dict(sharding.gathered(model, mesh, weights)[1].shape)
  rows = jax.device_count() // 2
  assert shapes() == {'data': rows, 'fsdp': 1, 'tensor': 2}
  memory = lambda device: sum(x.nbytes for x in jax.tree.leaves(weights))
  monkeypatch.setattr(mesh_lib, 'memory', memory)  # half of them has room
  assert shapes() == {'data': rows, 'fsdp': 1, 'tensor': 2}
  model, mesh, weights = placed((2, 2, 1) if FOUR else (4, 2, 1))
  assert shapes() == {'data': rows, 'fsdp': 1, 'tensor': 2}
  got = say(model, mesh, weights, 1.0, 8)
  assert [x.ids for x in got] == [x.ids for x in alone(1.0)]
  # What fits in no way stays as it is, each layer gathered as it is used.
  monkeypatch.setattr(mesh_lib, 'memory', lambda device: 1.0)
  assert shapes() == dict(mesh.shape)


def compiled_decode(shape):
  """The decode program on a mesh, as text, and its cache."""
  model, mesh, weights = sharding.gathered(*placed(shape))
  prefill, sample = sampler.programs(model, T, None)
  part = next(prompting.batches(PROMPTS, 8))
  seeds = np.zeros((8, 2), np.uint32)
  who = seeds, np.arange(8, dtype=np.uint32), np.ones(8, bool)
  how = sampler._traced(Sampling(max_new_tokens=T), 8, T, None)
  rows = (part.tokens_BT, part.positions_BT), who, how
  read, who, how = sharding.shard_rows(mesh, rows)
  start = prefill(weights, *read)
  args = (weights, *start, who, how, sampler.pad_stops(()))
  return sample.lower(*args).compile().as_text(), start[0]


def test_decode_neither_gathers_nor_selects():
  shape = (1, 2, 2) if FOUR else (2, 2, 2)
  text, cache = compiled_decode(shape)
  local = cache['k'].sharding.shard_shape(cache['k'].shape)
  parts = shape[0] * shape[1], shape[2]
  assert (cache['k'].shape[1] // local[1], CONFIG.kv_heads // local[2]) == parts
  assert not re.findall('all-gather|all-to-all|collective-permute', text)
  # Of a layer's cache, in any shape: written in place, never selected from.
  size = math.prod(local[1:])
  count = lambda dims: math.prod(map(int, dims.split(',')))
  found = re.findall(r'= \w+\[([\d,]+)\]\S* ([\w-]+)\(', text)
  big = {kind for dims, kind in found if count(dims) >= size}
  assert 'dynamic-update-slice' in text and not {'select', 'scatter'} & big
