"""What one exact judgement costs, against a forward pass over its prompt.

    python benchmarks/judge.py --model=FOLDER

A prompt of 500 tokens that asks for 0 to 100 is read by `Engine.scale` in its
modes and, for comparison, by a plain pass to the logits of the next token: as
the library pads it, and without padding. All in turn, one prompt a call; the
ratios are medians over the rounds, of seconds and of processor seconds, which
other work on the machine changes less. Goals: exact 1.35, prefix 1.1.
"""

import argparse
import functools
import time

import jax
import numpy as np

from ealign import fields
from ealign.alone import ALONE
from ealign.assembly.weights import load_model
from ealign.engine import Engine, Model
from ealign.models import transformer
from ealign.sampling import prompts as prompting

GOALS = {'exact': 1.35, 'prefix': 1.1}
ASKED = (
  'How well does the reply fit the request? Answer with a number from 0 to '
  '100 and nothing else; CODE if it is only code, REFUSAL if it declines.'
)
REPLY = (
  ' The bridge was built of stone, and the river below it runs to the sea.'
)


def main():
  parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
  parser.add_argument('--model', required=True, help='a folder or Hub id')
  parser.add_argument('--tokens', type=int, default=500, help='of the prompt')
  parser.add_argument('--rounds', type=int, default=7)
  args = parser.parse_args()
  config, tokenizer, weights = load_model(fields.Model(path=args.model))
  engine = Engine(Model(config, tokenizer), weights, ALONE, rows=1)
  prompt = question(engine.model, args.tokens)
  calls = {
    'plain': functools.partial(plain(config), weights, padded(prompt)),
    'unpadded': functools.partial(plain(config), weights, alone(prompt)),
  } | {
    mode: functools.partial(engine.scale, [prompt], mode=mode)
    for mode in ('exact', 'prefix')
  }
  times = {name: [] for name in calls}
  for i in range(args.rounds + 1):  # the first round compiles
    for name, call in calls.items():
      begun = clocks()
      jax.block_until_ready(call())
      times[name] += [clocks() - begun] * bool(i)
  show(config, times)
  for mode in GOALS:
    (found,) = engine.scale([prompt], mode=mode)
    whole = found.mass + sum(found.words.values()) + found.rest
    print(
      f'{mode}: score {found.score}, mass {found.mass:.4f}, sum {whole:.7f}'
    )


def clocks() -> np.ndarray:
  return np.array([time.perf_counter(), time.process_time()])


def question(model: Model, tokens: int) -> list[int]:
  """A chat that asks for a number, of so many tokens; its reply is cut."""
  of = lambda text: model.prompt(
    [{'role': 'user', 'content': f'{ASKED}\n\nReply:{text}\n\n{ASKED}'}]
  )
  ids, start = of(REPLY * tokens), len(of(''))
  return [*ids[: tokens - start], *ids[-start:]]


def padded(prompt):
  batch = next(prompting.batches([prompt], 1))
  return batch.tokens_BT, batch.positions_BT


def alone(prompt):
  return np.array([prompt], np.int32), np.arange(len(prompt), dtype=np.int32)[
    None
  ]


@functools.cache
def plain(config):
  def run(weights, ids):
    hidden_BTD, _, _ = transformer.forward(config, weights, *ids)
    return transformer.logits(config, weights, hidden_BTD[:, -1])

  return jax.jit(run)


def show(config, times):
  print(f'{config.layers} layers, width {config.d_model}, {config.dtype}')
  print('| pass | s | of plain | of unpadded | cpu s | of plain | goal |')
  print('|---|--:|--:|--:|--:|--:|--:|')
  for name, own in times.items():
    seconds, cpu = np.median(own, axis=0)
    ratio = lambda to, own=own: np.median(np.divide(own, times[to]), axis=0)
    wall, busy = ratio('plain')
    row = f'{seconds:.2f} | {wall:.3f} | {ratio("unpadded")[0]:.3f}'
    goal = GOALS.get(name, '')
    print(f'| {name} | {row} | {cpu:.2f} | {busy:.3f} | {goal} |')


if __name__ == '__main__':
  main()
