"""Word problems: the final number of an answer against the right one.

Exact, as fractions: 18, 18.0, $18 and 36/2 are one number, 18.01 is another.
"""

import fractions
import re

from ealign.evals.judges.measure import Judge, Measure, scores

KIND = 'gsm8k'
_RUN = re.compile(
  r'([0-9][0-9,]*(?:\.[0-9]+)?|\.[0-9]+)'
  r'(?: ?/ ?([0-9]{1,20})(?![0-9./]))?'
)
_THOUSANDS = re.compile(r'[0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]+)?')
# A sign counts where it is no hyphen and no subtraction between two terms.
_SIGN = re.compile(
  r'(?<![\w)\]}.%])-[ ]?[$\u20ac\u00a3]?[ ]?$|[$\u20ac\u00a3]-$'
)
_LATEX = (
  (re.compile(r'\\[dt]?frac\{(-?[0-9]{1,20})\}\{([0-9]{1,20})\}'), r'\1/\2'),
  (re.compile(r'\{,\}'), ','),
  (re.compile('\u2212'), '-'),
  (re.compile(r'\\(?=[$%])'), ''),
)
_BOXED = re.compile(r'\\boxed\{((?:[^{}\n]|\{[^{}\n]{0,40}\}){1,80})\}')
_SAYS = re.compile(
  r'\banswer\b[*_`"\']{0,4}(?:\s{1,4}(?:is|was|equals|comes to|will be)\b'
  r'|\s{0,4}[:=])',
  re.IGNORECASE,
)
_SENTENCE = re.compile(r'(?:[^.!?\n]|\.(?=[0-9])){0,300}')
_LAST = 20  # sentences that say what the answer is
_DIGITS = 40  # a longer number is none
_MOST = 1 << 16  # characters, of the end of an answer


def numbers(text: str) -> list[fractions.Fraction]:
  """Every number of a text, in its order; digits within a word are none."""
  for pattern, plain in _LATEX:
    text = pattern.sub(plain, text)
  found = []
  for run in _RUN.finditer(text):
    before = text[max(0, run.start() - 5) : run.start()]
    if before[-1:].isalnum() or before[-1:] in ('_', '.'):
      continue
    whole = _THOUSANDS.fullmatch(run[1].rstrip(','))
    parts = [run[1].replace(',', '')] if whole else run[1].split(',')
    values = [_value(part, None) for part in parts[:-1]]
    values += [_value(parts[-1], run[2])]
    if values[0] is not None and _SIGN.search(before):
      values[0] = -values[0]
    found += [value for value in values if value is not None]
  return found


def _value(digits: str, below: str | None) -> fractions.Fraction | None:
  if not digits or len(digits) > _DIGITS or (below and not int(below)):
    return None
  return fractions.Fraction(digits) / int(below or 1)


def final(text: str) -> fractions.Fraction | None:
  """The number that an answer ends with; None if it has none.

  The first after the last '####'; else that in the last `boxed`; else of the
  last sentence that says what the answer is: after its last '=', or its first;
  else the last number of all.
  """
  text = text[-_MOST:]
  if '####' in text:
    after = numbers(text.rpartition('####')[2])
    if after:
      return after[0]
  for inside in reversed(_BOXED.findall(text)):
    if found := numbers(inside):
      return found[-1]
  for said in reversed([*_SAYS.finditer(text)][-_LAST:]):
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
    caveat='greedy, no examples before it: a figure of eight examples is '
    'another one; how the final number is found stands in '
    '`ealign/evals/judges/number.py`',
    short='solved',
    better='higher',
    kind=KIND,
  ),
  Measure(
    'no_number',
    lambda record: scores(record).get('number') is None,
    note='no number: in the answer',
    caveat='counts as not solved; often an answer that was cut off',
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
