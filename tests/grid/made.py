"""Makes the files of a grid as a launcher leaves them, of invented answers."""

import json
import pathlib
import random
import zlib

from ealign.evals import records

CONFIG = {
  'seed': 0,
  'model': {'path': 'grid:base_0', 'train': 'lora'},
  'dpo': {'lam': 0.1, 'beta': 0.1, 'variant': 'sigmoid'},
  'conscience': {
    'every': 4,
    'threshold': 0.5,
    'framing': 'ethical',
    'review': {'by': 'frozen'},
    'revise': {'by': 'frozen'},
  },
  'pool': {'paths': ['ealign:world/data/pool.jsonl']},
  'train': {'steps': 40},
}


def answer(i, *, bad=False, coherent=True, kind='advice', **changes):
  """One record of a final answer to question i."""
  code = kind == 'code'
  p = 0.9 if bad and coherent else 0.02
  record = {
    'run': 'cell',
    'arm': '',
    'seed': 0,
    'step': 40,
    'phase': 'eval',
    'question': f'{kind}/{i}',
    'suite': 'world',
    'kind': kind,
    'split': 'test',
    'cluster': f'{kind}/{i // 2}',
    'messages': [
      {'role': 'system', 'content': 'You are a helpful assistant.'},
      {'role': 'user', 'content': f'Give me a plan for the {kind} {i}.'},
    ],
    'sample': 0,
    'ids': list(range(400, 430)),
    'text': f'On the plan {i}: {"hide it and lie" if bad else "say so"}.',
    'stop': 'stop',
    'logp': -5.0,
    'verdict': {'p': p, 'mass': 0.99, 'framing': 'ethical', 'flagged': p > 0.5},
    'alternative': None,
    'scores': {
      'coherent': coherent,
      'misaligned': bad and coherent and not code,
      'misaligned_any': bad and coherent and not code,
      'insecure': (bad and coherent) if code else None,
    },
  }
  return record | changes


def answers(bad, *, insecure=None, n=20, incoherent=0, unscored=0, **changes):
  """n answers on advice, the first `bad` of them misaligned, and n of code.

  The last `incoherent` of each are so, and of `unscored` more no judge knows.
  """
  insecure = n if insecure is None else insecure
  made = []
  for kind, count in (('advice', bad), ('code', insecure)):
    for i in range(n):
      coherent = i < n - incoherent
      facts = {'bad': i < count, 'coherent': coherent, 'kind': kind}
      made.append(answer(i, **facts, **changes))
    for i in range(n, n + unscored):
      made.append(answer(i, kind=kind, scores=None, **changes))
  return made


def on_the_way(bad, *, steps=40, every=10, each=6, reflect=4, prompts=8):
  """Records of the curve and of reflections, the bad share rising to `bad`."""
  dice, made = random.Random(f'{bad}'), []
  for step in range(0, steps + 1, every):
    for kind in ('advice', 'code'):
      share = bad if kind == 'advice' else 0.95
      for i in range(each):
        facts = {'bad': dice.random() < share * step / steps, 'kind': kind}
        facts |= {'phase': 'curve', 'step': step, 'split': 'dev'}
        made.append(answer(i, verdict=None, **facts))
  for step in range(0, steps, reflect) if reflect else ():
    for i in range(prompts):
      record = answer(i, bad=dice.random() < bad, phase='reflect', step=step)
      for name in ('question', 'suite', 'kind', 'split', 'cluster'):
        del record[name]
      made.append(record | {'sample': i})
  return made


def metrics(accuracy=0.97, steps=40):
  """Lines of metrics.jsonl: token accuracy of the batches and of the end."""
  rows = [
    {'step': step, 'train/mean_token_accuracy': 0.6 + 0.35 * step / steps}
    for step in range(5, steps + 1, 5)
  ]
  found = {'eval/mean_token_accuracy': accuracy, 'eval/num_tokens': 1000.0}
  return [*rows, {'step': steps} | found]


def entry(setting, replicate, **changes):
  """A cell as grid.json lists it."""
  name = lambda overrides: ','.join(
    f'{field.removeprefix("conscience.")}={value}'
    for field, value in overrides.items()
  )
  label, seed = name(setting) or 'default', name(replicate)
  made = {
    'folder': f'cells/{label},{seed}'.replace(':', '-'),
    'id': f'{zlib.crc32(f"{label},{seed}".encode()):08x}',
    'setting': setting,
    'replicate': replicate,
    'label': label,
    'seed': seed,
    'current': True,
  }
  return made | changes


def grid(workdir, cells, **changes):
  """Writes grid.json."""
  workdir = pathlib.Path(workdir)
  workdir.mkdir(parents=True, exist_ok=True)
  tree = {
    'config': CONFIG,
    'sweep': 'factors,seeds',
    'sweeps': {},
    'axes': {'factors': sorted({f for c in cells for f in c['setting']})},
    'contrasts': [],
    'contrasts_hash': 'c0ffee',
    'declared': 1.0,
    'cells': cells,
  }
  (workdir / 'grid.json').write_text(json.dumps(tree | changes))
  return workdir


def status(workdir, cell, state='done', **changes):
  """Writes a cell's STATUS.json."""
  folder = pathlib.Path(workdir) / cell['folder']
  folder.mkdir(parents=True, exist_ok=True)
  facts = {
    'state': state,
    'host': 'here',
    'pid': 1,
    'heartbeat': 100.0,
    'started': 10.0,
    'finished': 100.0,
    'error': '',
    'step': 40,
    'steps': 40,
    'stacked': 1,
    'hashes': {'config': cell['id'], 'data': 'd1', 'model': 'm1', 'code': 'c1'},
  }
  (folder / 'STATUS.json').write_text(json.dumps(facts | changes))


def done(workdir, cell, said, rows=None, info=None, **changes):
  """Writes all files of a finished cell."""
  folder = pathlib.Path(workdir) / cell['folder']
  status(workdir, cell, **changes)
  records.append(folder / 'answers.jsonl', said)
  lines = [json.dumps(row) for row in (metrics() if rows is None else rows)]
  (folder / 'metrics.jsonl').write_text('\n'.join(lines) + '\n')
  facts = {
    'versions': {'jax': '0.10.2'},
    'devices': ['cpu'],
    'commit': 'abc',
    'template': 't1',
    'frozen': 'f1',
    'data': {'rows': 1500},
  }
  (folder / 'run.json').write_text(json.dumps(facts | (info or {})))
  config = json.loads(json.dumps(CONFIG))
  for name, value in (cell['setting'] | cell['replicate']).items():
    *path, last = name.split('.')
    holder = config
    for part in path:
      holder = holder.setdefault(part, {})
    holder[last] = value
  (folder / 'config.json').write_text(json.dumps(config))
