import os
import signal
import subprocess
import sys

import pytest

from ealign import config as config_lib
from ealign.cli import command as command_lib
from ealign.config import file as config_file
from ealign.runtime.errors import UserError

FILE = """
from ealign import config as config_lib

def get_config(arg=None):
  config = config_lib.default()
  config.data.train = arg or 'train.jsonl'
  return config
"""


@pytest.fixture
def file(tmp_path):
  path = tmp_path / 'my.py'
  path.write_text(FILE)
  return str(path)


def parse(file, *rest):
  argv = ['launch', f'--config={file}', '--workdir=out', *rest]
  command = command_lib.parse(argv)
  if command.problems:
    raise UserError(*command.problems)
  return command


def test_reads_file_argument_and_fields(file):
  command = parse(
    f'{file}:other.jsonl',
    '--config.dpo.lam=0.3',
    *('--config.seed', '7'),
    '--config.log.tensorboard',
    '--config.pool.system=You are kind.',
    '--only=sft,con*',
  )
  config = command.config
  assert config.data.train == 'other.jsonl'
  assert (config.dpo.lam, config.seed) == (0.3, 7)
  assert config.log.tensorboard is True
  assert config.pool.system == 'You are kind.'
  assert command.only == ('sft', 'con*')
  assert command.workdir == 'out'
  assert set(command.changed) == {
    *('dpo.lam', 'seed', 'log.tensorboard', 'pool.system')
  }


@pytest.mark.parametrize(
  'text, value', [('0.3', 0.3), ('auto:0.1', 'auto:0.1'), ('1e-3', 0.001)]
)
def test_a_number_or_text(file, text, value):
  config = parse(file, f'--config.conscience.threshold={text}').config
  assert config.conscience.threshold == value
  assert type(config_lib.freeze(config).conscience.threshold) is type(value)
  with pytest.raises(UserError, match="=None: must be text; use ''"):
    parse(file, '--config.conscience.threshold=None')


def test_the_order_of_flags_does_not_matter(file):
  argv = ['launch', '--config.optim.weight_decay', '0.1', '--workdir', 'out']
  command = command_lib.parse([*argv, '--config', file])
  assert command.config.optim.weight_decay == 0.1
  assert command.config.data.train == 'train.jsonl'


@pytest.mark.parametrize(
  'argument, value',
  [
    ('model.lora.targets=q,v', ('q', 'v')),
    ('model.lora.targets=("q","v")', ('q', 'v')),
    ('eval.questions=/a/b.jsonl', ('/a/b.jsonl',)),
    ('eval.questions=', ()),
    ('pool.weights=1,2', (1, 2)),
    (
      'data.chat_template_kwargs=(("enable_thinking", False),)',
      (('enable_thinking', False),),
    ),
  ],
)
def test_tuples(file, argument, value):
  config = parse(file, '--config.' + argument).config
  name = argument.partition('=')[0]
  group, _, field = name.rpartition('.')
  for part in group.split('.'):
    config = config[part]
  assert config[field] == value


def test_none_is_nothing_and_not_a_text(file):
  config = parse(file, '--config.data.train_system=None').config
  assert config.data.train_system is None


@pytest.mark.parametrize(
  'argument, said',
  [
    ('--config.lamb=1', "no such field. Did you mean 'dpo.lam'?"),
    ('--config.dpo.lr=1', "no such field. Did you mean 'optim.lr'?"),
    ('--config.dpo.lam=much', '--config.dpo.lam=much: must be a number'),
    ('--config.seed=1.5', '--config.seed=1.5: must be a whole number'),
    ('--config.log.tensorboard=maybe', 'must be true or false'),
    ('--config.dpo={}', '--config.dpo: set its fields one by one'),
    ('--config.arms={}', 'arms are set in the config file'),
    ('--config.dpo.lam', 'Missing value for flag --config.dpo.lam'),
    ('--workdr=x', 'there is no such flag; did you mean --workdir?'),
    ('--config.optim.learning_rate=1', "no such field. Here it is 'optim.lr'."),
    ('--learning_rate=1', 'no such flag; here it is --config.optim.lr'),
    ('--output_dir=x', 'no such flag; here it is --workdir'),
    ('--beta=1', 'no such flag; here it is --config.dpo.beta'),
    ('--lam=1', 'no such flag; fields are set as --config.dpo.lam=...'),
    ('--dpo.lam=1', 'no such flag; fields are set as --config.dpo.lam=...'),
    ('--chip_price=1.2', '--chip_price: goes with --plan'),
    ('--chip_price=dear', 'must be dollars for a chip and hour, such as 1.2'),
    ('--packing', 'no such flag; here rows are always packed'),
    ('--config.model.adapter=None', "model.adapter=None: must be text; use ''"),
    ('stray', "'stray' is no flag"),
    ('configs/demo.py:x', 'write --config=configs/demo.py:x'),
  ],
)
def test_a_slip_is_one_message(file, argument, said):
  with pytest.raises(UserError) as error:
    parse(file, argument)
  assert said in str(error.value)


def test_all_that_is_wrong_at_once(file):
  wrong = ('--config.lamb=1', '--config.sede=2', '--wrkdir=3')
  wrong += ('--config.dpo.lam=much', '--config.seed=1.5', '--config.dpo.beta=2')
  wrong += ('--config.optim.lr', 'x', '--config.dpo.pairs=-1')
  argv = ['launch', f'--config={file}', '--workdir=out', *wrong]
  command = command_lib.parse(argv)
  names = [problem.partition(':')[0] for problem in command.problems]
  assert names == [
    *('--config.lamb', '--config.sede', '--wrkdir', '--config.dpo.lam=much'),
    *('--config.seed=1.5', '--config.optim.lr=x'),
  ]
  assert command.config.dpo.beta == 2  # what can be set is checked as well
  assert 'dpo.pairs=-1: must be' in str(config_lib.validate(command.config))


@pytest.mark.parametrize('missing', ['config', 'workdir'])
def test_what_is_missing_is_named(file, missing):
  given = {'config': file, 'workdir': 'out'}
  argv = [f'--{name}={value}' for name, value in given.items()]
  argv = [flag for flag in argv if missing not in flag.partition('=')[0]]
  with pytest.raises(UserError, match=f'--{missing} is missing\nusage: python'):
    command_lib.parse(['launch', *argv])


def test_help(capsys):
  with pytest.raises(SystemExit) as end:
    command_lib.parse(['launch', '--help'])
  assert end.value.code == 0
  assert capsys.readouterr().out.startswith('usage: python -m ealign.launch')


@pytest.mark.parametrize('program', ['ealign.launch', 'ealign.audit'])
def test_help_that_nobody_reads_is_no_traceback(program):
  ours, theirs = os.pipe()
  os.close(ours)
  argv = [sys.executable, '-m', program, '--help']
  with os.fdopen(theirs, 'wb') as unread:
    done = subprocess.run(argv, stdout=unread, stderr=subprocess.PIPE)
  assert done.returncode == 128 + signal.SIGPIPE
  assert done.stderr == b''


@pytest.mark.parametrize(
  'text, said',
  [
    ('def get_config(:\n', 'my.py, line 1: SyntaxError'),
    ('raise SystemExit(0)\n', 'my.py, line 1: SystemExit: 0'),
    ('import math\nimport no_such\n', 'line 2: ModuleNotFoundError'),
    ('x = 1\n', 'has no function get_config'),
    ('def get_config(arg=None):\n  pass\n', 'must return a ConfigDict'),
    ('def get_config(arg=None):\n  return {}\n', 'got dict'),
    (FILE.replace('config.data', 'config.date'), 'line 6: AttributeError'),
    (FILE.replace('config.data', 'config.date'), 'Did you mean "data"'),
    (FILE.replace("arg or 'train.jsonl'", '3'), 'line 6: TypeError'),
    (FILE.replace('return', 'open("/no/file")\n  return'), 'line 7: FileNotF'),
    ('def get_config(arg):\n  pass\n', 'get_config needs an argument'),
  ],
)
def test_an_error_in_the_file_names_its_line(tmp_path, text, said):
  path = tmp_path / 'my.py'
  path.write_text(text)
  with pytest.raises(UserError) as error:
    config_file.read(str(path))[1]
  assert said in str(error.value)
  assert '\n' not in str(error.value)


def test_the_line_is_found_by_a_relative_path_too(tmp_path, monkeypatch):
  (tmp_path / 'my.py').write_text('import math\nmath.no\n')
  (tmp_path / 'below').mkdir()
  monkeypatch.chdir(tmp_path / 'below')
  with pytest.raises(UserError, match=r'\.\./my\.py, line 2: AttributeError'):
    config_file.read('../my.py')[1]


def test_an_argument_nobody_takes(tmp_path):
  path = tmp_path / 'my.py'
  path.write_text('def get_config():\n  pass\n')
  with pytest.raises(UserError, match='get_config takes no argument'):
    config_file.read(f'{path}:x')[1]


@pytest.mark.parametrize(
  'spec, said',
  [
    ('nowhere.py', 'there is no such file'),
    ('nowhere.py:arg', 'there is no such file'),
    ('demo', r'must be a Python file \(.py\)'),
    ('.', r'must be a Python file'),
  ],
)
def test_no_such_config(spec, said):
  with pytest.raises(UserError, match=said):
    config_file.read(spec)[1]


def test_plan_and_profile(file):
  command = parse(file, '--plan', '--topology=v5e:4x4')
  assert command.plan and command.topology == 'v5e:4x4'
  command = parse(file, '--profile=20:25')
  assert command.profile == (20, 25) and not command.plan


@pytest.mark.parametrize('steps', ['25:20', '20', '5:5', 'a:b', '-1:3'])
def test_a_profile_of_no_steps(file, steps):
  with pytest.raises(UserError, match=f'--profile={steps}: must be FROM:TO'):
    parse(file, f'--profile={steps}')


def test_a_slice_may_be_written_in_capitals(file):
  assert parse(file, '--plan', '--topology=V5E:4X4').topology == 'v5e:4x4'
  with pytest.raises(UserError, match='--topology=v5e4x4: must be one of v4'):
    parse(file, '--plan', '--topology=v5e4x4')
