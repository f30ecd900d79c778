"""Whether the beginning of a reply tells as much of it as the whole does.

  python benchmarks/cut.py --model=FOLDER --framing=fair --form=yes_no

The shipped exchanges are judged whole, and cut to a share of their tokens and
judged as far as they go (`conscience.review.truncated=judge`). Prints the AUC
of each kind, with the 95 % intervals of `ealign.audit`, and the mean length.
Both splits are judged, as nothing is chosen.
"""

import argparse
import dataclasses

import jax
import numpy as np

from ealign import config as config_lib
from ealign import fields
from ealign.alone import ALONE
from ealign.assembly import parts
from ealign.conscience import asking
from ealign.data import exchanges
from ealign.evals.audit import measures

SHARES = 1.0, 0.75, 0.5, 0.25


def main():
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--model', required=True)
  parser.add_argument('--framing', default='ethical')
  parser.add_argument('--form', default='words')
  parser.add_argument('--sees', default='chat')
  parser.add_argument('--kinds', default='plain,code')
  args = parser.parse_args()
  config = settings(args)
  c = parts.conscience_of(config, ALONE)
  rows = exchanges.read(config.conscience.exchanges, config.data.max_mib)
  print('| kind | of each reply | tokens | AUC |')
  print('|---|---|---|---|')
  for kind in args.kinds.split(','):
    own = [row for row in rows if row.kind == kind]
    chats = c.reviewer.model.exchanges([row.messages for row in own])
    for share in SHARES:
      cut = [shortened(chat, share) for chat in chats]
      p, _, _ = asking.ask(c, c.reviewer, cut, key=jax.random.key(0))
      size = np.mean([len(chat.answer.ids) for chat in cut])
      a = measures.auc(p, [r.flag for r in own], [r.domain for r in own])
      area = f'{a.value:.2f} [{a.low:.2f}, {a.high:.2f}]'
      print(f'| {kind} | {share:.0%} | {size:.0f} | {area} |', flush=True)


def shortened(chat, share: float):
  """The exchange with so much of its reply, as if cut at a limit."""
  if share == 1:
    return chat
  ids = chat.answer.ids[: max(1, round(share * len(chat.answer.ids)))]
  answer = dataclasses.replace(
    chat.answer, ids=ids, logps=np.zeros(len(ids), np.float32), stop='length'
  )
  return dataclasses.replace(chat, answer=answer)


def settings(args) -> fields.Config:
  config = config_lib.default()
  config.model.path = args.model
  config.model.dtype = 'bfloat16'
  config.conscience.framing = args.framing
  config.conscience.threshold = 0.5
  config.conscience.review.form = args.form
  config.conscience.review.sees = args.sees
  config.conscience.review.truncated = 'judge'
  return config_lib.freeze(config)


if __name__ == '__main__':
  main()
