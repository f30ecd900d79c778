"""What a run is made of, and whether it fits."""

from ealign.assembly.data import (
  encoded,
  loader,
  make_pool,
  read_framing,
  training_chats,
  with_system,
)
from ealign.assembly.parts import (
  Parts,
  assemble,
  make_conscience,
  make_update,
  second_models,
)
from ealign.assembly.weights import (
  adapts,
  frozen_weights,
  load_model,
  lora_scale,
  new_adapter,
  quantized,
  read_model,
  trained_weights,
)
