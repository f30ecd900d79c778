"""The notebooks: what they are made of, and that they run to their end."""

import ast
import copy
import importlib.metadata
import importlib.util
import json
import os
import pathlib
import re
import subprocess
import sys
import types

import chats
import pytest
from packaged import bounds

from ealign import config as config_lib
from ealign.config import file as config_file
from ealign.models import flops, hub
from ealign.models import weights as weights_lib
from ealign.runtime.errors import UserError

ROOT = pathlib.Path(__file__).parent.parent
NAMES = 'demo', 'your_model'
FIELD = re.compile(r'^([A-Z0-9_]+) = (.+?)  # @param', re.MULTILINE)


def read(name):
  return json.loads((ROOT / f'notebooks/{name}.ipynb').read_text('utf-8'))


def code(name) -> list[str]:
  cells = read(name)['cells']
  return [''.join(c['source']) for c in cells if c['cell_type'] == 'code']


def filled(text: str, **values) -> str:
  """A cell with these values in its form, as a person fills it in."""
  for name, value in values.items():
    pattern = rf'^{name} = .+?(?=  # @param)'
    new = f'{name} = {value!r}'
    text = re.sub(pattern, lambda _, new=new: new, text, flags=re.MULTILINE)
  return text


@pytest.fixture
def drawn(monkeypatch):
  """The markup that a cell displays; IPython need not be here."""
  made = []
  shown = types.SimpleNamespace(HTML=str, display=made.append)
  monkeypatch.setitem(sys.modules, 'IPython', types.SimpleNamespace())
  monkeypatch.setitem(sys.modules, 'IPython.display', shown)
  return made


@pytest.mark.parametrize('name', NAMES)
def test_nothing_of_a_run_is_committed(name):
  notebook = read(name)
  assert (notebook['nbformat'], notebook['nbformat_minor']) == (4, 5)
  assert notebook['metadata']['accelerator'] == 'TPU'
  ids = [cell['id'] for cell in notebook['cells']]
  assert len(set(ids)) == len(ids) > 6
  for cell in notebook['cells']:
    assert cell['metadata'] == {}
    if cell['cell_type'] == 'code':
      assert cell['outputs'] == [] and cell['execution_count'] is None


@pytest.mark.parametrize('name', NAMES)
def test_cells_are_short_plain_python_with_a_title(name):
  for number, text in enumerate(code(name), start=1):
    assert text.startswith(f'# @title {number}. ')
    ast.parse(text)  # so there is neither !python nor %pip
    assert len(text.splitlines()) <= 30
    for field, value in FIELD.findall(text):
      assert isinstance(ast.literal_eval(value), str | bool | int), field
  fields = [field for text in code(name) for field, _ in FIELD.findall(text)]
  assert {'RUNLOCAL', 'SOURCE', 'WORKDIR'} <= set(fields)
  assert len(fields) == len(set(fields))


def test_both_begin_alike():
  demo, yours = (code(name)[:2] for name in NAMES)
  minutes = re.compile(r'minutes: \d+')
  assert [minutes.sub('', x) for x in demo] == [
    minutes.sub('', x) for x in yours
  ]


def test_without_an_accelerator_the_first_cell_says_what_to_choose(capsys):
  first = code('demo')[0]
  with pytest.raises(SystemExit, match='Runtime > Change runtime type > v5e-1'):
    exec(first, {})
  out = capsys.readouterr().out
  assert f'jax {importlib.metadata.version("jax")}' in out
  assert '(cpu)' in out and 'expected minutes: 5' in out
  assert re.search(r'free: 0\.0 GiB of a device, \d+\.\d of memory', out)
  exec(filled(first, RUNLOCAL=True), {})


def test_pip_is_held_to_the_jax_that_is_here(tmp_path, monkeypatch, capsys):
  monkeypatch.chdir(tmp_path)
  asked = []

  def run(argv, **how):
    asked.append(argv)
    held = pathlib.Path('held.txt').read_text().splitlines()
    version = importlib.metadata.version
    assert {
      f'{x}=={version(x)}' for x in ('jax', 'jaxlib', 'flax', 'numpy')
    } <= {*held}
    return types.SimpleNamespace(returncode=len(asked) - 1, stderr='no such')

  monkeypatch.setattr(subprocess, 'run', run)
  first, cell = code('your_model')[:2]
  exec(cell, (names := {'importlib': importlib}))
  assert not asked  # nothing to install
  exec(filled(cell, SOURCE='a.whl'), dict(names))
  (argv,) = asked
  assert argv[1:4] == ['-m', 'pip', 'install'] and argv[-1] == 'a.whl'
  assert not any('jax' in word for word in argv[1:])
  with pytest.raises(SystemExit, match='no such'):
    exec(filled(cell, SOURCE='b.whl'), dict(names))
  monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
  with pytest.raises(SystemExit, match='give SOURCE its address'):
    exec(cell, dict(names))


@pytest.fixture
def asked(monkeypatch, tmp_path, drawn):
  """Fills in the form; returns the flags by name and what runs a command.

  template: that of the model, which is in no other way on the Hub; device: the
  memory of the chip.
  """
  choices, fields, tools = code('your_model')[2:5]

  def fill(template=chats.CHATML, device=None, **given):
    tok = chats.build(template, ('<|im_start|>', '<|im_end|>'))
    tok.save_pretrained(tmp_path)
    shape = ROOT / 'ealign/world/base/config.json'
    (tmp_path / 'config.json').write_text(shape.read_text())
    monkeypatch.setattr(hub, 'fetch', lambda name, **_: tmp_path)
    stats = {'bytes_limit': device} if device else {}
    names = {'RUNLOCAL': False, 'os': os, 'stats': stats}
    for text in (filled(choices, MODEL='a/b', **given), fields, tools):
      exec(text, names)
    flags = dict(word.split('=', 1) for word in names['config'])
    return flags, names

  return fill


def test_fields_and_a_secret_of_the_notebook_reach_the_command(
  monkeypatch, asked
):
  secrets = types.SimpleNamespace(get={'hub': 'hf_x'}.__getitem__)
  colab = types.ModuleType('google.colab')
  colab.userdata = secrets
  monkeypatch.setitem(sys.modules, 'google.colab', colab)
  monkeypatch.setenv('HF_TOKEN', '')
  flags, names = asked(INT8='yes', SECRET='hub', STEPS=7)
  assert os.environ['HF_TOKEN'] == 'hf_x'
  said = []
  names['ealign'] = lambda argv: said.append(argv) or 1
  with pytest.raises(SystemExit, match='exit code 1'):
    names['called']('plan', *names['config'])
  assert said == [['plan', *names['config']]]
  assert flags['--config'] == 'ealign:configs/your_model.py'
  assert flags['--config.model.path'] == 'a/b'
  assert flags['--config.model.quantize'] == 'int8'
  assert flags['--config.train.steps'] == '7'


THINKS = '{%- if enable_thinking is defined %}{% endif %}' + chats.CHATML


def test_what_thinks_first_is_told_not_to_and_nothing_else_is(asked):
  field = '--config.data.chat_template_kwargs'
  given = asked(THINKS)[0][field]
  assert ast.literal_eval(given) == (('enable_thinking', False),)
  assert field not in asked()[0]


def test_int8_is_for_what_takes_a_third_of_the_chip(asked):
  model = weights_lib.read_config(ROOT / 'ealign/world/base')
  size, field = 2 * flops.parameters(model), '--config.model.quantize'
  assert field not in asked()[0]  # of a CPU no limit is known
  assert field not in asked(device=3 * size)[0]
  assert asked(device=3 * size - 3)[0][field] == 'int8'
  assert field not in asked(device=size, INT8='no')[0]


def test_a_model_that_is_not_there_is_told_in_a_line(monkeypatch):
  def fetch(name, **_):
    raise UserError(f'{name}: there is no such folder')

  with monkeypatch.context() as patched, pytest.raises(SystemExit) as found:
    patched.setattr(hub, 'fetch', fetch)
    choices, fields = code('your_model')[2:4]
    names = {'RUNLOCAL': False, 'os': os, 'stats': {}}
    exec(filled(choices, MODEL='a/b'), names)
    exec(fields, names)
  assert str(found.value) == 'a/b: there is no such folder'


def test_a_page_cannot_leave_its_frame(tmp_path, drawn):
  (tmp_path / 'report.html').write_text('<p title="a">\'</p></iframe><b>')
  (report,) = [text for text in code('demo') if 'srcdoc' in text]
  exec(report, {'WORKDIR': tmp_path, 'pathlib': pathlib})
  tools = {'RUNLOCAL': False}
  exec(code('your_model')[4], tools)
  tools['show'](tmp_path / 'report.html')
  for page in drawn:
    assert page.count('<') == 4 and page.count('"') == 6 and "'" not in page
    assert 'sandbox="allow-scripts"' in page
  assert len(drawn) == 2


def test_the_image_of_colab_is_the_lowest_that_is_allowed():
  pins = (ROOT / '.ci/colab.txt').read_text().splitlines()
  pins = dict(line.split('==') for line in pins if line[0] != '#')
  lowest = dict(line.split('==') for line in bounds())
  assert pins.keys() < lowest.keys()
  for name in ('jax', 'flax', 'orbax-checkpoint'):
    assert pins[name] == lowest[name]


def test_the_config_has_all_it_reads_but_for_the_model():
  config = config_file.read('ealign:configs/your_model.py')[1]
  assert all(x.startswith('model.path') for x in config_lib.validate(config))
  small = config_file.read('ealign:configs/your_model.py:runlocal')[1]
  assert not config_lib.validate(small)
  assert [*config.arms] == [*small.arms] == ['base', 'sft', 'conscience']
  with pytest.raises(UserError, match='can be: runlocal'):
    config_file.read('ealign:configs/your_model.py:small')


# ---- Executed ----------------------------------------------------------------


def prepared(name, folder, monkeypatch):
  """(client, its notebook): filled in to run on a CPU, in this folder."""
  nbclient = pytest.importorskip('nbclient', reason='of the extra notebooks')
  pytest.importorskip('ipykernel', reason='of the extra notebooks')
  import nbformat

  notebook = nbformat.read(ROOT / f'notebooks/{name}.ipynb', 4)
  for cell in notebook.cells:
    cell.source = filled(cell.source, RUNLOCAL=True, INT8='yes')
  before = os.environ.get('PYTHONPATH', '')
  monkeypatch.setenv('PYTHONPATH', f'{ROOT}{os.pathsep}{before}')
  monkeypatch.setenv('JAX_PLATFORMS', 'cpu')
  monkeypatch.setenv('HF_HUB_OFFLINE', '1')
  at = {'metadata': {'path': str(folder)}}
  return nbclient.NotebookClient(notebook, timeout=600, resources=at), notebook


def printed(notebook) -> list[str]:
  """What each code cell printed."""
  cells = [c for c in notebook.cells if c.cell_type == 'code']
  return [
    ''.join(x.text for x in c.outputs if x.output_type == 'stream')
    for c in cells
  ]


def markup(notebook) -> str:
  """The HTML of all cells."""
  outputs = [x for c in notebook.cells for x in c.get('outputs', ())]
  return '\n'.join(x.get('data', {}).get('text/html', '') for x in outputs)


# Interrupts the next run of this process at its second step, as a person does.
INTERRUPTS = """
import signal
from ealign.runtime import display

def update(self, step, values, shown=display.Cell.update):
  shown(self, step, values)
  if step == 2:
    display.Cell.update = shown
    signal.raise_signal(signal.SIGINT)

display.Cell.update = update
"""


@pytest.mark.slow
@pytest.mark.filterwarnings('default')  # of the notebook's machinery
def test_the_demo_has_its_table_and_report(tmp_path, monkeypatch):
  client, notebook = prepared('demo', tmp_path, monkeypatch)
  (at,) = [i for i, c in enumerate(notebook.cells) if "'launch'" in c.source]
  stopped, again = (copy.deepcopy(notebook.cells[at]) for _ in range(2))
  stopped.source = INTERRUPTS + stopped.source
  stopped.metadata['tags'] = ['raises-exception']
  notebook.cells[at : at + 1] = [stopped, again]
  client.execute()
  _, _, first, run, _, chat = printed(notebook)
  assert 'stopped at step 2 and saved' in first
  wrong = [x for x in stopped.outputs if x.output_type == 'error']
  assert [x.evalue for x in wrong] == ['exit code 130: the lines above say why']
  assert 'sft  continuing from step 2' in run
  for arm in ('base', 'sft', 'conscience'):
    assert re.search(rf'^{arm} +8 ', run, re.MULTILINE)
    assert f'== {arm}\n' in chat
  assert 'P(flag) = ' in chat
  page = markup(notebook)
  assert '<iframe srcdoc="&lt;!doctype html' in page.lower()
  assert '<progress max="4" value="4">' in page
  assert 'conscience 4/4' in page and 'loss' in page
  assert (tmp_path / 'runs/demo/report.md').is_file()


@pytest.mark.slow
@pytest.mark.filterwarnings('default')
def test_a_model_is_planned_audited_trained_asked_and_exported(
  tmp_path, monkeypatch
):
  client, notebook = prepared('your_model', tmp_path, monkeypatch)
  client.execute()
  *_, plan, audit, train, _, chat, export = printed(notebook)
  assert 'it fits' in plan and 'update' in plan and 'the plan is in' in plan
  assert 'tells good from bad' in audit
  assert 'as the audit chose: --config.conscience.' in train
  for arm in ('base', 'sft', 'conscience'):
    assert f'== {arm}\n' in chat
  assert 'read back and compared' in export
  assert (tmp_path / 'runs/mine/peft/adapter_config.json').is_file()
  page = markup(notebook)
  assert page.count('<iframe srcdoc="') == 2
  assert '<progress max="4" value="4">' in page
