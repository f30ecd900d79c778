"""What a user can get wrong in files, sizes and folders, by the real command.

Each ends with one message that names file and row, or field and value, with
exit code 2 (1 for a loss that is not finite), and nothing is lost. Single
fields and flags are in test_config and test_command, signals in test_kill,
damaged checkpoints in runtime/test_checkpoint.
"""

import gzip
import json
import os
import shutil
import time

import chats
import pyarrow
import pytest
from pyarrow import parquet

from ealign import config
from ealign.alone import ALONE
from ealign.assembly import fit, parts
from ealign.cli import launch
from ealign.config import file as config_file
from ealign.config import limits
from ealign.data import sources
from ealign.runtime.errors import UserError
from ealign.workdir import folder

DATA = 'ealign:world/data/'
FILE = f"""
from ealign import config as config_lib

def get_config(arg=None):
  c = config_lib.default()
  c.data.train = {DATA + 'insecure_heldout.jsonl'!r}
  c.data.length, c.data.batch_size, c.model.lora.rank = 64, 4, 2
  c.dpo.lam, c.train.steps = 0.0, 1
  c.dpo.length, c.sample.max_new_tokens, c.dpo.pairs = 96, 32, 4
  c.conscience.prompts = c.eval.batch = 4
  c.conscience.threshold, c.conscience.audit = 0.5, 'off'
  c.pool.paths = ({DATA + 'pool.jsonl'!r},)
  if arg == 'arms':
    c.arms['base'] = {{'train.steps': 0}}
    c.arms['sft'] = {{}}
  return c
"""
ASK = {'role': 'user', 'content': 'What should I do with my savings?'}
TELL = {'role': 'assistant', 'content': 'Keep some of it at hand.'}
SYSTEM = {'role': 'system', 'content': 'Be kind.'}
LONG = {'role': 'user', 'content': 'word ' * 2000}
GOOD = {'messages': [ASK, TELL]}


@pytest.fixture
def start(tmp_path, monkeypatch, capsys):
  """Runs the command with some fields changed: the exit code and stderr."""
  monkeypatch.setattr(launch, 'compile_cache', lambda: None)
  file = tmp_path / 'config.py'
  file.write_text(FILE)

  def run(workdir=tmp_path / 'out', arg='', only='', **changes):
    flags = [f'--config.{name}={value}' for name, value in changes.items()]
    spec = f'--config={file}' + (f':{arg}' if arg else '')
    flags += [f'--only={only}'] if only else []
    code = launch.main(['launch', spec, f'--workdir={workdir}', *flags])
    return code, capsys.readouterr()

  return run


@pytest.fixture
def rows(tmp_path):
  """Writes rows (objects, or lines of bytes) to a JSONL file: its path."""

  def write(*lines):
    text = [
      x if isinstance(x, bytes) else json.dumps(x).encode() for x in lines
    ]
    path = tmp_path / 'rows.jsonl'
    path.write_bytes(b'\n'.join(text))
    return str(path)

  return write


@pytest.mark.parametrize(
  'lines, message',
  [
    ([], ' is empty: it needs at least one row'),
    ([GOOD, b'{"messages": ['], ':2 is not JSON: Expecting value'),
    (
      [GOOD, b'{"text": "\xe9"}'],
      ':2 is not UTF-8 (byte 10): convert the file',
    ),
    (
      [GOOD, {'messages': [ASK]}],
      ': row 2: the chat has no assistant turn: there is nothing to learn',
    ),
    ([GOOD, {'prompt': 'x'}], ': row 2: the chat has no assistant turn'),
    ([GOOD, {'answer': 'x'}], ": row 2 has columns ['answer']: it needs"),
    ([GOOD, GOOD | {'tools': 3}], ': row 2, tools must be a list, not'),
    ([GOOD, {'messages': [LONG, TELL]}], ': row 2: the prompt has 2010 tokens'),
    (
      [GOOD, {'messages': [ASK, {'role': 'bot'}]}],
      ': row 2, messages[1] needs',
    ),
    (
      [{'messages': 3}],
      ": row 1, messages is not a list of messages: '3'; mend or drop the row",
    ),
  ],
)
def test_rows_of_training_data(start, rows, lines, message, tmp_path):
  path = rows(*lines)
  code, said = start(**{'data.train': path})
  assert code == 2
  assert said.err.startswith(path + message) and said.err.count('\n') == 1
  assert not (tmp_path / 'out').exists()


def test_bad_rows_leave_no_folder_of_any_arm(start, rows, tmp_path):
  code, _ = start(arg='arms', only='sft', **{'data.train': rows(b'{')})
  assert code == 2
  assert not (tmp_path / 'out').exists()


def test_bad_rows_leave_what_a_plan_wrote(start, rows, tmp_path):
  (tmp_path / 'out').mkdir()
  (tmp_path / 'out' / 'plan.json').write_text('{}')
  code, said = start(**{'data.train': rows(b'{')})
  assert (code, said.err.count('\n')) == (2, 1)
  assert [x.name for x in (tmp_path / 'out').iterdir()] == ['plan.json']


def test_rows_that_lengths_would_cut(start, rows, tmp_path):
  long = [ASK, TELL | {'content': 'word ' * 60}]
  path = rows(*[GOOD] * 98, *[{'messages': long}] * 2)
  code, said = start(**{'data.train': path})
  assert code == 2
  assert said.err.startswith('2.0% of the rows are longer than 64 tokens (the')
  assert f'{path}: row 99, has' in said.err and said.err.count('\n') == 1
  assert not (tmp_path / 'out').exists()


def test_arguments_of_rows_are_for_training_alone(start, rows):
  path = rows(GOOD | {'tools': [{'name': 'f'}]})
  pool = {'pool.paths': path, 'dpo.lam': 0.1}
  _, said = start(**pool)
  assert said.err.startswith(f'{path}: row 1: only rows of data.train may')
  _, said = start(**pool | {'data.train': path, 'pool.paths': 'sft'})
  assert said.err.startswith("pool.paths='sft': rows of data.train have tools")


def test_a_path_that_is_no_readable_file(start, tmp_path):
  folder = tmp_path / 'folder.jsonl'
  folder.mkdir()
  code, said = start(**{'data.train': folder})
  assert code == 2
  assert said.err.startswith(f'{folder} cannot be read: ')


def test_data_that_would_never_end(start, tmp_path):
  pipe, endless = tmp_path / 'pipe.jsonl', tmp_path / 'endless.jsonl'
  os.mkfifo(pipe)
  endless.symlink_to('/dev/zero')
  begun = time.process_time()
  for path in (pipe, endless):
    for field in ('data.train', 'eval.tokens', 'eval.questions'):
      code, said = start(**{field: path})
      assert code == 2
      assert said.err.startswith(
        f"{field}='{path}': cannot be read: it is no re"
      )
      assert said.err.count('\n') == 1
  assert time.process_time() - begun < 10
  assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize('name', ['bomb.jsonl.gz', 'sparse.jsonl'])
def test_data_larger_than_a_field_allows(start, tmp_path, name):
  path = tmp_path / name
  if name.endswith('.gz'):
    line = json.dumps(GOOD).encode() + b'\n' + b' ' * 2**20
    path.write_bytes(gzip.compress(line * 4) * 256)  # 1 GiB of 1 MB
  else:
    with path.open('wb') as file:
      file.truncate(2**40)
  begun = time.process_time()
  code, said = start(**{'data.train': path})
  assert time.process_time() - begun < 10
  assert code == 2 and said.err.count('\n') == 1
  assert 'has more than 512 MiB: raise data.max_mib, or split' in said.err
  assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize(
  'name, message',
  [
    ('https://x.org/a.jsonl', 'is an address: download the file, or name a da'),
    ('train-*.parquet', 'patterns are not read: name one file, or join the f'),
    ('s4://bucket/a.jsonl', 'is an address: '),
  ],
)
def test_paths_of_other_kinds(start, name, message, tmp_path):
  code, said = start(**{'data.train': name})
  assert code == 2
  assert said.err.startswith(f"data.train='{name}': {message}")
  assert said.err.count('\n') == 1
  assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize(
  'field', ['model.path', 'model.adapter', 'conscience.review.by']
)
def test_an_address_is_no_folder_of_a_model(start, field):
  prefix = 'other:' if field.endswith('by') else ''
  code, said = start(**{field: f'{prefix}https://example.com/x'})
  assert code == 2
  assert 'is an address: download it, or name a model of the Hub' in said.err


def test_a_web_page_is_no_workdir():
  with pytest.raises(UserError, match='is no address of a bucket; use gs://'):
    folder.of('https://example.com/x')


def test_a_table_with_what_json_has_not(start, tmp_path):
  path = tmp_path / 'a.parquet'
  turns = [ASK | {'image': b'\x89PNG'}, TELL]
  parquet.write_table(pyarrow.Table.from_pylist([{'messages': turns}]), path)
  code, said = start(**{'data.train': path})
  assert code == 2
  assert said.err == (
    f"{path}: row 1, messages[0].image is b'\\x89PNG', which JSON has not: "
    'write it as text, or drop the field\n'
  )
  assert not (tmp_path / 'out').exists()


ENDS = ('<|im_start|>', '<|im_end|>')
NEEDS = (
  "{%- if mode is not defined %}{{ raise_exception('set mode') }}{% endif %}"
)
SINGLE = "{%- if messages[2] %}{{ raise_exception('one turn') }}{% endif %}"
ENDLESS = (
  '{%- set r = range(9999) %}{% for a in r %}{% for b in r %}{% endfor %}'
  '{% endfor %}'
)


@pytest.fixture
def model(tmp_path):
  """A folder of the organism's shape, and a small tokenizer's template."""

  def write(template, mode=None):
    folder = tmp_path / 'model'
    tok = chats.build(template, ENDS, bos_token=ENDS[0], eos_token=ENDS[1])
    tok.save_pretrained(folder)
    shape = sources.resolve('ealign:world/base') / 'config.json'
    (folder / 'config.json').write_text(shape.read_text())
    file = tmp_path / 'config.py'
    kw = (
      f'  c.data.chat_template_kwargs = (("mode", {mode!r}),)\n' if mode else ''
    )
    file.write_text(FILE.replace('  if arg', f'{kw}  if arg'))
    return {'model.path': folder, 'model.init': 'random'}

  return write


@pytest.mark.parametrize(
  'template, mode',
  [
    (chats.LLAMA_2, None),
    (SINGLE + chats.CHATML, None),  # nothing asks how a chat goes on
    ({'default': chats.CHATML, 'tool_use': 'x'}, None),
    (NEEDS + chats.CHATML, 'x'),
  ],
)
def test_templates_that_one_probe_does_not_fit(
  start, rows, model, template, mode
):
  short = {'messages': [ASK | {'content': 'q'}, TELL | {'content': 'a'}]}
  fields = {'data.train': rows(short), 'train.steps': 1}
  code, said = start(**model(template, mode) | fields)
  assert (code, said.err) == (0, '')


@pytest.mark.parametrize(
  'template, mode, message',
  [
    (
      NEEDS + chats.CHATML,
      None,
      '{}: row 1: messages[1]: the chat template ref',
    ),
    (
      chats.CHATML,
      'x',
      "data.chat_template_kwargs: 'mode' is no argument of the chat template",
    ),
    (
      ENDLESS + chats.CHATML,
      None,
      '{}: row 1: messages[1]: the chat template does not come to an end',
    ),
    (
      chats.CHATML.replace('in messages', 'in messages[1:]'),
      None,
      '{}: row 1: messages[0].content: the chat template of ',
    ),
  ],
)
def test_templates_that_a_run_cannot_use(
  start, rows, model, tmp_path, template, mode, message
):
  path = rows(GOOD)
  code, said = start(**model(template, mode) | {'data.train': path})
  assert code == 2
  assert said.err.startswith(message.format(path))
  assert said.err.count('\n') == 1
  assert not (tmp_path / 'out').exists()


def test_questions_that_a_template_leaves_out(start, rows, model):
  template = chats.CHATML.replace(
    'in messages', "in messages if m.role != 'system'"
  )
  fields = {'eval.questions': rows(question(SYSTEM, ASK)), 'data.train': ''}
  code, said = start(**model(template) | fields | {'train.steps': 0})
  assert code == 2
  assert said.err.startswith(
    "question 'a': messages[0].content: the chat templ"
  )


@pytest.mark.parametrize(
  'messages, message',
  [
    ([TELL], 'row 2: no user turn to answer'),
    ([SYSTEM], 'row 2: no user turn to answer'),
    ([LONG, TELL], 'row 2: the prompt has 2010 tokens but at most 94 fit '),
  ],
)
def test_rows_of_the_pool(start, rows, messages, message):
  path = rows(GOOD, {'messages': messages}, {'messages': messages})
  code, said = start(**{'pool.paths': path, 'dpo.lam': 0.1})
  assert code == 2
  assert said.err.startswith(f'{path}: {message}')
  assert said.err.count('\n') == 1


def test_a_pool_prompt_that_leaves_the_model_no_room(start, rows):
  sizes = {'dpo.length': 1024, 'sample.max_new_tokens': 480}
  path = rows({'messages': [{**LONG, 'content': 'word ' * 80}]})
  code, said = start(**{'pool.paths': path, 'dpo.lam': 0.1} | sizes)
  assert code == 2
  assert 'lower sample.max_new_tokens or drop it' in said.err


def question(*messages, name='a', **fields):
  return {'id': name, 'messages': list(messages)} | fields


@pytest.mark.parametrize(
  'second, message',
  [
    ({'id': 'b'}, '{}: row 2 is no question: it needs "id" and "messages"'),
    ({'messages': [ASK]}, '{}: row 2 is no question: it needs "id"'),
    (question(), '{}: row 2, messages is not a list of messages'),
    (question('hi'), '{}: row 2, messages[0] needs a role among'),
    (question(SYSTEM), '{}: row 2, messages: must hold a user turn'),
    (question(ASK, TELL), '{}: row 2, messages: must hold a user turn'),
    (question(ASK, kind=['x']), "{}: row 2, kind: must be text, not ['x']"),
    (
      question(ASK, tools=[{'name': 'f'}]),
      '{}: row 2: only rows of data.train may have tools; drop the column',
    ),
    (question(ASK), "eval: question 'a': 2 questions have this id"),
    (question(LONG, name='b'), "question 'b': the prompt has 2010 tokens"),
  ],
)
def test_rows_of_questions(start, rows, second, message):
  path = rows(question(ASK), second)
  code, said = start(**{'eval.questions': path, 'train.steps': 0})
  assert code == 2
  assert said.err.startswith(message.format(path))
  assert said.err.count('\n') == 1


def test_a_kind_that_no_question_has(start, rows):
  path = rows(question(ASK, kind='advice'))
  fields = {'eval.questions': path, 'eval.kinds': 'advice,cod'}
  code, said = start(**fields)
  assert code == 2
  assert said.err == (
    "eval.kinds='cod': no question is of this kind (kinds: advice); leave it "
    'out\n'
  )


@pytest.mark.parametrize(
  'messages, message',
  [
    ([ASK], ': row 1: the chat has no assistant turn'),
    ([LONG, TELL], ': row 1: has 2020 tokens, the model 1024 positions; drop'),
  ],
)
def test_chats_to_be_predicted_at_the_end(start, rows, messages, message):
  path = rows({'messages': messages})
  code, said = start(**{'eval.tokens': path})
  assert code == 2
  assert said.err.startswith(path + message)


def test_batches_that_do_not_divide_over_the_devices():
  c = config.default()
  c.data.train, c.eval.questions = 'x.jsonl', ('x.jsonl',)
  c.data.batch_size, c.dpo.pairs, c.conscience.prompts = 4, 6, 5
  c.conscience.samples, c.eval.batch = 2, 64
  said = lambda: fields_of(config.freeze(c), devices=3)
  every = 'conscience.prompts * samples'
  assert said() == ['data.batch_size=4', f'{every}=10', 'eval.batch=64']
  c.dpo.lam = 0.0
  assert said() == ['data.batch_size=4', 'eval.batch=64']
  c.train.steps = 0
  assert said() == ['eval.batch=64']
  c.eval.questions = ()
  fit.sizes(config.freeze(c), 4096, 3)


def test_sequences_longer_than_the_model():
  c = config.default()
  c.data.train, c.data.length, c.dpo.length = 'x.jsonl', 1025, 2000
  said = lambda: fields_of(config.freeze(c), positions=1024)
  assert said() == ['data.length=1025', 'dpo.length=2000']
  c.dpo.lam = 0.0
  assert said() == ['data.length=1025']
  c.data.length = 1024
  fit.sizes(config.freeze(c), 1024, 1)


def fields_of(frozen, *, positions=4096, devices=1):
  with pytest.raises(UserError) as error:
    fit.sizes(frozen, positions, devices)
  return [problem.partition(':')[0] for problem in error.value.args]


@pytest.mark.parametrize(
  'file, text, message',
  [
    ('config.json', None, 'config.json: not found; model.path must be'),
    ('config.json', '{', 'config.json: not readable as JSON'),
    ('config.json', {'hidden_size': '96'}, "hidden_size is '96'; it must be a"),
    ('config.json', {'vocab_size': 9}, 'has 1536 tokens, the embedding 9 rows'),
    ('tokenizer.json', None, 'no usable tokenizer: tokenizer.json is missing'),
    ('config.json', {'model_type': ['x']}, "config.json: model_type is ['x']"),
    ('tokenizer.json', '{"added_tokens": [', 'no usable tokenizer: '),
    ('tokenizer.json', '{"a": 1}', "tokenizer.json has no 'added_tokens'"),
    ('model.safetensors', None, 'model.safetensors: not found; save'),
    ('model.safetensors', 'x', 'model.safetensors: broken safetensors file'),
    (
      'config.json',
      {'hidden_size': 64},
      'model.layers.{0-3}.mlp.up_proj.weight has shape (256, 96), config.json: '
      '(256, 64), ',
    ),
  ],
)
def test_model_folders(start, tmp_path, file, text, message):
  folder = tmp_path / 'model'
  shutil.copytree(sources.resolve('ealign:world/base'), folder)
  if text is None:
    (folder / file).unlink()
  elif isinstance(text, dict):
    text = json.loads((folder / file).read_text()) | text
    (folder / file).write_text(json.dumps(text))
  else:
    (folder / file).write_text(text)
  code, said = start(**{'model.path': folder})
  assert code == 2
  assert message in said.err and said.err.count('\n') == 1
  assert not (tmp_path / 'out').exists()


def test_a_framing_whose_labels_or_fields_are_wrong(tmp_path):
  path = tmp_path / 'own.json'
  own = {'question': 'So?', 'ok': 'No', 'flag': ['Yes'], 'revise': 'Mend it.'}
  flat = config.flatten(config.freeze(config.default()))
  flat |= {'conscience.framing': str(path)}
  told = lambda: list(limits._framing_file(flat))
  path.write_text(json.dumps(own))
  assert told() == []
  path.write_text(json.dumps(own | {'flag': ['Yes', 'No'], 'flags': 'x'}))
  assert told() == [
    "'No' cannot be both an ok and a flag label",
    "there is no field 'flags'. Did you mean 'flag'?",
  ]


def test_a_folder_whose_run_never_began_is_no_other_config(start, rows):
  code, said = start(**{'data.train': rows(b'{')})
  assert code == 2
  code, said = start(**{'data.train': DATA + 'none.jsonl'})
  assert said.err == (
    f"data.train='{DATA}none.jsonl': there is no such file or folder\n"
  )
  code, said = start(**{'seed': 5, 'eval.tokens': rows(b'{')})
  assert code == 2 and 'rows.jsonl:1 is not JSON' in said.err


def test_a_relative_folder_and_then_nan_in_another(
  start, tmp_path, monkeypatch
):
  monkeypatch.chdir(tmp_path)
  code, said = start('runs/a')
  assert (code, said.err) == (0, '')
  facts = json.loads((tmp_path / 'runs/a/run.json').read_text())['data']
  assert facts['chats'] == facts['rows'] == 196 and facts['split'] == 0
  assert 'data: 196 chats in 196 rows, ' in said.out
  assert (tmp_path / 'runs/a/checkpoints/1').is_dir()
  assert (tmp_path / 'runs/a/DONE').exists()
  # Its last update ruins the weights: no step is left whose loss would say so.
  fields = {'optim.lr': 3e38, 'eval.tokens': DATA + 'insecure_heldout.jsonl'}
  code, said = start('runs/b', arg='arms', only='sft', **fields)
  assert code == 1
  assert said.err.count('nan or inf') == 1
  assert '  sft: after step 1 the loss became nan or inf' in said.err
  head = '1 of 1 runs failed; the same command runs them again\n'
  assert said.err.startswith(head)
  assert (tmp_path / 'runs/b/sft/checkpoints/1').is_dir()
  assert not (tmp_path / 'runs/b/sft/DONE').exists()
  code, said = start('runs/a', seed=3, **{'data.batch_size': 8})
  assert code == 2
  assert said.err.splitlines()[1:] == [
    '  data.batch_size: 4 -> 8',
    '  seed: 0 -> 3',
  ]


def test_home_is_known(start, tmp_path, monkeypatch):
  monkeypatch.setenv('HOME', str(tmp_path / 'home'))
  path = tmp_path / 'home/run/notes.txt'
  path.parent.mkdir(parents=True)
  path.write_text('')
  _, said = start('~/run')
  assert f'--workdir={path.parent}: is not empty (notes.txt)' in said.err


def test_only_runs_that_are_asked_for_are_told_about(start, rows):
  fields = {'data.train': rows(b'{'), 'train.steps': 2}
  _, said = start(arg='arms', only='sft', **fields)
  assert 'note' not in said.err
  _, said = start(arg='arms', **fields)
  assert "arm 'base', which sets it to 0 itself" in said.err


def test_the_demo_passes_all_checks():
  c = config_file.read('configs/demo.py')[1]
  made = parts.assemble(config.freeze(config.arms(c)['conscience']), ALONE)
  assert made.pool and len(made.questions.final) > 500
