"""A real coder over seeds: configs/qwen25_coder.py, arm by arm, as a grid.

Purpose: docs/experiments.md, "2. A real coder". The same arms as the config's
own, so that another launch continues what was killed, seeds come after each
other, and what there is no time for is what stands last.

Command (the files are written once, see configs/qwen25_coder.py):
    run="python -m ealign.launch --config=configs/grids/coder.py"
    $run:data=FILES --workdir=DIR \\
      --sweep=order,first_seeds+once,first_seeds+order,second_seeds
    $run:advice,data=FILES --workdir=DIR_ADVICE --sweep=...   bad advice
    $run:1.5b,data=FILES --workdir=DIR_15 --sweep=order,first_seeds   the last
    $run:runlocal --workdir=DIR --sweep=few,first_seeds       a smoke run
    python -m ealign.evaluate --run=DIR ...                   the suites
    python -m ealign.evaluate sheet --run=DIR --workdir=SHEET
`--config.model.path=FOLDER` takes weights that are here. A model or a text of
its own has a folder of its own, as these are no replicates.

Cells: in the order SFT, conscience, frozen samples, uncalibrated, benign,
recovery, then the base; the same for the second seed, without the base.
Recovery starts from the cell of SFT of its own seed.

Equal pairs: `python configs/grids/coder.py DIR/cells/*` prints for each cell
how many answers were reviewed, flagged and revised, the pairs made of them, and
the pairs in updates. Where frozen samples make more pairs than the conscience
does, run them anew with conscience.review.share at the ratio.
"""

import json
import pathlib
import sys

from ealign.config import file

CODER, _ = file.read('ealign:configs/qwen25_coder.py')
_GIVEN = {}  # of the config's argument; the sweeps are called after it


def get_config(arg=None):
  """As that of configs/qwen25_coder.py, without its arms."""
  config = CODER.get_config(arg)
  _GIVEN.clear()
  _GIVEN.update(CODER.arguments(arg))
  config.arms = {}
  return config


def sweep_order():
  """The arms, those that matter most first."""
  yield CODER.SFT
  yield {}
  yield CODER.FROZEN
  yield CODER.UNCALIBRATED
  yield CODER.benign(_GIVEN)
  yield {'model.adapter': 'cell:lam=0'}


def sweep_once():
  """The model before it is trained; no seed changes it."""
  return [{'train.steps': 0}]


def sweep_few():
  """Two arms, for a smoke run."""
  return [CODER.SFT, {}]


def sweep_first_seeds():
  return [{'seed': 0}]


def sweep_second_seeds():
  return [{'seed': 1}]


def counted(folder) -> dict[str, float]:
  """What the conscience of a run did with its answers, and its pairs."""
  from ealign.conscience import tally
  from ealign.evals import records

  folder = pathlib.Path(folder)
  found = records.latest(records.read(folder / 'answers.jsonl'))
  counts = tally.count(r for r in found if r['phase'] == 'reflect')
  text = (folder / 'metrics.jsonl').read_text()
  rows = [json.loads(line) for line in text.splitlines() if line.strip()]
  used = [row.get('conscience/pairs_in_step', 0) for row in rows]
  return {
    'answers': counts.answers,
    'flagged': counts.flagged,
    'revised': counts.revised,
    'pairs': counts.pairs,
    'pairs in updates': sum(used),
  }


if __name__ == '__main__':
  for path in sys.argv[1:]:
    shown = ', '.join(f'{n} {x:g}' for n, x in counted(path).items())
    print(f'{path}: {shown}')
