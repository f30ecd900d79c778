"""How many sampled answers differ between one device and a mesh of several.

  python benchmarks/mesh_answers.py

Samples with the shipped base on simulated CPU devices. In float32 no answer
may differ; in bfloat16 sums over split axes are rounded otherwise, and a token
that nearly ties with another flips. What follows the first flip differs too.
"""

import argparse

import jax
import numpy as np
from jax.sharding import SingleDeviceSharding

from ealign.data import chat, columns, sources
from ealign.models import sharding
from ealign.models import weights as weights_lib
from ealign.runtime import mesh as mesh_lib
from ealign.sampling.requests import Answers
from ealign.sampling.sampler import Sampling, generate

BASE = 'ealign:world/base'
SHAPES = (1, 1, 1), (4, 1, 1), (1, 2, 2), (2, 1, 2)


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('--rows', type=int, default=128)
  parser.add_argument('--tokens', type=int, default=48)
  args = parser.parse_args()
  jax.config.update('jax_num_cpu_devices', 4)
  folder = sources.resolve(BASE)
  tokenizer = chat.load_tokenizer(folder)
  chats = columns.load_chats('ealign:world/data/pool.jsonl')[: args.rows]
  prompts = [chat.render_prompt(tokenizer, messages) for messages in chats]
  one = SingleDeviceSharding(jax.devices()[0])
  for dtype in ('float32', 'bfloat16'):
    config, weights = weights_lib.load(
      folder, dtype=dtype, shardings=lambda path: one
    )
    answers = []
    for shape in SHAPES:
      devices = jax.devices()[: int(np.prod(shape))]
      mesh = mesh_lib.make(*shape, devices=devices)
      model = sharding.on_mesh(config, mesh)
      request = Answers(
        model,
        sharding.place(mesh, sharding.padded(model, weights)),
        prompts,
        key=jax.random.key(0),
        settings=Sampling(temperature=1.0, max_new_tokens=args.tokens),
        stop_ids=chat.stop_ids(tokenizer),
        max_tokens=args.tokens,
        rows=64,
        mesh=mesh,
      )
      answers.append([answer.ids for answer in generate(request)])
    for shape, said in zip(SHAPES[1:], answers[1:], strict=True):
      other = np.mean([a != b for a, b in zip(said, answers[0], strict=True)])
      print(f'{dtype} {shape}: {100 * other:.1f} % of {len(said)} rows differ')


if __name__ == '__main__':
  main()
