"""A compiled program in figures: memory, work, transfers, an estimated time."""

import dataclasses
import math

from ealign.plan import suites
from ealign.plan.inference import Held, Program, device_bytes
from ealign.plan.programs import Shapes
from ealign.runtime import aot, peaks


@dataclasses.dataclass(frozen=True)
class Figures:
  """Of one program; bytes, FLOPs and seconds are those of one device.

  Attributes:
    name: of the program.
    arguments, temporaries, output: bytes; `output` is what is not donated.
    beside: bytes of the run that lie there meanwhile and are no arguments.
    limit: bytes that there are; None: not known.
    flops: of matrix products, attention kernels by formula.
    ratio: flops to those that the model needs; 1.5 would be all of the forward
      pass twice, with frozen weights. None: it was not compiled.
    collectives: bytes by kind.
    hbm_bytes: read and written, an estimate.
    kernels: Pallas kernels and how often they run.
    seconds_compile: that the compilation took; cpu_seconds_compile on all
      cores together.
    seconds: the estimate (`estimate`).
    bound: which of them it is.
    slow: the estimate where each transfer takes `peaks.SLOW`.
    transfers: how often collectives run.
    failure: why it does not compile, if that is not for lack of memory.
    of, calls, extends: those of the program.
  """

  name: str
  arguments: float
  temporaries: float
  output: float
  beside: float
  limit: float | None
  flops: float | None = None
  ratio: float | None = None
  collectives: dict[str, float] | None = None
  hbm_bytes: float | None = None
  kernels: dict[str, int] | None = None
  seconds_compile: float = 0.0
  cpu_seconds_compile: float = 0.0
  seconds: float | None = None
  bound: str = ''
  slow: float | None = None
  transfers: int = 0
  failure: str = ''
  of: str = ''
  calls: float = 0.0
  extends: bool = False

  @property
  def title(self) -> str:
    return f'{self.name} {self.of}'.rstrip()

  @property
  def bytes(self) -> float:
    return self.arguments + self.temporaries + self.output + self.beside

  @property
  def headroom(self) -> float | None:
    """Bytes left over; below 0 it does not fit."""
    known = self.limit is not None and not self.failure
    return self.limit - self.bytes if known else None

  @property
  def excess(self) -> float:
    """Bytes of all these that do not fit."""
    return max(0.0, self.bytes - self.limit) if self.limit else 0.0


def of(program: Program, compiled: aot.Compiled, run: Shapes | Held) -> Figures:
  """The figures of a compiled program beside what is held."""
  held = run.resident
  beside = sum(
    device_bytes(tree) for n, tree in held.items() if n not in program.holds
  )
  counts, devices, known = compiled.counts, run.mesh.size, {}
  if counts is not None:
    kernels = kernel_flops(program, counts, run.config.model.train)
    flops = counts.flops + kernels / devices
    seconds, bound = estimate(run.mesh, flops, counts)
    known = {
      'flops': flops,
      'ratio': flops * devices / program.flops,
      'collectives': dict(counts.collectives),
      'transfers': counts.transfers,
      'hbm_bytes': counts.hbm_bytes,
      'kernels': dict(counts.kernels),
      'seconds': seconds,
      'bound': bound,
      'slow': estimate(run.mesh, flops, counts, peaks.SLOW)[0],
    }
  apart = ('counts', 'text')
  known |= {n: value for n, value in vars(compiled).items() if n not in apart}
  same = ('name', 'of', 'calls', 'extends')
  known |= {name: getattr(program, name) for name in same}
  return Figures(beside=beside, **known)


def kernel_flops(program: Program, counts, train: str) -> float:
  """FLOPs within the kernels of attention and experts, by formula.

  The text of a compiled program (HLO) does not show what a kernel computes. Its
  list of kernels does show how often a forward pass runs for each backward one:
  twice where the layers are computed again. The backward pass of attention
  costs as much as two forward ones; that of experts as much as one, and as
  another one where the experts are trained.
  """
  runs = lambda *parts: sum(
    n for name, n in counts.kernels.items() if any(p in name for p in parts)
  )
  forward, backward = runs('fwd'), runs('dkv')
  passes = forward / backward if backward else 1
  total = 0.0
  if forward:
    total += program.attention * (passes + 2 * bool(backward))
  if runs('ragged'):
    back = (2 if train == 'full' else 1) * bool(backward)
    total += program.experts * (passes + back)
  return total


def estimate(
  mesh, flops: float, counts, latency: float = peaks.LATENCY
) -> tuple[float | None, str]:
  """Seconds at the device's peaks, and what most of them are spent on.

  It is the longest of compute, memory and links, as if it hid the other two,
  and `latency` seconds for each transfer, as if nothing hid these. Most
  programs are slower. Links carry half of their bandwidth each way; an
  all-reduce goes both ways.
  """
  peak = peaks.peak(mesh.devices.flat[0].device_kind)
  if peak is None:
    return None, ''
  reduced = counts.collectives.get('all-reduce', 0)
  times = {
    'compute': flops / peak.flops,
    'memory': counts.hbm_bytes / peak.memory_bandwidth,
    'links': (counts.collective_bytes + reduced) / (peak.link_bandwidth / 2),
  }
  waits = counts.transfers * latency
  seconds = max(times.values()) + waits
  times['latency'] = waits
  return seconds, max(times, key=times.get)


def knobs(config, figures: Figures, mesh) -> list[str]:
  """Fields that lower what a program takes, those that help most first."""
  full, data = config.model.train == 'full', mesh.shape['data']
  shards = data * mesh.shape['fsdp']
  trains = figures.name in ('sft', 'hybrid')
  pairs = config.dpo.pairs if config.reflects else 0
  rows = math.gcd(config.data.batch_size if config.data.train else 0, pairs)
  more = config.train.microbatches * 2
  quantized = full or config.model.quantize != 'none'
  lines = (
    (full, "model.train='lora': no gradients or moments of the weights"),
    (not quantized, "model.quantize='int8': frozen matrices take half"),
    (data > 1, f'mesh.data=1, mesh.fsdp={shards}: weights over more devices'),
    (
      trains and config.model.remat != 'full',
      "model.remat='full': layers are computed again",
    ),
    (
      trains and rows % (shards * more) == 0,
      f'train.microbatches={more}: fewer rows at a time',
    ),
    (trains, 'data.length, dpo.length, data.batch_size, dpo.pairs: lower'),
    (figures.name == 'score', 'dpo.pairs, dpo.length: lower'),
    (
      figures.name in ('prefill', 'decode', 'review'),
      'conscience.prompts or sample.max_new_tokens: lower',
    ),
    (
      figures.name in suites.NAMES,
      'eval.batch or eval.suite_tokens: lower',
    ),
    (True, 'a larger slice, or chips with more memory'),
  )
  return [line for helps, line in lines if helps]
