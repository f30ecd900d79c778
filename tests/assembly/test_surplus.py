"""An added token for which the embedding has no row: refused where it occurs.

The input is that of a public report, in ../shared/cases: the shape of Gemma 3
1B, whose tokenizer has one token more than the embedding has rows.
"""

import json
import pathlib
import shutil

import pytest
import tokenizers
from tokenizers import decoders, models, pre_tokenizers

from ealign import fields
from ealign.assembly import data, weights
from ealign.engine import Model
from ealign.runtime.errors import UserError

ROOT = pathlib.Path(__file__).parents[2]
CASE = ROOT.parent / 'shared' / 'cases' / 'F10-one-token-more'
pytestmark = pytest.mark.skipif(
  not CASE.is_dir(), reason='needs the public reports in ../shared/cases'
)
ROWS = 354  # of the embedding


def write_tokenizer(folder, surplus, *, added=True):
  """Bytes, Gemma's special tokens, and `surplus` behind the last row."""
  names = ['<pad>', '<eos>', '<bos>', '<start_of_turn>', '<end_of_turn>']
  letters = sorted(pre_tokenizers.ByteLevel.alphabet())
  names += [*letters, *(f'<unused{i}>' for i in range(ROWS - 5 - len(letters)))]
  vocab = {name: i for i, name in enumerate(names + [surplus] * (not added))}
  tok = tokenizers.Tokenizer(models.BPE(vocab=vocab, merges=[]))
  tok.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
  tok.decoder = decoders.ByteLevel()
  tok.add_special_tokens(names[:5] + [surplus] * added)
  tok.save(str(folder / 'tokenizer.json'))


@pytest.fixture
def folder(tmp_path):
  for path in CASE.iterdir():
    shutil.copyfile(path, tmp_path / path.name)
  write_tokenizer(tmp_path, '<image_soft_token>')
  return tmp_path


def model_of(folder):
  config, tokenizer = weights.read_model(fields.Model(path=str(folder)))
  assert len(tokenizer) == ROWS + 1
  return Model(config, tokenizer)


def turns(text):
  return [
    {'role': 'user', 'content': text},
    {'role': 'assistant', 'content': 'Yes.'},
  ]


def test_a_model_with_one_token_more_is_used(folder):
  model = model_of(folder)
  # Of a user it is text, which needs no row.
  (row,) = data.encoded(
    fields.Config(), model, [turns('<image_soft_token>')], []
  )
  assert max(row.ids) < ROWS and model.end == 4
  assert model.held([0, ROWS - 1]) == (0, ROWS - 1)


def test_it_is_an_error_where_it_occurs(folder):
  path = folder / 'tokenizer_config.json'
  hf = json.loads(path.read_text())
  template = "{% if m.content == 'look' %}<image_soft_token>{% endif %}"
  hf['chat_template'] = hf['chat_template'].replace(
    "'\\n' +", "'\\n' }}" + template + '{{ '
  )
  path.write_text(json.dumps(hf))
  model = model_of(folder)
  config = fields.Config(data=fields.Data(train='x.jsonl'))
  assert data.encoded(config, model, [turns('Hi')], [])
  with pytest.raises(UserError) as caught:
    data.encoded(config, model, [turns('Hi'), turns('look')], [])
  assert str(caught.value) == (
    "x.jsonl: row 2: the token '<image_soft_token>' has the id 354, but the "
    'embedding only 354 rows: the model has not learnt it; drop the row'
  )
  with pytest.raises(UserError, match='image_soft_token'):
    model.prompt(turns('look')[:1])


def test_a_token_that_any_text_may_need_is_refused_at_once(folder):
  write_tokenizer(folder, 'qu', added=False)
  with pytest.raises(UserError, match='has 355 tokens, the embedding 354 rows'):
    model_of(folder)
