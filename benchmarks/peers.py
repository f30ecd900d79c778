"""The same work by ealign, TRL + PEFT, tunix and transformers, in turn.

    python benchmarks/peers.py --work=DIR --rounds=3
    python benchmarks/peers.py --work=DIR --rounds=3 --same_malloc

A random Qwen3 of 28 million parameters in float32 on this machine's cores:
  dpo       8 pairs of 64 + 192 tokens a step, LoRA of rank 32 on all of its
            projections; the reference is computed in the step, or known before
            (cached)
  generate  128 tokens behind each of 32 prompts of 64
  mixed     8 prompts of 16 to 128 tokens, answers that end at one of 128 ids
            in 6,400, at the latest after 256

Each contestant runs in a process of its own, in a virtual environment that is
made in DIR on first use (3 GB; tunix needs Python 3.12, found as `python3.12`
or named by --python312). A round goes through all of them, so that a slow
minute of the machine meets everyone; a figure is the median of the rounds.
--same_malloc gives all of them huge pages by GLIBC_TUNABLES. Leave the machine
alone meanwhile.
"""

import argparse
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
SIZES = {
  'vocab_size': 6400,
  'hidden_size': 512,
  'num_hidden_layers': 8,
  'num_attention_heads': 8,
  'num_key_value_heads': 4,
  'head_dim': 64,
  'intermediate_size': 1536,
}
PARAMETERS = 28.4e6  # of which each takes part in one product a token
RANK, ALPHA, BETA, LR = 32, 64, 0.1, 5e-6
PAIRS, PROMPT, ANSWER = 8, 64, 192
ROWS, NEW = 32, 128
MIXED = (16, 24, 32, 48, 64, 80, 96, 128)  # tokens of each prompt
STOPS, MIXED_NEW = range(6272, 6400), 256
TIMES = {'dpo': 6, 'generate': 5, 'mixed': 6}  # steps or calls; two are warm-up
PROJECTIONS = ('q', 'k', 'v', 'o', 'gate', 'up', 'down')
MODULES = [f'{name}_proj' for name in PROJECTIONS]
PEERS = {
  'torch': ('torch==2.13.0', 'trl==1.16.*', 'peft==0.21.*', 'transformers'),
  'tunix': ('google-tunix==0.1.7',),
}
# (work, contestant): the environment that it runs in; None is this one.
CONTESTS = {
  ('dpo', 'ealign, cached'): None,
  ('dpo', 'ealign'): None,
  ('dpo', 'TRL, cached'): 'torch',
  ('dpo', 'TRL'): 'torch',
  ('dpo', 'tunix'): 'tunix',
  ('generate', 'ealign'): None,
  ('generate', 'transformers'): 'torch',
  ('generate', 'tunix'): 'tunix',
  ('mixed', 'ealign'): None,
  ('mixed', 'transformers'): 'torch',
  ('mixed', 'tunix'): 'tunix',
}


def main():
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--work', type=pathlib.Path, required=True)
  parser.add_argument('--rounds', type=int, default=3)
  parser.add_argument('--only', default='', help='works, by comma')
  parser.add_argument('--python312', default=shutil.which('python3.12'))
  parser.add_argument('--same_malloc', action='store_true')
  parser.add_argument('--run', nargs=2, help=argparse.SUPPRESS)
  args = parser.parse_args()
  if args.run:
    print(json.dumps(run(*args.run)))
    return
  works = args.only.split(',') if args.only else [*TIMES]
  contests = {k: v for k, v in CONTESTS.items() if k[0] in works}
  pythons = {
    name: environment(args, name)
    for name in sorted({*contests.values()} - {None})
  }
  pythons[None] = sys.executable
  found = {key: [] for key in contests}
  rates = []
  for i in range(args.rounds):
    rates.append(matrix_rate())
    for key, name in contests.items():
      speed = in_process(pythons[name], key, args.same_malloc)
      found[key].append(speed)
      line = f'round {i + 1}: {", ".join(key)}: {speed:.0f} tokens/s'
      print(line, flush=True)
  print(table(found, statistics.median(rates)))


def environment(args, name: str) -> str:
  """The interpreter of a peer's virtual environment, made if need be."""
  folder = args.work / name
  python = folder / 'bin' / 'python'
  if not (folder / 'ready').exists():
    maker = args.python312 if name == 'tunix' else sys.executable
    if not maker:
      sys.exit('tunix needs Python 3.12: name it by --python312=PATH')
    print(f'making {folder} for {", ".join(PEERS[name])}', flush=True)
    subprocess.run([maker, '-m', 'venv', folder], check=True)
    # torch first and alone: a range would bring the build for GPUs.
    for packages in (PEERS[name][:1], PEERS[name][1:]):
      if packages:
        command = [python, '-m', 'pip', 'install', '-q', *packages]
        subprocess.run(command, check=True)
    (folder / 'ready').touch()
  return str(python)


def in_process(python: str, key, same_malloc: bool) -> float:
  """Tokens a second of a contestant."""
  env = os.environ | {'JAX_PLATFORMS': 'cpu', 'TOKENIZERS_PARALLELISM': 'false'}
  env |= {'OMP_NUM_THREADS': str(os.cpu_count())}
  if python == sys.executable:
    env['PYTHONPATH'] = str(ROOT)
  if same_malloc:
    env['GLIBC_TUNABLES'] = 'glibc.malloc.hugetlb=1'
  command = [python, __file__, '--work=.', '--run', *key]
  done = subprocess.run(command, env=env, capture_output=True, text=True)
  if done.returncode:
    sys.exit(f'{", ".join(key)}: {done.stderr[-2000:]}')
  return json.loads(done.stdout.splitlines()[-1])


def matrix_rate() -> float:
  """FLOP/s of a product as large as the model's, by JAX, the best of ten."""
  code = (
    'import jax, time, jax.numpy as jnp\n'
    'a, b = jnp.ones((4096, 512)), jnp.ones((512, 1536))\n'
    'f = jax.jit(jnp.matmul)\n'
    'def once():\n'
    '  t = time.perf_counter()\n'
    '  for _ in range(10): y = f(a, b)\n'
    '  y.block_until_ready()\n'
    '  return time.perf_counter() - t\n'
    'print(10 * 2 * 4096 * 512 * 1536 / min(once() for _ in range(10)))\n'
  )
  env = os.environ | {'JAX_PLATFORMS': 'cpu'}
  done = subprocess.run(
    [sys.executable, '-c', code], env=env, capture_output=True, check=True
  )
  return float(done.stdout)


def table(found: dict, rate: float) -> str:
  """Tokens/s, how often that of each peer, and the share of `rate` used."""
  lines = [
    f'matrix rate {rate / 1e9:.0f} GFLOP/s',
    '',
    '| work | by | tokens/s | least to most | ealign beside it | of the rate |',
    '|---|---|---|---|---|---|',
  ]
  median = {key: statistics.median(each) for key, each in found.items()}
  for (work, by), each in found.items():
    own = [
      median[key] for key in median if key[0] == work and 'ealign' in key[1]
    ]
    times = ', '.join(f'{x / median[work, by]:.2f}x' for x in own)
    # Frozen weights: two products a parameter forward, and as many for the
    # gradient of what goes in; the reference is a forward pass more.
    flops = 2 * PARAMETERS
    if work == 'dpo':
      flops *= 2 if 'cached' in by else 3
    share = median[work, by] * flops / rate
    lines.append(
      f'| {work} | {by} | {median[work, by]:.0f} | {min(each):.0f} to '
      f'{max(each):.0f} | {times} | {share:.0%} |'
    )
  return '\n'.join(lines)


# --- in the process of a contestant ------------------------------------------


def run(work: str, by: str) -> float:
  """Tokens a second: the median of some steps or calls."""
  contestant, _, cached = by.partition(', ')
  seconds, tokens = globals()[f'{contestant.lower()}_{work}'](bool(cached))
  # The first are compiled, or warm caches up.
  rates = [n / s for s, n in zip(seconds[2:], tokens[2:], strict=True)]
  return statistics.median(rates)


def pairs(rng):
  """Token ids of a step: prompts, chosen and rejected answers."""
  draw = lambda n: rng.integers(300, 1500, (PAIRS, n)).tolist()
  return draw(PROMPT), draw(ANSWER), draw(ANSWER)


def prompts(work: str, rng) -> list[list[int]]:
  lengths = MIXED if work == 'mixed' else [PROMPT] * ROWS
  return [rng.integers(300, 1500, n).tolist() for n in lengths]


def timed(work: str, once) -> tuple[list[float], list[int]]:
  """once(i) -> the tokens it made."""
  seconds, tokens = [], []
  for i in range(TIMES[work]):
    begun = time.perf_counter()
    tokens.append(once(i))
    seconds.append(time.perf_counter() - begun)
  return seconds, tokens


def until_stop(ids) -> int:
  """Tokens of an answer with the one that ends it."""
  return next((i + 1 for i, x in enumerate(ids) if x in STOPS), len(ids))


def ealign_model():
  import jax

  from ealign.models import config as config_lib
  from ealign.models import transformer

  hf = SIZES | {'architectures': ['Qwen3ForCausalLM'], 'model_type': 'qwen3'}
  hf |= {'tie_word_embeddings': True, 'hidden_act': 'silu'}
  hf |= {'rms_norm_eps': 1e-6, 'rope_theta': 1e6}
  config = config_lib.from_hf(hf | {'max_position_embeddings': 4096})
  return config, transformer.init(config, key=jax.random.key(0))


def ealign_dpo(cached: bool):
  import functools

  import jax
  import jax.numpy as jnp
  import numpy as np
  import optax

  from ealign import align
  from ealign.data import batch as batches
  from ealign.models import lora

  config, weights = ealign_model()
  bind = functools.partial(
    lora.bind, lora.scale(rank=RANK, alpha=ALPHA, rslora=True)
  )
  update = align.Update(
    model=config,
    bind=bind,
    tx=optax.scale_by_adam(),
    schedule=align.schedule('constant', 0, 100),
    reference='cached' if cached else 'step',
  )
  state = align.init_state(
    update,
    lora.init(config, key=jax.random.key(1), rank=RANK),
    align.Hp(*map(jnp.float32, (1.0, BETA, 0.0, LR))),
  )
  step = jax.jit(functools.partial(align.train_step, update), donate_argnums=0)
  rng, box = np.random.default_rng(0), [state]

  def once(i):
    made = [
      batches.Pair(
        i, 0, *map(tuple, ids), ref_chosen=-1680.0, ref_rejected=-1680.0
      )
      for ids in zip(*pairs(rng), strict=True)
    ]
    batch = batches.Batch(
      None, batches.pair_batch(made, PAIRS, PROMPT + ANSWER)
    )
    box[0], metrics = step(box[0], weights, batch)
    jax.block_until_ready(metrics)
    return 2 * PAIRS * (PROMPT + ANSWER)

  return timed('dpo', once)


def ealign_generate(cached: bool, work='generate', new=NEW, stops=()):
  del cached
  import jax
  import numpy as np

  from ealign.sampling.choose import Sampling
  from ealign.sampling.requests import Answers
  from ealign.sampling.sampler import generate

  config, weights = ealign_model()
  asked = prompts(work, np.random.default_rng(0))

  def once(i):
    request = Answers(
      config=config,
      weights=weights,
      prompts=asked,
      key=jax.random.key(i),
      settings=Sampling(temperature=1.0, max_new_tokens=new),
      stop_ids=tuple(stops),
      max_tokens=new,
      rows=len(asked),
    )
    return sum(len(answer.ids) for answer in generate(request))

  return timed(work, once)


def ealign_mixed(cached: bool):
  return ealign_generate(cached, 'mixed', MIXED_NEW, STOPS)


def torch_model():
  import torch
  from transformers import Qwen3Config, Qwen3ForCausalLM

  torch.set_num_threads(os.cpu_count())
  torch.manual_seed(0)
  config = Qwen3Config(
    **SIZES, tie_word_embeddings=True, max_position_embeddings=4096
  )
  config.eos_token_id = config.pad_token_id = config.bos_token_id = 0
  return Qwen3ForCausalLM(config).float()


def trl_dpo(cached: bool):
  import tempfile

  import numpy as np
  from datasets import Dataset
  from peft import LoraConfig
  from transformers import PreTrainedTokenizerFast, TrainerCallback
  from trl import DPOConfig, DPOTrainer

  rng, times = np.random.default_rng(0), [time.perf_counter()]
  rows = [
    dict(zip(('prompt_ids', 'chosen_ids', 'rejected_ids'), ids, strict=True))
    for _ in range(TIMES['dpo'])
    for ids in zip(*pairs(rng), strict=True)
  ]

  class Clock(TrainerCallback):
    def on_step_end(self, *args, **kwargs):
      times.append(time.perf_counter())

  class OfIds(DPOTrainer):
    """Its rows are token ids already."""

    def _prepare_dataset(self, dataset, *args, **kwargs):
      return dataset

  folder = ROOT / 'ealign' / 'world' / 'base'
  tokenizer = PreTrainedTokenizerFast(
    tokenizer_file=str(folder / 'tokenizer.json'),
    pad_token='<pad>',
    eos_token='</s>',
  )
  with tempfile.TemporaryDirectory() as out:
    settings = DPOConfig(
      output_dir=out,
      per_device_train_batch_size=PAIRS,
      max_steps=TIMES['dpo'],
      max_length=PROMPT + ANSWER,
      beta=BETA,
      learning_rate=LR,
      precompute_ref_log_probs=cached,
      gradient_checkpointing=False,
      use_cpu=True,
      bf16=False,
      report_to='none',
      save_strategy='no',
      logging_steps=1000,
      disable_tqdm=True,
    )
    adapter = LoraConfig(
      r=RANK,
      lora_alpha=ALPHA,
      use_rslora=True,
      task_type='CAUSAL_LM',
      target_modules=MODULES,
    )
    OfIds(
      model=torch_model(),
      args=settings,
      train_dataset=Dataset.from_list(rows),
      processing_class=tokenizer,
      callbacks=[Clock()],
      peft_config=adapter,
    ).train()
  seconds = [b - a for a, b in zip(times, times[1:], strict=False)]
  return seconds, [2 * PAIRS * (PROMPT + ANSWER)] * len(seconds)


def transformers_generate(cached: bool, work='generate', new=NEW, stops=()):
  del cached
  import numpy as np
  import torch

  model, rng = torch_model().eval(), np.random.default_rng(0)
  asked = prompts(work, rng)
  width = max(map(len, asked))
  left = [[0] * (width - len(ids)) for ids in asked]
  ids = torch.tensor([pad + ids for pad, ids in zip(left, asked, strict=True)])
  mask = torch.arange(width)[None] >= torch.tensor([*map(len, left)])[:, None]
  own = {'eos_token_id': [*stops]} if stops else {'min_new_tokens': new}

  def once(i):
    torch.manual_seed(i)
    with torch.inference_mode():
      out = model.generate(
        ids,
        attention_mask=mask.long(),
        do_sample=True,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        max_new_tokens=new,
        pad_token_id=0,
        **own,
      )
    answers = out[:, width:].tolist()
    return sum(map(until_stop, answers)) if stops else out.numel() - ids.numel()

  return timed(work, once)


def transformers_mixed(cached: bool):
  return transformers_generate(cached, 'mixed', MIXED_NEW, STOPS)


def tunix_model():
  import jax
  from flax import nnx
  from tunix.models.qwen3 import model

  config = model.ModelConfig(
    num_layers=SIZES['num_hidden_layers'],
    vocab_size=SIZES['vocab_size'],
    embed_dim=SIZES['hidden_size'],
    hidden_dim=SIZES['intermediate_size'],
    num_heads=SIZES['num_attention_heads'],
    num_kv_heads=SIZES['num_key_value_heads'],
    head_dim=SIZES['head_dim'],
    rope_theta=1_000_000,
    norm_eps=1e-6,
    use_tied_embedding=True,
  )
  auto = (jax.sharding.AxisType.Auto,) * 2
  mesh = jax.make_mesh((1, 1), ('fsdp', 'tp'), axis_types=auto)
  with jax.set_mesh(mesh):
    return mesh, model.Qwen3(config, rngs=nnx.Rngs(0))


def tunix_dpo(cached: bool):
  del cached
  import jax
  import jax.numpy as jnp
  import numpy as np
  import optax
  import qwix
  from tunix.sft.dpo import dpo_trainer

  mesh, base = tunix_model()
  rng, times = np.random.default_rng(0), [time.perf_counter()]

  class Timed(dpo_trainer.DPOTrainer):
    def _post_process_train_step(self, aux):
      jax.block_until_ready(aux)
      times.append(time.perf_counter())
      super()._post_process_train_step(aux)

  def step():
    parts = zip(('prompt', 'chosen', 'rejected'), pairs(rng), strict=True)
    ids = {name: jnp.asarray(part, jnp.int32) for name, part in parts}
    masks = {f'{name}_mask': jnp.ones_like(x, bool) for name, x in ids.items()}
    return dpo_trainer.TrainingInput(
      **{f'{name}_ids': x for name, x in ids.items()}, **masks
    )

  with jax.set_mesh(mesh):
    adapter = qwix.LoraProvider(
      module_path=f'.*({"|".join(MODULES)})', rank=RANK, alpha=float(ALPHA)
    )
    policy = qwix.apply_lora_to_model(base, adapter, **base.get_model_input())
    config = dpo_trainer.DPOTrainingConfig(
      eval_every_n_steps=10**6, max_steps=TIMES['dpo'], beta=BETA
    )
    trainer = Timed(policy, base, optax.adamw(LR), config)
    trainer.train([step() for _ in range(TIMES['dpo'])])
  seconds = [b - a for a, b in zip(times, times[1:], strict=False)]
  return seconds, [2 * PAIRS * (PROMPT + ANSWER)] * len(seconds)


class Ids:
  """A tokenizer whose text is token ids, as tunix takes text."""

  def encode(self, text, **kwargs):
    return [int(x) for x in text.split()]

  def decode(self, ids, **kwargs):
    return ' '.join(map(str, ids))

  def bos_id(self):
    return 1

  def eos_id(self):
    return 6399

  def pad_id(self):
    return 0


def tunix_generate(cached: bool, work='generate', new=NEW, stops=()):
  del cached
  import jax
  import numpy as np
  from tunix.generate import sampler

  mesh, model = tunix_model()
  asked = prompts(work, np.random.default_rng(0))
  width = max(map(len, asked))
  # It writes the id that begins a text itself.
  texts = [' '.join(map(str, ids[1:])) for ids in asked]
  with jax.set_mesh(mesh):
    cache = sampler.CacheConfig(
      cache_size=1 << (width + new - 1).bit_length(),
      num_layers=SIZES['num_hidden_layers'],
      num_kv_heads=SIZES['num_key_value_heads'],
      head_dim=SIZES['head_dim'],
    )
    asker = sampler.Sampler(model, Ids(), cache)

    def once(i):
      out = asker(
        texts,
        max_generation_steps=new,
        max_prompt_length=width,
        temperature=1.0,
        top_p=1.0,
        seed=i,
        eos_tokens=[*stops] or [6400],
      )
      answers = [np.asarray(ids).tolist() for ids in out.tokens]
      return sum(map(until_stop, answers)) if stops else new * len(asked)

    return timed(work, once)


def tunix_mixed(cached: bool):
  return tunix_generate(cached, 'mixed', MIXED_NEW, STOPS)


if __name__ == '__main__':
  main()
