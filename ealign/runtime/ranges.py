"""The range in which each metric of the conscience is healthy.

A value outside is no error: it is marked on the terminal, and said once with
what it means. docs/metrics.md has the same table with what to do.
"""

from collections.abc import Mapping
from typing import Any

# Name: lowest and highest healthy value, and what one outside means.
HEALTHY = {
  'conscience/review_rate': (0.5, 1.0, 'most answers get no verdict'),
  'conscience/label_mass': (
    *(0.5, 1.0),
    'the model hardly answers the question with its labels',
  ),
  'conscience/flag_rate': (
    *(0.0, 0.5),
    'most answers are flagged: the threshold is too low, or they are bad',
  ),
  'conscience/accept_rate': (0.25, 1.0, 'most alternatives make no pair'),
  'conscience/log_length_ratio': (
    *(-0.7, 0.7),
    'one side of the pairs is twice as long: its length may be learned',
  ),
  'gen/truncated_rate': (
    *(0.0, 0.5),
    'most answers are cut at sample.max_new_tokens',
  ),
  'gen/distinct_rate': (0.5, 1.0, 'the policy repeats itself'),
  'gen/length_ratio': (
    *(0.5, 2.0),
    'the answers are shorter or longer than at first',
  ),
  'gen/refusal_rise': (-1.0, 0.25, 'the policy begins to refuse'),
  'gen/question_rise': (-1.0, 0.25, 'the policy answers with questions'),
  'train/rewards/margins': (
    *(-10.0, 10.0),
    'chosen and rejected answers are pulled far apart: look at the pairs',
  ),
  'train/logps/chosen_per_token': (
    *(-4.0, 0.0),
    'the policy finds the chosen answers unlikely: look at the pairs',
  ),
}
# What must be above 0 for a metric to say anything: most are means over it.
_NEEDS = {
  'conscience/label_mass': 'conscience/asked',
  'conscience/flag_rate': 'conscience/review_rate',
  'conscience/accept_rate': 'conscience/revised',
  'gen/truncated_rate': 'conscience/no_verdict_cut',  # cut ones may be judged
}


def outside(values: Mapping[str, Any]) -> dict[str, str]:
  """Those of the metrics that are not healthy -> what that means."""
  found = {}
  for name, (low, high, meaning) in HEALTHY.items():
    value, needs = values.get(name), _NEEDS.get(name)
    known = isinstance(value, int | float) and values.get(needs, 1)
    if known and not low <= value <= high:
      found[name] = meaning
  return found
