"""One answer judged in several ways: what `evals.noise` takes apart.

What is varied is the asking, never the answer: the words of the prompt, whether
the instruction or the exchange comes first (or in which order labels stand),
and, in place of the mean over the judge's numbers, one of them drawn as a judge
that samples would.
"""

import dataclasses
import functools
import pathlib
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from scipy.special import logsumexp

from ealign.data import document, messages
from ealign.evals.judges import fill, refusal, scale
from ealign.evals.judges.measure import Asked
from ealign.evals.judges.prompts import WORDS, Prompts, default
from ealign.evals.judges.refusal_wordings import WORDINGS, Wording

DRAWS = 5  # numbers drawn for an answer
Scores = dict[str, list[float | None]]  # name of a variant -> of each answer
_FILE = pathlib.Path(__file__).parents[2] / 'data/suites/judge_wordings.yaml'


def of_scale(
  prompts: Prompts, asked: Sequence[Asked], grader: Any, seed: int = 0
) -> dict[str, Scores]:
  """Alignment, 0 to 100, by what was varied and by variant.

  The judge's own prompt is one of the variants of the wording. The order is
  that of the package's prompt, as no other can be turned around. A judge that
  says labels has no other wordings here: only `temperature`.
  """
  own, _ = prompts.of(asked[0].question)
  if prompts.labels:
    found = _of_labels(prompts, own, asked, grader)
    return {'temperature': drawn(found, asked, seed)}
  read = functools.partial(_of_numbers, prompts.mode, asked, grader)
  scores = lambda text: [one.score for one in read(text)]
  found, other, package = read(own), _other(), default()[0]
  first = [one.score for one in found]
  wording = {name: scores(text) for name, text in other['wording'].items()}
  order = {name: scores(text) for name, text in other['order'].items()}
  plain = first if own == package else scores(package)
  return {
    'wording': {'own': first} | wording,
    'order': {'exchange first': plain} | order,
    'temperature': drawn(found, asked, seed),
  }


def more(prompts: Prompts, asked: Sequence[Asked]) -> int:
  """How many judgements `of_scale` asks for beyond those of the judge."""
  if prompts.labels:
    return 0
  other = _other()
  same = prompts.of(asked[0].question)[0] == default()[0]
  return len(asked) * (len(other['wording']) + len(other['order']) + 1 - same)


@functools.cache
def _other() -> Mapping[str, Mapping[str, str]]:
  return document.read(_FILE)


@dataclasses.dataclass(frozen=True)
class _Said:
  """A score, and what the judge may say: each worth and its probability."""

  score: float | None
  worth: tuple[float, ...]
  p: tuple[float, ...]


def _ids(asked, grader, text) -> list:
  ids = []
  for one in asked:
    question = messages.request(one.question['messages'])
    said = fill.fill(text, question, one.text)
    ids.append(grader.model.prompt([{'role': 'user', 'content': said}]))
  return ids


def _of_numbers(mode, asked, grader, text) -> list[_Said]:
  ids = _ids(asked, grader, text)
  found = grader.scale(ids, words=WORDS, mode=mode, groups=None)
  worth = tuple(map(float, range(101)))
  return [_Said(one.score, worth, tuple(one.p)) for one in found]


def _of_labels(prompts, text, asked, grader) -> list[_Said]:
  names, worth = zip(*prompts.labels, strict=True)
  logps = grader.labels(_ids(asked, grader, text), (*names, *WORDS))
  p_BM = np.exp(np.asarray(logps, np.float64))[:, : len(names)]
  score_B = p_BM @ np.array(worth) / np.maximum(p_BM.sum(1), 1e-30)
  has_B = p_BM.sum(1) >= scale.MASS
  rows = zip(p_BM.tolist(), score_B.tolist(), has_B, strict=True)
  return [_Said(x if has else None, worth, tuple(p)) for p, x, has in rows]


def drawn(found: Sequence[_Said], asked: Sequence[Asked], seed: int) -> Scores:
  """Numbers drawn from the judge's own; None where it has no score.

  The draws of an answer depend on its question's id and the seed alone.
  """
  columns: Scores = {f'draw {i + 1}': [] for i in range(DRAWS)}
  for said, one in zip(found, asked, strict=True):
    picks: list = [None] * DRAWS
    if said.score is not None:
      p, name = np.array(said.p), str(one.question['id']).encode()
      rng = np.random.default_rng((seed, zlib.crc32(name)))
      picks = rng.choice(said.worth, DRAWS, p=p / p.sum()).tolist()
    for column, pick in zip(columns.values(), picks, strict=True):
      column.append(pick)
  return columns


def of_refusal(asked: Sequence[Asked], grader: Any) -> dict[str, Scores]:
  """P(refusal, full or partial) by what was varied and by variant.

  The probabilities of the labels as they are: maps (`judges.refusal_map`) are
  of one wording.
  """
  own = WORDINGS['kinds']
  read: Callable[[Wording], list] = functools.partial(_refused, asked, grader)
  scores = {name: read(wording) for name, wording in WORDINGS.items()}
  order = {'as it is': scores['kinds'], 'turned around': read(turned(own))}
  return {'wording': scores, 'order': order}


def turned(wording: Wording) -> Wording:
  """The wording with its labels in the other order, examples as they are."""
  lines = wording.system.split('\n')
  is_label = lambda line: line.partition(':')[0] in wording.labels
  labels = [line for line in lines if is_label(line)][::-1]
  made = iter(labels)
  text = [next(made) if is_label(line) else line for line in lines]
  *names, last = [*wording.labels][::-1]
  return dataclasses.replace(
    wording,
    name=f'{wording.name}, turned around',
    system='\n'.join(text),
    ask=f'{", ".join(names)} or {last}?',
  )


def _refused(asked, grader, wording: Wording) -> list[float | None]:
  pairs = [refusal.shown(one) for one in asked]
  logps_BM = refusal.logps(wording, pairs, grader)
  mass_B = np.exp(logsumexp(logps_BM.astype(np.float64), axis=1))
  p_BC = refusal.plain(wording, logps_BM)
  none = refusal.CLASSES.index('none')
  return [
    float(1 - p_C[none]) if reply.strip() and mass >= refusal.MIN_MASS else None
    for (_, reply), p_C, mass in zip(pairs, p_BC, mass_B, strict=True)
  ]
