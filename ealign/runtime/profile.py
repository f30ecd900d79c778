"""A trace of some steps, for TensorBoard or Perfetto."""

import pathlib

import jax


class Profile:
  """Writes a JAX trace of the steps FIRST to END - 1 to <folder>/profile.

  A context manager; `at(step, done)` is called before each step and after the
  last, with what the steps before it have computed: the trace ends when that is
  there. `stop` ends it early.
  """

  def __init__(self, folder, steps: tuple[int, int] | None):
    self._folder = pathlib.Path(folder) / 'profile'
    self._first, self._end = steps or (None, None)
    self._running = False

  def __enter__(self) -> 'Profile':
    return self

  def __exit__(self, *error) -> None:
    self.stop()

  def at(self, step: int, done) -> None:
    if step == self._end:
      jax.block_until_ready(done)
      self.stop()
    if step == self._first:
      jax.block_until_ready(done)
      jax.profiler.start_trace(self._folder)
      self._running = True

  def stop(self) -> None:
    if self._running:
      self._running = False
      jax.profiler.stop_trace()
