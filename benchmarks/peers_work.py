"""One contestant of `benchmarks/peers.py`, in a process of its own.

    PYTHON benchmarks/peers_work.py dpo 'TRL, cached'

Prints its tokens a second. It runs in environments without ealign, so whatever
is not Python's own is imported where it is used.
"""

import os
import pathlib
import statistics
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
MODULES = [f'{x}_proj' for x in ('q', 'k', 'v', 'o', 'gate', 'up', 'down')]


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


def ealign_generate(_: bool, work='generate', new=NEW, stops=()):
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


def transformers_generate(_: bool, work='generate', new=NEW, stops=()):
  import numpy as np
  import torch

  model = torch_model().eval()
  asked = prompts(work, np.random.default_rng(0))
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


def tunix_dpo(_: bool):
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


def tunix_generate(_: bool, work='generate', new=NEW, stops=()):
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
  print(run(*sys.argv[1:]))
