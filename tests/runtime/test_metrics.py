import json
import sys
import types

import jax.numpy as jnp
import numpy as np
import pytest

from ealign.runtime import display as display_lib
from ealign.runtime.errors import UserError
from ealign.runtime.metrics import Metrics, jsonl_truncate


def rows(folder):
  text = (folder / 'metrics.jsonl').read_text()
  return [json.loads(line) for line in text.splitlines()]


def test_writes_lines_with_the_names_of_reporters(tmp_path):
  with Metrics(tmp_path, 5, quiet=True) as metrics:
    metrics.write(1, {'loss': jnp.float32(0.5), 'rewards/margins': 0.25})
    metrics.write(2, {'train/loss': 1.0, 'conscience/pairs': np.int64(3)})
    metrics.write(
      3, {'eval/loss': 2.0, 'perf/compiles': 4, 'gen/eos_rate': 1.0}
    )
  assert rows(tmp_path) == [
    {'step': 1, 'train/loss': 0.5, 'train/rewards/margins': 0.25},
    {'step': 2, 'train/loss': 1.0, 'conscience/pairs': 3},
    {'step': 3, 'eval/loss': 2.0, 'perf/compiles': 4, 'gen/eos_rate': 1.0},
  ]


def test_values_that_json_does_not_know_are_null(tmp_path):
  with Metrics(tmp_path, 5, quiet=True) as metrics:
    metrics.write(1, {'a': float('nan'), 'b': np.float32('inf'), 'c': None})
  assert rows(tmp_path) == [
    {'step': 1, 'train/a': None, 'train/b': None, 'train/c': None}
  ]


def test_each_line_is_on_disk_at_once(tmp_path):
  metrics = Metrics(tmp_path, 5, quiet=True)
  metrics.write(1, {'loss': 1.0})
  assert len(rows(tmp_path)) == 1
  metrics.close()
  metrics.close()


def test_jsonl_truncate(tmp_path):
  path = tmp_path / 'answers.jsonl'
  assert jsonl_truncate(path, 3) == 0 and not path.exists()
  lines = [f'{{"step": {step}, "text": "ü"}}\n' for step in (0, 3, 4, 2)]
  path.write_text(''.join(lines), encoding='utf-8')
  assert jsonl_truncate(path, 3) == 1
  assert path.read_text(encoding='utf-8') == lines[0] + lines[1] + lines[3]
  assert jsonl_truncate(path, 9) == 0
  assert [p.name for p in tmp_path.iterdir()] == ['answers.jsonl']


@pytest.mark.parametrize(
  'tail', ['{"step": 1}', '{"st', '\0\0\0', '{"no": 1}\n', 'null\n']
)
def test_an_unfinished_last_line_is_dropped(tmp_path, tail):
  path = tmp_path / 'a.jsonl'
  path.write_text('{"step": 0}\n' + tail)
  assert jsonl_truncate(path, 3) == 1
  assert path.read_text() == '{"step": 0}\n'


def test_a_broken_line_in_the_middle_is_named_and_nothing_lost(tmp_path):
  path = tmp_path / 'a.jsonl'
  text = '{"step": 0}\nbroken\n{"step": 1}\n'
  path.write_text(text)
  with pytest.raises(UserError, match=r'a\.jsonl:2: is no JSON object'):
    jsonl_truncate(path, 3)
  assert path.read_text() == text
  assert [p.name for p in tmp_path.iterdir()] == ['a.jsonl']


class Board:
  """Records what a SummaryWriter would be told."""

  made = []

  def __init__(self, folder, purge_step=None):
    self.folder, self.purge_step, self.scalars = folder, purge_step, []
    Board.made.append(self)

  def add_scalar(self, *scalar):
    self.scalars.append(scalar)

  def close(self):
    self.closed = True


def test_tensorboard_gets_the_numbers(tmp_path, monkeypatch):
  module = types.SimpleNamespace(SummaryWriter=Board)
  monkeypatch.setitem(sys.modules, 'tensorboardX', module)
  with Metrics(tmp_path, 5, tensorboard=True, quiet=True, after=7) as metrics:
    metrics.write(8, {'loss': 1.5, 'bad': float('nan')})
  board = Board.made[-1]
  assert board.scalars == [('train/loss', 1.5, 8)]
  assert board.purge_step == 8 and board.closed
  assert board.folder == str(tmp_path / 'tensorboard')


def test_tensorboard_without_its_extra_is_an_error(tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, 'tensorboardX', None)
  with pytest.raises(UserError, match=r"pip install 'ealign\[tensorboard\]'"):
    Metrics(tmp_path, 5, tensorboard=True)


def test_plain_lines_when_not_a_terminal(tmp_path, capsys, monkeypatch):
  times = iter([0.0, 10.0, 10.5, 11.0, 20.0, 21.0])
  monkeypatch.setattr(display_lib.time, 'monotonic', lambda: next(times))
  with Metrics(tmp_path, 4, prefix='sft') as metrics:
    metrics.say('continuing')
    metrics.progress(0)
    new = {'loss': 0.123456, 'replay/size': 7, 'other': 1}
    metrics.progress(1, new)
    metrics.progress(2, new)  # nothing new
    metrics.progress(2, {'loss': 0.2})  # too soon
    metrics.progress(3, {'loss': float('nan')})
    metrics.progress(4, {'loss': 0.2})  # the last one, always
  assert capsys.readouterr().out.splitlines() == [
    'sft  continuing',
    'sft  step 1/4  loss 0.1235  replay 7  30s left',
    'sft  step 3/4  loss nan  7s left',
    'sft  step 4/4  loss 0.2',
  ]


def test_a_live_bar_on_a_terminal(tmp_path, monkeypatch, capsys):
  monkeypatch.setattr(sys.stdout, 'isatty', lambda: True, raising=False)
  monkeypatch.setenv('TERM', 'xterm')
  monkeypatch.setenv('COLUMNS', '120')
  monkeypatch.setenv('FORCE_COLOR', '1')
  with Metrics(tmp_path, 4, prefix='[sft]') as metrics:
    metrics.progress(3, {'loss': 0.5})
    metrics.say('saved [bold]')
  out = capsys.readouterr().out
  assert '3/4' in out and '[sft]' in out and 'loss 0.5' in out
  assert 'saved [bold]' in out


@pytest.fixture
def drawn(monkeypatch):
  """What a notebook's bars looked like, from the first to the last."""
  made = []
  handle = types.SimpleNamespace(update=made.append)
  display = lambda markup, display_id: made.append(markup) or handle
  module = types.SimpleNamespace(
    get_ipython=lambda: types.SimpleNamespace(kernel='a kernel'),
    display=types.SimpleNamespace(HTML=str, display=display),
  )
  monkeypatch.setitem(sys.modules, 'IPython', module)
  times = iter(range(0, 1000, 10))
  monkeypatch.setattr(display_lib.time, 'monotonic', lambda: next(times))
  return made


def test_a_bar_in_a_notebook(tmp_path, drawn, capsys):
  with Metrics(tmp_path, 4, prefix='<sft>') as metrics:
    metrics.progress(1)
    metrics.progress(3, {'loss': 0.5})
    metrics.progress(4)
    metrics.say('saved')
  first, second, last = drawn
  assert '<progress max="4" value="1">' in first
  assert '>&lt;sft&gt; 1/4<' in first
  assert '>&lt;sft&gt; 3/4  5s left  loss 0.5<' in second
  assert '>&lt;sft&gt; 4/4  loss 0.5<' in last
  assert capsys.readouterr().out == '<sft>  saved\n'


def test_what_is_counted_in_a_notebook_leaves_no_bar(drawn):
  with display_lib.counting(3, 'questions', print) as done:
    done(2)
    done(1)
  assert '>questions 0/3<' in drawn[0] and '>questions 3/3<' in drawn[-2]
  assert drawn[-1] == ''


def test_a_terminal_with_ipython_is_no_notebook(monkeypatch):
  module = types.SimpleNamespace(get_ipython=lambda: types.SimpleNamespace())
  monkeypatch.setitem(sys.modules, 'IPython', module)
  assert not display_lib.in_notebook()


def test_quiet_is_silent(tmp_path, capsys):
  with Metrics(tmp_path, 4, quiet=True) as metrics:
    metrics.progress(4, {'loss': 0.5})
    metrics.say('word')
  assert capsys.readouterr().out == ''


@pytest.mark.parametrize(
  'seconds, text',
  [(7.4, '7s'), (185, '3m05s'), (7800, '2h10m'), (59.9, '1m00s')],
)
def test_clock(seconds, text):
  assert display_lib.clock(seconds) == text
