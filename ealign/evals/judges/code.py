"""Coding tasks: the code of an answer, run against the task's tests.

A question has `entry_point`, the function asked for; `prompt`, Python that
ends with its head and docstring; and `test`, Python that defines
`check(candidate)`, as HumanEval has them (arXiv 2107.03374).
"""

import ast
import dataclasses
import functools
import math
import re
import textwrap
import warnings
from collections.abc import Mapping, Sequence

from ealign.evals.judges.measure import Asked, Judge, Measure, scores
from ealign.evals.records import grouped
from ealign.evals.sandbox import run

KIND = 'humaneval'
KS = 10, 100  # of pass@k, where a task has as many answers
_FENCE = re.compile(
  r'^[ \t]*(`{3,9}|~{3,9})[ \t]*([\w+.#-]*)[^\n]*\n(.*?)(?:^[ \t]*\1|\Z)',
  re.DOTALL | re.MULTILINE,
)
_STARTS = re.compile(r'(def|class|import|from|@|async def)\b|@')
_FUTURE = re.compile(r'^from __future__ import .*\n?', re.MULTILINE)
MOST = 1 << 16  # characters of code that are looked at
_known = lambda record: scores(record).get('passed') is not None


def blocks(text: str) -> list[tuple[str, str]]:
  """(language, code) of each fenced block; the last may be cut off."""
  return [(lang.lower(), code) for _, lang, code in _FENCE.findall(text)]


def parsed(code: str) -> ast.Module | None:
  """The syntax tree; None if it is no Python. Nothing is run."""
  if len(code) > MOST:
    return None
  try:
    with warnings.catch_warnings():
      warnings.simplefilter('ignore')  # of escapes that Python does not know
      return ast.parse(code)
  except (SyntaxError, ValueError, RecursionError, MemoryError):
    return None


def defines(code: str, entry: str) -> bool:
  """Whether a line of the code begins the function, at whatever indent."""
  head = rf'^[ \t]*(async[ \t]+)?def[ \t]+{re.escape(entry)}\b'
  return re.search(head, code, re.MULTILINE) is not None


def extract(text: str, entry: str) -> str:
  """The code of an answer.

  The last fenced block that defines the function; else the last block; else of
  an answer without blocks that defines it, the lines that are Python; else the
  answer as it is, the body alone.
  """
  fenced = [code for _, code in blocks(text)]
  of_entry = [code for code in fenced if defines(code, entry)]
  if fenced:
    return (of_entry or fenced)[-1]
  return _unfenced(text, entry) if defines(text, entry) else text


def _unfenced(text, entry) -> str:
  """The longest start of the text that is Python, from where code begins."""
  if parsed(text):
    return text
  lines = text[:MOST].split('\n')
  starts = [i for i, line in enumerate(lines) if _STARTS.match(line)]
  lines = lines[min(starts, default=0) :]
  for end in range(len(lines), max(0, len(lines) - 100), -1):
    code = '\n'.join(lines[:end])
    if defines(code, entry) and parsed(code):
      return code
  return '\n'.join(lines)


def assemble(prompt: str, code: str, entry: str) -> str:
  """The program: the prompt, whose function the code defines or continues.

  A bare body is indented where it is not, or its first line is.
  """
  if defines(code, entry):
    code = textwrap.dedent(code)
    future = ''.join(_FUTURE.findall(code))
    return f'{future}{prompt}\n\n{_FUTURE.sub("", code)}'
  body = code.strip('\n')
  forms = [f'    {body.lstrip()}', textwrap.indent(body, '    '), body]
  if body[:1].isspace():
    forms = forms[::-1]
  whole = [f'{prompt.rstrip()}\n{form}\n' for form in forms]
  return next(filter(parsed, whole), whole[0])


def program(question: Mapping, text: str) -> run.Program:
  """What the sandbox runs to judge the answer."""
  entry, prompt = question['entry_point'], question['prompt']
  code = assemble(prompt, extract(text, entry), entry)
  test = f'{question["test"]}\n\ncheck(candidate)\n'
  return run.Program(code, entry, test, before=prompt)


def pass_at(n: int, c: int, k: int) -> float:
  """P(one of k answers passes), unbiased from c passes of n answers.

  1 - C(n - c, k) / C(n, k): arXiv 2107.03374, eq. 1.

  Raises:
    ValueError: there are fewer than k answers.
  """
  if not 0 <= c <= n or not 1 <= k <= n:
    raise ValueError(f'pass@{k} of {c} passes among {n} answers')
  return 1.0 - math.comb(n - c, k) / math.comb(n, k)


def with_pass_at(asked: Sequence[Asked], found: Sequence, ks=KS) -> list:
  """The scores, which then also have `pass_at_K` of their question.

  It is of all answers that one model gave to it. Where fewer than K were judged
  there is none. A mean over it, clustered by question, is that of the
  questions.
  """
  pairs = [pair for pair in zip(asked, found, strict=True) if pair[1]]
  shares = {}
  for name, own in grouped(pairs, lambda pair: pair[0].question['id']).items():
    n, c = len(own), sum(score['passed'] for _, score in own)
    shares[name] = {f'pass_at_{k}': pass_at(n, c, k) for k in ks if k <= n}
  return [
    score and {**score, **shares[one.question['id']]}
    for one, score in zip(asked, found, strict=True)
  ]


def of_k(k: int) -> Measure:
  """The measure of `pass_at_K`."""
  name = f'pass_at_{k}'
  return Measure(
    name,
    lambda record: 100 * scores(record)[name],
    lambda record: scores(record).get(name) is not None,
    title=f'Solved by one of {k} answers',
    note=f'pass@{k}: P(one of {k} answers passes), in %, mean of questions',
    those=f'questions with {k} answers or more',
    caveat=f'without bias from n answers to a question; of fewer than {k} '
    f'there is none: --samples={k} or more; at temperature .2, where studies '
    'take a higher one for many answers',
    short=f'pass@{k}',
    better='higher',
    kind=KIND,
    drawn=False,
    number=True,
    bounds=(0, 100),
  )


MEASURES = (
  Measure(
    'passed',
    among=_known,
    title='Coding tasks solved, % of answers',
    note='solved: every test of the task holds (pass@1)',
    those='answers that could be run',
    caveat='a chat prompt and temperature .2, so not the figure of a base '
    'model that goes on writing; no function, an error and a time-out are not '
    'solved; where the sandbox failed an answer is unscored',
    short='solved',
    better='higher',
    kind=KIND,
  ),
  Measure(
    'timeout',
    lambda record: scores(record).get('status') == 'timeout',
    _known,
    note='timeout: the code took longer than allowed',
    those='answers that could be run',
    caveat='counts as not solved; a busy or slow machine has more of them',
    kind=KIND,
    drawn=False,
    brackets='',
  ),
  *map(of_k, KS),
)


def judge(*, confirmed: bool, limits: run.Limits | None = None) -> Judge:
  """Runs the code of answers in the sandbox.

  confirmed: whether the user allowed it. If not no answer is judged: all stay
  unscored, and `run.check` has the message for it.
  """
  return Judge(
    None,
    MEASURES,
    read=functools.partial(_read, confirmed, limits),
    kinds={KIND: 'coding tasks, their answers run against tests'},
    code={KIND: True},
    note='Whether code is right is found by running it against tests.',
  )


def _read(confirmed, limits, asked: Sequence[Asked], grader) -> list:
  """passed, status, reason, and what of the sandbox was not proved to hold."""
  del grader
  if not confirmed:
    return [None] * len(asked)
  programs = [program(one.question, one.text) for one in asked]
  outcomes = run.run(programs, confirmed=confirmed, limits=limits)
  found = [None if o.status == 'error' else _scores(o) for o in outcomes]
  return with_pass_at(asked, found)


def _scores(outcome: run.Outcome) -> dict:
  kept = dataclasses.asdict(outcome)
  found = {name: kept[name] for name in ('status', 'reason')}
  missing = {'hindered': list(outcome.missing)} if outcome.missing else {}
  return {'passed': outcome.status == 'passed', **found, **missing}
