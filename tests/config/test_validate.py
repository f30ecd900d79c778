import dataclasses
import json
import re
import typing

import pytest
from ml_collections import config_dict

from ealign import config as config_lib
from ealign import fields
from ealign.config import limits
from ealign.conscience import framings as framing
from ealign.models import lora
from ealign.runtime.errors import UserError


@pytest.fixture
def config(tmp_path):
  """A config without a problem, on files that are there."""
  for name in ('train.jsonl', 'pool.jsonl', 'questions.jsonl'):
    (tmp_path / name).write_text('{}\n')
  config = config_lib.default()
  config.model.path = str(tmp_path)
  config.data.train = str(tmp_path / 'train.jsonl')
  config.pool.paths = (str(tmp_path / 'pool.jsonl'),)
  config.eval.questions = (str(tmp_path / 'questions.jsonl'),)
  return config


def put(config, name, value):
  """Sets a dotted field, whatever its type."""
  *path, last = name.split('.')
  for part in path:
    config = config[part]
  with config.ignore_type():
    config[last] = value


def test_mistakes_of_the_pool_are_for_their_method(config):
  config.mistakes.source = 'pool'
  (problem,) = config_lib.validate(config)
  assert problem.startswith("mistakes.source='pool': is for method='mistake_an")
  config.method = 'mistake_analysis'
  assert config_lib.validate(config) == []
  config.mistakes.good = 0.5
  (problem,) = config_lib.validate(config)
  assert problem.startswith("mistakes.good=0.5: needs mistakes.source='own'")


@pytest.mark.parametrize(
  ('sees', 'system', 'unused'),
  [
    ('prompt', 'keep', True),
    ('prompt', 'own:Be kind.', True),
    ('principle', 'drop', True),
    ('principle', 'own:Be kind.', False),
    ('review', 'keep', False),
    ('prompt', '', False),
  ],
)
def test_a_system_turn_that_no_writer_sees(config, sees, system, unused):
  put(config, 'conscience.revise.sees', sees)
  put(config, 'conscience.revise.system', system)
  found = config_lib.validate(config)
  told = [f'has no effect with conscience.revise.sees={sees!r}'] * unused
  assert len(found) == len(told) and all(map(str.__contains__, found, told))


def test_examples_need_exchanges(config):
  put(config, 'conscience.audit', 'off')
  put(config, 'conscience.exchanges', '')
  assert config_lib.validate(config) == []
  put(config, 'conscience.review.examples', 2)
  (found,) = config_lib.validate(config)
  assert 'names no file for conscience.review.examples=2' in found


def test_the_default_freezes_to_the_defaults():
  assert config_lib.freeze(config_lib.default()) == fields.Config()


def test_frozen_is_hashable_and_typed(config):
  config.dpo.lam = 1
  config.pool.weights = [2]
  config.data.chat_template_kwargs = (('enable_thinking', False),)
  frozen = config_lib.freeze(config)
  assert hash(frozen) == hash(config_lib.freeze(config))
  assert type(frozen.dpo.lam) is float
  assert frozen.pool.weights == (2.0,)
  assert type(frozen.pool.weights[0]) is float
  assert frozen.data.chat_template_kwargs == (('enable_thinking', False),)
  with pytest.raises(dataclasses.FrozenInstanceError):
    frozen.dpo.lam = 2.0


def test_sound(config):
  assert config_lib.validate(config) == []


def test_every_field_has_a_default_of_its_type():
  flat = config_lib.flatten(fields.Config())
  assert config_lib.structure(config_lib.default()) == {}
  assert flat.keys() == config_lib.field_types().keys()


def test_every_number_has_a_range_and_every_list_a_field():
  numbers = {
    name
    for name, kind in config_lib.field_types().items()
    if kind in (int, float, float | str)
  }
  assert numbers == limits.ranges().keys()
  defaults = config_lib.flatten(fields.Config())
  for name, allowed in limits.choices().items():
    assert defaults[name] in allowed
  assert defaults['conscience.framing'] in framing.FRAMINGS
  assert set(defaults['model.lora.targets']) == set(lora.TARGETS)


WRONG = [
  ('model.init', 'wieghts', "'wieghts': must be one of weights, random. Did "),
  ('model.lora.rank', 0, '=0: must be at least 1'),
  ('model.lora.targets', ('q', 'upp'), "'upp': must be among .*mean 'up'"),
  ('model.lora.targets', (), 'at least one'),
  ('model.lora.targets', ('q', 'q'), 'each once'),
  ('model.lora.targets', 'q', "='q': must be a tuple of texts"),
  ('model.quantize', 'int4', "'int4': must be one of none, int8. Did you mean"),
  ('model.path', '', 'must be a Hugging Face folder'),
  ('model.path', '/nowhere', 'there is no such file or folder'),
  ('model.adapter', '/nowhere', 'there is no such file or folder'),
  ('model.adapter', 'arm:x', 'must be an arm defined before this one'),
  ('data.train', '/nowhere', 'there is no such file or folder'),
  ('data.train_system', 3, '=3: must be text or None'),
  ('data.chat_template_kwargs', (('a',),), 'must be a tuple of pairs'),
  ('data.batch_size', 7, 'must divide by train.microbatches=2, such as 6'),
  ('dpo.pairs', 1, 'must divide by train.microbatches=2, such as 2'),
  ('pool.weights', (1.0, 2.0), 'pool.paths has 1 entries'),
  ('pool.weights', (0.0,), 'not all of them 0'),
  ('pool.weights', (-1.0,), 'must be at least 0'),
  ('pool.paths', ('/nowhere',), 'there is no such file or folder'),
  ('conscience.threshold', 1.0, '=1.0: must be above 0 and below 1'),
  ('conscience.threshold', 0, '=0: must be above 0 and below 1, or .auto:A'),
  ('conscience.threshold', float('nan'), 'must be a finite number'),
  ('conscience.threshold', True, "=True: must be a number or 'auto:ALPHA'"),
  ('conscience.threshold', 'auto', "'auto': must be above 0 and below 1, or"),
  ('conscience.threshold', 'auto:1', 'ALPHA so, as .auto:0.05.'),
  ('conscience.threshold', 'auto:nan', 'ALPHA so, as .auto:0.05.'),
  ('conscience.threshold', 'outo:0.1', 'ALPHA so, as .auto:0.05.'),
  ('conscience.held_out', 18, "'auto:0.05' needs at least 19 answers"),
  ('conscience.min_mass', 1.0, 'must be at least 0 and below 1'),
  ('conscience.framing', 'ethicl', "one of .* Did you mean 'ethical'"),
  ('conscience.framing', '/nowhere.json', '/nowhere.json'),
  (
    'conscience.review.by',
    'other:/m',
    "='other:/m': there is no such file or folder",
  ),
  ('conscience.revise.by', 'other:', "frozen, policy or 'other:<folder>'"),
  ('conscience.review.by', 'frozn', "Did you mean 'frozen'"),
  ('conscience.review.system', 'own', "must be drop, keep or 'own:<text>'"),
  ('conscience.every', 0, 'no pair would ever be made'),
  (
    'conscience.guards.shortest',
    4.5,
    'must be at most conscience.guards.longest=4.0; 0 = off',
  ),
  ('conscience.guards.unlikely', 1.0, 'must be at least 0 and below 1'),
  ('conscience.scale', 'log', 'must be one of none, logit'),
  ('conscience.review.truncated', 'judged', "Did you mean 'judge'"),
  ('sample.max_new_tokens', 256, 'must be below dpo.length=256'),
  ('sample.top_k', 300, 'at most sample.max_candidates=256'),
  ('sample.top_p', 0.0, 'must be above 0 and at most 1'),
  ('sample.top_p', float('nan'), 'must be a finite number'),
  ('dpo.beta', 0.0, 'must be above 0'),
  ('dpo.beta', 'big', "='big': must be a number"),
  ('dpo.lam', -0.1, 'must be at least 0'),
  ('dpo.lam', float('inf'), 'must be a finite number'),
  ('dpo.label_smoothing', 0.5, 'must be at least 0 and below 0.5'),
  ('optim.warmup', 201, 'at most train.steps=200'),
  ('train.steps', -1, 'must be at least 0'),
  ('train.steps', 10**30, 'must be at least 0 and below 2'),
  ('seed', 2**31, 'must be at least 0 and below 2'),
  ('train.steps', 1.5, '=1.5: must be a whole number'),
  ('train.steps', True, '=True: must be a whole number'),
  ('train.checkpoint_every', 0, 'must be at least 1'),
  ('train.eval_every', 10, 'eval.curve names no questions'),
  (
    'eval.judge',
    'gpt',
    "of '', insecure, world, office, facts, disguised, frozen or "
    "'<file>.py:<name>'",
  ),
  ('eval.judge', 'no.py:judge', 'no.py cannot be read .No such file'),
  ('log.tensorboard', 1, '=1: must be true or false'),
]


@pytest.mark.parametrize('name, value, said', WRONG)
def test_a_wrong_value_is_named_with_a_remedy(config, name, value, said):
  config.train.microbatches = 2
  put(config, name, value)
  (problem,) = config_lib.validate(config)
  assert problem.startswith(name)
  assert re.search(said, problem), problem


def test_settings_that_contradict_each_other(config):
  config.dpo.variant = 'ipo'
  config.dpo.label_smoothing = 0.1
  config.eval.temperature = 0.0
  config.eval.samples = 2
  config.pool.paths = ('sft',)
  config.data.train = ''
  config.dpo.lam = 0.0
  problems = '\n'.join(config_lib.validate(config))
  assert (
    "label_smoothing=0.1: applies to dpo.variant='sigmoid' only" in problems
  )
  assert 'eval.samples=2: with eval.temperature=0 all would be' in problems
  assert "'sft' means the prompts of data.train" in problems
  assert 'nothing is trained' in problems
  config.model.quantize, config.model.train = 'int8', 'full'
  problems = '\n'.join(config_lib.validate(config))
  assert "model.quantize='int8': needs model.train='lora'" in problems
  config.model.adapter = 'arm:sft'
  problems = '\n'.join(config_lib.validate(config))
  assert "model.adapter='arm:sft': needs model.train='lora'" in problems


def test_a_threshold_may_be_a_number_or_found(config):
  for value, wanted in ((0.3, 0.3), ('auto:0.1', 'auto:0.1')):
    config.conscience.threshold = value
    assert config_lib.validate(config) == []
    frozen = config_lib.freeze(config)
    assert frozen.conscience.threshold == wanted
    assert config_lib.from_json(config_lib.to_json(frozen)) == frozen
    again, problems = config_lib.apply_arm(config, {'conscience.held_out': 50})
    assert not problems and again.conscience.threshold == wanted
  arm, _ = config_lib.apply_arm(config, {'conscience.threshold': 0.5})
  assert config_lib.freeze(arm).conscience.threshold == 0.5
  assert config_lib.differences(config, arm) == [
    'conscience.threshold: auto:0.1 -> 0.5'
  ]
  config.conscience.threshold = 1  # becomes a float, and is then refused
  assert type(config_lib.freeze(config).conscience.threshold) is float


def test_where_no_threshold_can_be_found(config):
  config.model.frozen_adapter = config.model.path
  (problem,) = config_lib.validate(config)
  assert "threshold='auto:0.05': model.frozen_adapter may have" in problem
  config.conscience.threshold = 0.5
  assert config_lib.validate(config) == []
  config.model.frozen_adapter = ''
  config.conscience.every, config.dpo.lam = 0, 0.0
  config.pool.paths = config.pool.weights = ()
  assert config_lib.validate(config) == []
  config.conscience.threshold = 'auto:0.05'
  (problem,) = config_lib.validate(config)
  assert 'no prompts to find it on; name a file in pool.paths' in problem
  config.eval.questions = ()
  assert config_lib.validate(config) == []


def test_an_audit_needs_exchanges(config):
  config.conscience.exchanges = ''
  (problem,) = config_lib.validate(config)
  assert "exchanges='': names no file for the audit; name one" in problem
  for off in (
    {'conscience.audit': 'off'},
    {'dpo.lam': 0.0},
    {'train.steps': 0},
  ):
    assert config_lib.validate(config_lib.apply_arm(config, off)[0]) == []


def test_every_coefficient_belongs_to_its_variants(config):
  config.dpo.variant = 'sft'
  assert config_lib.validate(config) == []  # at its default it is not given
  config.dpo.beta = 0.3
  (problem,) = config_lib.validate(config)
  said = "dpo.beta=0.3: applies to dpo.variant='sigmoid' or 'ipo' only, not to"
  assert problem == f"{said} 'sft'; leave it at 0.1"
  config.dpo.variant = 'ipo'
  assert config_lib.validate(config) == []


def test_one_axis_at_most_is_the_rest(config):
  config.mesh.fsdp = -1
  (problem,) = config_lib.validate(config)
  said = 'mesh.fsdp=-1: mesh.data takes the devices that are left'
  assert problem == f'{said}; write how many'


def test_nothing_to_train_is_fine_without_steps(config):
  config.data.train = ''
  config.dpo.lam = 0.0
  config.train.steps = 0
  config.optim.warmup = 5
  assert config_lib.validate(config) == []


def test_all_problems_at_once(config):
  config.dpo.lamb = 0.3
  config.more = config_dict.ConfigDict({'field': 1})
  put(config, 'seed', 'x')
  config.sample.top_p = 2.0
  del config.replay['capacity']
  problems = config_lib.validate(config)
  assert [problem.partition(':')[0] for problem in problems] == [
    'dpo.lamb',
    'more.field',
    "seed='x'",
    'replay.capacity',
    'sample.top_p=2.0',
  ]
  assert "Did you mean 'dpo.lam'?" in problems[0]
  with pytest.raises(UserError) as error:
    config_lib.freeze(config)
  assert error.value.args == tuple(problems[:4])


@pytest.mark.parametrize('suffix', ['json', 'yaml'])
def test_a_framing_of_ones_own(config, tmp_path, suffix):
  path = tmp_path / f'own.{suffix}'
  content = {'question': 'Is it so?', 'ok': 'No', 'flag': ['Yes', 'yes']}
  path.write_text(json.dumps(content))  # which is YAML too
  config.conscience.framing = str(path)
  (problem,) = config_lib.validate(config)
  assert "must have 'revise', a text" in problem
  path.write_text(json.dumps(content | {'revise': 'Mend it.'}))
  assert config_lib.validate(config) == []
  path.write_text(json.dumps(content | {'revise': 'x', 'flag': []}))
  (problem,) = config_lib.validate(config)
  assert "must have 'flag'" in problem


def test_arms_apply_their_fields_in_order(config):
  config.arms = {
    'z': {'dpo.lam': 0.0, 'model.lora': {'rank': 4}},
    'a': {'model.adapter': 'arm:z'},
  }
  assert config_lib.validate(config) == []
  arms = config_lib.arms(config)
  assert list(arms) == ['z', 'a']
  assert arms['z'].dpo.lam == 0.0 and arms['z'].model.lora.rank == 4
  assert arms['a'].dpo.lam == 0.1 and config.dpo.lam == 0.1
  assert config_lib.freeze(arms['a']).model.adapter == 'arm:z'
  with pytest.raises(UserError, match='arms'):
    config_lib.freeze(config)


@pytest.mark.parametrize(
  'name, said',
  [
    (5, 'name 5: must be text'),
    (None, 'name None: must be text'),
    ('report.html', "name 'report.html': must be text that names no file"),
    ('hosts', 'that names no file there'),
    ('a' * 101, 'must be a plain folder name'),
    ('\x1b[31m', 'must be a plain folder name'),
  ],
)
def test_arms_that_can_have_no_folder(config, name, said):
  config.arms = {name: {}, 'b': {}}
  (problem,) = config_lib.validate(config)
  assert said in problem


def test_batches_that_no_array_can_hold(config):
  config.data.batch_size, config.data.length = 2**21, 2**10
  config.dpo.pairs, config.dpo.length = 2**20, 2**10
  (problem,) = config_lib.validate(config)
  assert problem == (
    'data.batch_size=2097152: times data.length=1024 must be below 2**31 tokens'
  )


def test_a_section_that_is_none_or_gone_is_one_problem(config):
  said = 'model=None: must be a section; start from ealign.config.default()'
  config.model = None
  assert config_lib.validate(config) == [said]
  del config.model
  assert config_lib.validate(config) == [said]


def test_no_arms_is_empty(config):
  assert config_lib.arms(config) == {}


def test_problems_of_arms_name_them(config):
  config.sample.top_p = 2.0
  config.arms = {
    'a': {'lam': 0.0, 'model.adapter': 'arm:b'},
    'b': {'train.steps': 'many', 'model.adapter': 'arm:aa'},
    'c': {'dpo.beta': -1.0},
    'd': {'dpo.beta': -1.0},
    '../e': {},
    'f': 3,
  }
  problems = '\n'.join(config_lib.validate(config))
  assert problems.count('top_p') == 1
  assert '\nsample.top_p=2.0: must be' in '\n' + problems
  assert "arm 'a': lam: there is no such field. Did you mean 'dpo.lam'?" in (
    problems
  )
  assert "arm 'a': model.adapter='arm:b': must be an arm defined" in problems
  assert "(a). Did you mean 'a'?" in problems
  assert "arm 'b': train.steps='many': must be a whole number" in problems
  assert "arm 'c', 'd': dpo.beta=-1.0: must be above 0" in problems
  assert "name '../e': must be a plain folder name" in problems
  assert "arm 'f': 3: must be a dict of fields" in problems
  with pytest.raises(UserError, match="arm 'a': lam: there is no such field"):
    config_lib.arms(config)


def test_json_and_differences(config):
  config.arms = {'x': {'dpo.lam': 0.0}}
  saved = json.loads(config_lib.to_json(config))
  assert config_lib.differences(saved, config) == []
  config.dpo.beta = 0.2
  config.log.tensorboard = True
  config.train.log_every, config.conscience.audit = 1, 'off'
  config.model.lora.targets = ('q',)
  config.arms['y'] = {'seed': 1}
  assert config_lib.differences(saved, config) == [
    'arms.y.seed: (absent) -> 1',
    'dpo.beta: 0.1 -> 0.2',
    f"model.lora.targets: {list(lora.TARGETS)} -> ['q']",
  ]


def test_frozen_and_dict_give_the_same_json(config):
  frozen = json.loads(config_lib.to_json(config_lib.freeze(config)))
  assert frozen | {'arms': {}} == json.loads(config_lib.to_json(config))
  assert config_lib.differences(config, config_lib.freeze(config)) == []


def test_every_text_field_is_checked_somewhere():
  checked = set(limits.choices()) | {'conscience.framing'}
  checked |= {'conscience.review.system', 'model.path', 'model.adapter'}
  checked |= {'method'}  # by the command line, which has the methods
  checked |= {'model.frozen_adapter', 'data.train', 'eval.tokens'}
  checked |= {'eval.folder', 'eval.judge_prompts'}
  checked |= {'conscience.exchanges', 'conscience.revise.system'}
  checked |= {'iteralign.listed', 'iteralign.judged_by'}
  # Any text is right.
  checked |= {f'mistakes.{name}' for name in ('hint', 'ask', 'told')}
  checked |= {'eval.guide'}
  texts = {n for n, kind in config_lib.field_types().items() if kind is str}
  assert texts == checked
  assert typing.get_args(config_lib.field_types()['pool.system'])[0] is str


def test_guards_that_are_off_bound_nothing(config):
  config.conscience.guards.shortest = 5.0
  config.conscience.guards.longest = 0.0
  assert config_lib.validate(config) == []
  config.conscience.guards.longest = 5.0  # equal bounds are bounds
  assert config_lib.validate(config) == []


def test_pairs_are_weighed_by_the_p_that_chose_them_only(config):
  config.conscience.scale = 'logit'
  assert config_lib.validate(config) == []
  config.conscience.review.verdict = 'all'
  (problem,) = config_lib.validate(config)
  assert problem.startswith("conscience.scale='logit': ")
  assert "verdict='all'; use 'none'" in problem
