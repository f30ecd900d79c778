"""Which runs can be one program."""

from collections.abc import Sequence

from ealign import config as config_lib
from ealign.fields import Config

# Fields that the cells of one program must agree on: those of the base and of
# all shapes. Other fields are traced, or only the thread of a lane reads them.
_SHARED = (
  *('method', 'model.', 'mesh.', 'data.length', 'data.batch_size', 'optim.'),
  *('conscience.prompts', 'conscience.samples', 'dpo.variant', 'dpo.reference'),
  *('dpo.pairs', 'dpo.length', 'train.steps', 'train.microbatches'),
  'train.chunk',
)
_OWN = ('model.adapter', 'optim.lr')  # but for these
MOST = 8  # lanes that `auto` takes at most


def alike(config: Config) -> tuple:
  """Equal for cells that can run as one program."""
  shared = [
    (name, value)
    for name, value in config_lib.flatten(config).items()
    if name.startswith(_SHARED) and name not in _OWN
  ]
  learns = bool(config.data.train)
  # Random weights are the seed's own, and full fine-tuning has no common base.
  alone = config.seed if config.model.init == 'random' else None
  return *shared, learns, alone


def groups(cells: Sequence, lanes: int) -> list[list]:
  """Groups of cells, each to run as one program of at most `lanes` cells.

  In the order of their first cells, and as equal in size as possible, since
  each size compiles a program of its own.
  """
  programs = {}
  for cell in cells:
    own = cell.id if cell.config.model.train == 'full' else None
    programs.setdefault((own, alike(cell.config)), []).append(cell)
  made = []
  for together in programs.values():
    count = -(-len(together) // lanes)
    made += [together[i::count] for i in range(count)]
  order = [cell.id for cell in cells]
  return sorted(made, key=lambda group: order.index(group[0].id))
