"""The tokenizer of a GGUF file, as the files of a Hugging Face folder.

A GGUF file has the vocabulary, the merges or their order, the kinds of the
tokens and the chat template; how text is split is a name (`tokenizer.ggml.pre`)
that stands for a regular expression of the model's makers.
"""

import json

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

from ealign.runtime.errors import UserError

_UNKNOWN, _CONTROL, _OWN, _BYTE = 2, 3, 4, 6  # kinds of tokens; 1 is text
_BLANK = '\u2581'  # how sentencepiece writes one
_ROLES = {  # of tokens in a Hugging Face folder -> their names in the file
  'bos_token': 'bos',
  'eos_token': 'eos',
  'unk_token': 'unknown',
  'pad_token': 'padding',
}
# Words, then numbers, then the rest; the two differ in how long a number is.
_WORDS = (
  r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|%s"
  r'| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+'
)
_QWEN, _LLAMA = _WORDS % r'\p{N}', _WORDS % r'\p{N}{1,3}'
_SPLITS = {  # tokenizer.ggml.pre -> how text is split; None: as GPT-2 does
  'default': None,
  'deepseek-r1-qwen': _QWEN,
  'gpt-2': None,
  'llama-bpe': _LLAMA,
  'llama-v3': _LLAMA,
  'llama3': _LLAMA,
  'qwen2': _QWEN,
  'smaug-bpe': _LLAMA,
  'smollm': None,  # after single digits
}


def special_ids(said: dict) -> dict:
  """The ids of special tokens, as config.json names them."""
  ids = {
    role: said.get(f'tokenizer.ggml.{n}_token_id') for role, n in _ROLES.items()
  }
  return {f'{k}_id': v for k, v in ids.items() if v is not None}


def files(said: dict) -> dict[str, str]:
  """The tokenizer's files by their names.

  Args:
    said: what the file says of itself, by key.

  Raises:
    UserError: a kind of tokenizer that is not supported, or no chat template.
  """
  template = said.get('tokenizer.chat_template')
  if not isinstance(template, str):
    raise UserError(
      'holds no chat template (tokenizer.chat_template); take the file of a '
      'chat model'
    )
  tokens = said.get('tokenizer.ggml.tokens') or []
  kinds = said.get('tokenizer.ggml.token_type') or [1] * len(tokens)
  ids = special_ids(said)
  if len(kinds) != len(tokens) or not all(
    0 <= i < len(tokens) for i in ids.values()
  ):
    raise UserError(
      f'its {len(tokens)} tokens, {len(kinds)} kinds of tokens and ids of '
      f'special tokens {ids} are not of one tokenizer; download it again'
    )
  make = {'gpt2': _bytes, 'llama': _sentencepiece}
  name = said.get('tokenizer.ggml.model')
  if name not in make:
    raise UserError(
      f'tokenizer.ggml.model is {name!r}; supported: {", ".join(make)}; take '
      "the model's Hugging Face folder"
    )
  made, starts = make[name](said, tokens, kinds)
  roles = _named(made, said, tokens, starts=starts)
  fields = {
    'tokenizer_class': 'PreTrainedTokenizerFast',
    'clean_up_tokenization_spaces': False,
    **roles,
  }
  return {
    'tokenizer.json': made.to_str(),
    'tokenizer_config.json': json.dumps(fields, indent=1) + '\n',
    'chat_template.jinja': template,
  }


def _named(made, said, tokens, *, starts: bool) -> dict[str, str]:
  """Tokens by their role, such as eos_token, which are made special."""
  ids = special_ids(said)
  roles = {k.removesuffix('_id'): tokens[i] for k, i in ids.items()}
  # As transformers does with what its config names so, whatever their kind.
  special = [tokenizers.AddedToken(t, normalized=False) for t in roles.values()]
  made.add_special_tokens(special)
  if said.get('tokenizer.ggml.add_bos_token', starts) and 'bos_token' in roles:
    bos = roles['bos_token']
    made.post_processor = processors.TemplateProcessing(
      single=[bos, '$A'],
      pair=[bos, '$A', bos, '$B'],
      special_tokens=[(bos, ids['bos_token_id'])],
    )
  return roles


def _bytes(said, tokens, kinds):
  """Byte-level BPE: the tokenizer, and whether a text starts with bos."""
  name = said.get('tokenizer.ggml.pre', 'default')
  if name not in _SPLITS:
    raise UserError(
      f'tokenizer.ggml.pre is {name!r}; supported: {", ".join(_SPLITS)}; take '
      "the model's Hugging Face folder"
    )
  split, llama = _SPLITS[name], _SPLITS[name] == _LLAMA
  merges = [tuple(x.split(' ')) for x in said.get('tokenizer.ggml.merges', [])]
  vocab = {token: i for i, token in enumerate(tokens)}
  bpe = models.BPE(vocab=vocab, merges=merges, ignore_merges=llama)
  made = tokenizers.Tokenizer(bpe)
  first = []
  if split:
    first = [pre_tokenizers.Split(tokenizers.Regex(split), 'isolated')]
  elif name == 'smollm':
    first = [pre_tokenizers.Digits(individual_digits=True)]
  last = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=not split)
  made.pre_tokenizer = pre_tokenizers.Sequence([*first, last])
  if split == _QWEN:
    made.normalizer = normalizers.NFC()
  made.decoder = decoders.ByteLevel()
  _add(made, tokens, kinds)
  return made, llama


def _sentencepiece(said, tokens, kinds):
  """BPE over characters: the tokenizer, and whether a text starts with bos."""
  if said.get('tokenizer.ggml.remove_extra_whitespaces'):
    raise UserError(
      'tokenizer.ggml.remove_extra_whitespaces is true; supported: false; take '
      "the model's Hugging Face folder"
    )
  # Blanks of tokens that users gave are stored as such.
  spelled = [
    token.replace(' ', _BLANK) if kind == _OWN else token
    for token, kind in zip(tokens, kinds, strict=True)
  ]
  vocab = {token: i for i, token in enumerate(spelled)}
  text = [
    token
    for token, kind in zip(spelled, kinds, strict=True)
    if kind not in (_UNKNOWN, _CONTROL, _BYTE)
  ]
  unknown = said.get('tokenizer.ggml.unknown_token_id')
  made = tokenizers.Tokenizer(
    models.BPE(
      vocab=vocab,
      merges=_merges(text, vocab),
      byte_fallback=True,
      fuse_unk=True,
      unk_token=None if unknown is None else spelled[unknown],
    )
  )
  prefix = said.get('tokenizer.ggml.add_space_prefix', True)
  first = [normalizers.Prepend(_BLANK)] if prefix else []
  blanks = normalizers.Replace(' ', _BLANK)
  made.normalizer = normalizers.Sequence([*first, blanks])
  strip = [decoders.Strip(' ', 1, 0)] if prefix else []
  back = [decoders.Replace(_BLANK, ' '), decoders.ByteFallback()]
  made.decoder = decoders.Sequence([*back, decoders.Fuse(), *strip])
  _add(made, spelled, kinds)
  return made, True


def _merges(text, vocab) -> list[tuple[str, str]]:
  """Which pairs make each token; it is their order that a vocabulary keeps."""
  known = set(text)
  return [
    pair
    for token in text  # the first is merged first
    for pair in sorted(
      [
        (token[:i], token[i:])
        for i in range(1, len(token))
        if token[:i] in known and token[i:] in known
      ],
      key=lambda pair: (vocab[pair[0]], vocab[pair[1]]),
    )
  ]


def _add(made, tokens, kinds) -> None:
  """Tokens that are never cut: the template's, and those that users gave."""
  # Runs of blanks are merged like other text.
  whole = {kind: [] for kind in (_CONTROL, _OWN)}
  for token, kind in zip(tokens, kinds, strict=True):
    if kind in whole and token.strip(_BLANK):
      added = tokenizers.AddedToken(token, normalized=False)
      whole[kind].append(added)
  made.add_special_tokens(whole[_CONTROL])
  made.add_tokens(whole[_OWN])
