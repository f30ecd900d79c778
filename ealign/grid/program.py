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
  *,
  strict: bool = False,
) -> list[str | Preempted]:
  """Runs the cells of a group, several as one program (`stack`).

  Args:
    jobs: `job.Job` of each.
    hosts, stop: as `train.run` takes them; several hosts run one cell.
    ended: called in the thread of one of several cells as soon as it has
      ended, with its job and what is returned of it; if true the others stop.
    strict: whether a single cell raises all but a loss that is not finite.

  Returns:
    the one-line error of each, '' of one that is done; the Preempted of one
    that was saved when a signal came.
  """
  if len(jobs) > 1:
    count = len(jobs)
    lanes = [functools.partial(_run, job, count=count) for job in jobs]
    each = lambda lane, result: ended(jobs[lane], _outcome(result))
    results = stack.run(lanes, stop, each)
  else:
    try:
      results = [_run(jobs[0], hosts=hosts)]
    except Exception as error:
      if strict and not isinstance(error, NonFinite):
        raise
      results = [error]
  for result in results:
    ours = isinstance(result, BaseException)
    if ours and not isinstance(result, UserError):
      traceback.print_exception(result)
  return [_outcome(result) for result in results]


def _outcome(result) -> str | Preempted:
  if isinstance(result, Preempted):
    return result
  return line(result) if isinstance(result, BaseException) else ''


def _run(job, calls=None, stop=None, *, hosts=None, count: int = 1):
  from ealign import train

  config, more = job.config, {}
  if calls:
    more = {'backend': calls, 'stop': stop}
    # They share the rows of eval.batch.
    devices = jax.device_count()
    rows = -(-config.eval.batch // (count * devices)) * devices
    section = dataclasses.replace(config.eval, batch=rows)
    config = dataclasses.replace(config, eval=section)
  if job.profile:
    more['profile'] = job.profile
  return train.run(
    *(config, job.folder),
    method=job.method,
    name=job.cell.label,
    hosts=hosts,
    display=job.watch,
    **more,
  )
