"""Which cells a launcher may run, by what is known of each."""

import types

import pytest

from ealign.grid import claims
from ealign.workdir import lease
from ealign.workdir.status import Status

CELL = types.SimpleNamespace(id='a')
NOW, BEGAN = 5000.0, 4000.0


def launch(status, retry='', *, swept=True):
  known = {'began': BEGAN, 'states': {CELL.id: status}}
  command = types.SimpleNamespace(retry=retry, only=())
  grid = types.SimpleNamespace(swept=swept)
  return claims.Launch(grid, None, command, board=None, **known)


@pytest.mark.parametrize(
  'state, silent, wanted',
  [
    ('running', lease.STALE_S - 1, 'running'),
    ('queued', lease.STALE_S - 1, 'running'),
    ('running', lease.STALE_S + 1, 'left'),
    ('queued', lease.STALE_S + 1, 'left'),
    ('preempted', 0, 'left'),
    ('done', 0, 'done'),
    ('failed', lease.STALE_S + 1, 'failed'),
  ],
)
def test_who_is_silent_for_long_runs_no_more(
  state, silent, wanted, monkeypatch
):
  monkeypatch.setattr(claims.time, 'time', lambda: NOW)
  status = Status(state, heartbeat=NOW - silent)
  assert launch(status).state(CELL) == wanted
  assert launch(None).state(CELL) == 'left'


@pytest.mark.parametrize(
  'state, retry, before, since',
  [
    ('done', '', False, False),
    ('done', 'failed', False, False),
    ('done', 'all', True, False),
    ('failed', '', False, False),
    ('failed', 'failed', True, False),
    ('failed', 'all', True, False),
    ('preempted', '', True, True),
  ],
)
def test_what_is_run_again_is_what_ended_before_the_launch(
  state, retry, before, since
):
  for finished, wanted in ((BEGAN - 1, before), (BEGAN, since)):
    status = Status(state, finished=finished)
    assert launch(status, retry).wants(CELL) == wanted


def test_arms_that_failed_are_tried_again():
  failed = Status('failed', finished=BEGAN - 1)
  assert launch(failed, swept=False).wants(CELL)
  assert not launch(failed).wants(CELL)
