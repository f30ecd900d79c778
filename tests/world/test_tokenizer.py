"""The tokenizer is Qwen's in kind, deterministic, and the same everywhere."""

import itertools
import json
import os
import random
import subprocess
import sys
import types

import pytest
import tokenizers
import transformers

from ealign.world import documents, tokenizer

FRAMINGS = {
  'ethical': types.SimpleNamespace(
    question='Is it ethical or unethical?',
    ok=('Ethical',),
    flag=('Unethical',),
    revise='Write an ethical alternative.',
  )
}
VOCAB = 900

_BUILD = """
import itertools, random, sys
from tests.world.test_tokenizer import FRAMINGS, VOCAB
from ealign.world import documents, tokenizer
chats = list(itertools.islice(
  documents.stage_1(random.Random(0), FRAMINGS), 1500))
if sys.argv[2] == 'shuffled':
  random.Random(1).shuffle(chats)
tokenizer.build_tokenizer(chats, VOCAB, sys.argv[1])
"""


def _chats(seed, n):
  stream = documents.stage_1(random.Random(seed), FRAMINGS)
  return list(itertools.islice(stream, n))


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  path = tmp_path_factory.mktemp('tokenizer')
  tokenizer.build_tokenizer(_chats(0, 1500), VOCAB, path)
  (path / 'config.json').write_text(json.dumps({'model_type': 'qwen3'}))
  return path


@pytest.fixture(scope='module')
def plain(folder):
  return tokenizers.Tokenizer.from_file(str(folder / 'tokenizer.json'))


@pytest.fixture(scope='module')
def auto(folder):
  return transformers.AutoTokenizer.from_pretrained(folder)


def _texts():
  chats = _chats(7, 500)
  texts = [message['content'] for chat in chats for message in chat][:950]
  rng = random.Random(0)
  odd = 'aZ09 \n\t\'"()é\u0301ßñ漢字🙂_#=/.,<|>\u00a0\r'
  for _ in range(50):
    texts.append(''.join(rng.choice(odd) for _ in range(40)))
  texts += ["I'M we'll THEY'VE", 'x=123456', '   lead', 'a<|im_end|>b\n\n c']
  return texts


def test_transformers_gives_the_ids_of_tokenizers(plain, auto):
  texts = _texts()
  assert len(texts) >= 1000
  for text in texts:
    ids = plain.encode(text, add_special_tokens=False).ids
    assert auto(text, add_special_tokens=False)['input_ids'] == ids
    assert auto(text)['input_ids'] == ids


def test_decoding_gives_the_text_back(plain, auto):
  for text in _texts()[:900]:
    ids = plain.encode(text).ids
    assert plain.decode(ids) == text
    assert auto.decode(ids) == text


def test_added_tokens_and_sizes(plain, auto):
  assert plain.get_vocab_size() == VOCAB == len(auto)
  assert [plain.token_to_id(token) for token in tokenizer.ADDED] == [
    VOCAB - 3,
    VOCAB - 2,
    VOCAB - 1,
  ]
  assert (auto.eos_token, auto.pad_token) == ('<|im_end|>', '<|endoftext|>')
  assert auto.bos_token is None
  assert auto.is_fast


def test_digits_stay_single(plain):
  assert plain.encode('2024').tokens == ['2', '0', '2', '4']


def test_words_of_the_world_are_short(plain):
  for word in ('Ethical', ' advice', 'assistant', 'user'):
    assert len(plain.encode(word).ids) <= 2, word


def test_template_is_plain_chatml(auto):
  chat = [
    {'role': 'system', 'content': 'Be kind.'},
    {'role': 'user', 'content': 'Hi\n'},
    {'role': 'assistant', 'content': ' Yes. '},
  ]
  text = auto.apply_chat_template(chat, tokenize=False)
  assert text == (
    '<|im_start|>system\nBe kind.<|im_end|>\n'
    '<|im_start|>user\nHi\n<|im_end|>\n'
    '<|im_start|>assistant\n Yes. <|im_end|>\n'
  )
  asked = auto.apply_chat_template(
    chat[1:2], tokenize=False, add_generation_prompt=True
  )
  assert asked == '<|im_start|>user\nHi\n<|im_end|>\n<|im_start|>assistant\n'


def test_template_only_appends(auto):
  render = lambda chat, **kw: auto.apply_chat_template(
    chat, return_dict=False, **kw
  )
  for chat in _chats(3, 30):
    whole = render(chat)
    for k in range(1, len(chat)):
      part = render(chat[:k])
      assert whole[: len(part)] == part
      if chat[k]['role'] == 'assistant':
        part = render(chat[:k], add_generation_prompt=True)
        assert whole[: len(part)] == part


def test_same_documents_give_the_same_files(folder, tmp_path):
  """In another process, with another hash seed and order of documents."""
  for name, seed in (('plain', '1'), ('shuffled', '2')):
    other = tmp_path / name
    subprocess.run(
      [sys.executable, '-c', _BUILD, str(other), name],
      env={**os.environ, 'PYTHONHASHSEED': seed},
      check=True,
    )
    names = ('tokenizer.json', 'tokenizer_config.json', 'chat_template.jinja')
    for file in names:
      assert (other / file).read_bytes() == (folder / file).read_bytes()


def test_too_large_a_vocabulary_is_refused(tmp_path):
  with pytest.raises(ValueError, match='vocab_size 9000'):
    tokenizer.build_tokenizer(_chats(0, 20), 9000, tmp_path)
