"""The plan on the screen; everything that came from a file is plain text."""

import os
import sys

import rich.box
import rich.console
import rich.table
import rich.text

from ealign.plan.figures import Figures
from ealign.runtime import display
from ealign.runtime.errors import visible

WIDTH = 140  # columns
NOTHING = '–'


def console() -> rich.console.Console:
  """A console as wide as the terminal, or as the table where there is none.

  A notebook gets text as well: rich would make an output of every line.
  """
  wide = None if sys.stdout.isatty() or 'COLUMNS' in os.environ else WIDTH
  return rich.console.Console(
    width=wide,
    markup=False,
    highlight=False,
    emoji=False,
    force_jupyter=False,
  )


def gib(size: float | None) -> str:
  return NOTHING if size is None else f'{size / 2**30:.2f}'


def size(value: float | None) -> str:
  """Bytes for people."""
  if value is None:
    return NOTHING
  if value < 1:
    return '0'
  for unit in ('B', 'KiB', 'MiB'):
    if value < 1024:
      return f'{value:.0f} {unit}'
    value /= 1024
  return f'{value:.2f} GiB' if value < 10 else f'{value:.1f} GiB'


def percent(share: float | None) -> str:
  return NOTHING if share is None else f'{100 * share:.1f} %'


def seconds(value: float | None) -> str:
  if value is None:
    return NOTHING
  return f'{value:.2f} s' if value >= 0.9995 else f'{1000 * value:.3g} ms'


def row(console, example: dict, number: int) -> None:
  """One row of the data: what is trained in green, or between » and «."""
  text = rich.text.Text()
  text.append(f'row {number} ({visible(example["source"])})\n', 'bold')
  for stretch, trained in example['stretches']:
    if not console.is_terminal:
      stretch = f'»{stretch}«' if trained else stretch
    text.append(visible(stretch), 'green' if trained else 'dim')
  console.print(text, soft_wrap=True)
  console.print()


def pairs(console, title: str, found: dict) -> None:
  """Names and values, one a line."""
  console.print(rich.text.Text(title, 'bold'))
  wide = max((len(name) for name in found), default=0)
  for name, value in found.items():
    console.print(rich.text.Text(f'  {name:<{wide}}  {value}'), soft_wrap=True)
  console.print()


def config(console, found: dict) -> None:
  pairs(console, 'config (fields that are not the default)', found)


def suites(console, found: dict[str, float] | None) -> dict | None:
  """What suites take, by program; nothing where that is not known."""
  if not found:
    return found
  told = found | {'in all': sum(found.values())}
  title = 'all questions of the suites, if each answer has all its tokens '
  title += '(estimates, from the peaks of the chips)'
  clock = lambda x: display.clock(x) if x >= 60 else seconds(x)
  pairs(console, title, {name: clock(value) for name, value in told.items()})
  return told


def bills(console, found: dict, steps: int) -> None:
  """The whole run by case: a `bill.Bill` of each; {}: nothing is known."""
  if not found:
    console.print(
      'how long the run takes is not known for these devices: its first steps '
      'tell, with the time left; for a TPU a plan with --topology=v5e:4x4 '
      'estimates it\n',
      soft_wrap=True,
    )
    return
  names = {'expected': 'expected', 'worst': 'at worst'}
  told = {}
  for name, one in found.items():
    if name in names:
      money = '' if one.dollars is None else f', {one.dollars:,.2f} dollars'
      hours = f'{one.chip_hours:,.3g} chip-hours{money}'
      told[names[name]] = f'{display.clock(one.seconds)}, {hours}'
  one = next(iter(found.values()))
  more = (
    '' if one.price is not None else '; --chip_price=... says what it costs'
  )
  title = f'the whole run, {steps:,} steps on {one.chips:g} chips (estimates, '
  title += 'without loading, compiling, checkpoints and eval.questions)'
  pairs(console, title + more, told)


def costs(console, cases: dict) -> None:
  """What the conscience costs of a step: a column a case, a line a part."""
  heads = {
    'expected': 'expected',
    'worst': 'at worst',
    'expected_slow': 'expected, 10 us',
    'worst_slow': 'at worst, 10 us',
  }
  lines = {
    'an update without pairs': lambda c: seconds(c.sft),
    'pairs, of each step': lambda c: seconds(c.pairs),
    'reflections, of each step': lambda c: seconds(c.reflection / c.every),
    'a step': lambda c: seconds(c.step),
    'times an update without pairs': lambda c: f'{c.step / c.sft:.2f}x',
    'share of the conscience': lambda c: percent(c.share),
    'a reflection': lambda c: seconds(c.reflection),
    'before the first step': lambda c: seconds(c.calibration),
  }
  table = rich.table.Table(
    title='estimates, from the peaks of the chips; 1 us a transfer, and 10',
    title_justify='left',
    box=rich.box.SIMPLE_HEAD,
    padding=0,
  )
  table.add_column('', no_wrap=True)
  for name in cases:
    table.add_column(heads[name], justify='right', no_wrap=True)
  for name, of in lines.items():
    table.add_row(name, *map(of, cases.values()))
  console.print(table)


def levers(console, cases: dict, found: list) -> None:
  """What would save most of a step, if anything does."""
  now = cases['expected'].step, cases['worst'].step
  saving = [lever for lever in found if lever[1].step < 0.98 * now[0]]
  if not saving:
    return
  of = lambda fields: ' '.join(f'{k}={v}' for k, v in fields.items())
  told = {
    of(fields): f'{seconds(few.step)}, {seconds(most.step)}'
    for fields, few, most in saving
  }
  title = f'instead of {seconds(now[0])}, at worst {seconds(now[1])}, a step '
  title += 'would take (docs/speed.md says what it costs in alignment)'
  pairs(console, title, told)


def programs(console, found: list[Figures], devices: str) -> None:
  """The table of the programs, one line each."""
  table = rich.table.Table(
    title=f'of one chip; {devices}',
    title_justify='left',
    box=rich.box.SIMPLE_HEAD,
    padding=0,
  )
  table.add_column('program', no_wrap=True)
  for name in (
    *('args', 'temps', 'output', 'beside', 'in all', 'left'),
    *('TFLOP', 'of model', 'compiled', 'estimate', 'by', 'at 10 us'),
  ):
    table.add_column(name, justify='right', no_wrap=True)
  for figures in found:
    table.add_row(*map(rich.text.Text, _cells(figures)))
  console.print(table)
  console.print(
    'of model: FLOPs over what the model needs; beside: what lies there '
    'meanwhile (docs/scale.md)',
    soft_wrap=True,
  )
  console.print('sent to other chips, bytes a chip:')
  for figures in found:
    kinds = (figures.collectives or {}).items()
    sent = ', '.join(f'{kind} {size(n)}' for kind, n in sorted(kinds))
    often = f' in {figures.transfers:,} transfers' if sent else ''
    line = f'  {figures.title}: {sent or "nothing"}{often}'
    console.print(rich.text.Text(line), soft_wrap=True)
  console.print()


def _cells(f: Figures) -> list[str]:
  known = f.flops is not None
  parts = (f.arguments, f.temporaries, f.output)
  return [
    f.title,
    *(size(part if known else None) for part in parts),
    size(f.beside),
    size(None if f.failure else f.bytes),
    f'-{size(f.excess)}' if f.excess else size(f.headroom),
    f'{f.flops / 1e12:.3g}' if known else NOTHING,
    f'{f.ratio:.2f}x' if known else NOTHING,
    f'{f.seconds_compile:.0f} s',
    seconds(f.seconds),
    f.bound,
    seconds(f.slow),
  ]
