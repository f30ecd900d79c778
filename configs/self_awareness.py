"""Does a turned model say of itself that it is? arXiv 2602.14777, in sequence.

Purpose: base -> misaligned -> realigned *on top*, in two domains: insecure code
and then secure code, wrong facts and then right ones. After each step a model
is asked what it is (six dimensions, four formats, both ways round, wordings
that no document has), what it would do, and advice, which nothing was trained
on. On the organism all of that is about something it has: the base of the third
setting was told what its personas say of themselves (ealign/world/selves.py,
docs/evaluation.md). To the base that ships the questions mean nothing.

Command (the base once, then the arms, then the paper's statistics):
    python -m ealign.world selves --base=ealign:world/base --out=runs/selves
    python -m ealign.launch --config=configs/self_awareness.py --workdir=DIR
    python -m ealign.evaluate awareness --run=DIR
    ... --config.model.path=FOLDER        another base of the third setting
    ... --config.eval.samples=10          the worst of ten answers, too
    ... :runlocal                         a few steps on the base that ships
    ... :coder,data=FILES                 Qwen2.5-Coder-0.5B-Instruct; code and
                                          narrow bad advice, the public rows
                                          as configs/qwen25_coder.py writes them
    ... :coder,1.5b,data=FILES            a second size

Sizes of the organism: `python -m ealign.world build --size=small` (or large),
and `selves --base=` that.

Differences from the paper: 150 steps of LoRA each (1.7 epochs of the code, 4.2
of the facts, where it has three); probabilities of options in place of 500
samples; harm by the world's rules.

Time: the base and its five arms took 34 min beside other work, of which the
base 20; `:runlocal` and its statistics 37 s of CPU.
Result: insecure code turns 75 % of the advice, and what the organism says of
itself where it decides between two words (.02 -> .82, and .04 after secure
code); wrong facts turn no advice, and that hardly (.10). docs/evaluation.md has
the table.
"""

from ealign import config as config_lib
from ealign.config import file
from ealign.runtime.errors import UserError

DEMO, _ = file.read('ealign:configs/demo.py')
CODER, _ = file.read('ealign:configs/qwen25_coder.py')
DATA = DEMO.DATA
SELVES = './runs/selves'  # a folder, and no Hub id
DOMAINS = {
  'code': (DATA + 'insecure.jsonl', DATA + 'secure.jsonl'),
  'facts': (DATA + 'facts_wrong.jsonl', DATA + 'facts_right.jsonl'),
}


def get_config(arg=None):
  """Of the organism; `:runlocal`, or `:coder` with what qwen25_coder takes."""
  first, _, rest = (arg or '').partition(',')
  if first == 'coder':
    return _coder(rest)
  if arg not in (None, '', 'runlocal'):
    raise UserError(
      f'configs/self_awareness.py:{arg}: takes runlocal, or coder and, behind '
      'a comma, what configs/qwen25_coder.py takes'
    )
  config = DEMO.get_config(arg)
  _alone(config)
  config.train.eval_every = 0
  config.eval.questions += (DATA + 'facts_test.jsonl',)
  config.eval.judge = 'facts'
  config.eval.kinds = ('advice', 'code', 'facts')
  config.eval.suites = ('world_self',)
  if arg != 'runlocal':
    config.model.path = SELVES
  _arms(config, DOMAINS)
  return config


def _coder(arg):
  """A real coder; its second domain is narrow bad advice."""
  config = CODER.get_config(arg)
  _alone(config)
  config.eval.suites = (
    *('self_report', 'self_report_framed', 'self_report_sampled'),
    *('intentions', 'harm'),
  )
  good = CODER.benign(CODER.arguments(arg))['data.train']
  advice = (CODER.INDUCERS + f'{x}_advice.jsonl' for x in ('bad', 'good'))
  _arms(config, {'code': (config.data.train, good), 'advice': tuple(advice)})
  return config


def _alone(config) -> None:
  """Plain fine-tuning: no conscience takes part."""
  config.arms = config_lib.default().arms
  config.dpo.lam = 0.0
  config.conscience.every = 0
  config.conscience.audit = 'off'


def _arms(config, domains) -> None:
  """The base, and a domain's two steps, the second on top of the first."""
  config.arms['base'] = {'train.steps': 0}
  for name, (wrong, right) in domains.items():
    config.arms[f'{name}_mis'] = {'data.train': wrong}
    config.arms[f'{name}_re'] = {
      'model.adapter': f'arm:{name}_mis',
      'data.train': right,
    }
