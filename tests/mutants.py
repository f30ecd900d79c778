"""Breaks the code on purpose, one line at a time: do the tests notice?

  python tests/mutants.py                      # all of them
  python tests/mutants.py --sample 4 --seed 7  # a few, for CI
  python tests/mutants.py --only inverted_rope

  python tests/mutants.py --stale              # do all of them still apply?

Works in a temporary copy of the tree. Prints which mutants were killed; exit
code 1 if one survived, or if any of all no longer applies. `docs/testing.md`
lists them.
"""

import argparse
import fnmatch
import os
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile
import time
from typing import NamedTuple

ROOT = pathlib.Path(__file__).parent.parent
SKIP = shutil.ignore_patterns('.*', '__pycache__', '*.egg-info', 'build')
LIMIT_S = 600


class Mutant(NamedTuple):
  """One change, `old` to `new` in `file`, and the tests that must fail."""

  name: str
  file: str
  old: str
  new: str
  tests: tuple[str, ...]


MUTANTS = (
  Mutant(
    'arms_have_one_adapter',
    'ealign/stack/rows.py',
    'return weights, first.rows * slots, [slot[arm] for arm in arms]',
    'return weights, first.rows * slots, [0 for arm in arms]',
    ('tests/stack/test_stack.py',),
  ),
  Mutant(
    'an_arm_that_ended_goes_on',
    'ealign/stack/lanes.py',
    'return jnp.where(where_A, new, old)',
    'return new',
    ('tests/stack/test_stack.py',),
  ),
  Mutant(
    'swapped_dpo_sign',
    'ealign/losses.py',
    'return ratio_P2[:, 0] - ratio_P2[:, 1]',
    'return ratio_P2[:, 1] - ratio_P2[:, 0]',
    ('tests/test_losses.py',),
  ),
  Mutant(
    'swapped_margin_metric',
    'ealign/align/terms.py',
    'return self.reward_P2[:, 0] - self.reward_P2[:, 1]',
    'return self.reward_P2[:, 1] - self.reward_P2[:, 0]',
    ('tests/align/test_align.py',),
  ),
  Mutant(
    'shifted_loss_mask',
    'ealign/align/terms.py',
    'mask_BT = sft.loss_mask_BT[:, 1:]',
    'mask_BT = sft.loss_mask_BT[:, :-1]',
    ('tests/align/test_align.py',),
  ),
  Mutant(
    'shifted_answer_mask',
    'ealign/align/step.py',
    'losses.sft(logps_BT, pairs.loss_mask_BT[:, 1:])',
    'losses.sft(logps_BT, pairs.loss_mask_BT[:, :-1])',
    ('tests/align/test_align.py',),
  ),
  Mutant(
    'mean_instead_of_sum_of_an_answer',
    'ealign/losses.py',
    'return -jnp.sum(logps_BT * mask_BT, axis=-1)',
    'return -jnp.mean(logps_BT * mask_BT, axis=-1)',
    ('tests/test_losses.py',),
  ),
  Mutant(
    'inverted_rope',
    'ealign/models/rope.py',
    'theta ** (-jnp.arange(',
    'theta ** (jnp.arange(',
    ('tests/models/test_transformer.py',),
  ),
  Mutant(
    'causal_mask_off_by_one',
    'ealign/models/attention.py',
    '(s_BTS >= 0) & (s_BTS <= q_BTS)',
    '(s_BTS >= 0) & (s_BTS <= q_BTS + 1)',
    ('tests/models/test_transformer.py',),
  ),
  Mutant(
    'padding_is_seen',
    'ealign/models/attention.py',
    '(s_BTS >= 0) & (s_BTS <= q_BTS)',
    's_BTS <= q_BTS',
    ('tests/models/test_transformer.py',),
  ),
  Mutant(
    'segments_see_each_other',
    'ealign/models/attention.py',
    'segments_BT[:, :, None] == segments_BT[:, None, :]',
    'segments_BT[:, :, None] >= segments_BT[:, None, :]',
    ('tests/models/test_transformer.py',),
  ),
  Mutant(
    'padded_vocabulary_counts',
    'ealign/models/transformer.py',
    'return head_DV[:, : config.vocab_size]',
    'return head_DV',
    (
      'tests/test_spmd.py::test_gradients_and_losses_equal_those_of_one_device',
    ),
  ),
  Mutant(
    'splash_sees_other_segments',
    'ealign/models/attention.py',
    'ids_BT = jnp.where(positions_BT >= 0, ids_BT, 0)',
    'ids_BT = jnp.where(positions_BT >= 0, 1, 0)',
    ('tests/models/test_attention.py',),
  ),
  Mutant(
    'query_heads_grouped_otherwise',
    'ealign/models/attention.py',
    'q_BTNH.reshape(B, T, k_BSKH.shape[2], -1, H)',
    'q_BTNH.reshape(B, T, -1, k_BSKH.shape[2], H).swapaxes(2, 3)',
    ('tests/models/test_transformer.py',),
  ),
  Mutant(
    'default_rope_theta',
    'ealign/models/config.py',
    'rope_theta: float = 1e4',
    'rope_theta: float = 1e5',
    ('tests/models/test_config.py',),
  ),
  Mutant(
    'rslora_scale',
    'ealign/models/lora.py',
    'alpha / (rank**0.5 if rslora else rank)',
    'alpha / (rank if rslora else rank**0.5)',
    ('tests/models/test_lora.py',),
  ),
  Mutant(
    'adapter_left_on_in_the_reference',
    'ealign/align/step.py',
    'answer_logps(update.model, frozen, batch',
    'answer_logps(update.model, update.bind(params, frozen), batch',
    ('tests/align/test_align.py',),
  ),
  Mutant(
    'adapter_left_on_in_the_cached_reference',
    'ealign/conscience/reflect.py',
    'zip(pairs, c.frozen.logps(',
    'zip(pairs, c.policy.logps(',
    ('tests/conscience/test_conscience.py',),
  ),
  Mutant(
    'local_counts_of_a_microbatch',
    'ealign/align/step.py',
    'state.hp, count, weights, piece)',
    'state.hp, counts(piece), weights, piece)',
    ('tests/align/test_align_sizes.py',),
  ),
  Mutant(
    'folded_answers_see_each_other',
    'ealign/align/accumulate.py',
    'jnp.where(pairs.positions_BT >= 0, nth_B1 + 1, 0)',
    'jnp.where(pairs.positions_BT >= 0, 1, 0)',
    ('tests/align/test_align_folded.py',),
  ),
  Mutant(
    'folded_answers_begin_a_token_late',
    'ealign/align/accumulate.py',
    'jnp.pad(x_BT, ((0, 0), (1, 0)))',
    'jnp.pad(x_BT, ((0, 0), (0, 1)))',
    ('tests/align/test_align_folded.py',),
  ),
  Mutant(
    'shifted_mask_of_pairs',
    'ealign/align/terms.py',
    'mask_BT = pairs.loss_mask_BT[:, 1:]',
    'mask_BT = pairs.loss_mask_BT[:, :-1]',
    ('tests/align/test_align.py',),
  ),
  Mutant(
    'empty_slots_count',
    'ealign/align/terms.py',
    'total = lambda x_P: jnp.sum(x_P * pairs.weight_P)',
    'total = jnp.sum',
    ('tests/align/test_align.py',),
  ),
  Mutant(
    'gradient_upwards',
    'ealign/align/step.py',
    'lambda p, d: p - lr * d',
    'lambda p, d: p + lr * d',
    ('tests/align/test_align.py',),
  ),
  Mutant(
    'conscience_is_an_alias',
    'ealign/conscience/reflect.py',
    'return jax.tree.map(jnp.copy, params)',
    'return params',
    ('tests/conscience/test_conscience.py', 'tests/test_train.py'),
  ),
  Mutant(
    'inverted_threshold',
    'ealign/conscience/reflect.py',
    'bool(p >= c.settings.threshold)',
    'bool(p < c.settings.threshold)',
    ('tests/conscience/test_conscience.py',),
  ),
  Mutant(
    'verdict_without_label_mass',
    'ealign/conscience/reflect.py',
    'if mass < c.settings.min_mass:',
    'if mass < 0:',
    ('tests/conscience/test_conscience.py',),
  ),
  Mutant(
    'truncated_alternative_makes_a_pair',
    'ealign/conscience/reflect.py',
    "if new.stop != 'stop':",
    "if new.stop not in ('stop', 'length'):",
    ('tests/conscience/test_conscience.py',),
  ),
  Mutant(
    'label_read_at_the_wrong_position',
    'ealign/sampling/labels.py',
    'ahead_BT = next_B[:, None] + jnp.arange(T)',
    'ahead_BT = next_B[:, None] + 1 + jnp.arange(T)',
    ('tests/sampling/test_labels.py',),
  ),
  Mutant(
    'labels_swapped',
    'ealign/sampling/labels.py',
    'flag_B = logsumexp(logps_BM[:, list(flag)], axis=1)',
    'flag_B = logsumexp(logps_BM[:, list(ok)], axis=1)',
    ('tests/sampling/test_labels.py',),
  ),
  Mutant(
    'replay_not_restored',
    'ealign/train.py',
    "replay_lib.from_arrays(start.replay, tree['replay'])",
    'start.replay',
    ('tests/test_train.py::test_resume_equals_an_uninterrupted_run',),
  ),
  Mutant(
    'reservoir_forgets_the_early_ones',
    'ealign/replay.py',
    '.integers(seen)',
    '.integers(replay.capacity)',
    ('tests/test_replay.py',),
  ),
  Mutant(
    'every_step_draws_alike',
    'ealign/replay.py',
    'replay.seed, step, 0',
    'replay.seed, 0, 0',
    ('tests/test_replay.py',),
  ),
  Mutant(
    'reviewed_answer_is_trained_on',
    'ealign/world/documents.py',
    "'content': content, 'train': False}",
    "'content': content, 'train': True}",
    ('tests/world/test_documents.py',),
  ),
  Mutant(
    'turns_without_loss_are_trained_on',
    'ealign/data/chat.py',
    "message['role'] == 'assistant' and message.get('train', True)",
    "message['role'] == 'assistant'",
    ('tests/data/test_chat.py',),
  ),
  Mutant(
    'kubernetes_reads_the_dollars',
    'ealign/cli/scripts.py',
    "flag.replace('$', '$$')",
    'flag',
    ('tests/cli/test_print_launch.py',),
  ),
  Mutant(
    'preempted_jobs_stay_ended',
    'launch/slurm.sh',
    '^(42|134|137|143)$',
    '^(42|134|137)$',
    ('tests/cli/test_print_launch.py',),
  ),
)


def pytest(tests, tree: pathlib.Path, env: dict) -> str:
  """'passed', 'failed', or why the tests could not even be run."""
  command = [sys.executable, '-m', 'pytest', '-x', '-q', '-m', 'not slow']
  command += ['-p', 'no:cacheprovider', *tests]
  try:
    done = subprocess.run(
      command, cwd=tree, env=env, capture_output=True, timeout=LIMIT_S
    )
  except subprocess.TimeoutExpired:
    return f'more than {LIMIT_S} s'
  verdicts = {0: 'passed', 1: 'failed'}
  return verdicts.get(done.returncode, done.stdout.decode()[-2000:])


def stale(mutant: Mutant) -> str:
  """Why a mutant cannot be made any more, '' if it can."""
  path = ROOT / mutant.file
  times = path.read_text().count(mutant.old) if path.exists() else 0
  return '' if times == 1 else f'STALE: its text is {times} times in the file'


def run(mutant: Mutant, tree: pathlib.Path, env: dict) -> str:
  """'killed', or what is wrong."""
  path = tree / mutant.file
  text = path.read_text()
  path.write_text(text.replace(mutant.old, mutant.new))
  try:
    found = pytest(mutant.tests, tree, env)
  finally:
    path.write_text(text)
  kinds = {'failed': 'killed', 'passed': 'SURVIVED'}
  return kinds.get(found, f'BROKEN: {found}')


def unmutated(mutants, tree: pathlib.Path, env: dict) -> set[str]:
  """Test files that do not pass as they are; it fills the compile cache too."""
  files = dict.fromkeys(t for m in mutants for t in m.tests)
  return {t for t in files if pytest([t], tree, env) != 'passed'}


def choose(sample: int, seed: int, only: str) -> list[Mutant]:
  """All, or so many drawn by the seed, in the order of the list."""
  chosen = [m for m in MUTANTS if fnmatch.fnmatch(m.name, only)]
  if sample and sample < len(chosen):
    kept = random.Random(seed).sample(range(len(chosen)), sample)
    chosen = [chosen[i] for i in sorted(kept)]
  return chosen


def main() -> int:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--sample', type=int, default=0, help='0 = all')
  parser.add_argument('--seed', type=int, default=0)
  parser.add_argument('--only', default='*', help='name or pattern')
  parser.add_argument('--stale', action='store_true', help='run no test')
  args = parser.parse_args()
  bad = 0
  for mutant in MUTANTS:
    if reason := stale(mutant):
      print(f'{mutant.name:42s}         {reason}', flush=True)
      bad += 1
  if args.stale:
    return 1 if bad else 0
  chosen = [
    m for m in choose(args.sample, args.seed, args.only) if not stale(m)
  ]
  killed = 0
  with tempfile.TemporaryDirectory() as folder:
    tree = pathlib.Path(folder) / 'tree'
    shutil.copytree(ROOT, tree, ignore=SKIP)
    # Programs that a mutant does not touch are compiled once for all.
    env = os.environ | {
      'PYTHONPATH': str(tree),
      'PYTHONDONTWRITEBYTECODE': '1',
      'JAX_COMPILATION_CACHE_DIR': str(pathlib.Path(folder) / 'compiled'),
      'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0.5',
    }
    failing = unmutated(chosen, tree, env)
    for mutant in chosen:
      start = time.monotonic()
      found = run(mutant, tree, env)
      if found == 'killed' and failing.intersection(mutant.tests):
        found = 'BROKEN: its tests fail without it as well'
      killed += found == 'killed'
      seconds = time.monotonic() - start
      print(f'{mutant.name:42s} {seconds:4.0f} s  {found}', flush=True)
  print(f'{killed} of {len(chosen)} killed')
  return 1 if bad or killed < len(chosen) or not chosen else 0


if __name__ == '__main__':
  sys.exit(main())
