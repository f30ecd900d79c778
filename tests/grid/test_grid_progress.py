import sys

from ealign.grid import progress


def board(monkeypatch, seconds=()):
  monkeypatch.setattr(progress, '_SECONDS', 0.0)
  made = progress.Board()
  made.counts = {'done': 2, 'running': 1, 'failed': 0, 'left': 3}
  made.seconds = list(seconds)
  return made


def ran(made, monkeypatch, steps=(1, 2, 3)):
  """A watch whose steps took 10 s each."""
  now = [0.0]
  monkeypatch.setattr(progress.time, 'monotonic', lambda: now[0])
  watch = progress.Watch('lam=0.3,seed=1', 5, made)
  made.running = [watch]
  watch.start()
  for step in steps:
    now[0] += 10.0
    watch.update(step, {'train/loss': 0.5} if step == 2 else {})
  return watch


def test_time_left_from_steps_and_from_cells(monkeypatch):
  made = board(monkeypatch)
  assert made.left_s() is None and made.head() == (
    '2 done  1 running  0 failed  3 left'
  )
  watch = ran(made, monkeypatch)
  assert watch.step_time_s == 10.0
  assert made.left_s() == 2 * 10 + 3 * 50  # a cell of 5 steps: 50 s
  made.seconds = [60.0, 80.0]
  assert made.left_s() == 2 * 10 + 3 * 70
  made.counts['running'] = 2  # another launcher helps
  assert made.left_s() == (2 * 10 + 3 * 70) / 2


def test_arms_of_a_program_end_together(monkeypatch):
  made = board(monkeypatch)
  watch = ran(made, monkeypatch)
  made.running = [watch, watch]
  assert made.left_s() == 2 * 10 + 3 * 50 / 2  # a cell: half of what two took


def test_plain_lines(monkeypatch, capsys):
  made = board(monkeypatch, [60.0])
  with made:
    ran(made, monkeypatch).say('data: 3 rows')
  lines = capsys.readouterr().out.splitlines()
  assert lines[0] == (
    '2 done  1 running  0 failed  3 left  3m00s left  lam=0.3,seed=1 1/5'
  )
  assert lines[1].endswith('lam=0.3,seed=1 2/5  loss 0.5')
  assert lines[2].endswith('3/5  loss 0.5')  # the newest that there are
  assert lines[3] == 'lam=0.3,seed=1: data: 3 rows'


def test_quiet(monkeypatch, capsys):
  made = progress.Board(quiet=True)
  with made:
    ran(made, monkeypatch).say('x')
  assert capsys.readouterr().out == ''


def test_a_live_table_on_a_terminal(monkeypatch, capsys):
  monkeypatch.setattr(sys.stdout, 'isatty', lambda: True, raising=False)
  monkeypatch.setenv('COLUMNS', '100')
  monkeypatch.setenv('TERM', 'xterm')
  made = board(monkeypatch, [60.0])
  with made:
    made.say('[red]text[/red] of a model')
    ran(made, monkeypatch)
  said = capsys.readouterr().out
  assert '[red]text[/red] of a model' in said
  for word in (
    '2 done  1 running  0 failed  3 left  3m20s left',
    'lam=0.3,seed=1',
    '3/5',
    'loss 0.5',
  ):
    assert word in said
