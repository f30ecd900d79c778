"""The parts of `benchmarks/gpu.py`: each yields the rows of its table.

On a CPU all but cuDNN's attention run too, in float32.
"""

import dataclasses
import functools
import json
import math
import pathlib
import statistics
import tempfile
import time

import jax
import jax.numpy as jnp
import numpy as np
from plan_bench import QWEN3_4B

from ealign import align, fields
from ealign import config as config_lib
from ealign import train as train_lib
from ealign.alone import ALONE, jit_step
from ealign.assembly import parts as parts_lib
from ealign.assembly import weights as weights_lib
from ealign.data import batch as batch_lib
from ealign.data import chat, sources
from ealign.models import attention as attention_lib
from ealign.models import config as models
from ealign.models import flops, transformer
from ealign.runtime import clock, peaks
from ealign.runtime.display import display
from ealign.sampling import requests
from ealign.sampling.choose import Sampling
from ealign.stack import run as stack

TINY = {
  'hidden_size': 64,
  'intermediate_size': 192,
  'num_attention_heads': 4,
  'num_key_value_heads': 2,
  'num_hidden_layers': 2,
  'head_dim': 16,
  'vocab_size': 1536,
}
ARMS = 8


@dataclasses.dataclass(frozen=True)
class Rows:
  """Packed rows of a step and their tokens; its pairs and theirs."""

  sft: int
  length: int
  pairs: int
  pair_length: int


@dataclasses.dataclass(frozen=True)
class Sizes:
  """What is measured; the steps are those of configs/qwen3_4b_insecure.py."""

  lengths: tuple[int, ...] = (256, 1024, 4096)  # of attention
  tokens: int = 4096  # of its rows together
  step: Rows = Rows(4, 1024, 8, 1024)
  decode: tuple[int, ...] = (8, 64, 256)  # rows
  prompt: int = 128
  new: int = 128
  lane: Rows = Rows(4, 256, 4, 256)  # of an arm's step
  answers: int = 16  # of an arm
  steps: int = 8  # of the run
  times: int = 5  # that each is measured


SMALL = Sizes(
  lengths=(32, 128),
  tokens=128,
  step=Rows(4, 64, 4, 96),
  prompt=16,
  new=16,
  lane=Rows(4, 48, 2, 48),
  steps=4,
  times=3,
)


@dataclasses.dataclass(frozen=True)
class Work:
  """The model and the sizes of all parts."""

  model: models.Config
  sizes: Sizes
  device: jax.Device


def work_of(small: bool) -> Work:
  device = jax.devices()[0]
  dtype = 'float32' if device.platform == 'cpu' else 'bfloat16'
  shape = QWEN3_4B | (TINY if small else {})
  model = models.from_hf(shape, dtype=dtype, remat='full')
  kernel = attention_lib.choose(model, device.platform)
  model = dataclasses.replace(model, attention=kernel)
  return Work(model, SMALL if small else Sizes(), device)


@functools.cache
def random_weights(model: models.Config) -> dict:
  """Made on the device in their dtype, layer by layer: no float32 beside it."""

  def leaf(path, x):
    name = jax.tree_util.keystr(path, simple=True, separator='/')
    if name.endswith('norm'):
      return jnp.ones(x.shape, x.dtype)
    draw = lambda shape, key: 0.02 * jax.random.normal(key, shape, x.dtype)
    if x.ndim == 2:
      make = functools.partial(draw, x.shape)
    else:
      of_layer = functools.partial(draw, x.shape[1:])
      split = functools.partial(jax.random.split, num=x.shape[0])
      make = lambda key: jax.lax.map(of_layer, split(key))
    return jax.jit(make)(jax.random.key(sum(name.encode())))

  return jax.tree_util.tree_map_with_path(leaf, transformer.shapes(model))


CONFIG = fields.Config(model=fields.Model(lora=fields.LoRA(rank=32)))


def start(work: Work, seed: int = 0, remat: str = 'full', microbatches=1):
  """An update of the model, its state at step 0, and the frozen weights."""
  parts = fields.Train(microbatches=microbatches)
  config = dataclasses.replace(CONFIG, seed=seed, train=parts)
  model = dataclasses.replace(work.model, remat=remat)
  update = parts_lib.make_update(config, model)
  adapter = weights_lib.new_adapter(config, model)
  state = align.init_state(update, adapter, align.hyper(config))
  return update, state, random_weights(work.model)


def batch_of(model: models.Config, rows: Rows, rng) -> batch_lib.Batch:
  """Rows and pairs of random tokens, all of them full."""
  text = lambda n: tuple(rng.integers(5, model.vocab_size, n).tolist())
  size = rows.sft, rows.length
  positions_BT = np.tile(np.arange(rows.length, dtype=np.int32), (rows.sft, 1))
  sft = batch_lib.SFTBatch(
    np.array(text(size), np.int32),
    positions_BT,
    np.ones(size, np.int32),
    (positions_BT > 0).astype(np.float32),
  )
  half = rows.pair_length // 2
  # As the frozen model has it on average, so that margins are near 0.
  said = (-half * math.log(model.vocab_size),) * 2
  pairs = [
    batch_lib.Pair(i, 0, text(half), text(half), text(half), *said)
    for i in range(rows.pairs)
  ]
  slots = rows.pairs, rows.pair_length
  return batch_lib.Batch(sft, batch_lib.pair_batch(pairs, *slots))


def median(times: int, call, calls: int = 1) -> float:
  """Seconds of a call; a time is measured of so many calls in a row."""
  jax.block_until_ready(call())
  found = []
  for _ in range(times):
    begun = time.perf_counter()
    jax.block_until_ready([call() for _ in range(calls)])
    found.append((time.perf_counter() - begun) / calls)
  return statistics.median(found)


# ---- The parts: each yields the rows of its table ----------------------------


def attention(work: Work):
  gpu = attention_lib.choose(work.model, work.device.platform) == 'cudnn'
  if not gpu:
    print("cuDNN needs a GPU: here is XLA's bfloat16 against its float32.\n")
  for length in work.sizes.lengths:
    args, real_BT = _heads(work, length)
    with jax.default_matmul_precision('highest'):  # else a GPU takes TF32
      exact = _attend(work, 'xla', 'float32')[1](*args)
    for kernel in ('xla', 'cudnn') if gpu else ('xla',):
      forward, both = _attend(work, kernel, 'bfloat16')
      found = both(*args)
      worst = [*map(_error, found, exact, (real_BT, None, None, None))]
      run = functools.partial(median, work.sizes.times, calls=10)
      yield {
        'tokens': length,
        'rows': real_BT.shape[0],
        'kernel': kernel,
        'output error': worst[0],
        'gradient error': max(worst[1:]),
        'finite': all(bool(jnp.isfinite(x).all()) for x in found),
        'forward, ms': 1e3 * run(functools.partial(forward, *args)),
        'forward and backward, ms': 1e3 * run(functools.partial(both, *args)),
      }


def _heads(work: Work, length: int):
  """Queries, keys, values, the output's gradient, positions and segments.

  Two segments a row, then padding. What pads has no gradient.
  """
  m, B = work.model, max(work.sizes.tokens // length, 1)
  each = length * 7 // 16
  positions_T = np.full(length, -1, np.int32)
  positions_T[: 2 * each] = np.tile(np.arange(each), 2)
  segments_T = np.where(positions_T >= 0, np.arange(length) // each + 1, 0)
  tile = lambda x_T: jnp.tile(jnp.asarray(x_T, jnp.int32), (B, 1))
  heads = (length, m.heads), (m.kv_heads, length), (m.kv_heads, length)
  normal = functools.partial(jax.random.normal, dtype=jnp.bfloat16)
  q, k, v, do = (
    normal(jax.random.key(i), (B, *shape, m.head_dim))
    for i, shape in enumerate((*heads, heads[0]))
  )
  real_BT = tile(positions_T) >= 0
  do *= real_BT[:, :, None, None]
  return (q, k, v, do, tile(positions_T), tile(segments_T)), real_BT


def _attend(work: Work, kernel: str, dtype: str):
  """The forward pass, and that with the gradients, both compiled."""
  config = dataclasses.replace(work.model, attention=kernel, dtype=dtype)

  def forward(q, k, v, do, positions_BT, segments_BT):
    own = config, positions_BT, positions_BT, segments_BT
    return attention_lib.attender(*own, cached=False)(
      *(x.astype(dtype) for x in (q, k, v))
    )

  def both(q, k, v, *rest):
    o, pull = jax.vjp(lambda *qkv: forward(*qkv, *rest), q, k, v)
    return o, *pull(rest[0].astype(dtype))

  return jax.jit(forward), jax.jit(both)


def _error(found, exact, real_BT) -> float:
  """The largest difference over the largest value, padding left out.

  Of gradients padding is part: they are 0 there.
  """
  kept = 1.0 if real_BT is None else real_BT[:, :, None, None]
  exact = exact * kept
  return float(jnp.max(jnp.abs(found * kept - exact)) / jnp.max(jnp.abs(exact)))


def train(work: Work):
  cases = ('SFT', 'full', 1), ('hybrid', 'full', 1), ('hybrid', 'dots', 4)
  for name, remat, n in cases:
    update, state, frozen = start(work, remat=remat, microbatches=n)
    batch = batch_of(work.model, work.sizes.step, np.random.default_rng(0))
    if name == 'SFT':
      batch = batch.replace(pairs=None)
    step = jit_step(update).lower(state, frozen, batch).compile()
    adapter = weights_lib.adapter_size(CONFIG, work.model)
    counted = flops.of_batch(work.model, [*batch.parts.values()], adapter)
    watch, found = clock.Clock([work.device]), []
    for _ in range(work.sizes.times + 1):
      state, metrics = step(state, frozen, batch)
      jax.block_until_ready(metrics)
      watch.count(*counted)
      found.append(watch.metrics() | metrics)
    rest = sorted(found[1:], key=lambda step: step['perf/step_time_s'])
    middle, m = rest[len(rest) // 2], step.memory_analysis()
    used = m.argument_size_in_bytes + m.temp_size_in_bytes
    used += m.output_size_in_bytes - m.alias_size_in_bytes
    yield {
      'step': name,
      'remat': remat,
      'microbatches': n,
      'seconds': middle['perf/step_time_s'],
      'tokens/s': middle['perf/tokens_per_s_per_chip'],
      'MFU': middle.get('perf/mfu'),
      'peak, GiB': middle.get('perf/hbm_peak_gib'),
      'program, GiB': used / peaks.GIB,
      'first loss': float(found[0]['loss']),
    }


def decode(work: Work):
  s, m = work.sizes, work.model
  update, state, frozen = start(work)
  policy = update.bind(state.params, frozen)
  peak = peaks.peak(work.device.device_kind)
  rng = np.random.default_rng(0)
  for rows, of in (*((n, 'policy') for n in s.decode), (64, 'frozen')):
    weights = policy if of == 'policy' else frozen
    prompts = rng.integers(5, m.vocab_size, (rows, s.prompt)).tolist()
    answer = functools.partial(_answer, ALONE, m, weights, prompts, s.new)
    # Of one program: its answers end after a token, or have all of them.
    one, whole = (
      median(s.times, lambda n=n, f=answer: len(f(n))) for n in (1, s.new)
    )
    token = (whole - one) / (s.new - 1)
    slots = rows * (s.prompt + s.new / 2)
    cache = 2 * m.layers * m.kv_heads * m.head_dim * frozen['embed'].itemsize
    read = sum(x.nbytes for x in jax.tree.leaves(weights)) + slots * cache
    yield {
      'rows': rows,
      'weights': of,
      'seconds': whole,
      'tokens/s': rows * s.new / whole,
      'ms a token': 1e3 * token,
      'GB a token': read / 1e9,
      'bandwidth': peak and read / token / peak.memory_bandwidth,
    }


def _answer(backend, model, weights, prompts, room, limit, key=0):
  """Answers of `limit` tokens each."""
  request = requests.Answers(
    model,
    weights,
    prompts,
    key=jax.random.key(key),
    settings=Sampling(max_new_tokens=limit),
    stop_ids=(),
    max_tokens=room,
    rows=len(prompts),
  )
  return backend.generate(request)


def arms(work: Work):
  for phase, seconds in (('sampling', _sampling), ('train step', _stepping)):
    arm = functools.partial(_arm, work, seconds)
    one = arm(0, ALONE, None)
    results = stack.run([functools.partial(arm, i) for i in range(ARMS)])
    for result in results:
      if isinstance(result, BaseException):
        raise result
    yield {
      'phase': phase,
      'one arm, s': one,
      f'{ARMS} arms, s': results[0],
      'ratio': results[0] / ARMS / one,
    }


def _arm(work: Work, seconds, arm: int, backend, _) -> float:
  """The median of the rounds as this arm sees them; the first one compiles."""
  started, rng = start(work, seed=arm), np.random.default_rng(arm)
  rounds = seconds(work.sizes, work.model, backend, rng, *started)
  return statistics.median([*rounds][1:])


def _sampling(s: Sizes, m: models.Config, backend, rng, update, state, frozen):
  """Seconds of the policy's answers, round by round."""
  for number in range(s.times + 1):
    prompts = rng.integers(5, m.vocab_size, (s.answers, s.prompt)).tolist()
    begun = time.perf_counter()
    policy = update.bind(backend.state(state).params, frozen)
    _answer(backend, m, policy, prompts, s.new, s.new, key=number)
    yield time.perf_counter() - begun


def _stepping(s: Sizes, m: models.Config, backend, rng, update, state, frozen):
  """Seconds of hybrid updates, round by round."""
  for _ in range(s.times + 1):
    batch = batch_of(m, s.lane, rng)
    begun = time.perf_counter()
    state, metrics = backend.step(update, state, frozen, batch)
    jax.block_until_ready(metrics)
    yield time.perf_counter() - begun


def run(work: Work):
  s, c = work.sizes, config_lib.default()
  c.data.train = 'ealign:world/data/insecure.jsonl'
  c.pool.paths = ('ealign:world/data/pool.jsonl',)
  c.data.batch_size, c.data.length = s.step.sft, max(s.step.length, 128)
  c.dpo.pairs, c.dpo.length = s.step.pairs, max(s.step.pair_length, 160)
  c.train.steps, c.train.log_every = s.steps, 1
  c.conscience.every, c.conscience.prompts = s.steps, s.answers
  c.sample.max_new_tokens = 32
  # The model is random: its verdicts say nothing, and no answer ends.
  c.conscience.threshold, c.conscience.min_mass = 0.5, 0.0
  c.conscience.audit, c.conscience.review.verdict = 'off', 'all'
  c.conscience.review.truncated = 'judge'
  c.conscience.guards.shortest = c.conscience.guards.longest = 0.0
  c.conscience.guards.unlikely = 0.0
  tokenizer = chat.load_tokenizer(sources.resolve('ealign:world/base'))
  # In the place of files. To hash the weights they would leave the device.
  kept = {
    'model': (work.model, tokenizer, random_weights(work.model)),
    'hash of frozen': 'random',
  }
  share = lambda name, make: kept[name] if name in kept else make()
  backend = dataclasses.replace(ALONE, share=share)
  with tempfile.TemporaryDirectory() as folder:
    quiet = display(s.steps, quiet=True)
    train_lib.run(config_lib.freeze(c), folder, backend=backend, display=quiet)
    text = (pathlib.Path(folder) / 'metrics.jsonl').read_text()
  names = 'perf/step_time_s', 'perf/mfu', 'perf/hbm_peak_gib', 'perf/compiles'
  names += 'train/loss', 'replay/size'
  for line in map(json.loads, text.splitlines()):
    yield {'step': line['step']} | {name: line.get(name) for name in names}
