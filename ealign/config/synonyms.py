"""What fields are called by TRL, transformers and PEFT, and once were here.

An unknown name is looked for here before its spelling is: `learning_rate` is
nearer to `weight_decay` than to `lr`.
"""

import difflib
from collections.abc import Iterable

RENAMED = {'mesh.arm': 'mesh.stack'}  # fields, by the name they had
_BATCH = 'of all devices together'
_LENGTH = 'pairs have dpo.length'
_STEPS = 'in steps, of data.batch_size rows each'
# The field that a name of others stands for, or a flag, and a remark on what
# is different here. '' is no field.
SYNONYMS = {
  # The update.
  'learning_rate': ('optim.lr', ''),
  'lr_scheduler_type': ('optim.schedule', ''),
  'lr_scheduler': ('optim.schedule', ''),
  'warmup_steps': ('optim.warmup', ''),
  'warmup_ratio': ('optim.warmup', 'in steps'),
  'adam_beta1': ('optim.b1', ''),
  'adam_beta2': ('optim.b2', ''),
  'adam_epsilon': ('optim.eps', ''),
  'max_grad_norm': ('optim.clip', ''),
  'gradient_clipping': ('optim.clip', ''),
  'optimizer': ('', 'there is AdamW alone; optim has its numbers'),
  'per_device_train_batch_size': ('data.batch_size', _BATCH),
  'train_batch_size': ('data.batch_size', _BATCH),
  'micro_batch_size': ('train.microbatches', 'parts of a batch, not rows'),
  'gradient_accumulation_steps': (
    *('train.microbatches', 'it splits data.batch_size, which stays'),
  ),
  'per_device_eval_batch_size': ('eval.batch', _BATCH),
  'eval_batch_size': ('eval.batch', _BATCH),
  'num_train_epochs': ('train.steps', _STEPS),
  'num_epochs': ('train.steps', _STEPS),
  'epochs': ('train.steps', _STEPS),
  'max_steps': ('train.steps', ''),
  'num_train_steps': ('train.steps', ''),
  'logging_steps': ('train.log_every', ''),
  'save_steps': ('train.checkpoint_every', ''),
  'save_total_limit': ('train.keep', ''),
  'eval_steps': ('train.eval_every', ''),
  'gradient_checkpointing': ('model.remat', "'dots' or 'full'"),
  'report_to': ('log.tensorboard', ''),
  # The model.
  'model_name_or_path': ('model.path', ''),
  'pretrained_model_name_or_path': ('model.path', ''),
  'model_name': ('model.path', ''),
  'model_id': ('model.path', ''),
  'base_model': ('model.path', ''),
  'adapter_name_or_path': ('model.adapter', ''),
  'torch_dtype': ('model.dtype', ''),
  'bf16': ('model.dtype', "'bfloat16', as it is on accelerators"),
  'fp16': ('model.dtype', "'bfloat16', as it is on accelerators"),
  'attn_implementation': ('model.attention', ''),
  'load_in_8bit': ('model.quantize', "'int8'"),
  'load_in_4bit': ('model.quantize', "'int8' is the least"),
  'r': ('model.lora.rank', ''),
  'lora_r': ('model.lora.rank', ''),
  'lora_rank': ('model.lora.rank', ''),
  'lora_alpha': ('model.lora.alpha', 'with model.lora.rslora by sqrt(rank)'),
  'use_rslora': ('model.lora.rslora', ''),
  'target_modules': ('model.lora.targets', "as 'q', not 'q_proj'"),
  'lora_target_modules': ('model.lora.targets', "as 'q', not 'q_proj'"),
  'lora_dropout': ('', 'there is no dropout'),
  'use_peft': ('model.train', "'lora' or 'full'"),
  'tensor_parallel_size': ('mesh.tensor', ''),
  # Data, and what is sampled.
  'dataset_name': ('data.train', ''),
  'dataset_path': ('data.train', ''),
  'train_file': ('data.train', ''),
  'eval_dataset': ('eval.tokens', 'rows kept apart, for eval/loss'),
  'max_seq_length': ('data.length', _LENGTH),
  'max_length': ('data.length', _LENGTH),
  'model_max_length': ('data.length', _LENGTH),
  'max_prompt_length': ('dpo.length', 'of prompt and answer together'),
  'max_completion_length': ('sample.max_new_tokens', ''),
  'max_tokens': ('sample.max_new_tokens', ''),
  'max_new_tokens': ('sample.max_new_tokens', ''),
  'num_generations': ('conscience.samples', ''),
  'temperature': ('sample.temperature', ''),
  'top_p': ('sample.top_p', ''),
  'packing': ('', 'rows are always packed, to data.length'),
  'completion_only_loss': ('', 'loss is on assistant turns, docs/data.md'),
  'assistant_only_loss': ('', 'loss is on assistant turns, docs/data.md'),
  'enable_thinking': (
    *('data.chat_template_kwargs', "(('enable_thinking', False),)"),
  ),
  'system_prompt': ('data.train_system', ''),
  # Preferences.
  'beta': ('dpo.beta', ''),
  'loss_type': ('dpo.variant', ''),
  'label_smoothing_factor': ('dpo.label_smoothing', ''),
  'lambda': ('dpo.lam', ''),
  'dpo_weight': ('dpo.lam', ''),
  'rpo_alpha': ('dpo.lam', 'the weight of the DPO loss; SFT has 1'),
  'ref_model': ('', 'the reference is the frozen model itself'),
  'reference_free': ('', 'the reference is the frozen model itself'),
  'precompute_ref_log_probs': ('dpo.reference', "'cached'"),
  # The command.
  'output_dir': ('--workdir', ''),
  'resume_from_checkpoint': ('', 'the same command continues a run'),
  'data_seed': ('seed', ''),
}


def did_you_mean(name: str, known) -> str:
  """' Did you mean ...?' or '', by the last part of a path or by spelling."""
  name = str(name)  # a key of a dict may be anything
  if name in RENAMED:
    return f' It is called {RENAMED[name]} now.'
  known = [str(item) for item in known]
  last = name.rsplit('.', 1)[-1]
  close = [item for item in known if item.rsplit('.', 1)[-1] == last]
  close += difflib.get_close_matches(name, known, 1, 0.5)
  return f' Did you mean {close[0]!r}?' if close else ''


def meant(name: str) -> tuple[str, str]:
  """(field or flag, remark) that a name of others stands for; ('', '')."""
  last = str(name).rsplit('.', 1)[-1].lower().replace('-', '_')
  return SYNONYMS.get(last, ('', ''))


def hint(name: str, known: Iterable[str]) -> str:
  """' Here it is ...' or ' Did you mean ...?' of an unknown field, or ''."""
  field, remark = meant(name)
  if str(name) in RENAMED or not (field or remark):
    return did_you_mean(name, known)
  if not field:
    return f' Here {remark}.'
  named = field if field.startswith('--') else repr(field)
  return f' Here it is {named}{f", {remark}" if remark else ""}.'
