"""Mistake analysis and IterAlign beside plain SFT and the conscience, on bases.

Purpose: docs/papers.md, B and D. One table on five bases of the organism: plain
SFT on insecure code, the conscience beside it, mistake analysis beside it in
its four forms, IterAlign beside it and after it; what the guide does at test
time (`guided`); and IterAlign with one part of it left out, or as the released
code has it (`parts`), on three bases.

Commands (bases are built on the way, as for configs/grids/organism.py):
    run="python -m ealign.launch --config=configs/grids/sisters.py"
    $run --workdir=DIR --sweep=arms,seeds+guided,seeds+told,seeds
    $run --workdir=DIR --sweep=arms,seeds+parts,part_seeds
    --config=configs/grids/sisters.py:runlocal --sweep=few,few_seeds   two cells

Cells: 9 arms, 4 guided and 4 told on 5 bases, 7 parts on 3: 106.
Time: a cell takes 35 to 90 s of CPU.

Result: docs/papers.md.
"""

from ealign.config import file

ITER, _ = file.read('ealign:configs/iteralign.py')
MISTAKES, _ = file.read('ealign:configs/mistake_analysis.py')
ORGANISM, _ = file.read('ealign:configs/grids/organism.py')
BASES, PART_BASES = (10, 11, 12, 15, 16), (10, 11, 12)

AFTER = ITER.OWN | ITER.AFTER | {'model.adapter': 'cell:sft'}
ARMS = {
  'base': {'train.steps': 0},
  'sft': {'dpo.lam': 0.0},
  'conscience': {},
  'mistakes': MISTAKES.OWN,
  'both': MISTAKES.OWN | MISTAKES.BOTH,
  'reflected': MISTAKES.OWN | MISTAKES.REFLECTED,
  'rewritten': MISTAKES.OWN | MISTAKES.REWRITTEN,
  'beside': ITER.OWN | {'iteralign.patience': 0},
  'after': AFTER,
}

prepare, sweep_few_seeds = ORGANISM.prepare, ORGANISM.sweep_few_seeds


def get_config(arg=None):
  """The demo's conscience; `:runlocal` shortens every part to a few steps."""
  config = ITER.DEMO.get_config(arg)
  config.arms = {}
  config.train.eval_every = 0
  config.update_from_flattened_dict(MISTAKES.ATTACKED)
  if arg == 'runlocal':
    config.iteralign.gate = 8
  return config


def sweep_arms():
  """The methods, from the same base and on the same SFT rows."""
  return ARMS


def sweep_guided():
  """What four of them answer under the guide, without further training."""
  names = 'sft', 'conscience', 'mistakes'
  guided = {name: MISTAKES.guided(f'cell:{name}') for name in names}
  return {
    f'{name}_guided': level
    for name, level in ({'base': MISTAKES.guided('')} | guided).items()
  }


def sweep_told():
  """Mistake analysis as the paper has it: told that a reply may be harmful."""
  names = 'mistakes', 'both', 'reflected', 'rewritten'
  return {f'{name}_told': ARMS[name] | MISTAKES.TOLD for name in names}


def sweep_parts():
  """IterAlign after the SFT, with one part as others have it, or left out."""
  parts = {
    'no_recheck': {'iteralign.recheck': False},
    'no_principles': {'conscience.revise.sees': 'prompt'},
    'newest': {'iteralign.use': 'newest'},
    'best': {'iteralign.use': 'best'},
    'examples': {'conscience.review.examples': 2},
    'release': ITER.RELEASE,
    'frozen_writes': {'conscience.revise.by': 'frozen'},
  }
  return {
    name: AFTER | {'iteralign.patience': 0} | part
    for name, part in parts.items()
  }


def sweep_few():
  """One of each method, for a smoke run."""
  return {name: ARMS[name] for name in ('mistakes', 'beside')}


def sweep_seeds():
  """Each base once."""
  return ORGANISM.replicates(BASES)


def sweep_part_seeds():
  """Three of them."""
  return ORGANISM.replicates(PART_BASES)


def contrasts():
  """First - second, over bases."""
  sft = ARMS['sft']
  guided = sweep_guided()
  return {
    'conscience against SFT': (ARMS['conscience'], sft),
    'mistakes against SFT': (ARMS['mistakes'], sft),
    'both against SFT': (ARMS['both'], sft),
    'IterAlign beside the SFT against it': (ARMS['beside'], sft),
    'IterAlign after the SFT against it': (AFTER, sft),
    'guided SFT against SFT': (guided['sft_guided'], sft),
  }
