"""What a run is made of, and whether it fits."""

from ealign.assembly.parts import (
  Parts,
  adapts,
  assemble,
  encoded,
  frozen_weights,
  load_model,
  loader,
  lora_scale,
  make_mind,
  make_pool,
  make_update,
  quantized,
  read_model,
  trained_weights,
  training_chats,
  with_system,
)
