"""Answers and their scores as logs of Inspect, which its own tools open.

One file with the suffix .eval for each model and suite:

  inspect view --log-dir FOLDER
  inspect_ai.analysis.samples_df(FOLDER), evals_df(FOLDER)

It is a zip archive of JSON: header.json has all but the answers, which are in
samples/ID_epoch_N.json, and summaries.json has them in short. It is written
with the standard library; the package `inspect-ai` is needed to read it alone.

An answer is a sample: its question is the id, its number the epoch. Each score
of the judge that is a number, a word or a truth value is a score there of the
same name; the rest is among the metadata. Each measure has the value `mean`
(a share is that of ones), with `stderr`, `low` and `high` from the interval
that is clustered by prompt. Its name carries the kind of question, where that
is not the suite's name, and the split.
"""

import collections
import datetime
import io
import json
import re
import zipfile
from collections.abc import Iterable, Mapping
from typing import Any

from etils import epath

import ealign
from ealign.evals.judges.measure import Judge, scores
from ealign.report import foreign
from ealign.runtime import atomic

_SCORER = 'ealign'
_STOPS = {'stop': 'stop', 'length': 'max_tokens'}
_ROLES = ('system', 'user', 'assistant', 'tool')
# Inspect's name of a setting, and ours.
_GENERATE = {'max_tokens': 'max_new_tokens'}
_GENERATE |= {name: name for name in ('temperature', 'top_p', 'top_k', 'seed')}
_SHORT = 1000  # characters of a text in summaries.json
# Letters, digits and what stands in the ids of public questions.
_PART = r'[A-Za-z0-9_][A-Za-z0-9_ .,=+@-]*'
_PLAIN_ID = re.compile(f'{_PART}(/{_PART})*')


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
  """Writes the log of one model's answers to the questions of a suite.

  The same arguments give the same bytes under the same name; a log with another
  `created` and else the same name, model, suite, judge and settings goes.

  Args:
    folder: of the logs, on a disk or in a bucket.
    name: of the model or cell, as its column of a table has it.
    records: of `ealign.evals.records`; their final answers are written.
    judge: gave the scores; its measures are counted.
    suite: name of the questions.
    model: what else is known of the model.
    created: when the evaluation was; part of the file's name.
    settings: of the sampling and of the judge.

  Returns:
    The path of the log; none without answers.
  """
  found = foreign.answers(records)
  if not found:
    return []
  key = foreign.digest(name, suite, model, settings, judge.name)
  created = created.astimezone(datetime.UTC).replace(microsecond=0)
  ids = _ids(found)
  spec = {
    **{'eval_id': key, 'run_id': key, 'task_id': key},
    **{'created': created.isoformat(), 'task': suite, 'model': name},
    **{'dataset': _dataset(suite, ids), 'model_args': model},
    'model_generate_config': _generate(settings),
    'config': {'epochs': max(map(_epoch, found))},
    'packages': {'ealign': ealign.__version__},
    'metadata': {'judge': judge.name, 'settings': settings},
  }
  results = _results(found, judge, suite)
  header = _header(spec, len(found), results, _usage(found))
  pairs = zip(found, ids, strict=True)
  samples = (_sample(record, id, name, judge) for record, id in pairs)
  content = _archive(header, samples, created)
  time = spec['created'].replace(':', '-').replace('+', '-')
  # '_' stands between the parts of the file's name.
  of = f'{re.sub("[^A-Za-z0-9]+", "-", suite)}_{key}.eval'
  return [_alone(epath.Path(folder), f'{time}_{of}', f'*_{of}', content)]


def _alone(folder, name: str, others: str, content: bytes) -> epath.Path:
  """Writes a file, in place of those that match `others`."""
  path = folder / name
  atomic.write(path, content)
  for old in folder.glob(others):
    if old.name != name:
      old.unlink()
  return path


def _ids(records) -> list[str]:
  """The id of each record's question, which is part of a member's name.

  A question's own id, unless that could be taken for another path or two
  questions have it; then it is changed and a digest tells them apart.
  """
  keys = [
    (str(r['question']), str(r['kind']), str(r.get('split') or ''))
    for r in records
  ]
  times = collections.Counter(question for question, *_ in set(keys))
  return [_id(key, alone=times[key[0]] == 1) for key in keys]


def _id(key, *, alone: bool) -> str:
  question = key[0]
  if alone and len(question) <= 120 and _PLAIN_ID.fullmatch(question):
    return question
  start = foreign.safe(question).partition('~')[0]
  return f'{start}~{foreign.digest(*key, size=8)}'


def _sample(record, question: str, name: str, judge: Judge) -> dict[str, Any]:
  """An answer as Inspect has it."""
  messages = [_message(m) for m in record['messages']]
  reply = {'role': 'assistant', 'content': foreign.plain(record['text'])}
  reply |= {'source': 'generate', 'model': name}
  choice = {'message': reply}
  choice['stop_reason'] = _STOPS.get(record.get('stop'), 'unknown')
  output = {'model': name, 'choices': [choice], 'completion': reply['content']}
  output['usage'] = _usage([record])
  found = {} if not scores(record) else _scores(record, judge)
  sample = {
    'id': question,
    'epoch': _epoch(record),
    'input': messages,
    'target': '',
    'messages': [*messages, reply],
    'output': output,
    'model_usage': {name: output['usage']},
    'scores': found,
    'metadata': _metadata(record, found),
  }
  return foreign.plain(sample)


def _usage(records) -> dict[str, int]:
  """The tokens of the answers; those of the prompts are not recorded."""
  count = sum(len(record.get('ids') or ()) for record in records)
  return {'input_tokens': 0, 'output_tokens': count, 'total_tokens': count}


def _message(message: Mapping) -> dict[str, str]:
  role = message.get('role')
  content = foreign.text_of(message.get('content') or '')
  return {'role': role if role in _ROLES else 'user', 'content': content}


def _scores(record, judge: Judge) -> dict[str, dict]:
  """The judge's scores that are one value each; null is not among them."""
  values = foreign.plain(scores(record))
  single = {k: v for k, v in values.items() if isinstance(v, str | int | float)}
  word, _ = judge.outcome(record)
  return {k: {'value': v, 'explanation': word} for k, v in single.items()}


def _metadata(record, found) -> dict[str, Any]:
  """What Inspect has no place for."""
  names = ('question', 'kind', 'split', 'cluster', 'sample', 'run', 'arm')
  names += ('seed', 'step', 'logp', 'options', 'verdict')
  known = {n: record[n] for n in names if record.get(n) is not None}
  more = {k: v for k, v in scores(record).items() if str(k) not in found}
  known |= {'scores': more} if more else {}
  return known | ({} if scores(record) else {'unscored': True})


def _dataset(suite: str, ids) -> dict[str, Any]:
  unique = list(dict.fromkeys(ids))
  return {'name': suite, 'samples': len(unique), 'sample_ids': unique}


def _epoch(record) -> int:
  return int(record.get('sample') or 0) + 1


def _header(spec, count: int, results, usage) -> dict[str, Any]:
  """All of a log but its samples."""
  # Without a start the viewer shows a duration of NaN days.
  stats = dict.fromkeys(('started_at', 'completed_at'), spec['created'])
  stats['model_usage'] = {spec['model']: usage}
  numbers = {'total_samples': count, 'completed_samples': count}
  return foreign.plain(
    {
      'version': 2,
      'status': 'success',
      'eval': spec,
      'plan': {},
      'results': numbers | {'scores': results},
      'stats': stats,
    }
  )


def _generate(settings: Mapping) -> dict[str, float]:
  found = {name: settings.get(ours) for name, ours in _GENERATE.items()}
  number = lambda x: isinstance(x, int | float) and not isinstance(x, bool)
  return {name: x for name, x in found.items() if number(x)}


def _results(records, judge: Judge, suite: str) -> list[dict]:
  """The measures, each as a score with its metrics."""
  result = []
  for f in foreign.figures(records, judge):
    kind = f.kind if f.kind != suite else ''
    values = {'mean': f.value, 'stderr': f.stderr, 'low': f.low, 'high': f.high}
    known = {k: v for k, v in values.items() if v is not None}
    score = {
      'name': '.'.join(filter(None, (f.measure.name, kind, f.split))),
      'scorer': _SCORER,
      'scored_samples': f.n,
      'unscored_samples': f.unscored,
      'metrics': {k: {'name': k, 'value': v} for k, v in known.items()},
      'metadata': {'title': f.measure.title, 'better': f.measure.better},
    }
    result.append(score)
  return result


def _archive(header, samples: Iterable[dict], created) -> bytes:
  """The zip file; its members are dated by the evaluation, not by now."""
  date = max(created.timetuple()[:6], (1980, 1, 1, 0, 0, 0))
  content = io.BytesIO()
  with zipfile.ZipFile(content, 'w', zipfile.ZIP_DEFLATED) as archive:

    def add(name, value):
      info = zipfile.ZipInfo(name, date)
      info.compress_type = zipfile.ZIP_DEFLATED
      info.external_attr = 0o644 << 16
      archive.writestr(info, json.dumps(value, allow_nan=False))

    start = {name: header[name] for name in ('version', 'eval', 'plan')}
    add('_journal/start.json', start)
    summaries, names = [], set()
    for sample in samples:
      name = f'samples/{sample["id"]}_epoch_{sample["epoch"]}.json'
      if name in names:
        raise ValueError(f'{name}: of two answers')
      names.add(name)
      add(name, sample)
      summaries.append(_summary(sample))
    add('summaries.json', summaries)
    add('header.json', header)
  return content.getvalue()


def _summary(sample) -> dict[str, Any]:
  """What a list of samples shows, without long texts."""
  cut = lambda x: x[:_SHORT] if isinstance(x, str) else x
  values = sample['metadata'].items()
  return {
    'id': sample['id'],
    'epoch': sample['epoch'],
    'input': [{k: cut(x) for k, x in m.items()} for m in sample['input']],
    'target': '',
    'metadata': {
      k: cut(x) for k, x in values if isinstance(x, str | int | float)
    },
    'scores': {
      name: score | {'value': cut(score['value'])}
      for name, score in sample['scores'].items()
    },
    'model_usage': sample['model_usage'],
    'completed': True,
    'message_count': len(sample['messages']),
  }
