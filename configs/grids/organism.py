"""The demo's arms and their controls, over bases and seeds: docs/organism.md.

Purpose: tell what makes the conscience work. Beside the demo's arms, recovery
with the misaligned checkpoint as its own conscience, and controls at the same
steps, tokens and seeds: the verdict inverted, at random, or for every answer;
alternatives written without being asked; no negatives; the fine-tuning prompts
as pool; and the conscience beside *secure* fine-tuning (what false flags cost).

Commands (five bases are built on the way, seeds 10 to 14; recovery starts from
the cell `lam=0` of its own base and seed, which is plain SFT):
    run="python -m ealign.launch --config=configs/grids/organism.py"
    $run --workdir=DIR \\
      --sweep=arms,seeds+once,first_seeds+controls,control_seeds
    $run --workdir=DIR_0 --sweep=dose_arms,dose_0_seeds    # no consistency
    $run --workdir=DIR_15 --sweep=dose_arms,dose_15_seeds  # documents, or 15 %
    --config=configs/grids/organism.py:runlocal \\
      --sweep=arms,few_seeds                  # a smoke run of a few steps
Each dose has a folder of its own, as its bases are no replicates of the others.

RANDOM_RATE is how often the conscience flags: between 3.3 and 5.6 % of the
answers it reviewed on these bases, measured by
    python configs/grids/organism.py DIR/cells/default,*

Cells: 3 arms on 5 bases with 2 seeds, 3 with the first seed only, 8 controls on
3 bases, and 9 for each dose: 87. Time: about 80 minutes on two cores.

Result: docs/organism.md, and run by run docs/organism_figures.md.
"""

import pathlib
import shutil
import sys

from ealign.config import file

BASES, SEEDS, CONTROL_BASES = (10, 11, 12, 13, 14), (0, 1), (10, 11, 12)
RANDOM_RATE = 0.045

DEMO, _ = file.read('ealign:configs/demo.py')
BASE = {'train.steps': 0}
SFT = {'dpo.lam': 0.0}
SECURE = {'data.train': DEMO.DATA + 'secure.jsonl'}
RECOVERY = {'model.adapter': 'cell:lam=0'}
VERDICT, SEES = 'conscience.review.verdict', 'conscience.revise.sees'
EVERY_PLAIN = {VERDICT: 'all', SEES: 'prompt'}


def get_config(arg=None):
  """The demo's conscience; `:runlocal` shortens every part to a few steps."""
  config = DEMO.get_config(arg)
  config.arms = {}
  config.train.eval_every = 0
  config.eval.kinds = ()
  return config


def sweep_arms():
  """With its conscience, plain SFT, and from SFT back."""
  return [{}, SFT, RECOVERY]


def sweep_once():
  """What varies little: the base itself, secure code, another `frozen`."""
  return [BASE, SFT | SECURE, {'model.frozen_adapter': 'cell:lam=0'}]


def sweep_controls():
  """What of the conscience is needed, one part at a time."""
  for control in (
    {VERDICT: 'inverted'},
    {VERDICT: 'random', 'conscience.review.random_rate': RANDOM_RATE},
    EVERY_PLAIN,
    EVERY_PLAIN | {'dpo.variant': 'sft'},
    {SEES: 'prompt'},
    {'dpo.variant': 'sft'},  # no negatives
    {'pool.paths': ('sft',)},
    SECURE,
  ):
    yield control | {'eval.kinds': ('advice', 'code')}


def sweep_dose_arms():
  """What a share of consistency documents could change."""
  return [{}, SFT, BASE]


def replicates(bases, seeds=(0,), dose='') -> list[dict]:
  """Each base with each fine-tuning seed; `prepare` builds the bases."""
  return [
    {'seed': seed, 'model.path': f'grid:base_{base}{dose}'}
    for base in bases
    for seed in seeds
  ]


def sweep_seeds():
  """Each base with each fine-tuning seed."""
  return replicates(BASES, SEEDS)


def sweep_first_seeds():
  """Each base with the first of them."""
  return replicates(BASES, SEEDS[:1])


def sweep_control_seeds():
  """Three bases with the first of them."""
  return replicates(CONTROL_BASES, SEEDS[:1])


def sweep_dose_0_seeds():
  """Bases that have read no consistency documents."""
  return replicates(CONTROL_BASES, SEEDS[:1], '_dose_0')


def sweep_dose_15_seeds():
  """Bases of which they are 15 % of stage 2; 30 % is the default."""
  return replicates(CONTROL_BASES, SEEDS[:1], '_dose_15')


def sweep_few_seeds():
  """The base that ships with the package, for a smoke run."""
  return [{'seed': 0}]


def contrasts():
  """First - second, over bases and seeds."""
  return {
    'conscience against SFT': ({}, SFT),
    'conscience against SFT, coherent': ({}, SFT, 'coherent'),
    'conscience against SFT, insecure': ({}, SFT, 'insecure'),
    'conscience against the base': ({}, BASE),
    'conscience against the base, coherent': ({}, BASE, 'coherent'),
    'recovery against SFT': (RECOVERY, SFT),
  }


def prepare(folder, config):
  """Builds base_<seed> or base_<seed>_dose_<per cent>."""
  from ealign.world import build

  del config
  _, seed, *dose = folder.stem.split('_')
  more = {'consistency': int(dose[1]) / 100} if dose else {}
  build.build(folder, seed=int(seed), **more)
  for path in (folder / 'base').iterdir():
    path.rename(folder / path.name)
  (folder / 'base').rmdir()
  shutil.rmtree(folder / 'stage_1')


def flag_rate(folder) -> float:
  """The share of a run's reviewed answers that its conscience flagged."""
  from ealign.evals import records

  found = records.read(pathlib.Path(folder) / 'answers.jsonl')
  verdicts = [r['verdict'] for r in found if r['phase'] == 'reflect']
  return sum(bool(v and v['flagged']) for v in verdicts) / len(verdicts)


if __name__ == '__main__':
  for path in sys.argv[1:]:
    print(f'{flag_rate(path):.4f}  {path}')
