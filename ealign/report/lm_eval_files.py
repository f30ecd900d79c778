"""Results and answers as the evaluation harness lm-eval writes them.

FOLDER/lm_eval/SUITE/MODEL/ holds results_TIME.json and, of each task,
samples_TASK_TIME.jsonl, so that scripts that gather such files find these. A
measure is there as 'NAME,none' and 'NAME_stderr,none': 'none' is the filter,
and ealign has none.

A number under a task's public name is of the same questions and metric. It is
not of the harness's prompt: ealign asks without examples, as a chat, and
samples as `settings` say.
"""

import datetime
import re
from collections.abc import Iterable, Mapping
from typing import Any

from etils import epath

import ealign
from ealign.evals.judges.measure import Judge
from ealign.evals.records import grouped
from ealign.report import foreign
from ealign.runtime import atomic

# (kind of question, measure) -> what the harness calls the task and the metric,
# and its unit in that of the measure.
FIELD = {
  ('humaneval', 'passed'): ('humaneval', 'pass@1', 1),
  ('humaneval', 'pass_at_10'): ('humaneval', 'pass@10', 100),
  ('humaneval', 'pass_at_100'): ('humaneval', 'pass@100', 100),
  ('gsm8k', 'gsm8k'): ('gsm8k', 'exact_match', 1),
  ('truthful_choice', 'mc1'): ('truthfulqa_mc1', 'acc', 1),
  ('truthful_choice', 'mc2'): ('truthfulqa_mc2', 'acc', 100),
}


def write(
  folder: Any,
  name: str,
  records: Iterable[Mapping],
  judge: Judge,
  *,
  suite: str,
  model: Mapping,
  created: datetime.datetime,
  settings: Mapping,
) -> list[epath.Path]:
  """Writes the results and the answers of one model to a suite.

  Arguments as of `inspect_logs.write`. Files of another `created` stay, as the
  harness leaves them: its readers take the newest.

  Returns:
    The path of the results, then those of the samples; none without answers.
  """
  records = foreign.answers(records)
  if not records:
    return []
  tasks = _tasks(records, judge, suite)
  time = created.astimezone(datetime.UTC).replace(tzinfo=None)
  time = time.isoformat(timespec='microseconds').replace(':', '-')
  folder = epath.Path(folder) / 'lm_eval' / foreign.safe(suite)
  folder /= foreign.safe(name)
  rows = {task: _samples(*of, settings) for task, of in tasks.items()}
  results = _results(tasks, rows) | {
    'config': {**settings, 'model': 'ealign', 'model_args': model},
    **{'date': created.timestamp(), 'ealign_version': ealign.__version__},
    **{'model_name': name, 'model_name_sanitized': folder.name},
    **{'model_source': 'ealign', 'judge': judge.name},
  }
  paths = {folder / f'results_{time}.json': foreign.dumps(results, indent=2)}
  for task, lines in rows.items():
    content = ''.join(f'{foreign.dumps(line)}\n' for line in lines)
    paths[folder / f'samples_{task}_{time}.jsonl'] = content
  for path, content in paths.items():
    atomic.write(path, content)
  return list(paths)


def _tasks(records, judge: Judge, suite: str) -> dict[str, tuple]:
  """Task -> the answers to its questions, and metric -> Figure and unit."""
  found = {}
  key = lambda record: (str(record['kind']), str(record.get('split') or ''))
  groups = grouped(records, key)
  for figure in foreign.figures(records, judge):
    place = figure.kind, figure.split
    names = 'ealign', suite, figure.kind, figure.split
    own = '_'.join(filter(None, dict.fromkeys(names)))
    field = FIELD.get((figure.kind, figure.measure.name))
    task, metric, unit = field or (own, figure.measure.name, 1)
    task = re.sub(r'\W', '_', task, flags=re.ASCII)
    # Two splits of the questions are two tasks.
    if task in found and found[task][0] is not groups[place]:
      task = f'{task}_{foreign.digest(place, size=8)}'
    found.setdefault(task, (groups[place], {}))[1][metric] = figure, unit
  return found


def _results(tasks, rows) -> dict[str, dict]:
  """The sections of a results file, each with what it says of every task."""
  found = {}
  for task, (_, figures) in tasks.items():
    for section, value in _sections(task, figures, rows[task]).items():
      found.setdefault(section, {})[task] = value
  return found


def _sections(task: str, figures, lines) -> dict[str, Any]:
  """Section -> what stands there of a task."""
  values = {'alias': task, 'sample_len': len(lines)}
  for metric, (figure, unit) in figures.items():
    error = 'N/A' if figure.stderr is None else figure.stderr / unit
    values[f'{metric},none'] = figure.value / unit
    values[f'{metric}_stderr,none'] = error
  higher = {m: f.measure.better == 'higher' for m, (f, _) in figures.items()}
  one, _ = next(iter(figures.values()))
  config = {
    'task': task,
    'num_fewshot': 0,
    'repeats': max(len(line['resps'][0]) for line in lines),
    'metric_list': [
      {'metric': metric, 'higher_is_better': x} for metric, x in higher.items()
    ],
    'metadata': {'kind': one.kind, 'split': one.split},
  }
  return {
    'results': values,
    'group_subtasks': [],
    'configs': config,
    'versions': ealign.__version__,
    'n-shot': 0,
    'higher_is_better': higher,
    'n-samples': {'original': len(lines), 'effective': len(lines)},
    'unscored': one.unscored,
  }


def _samples(records, figures, settings) -> list[dict]:
  """One line a question, with all answers to it and the mean of each metric."""
  by_question = grouped(records, lambda record: str(record['question']))
  return [
    _line(number, question, group, figures, settings)
    for number, (question, group) in enumerate(by_question.items())
  ]


def _line(number, question, group, figures, settings) -> dict[str, Any]:
  first = group[0]
  names = 'kind', 'split', 'cluster', 'messages'
  doc = {'question_id': question, **{n: first.get(n) for n in names}}
  texts = [record['text'] for record in group]
  prompt = foreign.dumps(first['messages'])
  values = {}
  for metric, (figure, unit) in figures.items():
    measure = figure.measure
    count = float if measure.number else bool
    numbers = [count(measure.of(r)) for r in measure.known(group)]
    if numbers:
      values[metric] = sum(numbers) / len(numbers) / unit
  return values | {
    'doc_id': number,
    'doc': doc,
    'target': '',
    'arguments': {'gen_args_0': {'arg_0': prompt, 'arg_1': dict(settings)}},
    'resps': [texts],
    'filtered_resps': [texts],
    'filter': 'none',
    'metrics': list(values),
    'doc_hash': foreign.digest(doc, size=64),
    'prompt_hash': foreign.digest(prompt, size=64),
    'target_hash': foreign.digest('', size=64),
    'scores': [record.get('scores') for record in group],
    'options': [record.get('options') for record in group],
  }
