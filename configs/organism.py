"""The demo and its controls: what docs/organism.md reports.

Purpose: tell what makes the conscience work. Beside the demo's arms, recovery
with the misaligned checkpoint as its own conscience, and controls at the same
steps, tokens and seeds: the verdict inverted, at random, or for every answer;
alternatives written without being asked; no negatives; the fine-tuning prompts
as pool; and the conscience beside *secure* fine-tuning (what false flags cost).

Command (all bases and seeds, with intervals):
    python benchmarks/organism.py --out=/tmp/organism
"""

import importlib.util
import pathlib

_PATH = pathlib.Path(__file__).parent / 'demo.py'


def _demo():
  spec = importlib.util.spec_from_file_location('demo', _PATH)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


def get_config(arg=None):
  """The demo's config with more arms; arg as there."""
  demo = _demo()
  config = demo.get_config(arg)
  config.train.eval_every = 0
  config.eval.kinds = ()
  verdict, sees = 'conscience.review.verdict', 'conscience.revise.sees'
  every_plain = {verdict: 'all', sees: 'prompt'}
  config.arms['recovery_self'] = {'model.frozen_adapter': 'arm:sft'}
  controls = {
    'inverted': {verdict: 'inverted'},
    'random': {verdict: 'random'},  # the rate: benchmarks/organism.py
    'all_plain': every_plain,
    'all_plain_sft': every_plain | {'dpo.variant': 'sft'},
    'plain': {sees: 'prompt'},
    'no_negatives': {'dpo.variant': 'sft'},
    'pool_sft': {'pool.paths': ('sft',)},
    'secure_conscience': {'data.train': demo.DATA + 'secure.jsonl'},
  }
  for name, changes in controls.items():
    config.arms[name] = {'eval.kinds': ('advice', 'code')} | changes
  return config
