"""The small inputs of ../shared/cases: each trains the right thing, or is told.

Whole runs of such inputs are in cli/test_bad_input.py; each kind of fault has
tests beside this file, with inputs of their own.
"""

import json
import pathlib
import shutil

import pytest
from chats import CHATML, build, build_pieces

from ealign.data import chat, columns, questions, sources
from ealign.runtime.errors import UserError

SHARED = pathlib.Path(__file__).parents[2] / '../shared'
CASES = SHARED / 'cases'
pytestmark = pytest.mark.skipif(
  not CASES.is_dir(), reason='needs the cases in ../shared/cases'
)
ENDS = ('<|im_start|>', '<|im_end|>')
NO_THOUGHTS = '<think>\n\n</think>\n\n'
OSLO = (
  '<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo"}}\n'
  '</tool_call>'
)


@pytest.fixture(scope='module')
def qwen():
  folder = SHARED / 'data/tokenizers/qwen3'
  if not folder.is_dir():
    pytest.skip(f'{folder} is absent: the public test data is not here')
  return chat.load_tokenizer(str(folder))


def template_of(case):
  config = json.loads((CASES / case / 'tokenizer_config.json').read_text())
  return config['chat_template']


def shown(tok, file, **kw):
  """What is trained of each row of a file, as text."""
  path = str(CASES / file)
  rows = sources.read_rows(path)
  own = columns.arguments(rows, path)
  made = chat.encode_chats(tok, columns.chats(rows, path), path, own, **kw)
  return [
    tok.decode([i for i, m in zip(row.ids, row.loss_mask, strict=True) if m])
    for row in made
  ]


# What Qwen3's template makes the model learn, or what it says.
SHOWN = [
  ('F06-parts-beside-calls/tc_num.jsonl', 'messages[1] needs content that is'),
  ('F06-parts-beside-calls/tc_parts.jsonl', [f'I look it up.\n{OSLO}']),
  ('F06-parts-beside-calls/tc_user.jsonl', 'messages[0].tool_calls is of as'),
  ('F07-not-json/time.parquet', ['x']),
  ('F07-not-json/dec.parquet', ['x']),
  ('F07-not-json/bytes.parquet', "messages[0].image is b'\\x89PNG', which"),
  ('F12-truth-values/weight.jsonl', ['Four.']),
  ('F12-truth-values/train_text.jsonl', 'messages[1].train must be true or'),
  ('F12-truth-values/label0.jsonl', 'label: must be true or false, not 0'),
  ('F12-truth-values/labelF.jsonl', 'label: must be true or false, not'),
  ('F13-tool-calls-form/tc_dict.jsonl', 'messages[1].tool_calls must be a li'),
  ('F13-tool-calls-form/tc_text.jsonl', [OSLO, 'Three degrees.']),
  (
    'F13-tool-calls-form/tc_text2.jsonl',
    ['<tool_call>\n{"name": "w", "arguments": {}}\n</tool_call>'],
  ),
  (
    'F14-arguments-text/args_text.jsonl',
    [OSLO.replace('weather', 'f')],
  ),
  ('F16-transformers-5.3/spaces.jsonl', ['I am fine, thank you']),
  ('F16-transformers-5.3/opens.jsonl', 'messages[0]: the chat template refus'),
  ('F19-argument-names/kw2.jsonl', "chat_template_kwargs: 'messages' is no"),
  ('F19-argument-names/kw3.jsonl', "chat_template_kwargs: 'tok' is no argum"),
]


@pytest.mark.parametrize('file, expected', SHOWN)
def test_what_is_trained(qwen, file, expected):
  if isinstance(expected, list):
    trained = [f'{NO_THOUGHTS}{text}<|im_end|>' for text in expected]
    assert shown(qwen, file) == trained
    return
  with pytest.raises(UserError) as error:
    shown(qwen, file)
  assert f'row 1, {expected}' in str(error.value).replace('row 1: ', 'row 1, ')
  assert str(error.value).isprintable()


def test_arguments_as_text_are_decoded_once():
  # In the manner of Qwen2.5's template and of Llama 3.1's, which encode them.
  text = CHATML.replace('+ m.content', '+ (m.content or m.tool_calls[0].x)')
  call = 'm.tool_calls[0].function'
  for reads in (
    f'({call} | tojson)',
    f'{call}.name ~ {call}.arguments | tojson',
  ):
    tok = build(text.replace('m.tool_calls[0].x', reads), ENDS)
    [found] = shown(tok, 'F14-arguments-text/args_text.jsonl')
    assert '{"city": "Oslo"}' in found and '\\"' not in found


def loaded(tok, case, folder):
  """The tokenizer as it is read with the tokenizer_config.json of a case."""
  tok.save_pretrained(folder)
  shutil.copy(CASES / case / 'tokenizer_config.json', folder)
  for file in folder.glob('*.jinja'):
    file.unlink()
  return chat.load_tokenizer(str(folder))


def test_named_templates(tmp_path):
  tok = build(CHATML, ENDS, eos_token=ENDS[1])
  tok = loaded(tok, 'F08-named-templates', tmp_path)
  assert sorted(tok.chat_template) == ['default', 'tool_use']
  file = 'F16-transformers-5.3/spaces.jsonl'
  assert shown(tok, file) == ['I am fine, thank you<|im_end|>']
  assert chat.stop_ids(tok) == (tok.eos_token_id,)


def test_a_blank_before_the_end():
  names = {'bos_token': '<s>', 'eos_token': '</s>'}
  text = template_of('F09-llama2-blank')
  tok = build_pieces(text, ('<s>', '</s>'), **names)
  found = shown(tok, 'F16-transformers-5.3/spaces.jsonl')
  assert found == [' I am fine, thank you </s>']
  suffix = chat.turn_suffix(tok, [{'role': 'user', 'content': 'So?'}])
  assert tok.decode(suffix) == '<s>[INST] So? [/INST]'


def test_an_argument_that_is_needed(tmp_path):
  tok = build(CHATML, ENDS, eos_token=ENDS[1])
  tok = loaded(tok, 'F15-needed-argument', tmp_path)
  file = 'F16-transformers-5.3/spaces.jsonl'
  assert shown(tok, file, mode='x') == ['I am fine, thank you<|im_end|>']
  assert chat.stop_ids(tok, mode='x') == (tok.eos_token_id,)
  with pytest.raises(UserError, match='row 1: .*: set mode'):
    shown(tok, file)
  # Its rows give an argument and a tool that this template does not read.
  [row] = sources.read_rows(CASES / 'F15-needed-argument/needs.jsonl')
  [turns], [own] = columns.chats([row], 'f'), columns.arguments([row], 'f')
  with pytest.raises(UserError, match="'date_string' is no argument of the"):
    chat.encode_chats(tok, [turns], 'f', [own])
  own.pop('date_string')
  with pytest.raises(UserError, match=r'row 1: tools\[0\].name: the chat temp'):
    chat.encode_chats(tok, [turns], 'f', [own])
  own.pop('tools')
  assert chat.encode_chats(tok, [turns], 'f', [own])


@pytest.mark.parametrize('word', ['weather', 'user', 'assistant'])
def test_a_role_that_is_a_token(word):
  tok = build(CHATML, ENDS, (word,), eos_token='<|im_end|>')
  path = CASES / 'F20-role-is-a-token/words.jsonl'
  [turns] = columns.load_chats(str(path))
  [row] = chat.encode(tok, turns)
  assert tok.decode(row.ids) == tok.apply_chat_template(turns, tokenize=False)
  ids = chat.text_ids(tok, f'the {word} is fine')
  assert tok.convert_tokens_to_ids(word) not in ids


def test_null_in_questions():
  folder = CASES / 'F17-null-in-questions'
  first, second = questions.read(str(folder / 'qn.jsonl'))
  assert first['kind'] == 'advice' and 'kind' not in second
  first, second = questions.read(str(folder / 'qn.parquet'))
  assert first['split'] == 'dev' and 'split' not in second
  assert first['messages'] == [{'role': 'user', 'content': 'hi'}]
  assert second['messages'][0]['name'] == 'Ann'
