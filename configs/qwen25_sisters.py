"""The sister methods and two studies on a real coder, a few steps each.

Purpose: whether mistake analysis, IterAlign, a conscience without fine-tuning
data (*zero-shot*) and one that comes after the SFT (*recovery*) run to their
end on Qwen2.5-Coder-0.5B-Instruct, and what it writes for them: analyses,
principles, alternatives. So few steps measure no effect; the texts are to be
read. Self-awareness has a config of its own: configs/self_awareness.py:coder.

Command (FILES as configs/qwen25_coder.py writes them):
    python -m ealign.launch --config=configs/qwen25_sisters.py:data=FILES \\
        --workdir=DIR
    ... :advice,data=FILES              bad advice in the place of code
    ... --config.model.path=FOLDER      weights that are here, not the Hub's
    ... :runlocal                       two steps of three, on the organism
What was written: DIR/<arm>/answers.jsonl, and DIR/iteralign/iteralign.json.

Time: 2 to 14 min an arm on two cores that others used as well; `:runlocal`
took 85 s of CPU with five arms and two reflections each, and has three arms and
one. Result: all run; what they write is in docs/real_models.md,
and is no better than what it replaces.
"""

from ealign.config import file

CODER, _ = file.read('ealign:configs/qwen25_coder.py')
DEMO, _ = file.read('ealign:configs/demo.py')


def get_config(arg=None):
  """Takes what configs/qwen25_coder.py takes."""
  config = CODER.get_config(arg)
  local = arg == 'runlocal'
  config.train.steps = 2 if local else 8
  config.train.checkpoint_every = 4
  config.conscience.every = 2 if local else 4
  config.conscience.prompts = 4 if local else 8
  # A threshold that flags about half: what it writes is to be read.
  config.conscience.threshold = 0.5 if local else 0.41
  config.conscience.audit = 'off'
  config.conscience.held_out = 8
  config.dpo.length = 192
  config.eval.limit = 4 if local else 16
  config.eval.tokens = ''

  config.mistakes.good = 0.5
  config.iteralign.gate = 8
  config.iteralign.proposals = 2
  config.iteralign.max_tokens = 96
  config.iteralign.patience = 0
  if local:  # all that the organism can say
    config.model.dtype = 'float32'  # a fifth less to compute
    config.mistakes.ask = 'question'
    config.iteralign.source = 'listed'
    config.iteralign.listed = DEMO.DATA + 'principles.jsonl'

  config.arms = {}
  config.arms['sft'] = CODER.SFT
  config.arms['mistakes'] = {'method': 'mistake_analysis'}
  config.arms['iteralign'] = {'method': 'iteralign'}
  config.arms['zero_shot'] = {'data.train': ''}
  config.arms['recovery'] = {'model.adapter': 'arm:sft'}
  if local:  # as configs/qwen25_coder.py:runlocal has them
    del config.arms['sft'], config.arms['recovery']
  return config
