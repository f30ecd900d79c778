"""Whether `auto:ALPHA` flags as few of a model's own answers as it says.

  python benchmarks/auto.py --model=FOLDER --prompts=FILE.jsonl --count=1000

The threshold is found on the frozen model's answers to so many prompts of the
file, drawn at random. It then answers as many others, and the share of these
fresh answers that would be flagged is printed; the same the other way round;
and for random halves of all of them, the mean and where 95 % of the shares lie.
The file has rows as a pool has: `messages` or `prompt`.
"""

import argparse
import random

import jax
import numpy as np

from ealign import config as config_lib
from ealign import fields
from ealign.alone import ALONE
from ealign.assembly import parts
from ealign.conscience import calibration, conformal
from ealign.data import columns

HALVES = 500


def main():
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--model', required=True)
  parser.add_argument('--prompts', required=True)
  parser.add_argument('--count', type=int, default=200, help='of each half')
  parser.add_argument('--alpha', type=float, default=0.05)
  parser.add_argument('--new_tokens', type=int, default=32)
  parser.add_argument('--framing', default='ethical')
  args = parser.parse_args()
  chats = columns.load_chats(args.prompts, 512)
  if len(chats) < 2 * args.count:
    parser.error(f'--count={args.count}: the file has {len(chats)} prompts')
  random.Random(0).shuffle(chats)
  c = parts.conscience_of(settings(args), ALONE)
  halves = chats[: args.count], chats[args.count : 2 * args.count]
  found = []
  for half, key in zip(
    halves, jax.random.split(jax.random.key(0)), strict=True
  ):
    reference = calibration.reference(c, half, key=key)
    found.append(np.array([p for p in reference.p if p is not None]))
    print(
      f'{len(found[-1])} of {len(half)} answers have a verdict; '
      f'threshold {reference.threshold:.4f}',
      flush=True,
    )
  first, second = found
  print('| found on | flags |\n|---|---|')
  print(
    f'| the first {len(first)} | {flagged(first, second, args.alpha):.1%} |'
  )
  print(f'| the others | {flagged(second, first, args.alpha):.1%} |')
  both, shares = np.concatenate([first, second]), []
  for i in range(HALVES):
    drawn = np.random.default_rng(i).permutation(both)
    shares.append(flagged(*np.split(drawn, [len(first)]), args.alpha))
  low, high = np.quantile(shares, [0.025, 0.975])
  print(f'| random halves | {np.mean(shares):.1%} [{low:.1%}, {high:.1%}] |')


def flagged(known, fresh, alpha: float) -> float:
  """The share of the fresh P that a threshold found on the known ones flags."""
  return float(np.mean(fresh > conformal.kth(known.tolist(), alpha)))


def settings(args) -> fields.Config:
  config = config_lib.default()
  config.model.path = args.model
  config.model.dtype = 'bfloat16'
  config.sample.max_new_tokens = args.new_tokens
  config.conscience.prompts = 64  # answers at a time
  config.conscience.framing = args.framing
  config.conscience.threshold = f'auto:{args.alpha}'
  config.conscience.review.truncated = 'judge'
  return config_lib.freeze(config)


if __name__ == '__main__':
  main()
