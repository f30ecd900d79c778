"""What the conscience costs on a pod, by estimate: the table of docs/speed.md.

    python benchmarks/pods.py --keep=FILE                  all machines
    python benchmarks/pods.py --keep=FILE --only=v5e-16    one of them

The programs of configs/qwen3_4b_insecure.py are compiled for TPUs that are not
here, from shapes alone (as `--plan` does, three to six minutes of two cores
each), with one packed row and one pair for each chip at least; FILE (JSON)
keeps their figures. Settings that change rows, tokens and how often are then
accounted for by what the programs read, send and compute (`ealign.plan.costs`).
The H200 stands for one: its figures are those of the program for one chip of a
v6e, at the peaks of the H200. Needs libtpu (pip install ealign[tpu]).
"""

import argparse
import dataclasses
import importlib.util
import json
import pathlib
import types

import jax
import plan_bench

from ealign import config as config_lib
from ealign.models import config as models
from ealign.models import layout, sharding
from ealign.plan import costs, figures, inference, programs
from ealign.runtime import aot, peaks, topology
from ealign.runtime import mesh as mesh_lib

ROOT = pathlib.Path(__file__).resolve().parents[1]
# Name: what it is compiled for, the chip whose peaks count, rows of a step.
MACHINES = {
  'v5e-16': ('v5e:4x4', '', 16),
  'v6e-8': ('v6e:2x4', '', 16),
  'v5p-64': ('v5p:2x4x4', '', 32),  # 64 TensorCores are 32 chips
  'H200': ('v6e:1x1', 'NVIDIA H200', 16),
}
# Tokens of the longest prompt of the shipped pool, padded, and of its review.
SIZES = programs.Sizes(prompt=128, review=1024)
# What is compiled: whole answers, reviewed every four steps.
WHOLE = {
  'conscience.every': 4,
  'conscience.prompts': 16,
  'conscience.review.truncated': 'skip',
  'sample.max_new_tokens': 600,
  'dpo.length': 1024,
}
RARE = {'conscience.every': 40, 'conscience.prompts': 160}
OFTEN = {'conscience.every': 8, 'conscience.prompts': 32}
CUT = {'sample.max_new_tokens': 128, 'conscience.review.truncated': 'judge'}
SHORT = CUT | {'dpo.length': 256}
PLAIN = {'conscience.guards.shortest': 0.0, 'conscience.guards.longest': 0.0}
SETTINGS = {
  'whole answers, every 4 steps': {},
  'every=8, prompts=32': OFTEN,
  'every=40, prompts=160': RARE,
  'answers cut at 128 and judged': CUT,
  'that and dpo.length=256': SHORT,
  'int8': {'model.quantize': 'int8'},
  'no plain answers': PLAIN,
  '**the default**: every=8, cut, dpo.length=256': OFTEN | SHORT,
  'the cheapest: every=40, cut, 256, no plain answers': RARE | SHORT | PLAIN,
}


def shipped(rows: int):
  """The shipped config, for as many packed rows and pairs of a step."""
  path = ROOT / 'configs' / 'qwen3_4b_insecure.py'
  spec = importlib.util.spec_from_file_location('shipped', path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  config = config_lib.arms(module.get_config())['conscience']
  config.mesh.data, config.mesh.fsdp = 1, -1
  config.model.dtype = 'bfloat16'
  config.data.batch_size = config.dpo.pairs = rows
  config = config_lib.freeze(config)
  return costs.changed(config, scaled(WHOLE, rows))


def scaled(fields: dict, rows: int) -> dict:
  """The fields with as many more prompts as there are rows of a step."""
  prompts = {
    name: value * (rows // 16)
    for name, value in fields.items()
    if name == 'conscience.prompts'
  }
  return fields | prompts


def compiled(name: str) -> dict:
  """The figures of all programs on a machine, and what they are of."""
  where, _, rows = MACHINES[name]
  chosen, config = topology.parse(where), shipped(rows)
  mesh = mesh_lib.make(1, -1, 1, aot.devices(chosen))
  hf = plan_bench.QWEN3_4B
  model = models.from_hf(hf, dtype='bfloat16', remat=config.model.remat)
  run = programs.shapes(config, sharding.on_mesh(model, mesh), mesh)
  found = {}
  for program in programs.listed(run, SIZES):
    print(f'compiling {program.name} for {name}', flush=True)
    made = aot.compile(program.run, *program.args, unknown=program.trips)
    if made.failure:
      raise SystemExit(f'{name}: {program.name}: {made.failure}')
    found[program.name] = dataclasses.asdict(figures.of(program, made, run))
  wide, _, weights = run.policy
  return {
    'figures': found,
    'weights': inference.device_bytes(weights),
    'reviewer': inference.device_bytes(run.reviewer[2]),
    'parts': layout.shards(wide),
    'kind': mesh.devices.flat[0].device_kind,
  }


def base(name: str, kept: dict) -> costs.Base:
  """What was compiled, on the chip whose peaks count."""
  _, kind, rows = MACHINES[name]
  device = types.SimpleNamespace(device_kind=kind or kept['kind'])
  mesh = types.SimpleNamespace(devices=types.SimpleNamespace(flat=[device]))
  found = {
    program: figures.Figures(**values)
    for program, values in kept['figures'].items()
  }
  read = kept['weights'], kept['reviewer'], SIZES.prompt, SIZES.review
  return costs.Base(found, shipped(rows), mesh, *read, kept['parts'])


def table(found: dict) -> str:
  ms = lambda seconds: f'{1e3 * seconds:,.0f}'
  lines = [
    '| machine | setting | expected | at 10 us | worst | at 10 us | '
    'times SFT | a reflection |',
    '|---|---|--:|--:|--:|--:|--:|--:|',
  ]
  for name, kept in found.items():
    known = base(name, kept)
    for title, fields in SETTINGS.items():
      more = scaled(fields, MACHINES[name][2])
      config = costs.changed(known.config, more)
      cases = [
        costs.cost(known, config, expected=expected, latency=latency)
        for expected in (True, False)
        for latency in (peaks.LATENCY, peaks.SLOW)
      ]
      steps = ' | '.join(ms(case.step) for case in cases)
      times = f'{cases[0].step / cases[0].sft:.2f}x'
      reflection = f'{cases[0].reflection:.2f} s'
      lines.append(f'| {name} | {title} | {steps} | {times} | {reflection} |')
    decode, slow = (
      costs.program_seconds(known, known.config, latency, 'decode')
      for latency in (peaks.LATENCY, peaks.SLOW)
    )
    rows = known.config.conscience.prompts
    lines.append(
      f'| {name} | a decode of {rows} rows x 600 tokens | | | '
      f'{ms(decode)} | {ms(slow)} | | |'
    )
  return '\n'.join(lines)


def main():
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--keep', type=pathlib.Path, required=True)
  parser.add_argument('--only', default=','.join(MACHINES), help='by comma')
  args = parser.parse_args()
  jax.config.update('jax_platforms', 'cpu')
  kept = json.loads(args.keep.read_text()) if args.keep.exists() else {}
  for name in args.only.split(','):
    if name not in kept:
      kept[name] = compiled(name)
      args.keep.write_text(json.dumps(kept, indent=1) + '\n')
  print(table({name: kept[name] for name in args.only.split(',')}))


if __name__ == '__main__':
  main()
