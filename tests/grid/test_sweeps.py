import json

import pytest

from ealign import config as config_lib
from ealign.cli import command as command_lib
from ealign.grid import names, sweeps
from ealign.runtime.errors import UserError

FILE = """
from ealign import config as config_lib

def get_config(arg=None):
  config = config_lib.default()
  config.eval.judge = 'world'
  if arg == 'arms':
    config.arms = {'a': {}}
  if arg == 'bad':
    config.seed = -1
  return config

def sweep_lam():
  for lam in (0.1, 1, 0.3):
    yield {'dpo.lam': lam}

def sweep_beta():
  return [{'dpo.beta': 0.3}, {'dpo': {'beta': 0.1}}]

def sweep_seeds():
  return [{'seed': seed} for seed in range(2)]

def sweep_more_seeds():
  return [{'seed': seed} for seed in range(3)]
"""


@pytest.fixture
def read(tmp_path):
  """The grid of a sweep, from the file above with more text."""

  def run(sweep, *rest, more='', arg=''):
    file = tmp_path / 'my.py'
    file.write_text(FILE + more)
    argv = ['x', f'--config={file}{arg}', '--workdir=d', f'--sweep={sweep}']
    return sweeps.read(command_lib.parse([*argv, *rest]))

  return run


def problems(read, *args, **kwargs):
  with pytest.raises(UserError) as error:
    read(*args, **kwargs)
  return list(error.value.args)


def test_product_and_union(read):
  grid = read('lam,seeds')
  assert [c.name for c in grid.cells] == [
    *('lam=0.1,seed=0', 'lam=0.1,seed=1', 'lam=1,seed=0', 'lam=1,seed=1'),
    *('lam=0.3,seed=0', 'lam=0.3,seed=1'),
  ]
  assert grid.cells[3].config.dpo.lam == 1.0
  assert grid.cells[3].setting == {'dpo.lam': 1}
  assert grid.cells[3].replicate == {'seed': 1}
  assert (grid.cells[3].label, grid.cells[3].seed) == ('lam=1', 'seed=1')
  both = read('lam,seeds+beta,more_seeds')
  assert both.axes == {'lam': ['dpo.lam'], 'beta': ['dpo.beta']}
  # beta=0.1 is the default, and so is lam=0.1: two cells come twice.
  assert len(both.cells) == 6 + 6 - 2
  assert len({c.id for c in both.cells}) == 10


def test_a_level_of_a_single_sweep_may_be_the_default(read):
  grid = read('none', more='\ndef sweep_none():\n  yield {}\n')
  assert [c.name for c in grid.cells] == ['default']


def test_the_id_knows_results_only(read):
  (a, *_), (b, *_) = (
    read('lam', *flags).cells
    for flags in (
      (),
      (
        *('--config.log.tensorboard', '--config.train.log_every=3'),
        '--config.train.export=peft',
      ),
    )
  )
  assert a.id == b.id and len(a.id) == 8
  assert read('lam', '--config.dpo.pairs=2').cells[0].id != a.id
  text = config_lib.to_json(a.config)
  assert names.identity(config_lib.from_json(text)) == a.id
  assert json.loads(text)['dpo']['lam'] == 0.1


def test_names_are_short_and_safe():
  made = names.readable(
    {
      'conscience.review.by': 'other:/models/My Model',
      'pool.paths': ('ealign:world/data/pool.jsonl', 'sft'),
      'model.train': 'full',
      'data.train_system': 'You are ../ "kind"; $(rm) ' * 9,
      'model.lora.rank': 8,
      'optim.lr': 0.0003,
    }
  )
  assert made == (
    'review.by=My-Model,paths=pool.jsonl+sft,model.train=full,'
    'train_system=kind-rm,rank=8,lr=0.0003'
  )
  assert max(len(part) for part in made.split(',')) <= 40


@pytest.mark.parametrize(
  'sweep, said',
  [
    ('lam,seed', "no sweep 'seed' (sweeps: lam, beta, seeds, more_seeds)"),
    ('lam,seed', "Did you mean 'seeds'?"),
    ('lam+', '--sweep=lam+: a name is missing beside a , or +'),
    ('lam,lam', "'lam,lam' names a sweep twice"),
  ],
)
def test_a_sweep_that_is_not_there(read, sweep, said):
  (problem,) = problems(read, sweep)
  assert said in problem


BAD = """
def sweep_bad():
  yield 0.3
  yield {'dpo.lamb': 1}
  yield {'dpo.lam': 'much'}
  yield {'dpo.beta': -1.0}
  yield {'sample.max_new_tokens': 999}

def sweep_worse():
  yield {'replay.capacity': 0}

def sweep_none():
  return []

def sweep_broken():
  yield {'seed': 1}
  raise KeyError('x')
"""


def test_all_problems_at_once_each_once(read):
  found = problems(read, 'bad,seeds+worse,seeds', more=BAD)
  assert len(found) == 6
  for start in (
    "sweep 'bad', level 1: 0.3: must be a dict of fields",
    "sweep 'bad', level 2: dpo.lamb: there is no such field. Did you",
    "sweep 'bad', level 3: dpo.lam='much': must be a number",
    "sweep 'bad', level 4: dpo.beta=-1.0: must be above 0",
    "sweep 'bad', level 5: sample.max_new_tokens=999: must be below",
    "sweep 'worse', level 1: replay.capacity=0: must be at least 1",
  ):
    assert [p for p in found if p.startswith(start)], (start, found)


def test_what_all_cells_share_is_told_plainly(read):
  assert problems(read, 'lam,more_seeds', '--config.dpo.beta=0') == [
    'dpo.beta=0.0: must be above 0'
  ]


def test_what_all_levels_bring_names_them(read):
  more = "\ndef sweep_x():\n  return [{'dpo.lam': 'x'}]\n"
  (problem,) = problems(read, 'x,seeds', more=more)
  assert problem.startswith("sweep 'x', level 1: dpo.lam='x': must be")


def test_a_sweep_without_levels_or_with_an_error(read):
  assert "sweep 'none': yields no level" in problems(read, 'none', more=BAD)
  (problem,) = problems(read, 'broken', more=BAD)
  assert "sweep 'broken': " in problem and 'my.py, line' in problem
  assert problem.endswith("KeyError: 'x'")
  for made in ('5', "{'dpo.lam': 1}"):
    more = f'\ndef sweep_one():\n  return {made}\n'
    (problem,) = problems(read, 'one', more=more)
    assert problem.startswith(
      f"sweep 'one': {made}: must yield or return dicts"
    )


def test_a_level_without_a_cell_is_not_to_blame(read):
  found = problems(read, 'lam,none+bad,seeds', more=BAD)
  assert not [p for p in found if "'lam'" in p]


NAMED = """
def sweep_arms():
  return {
    'sft': {'dpo.lam': 0.05},
    'back': {'model.adapter': 'cell:sft', 'dpo.lam': 0.3},
    'plain': {},
  }

def sweep_named_seeds():
  return {'first': {'seed': 0}, 'second': {'seed': 1}}

def sweep_more():
  return {'strong': {'dpo.lam': 0.3}}

def sweep_wrong():
  return {'a b': {'dpo.beta': -1.0}, 'b': {'dpo.lamb': 1}}
"""


def test_levels_may_have_names(read):
  grid = read('arms,named_seeds', more=NAMED)
  assert [c.name for c in grid.cells][::2] == [
    'sft,first',
    'back,first',
    'plain,first',
  ]
  assert [c.label for c in grid.cells][::2] == ['sft', 'back', 'plain']
  assert grid.cells[2].needs['cell:sft'].name == 'sft,first'
  assert [c.id for c in grid.cells] == [
    c.id for c in read('arms,seeds', more=NAMED).cells
  ]
  # Beside a sweep without names, what that one sets.
  names = [c.name for c in read('more,beta,seeds', more=NAMED).cells]
  assert names[0] == 'strong,beta=0.3,seed=0'


def test_problems_of_levels_with_names(read):
  found = problems(read, 'wrong', more=NAMED)
  for start in (
    "sweep 'wrong': the name 'a b': must be plain, such as 'more-pairs'",
    "sweep 'wrong', level 'b': dpo.lamb: there is no such field.",
    "sweep 'wrong', level 'a b': dpo.beta=-1.0: must be above 0",
  ):
    assert [p for p in found if p.startswith(start)], (start, found)


PAIR = """
def sweep_long():
  yield {'sample.max_new_tokens': 200}
  yield {'sample.max_new_tokens': 20}

def sweep_short():
  yield {'dpo.length': 128}
  yield {'dpo.length': 256}
"""


def test_levels_that_do_not_go_together(read):
  (problem,) = problems(read, 'long,short', more=PAIR)
  assert problem.startswith(
    "levels 1 of 'long' and 1 of 'short': sample.max_new_tokens=200: must"
  )


def test_two_sweeps_of_a_product_that_set_a_field(read):
  more = "\ndef sweep_lam2():\n  yield {'dpo.lam': 0.1}\n"
  found = problems(read, 'lam,lam2', more=more)
  said = "dpo.lam is set by sweep 'lam' and by sweep 'lam2'"
  assert found == [f'--sweep: {said}; take them apart with +']
  assert len(read('lam+lam2', more=more).cells) == 3


def test_levels_that_no_field_takes(read):
  more = """
def sweep_x():
  yield {1: 2, 'dpo.lamb': 3}
  yield {'dpo.lam': 10**400}
  yield {'dpo.beta': float('nan')}
  yield {'dpo': {None: 1}}
  yield {'pool.weights': (10**400,)}
"""
  found = problems(read, 'x,seeds', more=more)
  assert len(found) == 6
  for start in (
    "sweep 'x', level 1: 1: there is no such field.",
    "sweep 'x', level 1: dpo.lamb: there is no such field. Did you mean",
    "sweep 'x', level 2: dpo.lam=inf: must be ",
    "sweep 'x', level 5: pool.weights=(1000",
    "sweep 'x', level 3: dpo.beta=nan: must be ",
    "sweep 'x', level 4: dpo.None: there is no such field.",
  ):
    assert [p for p in found if p.startswith(start)], (start, found)


def test_levels_of_numpy(read):
  more = """
import numpy as np

def sweep_x():
  for lam in np.array([0.1, 0.3]):
    yield {'dpo.lam': lam, 'pool.weights': (np.float32(1.0),)}

def sweep_np_seeds():
  for seed in np.arange(2):
    yield {'seed': seed}
"""
  grid = read('x,np_seeds', more=more)
  assert [c.config.seed for c in grid.cells] == [0, 1, 0, 1]
  assert {c.id for c in grid.cells} == {
    c.id
    for c in read('lam,seeds', '--config.dpo.beta=0.1').cells
    if c.config.dpo.lam < 1
  }
  json.dumps(grid.sweeps)


def test_arms_and_sweeps(read):
  (problem,) = problems(read, 'lam', arg=':arms')
  assert 'config without arms' in problem


CONTRASTS = """
def contrasts():
  lam = lambda x: {'dpo.lam': x}
  return {'none': (lam(0.0), {}), 'code': ({}, lam(1), 'insecure')}
"""


def test_contrasts(read):
  assert read('lam', more=CONTRASTS).contrasts == [
    {'name': 'none', 'a': {'dpo.lam': 0.0}, 'b': {}, 'metric': 'misaligned'},
    {'name': 'code', 'a': {}, 'b': {'dpo.lam': 1}, 'metric': 'insecure'},
  ]
  many = '\ndef contrasts():\n  return {str(i): ({"dpo.lam": i}, {}) '
  many += 'for i in range(7)}\n'
  assert problems(read, 'lam', more=many) == [
    'contrasts: 7 of them; at most 6 can be primary'
  ]
  bad = "\ndef contrasts():\n  return {'a': ({'dpo.lan': 1}, 3), 'b': 1}\n"
  found = problems(read, 'lam', more=bad)
  assert len(found) == 3 and "Did you mean 'dpo.lam'?" in found[0]
  bad = "\ndef contrasts():\n  return {'a': ({'seed': 1}, {}, 'aligned')}\n"
  (found,) = problems(read, 'lam', more=bad)
  assert "'a': 'aligned': metric is none of misaligned, coherent," in found


@pytest.mark.parametrize(
  'side, said',
  [
    ("{'dpo.lam': 'x'}", "dpo.lam='x': must be a number"),
    ("{'dpo.lam': float('nan')}", 'dpo.lam=nan: '),
    ("{'dpo.lam': {1}}", 'dpo.lam={1}: must be a number'),
    ("{'dpo.lam': -1, 'seed': -1}", 'seed=-1: must be at'),
    ('{1: 2}', '1: there is no such field.'),
    ("{'dpo': {'beta': 0.1}}", 'a and b are the same setting; name two'),
    ('{}', 'a and b are the same setting; name two'),
  ],
)
def test_a_contrast_is_checked_before_the_run(read, side, said):
  more = f"\ndef contrasts():\n  return {{'c': ({side}, {{}})}}\n"
  found = problems(read, 'lam', more=more)
  assert found[0].startswith(f"contrast 'c': {said}")
  assert len(found) == 1 + ('seed' in side)
  # What is wrong with the base config itself is not told once more.
  found = problems(read, 'lam', more=more, arg=':bad')
  assert [x for x in found if 'contrast' in x and 'seed' in x] == []


def test_a_scalar_of_numpy_is_a_number(read):
  more = '\nimport numpy as np\ndef contrasts():\n'
  more += "  return {'c': ({'dpo.lam': np.float32(0.5)}, {})}\n"
  (found,) = read('lam', more=more).contrasts
  assert found['a'] == {'dpo.lam': 0.5} and type(found['a']['dpo.lam']) is float


def test_contrasts_that_cannot_be_tested_are_told(read):
  more = """
def sweep_all_seeds():
  return [{'seed': seed} for seed in range(5)]

def contrasts():
  return {
    'here': ({'dpo.lam': 1}, {'dpo.lam': 0.3}),
    'base': ({'dpo.lam': 0.3}, {}),
    'elsewhere': ({'dpo.lam': 0.5}, {'dpo.lam': 1}),
  }
"""
  lost = "'elsewhere' (no such setting)"
  assert read('lam,all_seeds', more=more).notes == (
    f'contrasts that stay untested: {lost}',
  )
  few = "(2 replicates of both, 5 needed), 'base' (2 replicates of both"
  (note,) = read('lam,seeds', more=more).notes
  assert note.startswith(f"contrasts that stay untested: 'here' {few}, 5")
  # One without a replicate is the one of the base config's seed.
  (note,) = read('lam+lam,all_seeds', more=more).notes
  assert note == f'contrasts that stay untested: {lost}'
  assert read('lam,seeds').notes == ()


def test_flags_of_a_grid(tmp_path):
  file = tmp_path / 'my.py'
  file.write_text(FILE)
  argv = ['x', f'--config={file}', '--workdir=d']
  parse = lambda *rest: command_lib.parse([*argv, *rest])
  flags = ('--sweep=lam', '--retry=failed', '--fail_fast', '--stack=8')
  command = parse(*flags)
  assert (command.sweep, command.retry, command.stack) == ('lam', 'failed', 8)
  assert command.fail_fast and not command.problems
  assert set(flags) < set(command.flags)
  assert parse('--sweep=lam', '--stack=auto').stack == 0
  for rest, said in (
    (('--stack=2',), '--stack: goes with --sweep'),
    (('--arms=2',), '--arms was renamed; use --stack'),
    (('--config.mesh.arm=2',), 'It is called mesh.stack now.'),
    (('--sweep=lam', '--retry=fail'), "Did you mean 'failed'?"),
    (('--sweep=lam', '--stack=0'), '--stack=0: must be auto or a number'),
    (
      ('--sweep=lam', '--profile=1:2'),
      '--profile: not together with --sweep: it is of a',
    ),
    (('--sweep=lam', '--only=,'), '--only= is empty; give it a value'),
    (('--sweep=lam', '--sweep=seeds'), '--sweep: is given 2 times'),
    (
      ('--sweep=lam', '--retry=all', '--print_launch=xpk'),
      '--retry=all: with --print_launch it would begin anew at each restart',
    ),
    (('--sweep=',), '--sweep= is empty; give it a value, or leave it out'),
  ):
    assert said in ' '.join(parse(*rest).problems)


def test_settings_with_the_same_short_name_are_told_apart(read):
  grid = read(
    'near',
    more="\ndef sweep_near():\n  return [{'optim.lr': 1.0 + i / 1e9}"
    ' for i in range(3)]\n',
  )
  assert [c.label for c in grid.cells] == ['lr=1', 'lr=1(2)', 'lr=1(3)']


@pytest.mark.parametrize(
  'returned, said',
  [
    ("({'seed': 1} for _ in iter(int, 1))", 'yields more than 10,000 levels'),
    ("({'seed': i} for i in range(4_000_000))", 'yields more than 10,000'),
    ('exit()', 'SystemExit'),
  ],
)
def test_a_sweep_that_does_not_end_is_refused(read, returned, said):
  more = f'\ndef sweep_x():\n  return {returned}\n'
  (problem,) = problems(read, 'x', more=more)
  assert problem.startswith("sweep 'x': ") and said in problem


def test_cells_are_counted_before_they_are_made(read, monkeypatch):
  more = """
def sweep_a_seeds():
  return [{'seed': i} for i in range(2000)]
def sweep_b():
  return [{'dpo.lam': i / 2000} for i in range(2000)]
"""
  monkeypatch.setattr(sweeps, '_product', lambda *_: pytest.fail('it made one'))
  (problem,) = problems(read, 'a_seeds,b', more=more)
  assert 'makes 4,000,000 cells, more than 10,000; take sweeps apart' in problem
