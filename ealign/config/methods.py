"""What a method asks of the config beside its own fields."""

from collections.abc import Iterator


def problems(flat) -> Iterator[tuple]:
  """(field, what is wrong) of the method that the flat config names."""
  yield from CHECKS.get(flat['method'], lambda flat: ())(flat)


def _iteralign(flat) -> Iterator[tuple]:
  name, sees = 'iteralign.listed', flat['conscience.revise.sees']
  if flat['iteralign.source'] == 'listed' and not flat[name]:
    what = "iteralign.source='listed' chooses among the rows of a file"
    yield name, f"{what}; name one, or use 'written'"
  if sees not in ('principle', 'prompt'):
    what = "method='iteralign' writes by its principles; use 'principle', or"
    yield 'conscience.revise.sees', f"{what} 'prompt' for a writer without any"
  if sees == 'principle' and flat['conscience.revise.system'][:4] == 'own:':
    what = "would stand in the place of the principles; use ''"
    yield 'conscience.revise.system', what
  name, source = 'iteralign.proposer', flat['iteralign.source']
  if flat[name].startswith('openai:') and source == 'listed':
    what = "a server gives no log-probabilities of candidates; use 'written'"
    yield 'iteralign.source', what
  for name in ('iteralign.judged_by', 'iteralign.proposer'):
    if flat[name] == 'openai:':
      yield name, "names no model; write 'openai:<name>'"
  name = 'iteralign.judged_by'
  if flat[name] and not flat[name].startswith('openai:'):
    what = "must be '' or 'openai:<name>'; others are conscience.review.by"
    yield name, what
  held = flat['conscience.held_out']
  if flat['iteralign.gate'] > held:
    yield 'iteralign.gate', f'must be at most conscience.held_out={held}'


CHECKS = {'iteralign': _iteralign}
