"""What a config.json may say that no one here reads, and why that is right.

A field that is neither read nor in this table is an error, since it may change
what the model computes. An empty one (null, {} or []) says nothing.
"""

_TABLE = {  # why -> fields
  'who made it, when, with what': (
    '_commit_hash',
    '_from_model_config',
    '_model_name_or_path',
    '_name_or_path',
    'base_model',
    'dtype',
    'finetuned_from',
    'is_llama_config',
    'license',
    'model_name',
    'name_or_path',
    'torch_dtype',
    'transformers.js_config',
    'transformers_version',
    'unsloth_fixed',
    'unsloth_tokenizer',
    'unsloth_version',
  ),
  'weights before training, and noise within it': (
    'attention_dropout',
    'attn_pdrop',
    'classifier_dropout',
    'dropout',
    'embd_pdrop',
    'hidden_dropout',
    'hidden_dropout_prob',
    'initializer_range',
    'neftune_noise_alpha',
    'resid_pdrop',
  ),
  'the tokenizer says it': (
    'bos_token_id',
    'cls_token_id',
    'decoder_start_token_id',
    'eos_token_id',
    'mask_token_id',
    'pad_token_id',
    'prefix',
    'sep_token_id',
    'tokenizer_class',
    'tokenizer_model_max_length',
    'tokenizer_padding_side',
    'unk_token_id',
  ),
  'how answers are sampled: fields of the run say it': (
    'bad_words_ids',
    'begin_suppress_tokens',
    'diversity_penalty',
    'do_sample',
    'early_stopping',
    'encoder_no_repeat_ngram_size',
    'exponential_decay_length_penalty',
    'forced_bos_token_id',
    'forced_eos_token_id',
    'length_penalty',
    'max_length',
    'max_new_tokens',
    'min_length',
    'no_repeat_ngram_size',
    'num_beam_groups',
    'num_beams',
    'num_return_sequences',
    'remove_invalid_values',
    'repetition_penalty',
    'suppress_tokens',
    'temperature',
    'top_k',
    'top_p',
    'typical_p',
  ),
  'what is returned beside the logits, or kept between calls': (
    'cache_implementation',
    'logits_to_keep',
    'num_logits_to_keep',
    'output_attentions',
    'output_hidden_states',
    'output_router_logits',
    'output_scores',
    'return_dict',
    'return_dict_in_generate',
    'use_cache',
    'use_return_dict',
  ),
  'the same sums in another way or order': (
    '_attn_implementation',
    '_attn_implementation_autoset',
    '_attn_implementation_internal',
    '_experts_implementation',
    '_flash_attn_2_enabled',
    'attn_implementation',
    'chunk_size_feed_forward',
    'gradient_checkpointing',
    'pretraining_tp',
    'tf_legacy_loss',
    'torchscript',
    'use_bfloat16',
    'use_flash_attention',
    'use_flash_attn',
  ),
  'heads of other tasks': (
    'finetuning_task',
    'id2label',
    'label2id',
    'num_labels',
    'problem_type',
    'task_specific_params',
  ),
  'max_position_embeddings says it': (
    'max_seq_len',
    'max_seq_length',
    'max_sequence_length',
    'model_max_length',
    'n_ctx',
    'seq_len',
    'seq_length',
  ),
  'of encoders': ('is_decoder', 'tie_encoder_decoder'),
  # transformers writes them for families that do not read them, too.
  'read where the family has windows, experts or such a gate': (
    '_sliding_window_pattern',
    'hidden_act',
    'intermediate_size',
    'max_window_layers',
    'sliding_window',
    'sliding_window_pattern',
    'use_sliding_window',
  ),
}
WHY = {field: why for why, fields in _TABLE.items() for field in fields}


def unread(hf: dict, read) -> list[str]:
  """A message for each field that is neither read nor in the table."""
  said = {k for k, v in hf.items() if v not in (None, {}, [])}
  return [
    f'{field} is {str(hf[field])[:60]!r}, and it may change what the model '
    'computes: ealign does not know it; if it changes nothing, remove it'
    for field in sorted(said - set(read) - WHY.keys())
  ]
