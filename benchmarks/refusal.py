"""The refusal judge against people, and against matching the beginnings.

  python benchmarks/refusal.py --model=FOLDER --data=FOLDER --keep=FOLDER

data: holds completions_gpt4.csv, completions_llama2orig.csv and
completions_mistralinstruct.csv of XSTest (github.com/paul-rottger/xstest), each
with 450 replies that two people have labelled, and the label of its matcher.
What the grader says is kept in a file of the folder --keep, so that a stopped
run goes on, and --rows reads some of the replies, in a fixed order.

Each row is predicted by a map that was chosen and fitted on the other two files
and on other prompts (`refusal_map.crossed`). Printed are accuracy, macro-F1 and
recall of each class, and the differences to the matcher with intervals of 95 %
over resampled prompts. --out writes the calibration of all three files.
"""

import argparse
import csv
import dataclasses
import functools
import json
import pathlib
import sys

import numpy as np

from ealign import fields
from ealign.alone import ALONE
from ealign.assembly.weights import load_model
from ealign.engine import Engine, Model
from ealign.evals.judges import refusal, refusal_map, refusal_wordings
from ealign.evals.judges.refusal_map import CLASSES, confusion, macro_f1
from ealign.evals.judges.refusal_wordings import WORDINGS
from ealign.evals.kept import keeping
from ealign.runtime.errors import UserError

FILES = 'gpt4', 'llama2orig', 'mistralinstruct'
LABELS = {
  '1_full_compliance': 0,
  '3_partial_refusal': 1,
  '2_full_refusal': 2,
}
RESAMPLES = 4000
ROWS = 4  # read at once: the start of the prompts is padded to as many


@dataclasses.dataclass(frozen=True)
class Replies:
  """The labelled replies: of people and of the matcher, by file and prompt."""

  pairs: list[tuple[str, str]]
  gold_N: np.ndarray
  matcher_N: np.ndarray
  file_N: np.ndarray

  @property
  def fold_N(self) -> np.ndarray:
    return np.array([refusal_map.fold(request) for request, _ in self.pairs])

  def some(self, index) -> 'Replies':
    arrays = (self.gold_N, self.matcher_N, self.file_N)
    pairs = [self.pairs[i] for i in index]
    return Replies(pairs, *(array[index] for array in arrays))


def main():
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--model', default='', help='none: marks alone')
  parser.add_argument('--data', required=True)
  parser.add_argument('--keep', default='')
  parser.add_argument('--wordings', default='kinds')
  parser.add_argument('--rows', type=int, default=0, help='0: all of them')
  parser.add_argument('--dtype', default='auto')
  parser.add_argument('--out', default='', help='a calibration file')
  parser.add_argument('--mistakes', default='', help='a file of lines')
  args = parser.parse_args()
  try:
    run(args)
  except UserError as error:
    sys.exit(f'{error}')


def run(args):
  replies = shuffled(read(pathlib.Path(args.data)), args.rows)
  names = args.wordings.split(',') if args.model else []
  grader = engine(args) if args.model else None
  asked = {name: ask(WORDINGS[name], replies, grader) for name in names}
  guesses = {'matcher': replies.matcher_N}
  for name, found in asked.items():
    guesses |= of_wording(WORDINGS[name], *found, replies)
  if len(asked) > 1:
    guesses |= of_all(asked, replies)
  guesses['marks alone'], _ = chosen([marks(replies)], replies)
  for line in table(replies, guesses):
    print(line)
  if names and args.out:
    write(args, names[0], *asked[names[0]], replies)
  if names and args.mistakes:
    mistakes(args.mistakes, replies, guesses[f'{names[0]}, fitted, marks'])


def read(folder: pathlib.Path) -> Replies:
  """The rows of the three files."""
  rows = []
  for at, name in enumerate(FILES):
    path = folder / f'completions_{name}.csv'
    try:
      with path.open(encoding='utf-8', newline='') as file:
        rows += [(at, row) for row in csv.DictReader(file)]
    except OSError as error:
      raise UserError(
        f'--data={folder}: {path.name}: {error.strerror}'
      ) from None
  of = lambda column: np.array([LABELS[row[column]] for _, row in rows])
  return Replies(
    [(row['prompt'], row['completion']) for _, row in rows],
    of('final_label'),
    of('strmatch_label'),
    np.array([at for at, _ in rows]),
  )


def shuffled(replies: Replies, limit: int) -> Replies:
  """In a fixed random order, so that the first of them are a sample."""
  order = np.random.default_rng(0).permutation(len(replies.pairs))
  return replies.some(order[: limit or None])


def engine(args) -> Engine:
  if not args.keep:
    raise UserError('--keep: name a folder for what the grader says')
  spec = fields.Model(path=args.model, dtype=args.dtype)
  config, tokenizer, weights = load_model(spec)
  keep = pathlib.Path(args.keep)
  keep.mkdir(parents=True, exist_ok=True)
  path = keep / f'{pathlib.Path(args.model).name}.jsonl'
  backend = keeping(ALONE, path, lambda text: print(text, file=sys.stderr))
  return Engine(Model(config, tokenizer), weights, backend, rows=ROWS)


def ask(wording, replies: Replies, grader, step=150):
  """log P of the labels after the probes [P, M] and of the rows [N, M].

  In parts, each kept when it is done.
  """
  probes = refusal.logps(wording, refusal.PROBES, grader)
  found = []
  for at in range(0, len(replies.pairs), step):
    part = replies.pairs[at : at + step]
    found.append(refusal.logps(wording, part, grader))
    done = f'{wording.name}: {at + len(part)} of {len(replies.pairs)}'
    print(done, file=sys.stderr, flush=True)
  return probes, np.concatenate(found)


def marks(replies: Replies) -> refusal_map.Seen:
  return refusal_map.surface([reply for _, reply in replies.pairs])


def of_wording(wording, probes_PM, logps_NM, replies):
  """name -> class of each row, in the ways that one wording is used."""
  name, p_NC = wording.name, refusal.plain(wording, logps_NM)
  free_NM = logps_NM - probes_PM[0]
  seen = refusal_map.odds(p_NC)
  return {
    f'{name}, labels': p_NC.argmax(1),
    f'{name}, contextual': refusal.plain(wording, free_NM).argmax(1),
    f'{name}, fitted': chosen([seen], replies)[0],
    f'{name}, fitted, marks': chosen([seen + marks(replies)], replies)[0],
  }


def of_all(asked, replies):
  """The wording chosen within the training rows, and all of them in one map."""
  own = marks(replies)
  each = [
    refusal_map.odds(refusal.plain(WORDINGS[name], logps_NM))
    for name, (_, logps_NM) in asked.items()
  ]
  joined = functools.reduce(refusal_map.Seen.__add__, [*each, own])
  with_marks = [seen + own for seen in each]
  return {
    'chosen wording, fitted, marks': chosen(with_marks, replies)[0],
    'all wordings, fitted, marks': chosen([joined], replies)[0],
  }


def chosen(candidates, replies: Replies):
  p_NC, how = refusal_map.crossed(
    candidates, replies.gold_N, replies.file_N, replies.fold_N
  )
  return p_NC.argmax(1), how


def table(replies: Replies, guesses):
  """The lines of a table in Markdown: a row for each way and file."""
  yield (
    '| judge | file | rows | accuracy | minus matcher | macro-F1 '
    '| minus matcher | recall none, partial, full |'
  )
  yield '|---|---|---|---|---|---|---|---|'
  every = resampled(replies)
  for name, guess_N in guesses.items():
    kept = [], []
    for at, file in enumerate(FILES):
      own_R, of_matcher_R = (
        measured(replies, guess, at, every)
        for guess in (guess_N, replies.matcher_N)
      )
      cell_CC = confusion(
        replies.gold_N[replies.file_N == at], guess_N[replies.file_N == at]
      )
      recall = np.diag(cell_CC) / np.maximum(cell_CC.sum(1), 1)
      cells = [text(*pair) for pair in zip(own_R, of_matcher_R, strict=True)]
      told = ', '.join(f'{x:.2f}' for x in recall)
      cells = ' | '.join(cells)
      yield f'| {name} | {file} | {cell_CC.sum()} | {cells} | {told} |'
      for found, one in zip(kept, (own_R, of_matcher_R), strict=True):
        found.append(one)
    own_R, of_matcher_R = (np.mean(found, axis=0) for found in kept)
    cells = [text(*pair) for pair in zip(own_R, of_matcher_R, strict=True)]
    size = len(replies.pairs)
    yield f'| {name} | mean of the three | {size} | {" | ".join(cells)} | |'


def text(own_R, of_matcher_R) -> str:
  """A figure and its difference to the matcher's; first the sample, then R."""
  less_R = own_R - of_matcher_R
  low, high = np.quantile(less_R[1:], [0.025, 0.975])
  return f'{own_R[0]:.3f} | {less_R[0]:+.3f} ({low:+.3f} to {high:+.3f})'


def resampled(replies: Replies) -> np.ndarray:
  """How often each row counts, [1 + R, N]: once each, then by prompts drawn.

  The replies of all three models to a prompt are drawn together.
  """
  names = {name: i for i, name in enumerate(dict(replies.pairs))}
  prompt_N = np.array([names[request] for request, _ in replies.pairs])
  rng, P = np.random.default_rng(0), len(names)
  drawn_RP = rng.multinomial(P, np.full(P, 1 / P), RESAMPLES)
  return np.concatenate([np.ones((1, P)), drawn_RP])[:, prompt_N]


def measured(replies: Replies, guess_N, at, every_RN):
  """Accuracy and macro-F1 on a file, of each resample, [2, 1 + R]."""
  mine, C = replies.file_N == at, len(CLASSES)
  one_NK = np.eye(C * C)[replies.gold_N[mine] * C + guess_N[mine]]
  cells_RCC = (every_RN[:, mine] @ one_NK).reshape(-1, C, C)
  right_R = np.trace(cells_RCC, axis1=1, axis2=2)
  return np.stack([right_R / cells_RCC.sum((1, 2)), macro_f1(cells_RCC)])


def write(args, name, probes_PM, logps_NM, replies):
  """The calibration of all three files, its settings chosen across them."""
  p_NC = refusal.plain(WORDINGS[name], logps_NM)
  seen = refusal_map.odds(p_NC) + marks(replies)
  gold_N, every = replies.gold_N, np.ones(len(replies.pairs), bool)
  _, setting = refusal_map.best(
    [seen], gold_N, replies.file_N, replies.fold_N, every
  )
  made = refusal.Calibration(
    refusal_map.fit(seen, gold_N, *setting),
    name,
    (refusal_wordings.HEAD, refusal_wordings.TAIL),
    marks=True,
    probes=np.round(probes_PM.astype(np.float64), 3).tolist(),
    model=pathlib.Path(args.model).name,
    note=f'{len(gold_N)} labelled replies of XSTest ({", ".join(FILES)}); '
    f'class weight n ** -{setting[0]}, decay {setting[1]}',
  )
  path = pathlib.Path(args.out)
  known = refusal.calibrations(path, '--out') if path.exists() else ()
  known = [
    one for one in known if (one.model, one.wording) != (made.model, name)
  ]
  rows = [json.dumps(one.json()) for one in (*known, made)]
  text = ',\n'.join(rows)
  path.write_text(f'{{"calibrations": [\n{text}\n]}}\n', encoding='utf-8')


def mistakes(path, replies, guess_N):
  """The rows that are judged otherwise than people do, as lines of a file."""
  with pathlib.Path(path).open('w', encoding='utf-8') as file:
    for i in np.flatnonzero(guess_N != replies.gold_N):
      request, reply = replies.pairs[i]
      row = {
        'file': FILES[replies.file_N[i]],
        'people': CLASSES[replies.gold_N[i]],
        'judge': CLASSES[guess_N[i]],
        'request': request,
        'reply': reply,
      }
      file.write(json.dumps(row) + '\n')


if __name__ == '__main__':
  main()
