"""Small tokenizers of several families, their chat templates, and turns."""

import json

import tokenizers
import transformers
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

CORPUS = [
  'Hello, how are you? I am fine.\n\nThank you; and <b>you</b>?\n\n',
  'def add(a, b):\n  return a + b\n\n# user system assistant think end im_',
]
# How Qwen and Llama 3 cut text into words, save for contractions.
WORDS = (
  r'[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*'
  r'|\s*[\r\n]+|\s+(?!\S)|\s+'
)
CHATML = """\
{%- for m in messages %}
{{- '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{% endif %}"""
# In the manner of Llama 2: a blank before the end, and no end of a user turn.
LLAMA_2 = """\
{%- for m in messages %}
{%- if m.role == 'user' %}
{{- bos_token + '[INST] ' + m.content.strip() + ' [/INST]' }}
{%- else %}{{- ' ' + m.content.strip() + ' ' + eos_token }}{% endif %}
{%- endfor %}"""
LLAMA = """\
{{- bos_token }}
{%- for m in messages %}
{{- '<|start_header_id|>' + m.role + '<|end_header_id|>\\n\\n' }}
{{- m.content | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}"""
GEMMA = """\
{{- bos_token }}
{%- set first = '' %}
{%- if messages[0].role == 'system' %}
{%- set first = messages[0].content + '\n\n' %}
{%- set messages = messages[1:] %}
{%- endif %}
{%- for m in messages %}
{%- if (m.role == 'user') != (loop.index0 % 2 == 0) %}
{{- raise_exception('Conversation roles must alternate') }}
{%- endif %}
{%- set role = 'model' if m.role == 'assistant' else m.role %}
{{- '<start_of_turn>' + role + '\\n' + (first if loop.first else '') }}
{{- m.content | trim }}
{{- '<end_of_turn>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<start_of_turn>model\\n' }}{% endif %}"""
MISTRAL = """\
{{- bos_token }}
{%- for m in messages %}
{%- if m.role == 'user' %}{{- '[INST] ' + m.content + ' [/INST]' }}
{%- else %}{{- ' ' + m.content + eos_token }}{% endif %}
{%- endfor %}"""


def build(template, special, plain=(), normalizer=None, **names):
  """A byte-level BPE of a few hundred tokens with the given added tokens."""
  backend = tokenizers.Tokenizer(models.BPE())
  backend.normalizer = normalizer
  split = pre_tokenizers.Split(tokenizers.Regex(WORDS), 'isolated')
  letters = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
  backend.pre_tokenizer = pre_tokenizers.Sequence([split, letters])
  backend.decoder = decoders.ByteLevel()
  alphabet = pre_tokenizers.ByteLevel.alphabet()
  backend.train_from_iterator(
    CORPUS * 4,
    trainers.BpeTrainer(
      vocab_size=400, initial_alphabet=alphabet, show_progress=False
    ),
  )
  backend.add_special_tokens(list(special))
  backend.add_tokens(list(plain))
  tok = transformers.PreTrainedTokenizerFast(tokenizer_object=backend, **names)
  tok.chat_template = template
  return tok


def build_pieces(template, special, plain=(), blank='', **names):
  """The same in the manner of SentencePiece: \u2581 for a blank, bytes."""
  backend = tokenizers.Tokenizer(models.BPE(byte_fallback=True))
  blanks = normalizers.Replace(' ', '\u2581')
  backend.normalizer = blanks
  if blank == 'normalizer':
    first = normalizers.Prepend('\u2581')
    backend.normalizer = normalizers.Sequence([first, blanks])
  if blank == 'words':
    backend.normalizer = None
    backend.pre_tokenizer = pre_tokenizers.Metaspace(
      prepend_scheme='first', split=False
    )
  backend.decoder = decoders.Sequence(
    [decoders.Replace('\u2581', ' '), decoders.ByteFallback(), decoders.Fuse()]
  )
  letters = [f'<0x{i:02X}>' for i in range(256)]
  trainer = trainers.BpeTrainer(
    vocab_size=500,
    special_tokens=letters,
    initial_alphabet=['\u2581', *map(chr, range(33, 127))],
    show_progress=False,
  )
  # Word by word: no piece goes from one word to the next.
  backend.train_from_iterator(' '.join(CORPUS).split(), trainer)
  # Bytes are pieces like others, though the trainer adds them as tokens.
  spec = json.loads(backend.to_str()) | {'added_tokens': []}
  backend = tokenizers.Tokenizer.from_str(json.dumps(spec))
  backend.add_special_tokens(list(special))
  backend.add_tokens(
    [tokenizers.AddedToken(t, normalized=False) for t in plain]
  )
  tok = transformers.PreTrainedTokenizerFast(tokenizer_object=backend, **names)
  tok.chat_template = template
  return tok


def user(text):
  return {'role': 'user', 'content': text}


def assistant(text, **more):
  return {'role': 'assistant', 'content': text, **more}
