"""What one device can do at most: FLOP/s, bandwidths, memory."""

import dataclasses

from ealign.runtime.topology import CHIPS

GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Peak:
  """Of one device: bf16 FLOP/s, bytes/s of memory and of the links, bytes."""

  flops: float
  memory_bandwidth: float
  link_bandwidth: float
  memory: float


# jax.Device.device_kind -> our name of it, and the GiB that XLA's compiler
# leaves a program there: a program that is too large names them.
_TPUS = {
  'TPU v4': ('v4', 30.75),
  'TPU v5 lite': ('v5e', 15.75),
  'TPU v5': ('v5p', 95.74),
  'TPU v6 lite': ('v6e', 31.25),
  'TPU7x': ('tpu7x', 94.75),
}
# NVIDIA's data sheets: dense bf16, memory, NVLink; by a part of the kind.
_GPUS = {
  'A100-SXM4-40GB': Peak(312e12, 1555e9, 600e9, 40 * GIB),
  'A100-SXM4-80GB': Peak(312e12, 2039e9, 600e9, 80 * GIB),
  'H100 80GB HBM3': Peak(989e12, 3350e9, 900e9, 80 * GIB),
  'H200': Peak(989e12, 4800e9, 900e9, 141 * 1e9),
  'B200': Peak(2250e12, 8000e9, 1800e9, 180 * 1e9),
}


def peak(kind: str) -> Peak | None:
  """The peaks of a `device_kind`; None of one that is not known, as a CPU."""
  if kind in _TPUS:
    name, gib = _TPUS[kind]
    chip = CHIPS[name]
    share = lambda figure: figure / chip.devices
    return Peak(
      share(chip.flops),
      share(chip.hbm_bandwidth),
      share(chip.ici_bandwidth),
      gib * GIB,
    )
  return next((p for part, p in _GPUS.items() if part in kind), None)
