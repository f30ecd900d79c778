"""The update: state, terms of the objective, step."""

from ealign.align.step import (
  SCHEDULES,
  Hp,
  TrainState,
  Update,
  answer_logps,
  counts,
  full,
  gradients,
  hyper,
  init_state,
  of_targets,
  schedule,
  train_step,
)
from ealign.align.terms import Term, hybrid
