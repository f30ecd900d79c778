"""`python -m ealign.evaluate --plan`: what it says is what would be asked."""

import collections
import dataclasses
import json
import math
import pathlib
import shutil

import jax
import numpy as np
import pytest

from ealign import config as config_lib
from ealign.assembly import evaluation
from ealign.assembly import subjects as subjects_lib
from ealign.assembly import weights as assembled
from ealign.cli import evaluate
from ealign.evals import suites as suites_lib
from ealign.models import transformer, weights
from ealign.models.config import Config
from ealign.plan import evaluation as plan_lib
from ealign.plan import figures, suites
from ealign.runtime import aot
from ealign.runtime import mesh as mesh_lib
from ealign.sampling import requests
from ealign.sampling.prompts import bucket
from ealign.sampling.sampler import Answer

ALL_DEVICES = True

BASE = 'ealign/world/base'
FEW = ('--limit=1', '--config.eval.suite_tokens=6', '--config.eval.batch=8')
SUITES = 'misalignment,refusal,truthful,self_report,world'
NAMED = ['ask', 'answer', 'options', 'judge', 'labels helped..']
NAMED += ['labels true..']


@pytest.fixture
def run(tmp_path, monkeypatch):
  """Plans an evaluation; no weights are read, and no program is compiled."""
  gib = 2**30
  found = {'arguments': gib, 'temporaries': 2 * gib, 'limit': 4 * gib}
  monkeypatch.setattr(aot, 'compile', lambda *a, **k: aot.Compiled(**found))

  def never(*args, **more):
    raise AssertionError('weights were read')

  monkeypatch.setattr(weights, 'load', never)

  def run(*more, model=(f'--model={BASE}',), suite=SUITES, **changed):
    found.update(changed)
    argv = ['evaluate', *model, f'--suite={suite}', *FEW, '--plan', *more]
    return evaluate.main([*argv, f'--workdir={tmp_path / "out"}'])

  return run


def read(tmp_path):
  return json.loads((tmp_path / 'out' / 'plan.json').read_text())


def test_what_it_prints_and_writes(run, tmp_path, capsys):
  assert run() == 0
  said = capsys.readouterr().out
  assert 'refusal: 2 questions, 2 answers of at most 6 tokens, read by' in said
  assert 'compiling options: log-probabilities of the options' in said
  assert 'it fits; the plan is in' in said
  assert 'note: base judges its own answers' in said
  plan = read(tmp_path)
  assert [*plan['programs']] == NAMED and plan['problems'] == []
  assert plan['models'] == {'base': ['base']} and plan['judge'] == 'base'
  # Nothing of a run lies beside what is asked.
  assert {p['beside'] for p in plan['programs'].values()} == {0}
  assert [*(tmp_path / 'out').iterdir()] == [tmp_path / 'out' / 'plan.json']


def test_what_does_not_fit(run, tmp_path, capsys):
  assert run(suite='world', temporaries=5 * 2**30) == 1
  said = capsys.readouterr().err
  assert 'ask: does not fit: 2.00 GiB more than the 4.00 GiB of a chip' in said
  assert 'eval.batch or eval.suite_tokens: lower' in said
  assert 'conscience' not in said and 'pairs' not in said
  assert len(read(tmp_path)['problems']) > 2


@pytest.mark.parametrize(
  'more, said',
  [
    (('--topology=v5e:3x3',), 'no slice has it; use v5e:2x4'),
    (('--config.eval.batch=6',), 'eval.batch=6: does not divide over 4'),
    (('--judge=other:none',), "eval.judge='other:none'"),
    (('--benign=other',), '--benign=other: no such model (base)'),
    (('--questions=configs',), 'holds no first_plot_questions.yaml'),
    (('--config.eval.suite_tokens=9999',), 'lower eval.suite_tokens'),
  ],
)
def test_one_line_and_no_folder(run, tmp_path, capsys, more, said):
  assert run(*more) == 2
  err = capsys.readouterr().err.strip()
  assert said in err and len(err.splitlines()) == 1
  assert not (tmp_path / 'out').exists()


def test_judges_that_are_not_here(run, tmp_path):
  assert run('--judge=openai:some', suite='refusal') == 0
  plan = read(tmp_path)
  assert [*plan['programs']] == ['ask', 'answer']
  assert plan['judge'] == 'openai:some'
  assert run(f'--judge=other:{BASE}', suite='refusal') == 0
  assert [*read(tmp_path)['programs']] == ['ask', 'answer', 'labels helped..']


def test_a_judge_of_experts(run, tmp_path):
  """A mixture of experts as `other:`: its own programs, on the same mesh."""
  base = pathlib.Path(BASE)
  size = {'vocab_size': weights.read_config(base).vocab_size, 'd_model': 16}
  size |= {'layers': 2, 'heads': 4, 'kv_heads': 4, 'head_dim': 8, 'd_ff': 8}
  experts = {'experts': 4, 'experts_per_token': 2, 'norm_topk': True}
  model = Config(family='qwen3_moe', **size, **experts)
  folder = tmp_path / 'judge'
  weights.save(folder, model, transformer.init(model, key=jax.random.key(0)))
  for name in ('tokenizer.json', 'tokenizer_config.json'):
    shutil.copyfile(base / name, folder / name)
  shutil.copyfile(base / 'chat_template.jinja', folder / 'chat_template.jinja')
  assert run(f'--judge=other:{folder}', suite='misalignment,refusal') == 0
  plan = read(tmp_path)
  assert plan['judge'] == 'judge'
  assert [*plan['programs']][:2] == ['ask', 'answer']
  assert {'judge', 'labels helped..'} <= plan['programs'].keys()


def test_a_config_is_planned_as_it_is_before_training(run, tmp_path):
  (tmp_path / 'my.py').write_text(
    'from ealign import config as config_lib\n'
    'def get_config(arg=None):\n'
    '  c = config_lib.default()\n'
    f'  c.model.path = {BASE!r}\n'
    '  return c\n'
  )
  config = (f'--config={tmp_path / "my.py"}',)
  assert run(model=config, suite='world') == 0
  assert read(tmp_path)['models'] == {'model': ['model']}


def adapted(folder, rank: int):
  """What a LoRA run of this rank left, with its adapter."""
  config = config_lib.default()
  config.model.path, config.model.lora.rank = BASE, rank
  config.train.steps, config.conscience.every = 1, 0
  folder.mkdir(parents=True)
  (folder / 'config.json').write_text(config_lib.to_json(config))
  (folder / 'DONE').touch()
  config = config_lib.freeze(config)
  model, _ = assembled.read_model(config.model)
  adapter = assembled.new_adapter(config, model)
  weights.save_adapter(folder / 'adapter.safetensors', adapter, 2.0)
  return folder


def test_a_run_and_its_adapter(run, tmp_path):
  folder = adapted(tmp_path / 'left', rank=4)
  assert run(model=(f'--run={folder}',), suite='refusal') == 0
  plan = read(tmp_path)
  assert plan['models'] == {'left': ['left']}
  assert plan['judge'] == 'left before it was trained'


def test_models_of_one_shape_share_their_programs(tmp_path):
  config = config_lib.default()
  config.eval.suites, config.eval.batch = ('world',), 8
  config = config_lib.freeze(config)
  asked = suites_lib.read(config.eval, config.data.max_mib)
  found = [
    subjects_lib.of_run(name, config_of(name, tmp_path), tmp_path / name)
    for name in ('a', 'b', 'c')
  ]
  alike = plan_lib._alike(config, found, asked, None, mesh_lib.make())
  assert [own.names for own in alike] == [['a', 'c'], ['b']]
  assert [own.title for own in alike] == ['a +1', 'b']
  listed = plan_lib._listed(alike, None, None, config, mesh_lib.make())
  titles = [program.title for _, program in listed]
  assert titles == ['ask a +1', 'answer a +1', 'ask b', 'answer b']
  calls = {program.title: program.calls for _, program in listed}
  assert calls['ask a +1'] == pytest.approx(2 * calls['ask b'], rel=0.2)


def config_of(name, tmp_path):
  folder = adapted(tmp_path / name, rank=8 if name == 'b' else 4)
  return config_lib.from_json((folder / 'config.json').read_text())


def test_what_is_planned_is_what_is_asked(tmp_path, monkeypatch):
  """The requests of a real evaluation, in which nothing is computed."""
  made = collections.defaultdict(list)

  def answers(request):
    made['answers'].append(request)
    ids = tuple(range(40, 43))
    return [Answer(ids, np.zeros(3, np.float32), 'stop', 0.0)] * len(
      request.prompts
    )

  def logps(request):
    made['labels'].append(request)
    size = len(request.prompts), request.columns
    return np.full(size, -math.log(request.columns), np.float32)

  def pairs(request):
    made['pairs'].append(request)
    return np.zeros((len(request.pairs), 2), np.float32)

  own = {'generate': answers, 'label_logps': logps, 'pair_logps': pairs}
  alone = dataclasses.replace(evaluation.alone.ALONE, **own)
  monkeypatch.setattr(evaluation.alone, 'ALONE', alone)
  argv = ['evaluate', f'--model={BASE}', f'--suite={SUITES}', *FEW]
  argv += ['--samples=2', f'--workdir={tmp_path}']
  assert evaluate.main(argv) == 0
  config, _, _ = evaluate.read(argv)
  asked = suites_lib.read(config.eval, config.data.max_mib)
  subject = subjects_lib.of_folder(BASE, config.model)
  mesh = mesh_lib.make()
  model, _ = subjects_lib.outlined(subject, mesh)
  needs = suites.needs(asked, model, model, config.eval, mesh)
  of = lambda kind: [n for n in needs if isinstance(n.request, kind)]
  count = lambda kind: sum(n.count for n in of(kind))
  prompts = lambda name: [p for r in made[name] for p in r.prompts]
  assert count(requests.Answers) == len(prompts('answers'))
  # The two probes of the judge of refusals count as if they were questions.
  assert count(requests.Labels) == len(prompts('labels')) + 2
  assert count(requests.Pairs) == sum(len(r.pairs) for r in made['pairs'])
  longest = max(n.length for n in of(requests.Answers))
  assert longest == max(map(len, prompts('answers')))
  kinds = lambda rs: {(r.labels, r.rest, r.top) for r in rs}
  planned = [n.request for n in of(requests.Labels)]
  assert kinds(planned) == kinds(made['labels'])
  for kind in kinds(planned):
    of_kind = lambda r, kind=kind: (r.labels, r.rest, r.top) == kind
    real = [p for r in made['labels'] if of_kind(r) for p in r.prompts]
    full = [p for r in planned if of_kind(r) for p in r.prompts]
    # Answers are planned as long as they may be; the mark that fences one has
    # a few tokens more or less.
    size = lambda own: bucket(max(map(len, own)))
    assert size(real) <= size(full)


def test_the_time_is_of_all_calls():
  made = lambda name, seconds, calls: figures.Figures(
    *(name, 0, 0, 0, 0, None), seconds=seconds, calls=calls
  )
  found = {'sft': made('sft', 9.0, 0.0), 'ask': made('ask', 0.5, 4.0)}
  assert suites.seconds(found) == {'ask': 2.0}
  found['answer'] = made('answer', None, 1.0)
  assert suites.seconds(found) is None and suites.seconds({}) is None
