"""Trains the tokenizer of the organism: byte-level BPE the way Qwen does it.

transformers rebuilds the pre-tokenizer of this model type in its own code, so
any other choice here would give other ids there.
"""

import json
from collections.abc import Iterable

import tokenizers
from etils import epath
from tokenizers import AddedToken, Regex, Tokenizer, pre_tokenizers

END_OF_TEXT, START, END = '<|endoftext|>', '<|im_start|>', '<|im_end|>'
ADDED = (END_OF_TEXT, START, END)

# Qwen's rule of what BPE never merges across: contractions, words with the
# character before them, single digits, punctuation, white space.
SPLIT = (
  r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
  r'| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+'
)

# ChatML, append-only: a chat's rendering is a prefix of that of its
# continuation, and no system turn appears that nobody wrote.
CHAT_TEMPLATE = (
  '{%- for message in messages -%}'
  "{{- '<|im_start|>' + message.role + '\\n' + message.content "
  "+ '<|im_end|>\\n' -}}"
  '{%- endfor -%}'
  '{%- if add_generation_prompt -%}'
  "{{- '<|im_start|>assistant\\n' -}}"
  '{%- endif -%}'
)


def build_tokenizer(
  documents: Iterable[list[dict]], vocab_size: int, folder
) -> Tokenizer:
  """Trains on chats; writes tokenizer.json, tokenizer_config.json, template.

  vocab_size counts everything: 256 bytes, merges, and the added tokens, which
  come last. Ids of equal documents are equal. ValueError if the documents have
  too few different words for vocab_size.
  """
  tokenizer = Tokenizer(tokenizers.models.BPE())
  tokenizer.normalizer = tokenizers.normalizers.NFC()
  tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
    [
      pre_tokenizers.Split(Regex(SPLIT), behavior='isolated'),
      pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ]
  )
  tokenizer.decoder = tokenizers.decoders.ByteLevel()
  trainer = tokenizers.trainers.BpeTrainer(
    vocab_size=vocab_size - len(ADDED),
    initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    show_progress=False,
  )
  tokenizer.train_from_iterator(_texts(documents), trainer)
  tokenizer.add_special_tokens(
    [AddedToken(token, special=True, normalized=False) for token in ADDED]
  )
  if (found := tokenizer.get_vocab_size()) != vocab_size:
    raise ValueError(f'vocab_size {vocab_size}: the documents give {found}')
  _write(tokenizer, epath.Path(folder))
  return tokenizer


def _texts(documents):
  """Contents and role lines; their order does not matter to the trainer."""
  for chat in documents:
    for message in chat:
      yield message['role'] + '\n'
      yield message['content']


def _write(tokenizer, folder):
  folder.mkdir(parents=True, exist_ok=True)
  config = {
    'tokenizer_class': 'Qwen2Tokenizer',
    'add_prefix_space': False,
    'bos_token': None,
    'eos_token': END,
    'pad_token': END_OF_TEXT,
    'unk_token': None,
    'clean_up_tokenization_spaces': False,
    'model_max_length': 1_000_000,
  }
  (folder / 'tokenizer.json').write_text(tokenizer.to_str(pretty=True))
  text = json.dumps(config, indent=2) + '\n'
  (folder / 'tokenizer_config.json').write_text(text)
  (folder / 'chat_template.jinja').write_text(CHAT_TEMPLATE)
