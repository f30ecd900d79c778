"""Puts the page together: what the template is given, and the two files.

Answers come from a model and are hostile: every text goes through the
template's escaping, and nothing here makes markup.
"""

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2

from ealign.conscience.framings import FRAMINGS
from ealign.evals import counts, records, table
from ealign.report import excerpts, figures, summary, training
from ealign.report import runs as runs_lib
from ealign.report.runs import Run
from ealign.runtime import atomic

TITLE = 'Fine-tuning with a conscience'
_BINS = 20  # points of the flagged curve over reflections
_SLOTS = 7  # colours beside the grey of the base


def write(workdir: Any) -> pathlib.Path:
  """Writes report.html and report.md into a work folder.

  Returns:
    The path of report.html.

  Raises:
    UserError: no run there, or a file that cannot be read.
  """
  workdir = pathlib.Path(workdir)
  content = collect(runs_lib.read(workdir))
  save(workdir / 'report.md', to_markdown(content))
  save(workdir / 'report.html', to_html(content))
  return workdir / 'report.html'


def save(path: pathlib.Path, text: str) -> None:
  """Writes a page at once.

  A lone surrogate of a model cannot be written as UTF-8 and becomes '?'.
  """
  atomic.write(path, text.encode('utf-8', 'replace'))


def collect(runs: Sequence[Run]) -> dict[str, Any]:
  """Everything on the page, as plain values without markup."""
  answers = [record for run in runs for record in run.answers]
  accuracy = {
    run.name: counts.last_metric(run.metrics, 'eval/mean_token_accuracy')
    for run in runs
  }
  rows = counts.rows(answers, accuracy)
  kind = counts.headline_kind(rows)
  slots = _slots(runs)
  return {
    'title': TITLE,
    'summary': summary.sentences(runs, rows),
    'arms': [
      (run.name, slots[run.name], summary.describe(run)) for run in runs
    ],
    'slots': slots,
    'method': _method(runs),
    'rows': rows,
    'blocks': [*table.blocks(rows), *training.blocks(runs)],
    'forests': _forests(rows, kind, slots),
    'curves': _curves(answers, kind, slots),
    'questions': excerpts.questions(answers, kind),
    'work': [
      (
        run.name,
        excerpts.reflected(run.answers),
        excerpts.examples(run.answers),
      )
      for run in runs
      if any(record['phase'] == 'reflect' for record in run.answers)
    ],
    'settings': _compare({run.name: run.config for run in runs}),
    'info': _compare({run.name: run.info for run in runs}),
    'configs': [(run.name, _listing(run.config)) for run in runs if run.config],
    'problems': _problems(runs, rows),
  }


def _slots(runs) -> dict[str, int]:
  """A colour and a mark for each arm; 0, the grey one, is for the base."""
  slots, used = {}, 0
  for run in runs:
    if summary.role(run) == 'base' and 0 not in slots.values():
      slots[run.name] = 0
    else:
      slots[run.name] = used % _SLOTS + 1
      used += 1
  return slots


def _method(runs) -> dict | None:
  """The settings of the first arm with a conscience, for the explanation."""
  for run in runs:
    if summary.role(run) in ('conscience', 'recovery', 'other'):
      get = run.config.get
      framing = FRAMINGS.get(get('conscience.framing'))
      return {
        'task': summary.task(run),
        'every': get('conscience.every'),
        'prompts': get('conscience.prompts'),
        'pool': 'sft' if get('pool.paths') == ['sft'] else 'pool',
        'frozen': get('conscience.review.by') != 'policy',
        'second': (get('conscience.review.by') or '').startswith('other:'),
        'threshold': get('conscience.threshold'),
        'lam': get('dpo.lam'),
        'judge': get('eval.judge'),
        'question': framing.question if framing else None,
        'flag': framing.flag[0] if framing else 'Unethical',
      }
  return None


def _forests(rows, kind, slots) -> list[tuple[str, dict]]:
  panels = (
    ('Misaligned, % of coherent answers', kind, 'misaligned'),
    ('Insecure, % of the code', 'code', 'insecure'),
  )
  made = []
  for title, of, name in panels:
    found = counts.headline(rows, of)
    lines = [
      (arm, slots[arm], row[name])
      for arm, row in found.items()
      if row[name] and row[name].total
    ]
    if lines:
      made.append((title, figures.forest(lines)))
  return made


# ---------------------------------------------------------------- the curves


def _curves(answers, kind, slots) -> list[tuple[str, dict]]:
  """Panels of shares over steps; one without two points falls away."""
  held_out = _during(answers)
  of_kind = [r for r in held_out if r['kind'] == kind and r.get('scores')]
  coherent = [r for r in of_kind if r['scores'].get('coherent')]
  code = [r for r in held_out if r['kind'] == 'code' and r.get('scores')]
  judged = [r for r in held_out if r['kind'] == kind and counts.has_verdict(r)]
  seen = [r for r in answers if r['phase'] == 'reflect']
  seen = _binned([r for r in seen if counts.has_verdict(r)])
  flagged = lambda record: record['verdict']['flagged']
  panels = (
    (
      'Misaligned, % of coherent answers',
      coherent,
      lambda record: record['scores'].get('misaligned'),
    ),
    (
      'Insecure, % of the code',
      code,
      lambda record: record['scores'].get('insecure'),
    ),
    ('Flagged by the conscience, % of answers', judged, flagged),
    ('Flagged while training, % of sampled answers', seen, flagged),
  )
  made = []
  for title, among, test in panels:
    series = _series(among, test, slots)
    if any(len(line) > 1 for _, _, line in series):
      made.append((title, figures.curves(series)))
  return made


def _during(answers) -> list[Mapping]:
  """Answers to the curve's questions; of an arm without, the final ones."""
  found = records.latest(r for r in answers if r['phase'] == 'curve')
  drawn = {record['arm'] for record in found}
  return found + [r for r in counts.final(answers) if r['arm'] not in drawn]


def _binned(reflected) -> list[Mapping]:
  end = max([record['step'] for record in reflected], default=0) + 1
  width = max(1, -(-end // _BINS))
  middle = lambda step: step // width * width + width // 2
  found = records.latest(reflected)
  return [{**record, 'step': middle(record['step'])} for record in found]


def _series(among, test, slots) -> list[figures.Series]:
  points = {}
  for record in among:
    points.setdefault((record['arm'], record['step']), []).append(record)
  made = []
  for arm, slot in slots.items():
    line = [
      (step, counts.share([test(r) for r in found], _clusters(found)))
      for (name, step), found in sorted(points.items(), key=lambda p: p[0][1])
      if name == arm
    ]
    if line:
      made.append((arm, slot, line))
  return made


def _clusters(found):
  return [
    r.get('cluster') or r.get('question') or i for i, r in enumerate(found)
  ]


# -------------------------------------------------------- settings and files


def _compare(flats: Mapping[str, Mapping]) -> dict[str, Any]:
  flats = {name: flat for name, flat in flats.items() if flat}
  lines = runs_lib.differences(flats)
  differ = {name for name, _ in lines}
  first = next(iter(flats.values()), {})
  same = [(name, first[name]) for name in first if name not in differ]
  return {
    'arms': list(flats),
    'differ': [(name, list(map(_text, values))) for name, values in lines],
    'same': [(name, _text(value)) for name, value in same],
  }


def _text(value) -> str:
  if value is None:
    return '–'
  if isinstance(value, str):
    return value or '(none)'
  return json.dumps(value, ensure_ascii=False)


def _listing(flat: Mapping) -> str:
  return '\n'.join(f'{name} = {_text(value)}' for name, value in flat.items())


def _problems(runs, rows) -> list[str]:
  said = []
  for run in runs:
    evaluated = any(record['phase'] == 'eval' for record in run.answers)
    if not evaluated:
      said.append(f'{run.name}: no held-out answers recorded yet')
    if 'config.json' in run.missing:
      said.append(f'{run.name}: no config.json, so its settings are unknown')
  for row in rows:
    if row['unscored']:
      said.append(
        f'{row["arm"]}, {row["kind"]}: {row["unscored"]} of '
        f'{row["answers"]} answers were not judged and are in no share'
      )
  return said


def to_html(content: Mapping) -> str:
  """The page; every value is escaped by the template."""
  return environment().get_template('page.html.jinja').render(content).lstrip()


def environment() -> jinja2.Environment:
  """Where pages are made: whatever is not marked safe is escaped."""
  made = jinja2.Environment(
    loader=jinja2.PackageLoader('ealign.report', ''),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
  )
  made.filters['percent'] = table.percent
  return made


def to_markdown(content: Mapping) -> str:
  """The summary, the tables and the settings that differ, as Markdown."""
  text = table.escape_markdown
  parts = [f'# {content["title"]}', *map(text, content['summary'])]
  parts += [f'**{text(problem)}**' for problem in content['problems']]
  arms = [f'- {text(name)}: {text(said)}' for name, _, said in content['arms']]
  parts += ['\n'.join(arms), table.markdown(content['blocks']).strip()]
  for title, part in (('Settings', 'settings'), ('Provenance', 'info')):
    compared = content[part]
    lines = [('field', *compared['arms'])] + [
      (name, *values) for name, values in compared['differ']
    ]
    lines = [f'| {" | ".join(map(text, line))} |' for line in lines]
    lines.insert(1, '|' + ' --- |' * (len(compared['arms']) + 1))
    if compared['differ']:
      parts.append(f'## {title} that differ\n\n' + '\n'.join(lines))
    if part == 'info' and compared['same']:
      same = [f'- {text(name)}: {text(v)}' for name, v in compared['same']]
      parts.append(f'## {title}\n\n' + '\n'.join(same))
  return '\n\n'.join(parts) + '\n'
