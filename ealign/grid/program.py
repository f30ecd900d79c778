"""Runs a group of cells: one by itself, several as one program (`stack`)."""

import dataclasses
import functools
import traceback
from collections.abc import Callable

import jax

from ealign.runtime import preempt
from ealign.runtime.errors import (
  Collapsed,
  NonFinite,
  Preempted,
  Unfit,
  UserError,
  line,
)
from ealign.runtime.hosts import Hosts
from ealign.stack import run as stack
from ealign.workdir import folder as folder_lib


def run(
  jobs,
  hosts: Hosts,
  stop: preempt.Stop,
  ended: Callable[..., bool] = lambda job, error: False,
  *,
  strict: bool = False,
) -> list[str | Preempted]:
  """Runs the cells of a group.

  Args:
    jobs: `job.Job` of each.
    hosts, stop: as `train.run` takes them; several hosts run one cell.
    ended: called with a job and its result (see below) as soon as one of
      several cells has ended, in its thread; if true the others stop.
    strict: whether a single cell raises its error, unless that is of what it
      learned: NonFinite or Collapsed.

  Returns:
    for each job its error on one line, '' if it is done, or the Preempted with
    which it stopped and was saved when a signal came.
  """
  if len(jobs) > 1:
    count = len(jobs)
    lanes = [functools.partial(_run, job, count=count) for job in jobs]
    each = lambda lane, result: ended(jobs[lane], _outcome(result))
    results = stack.run(lanes, stop, each)
  else:
    try:
      results = [_run(jobs[0], stop=stop, hosts=hosts)]
    except Exception as error:
      if strict and not isinstance(error, NonFinite | Collapsed):
        raise
      results = [error]
  for result in results:
    if isinstance(result, BaseException) and not isinstance(result, UserError):
      traceback.print_exception(result)
  return [_outcome(result) for result in results]


def _outcome(result) -> str | Preempted:
  if isinstance(result, Preempted):
    return result
  return line(result) if isinstance(result, BaseException) else ''


def _run(job, backend=None, stop=None, *, hosts=None, count: int = 1):
  from ealign import train

  config, more = job.config, {'stop': stop}
  if backend:
    more['backend'] = backend
    # They share the rows of eval.batch.
    devices = jax.device_count()
    rows = -(-config.eval.batch // (count * devices)) * devices
    section = dataclasses.replace(config.eval, batch=rows)
    config = dataclasses.replace(config, eval=section)
  if job.profile:
    more['profile'] = job.profile
  try:
    with folder_lib.usable(job.folder.shared):
      return train.run(
        *(config, job.folder),
        method=job.method,
        name=job.cell.label,
        hosts=hosts,
        display=job.watch,
        **more,
      )
  except (jax.errors.JaxRuntimeError, MemoryError) as error:
    told = 'RESOURCE_EXHAUSTED' in str(error)
    if not (told or isinstance(error, MemoryError)):
      raise
    why = ' '.join(str(error).partition('\n')[0].split())
    remedy = (
      'lower data.batch_size, eval.batch or the lengths; --plan has sizes'
    )
    raise Unfit(f'{job.folder.shared}: {why}; {remedy}') from None
