"""Answers and label probabilities are the same on a mesh of any shape."""

import dataclasses
import functools
import itertools
import math
import re
import types

import jax
import numpy as np
import pytest
from jax.sharding import AxisType

from ealign.models import sharding, transformer
from ealign.models.config import Config
from ealign.runtime import mesh as mesh_lib
from ealign.runtime import peaks
from ealign.sampling import labels as labels_lib
from ealign.sampling import prompts as prompting
from ealign.sampling import requests, sampler
from ealign.sampling.sampler import Sampling, generate

ALL_DEVICES = True

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


def of(model, weights, temperature=1.0, truncate=8, mesh=None):
  return requests.Answers(
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


def say(model, mesh, weights, temperature, truncate):
  return generate(of(model, weights, temperature, truncate, mesh))


@functools.cache
def alone(temperature, config=CONFIG):
  return say(config, None, weights_of(config), temperature, 8)


def read(model, weights, mesh=None):
  labels = ((1, 2), (3, 4, 5))
  request = requests.Labels(model, weights, PROMPTS, labels, rows=8, mesh=mesh)
  labels = ((1, 2), (1, 3, 5), (1, 3, 4), (4, requests.OTHER))
  tree = dataclasses.replace(request, labels=labels, rest=True, top=3)
  both = map(labels_lib.label_logps, (request, tree))
  return np.concatenate([*both], axis=1)


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


QWEN3_4B = dataclasses.replace(
  CONFIG,
  d_model=2560,
  layers=36,
  heads=32,
  head_dim=128,
  d_ff=9728,
  vocab_size=151_936,
  dtype='bfloat16',
)
V5E = peaks.peak('TPU v5 lite')


@pytest.mark.parametrize(
  'rows, new, ways',
  [
    (16, 600, 8),  # a row a chip: weights are most of what a token reads
    (160, 600, 8),
    (16 * 4096, 600, 1),  # sums of so many rows take longer than the weights
    (16, 0, 1),  # nothing is sampled
  ],
)
def test_weights_are_split_where_few_rows_are_sampled(
  rows, new, ways, monkeypatch
):
  monkeypatch.setattr(peaks, 'peak', lambda kind: V5E)
  monkeypatch.setattr(mesh_lib, 'memory', lambda device: V5E.memory)
  size = int(7.5 * 2**30)

  def split(shape):
    mesh = _mesh_of(shape)
    return dict(sharding.widened(QWEN3_4B, mesh, size, rows, new)[1].shape)

  wanted = {'data': 16 // ways, 'fsdp': 1, 'tensor': ways}
  assert split((1, 16, 1)) == split((16, 1, 1)) == split((2, 8, 1)) == wanted


def test_weights_are_split_over_no_more_than_divide_them(monkeypatch):
  monkeypatch.setattr(peaks, 'peak', lambda kind: V5E)
  monkeypatch.setattr(mesh_lib, 'memory', lambda device: V5E.memory)
  odd = dataclasses.replace(QWEN3_4B, d_ff=4 * 2431)
  wide = sharding.widened(odd, _mesh_of((1, 16, 1)), 8 * 10**9, 16, 600)[1]
  assert wide.shape['tensor'] == 4


def _mesh_of(shape):
  """A mesh of 16 devices, which need not be there to be reshaped."""
  devices = np.resize(np.array(jax.devices(), object), 16).reshape(shape)
  return types.SimpleNamespace(
    devices=devices,
    shape=dict(zip(mesh_lib.AXES, shape, strict=True)),
    axis_types=(AxisType.Auto,) * 3,
    size=16,
  )


def test_answers_are_the_same_where_weights_are_split_for_speed(monkeypatch):
  slow = dataclasses.replace(V5E, memory_bandwidth=1.0, link_bandwidth=1e15)
  monkeypatch.setattr(peaks, 'peak', lambda kind: slow)
  shape = (1, jax.device_count(), 1)
  model, mesh, weights = placed(shape)
  split = sharding.gathered(model, mesh, weights, 8, T)[1].shape
  assert split['tensor'] == jax.device_count()
  got = say(model, mesh, weights, 1.0, 8)
  assert [x.ids for x in got] == [x.ids for x in alone(1.0)]


def test_few_prompts_are_read_in_fewer_rows():
  few = dataclasses.replace(of(CONFIG, weights_of(CONFIG)), prompts=PROMPTS[:2])
  shapes, read = [], sampler.prefill

  def spy(config, room, weights, tokens_BT, positions_BT):
    shapes.append(tokens_BT.shape)
    return read(config, room, weights, tokens_BT, positions_BT)

  whole = generate(of(CONFIG, weights_of(CONFIG)))
  sampler.programs.cache_clear()
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(sampler, 'prefill', spy)
    got = generate(few)
  sampler.programs.cache_clear()
  assert shapes == [(2, 32)]  # a quarter of 8
  assert [x.ids for x in got] == [x.ids for x in whole[:2]]


def compiled_decode(shape):
  """The decode program on a mesh, as text, and its cache."""
  model, mesh, weights = sharding.gathered(*placed(shape))
  prefill, sample = sampler.programs(model, T, None)
  part = next(prompting.batches(PROMPTS, 8))
  seeds = np.zeros((8, 2), np.uint32)
  who = seeds, np.arange(8, dtype=np.uint32), np.ones(8, bool)
  how = sampler.traced(Sampling(max_new_tokens=T), 8, T, None)
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
