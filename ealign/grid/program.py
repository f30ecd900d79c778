"""Which cells run as one program, and how many of them (`grid.stack`)."""

import dataclasses
import functools
import traceback
from collections.abc import Callable

import jax

from ealign.runtime import preempt
from ealign.runtime.errors import NonFinite, Preempted, UserError, line
from ealign.runtime.hosts import Hosts
from ealign.stack import run as stack


def run(
  jobs,
  hosts: Hosts,
  stop: preempt.Stop,
  ended: Callable[..., bool] = lambda job, error: False,
) -> list[str | Preempted]:
  """Runs the cells of a group, several as one program (`grid.stack`).

  Args:
    jobs: `grid.run.Job` of each.
    hosts, stop: as `train.run` takes them; several hosts run one cell.
    ended: called in the thread of one of several cells as soon as it has
      ended, with its job and what is returned of it; if true the others stop.

  Returns:
    the one-line error of each, '' of one that is done; the Preempted of one
    that was saved when a signal came. Of several hosts those and errors that
    may be one host's alone are raised.
  """
  if len(jobs) > 1:
    count = len(jobs)
    arms = [functools.partial(_run, job, count=count) for job in jobs]
    each = lambda arm, result: ended(jobs[arm], _told(result))
    results = stack.run(arms, stop, each)
  else:
    try:
      results = [_run(jobs[0], hosts=hosts)]
    except Exception as error:
      # Perhaps it is this host's alone: then all end.
      if hosts.count > 1 and not isinstance(error, NonFinite):
        raise
      results = [error]
  for result in results:
    ours = isinstance(result, BaseException)
    if ours and not isinstance(result, UserError):
      traceback.print_exception(result)
  return [_told(result) for result in results]


def _told(result) -> str | Preempted:
  if isinstance(result, Preempted):
    return result
  return line(result) if isinstance(result, BaseException) else ''


def _run(job, calls=None, stop=None, *, hosts=None, count: int = 1):
  from ealign import train

  config, together = job.config, {}
  if calls:
    together = {'backend': calls, 'stop': stop}
    # They share the rows of eval.batch.
    devices = jax.device_count()
    rows = -(-config.eval.batch // (count * devices)) * devices
    section = dataclasses.replace(config.eval, batch=rows)
    config = dataclasses.replace(config, eval=section)
  return train.run(
    *(config, job.place),
    method=job.method,
    name=job.cell.label,
    hosts=hosts,
    display=job.watch,
    **together,
  )
