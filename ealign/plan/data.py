"""What a run would read: the table of its data, and rows with their masks."""

import numpy as np

from ealign.data.batch import Row

_PERCENTILES = (50, 90, 99, 100)
_LONG = 480  # letters of a stretch that are shown


def table(rows: list[Row], stats: dict, epochs: float) -> dict:
  """The table of tokenized rows; stats are those of the `Loader`.

  lengths are tokens before truncation, by percentile; supervised is the share
  of the tokens that are targets, truncated that of the rows that are cut;
  epochs: how often the run reads them.
  """
  lengths = percentiles([len(row.ids) for row in rows])
  names = ('chats', 'rows', 'tokens', 'lengths', 'supervised', 'truncated')
  facts = stats | {'lengths': lengths}
  return {name: facts[name] for name in names} | {'epochs': round(epochs, 1)}


def percentiles(lengths) -> dict[str, int]:
  """p50, p90, p99 and the maximum; each is the length of some row."""
  found = np.percentile(lengths, _PERCENTILES, method='higher')
  names = [f'p{p}' for p in _PERCENTILES[:-1]] + ['max']
  return dict(zip(names, map(int, found), strict=True))


def stretches(tokenizer, row: Row) -> list[tuple[str, bool]]:
  """The row as text: (stretch, is it a target), special tokens included."""
  mask = np.asarray(row.loss_mask)
  cuts = [0, *(np.flatnonzero(np.diff(mask)) + 1).tolist(), len(mask)]
  return [
    (plain(tokenizer.decode(list(row.ids[a:b]))), bool(mask[a]))
    for a, b in zip(cuts, cuts[1:], strict=False)
  ]


def plain(text: str) -> str:
  """Text for a screen: control characters are spelt out, long ones are cut."""
  shown = ''.join(
    c if c.isprintable() or c == '\n' else repr(c)[1:-1] for c in text
  )
  if len(shown) <= _LONG:
    return shown
  half = _LONG // 2
  return f'{shown[:half]} … {len(shown) - _LONG} … {shown[-half:]}'


def examples(tokenizer, rows: list[Row]) -> list[dict]:
  """Rows from the start, the middle and the end, with their masks as text."""
  places = sorted({round(part * (len(rows) - 1)) for part in (0, 0.5, 1)})
  return [
    {'source': rows[i].source, 'stretches': stretches(tokenizer, rows[i])}
    for i in places
  ]
