import io

import pytest
import rich.console

from ealign.plan import show
from ealign.plan.costs import Cost
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
    '250 ms',
    'links',
    '750 ms',
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
  [(None, show.NOTHING), (0, '0'), (1023, '1023 B'), (2**40, '1024.0 GiB')],
)
def test_sizes(value, text):
  assert show.size(value) == text


def test_seconds():
  values = (0.00123, 0.9994, 0.9996, 12.3)
  told = ['1.23 ms', '999 ms', '1.00 s', '12.30 s']
  assert [*map(show.seconds, values)] == told


def test_what_the_conscience_costs_and_what_would_save():
  of = lambda pairs, reflection: Cost(0.125, pairs, reflection, 40, 3.5)
  cases = {
    'expected': of(0.025, 3.5),
    'worst': of(0.25, 7.0),
    'expected_slow': of(0.026, 4.5),
    'worst_slow': of(0.26, 8.0),
  }
  said = shown(show.costs, cases)
  assert '…' not in said
  step = next(x for x in said.splitlines() if x.startswith(' a step'))
  assert step.split()[2:] == [
    *('238', 'ms', '550', 'ms', '264', 'ms', '585', 'ms')
  ]
  assert '1.90x' in said and '3.50 s' in said
  levers = [
    ({'sample.max_new_tokens': 128}, of(0.025, 1.0), of(0.25, 2.0)),
    ({'dpo.length': 512}, of(0.0249, 3.5), of(0.06, 7.0)),  # saves nothing
  ]
  said = shown(show.levers, cases, levers)
  assert 'instead of 238 ms, at worst 550 ms' in said
  assert 'sample.max_new_tokens=128  175 ms, 425 ms' in said
  assert 'dpo.length' not in said
  assert not shown(show.levers, cases, levers[1:])


def test_what_suites_take():
  assert not shown(show.suites, None)
  lines = shown(show.suites, {'ask': 0.014, 'answer': 3600.0}).split('\n')
  assert '  ask     14 ms' in lines and '  answer  1h00m' in lines
  assert '  in all  1h00m' in lines
