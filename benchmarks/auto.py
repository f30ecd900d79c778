"""Whether `auto:ALPHA` flags as few of a model's own answers as it says.

  python benchmarks/auto.py --model=FOLDER --prompts=FILE.jsonl --count=1000

The threshold is found on the frozen model's answers to so many prompts of the
file, drawn at random. It then answers as many others, and the share of these
fresh answers that would be flagged is printed; and what a threshold found on
fewer of the first would flag, the mean and the largest share of 50 draws. The
file has rows as a pool has: `messages` or `prompt`.
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

FEWER = 200, 500
DRAWS = 50


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
    found.append(calibration.reference(c, half, key=key))
    known = [p for p in found[-1].p if p is not None]
    print(f'{len(known)} of {len(half)} answers have a verdict', flush=True)
  known, fresh = ([p for p in one.p if p is not None] for one in found)
  flagged = np.mean([p >= found[0].threshold for p in fresh])
  print(
    '| found on | threshold | flagged of the fresh answers |\n|---|---|---|'
  )
  print(f'| {args.count} | {found[0].threshold:.4f} | {flagged:.1%} |')
  for n in FEWER:
    if conformal.least(args.alpha) <= n < len(known):
      mean, most = draws(known, np.array(fresh), n, args.alpha)
      print(f'| {n} | - | {mean:.1%} on average, {most:.1%} at most |')


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


def draws(known, fresh, n: int, alpha: float) -> tuple[float, float]:
  """Mean and largest share that is flagged, of `DRAWS` calibrations on n."""
  some = [
    np.random.default_rng(i).choice(known, n, False) for i in range(DRAWS)
  ]
  shares = [np.mean(fresh > conformal.kth([*own], alpha)) for own in some]
  return np.mean(shares), max(shares)


if __name__ == '__main__':
  main()
