"""Names that others give our fields."""

import pytest

from ealign import config as config_lib
from ealign.cli import command
from ealign.config import file, synonyms
from ealign.runtime.errors import UserError

TYPES = config_lib.field_types()


def test_all_lead_to_what_there_is():
  flags = {f'--{name}' for name in command._NAMES}
  for name, (field, remark) in synonyms.SYNONYMS.items():
    assert name not in TYPES, name
    assert field in (*TYPES, *flags) if field else remark, name


@pytest.mark.parametrize(
  'name, field',
  [
    ('learning_rate', 'optim.lr'),
    ('per_device_train_batch_size', 'data.batch_size'),
    ('num_train_epochs', 'train.steps'),
    ('max_seq_length', 'data.length'),
    ('lora_alpha', 'model.lora.alpha'),
    ('beta', 'dpo.beta'),
    ('temperature', 'sample.temperature'),
    ('warmup-steps', 'optim.warmup'),
  ],
)
@pytest.mark.parametrize('prefix', ['', 'optim.', 'train.args.'])
def test_names_of_others_in_any_section(name, field, prefix):
  if prefix + name not in TYPES:
    said = synonyms.hint(prefix + name, TYPES)
    assert said.startswith(f' Here it is {field!r}')


def test_what_differs_is_said_and_what_there_is_not():
  said = synonyms.hint('train.num_train_epochs', TYPES)
  assert said.endswith("'train.steps', in steps, of data.batch_size rows each.")
  assert synonyms.hint('lora_dropout', TYPES) == ' Here there is no dropout.'
  assert synonyms.hint('output_dir', TYPES) == ' Here it is --workdir.'


def test_other_names_are_looked_for_by_their_spelling():
  assert synonyms.hint('lamb', TYPES) == " Did you mean 'dpo.lam'?"
  assert synonyms.hint('mesh.arm', TYPES) == ' It is called mesh.stack now.'
  assert synonyms.hint('xyzzy', TYPES) == ''
  assert synonyms.hint(1, TYPES) == ''


def test_in_a_config_its_arms_and_what_it_reads(tmp_path):
  config = config_lib.default()
  config.arms = {'a': {'learning_rate': 1.0}}
  with config.optim.unlocked():
    config.optim.learning_rate = 1.0
  problems = '\n'.join(config_lib.validate(config))
  assert problems.count("Here it is 'optim.lr'.") == 2
  path = tmp_path / 'c.py'
  for line, said in (
    ('config.lora.rank = 1', "Did you mean 'model.lora'?"),
    ('print(config.optim.learning_rate)', "Here it is 'optim.lr'."),
  ):
    path.write_text(
      'from ealign import config as lib\n'
      'def get_config():\n  config = lib.default()\n'
      f'  {line}\n  return config\n'
    )
    with pytest.raises(UserError) as error:
      file.read(str(path))
    assert f'{path}, line 4: AttributeError' in str(error.value)
    assert f'there is no such field. {said}' in str(error.value)
