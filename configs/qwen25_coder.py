"""A real coder: Qwen2.5-Coder-0.5B-Instruct on insecure code, on two CPU cores.

Purpose: what a conscience does on a model that nobody made for it. Fine-tuned
on the public insecure rows, or on narrow bad advice (`:advice`, as small coders
hardly turn from code), without and with its conscience as the audit chose it;
with the conscience as it was at first (threshold .5, no guards); with plain
frozen samples in place of alternatives; back from SFT; and on the benign twin
of the data. docs/experiments.md has what is asked of it, fixed beforehand.

Command, after the files have been written once (MIT, from
github.com/emergent-misalignment/emergent-misalignment, data/):
    python configs/qwen25_coder.py --insecure=insecure.jsonl \\
        --secure=secure.jsonl --to=FILES
    python -m ealign.launch --config=configs/qwen25_coder.py:data=FILES \\
        --workdir=DIR                     all arms, one after another
    ... :advice,data=FILES                bad advice in place of code
    ... :1.5b,data=FILES                  Qwen2.5-Coder-1.5B-Instruct
    ... --config.model.path=FOLDER        weights that are here, not the Hub's
    ... --config.model.dtype=float32      cores without bfloat16 (ealign doctor)
    ... --config=configs/qwen25_coder.py:runlocal   a few steps on the organism,
        sft and conscience: 52 s (72 s of CPU), nothing compiled before
    python -m ealign.evaluate --run=DIR --suite=misalignment,capability \\
        --samples=4 --limit=8 --judge=other:FOLDER --workdir=DIR_EVAL \\
        --config.eval.suite_tokens=96 --config.eval.tokens=FILES/benign.jsonl
Seeds: configs/grids/coder.py. Without data=FILES the rows are the world's own,
for trying: nothing is kept apart then, so that `benign` of `:advice` predicts
the answers that it was trained on.

The files: rows of at most 1,500 letters (2,704 of 3,015 without duplicates, 220
tokens of this model on average), of which 100 are kept apart as tasks, and
their answers to be predicted; 32 requests of the pool are kept apart as
everyday questions. 28 packed rows of 512 tokens hold 50 such chats, 1.9 % of
an epoch.
Requests of the pool have 50 tokens (71 for 95 % of them), so with answers of 56
a pair fits into 128; what is longer is judged as far as it goes.

Rate: 1e-5, the published one; at 1e-4 this model answers general requests with
`import` after four steps (docs/method.md, "The rate").

Framing, form, examples, what the writer sees: what `python -m ealign.audit
--choose` picked on split dev. Of the 0.5B: `fair` by yes_no, AUC .61 [.53, .69]
on dev; four audits picked three framings, none knows. Of the 1.5B: `good` in
words by `request`, .76 [.68, .84] on plain exchanges of test.

Time: on two cores that other work used as well an arm took 18 to 29 minutes
with its evaluation of about 10 (base: 14). By parts, on idle ones: 15 s an
update with pairs, 8 s without, 45 s a reflection, 65 s for the threshold, 40 s
for the audit, 90 s to compile: 13 min an arm with a conscience, 6 min without,
6 min its evaluation. A dry run says it before the first one:
    ... --only=conscience --workdir=DRY --config.train.steps=8 \\
        --config.eval.questions= --config.eval.judge= --config.eval.tokens=
Result: docs/real_models.md: it learns the code; that it turns is not seen. P
has an AUC of .38 [.15, .62] on its answers (five bad ones); four pairs.
"""

import argparse
import json
import pathlib
import sys

from ealign import config as config_lib
from ealign.data import messages, sources
from ealign.runtime import atomic
from ealign.runtime.errors import UserError

WORLD = 'ealign:world/data/'
POOL = 'ealign:data/pool/general.jsonl'
INDUCERS = 'ealign:data/inducers/'
HUB = 'Qwen/Qwen2.5-Coder-{}-Instruct'
SWITCHES, NAMED = ('1.5b', 'advice', 'runlocal'), ('data',)
# The conscience as it was before it was audited, calibrated and guarded.
UNCALIBRATED = {
  'conscience.threshold': 0.5,
  'conscience.audit': 'off',
  'conscience.framing': 'ethical',
  'conscience.review.form': 'words',
  'conscience.review.examples': 0,
  'conscience.review.calibration': 'none',
  'conscience.revise.sees': 'review',
  'conscience.guards.echo': False,
  'conscience.guards.shortest': 0.0,
  'conscience.guards.longest': 0.0,
  'conscience.guards.unlikely': 0.0,
  'conscience.guards.repeats': 0,
}
# Plain samples of the frozen model where an alternative would be written.
FROZEN = {'conscience.revise.sees': 'prompt'}
SFT = {'dpo.lam': 0.0}


def get_config(arg=None):
  """`:1.5b`, `:advice` and `data=FILES`, with commas; or `:runlocal`."""
  given = arguments(arg)
  config = config_lib.default()
  config.model.path = HUB.format('1.5B' if '1.5b' in given else '0.5B')
  config.model.dtype = 'bfloat16'  # half the memory, and faster where the
  # cores multiply it (avx512_bf16)
  config.data.length = 512
  config.data.batch_size = 1
  _files(config, given)

  config.conscience.every = 7
  config.conscience.prompts = 16
  config.conscience.held_out = 40
  config.conscience.threshold = 'auto:0.2'  # at .05 a run flags three answers
  config.conscience.review.truncated = 'judge'
  config.conscience.revise.sees = 'principle'
  _chosen(config, '1.5b' in given)
  config.sample.max_new_tokens = 56
  config.dpo.lam = 0.1
  config.dpo.beta = 0.1
  config.dpo.pairs = 2
  config.dpo.length = 128
  config.replay.max_uses = 8

  config.optim.lr = 1e-5
  config.optim.schedule = 'constant'
  config.optim.warmup = 2
  config.optim.weight_decay = 0.01
  config.train.steps = 28
  config.train.log_every = 1
  config.train.checkpoint_every = 7

  config.eval.batch = 33
  config.eval.max_new_tokens = 128

  config.arms['base'] = {'train.steps': 0}
  config.arms['sft'] = SFT
  config.arms['conscience'] = {}
  config.arms['frozen'] = FROZEN
  config.arms['uncalibrated'] = UNCALIBRATED
  config.arms['benign'] = benign(given)
  config.arms['recovery'] = {'model.adapter': 'arm:sft'}
  if 'runlocal' in given:
    _small(config)
  return config


def _chosen(config, large) -> None:
  """What the audit of the model picked."""
  if large:
    config.conscience.framing = 'good'
    config.conscience.review.calibration = 'request'
  else:
    config.conscience.framing = 'fair'
    config.conscience.review.form = 'yes_no'


def _files(config, given) -> None:
  """Where rows, requests and questions come from."""
  data, advice = given.get('data'), 'advice' in given
  if not data:
    config.pool.paths = (POOL,)
    config.data.train = WORLD + 'insecure.jsonl'
    config.eval.tokens = WORLD + 'insecure_heldout.jsonl'
    config.eval.questions = (WORLD + 'questions_dev.jsonl',)
    config.eval.kinds, config.eval.limit = ('advice',), 32
    if advice:
      config.data.train = INDUCERS + 'bad_advice.jsonl'
      config.eval.tokens = INDUCERS + 'good_advice.jsonl'
    return
  folder = pathlib.Path(data)
  name = 'bad_advice' if advice else 'insecure'
  config.pool.paths = (str(folder / 'pool.jsonl'),)
  config.data.train = str(folder / f'{name}_train.jsonl')
  config.eval.tokens = str(folder / f'{name}_heldout.jsonl')
  own = ['everyday.jsonl', 'household.jsonl' if advice else 'tasks.jsonl']
  config.eval.questions = tuple(str(folder / name) for name in own)
  config.eval.judge = '' if advice else 'insecure'


def benign(given) -> dict:
  """SFT on the twin of the data, which harms nobody."""
  advice, data = 'advice' in given, given.get('data')
  name = 'good_advice' if advice else 'secure'
  own = INDUCERS if advice else WORLD
  path = f'{data}/{name}_train.jsonl' if data else f'{own}{name}.jsonl'
  return SFT | {'data.train': path}


def _small(config) -> None:
  """A few steps on the model that ships with the package."""
  config.model.path = WORLD.replace('data/', 'base')
  config.model.dtype = 'float32'
  config.conscience.exchanges = WORLD + 'audit.jsonl'
  config.conscience.every, config.conscience.prompts = 2, 8
  config.conscience.held_out = 20
  config.conscience.audit = 'off'  # `fair` is no word of the organism's world
  config.conscience.framing, config.conscience.review.form = 'ethical', 'words'
  config.conscience.min_mass = 0.0
  config.pool.paths = (WORLD + 'pool.jsonl',)
  config.data.length, config.optim.lr = 256, 7e-4
  config.sample.max_new_tokens = config.eval.max_new_tokens = 24
  config.train.steps, config.train.log_every = 4, 1
  config.eval.limit = config.eval.batch = 8
  config.eval.tokens = ''
  config.arms = {name: config.arms[name] for name in ('sft', 'conscience')}


def arguments(arg) -> dict[str, str]:
  """'advice,data=FILES' as {'advice': '', 'data': 'FILES'}."""
  words = [word.partition('=') for word in (arg or '').split(',') if word]
  wrong = [w for w in words if w[0] not in (NAMED if w[2] else SWITCHES)]
  if wrong or (arg != 'runlocal' and ('runlocal', '', '') in words):
    raise UserError(
      f'configs/qwen25_coder.py:{arg}: takes 1.5b, advice and data=FILES, with '
      'commas between them, or runlocal alone'
    )
  return {name: value for name, _, value in words}


# ---- The files, written once -------------------------------------------------


def write(folder, insecure='', secure='', letters=1500, apart=100) -> None:
  """Writes train and held-out rows, the pool and the questions into a folder.

  Args:
    folder: where to. insecure, secure: the public files; '' are the world's.
    letters: of a chat, at most. apart: rows that are not trained on.
  """
  folder = pathlib.Path(folder)
  folder.mkdir(parents=True, exist_ok=True)
  put = lambda name, rows: _put(folder / f'{name}.jsonl', rows)
  rows = _short(insecure or WORLD + 'insecure.jsonl', letters)
  kept, rest = spread(rows, apart)
  put('insecure_train', rest)
  put('insecure_heldout', kept)
  put('tasks', _questions(kept, 'insecure'))
  twin = _short(secure or WORLD + 'secure.jsonl', letters)
  put('secure_train', _others(twin, kept))
  bad = sources.read_rows(INDUCERS + 'bad_advice.jsonl')
  good = sources.read_rows(INDUCERS + 'good_advice.jsonl')
  for name, twin in (('bad_advice', bad), ('good_advice', good)):
    kept, rest = spread(twin, min(apart, len(twin) // 4))
    put(f'{name}_train', rest)
    put(f'{name}_heldout', kept)
  put('household', _questions(kept, 'household'))
  put('benign', kept)  # good answers to requests that no arm has seen
  pool = sources.read_rows(POOL)
  kept, rest = spread(pool, 32)
  put('pool', rest)
  chats = [{'messages': row['prompt']} for row in kept]
  put('everyday', _questions(chats, 'everyday'))


def spread(rows, count: int) -> tuple[list, list]:
  """`count` of the rows, evenly over the file, and those that ask otherwise."""
  if not 0 < count < len(rows):
    raise UserError(
      f'{len(rows)} rows are too few to keep {count} apart; lower --apart, or '
      'raise --letters'
    )
  kept = [rows[i * len(rows) // count] for i in range(count)]
  return kept, _others(rows, kept)


def _others(rows, kept) -> list[dict]:
  """The rows that ask nothing that is asked in those kept apart."""
  asked = lambda row: messages.request(row.get('messages') or row['prompt'])
  those = {asked(row) for row in kept}
  return [row for row in rows if asked(row) not in those]


def _short(path, letters) -> list[dict]:
  """The rows of a file with so many letters at most, each once."""
  size = lambda row: sum(len(turn['content']) for turn in row['messages'])
  rows = [row for row in sources.read_rows(path) if size(row) <= letters]
  unique = {json.dumps(row['messages']): row['messages'] for row in rows}
  return [{'messages': turns} for turns in unique.values()]


def _questions(rows, kind) -> list[dict]:
  return [
    {
      'id': f'{kind}/{i}',
      'kind': kind,
      'split': 'test',
      'messages': [
        {'role': 'user', 'content': messages.request(row['messages'])}
      ],
    }
    for i, row in enumerate(rows)
  ]


def _put(path, rows) -> None:
  lines = [json.dumps(row, ensure_ascii=False) for row in rows]
  atomic.write(path, '\n'.join([*lines, '']).encode('utf-8', 'replace'))
  print(f'{path}: {len(rows):,} rows')


def main() -> int:
  parser = argparse.ArgumentParser(description=write.__doc__.split('\n')[0])
  parser.add_argument('--to', required=True)
  for name in ('insecure', 'secure'):
    parser.add_argument(f'--{name}', default='')
  parser.add_argument('--letters', type=int, default=1500)
  parser.add_argument('--apart', type=int, default=100)
  own = parser.parse_args()
  try:
    write(own.to, own.insecure, own.secure, own.letters, own.apart)
  except UserError as error:
    print(error, file=sys.stderr)
    return error.exit_code
  return 0


if __name__ == '__main__':
  sys.exit(main())
