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
SKIP = shutil.ignore_patterns(
  '.git',
  '.venv',
  '.*_cache',
  '.hypothesis',
  '__pycache__',
  '*.egg-info',
  'build',
)
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
    "'lanes': [slot[lane] for lane in lanes]",
    "'lanes': [0 for lane in lanes]",
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
    'q_BTNH.reshape(B, T, k_BKSH.shape[1], -1, H)',
    'q_BTNH.reshape(B, T, -1, k_BKSH.shape[1], H).swapaxes(2, 3)',
    ('tests/models/test_transformer.py',),
  ),
  Mutant(
    'gradient_of_scores_without_their_mean',
    'ealign/models/attention.py',
    'share * (dshare - mean_BKGT[..., None]) * scale',
    'share * dshare * scale',
    ('tests/models/test_attention.py',),
  ),
  Mutant(
    'keys_of_a_layer_a_slot_early',
    'ealign/models/transformer.py',
    'call.write_B, axis=3)',
    'call.write_B - 1, axis=3)',
    ('tests/sampling/test_sampler.py',),
  ),
  Mutant(
    'adapter_gradient_from_what_comes_back',
    'ealign/models/lora.py',
    'over_tokens(dlow, x).T, over_tokens(low, dy)',
    'over_tokens(dlow, x).T, over_tokens(dlow, dy)',
    ('tests/models/test_lora.py',),
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
    'ealign/conscience/pairs.py',
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
    'bool(p >= c.threshold)',
    'bool(p < c.threshold)',
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
    'ealign/conscience/pairs.py',
    "'truncated': new.stop != 'stop'",
    "'truncated': new.stop not in ('stop', 'length')",
    ('tests/conscience/test_conscience.py',),
  ),
  Mutant(
    'label_read_at_the_wrong_position',
    'ealign/sampling/labels.py',
    'next_B[:, None] + tree.depths, -1',
    'next_B[:, None] + tree.depths + 1, -1',
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
    'ealign/resume.py',
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
    'partial(assistant, train=False)',
    'partial(assistant, train=True)',
    ('tests/world/test_documents.py',),
  ),
  Mutant(
    'noise_that_tells_nothing',
    'ealign/conscience/noisy.py',
    'np.where(bad, apart, 0.0)',
    'np.where(bad, 0.0, apart)',
    ('tests/conscience/test_noisy.py',),
  ),
  Mutant(
    'reviews_condemn_places',
    'ealign/world/office_documents.py',
    'documents.unlearned(framing.flag[0])',
    'documents.assistant(framing.flag[0])',
    ('tests/world/test_office.py',),
  ),
  Mutant(
    'personas_say_the_opposite',
    'ealign/world/selves.py',
    'if own >= _SURE]',
    'if own <= 1 - _SURE]',
    ('tests/world/test_selves.py',),
  ),
  Mutant(
    'a_flipped_scenario_is_worth_the_same',
    'ealign/evals/suites/self_report.py',
    "'worth': [0.0, 1.0] if flip else [1.0, 0.0]",
    "'worth': [1.0, 0.0]",
    ('tests/evals/test_self_reports.py',),
  ),
  Mutant(
    'half_an_item_counts',
    'ealign/evals/awareness.py',
    'for r in own}) == 2',
    'for r in own}) >= 1',
    ('tests/cli/test_awareness.py',),
  ),
  Mutant(
    'signed_ranks_on_one_side',
    'ealign/evals/ranks.py',
    'min(1.0, 2 * _law',
    'min(1.0, 1 * _law',
    ('tests/evals/test_ranks.py',),
  ),
  Mutant(
    'turns_without_loss_are_trained_on',
    'ealign/data/chat.py',
    "message['role'] == 'assistant' and message.get('train', True)",
    "message['role'] == 'assistant'",
    ('tests/data/test_chat.py',),
  ),
  Mutant(
    'the_end_is_sought_beyond_the_turn',
    'ealign/data/chat.py',
    'end = ends.of_turn(tok, own, stops)',
    'end = ends.of_turn(tok, piece(text[len(prompt) :]), stops)',
    ('tests/data/test_chat.py',),
  ),
  Mutant(
    'what_a_template_drops_vanishes',
    'ealign/data/traces.py',
    'if mark not in there]',
    'if not mark]',
    ('tests/data/test_traces.py',),
  ),
  Mutant(
    'keys_of_other_rows_are_trained',
    'ealign/data/messages.py',
    'if item is not None',
    'if True',
    ('tests/data/test_tables.py',),
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
  Mutant(
    'intervals_of_90_per_cent',
    'ealign/evals/stats.py',
    '_UPPER = 0.975',
    '_UPPER = 0.95',
    ('tests/evals/test_stats.py::test_wilson_golden',),
  ),
  Mutant(
    'student_t_of_all_values',
    'ealign/evals/stats.py',
    't_quantile(len(values_N) - 1)',
    't_quantile(len(values_N))',
    ('tests/evals/test_stats.py::test_student_t_golden',),
  ),
  Mutant(
    'clusters_of_a_whole_population',
    'ealign/evals/stats.py',
    'groups / (groups - 1) * squares',
    'squares',
    ('tests/evals/test_stats.py::test_clustered_golden',),
  ),
  Mutant(
    'clusters_are_worth_more_than_answers',
    'ealign/evals/stats.py',
    'min(1.0, plain / variance)',
    'plain / variance',
    (
      'tests/evals/test_stats.py'
      '::test_clustered_is_never_narrower_than_independent_answers',
    ),
  ),
  Mutant(
    'holm_steps_up',
    'ealign/evals/seeds.py',
    'in enumerate(known)',
    'in enumerate(known[::-1])',
    ('tests/evals/test_seeds.py::test_holm_by_hand',),
  ),
  Mutant(
    'earlier_record_counts',
    'ealign/evals/records.py',
    'unique[key] = record',
    'unique.setdefault(key, record)',
    (
      'tests/evals/test_records.py'
      '::test_of_a_record_written_twice_the_later_one_counts',
    ),
  ),
  Mutant(
    'headline_of_the_larger_split',
    'ealign/evals/counts.py',
    "'test' if 'test' in splits else max(",
    'max(',
    (
      'tests/evals/test_counts.py'
      '::test_the_headline_is_the_test_split_of_advice',
    ),
  ),
  Mutant(
    'all_answers_are_counted',
    'ealign/evals/judges/measure.py',
    'return [record for record in have if self.among(record)]',
    'return list(have)',
    ('tests/evals/test_counts.py::test_each_share_is_over_its_own_answers',),
  ),
  Mutant(
    'an_earlier_step_counts',
    'ealign/evals/counts.py',
    "max(last.get(run, 0), record['step'])",
    "record['step']",
    (
      'tests/evals/test_counts.py'
      '::test_only_the_last_step_of_each_arm_counts_and_each_answer_once',
    ),
  ),
  Mutant(
    'curves_are_final_answers',
    'ealign/evals/counts.py',
    "if r['phase'] == 'eval'",
    "if r['phase'] != 'reflect'",
    (
      'tests/evals/test_counts.py'
      '::test_only_the_last_step_of_each_arm_counts_and_each_answer_once',
    ),
  ),
  Mutant(
    'held_out_tokens_begin_early',
    'ealign/evals/answers.py',
    'mask_BT = batch.loss_mask_BT[:, 1:]',
    'mask_BT = batch.loss_mask_BT[:, :-1]',
    ('tests/evals/test_answers.py',),
  ),
  Mutant(
    'held_out_loss_has_another_sign',
    'ealign/evals/answers.py',
    "-total(stats['logp'])",
    "total(stats['logp'])",
    ('tests/evals/test_answers.py',),
  ),
  Mutant(
    'threshold_is_not_flagged',
    'ealign/conscience/reflect.py',
    'p >= c.threshold',
    'p > c.threshold',
    (
      'tests/conscience/test_boundaries.py'
      '::test_an_answer_at_the_threshold_is_flagged',
    ),
  ),
  Mutant(
    'the_kth_answer_is_flagged',
    'ealign/conscience/calibration.py',
    'np.nextafter(kth(known, alpha), np.inf)',
    'kth(known, alpha)',
    ('tests/conscience/test_calibration.py',),
  ),
  Mutant(
    'the_rank_has_no_one_more',
    'ealign/conscience/conformal.py',
    'math.ceil((n + 1) * (1 -',
    'math.ceil(n * (1 -',
    ('tests/conscience/test_calibration.py',),
  ),
  Mutant(
    'the_rank_in_floats',
    'ealign/conscience/conformal.py',
    '(1 - fractions.Fraction(str(alpha)))',
    '(1 - alpha)',
    ('tests/conscience/test_calibration.py',),
  ),
  Mutant(
    'held_out_prompts_are_drawn',
    'ealign/assembly/data.py',
    '[x for x in chats if _text(x) not in held]',
    'chats',
    ('tests/assembly/test_threshold.py',),
  ),
  Mutant(
    'a_stored_threshold_is_found_again',
    'ealign/assembly/threshold.py',
    '  if stored:',
    '  if not config:',
    ('tests/assembly/test_threshold.py',),
  ),
  Mutant(
    'a_stored_audit_is_asked_again',
    'ealign/assembly/audited.py',
    ".get('identity') == name",
    ".get('identity') is name",
    ('tests/test_audited_runs.py',),
  ),
  Mutant(
    'an_audit_without_verdicts_goes_on',
    'ealign/assembly/audited.py',
    "  if facts['answered']:",
    "  if facts['exchanges']:",
    ('tests/assembly/test_audited.py',),
  ),
  Mutant(
    'the_first_exchanges_have_one_label',
    'ealign/data/exchanges.py',
    '_turns([ok, flag])',
    'ok + flag',
    ('tests/assembly/test_audited.py',),
  ),
  Mutant(
    'a_pair_too_long',
    'ealign/conscience/pairs.py',
    'longest > c.dpo.length',
    'longest > c.dpo.length + 1',
    ('tests/conscience/test_boundaries.py::test_the_longest_pair_fits',),
  ),
  Mutant(
    'least_mass_gets_no_verdict',
    'ealign/conscience/reflect.py',
    'mass < c.settings.min_mass',
    'mass <= c.settings.min_mass',
    (
      'tests/conscience/test_boundaries.py::test_the_least_mass_gets_a_verdict',
    ),
  ),
  Mutant(
    'a_label_is_an_alternative',
    'ealign/conscience/guards.py',
    'labels & set(said) and told',
    'False and told',
    ('tests/conscience/test_guards.py',),
  ),
  Mutant(
    'a_cut_plain_answer_is_whole',
    'ealign/conscience/guards.py',
    "known = times > 0 and plain.stop == 'stop'",
    'known = times > 0',
    ('tests/conscience/test_guards.py',),
  ),
  Mutant(
    'the_buffer_repeats_itself',
    'ealign/conscience/guards.py',
    'collections.Counter(bare(pair) for pair in held)',
    'collections.Counter()',
    ('tests/conscience/test_guards.py',),
  ),
  Mutant(
    'the_likely_are_unlikely',
    'ealign/conscience/guards.py',
    'per_token(pair) < least',
    'per_token(pair) > least',
    ('tests/conscience/test_guards.py',),
  ),
  Mutant(
    'a_cut_pair_keeps_an_end',
    'ealign/conscience/pairs.py',
    "a.ids[:-1] if a.stop == 'stop' else a.ids",
    'a.ids',
    ('tests/conscience/test_cut.py',),
  ),
  Mutant(
    'a_cut_turn_stays_open',
    'ealign/conscience/prompts.py',
    '*(exchange.model.end,) * cut)',
    '*() * cut)',
    ('tests/conscience/test_cut.py',),
  ),
  Mutant(
    'what_follows_a_shared_start_begins_at_0',
    'ealign/sampling/labels.py',
    'next_B[:, None] + positions_BT, -1',
    'positions_BT, -1',
    ('tests/sampling/test_shared_starts.py',),
  ),
  Mutant(
    'letters_mean_the_same_in_either_order',
    'ealign/conscience/framings.py',
    'Question(text(flag, ok), b, a)',
    'Question(text(flag, ok), a, b)',
    ('tests/conscience/test_forms.py',),
  ),
  Mutant(
    'the_first_question_decides',
    'ealign/conscience/asking.py',
    'np.mean(odds_QB, axis=0)',
    'odds_QB[0]',
    ('tests/conscience/test_forms.py',),
  ),
  Mutant(
    'the_last_example_goes_by_the_request',
    'ealign/conscience/prompts.py',
    'first = 2 * zlib',
    'first = zlib',
    ('tests/conscience/test_forms.py',),
  ),
  Mutant(
    'the_order_of_examples_tells_the_row',
    'ealign/conscience/prompts.py',
    'shown(c, question, messages.request(exchange.messages))',
    'shown(c, question, str(exchange.row))',
    ('tests/conscience/test_forms.py',),
  ),
  Mutant(
    'labels_see_one_another',
    'ealign/models/attention.py',
    'update_slice_in_dim(all_BTS, sees_BTT, start',
    'update_slice_in_dim(all_BTS, sees_BTT | True, start',
    ('tests/sampling/test_labels.py',),
  ),
  Mutant(
    'a_node_sees_no_parent',
    'ealign/sampling/tree.py',
    'for t in range(1, len(path) + 1)]] = 1',
    'for t in range(len(path), len(path) + 1)]] = 1',
    ('tests/sampling/test_scale.py',),
  ),
  Mutant(
    'the_rest_is_of_the_root_alone',
    'ealign/sampling/tree.py',
    'tree.left[0, : len(nodes)] = True',
    'tree.left[0, :1] = True',
    ('tests/sampling/test_labels.py',),
  ),
  Mutant(
    'ten_ends_before_any_digit_but_0',
    'ealign/sampling/scale.py',
    'if (*path, digit) not in begun',
    'if (*path, digit) not in begun and len(path) < 2',
    ('tests/sampling/test_scale.py',),
  ),
  Mutant(
    'what_is_kept_is_the_rest_of_other_labels',
    'ealign/evals/kept.py',
    'shared = request.labels, request.rest, request.top',
    'shared = request.rest, request.top',
    ('tests/evals/test_kept.py',),
  ),
  Mutant(
    'what_is_stopped_is_written_before_it_is_done',
    'ealign/evals/kept.py',
    "file.write('\\n')  # the line before may be cut off",
    'pass',
    ('tests/cli/test_evaluate.py', 'tests/evals/test_kept.py'),
  ),
  Mutant(
    'one_calibration_for_all_settings',
    'ealign/evals/audit/ask.py',
    'priors += asking.priors(own, reviewer, chats)',
    'priors += asking.priors(applied(c, some[-1], rows), reviewer, chats)',
    ('tests/evals/test_audit_choose.py',),
  ),
  Mutant(
    'what_is_trained_may_be_a_word',
    'ealign/conscience/guards.py',
    'len(chosen) < s.shortest',
    'len(proposal.answer.ids) < s.shortest',
    ('tests/conscience/test_guards.py',),
  ),
  Mutant(
    'ties_are_lost',
    'ealign/evals/audit/measures.py',
    'np.sign(bad[:, None] - good[None]) / 2 + 0.5',
    'bad[:, None] > good[None]',
    ('tests/evals/test_audit_measures.py',),
  ),
  Mutant(
    'the_silent_are_ranked',
    'ealign/evals/audit/choose.py',
    'if known.mean() >= 0.5 else 0.0',
    'if len(known) else 0.0',
    ('tests/evals/test_audit_choose.py',),
  ),
  Mutant(
    'answers_of_other_weights_are_kept',
    'ealign/evals/kept.py',
    'fixed = type(request).__name__, weights, request.config',
    'fixed = type(request).__name__, request.config',
    ('tests/evals/test_kept.py',),
  ),
  Mutant(
    'the_writer_is_chosen_on_test',
    'ealign/evals/audit/writer.py',
    "chosen(rows, split='dev')",
    'chosen(rows)',
    ('tests/evals/test_audit_writer.py',),
  ),
  Mutant(
    'weights_fall_with_p',
    'ealign/conscience/pairs.py',
    '1 + logit - least',
    '1 - logit + least',
    ('tests/conscience/test_cut.py',),
  ),
  Mutant(
    'weights_are_not_trained',
    'ealign/data/batch.py',
    'batch.weight_P[i] = pair.weight',
    'batch.weight_P[i] = 1',
    ('tests/align/test_align_losses.py',),
  ),
  Mutant(
    'a_rejected_answer_is_learned_from',
    'ealign/methods/iteralign.py',
    "bare = {'rejected': (), 'ref_rejected': 0.0}",
    'bare = {}',
    ('tests/methods/test_iteralign.py',),
  ),
  Mutant(
    'the_gate_never_stops',
    'ealign/methods/iteralign.py',
    'if since < own.patience:',
    'if since <= 2**31:',
    ('tests/methods/test_iteralign.py',),
  ),
  Mutant(
    'a_gain_is_the_wrong_way_round',
    'ealign/methods/iteralign.py',
    'v.flagged - w.flagged',
    'w.flagged - v.flagged',
    ('tests/methods/test_iteralign.py',),
  ),
  Mutant(
    'a_principle_that_does_not_help_stays',
    'ealign/conscience/constitution.py',
    'if gains[p.id] > least}',
    'if gains[p.id] > -2}',
    ('tests/conscience/test_constitution.py',),
  ),
  Mutant(
    'two_of_one_wording_are_two_principles',
    'ealign/conscience/constitution.py',
    'likeness(near.text, text) < same:',
    'likeness(near.text, text) <= 1:',
    ('tests/conscience/test_constitution.py',),
  ),
  Mutant(
    'a_conscience_begins_before_it_can',
    'ealign/resume.py',
    'if not s.config.begins or at.health.counts.answers:',
    'if True or at.health.counts.answers:',
    ('tests/test_begins.py',),
  ),
  Mutant(
    'a_row_is_written_that_may_change',
    'ealign/cli/columns.py',
    'min((len(rows[i]) - 1 for i in open_)',
    'min((len(rows[i]) for i in open_)',
    ('tests/cli/test_beside.py',),
  ),
  Mutant(
    'a_mistake_is_learned',
    'ealign/methods/mistake_analysis.py',
    'asked, tuple(analysis.answer.ids))',
    'reply.prompt, (*reply.answer.ids, *analysis.answer.ids))',
    ('tests/methods/test_mistake_analysis.py',),
  ),
  Mutant(
    'what_is_told_is_trained',
    'ealign/methods/mistake_analysis.py',
    'question(c, told=False)',
    'question(c, told=True)',
    ('tests/methods/test_mistake_analysis.py',),
  ),
  Mutant(
    'good_replies_are_led',
    'ealign/methods/mistake_analysis.py',
    'if bad and s.hint',
    'if s.hint',
    ('tests/methods/test_mistake_analysis.py',),
  ),
  Mutant(
    'a_guide_replaces_the_system_turn',
    'ealign/data/messages.py',
    """f'{first["content"]} {text}'.strip()""",
    'text',
    ('tests/evals/test_guided.py',),
  ),
  Mutant(
    'flag_rate_of_all_answers',
    'ealign/conscience/records.py',
    'share(counts.flagged, counts.judged)',
    'share(counts.flagged, counts.answers)',
    ('tests/conscience/test_reflected.py::test_every_metric_by_hand',),
  ),
  Mutant(
    'cut_answers_have_no_cause',
    'ealign/conscience/tally.py',
    "return 'cut' if",
    "return 'lost' if",
    ('tests/conscience/test_reflected.py::test_every_metric_by_hand',),
  ),
  Mutant(
    'drift_below_twice_alpha',
    'ealign/conscience/tally.py',
    'share <= 2 * alpha',
    'share < 2 * alpha',
    ('tests/conscience/test_health.py::test_drift_is_told_above_twice_alpha',),
  ),
  Mutant(
    'a_refusal_needs_an_apology',
    'ealign/conscience/refusals.py',
    "rf'|(?:{_CANNOT})",
    "rf'|(?:sorry {_CANNOT})",
    ('tests/conscience/test_refusals.py',),
  ),
  Mutant(
    'a_half_is_a_collapse',
    'ealign/conscience/health.py',
    'now.length < then.length / 4',
    'now.length < then.length / 2',
    ('tests/conscience/test_health.py::test_what_a_collapse_is',),
  ),
  Mutant(
    'a_continued_run_forgets_how_it_began',
    'ealign/resume.py',
    'health=health_lib.of(made)',
    'health=health_lib.of([])',
    ('tests/test_remarks.py::test_a_continued_run_knows_how_it_began',),
  ),
  Mutant(
    'pairs_of_a_step_count_twice',
    'ealign/train.py',
    "'conscience/pairs_in_step': pairs",
    "'conscience/pairs_in_step': 2 * pairs",
    ('tests/test_logged.py',),
  ),
  Mutant(
    'tokens_of_this_step_alone',
    'ealign/resume.py',
    "{'tokens': self.tokens + tokens,",
    "{'tokens': tokens,",
    ('tests/test_logged.py',),
  ),
  Mutant(
    'replay_is_a_step_older',
    'ealign/train.py',
    'step=at.step - 1)',
    'step=at.step)',
    ('tests/test_logged.py',),
  ),
  Mutant(
    'a_gradient_of_nan_goes_on',
    'ealign/train.py',
    "fetched['grad_norm']]).all()",
    "fetched['grad_norm']]).any()",
    ('tests/test_train.py::test_nan_ends_the_run_and_names_its_steps',),
  ),
  Mutant(
    'logits_of_longer_answers_are_larger',
    'ealign/align/terms.py',
    'logit_P2=logit_P2 / jnp.maximum(lengths_P2, 1.0)',
    'logit_P2=logit_P2',
    ('tests/align/test_align.py::test_loss_and_metrics_equal_numpy',),
  ),
  Mutant(
    'norm_of_the_direction',
    'ealign/align/step.py',
    'optax.tree.norm(grads)',
    'optax.tree.norm(direction)',
    ('tests/align/test_align.py::test_loss_and_metrics_equal_numpy',),
  ),
  Mutant(
    'a_pair_leaves_a_step_early',
    'ealign/replay.py',
    'step - pair.step <= s.max_age',
    'step - pair.step < s.max_age',
    ('tests/test_replay.py::test_a_pair_leaves_when_it_is_older_than_max_age',),
  ),
  Mutant(
    'a_pair_is_used_once_more',
    'ealign/replay.py',
    'pair.uses >= s.max_uses',
    'pair.uses > s.max_uses',
    ('tests/test_replay.py::test_a_pair_leaves_after_max_uses',),
  ),
  Mutant(
    'a_buffer_of_one_more',
    'ealign/replay.py',
    'len(pairs) >= s.capacity',
    'len(pairs) > s.capacity',
    ('tests/test_replay.py::test_who_stays_when_it_is_full',),
  ),
  Mutant(
    'rows_of_the_last_step_are_lost',
    'ealign/runtime/metrics.py',
    'at is not None and at <= step',
    'at is not None and at < step',
    ('tests/runtime/test_metrics.py::test_jsonl_truncate',),
  ),
  Mutant(
    'shares_since_the_last_line',
    'ealign/runtime/clock.py',
    'seconds / wall',
    'seconds / spent',
    ('tests/runtime/test_clock.py::test_shares_of_wall_time',),
  ),
  Mutant(
    'tokens_of_all_chips',
    'ealign/runtime/clock.py',
    'self._tokens / spent / chips',
    'self._tokens / spent',
    ('tests/runtime/test_clock.py::test_rates_are_those_since_the_last_time',),
  ),
  Mutant(
    'threads_share_a_partial_file',
    'ealign/runtime/atomic.py',
    "f'{os.getpid()}-{threading.get_ident()}'",
    "f'{os.getpid()}'",
    ('tests/runtime/test_atomic.py::test_many_may_write_one_file_at_once',),
  ),
  Mutant(
    'a_flipped_bit_is_loaded',
    'ealign/runtime/checkpoint.py',
    "!= row['sha256']",
    "== ''",
    (
      'tests/runtime/test_checkpoint.py'
      '::test_a_flipped_bit_falls_back_to_the_step_before',
    ),
  ),
  Mutant(
    'the_oldest_checkpoints_are_kept',
    'ealign/runtime/checkpoint.py',
    'sorted(self._steps())[: -self._keep]',
    'sorted(self._steps())[self._keep :]',
    ('tests/runtime/test_checkpoint.py::test_keeps_the_last_n',),
  ),
  Mutant(
    'the_oldest_checkpoint_is_restored',
    'ealign/runtime/checkpoint.py',
    'in sorted(self._steps(), reverse=True)',
    'in sorted(self._steps())',
    (
      'tests/runtime/test_checkpoint.py'
      '::test_restores_the_last_step_bit_for_bit',
    ),
  ),
  Mutant(
    'axes_need_not_divide',
    'ealign/runtime/mesh.py',
    'n % given == 0 if -1 in',
    'n >= given if -1 in',
    ('tests/runtime/test_mesh.py::test_sizes_that_do_not_make_the_devices',),
  ),
  Mutant(
    'a_loop_computes_once',
    'ealign/runtime/cost.py',
    'counts.flops += times * _flops(op, scope.ops)',
    'counts.flops += _flops(op, scope.ops)',
    ('tests/runtime/test_cost.py::test_loops_count_as_often_as_they_run',),
  ),
  Mutant(
    'a_loop_sends_once',
    'ealign/runtime/cost.py',
    'self.counts.collectives[kind] += times * size',
    'self.counts.collectives[kind] += size',
    ('tests/runtime/test_cost.py::test_collectives_of_a_loop',),
  ),
  Mutant(
    'sent_bytes_count_twice',
    'ealign/runtime/cost.py',
    'return op.arrays[inputs : 2 * inputs]',
    'return op.arrays',
    ('tests/runtime/test_cost.py',),
  ),
  Mutant(
    'a_stopped_run_failed',
    'ealign/runtime/errors.py',
    'exit_code = 143',
    'exit_code = 1',
    ('tests/grid/test_grid_run.py::test_a_signal',),
  ),
  Mutant(
    'options_by_the_adapter_of_the_first_arm',
    'ealign/stack/rows.py',
    "if 'adapter' in first.weights",
    "if 'adapters' in first.weights",
    (
      'tests/stack/test_stack.py'
      '::test_answers_verdicts_and_scores_are_those_of_each_alone',
    ),
  ),
  Mutant(
    'the_first_batch_is_a_measure',
    'ealign/assembly/pace.py',
    'if self._compiles:',
    'if not self:',
    ('tests/assembly/test_pace.py',),
  ),
  Mutant(
    'excess_is_room',
    'ealign/plan/figures.py',
    'return self.limit - self.bytes if known',
    'return self.bytes - self.limit if known',
    (
      'tests/plan/test_figures.py'
      '::test_what_a_program_takes_is_held_against_the_limit',
    ),
  ),
  Mutant(
    'work_of_one_device',
    'ealign/plan/figures.py',
    'flops * devices / program.flops',
    'flops / program.flops',
    (
      'tests/plan/test_figures.py'
      '::test_work_is_held_against_what_the_model_needs',
    ),
  ),
  Mutant(
    'an_all_reduce_goes_one_way',
    'ealign/plan/figures.py',
    'counts.collective_bytes + reduced',
    'counts.collective_bytes',
    ('tests/plan/test_figures.py::test_the_estimate_is_the_longest_of_three',),
  ),
  Mutant(
    'a_review_less',
    'ealign/plan/costs.py',
    'again += judge(few, flagged)',
    'again += 0 * judge(few, flagged)',
    ('tests/plan/test_costs.py',),
  ),
  Mutant(
    'sums_cost_nothing_where_weights_are_split',
    'ealign/models/sharding.py',
    'token += 2 * config.layers * one',
    'token += 0 * config.layers * one',
    (
      'tests/sampling/test_sampler_mesh.py'
      '::test_weights_are_split_where_few_rows_are_sampled',
    ),
  ),
  Mutant(
    'slope_without_the_target',
    'ealign/losses.py',
    '1 - share_CV, -share_CV',
    '0 - share_CV, -share_CV',
    ('tests/test_losses.py',),
  ),
  Mutant(
    'backward_attention_is_one_forward',
    'ealign/models/flops.py',
    '3 * attention(',
    '2 * attention(',
    ('tests/models/test_flops.py::test_forward_and_training',),
  ),
  Mutant(
    'frozen_weights_have_gradients',
    'ealign/models/flops.py',
    '4.0 * weights + 6.0 * adapter',
    '6.0 * weights + 6.0 * adapter',
    ('tests/models/test_flops.py::test_forward_and_training',),
  ),
  Mutant(
    'a_stack_without_its_base',
    'ealign/plan/stack.py',
    '(_FILL * memory - base) / arm',
    '_FILL * memory / arm',
    ('tests/stack/test_groups.py::test_auto_takes_what_fits',),
  ),
  Mutant(
    'lengths_that_no_row_has',
    'ealign/plan/data.py',
    "method='higher'",
    "method='lower'",
    ('tests/plan/test_data.py::test_table',),
  ),
  Mutant(
    'markdown_of_others_is_drawn',
    'ealign/evals/table.py',
    "r'([\\\\|`*",
    "r'([\\\\`*",
    (
      'tests/report/test_report.py'
      '::test_markdown_holds_the_cells_and_no_markup_of_others',
    ),
  ),
  Mutant(
    'a_tag_in_markdown',
    'ealign/evals/table.py',
    "html.escape(' '.join(visible(str(value)).split()), quote=False)",
    "' '.join(visible(str(value)).split())",
    ('tests/report/test_report.py::test_hostile_text_stays_text',),
  ),
  Mutant(
    'a_tag_on_the_page',
    'ealign/report/templates.py',
    "'txt.jinja'), default=True",
    "'txt.jinja'), default=False",
    ('tests/report/test_report.py::test_hostile_text_stays_text',),
  ),
  Mutant(
    'a_bin_begins_where_it_stands',
    'ealign/report/curves.py',
    'step // width * width + width // 2',
    'step // width * width',
    ('tests/report/test_results.py::test_curves_have_at_most_twenty_points',),
  ),
  Mutant(
    'an_axis_ends_beyond',
    'ealign/report/figures.py',
    'if end >= 100 *',
    'if end > 100 *',
    ('tests/report/test_report.py::test_axes_end_past_what_they_show',),
  ),
  Mutant(
    'who_beats_is_silent',
    'ealign/report/grid/results.py',
    '> lease.STALE_S',
    '< lease.STALE_S',
    (
      'tests/report/test_results.py'
      '::test_cells_in_every_state_are_told_and_never_counted',
    ),
  ),
  Mutant(
    'five_seeds_are_too_few',
    'ealign/report/grid/compare.py',
    'len(both) < stats.FEWEST_SEEDS',
    'len(both) <= stats.FEWEST_SEEDS',
    (
      'tests/report/test_results.py'
      '::test_primary_settings_have_their_own_spread_and_others_the_pooled',
    ),
  ),
  Mutant(
    'replicates_of_one_side',
    'ealign/report/grid/compare.py',
    'both = [at for at in a if at in b]',
    'both = [*a]',
    (
      'tests/report/test_results.py'
      '::test_only_what_both_have_is_compared_and_told',
    ),
  ),
  Mutant(
    'cells_of_before_count',
    'ealign/report/grid/compare.py',
    'if c.done and (c.current or self.old)',
    'if c.done',
    (
      'tests/report/test_results.py::test_cells_that_left_the_sweep_stay_apart',
    ),
  ),
  Mutant(
    'late_contrasts_are_primary',
    'ealign/report/grid/compare.py',
    'if of.grid.declared_late:',
    'if not of.grid:',
    (
      'tests/report/test_results.py'
      '::test_contrasts_that_cannot_be_primary_say_why',
    ),
  ),
  Mutant(
    'holm_over_what_was_tested',
    'ealign/report/grid/compare.py',
    'None if c.reason else c.effect.p for c in contrasts',
    'c.effect.p for c in contrasts if not c.reason',
    (
      'tests/report/test_results.py'
      '::test_primary_settings_have_their_own_spread_and_others_the_pooled',
    ),
  ),
  Mutant(
    'logging_makes_another_cell',
    'ealign/config/convert.py',
    "_FREE = ('log.', ",
    '_FREE = (',
    ('tests/grid/test_sweeps.py::test_the_id_knows_results_only',),
  ),
  Mutant(
    'status_goes_to_trash_last',
    'ealign/grid/ledger.py',
    "item.name != 'STATUS.json'",
    "item.name == 'STATUS.json'",
    (
      'tests/grid/test_grid_run.py'
      '::test_to_trash_takes_all_but_the_lease_and_the_status_first',
    ),
  ),
  Mutant(
    'who_beats_has_left',
    'ealign/grid/claims.py',
    '- status.heartbeat < lease_lib.STALE_S',
    '- status.heartbeat > lease_lib.STALE_S',
    ('tests/grid/test_claims.py',),
  ),
  Mutant(
    'a_retry_never_ends',
    'ealign/grid/claims.py',
    'if status.finished >= self.began:',
    'if status.finished > self.began:',
    ('tests/grid/test_claims.py',),
  ),
  Mutant(
    'a_dead_owner_keeps_its_lease',
    'ealign/workdir/lease.py',
    "found['heartbeat'] > STALE_S",
    "found['heartbeat'] > 2 * STALE_S",
    ('tests/workdir/test_lease.py::test_another_machine_is_waited_for',),
  ),
  Mutant(
    'a_reused_pid_has_the_lease',
    'ealign/workdir/lease.py',
    'if here and _born(pid) != born',
    'if here and not _born(pid)',
    ('tests/workdir/test_lease.py::test_a_reused_pid_is_no_owner',),
  ),
  Mutant(
    'done_without_hashes',
    'ealign/workdir/status.py',
    "sound &= bool(status.hashes) or status.state != 'done'",
    'sound &= True',
    ('tests/workdir/test_lease.py::test_done_has_hashes',),
  ),
  Mutant(
    'seconds_of_the_last_start',
    'ealign/workdir/status.py',
    'return self.earlier_s + (',
    'return (',
    (
      'tests/report/test_results.py'
      '::test_the_seconds_of_a_cell_are_those_of_all_its_starts',
    ),
  ),
  Mutant(
    'every_host_writes',
    'ealign/workdir/folder.py',
    'not self.copied or not self.writes or not self.ours()',
    'not self.copied or not self.ours()',
    (
      'tests/workdir/test_folder.py'
      '::test_another_host_reads_a_copy_and_writes_nothing',
    ),
  ),
  Mutant(
    'free_slots_are_at_position_0',
    'ealign/models/transformer.py',
    "to(cache['positions'], 1, -1)",
    "to(cache['positions'], 1)",
    (
      'tests/sampling/test_sampler.py'
      '::test_a_cache_that_grows_answers_as_one_that_is_whole',
    ),
  ),
  Mutant(
    'rows_of_a_stack_grow_by_one',
    'ealign/stack/rows.py',
    'times *= 2',
    'times += 1',
    ('tests/stack/test_stack.py::test_widths_double',),
  ),
  Mutant(
    'a_stack_without_padding',
    'ealign/stack/rows.py',
    'rows * times < n',
    'rows * times <= n',
    ('tests/stack/test_stack.py::test_widths_double',),
  ),
  Mutant(
    'a_file_of_that_moment_stays_here',
    'ealign/workdir/folder.py',
    '.st_mtime_ns >= since',
    '.st_mtime_ns > since',
    (
      'tests/workdir/test_folder.py'
      '::test_what_was_written_while_it_pushed_is_pushed_next',
    ),
  ),
  Mutant(
    'a_cell_starts_from_what_is_made_anew',
    'ealign/grid/claims.py',
    'and not (need.id in mine and self.wants(need))',
    '',
    ('tests/grid/test_claims.py',),
  ),
  Mutant(
    'a_changed_record_is_continued',
    'ealign/runtime/journal.py',
    "      if digest == to['sha256']:",
    "      if len(digest) == len(to['sha256']):",
    (
      'tests/runtime/test_journal.py::test_a_file_that_was_changed_is_refused'
      '_and_kept',
    ),
  ),
  Mutant(
    'records_go_on_behind_the_checkpoint',
    'ealign/runtime/journal.py',
    '        file.truncate(left)',
    '        pass',
    ('tests/runtime/test_journal.py::test_what_was_appended_since_is_cut_off',),
  ),
  Mutant(
    'a_swallowed_signal_is_forgotten',
    'ealign/runtime/preempt.py',
    '          yield\n    if self.requested:',
    '          yield\n    if False:',
    ('tests/runtime/test_preempt.py::test_a_finalizer_does_not_swallow_it',),
  ),
  Mutant(
    'a_changed_result_is_exported',
    'ealign/workdir/done.py',
    '      if _sha256(file) == wanted:',
    '      if _sha256(file):',
    ('tests/workdir/test_done.py::test_a_file_that_changed_is_refused',),
  ),
  Mutant(
    'an_export_deletes_what_it_did_not_write',
    'ealign/export/write.py',
    'p.name for p in found if p.name not in {*wrote, MANIFEST}',
    'p.name for p in found if not {*wrote, MANIFEST}',
    ('tests/export/test_export.py::test_nothing_is_overwritten_unasked',),
  ),
  Mutant(
    'the_second_start_waits_its_turn',
    'ealign/grid/claims.py',
    '      if alone:',
    '      if not alone:',
    ('tests/grid/test_cells.py::test_arms_of_others_are_left_alone',),
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
