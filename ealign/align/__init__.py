"""The update of the method: state, hybrid loss, step."""

from ealign.align.step import (
  DPO,
  Hp,
  TrainState,
  Update,
  answer_logps,
  counts,
  full,
  gradients,
  init_state,
  schedule,
  train_step,
)
