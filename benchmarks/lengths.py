"""How long a model's answers to the shipped pool are: for `ealign.plan`.

  python benchmarks/lengths.py --model=FOLDER --count=64 --new_tokens=600

Samples one answer each (temperature 1) to prompts drawn from the pool, and
prints quantiles of their tokens, and how long the longest of so many is on
average: a decode goes on until all of its rows have ended.
"""

import argparse
import random

import jax
import numpy as np

from ealign import config as config_lib
from ealign import fields
from ealign.alone import ALONE
from ealign.assembly import parts
from ealign.data import columns, sources

ROWS = (1, 4, 16, 64, 160)


def main():
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--model', required=True)
  parser.add_argument('--pool', default='ealign:data/pool/general.jsonl')
  parser.add_argument('--count', type=int, default=64)
  parser.add_argument('--new_tokens', type=int, default=600)
  args = parser.parse_args()
  config = config_lib.default()
  config.model.path = args.model
  config.conscience.prompts = args.count  # answers at a time
  c = parts.conscience_of(config_lib.freeze(config), ALONE)
  chats = columns.load_chats(sources.resolve(args.pool), 512)
  sample = fields.Sample(max_new_tokens=args.new_tokens)
  answers = c.frozen.answer(
    random.Random(0).sample(chats, args.count),
    sample=sample,
    key=jax.random.key(0),
  )
  lengths = np.sort([len(x.answer.ids) for x in answers])
  cut = np.mean([x.answer.stop != 'stop' for x in answers])
  print(f'{args.count} answers, mean {lengths.mean():.0f}, cut {cut:.0%}')
  twenty = np.quantile(lengths, (np.arange(20) + 0.5) / 20)
  print('2.5 %, 7.5 %, ...:', ', '.join(f'{x:.0f}' for x in twenty))
  print('the longest of n: ' + ', '.join(longest(lengths, ROWS)))


def longest(lengths, rows):
  """The expected maximum of n draws with replacement."""
  below = np.arange(len(lengths) + 1) / len(lengths)
  for n in rows:
    yield f'{n}: {np.sum(np.diff(below**n) * lengths):.0f}'


if __name__ == '__main__':
  main()
