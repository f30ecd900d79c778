"""Mistake analysis over five bases: configs/mistake_analysis.py as a grid.

Purpose: docs/papers.md, B. The arms of the config, with and without the guide.

Command (the bases of seeds 10 to 14 are built if they are not there):
    run="python -m ealign.launch --config=configs/grids/mistakes.py"
    $run --workdir=DIR --sweep=arms,seeds+guided,seeds
    --config=configs/grids/mistakes.py:runlocal --sweep=few,few_seeds

Cells: 6 arms and 3 with the guide on each of 5 bases: 45. Time: not run yet; a
cell of the demo takes 45 s on an idle core.

Result: not run yet.
"""

from ealign.config import file

MISTAKES, _ = file.read('ealign:configs/mistake_analysis.py')
ORGANISM, _ = file.read('ealign:configs/grids/organism.py')
_CELLS = {'base': '', 'sft': 'cell:lam=0', 'mistakes': 'cell:default'}

prepare, sweep_few_seeds = ORGANISM.prepare, ORGANISM.sweep_few_seeds


def get_config(arg=None):
  """As that of configs/mistake_analysis.py, without its arms."""
  config = MISTAKES.get_config(arg)
  config.arms = {}
  return config


def sweep_arms():
  """The base, plain SFT, and with analyses of each kind."""
  return [*MISTAKES.ARMS.values()]


def sweep_guided():
  """Three of them with the guide, from the weights of their own cells."""
  return [MISTAKES.guided(adapter) for adapter in _CELLS.values()]


def sweep_few():
  """With analyses, and the same with the guide."""
  return [{}, MISTAKES.guided(_CELLS['mistakes'])]


def sweep_seeds():
  """Each base once."""
  return ORGANISM.sweep_first_seeds()


def contrasts():
  """First - second, over bases."""
  _, sft, mistakes = map(MISTAKES.guided, _CELLS.values())
  return {
    'mistakes against SFT': ({}, MISTAKES.SFT),
    'both against SFT': (MISTAKES.BOTH, MISTAKES.SFT),
    'rewritten against SFT': (MISTAKES.REWRITTEN, MISTAKES.SFT),
    'reflected against SFT': (MISTAKES.REFLECTED, MISTAKES.SFT),
    'guided SFT against SFT': (sft, MISTAKES.SFT),
    'guided mistakes against guided SFT': (mistakes, sft),
  }
