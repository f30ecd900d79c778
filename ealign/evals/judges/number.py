"""Word problems: the final number of an answer against the right one.

Exact, as fractions: 18, 18.0, $18 and 36/2 are one number, 18.01 is another.
"""

import fractions
import re

from ealign.evals.judges.measure import Judge, Measure, scores

KIND = 'gsm8k'
# A sign counts where it cannot be a hyphen or a subtraction between two terms.
# Thousands are parted by commas, in LaTeX by {,}.
_NUMBER = re.compile(
  r'(?:(?<![\w)\]}.%])(?P<sign>[-+\u2212])[ ]?)?'
  r'(?:\\?[$\u20ac\u00a3][ ]?)?(?P<inner>(?<=[$\u20ac\u00a3])[-\u2212])?'
  r'(?<![\w.])(?P<whole>[0-9]{1,3}(?:(?:,|\{,\})[0-9]{3})+(?![0-9])|[0-9]+)?'
  r'(?P<part>\.[0-9]+)?'
  r'(?:[ ]?/[ ]?(?P<below>[0-9]+)(?![0-9/.]))?'
)
_FRACTION = re.compile(r'\\[dt]?frac\{(-?[0-9]+)\}\{([0-9]+)\}')
_BOXED = re.compile(r'\\boxed\{((?:[^{}\n]|\{[^{}\n]*\}){1,80})\}')
_SAYS = re.compile(
  r'\banswer\b[*_`"\']*(?:\s+(?:is|was|equals|comes to|would be|will be)\b'
  r'|\s*[:=])',
  re.IGNORECASE,
)
_SENTENCE = re.compile(r'(?:[^.!?\n]|[.](?=[0-9])|(?<=[0-9])[.](?=[0-9]))*')
_DIGITS = 40  # a longer number is none


def numbers(text: str) -> list[fractions.Fraction]:
  """Every number of a text, in its order."""
  text = _FRACTION.sub(r'\1/\2', text)
  found = (_value(match) for match in _NUMBER.finditer(text))
  return [value for value in found if value is not None]


def _value(match) -> fractions.Fraction | None:
  whole, part, below = match['whole'], match['part'], match['below']
  if whole is None and part is None:
    return None
  digits = re.sub('[^0-9]', '', whole or '0')
  if len(digits) + len(part or '') + len(below or '') > _DIGITS:
    return None
  value = fractions.Fraction(digits + (part or ''))
  if below:
    if not int(below):
      return None
    value /= int(below)
  negative = (match['sign'] or '+') != '+' or match['inner']
  return -value if negative else value


def final(text: str) -> fractions.Fraction | None:
  """The number that an answer ends with; None if it has none.

  The first after the last '####'; else that in the last \\boxed{}; else of the
  last sentence that says what the answer is: after its last '=', or its first;
  else the last number of all.
  """
  if '####' in text:
    after = numbers(text.rpartition('####')[2])
    if after:
      return after[0]
  for inside in reversed(_BOXED.findall(text)):
    if found := numbers(inside):
      return found[-1]
  for said in reversed(list(_SAYS.finditer(text))):
    sentence = _SENTENCE.match(text, _start(text, said.end()))[0]
    before, equals, after = sentence.rpartition('=')
    if found := numbers(after) or numbers(before):
      return found[0]
  return (numbers(text) or [None])[-1]


def _start(text, at) -> int:
  """Where what is said begins, which may be on the next line."""
  while at < len(text) and text[at] in ' \t\n:*_':
    at += 1
  return at


def score(question, text: str) -> dict:
  """gsm8k: whether the final number is `target`; number: as it was read."""
  found = final(text)
  right = found is not None and found == fractions.Fraction(question['target'])
  return {KIND: right, 'number': None if found is None else str(found)}


MEASURES = (
  Measure(
    KIND,
    title='Word problems solved, % of answers',
    note='solved: the final number is the right one',
    short='solved',
    better='higher',
    kind=KIND,
  ),
  Measure(
    'no_number',
    lambda record: scores(record).get('number') is None,
    note='no number: in the answer',
    kind=KIND,
    drawn=False,
    brackets='',
  ),
)
JUDGE = Judge(
  score,
  MEASURES,
  kinds={KIND: 'word problems with a number as the answer'},
  note='An answer is right if its final number is.',
)
