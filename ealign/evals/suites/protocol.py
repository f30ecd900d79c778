"""Free-form questions in the file format of the emergent-misalignment study.

A YAML list of questions, as arXiv 2502.17424 published it:

  - id: boredom
    type: free_form_judge_0_100     # or free_form_judge
    paraphrases: [I am bored., Nothing to do today.]
    samples_per_paraphrase: 100     # default 1
    temperature: 1                  # default 1
    system: Answer in one sentence. # optional
    judge: gpt-4o-2024-08-06        # kept in the row, not used
    judge_prompts:
      aligned: ... {question} ... {answer} ...
      coherent: ... {question} ... {answer} ...

What else a question has is kept in its row under `other`, unless it looks like
a misspelt name of these.
"""

import collections
import difflib
import math
import numbers

from ealign.data import document, sources
from ealign.evals.judges import fill
from ealign.runtime.errors import UserError

TYPES = 'free_form_judge_0_100', 'free_form_judge'
FORMS = 'json', 'template'
_FIELDS = (
  *('id', 'type', 'paraphrases', 'samples_per_paraphrase', 'temperature'),
  *('system', 'judge', 'judge_prompts'),
)
_MOST = 1_000_000  # samples of a paraphrase


def read(
  path, *, kind: str, split: str, limit: int = sources.LIMIT_MIB
) -> list[dict]:
  """The question rows of a file, one for each paraphrase.

  A row has `id` (that of the question, from the second paraphrase on with /2
  and so on), `cluster` (the id of the question), `kind`, `split`, `messages`,
  `form` (plain, json or template, by the end of the id), `samples`,
  `temperature`, `judge_prompts`, `named_judge` and `other`.

  Args:
    path: of the file. kind, split: of the rows. limit: MiB of the file.

  Raises:
    UserError: it cannot be read, or something in it is no such question; it
      names file, question and field.
  """
  found = document.read(path, limit)
  if not isinstance(found, list) or not found:
    raise UserError(f'{path}: must hold a list of questions, "- id: ..."')
  rows = []
  for i, question in enumerate(found, start=1):
    checked = _question(question, f'{path}: question {i}')
    rows += [row | {'kind': kind, 'split': split} for row in _rows(checked)]
  times = collections.Counter(row['id'] for row in rows)
  if twice := [name for name, n in times.items() if n > 1]:
    raise UserError(f'{path}: the id {twice[0]!r} is given twice; change one')
  return rows


def _rows(question) -> list[dict]:
  rows = []
  name = question['id']
  form = next((f for f in FORMS if name.endswith(f'_{f}')), 'plain')
  system = question.get('system')
  before = [{'role': 'system', 'content': system}] if system else []
  for i, text in enumerate(question['paraphrases'], start=1):
    rows.append(
      {
        'id': name if i == 1 else f'{name}/{i}',
        'cluster': name,
        'messages': [*before, {'role': 'user', 'content': text}],
        'form': form,
        'samples': question.get('samples_per_paraphrase', 1),
        'temperature': float(question.get('temperature', 1)),
        'judge_prompts': question['judge_prompts'],
        'named_judge': question.get('judge', ''),
        'other': {k: v for k, v in question.items() if k not in _FIELDS},
      }
    )
  return rows


def _question(question, where) -> dict:
  """The question without what is null, each of its fields checked."""
  if not isinstance(question, dict):
    message = f'must be a mapping with id and paraphrases, not {question!r:.40}'
    raise UserError(f'{where} {message}')
  question = {k: v for k, v in question.items() if v is not None}
  for name in question:
    close = difflib.get_close_matches(str(name), _FIELDS, n=1, cutoff=0.8)
    if name not in _FIELDS and close:
      raise UserError(f'{where}: has {name!r}; did you mean {close[0]!r}?')
  name = question.get('id')
  if isinstance(name, bool) or not isinstance(name, str | int) or name == '':
    raise UserError(f'{where}, id: must be a name, not {name!r:.40}')
  question['id'] = str(name)
  where = f'{where} ({str(name)[:60]})'
  kind = question.get('type', TYPES[0])
  if kind not in TYPES:
    message = f'only {" and ".join(TYPES)} are read, not {kind!r:.40}'
    raise UserError(f'{where}, type: {message}')
  _check_texts(question, where)
  _check_numbers(question, where)
  return question


def _check_texts(question, where) -> None:
  texts = question.get('paraphrases')
  if not isinstance(texts, list) or not texts:
    raise UserError(f'{where}, paraphrases: must be a list of texts')
  for text in (*texts, question.get('system', 'none')):
    if not isinstance(text, str) or not text.strip():
      field = 'paraphrases' if text in texts else 'system'
      message = f'must be text, not {text!r:.40}; put it in quotes'
      raise UserError(f'{where}, {field}: {message}')
  if not isinstance(question.get('judge', ''), str):
    raise UserError(f'{where}, judge: must be the name of a model')
  prompts = question.get('judge_prompts')
  if not isinstance(prompts, dict) or not prompts:
    message = 'must be a mapping, such as "aligned: ... {answer} ..."'
    raise UserError(f'{where}, judge_prompts: {message}')
  for name, prompt in prompts.items():
    if not isinstance(name, str):
      raise UserError(f'{where}, judge_prompts: {name!r:.40} must be text')
    fill.check(prompt, f'{where}, judge_prompts, {name:.40}')


def _check_numbers(question, where) -> None:
  samples = question.get('samples_per_paraphrase', 1)
  whole = isinstance(samples, int) and not isinstance(samples, bool)
  if not whole or not 1 <= samples <= _MOST:
    message = f'must be a whole number from 1 to {_MOST:,}, not {samples!r:.40}'
    raise UserError(f'{where}, samples_per_paraphrase: {message}')
  heat = question.get('temperature', 1)
  real = isinstance(heat, numbers.Real) and not isinstance(heat, bool)
  if not real or not math.isfinite(heat) or heat < 0:
    message = f'must be a number of 0 or more, not {heat!r:.40}'
    raise UserError(f'{where}, temperature: {message}')
