"""How long a whole run takes by a plan's estimates, in chip-hours and money."""

import dataclasses

from ealign.plan import costs
from ealign.plan.figures import Figures
from ealign.runtime import topology


@dataclasses.dataclass(frozen=True)
class Bill:
  """A run from its first prompt to its last answer to a suite.

  seconds: by the estimates. chips: of the mesh. price: dollars for a chip and
  hour, if it is known.
  """

  seconds: float
  chips: float
  price: float | None = None

  @property
  def chip_hours(self) -> float:
    return self.seconds / 3600 * self.chips

  @property
  def dollars(self) -> float | None:
    return None if self.price is None else self.chip_hours * self.price

  def as_dict(self) -> dict:
    return {
      'seconds': self.seconds,
      'chip_hours': self.chip_hours,
      'dollars': self.dollars,
    }


def bills(
  cases: dict[str, costs.Cost],
  found: dict[str, Figures],
  steps: int,
  suites: float,
  mesh,
  price: float | None = None,
) -> dict[str, Bill]:
  """The bill of each case of `costs`; {} where no time is known.

  Args:
    cases: {} where nothing reflects: then a step is an update without pairs.
    found: figures of programs, by name.
    steps: of the run.
    suites: seconds that the questions of suites take at the end.
    mesh: the devices.
    price: dollars for a chip and hour.
  """
  sft = found['sft'].seconds if 'sft' in found else None
  times = {
    name: case.calibration + steps * case.step for name, case in cases.items()
  }
  if not cases and sft is not None:
    times = {'expected': steps * sft}
  chips = mesh.size / _devices(mesh.devices.flat[0].device_kind)
  return {
    name: Bill(seconds + suites, chips, price)
    for name, seconds in times.items()
  }


def _devices(kind: str) -> int:
  """How many devices JAX shows of a chip."""
  same = [x for x in topology.CHIPS.values() if x.device_kind == kind]
  return same[0].devices if same else 1
