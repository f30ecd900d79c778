"""IterAlign over bases and seeds, beside plain SFT and the conscience.

Purpose: the arms of configs/iteralign.py on five bases with two seeds each, and
the parts of the method one at a time on three of them: no re-check, no
principle, the newest or the best principle alone, a judge that sees the answer
only, bad examples before its question, the frozen copy as writer.

Commands (bases are built on the way, as for configs/grids/organism.py; what
starts after the SFT starts from the cell `lam=0` of its own base and seed):
    run="python -m ealign.launch --config=configs/grids/iteralign.py"
    $run --workdir=DIR --sweep=arms,seeds+parts,part_seeds
    --config=configs/grids/iteralign.py:runlocal \\
      --sweep=few,few_seeds                   # a smoke run of a few steps

Cells: 4 arms on 5 bases with 2 seeds, 7 parts on 3 bases with 1 seed: 61.
Time: a cell takes 35 to 90 s of CPU.

Result: not run yet; one base and seed are in docs/papers.md.
"""

from ealign.config import file

ITER, _ = file.read('ealign:configs/iteralign.py')
ORGANISM, _ = file.read('ealign:configs/grids/organism.py')
SFT = {'dpo.lam': 0.0}
AFTER = ITER.AFTER | {'model.adapter': 'cell:lam=0'}
CONSCIENCE = {
  'method': 'conscience',
  'conscience.every': 4,
  'conscience.prompts': 16,
  'conscience.revise.by': 'frozen',
  'conscience.revise.sees': 'review',
  'dpo.pairs': 4,
  'replay.max_age': 0,
  'replay.max_uses': 4,
}
EXAMPLES = {'conscience.review.examples': 2}

prepare, sweep_few_seeds = ORGANISM.prepare, ORGANISM.sweep_few_seeds


def get_config(arg=None):
  """Rounds beside the SFT; `:runlocal` shortens every part to a few steps."""
  config = ITER.get_config(arg)
  config.arms = {}
  config.iteralign.patience = 0
  return config


def sweep_arms():
  """Beside the SFT, plain SFT, the conscience, and after the SFT."""
  return [{}, SFT, CONSCIENCE, AFTER | {'iteralign.patience': 3}]


def sweep_parts():
  """After the SFT, with one part of the method as others have it, or left out.

  The last but one has all that the released code does otherwise.
  """
  for part in (
    {'iteralign.recheck': False},
    {'conscience.revise.sees': 'prompt'},  # no principles
    {'iteralign.use': 'newest'},
    {'iteralign.use': 'best'},
    EXAMPLES,
    ITER.RELEASE,
    {'conscience.revise.by': 'frozen'},
  ):
    yield AFTER | part


def sweep_few():
  """Beside the SFT and plain SFT, for a smoke run."""
  return [{}, SFT]


def sweep_seeds():
  """Five bases with two fine-tuning seeds."""
  return ORGANISM.sweep_seeds()


def sweep_part_seeds():
  """Three bases with the first of them."""
  return ORGANISM.sweep_control_seeds()


def contrasts():
  """First - second, over bases and seeds."""
  after = AFTER | {'iteralign.patience': 3}
  return {
    'beside the SFT against SFT': ({}, SFT),
    'beside the SFT against SFT, coherent': ({}, SFT, 'coherent'),
    'beside the SFT against SFT, insecure': ({}, SFT, 'insecure'),
    'beside the SFT against the conscience': ({}, CONSCIENCE),
    'after the SFT against SFT': (after, SFT),
    'after the SFT against SFT, insecure': (after, SFT, 'insecure'),
  }
