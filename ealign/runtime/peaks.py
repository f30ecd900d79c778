"""What one device can do at most: FLOP/s, bandwidths, memory."""

import dataclasses
import pathlib

from ealign.runtime.topology import CHIPS

GIB = 2**30
# Seconds that a collective takes beside its bytes: of one link of a TPU v3
# (https://astra-sim.github.io/astra-sim-docs/validation/hardware), and ten
# times that, for several hops, or a host between.
LATENCY, SLOW = 1e-6, 10e-6


@dataclasses.dataclass(frozen=True)
class Peak:
  """Of one device: bf16 FLOP/s, bytes/s of memory and of the links, bytes."""

  flops: float
  memory_bandwidth: float
  link_bandwidth: float
  memory: float


# NVIDIA's data sheets: dense bf16, memory, NVLink; by a part of the kind.
_GPUS = {
  'A100-SXM4-40GB': Peak(312e12, 1555e9, 600e9, 40 * GIB),
  'A100-SXM4-80GB': Peak(312e12, 2039e9, 600e9, 80 * GIB),
  'H100 80GB HBM3': Peak(989e12, 3350e9, 900e9, 80 * GIB),
  'H200': Peak(989e12, 4800e9, 900e9, 141 * 1e9),
  'B200': Peak(2250e12, 8000e9, 1800e9, 180 * 1e9),
}


def host_memory() -> tuple[float, float] | None:
  """Bytes of this machine's memory that are free, and all; None: not known."""
  try:
    text = pathlib.Path('/proc/meminfo').read_text()
    lines = (line.partition(':') for line in text.splitlines())
    kib = {name: int(rest.split()[0]) for name, _, rest in lines}
    return kib['MemAvailable'] * 1024.0, kib['MemTotal'] * 1024.0
  except (OSError, ValueError, KeyError, IndexError):
    return None


def peak(kind: str) -> Peak | None:
  """The peaks of a `device_kind`; None of one that is not known, as a CPU."""
  for chip in CHIPS.values():
    if chip.device_kind == kind:
      speeds = chip.flops, chip.hbm_bandwidth, chip.ici_bandwidth
      return Peak(*(x / chip.devices for x in speeds), chip.gib * GIB)
  return next((p for part, p in _GPUS.items() if part in kind), None)
