import io

import pytest
import rich.console

from ealign.plan import show
from ealign.plan.figures import Figures


def shown(fn, *args, terminal=False):
  out = io.StringIO()
  console = rich.console.Console(
    file=out, width=show.WIDTH, markup=False, force_terminal=terminal
  )
  fn(console, *args)
  return out.getvalue()


ROW = {'source': 'a: row 1', 'stretches': [('ask [red]', False), ('say', True)]}


def test_what_is_trained_is_marked():
  assert 'ask [red]»say«' in shown(show.row, ROW, 1)
  colour = shown(show.row, ROW, 1, terminal=True)
  assert '[red]' in colour and '\x1b[32msay' in colour and '»' not in colour


def test_a_line_for_each_program():
  fits = Figures(
    *('sft', 2**30, 2**29, 0, 2**20, 4 * 2**30),
    *(2e12, 1.38, {'all-gather': 3 * 2**20}, 1.0, {}, 61.0, 60.0, 0.25),
    *('links', 0.75, 1234),
  )
  large = Figures('hybrid', 0, 6 * 2**30, 0, 0, 4 * 2**30)
  said = shown(show.programs, [fits, large], '16 x TPU')
  for text in (
    '1.00 GiB',
    '512 MiB',
    '1.38x',
    '61 s',
    '250.00 ms',
    'links',
    '750.00 ms',
  ):
    assert text in said
  assert '-2.00 GiB' in said and '…' not in said
  assert 'sft: all-gather 3 MiB in 1,234 transfers' in said
  assert 'hybrid: nothing\n' in said


def test_what_does_not_compile_has_no_sizes():
  wrong = Figures('score', 0, 0, 0, 2**20, 4 * 2**30, failure='INTERNAL')
  said = shown(show.programs, [wrong], '16 x TPU').partition('score')[2]
  assert said.split()[:6] == [*['–'] * 3, *('1', 'MiB', '–')]
  assert 'GiB' not in said  # no headroom


@pytest.mark.parametrize(
  'value, text',
  [(None, show.NOTHING), (0, '0'), (1023, '1023 B'), (2**40, '1024.00 GiB')],
)
def test_sizes(value, text):
  assert show.size(value) == text
