"""The command line of an audit: what is read, refused and kept."""

import json
import signal

import pytest

from ealign.cli import audit
from ealign.runtime.errors import UserError

ROWS = 'ealign:world/data/audit.jsonl'
FILE = f"""
from ealign import config as config_lib

def get_config(arg=None):
  config = config_lib.default()
  config.model.path = 'ealign:world/base'
  config.data.train = {ROWS.replace('audit', 'pool')!r}
  config.conscience.exchanges = {ROWS!r}
  config.arms = {{'a': {{'seed': 1}}, 'b': {{'seed': 2}}}}
  config.arms['b']['model.adapter'] = 'arm:a'
  return config
"""


def read(tmp_path, *rest):
  path = tmp_path / 'my.py'
  path.write_text(FILE)
  return audit.read(['audit', f'--config={path}', *rest])


@pytest.mark.parametrize(
  ('flag', 'chooses'),
  [
    (['--choose'], True),
    (['--choose=TRUE'], True),
    (['--choose=1'], True),
    (['--choose=false'], False),
    (['--nochoose'], False),
    ([], False),
  ],
)
def test_whether_to_choose(tmp_path, flag, chooses):
  how = read(tmp_path, '--workdir=out', *flag)[2]
  assert how == {'chooses': chooses, 'every': False}
  if chooses:
    how = read(tmp_path, '--workdir=out', *flag, '--all')[2]
    assert how == {'chooses': True, 'every': True}


def test_flags_may_have_a_blank_before_their_value(tmp_path):
  own = tmp_path / 'own.jsonl'
  own.write_text('{}\n')
  rest = '--exchanges', str(own), '--workdir', 'choose', '--only', 'b'
  config, workdir, how = read(tmp_path, *rest)
  assert config.conscience.exchanges == str(own)
  assert (workdir, how['chooses'], config.seed) == ('choose', False, 2)
  assert config.model.adapter == ''  # of another arm, which has yet to run


@pytest.mark.parametrize(
  ('flag', 'told'),
  [
    ('--choose=perhaps', '--choose=perhaps: must be true or false'),
    ('choose', "'choose' is no flag"),
    ('--exchanges=', '--exchanges= is empty'),
    ('--config.conscience.exchanges=', 'conscience.exchanges is empty'),
    ('--only=a,b', '--only=a,b: one arm at a time'),
    ('--only=c', '--only=c: no such arm (arms: a, b)'),
    ('--plan', '--plan: is of ealign.launch'),
    ('--all', '--all: goes with --choose; add it'),
    ('--sweep=x', '--sweep: is of ealign.launch'),
  ],
)
def test_what_is_refused(tmp_path, flag, told):
  with pytest.raises(UserError) as error:
    read(tmp_path, '--workdir=out', flag)
  assert told in str(error.value)


def test_without_a_workdir_the_usage_is_its_own(tmp_path):
  with pytest.raises(UserError, match='(?s)--workdir is missing.*ealign.audit'):
    read(tmp_path)


def test_a_workdir_that_is_a_file_is_told_before_the_model_is_loaded(
  tmp_path, monkeypatch, capsys
):
  monkeypatch.setattr(
    audit, 'audited', lambda *_, **__: pytest.fail('too late')
  )
  out = tmp_path / 'out'
  out.write_text('')
  read(tmp_path, f'--workdir={out}')
  argv = ['audit', f'--config={tmp_path / "my.py"}', f'--workdir={out}']
  assert audit.main(argv) == 2
  assert f'--workdir={out}: cannot be used' in capsys.readouterr().err


@pytest.mark.parametrize(('name', 'code'), [('SIGTERM', 143), ('SIGINT', 130)])
def test_where_it_is_stopped_it_says_what_is_kept(
  tmp_path, monkeypatch, capsys, name, code
):
  told = [[], [(0, 640, 'questions'), (1256, 1280, 'questions')]]

  def audited(config, rows, kept, note, **how):
    for counts in told.pop(0):
      note(*counts)
    signal.raise_signal(getattr(signal, name))

  monkeypatch.setattr(audit, 'audited', audited)
  monkeypatch.setattr(audit.launch, 'compile_cache', lambda: None)
  out = tmp_path / 'out'
  read(tmp_path, f'--workdir={out}')
  argv = ['audit', f'--config={tmp_path / "my.py"}', f'--workdir={out}']
  for said in (
    'stopped; the same command goes on\n',
    'stopped; 1,256 of 1,280 questions of this round are kept; the same '
    'command goes on\n',
  ):
    assert audit.main(argv) == code
    assert capsys.readouterr().err == said


def found(tells, text):
  share = {'value': 0.9, 'low': 0.8, 'high': 1.0}
  also = {'name': f'other{text}', 'answered': 0.5, 'kinds': {text: share}}
  also['thresholds'] = {'dev': {'caught': share, 'false_flags': None}}
  setting = {
    **{'name': text, 'fields': {}, 'auc': share, 'kinds': {text: share}},
    **{'answered': 1.0, 'mass': 1.0, 'p': {}, 'calibration_error': 0.1},
    'among': 'plain',
    **{'thresholds': {}, 'moves': [], 'flips': None, 'verdicts': []},
  }
  return {
    **{'model': text, 'reviewer': text, 'exchanges': text},
    'conscience': {'min_mass': 0.25},
    **{'rows': {'dev': 1, 'test': 1}, 'tried': [], 'settings': [setting, also]},
    **{'baselines': {}, 'verdict': {'tells': tells, 'text': 'so.'}},
    'writer': {
      **{'sees': text, 'tried': [], 'rows': []},
      'summary': {'length': float('nan')},
    },
  }


@pytest.mark.parametrize('tells', [True, False])
def test_what_is_kept_is_json_and_shows_what_could_move_the_cursor(
  tmp_path, monkeypatch, capsys, tells
):
  hostile = '\x1b[2J<script>\udcff'
  monkeypatch.setattr(audit, 'audited', lambda *_, **__: found(tells, hostile))
  monkeypatch.setattr(audit.launch, 'compile_cache', lambda: None)
  out = tmp_path / 'deep' / 'out'
  read(tmp_path, f'--workdir={out}')
  argv = ['audit', f'--config={tmp_path / "my.py"}', f'--workdir={out}']
  assert audit.main(argv) == int(not tells)
  said = capsys.readouterr().out
  assert '\x1b' not in said and '\\x1b[2J<script>' in said
  assert f'{out}/audit.html' in said
  shown = '\\x1b[2J<script>'
  assert f'  other{shown}' in said and ': a verdict on 50 %; AUC ' in said
  refuse = lambda name: pytest.fail(f'{name} is no JSON')
  kept = json.loads((out / 'audit.json').read_text(), parse_constant=refuse)
  assert kept['writer']['summary']['length'] is None
  page = (out / 'audit.html').read_text()
  assert '<script>' not in page and 'Every question on split test' in page
  assert '90 % <span class="soft">[80, 100]</span> / –</td><td>0.90 ' in page
