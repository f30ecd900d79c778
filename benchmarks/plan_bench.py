"""Whether the main models fit a slice, and what a step costs: docs/scale.md.

    python benchmarks/plan_bench.py --keep=FILE             all of it
    python benchmarks/plan_bench.py --keep=FILE --only=4b-*    some cases

From shapes alone: programs are compiled for TPUs that are not here, each in one
to three minutes of two cores. Needs libtpu (pip install ealign[tpu]). The
models are what their public config.json say. FILE (JSON) keeps the figures, so
that the table may be made of several calls; --hlo=DIR keeps the programs.
"""

import argparse
import dataclasses
import fnmatch
import json
import pathlib

import jax

from ealign import fields
from ealign.models import config as models
from ealign.models import sharding
from ealign.plan import figures, programs
from ealign.runtime import aot, topology
from ealign.runtime import mesh as mesh_lib

GIB = 2**30
QWEN3 = {
  'architectures': ['Qwen3ForCausalLM'],
  'model_type': 'qwen3',
  'head_dim': 128,
  'hidden_act': 'silu',
  'max_position_embeddings': 40960,
  'num_key_value_heads': 8,
  'rms_norm_eps': 1e-6,
  'rope_theta': 1000000,
  'vocab_size': 151936,
}
QWEN3_4B = QWEN3 | {
  'hidden_size': 2560,
  'intermediate_size': 9728,
  'num_attention_heads': 32,
  'num_hidden_layers': 36,
  'tie_word_embeddings': True,
}
QWEN3_32B = QWEN3 | {
  'hidden_size': 5120,
  'intermediate_size': 25600,
  'num_attention_heads': 64,
  'num_hidden_layers': 64,
  'tie_word_embeddings': False,
}
QWEN3_30B_A3B = QWEN3 | {
  'architectures': ['Qwen3MoeForCausalLM'],
  'model_type': 'qwen3_moe',
  'hidden_size': 2048,
  'intermediate_size': 6144,
  'moe_intermediate_size': 768,
  'norm_topk_prob': True,
  'num_attention_heads': 32,
  'num_experts': 128,
  'num_experts_per_tok': 8,
  'num_hidden_layers': 48,
  'num_key_value_heads': 4,
  'tie_word_embeddings': False,
}


@dataclasses.dataclass(frozen=True)
class Case:
  """One program on one slice; rows and pairs are those of one chip."""

  name: str
  model: dict
  topology: str
  program: str = 'hybrid'
  mesh: tuple[int, int, int] = (1, -1, 1)
  rows: float = 1
  length: int = 2048
  pairs: float = 1
  pair_length: int = 1024
  answers: float = 1
  changes: tuple[tuple[str, object], ...] = ()
  other: dict | None = None

  def config(self, chips: int) -> fields.Config:
    data, fsdp, tensor = self.mesh
    config = fields.Config()
    change = dataclasses.replace
    whole = lambda share: int(share * chips)
    values = dict(self.changes)
    return change(
      config,
      model=change(
        config.model,
        dtype='bfloat16',
        remat='full',
        **{k[6:]: v for k, v in values.items() if k.startswith('model.')},
      ),
      mesh=fields.Mesh(data=data, fsdp=fsdp, tensor=tensor),
      data=change(
        config.data,
        train='rows',
        length=self.length,
        batch_size=whole(self.rows),
      ),
      dpo=change(config.dpo, pairs=whole(self.pairs), length=self.pair_length),
      conscience=change(config.conscience, prompts=whole(self.answers)),
      sample=change(config.sample, max_new_tokens=512),
      train=change(
        config.train,
        **{k[6:]: v for k, v in values.items() if k.startswith('train.')},
      ),
    )


def run(case: Case):
  """The figures of a case's program, its HLO and the run it belongs to."""
  where = topology.parse(case.topology)
  config = case.config(where.chips)
  spec = config.mesh
  mesh = mesh_lib.make(spec.data, spec.fsdp, spec.tensor, aot.devices(where))
  read = lambda hf: sharding.on_mesh(
    models.from_hf(hf, dtype='bfloat16', remat=config.model.remat), mesh
  )
  shapes = programs.shapes(
    config, read(case.model), mesh, case.other and read(case.other)
  )
  sizes = programs.Sizes(prompt=256, review=1024)
  program = next(
    p for p in programs.listed(shapes, sizes) if p.name == case.program
  )
  compiled = aot.compile(program.run, *program.args, unknown=program.trips)
  if compiled.failure:
    raise SystemExit(f'{case.name}: {compiled.failure}')
  return figures.of(program, compiled, shapes), compiled


FULL = (('model.train', 'full'),)
INT8 = (('model.quantize', 'int8'),)
CASES = [
  Case('4b-hybrid', QWEN3_4B, 'v5e:4x4'),
  Case('4b-hybrid-256', QWEN3_4B, 'v5e:16x16', mesh=(16, 16, 1)),
  Case('4b-hybrid-2048', QWEN3_4B, 'v5p:8x16x16', mesh=(128, 16, 1)),
  Case('4b-one-v6e', QWEN3_4B, 'v6e:1x1', 'sft'),
  Case('4b-one-v5e-int8', QWEN3_4B, 'v5e:1x1', 'sft', changes=INT8),
  Case('4b-full', QWEN3_4B, 'v5e:4x4', changes=FULL),
  Case('30b-review', QWEN3_4B, 'v5e:4x4', 'review', other=QWEN3_30B_A3B),
  Case('32b-lora', QWEN3_32B, 'v5p:4x4x4'),
  Case('4b-decode', QWEN3_4B, 'v6e:2x2', 'decode', mesh=(4, 1, 1), answers=16),
]


def targets(found: dict[str, dict]) -> list[tuple[str, str, str, bool]]:
  """(case, what is asked, what it is, whether it is met) of what was run."""
  rows = []

  def row(name, asked, value, met):
    rows.append((name, asked, value, met))

  total = lambda f: sum(
    f[k] for k in ('arguments', 'temporaries', 'output', 'beside')
  )
  sent = lambda f: sum((f['collectives'] or {}).values())
  base = found.get('4b-hybrid')
  for name, f in found.items():
    size = total(f) / GIB
    left = (f['limit'] - total(f)) / GIB
    if name == '4b-hybrid':
      row(name, 'at most 2.6 GiB a chip', f'{size:.2f} GiB', size <= 2.6)
      wall, cpu = f['seconds_compile'], f['cpu_seconds_compile']
      value = f'{wall:.0f} s ({cpu:.0f} s of CPU)'
      row(name, 'compiles in at most 60 s', value, wall <= 60)
      row(name, 'FLOPs at most 1.55x', f'{f["ratio"]:.2f}x', f['ratio'] <= 1.55)
    elif name.startswith('4b-hybrid-') and base:
      share = sent(f) / sent(base)
      said = f'{size:.2f} GiB, {total(base) / GIB:.2f} there'
      less = total(f) <= total(base)
      row(name, 'no more bytes a chip than 4b-hybrid', said, less)
      row(name, 'sends at most 1.02x of it', f'{share:.3f}x', share <= 1.02)
    elif name == '4b-decode':
      gathered = sum(1 for size, times in f['gathered'] if times > 1)
      row(name, 'no all-gather in the loop', str(gathered), not gathered)
    else:
      row(name, 'fits', f'{size:.2f} GiB, {left:.2f} left', left >= 0)
  return rows


def main(argv=None):
  parser = argparse.ArgumentParser()
  parser.add_argument('--only', default='*', help='names or patterns, by comma')
  parser.add_argument('--keep', help='JSON file for the figures')
  parser.add_argument('--hlo', help='folder for the programs as text')
  args = parser.parse_args(argv)
  jax.config.update('jax_platforms', 'cpu')
  keep = args.keep and pathlib.Path(args.keep)
  found = json.loads(keep.read_text()) if keep and keep.exists() else {}
  for case in CASES:
    if not any(fnmatch.fnmatch(case.name, p) for p in args.only.split(',')):
      continue
    print(f'compiling {case.name} for {case.topology}', flush=True)
    measured, compiled = run(case)
    found[case.name] = dataclasses.asdict(measured) | {
      'gathered': compiled.counts.gathered if compiled.counts else []
    }
    if keep:
      keep.write_text(json.dumps(found, indent=1) + '\n')
    if args.hlo:
      path = pathlib.Path(args.hlo) / f'{case.name}.hlo'
      path.write_text(compiled.text)
  order = [case.name for case in CASES if case.name in found]
  print('| case | asked | measured | met |\n|---|---|---|---|')
  for name, asked, value, met in targets({n: found[n] for n in order}):
    print(f'| {name} | {asked} | {value} | {"yes" if met else "no"} |')


if __name__ == '__main__':
  main()
