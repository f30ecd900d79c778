"""python -m ealign.export --run=DIR --to=DIR --format=peft|merged|full

Writes what a run trained as a folder that transformers, PEFT and vLLM load,
reads it back, and keeps it only if it computes what the run does.
"""

import contextlib
import dataclasses
import functools
import json
import os
import pathlib
import shlex
import shutil

import jax
import jax.numpy as jnp
import numpy as np

from ealign import config as config_lib
from ealign.assembly import weights as assembled
from ealign.data import sources
from ealign.export import ROUNDING
from ealign.fields import Config
from ealign.models import config as model_lib
from ealign.models import gguf, hub, int8, lora, peft, transformer
from ealign.models import weights as weights_lib
from ealign.runtime import atomic, provenance
from ealign.runtime.errors import Mismatch, UserError
from ealign.workdir import done

VLLM_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
_TRAVEL = (  # what goes along from the base model's folder
  *('tokenizer*', '*.jinja', 'chat_template*', 'special_tokens_map.json'),
  *('added_tokens.json', 'vocab.*', 'merges.txt', 'spiece.model'),
)
MANIFEST = 'ealign_export.json'  # the files of an export: --overwrite may go


@dataclasses.dataclass(frozen=True)
class Exported:
  """What was written, and how it compares with the run on random tokens."""

  folder: pathlib.Path
  format: str
  dtype: str
  difference: float  # the largest, of the export's logits from the run's
  effect: float  # the largest, of the base model's logits from the run's
  serve: str  # the command that serves it

  def __str__(self) -> str:
    lines = [
      f'written: {self.folder} ({self.format}, {self.dtype})',
      f'read back and compared: logits differ by at most {self.difference:.2g} '
      f'from those of the run; training moved them by up to {self.effect:.2g}',
    ]
    if self.difference > self.effect / 10:
      lines.append(
        'note: rounding is not small beside what was learnt; --dtype=float32 '
        'or --format=peft keeps it'
      )
    return '\n'.join([*lines, f'serve: {self.serve}'])


def export(
  run, to, format: str, *, dtype: str = 'auto', overwrite: bool = False
) -> Exported:
  """Exports a finished run.

  Args:
    run: its folder (of one arm, where there are arms).
    to: folder to write; it appears only when all is written and checked.
    format: 'peft' the adapter alone, 'merged' the base with the adapter in it,
      'full' the weights of a full fine-tuning run.
    dtype: of merged and full weights; 'auto': that of the base model's files.
    overwrite: whether `to` may hold an earlier export. Only files that it
      wrote are deleted: they are listed in MANIFEST.

  Raises:
    UserError: no finished run, the wrong format for it, or `to` is in use.
    Mismatch: the export cannot be read back, or computes something else.
  """
  run, to = (pathlib.Path(path).expanduser().resolve() for path in (run, to))
  config = _config(run)
  done.check(run)
  _check_format(run, config, format)
  base = hub.fetch(sources.resolve(config.model.path)).resolve()
  _check_apart(to, run, base)
  _check_free(to, overwrite)
  return _export(run, to, format, config, base, _dtype(base, format, dtype))


def _export(run, to, format, config, base, dtype) -> Exported:
  """Writes the export, and keeps it if it computes what the run does."""
  model, weights, bare = _weights(run, config, format)
  logits = _logits(model, weights)
  off = lambda other: float(np.abs(logits - _logits(model, other)).max())
  largest, effect = float(np.abs(logits).max()), off(bare)
  with _replacing(to) as folder:
    _write(folder, format, run, config, base, model, weights, dtype)
    again = _read(folder, to, format, model, bare)
    difference = off(again)
    if format == 'peft':
      right = difference <= 1e-4 * max(1.0, largest)
    else:
      right = _is_rounded(weights, again, ROUNDING[dtype])
    if not right:
      raise Mismatch(
        f'--to={to}: not written: the export was read back, and its weights '
        'are not those of the run; its logits differ by up to '
        f'{difference:.2g} from those of the run (which are up to '
        f'{largest:.2g}); this is a bug, please report it'
      )
  serve = _serve(to, format, config, run.name)
  return Exported(to, format, dtype, difference, effect, serve)


def _is_rounded(weights, again, share) -> bool:
  """Whether `again` holds the weights, an adapter merged, each rounded once.

  The logits cannot say it: real models have tokens behind which the rounding of
  all weights grows to a tenth of the largest logit.
  """
  adapter = weights.get('adapter', {})
  plain = {k: v for k, v in weights.items() if k != 'adapter'}
  for path, own in jax.tree_util.tree_flatten_with_path(plain)[0]:
    kept = functools.reduce(lambda tree, key: tree[key.key], path, again)
    name = path[-1].key
    if name in adapter and path[0].key == 'layers':
      own = own + jnp.einsum(
        'lir,lro->lio',
        adapter[name]['a'],
        adapter[name]['b'],
        precision='highest',
      )
    # Sums in another order are off by as much as float32 rounds.
    sums = 1e-5 * jnp.abs(own).max()
    if (jnp.abs(kept - own) > share * jnp.abs(own) + sums).any():
      return False
  return True


def _refusal(to, message: str) -> UserError:
  return UserError(f'--to={to}: {message}')


# --- What the run is ---------------------------------------------------------


def _config(run: pathlib.Path) -> Config:
  """The run's Config, with its base model's frozen adapter as a path."""
  path = run / 'config.json'
  try:
    text = path.read_text('utf-8')
    arms = json.loads(text).get('arms')
  except (OSError, ValueError, AttributeError) as e:
    message = 'is no folder of a run: it has no readable config.json'
    raise UserError(f'--run={run}: {message}') from e
  if arms:
    done = ', '.join(n for n in arms if (run / n / 'DONE').exists())
    message = f'give the folder of one of them: {done}'
    message = message if done else 'none of them is finished'
    raise UserError(f'--run={run}: holds arms; {message}')
  try:
    config = config_lib.from_json(text)
  except UserError as e:
    raise UserError(*(f'{path}: {each}' for each in e.args)) from e
  frozen = config.model.frozen_adapter
  if frozen.startswith('arm:'):
    frozen = str(run.parent / frozen[4:])
  # Where it started from is in what it trained; float32 makes checks exact.
  exact = {'adapter': '', 'frozen_adapter': frozen, 'dtype': 'float32'}
  model = dataclasses.replace(config.model, **exact)
  return dataclasses.replace(config, model=model)


def _check_format(run, config, format):
  full = config.model.train == 'full'
  if not (run / ('model' if full else 'adapter.safetensors')).exists():
    message = 'is not finished: the command that began it continues it'
    raise UserError(f'--run={run}: {message}')
  right = ('full',) if full else ('peft', 'merged')
  if format not in right:
    message = f'the run has model.train={config.model.train!r}'
    raise UserError(f'--format={format}: {message}; use {" or ".join(right)}')
  # PEFT adapts a base that lies in files as it is.
  for name, plain in (('init', 'weights'), ('frozen_adapter', '')):
    value = getattr(config.model, name)
    if format == 'peft' and value != plain:
      message = f'model.{name}={value!r}, a base that is in no files'
      raise UserError(f'--format=peft: the run has {message}; use merged')


def _dtype(base, format, dtype: str) -> str:
  """In which the weights are written; 'auto': as the base model's files."""
  if dtype == 'auto':
    hf = weights_lib.read_json(base)
    dtype = hf.get('dtype', hf.get('torch_dtype')) or 'bfloat16'
  return 'float32' if format == 'peft' or dtype not in ROUNDING else dtype


def _weights(run, config, format):
  """The model, what the run computes with, and the same without training."""
  model, _, base = assembled.load_model(config.model, config.seed)
  if config.model.train == 'full':
    _check_base(run, config, base)
    return model, weights_lib.load(run / 'model')[1], base
  spec = dataclasses.replace(config.model, quantize='none')
  exact = dataclasses.replace(config, model=spec)
  bare = assembled.frozen_weights(exact, model, base)
  adapter, scale = weights_lib.load_adapter(run)
  if scale != assembled.lora_scale(config):
    message = f'{scale} but config.json says {assembled.lora_scale(config)}'
    raise UserError(f'{run}/adapter.safetensors: its scale is {message}')
  _check_base(run, config, bare)
  weights = lora.bind(scale, adapter, bare)
  if format == 'merged':  # peft is for the base as it lies in its files
    return model, _rounded(config, weights), _rounded(config, bare)
  return model, weights, bare


def _rounded(config, weights):
  """The weights with the error that an int8 base has, as plain arrays."""
  tree = assembled.quantized(config.model, weights)
  layers = {name: int8.dense(w) for name, w in tree['layers'].items()}
  return tree | {'layers': layers}


def _check_base(run, config, bare) -> None:
  """Refuses a base model whose files were changed since the run."""
  path = run / 'run.json'
  if config.model.frozen_adapter or not path.exists():
    return
  try:
    was = json.loads(path.read_text('utf-8')).get('frozen')
  except (OSError, ValueError, RecursionError, AttributeError):
    message = 'is damaged; restore it from a copy, or run again'
    raise UserError(f'{path}: {message} with --retry=all') from None
  for dtype in ('float32', 'bfloat16'):  # whichever the run computed with
    cast = functools.partial(jnp.asarray, dtype=dtype)
    tree = assembled.quantized(config.model, jax.tree.map(cast, bare))
    if was == provenance.tree_hash(tree):
      return
  raise UserError(
    f'model.path={config.model.path!r}: is not the base that {run} was trained '
    'on (the hash in its run.json differs); restore it'
  )


def _logits(model, weights) -> np.ndarray:
  """Logits on a few random tokens, in float32 wherever it is computed."""
  tokens_BT = np.random.default_rng(0).integers(0, model.vocab_size, (2, 32))
  positions_BT = np.tile(np.arange(32), (2, 1))
  with jax.default_matmul_precision('highest'):
    return np.asarray(_forward(model, weights, tokens_BT, positions_BT))


@functools.partial(jax.jit, static_argnums=0)
def _forward(model, weights, tokens_BT, positions_BT):
  hidden_BTD = transformer.forward(model, weights, tokens_BT, positions_BT)[0]
  return transformer.logits(model, weights, hidden_BTD)


# --- Writing and reading back ------------------------------------------------


def _check_apart(to, run, base) -> None:
  """Refuses what the run is read from: itself, its weights, its base."""
  for name, folder in {'--run': run, 'model.path': base}.items():
    if to == folder or to in folder.parents:
      raise _refusal(to, f'holds {name}={folder}; use another folder')
  for folder in (run / 'model', run / 'checkpoints', base):
    inside = folder.resolve() in (to, *to.parents)
    # A run may lie in the folder of its base, and keeps its export by itself.
    if inside and not (folder == base and run in to.parents):
      message = f'is in {folder}, which the run needs; use another folder'
      raise _refusal(to, message)


def _check_free(to, overwrite) -> None:
  if to.exists() and not to.is_dir():
    raise _refusal(to, 'is a file; use another name')
  found = sorted(to.iterdir()) if to.exists() else []
  if not found:
    return
  if not overwrite:
    raise _refusal(to, 'is not empty; use another folder, or give --overwrite')
  deletes = '; --overwrite would delete it: use another folder'
  try:
    wrote = set(json.loads((to / MANIFEST).read_text('utf-8')))
  except (OSError, ValueError, RecursionError, TypeError):
    message = f'has no {MANIFEST} of an earlier export{deletes}'
    raise _refusal(to, message) from None
  if foreign := [p.name for p in found if p.name not in {*wrote, MANIFEST}]:
    listed = ', '.join(foreign[:3]) + ', ...' * (len(foreign) > 3)
    raise _refusal(to, f'holds {listed}, which no export wrote{deletes}')


@contextlib.contextmanager
def _replacing(to):
  """A folder beside `to` that takes its place if all goes well."""
  beside = lambda kind: to.with_name(f'.{to.name}.{kind}.{os.getpid()}')
  partial, old = beside('partial'), beside('old')
  try:
    for earlier in to.parent.glob(f'.{to.name}.old.*'):
      if not to.exists():  # its export was killed between two renames
        earlier.rename(to)
    partial.mkdir(parents=True)
    yield partial
    names = sorted(path.name for path in partial.iterdir())
    atomic.write(partial / MANIFEST, json.dumps(names, indent=1) + '\n')
    if to.exists():
      to.rename(old)
    partial.rename(to)
  except OSError as e:
    message = f'cannot be written ({e.strerror or e}); use another folder'
    raise _refusal(to, message) from e
  finally:
    if old.exists() and not to.exists():
      old.rename(to)
    for folder in (partial, old):
      shutil.rmtree(folder, ignore_errors=True)


def _write(folder, format, run, config, base, model, weights, dtype) -> None:
  travel = _TRAVEL
  if format == 'peft':
    adapter, _ = weights_lib.load_adapter(run)
    spec, (name, revision) = config.model.lora, _base(config)
    scale = {'alpha': spec.alpha, 'rslora': spec.rslora}
    peft.save(folder, model, adapter, base=name, revision=revision, **scale)
  else:
    known = model_lib.to_hf(model, dtype=dtype)
    hf = weights_lib.read_json(base)
    more = {k: v for k, v in hf.items() if k not in known}
    weights_lib.save(folder, model, weights, dtype=dtype, **more)
    travel += ('generation_config.json',)
  for path in {path for glob in travel for path in base.glob(glob)}:
    if path.is_file():
      shutil.copyfile(path, folder / path.name)


def _base(config) -> tuple[str, str | None]:
  """The base model as PEFT and vLLM find it: Hub id and revision, or path.

  Of a GGUF file it is the file, not the folder that lays it out.
  """
  if hub.is_id(config.model.path):
    return hub.split(config.model.path)
  return str(pathlib.Path(sources.resolve(config.model.path)).resolve()), None


def _read(folder, to, format, model, bare):
  """The weights of the export, from its files alone (and the base's)."""
  try:
    if format == 'peft':
      adapter, scale = peft.load(folder, model)
      return lora.bind(scale, adapter, bare)
    again, weights = weights_lib.load(folder)
  except UserError as e:
    message = 'not written: the export cannot be read back, which is a bug'
    reasons = (str(each).replace(str(folder), str(to)) for each in e.args)
    raise Mismatch(f'--to={to}: {message}, please report it', *reasons) from e
  if dataclasses.replace(again, dtype=model.dtype, remat=model.remat) != model:
    raise Mismatch(f'{to}/config.json: read back as {again}, not {model}')
  return weights


def _serve(to, format, config, name) -> str:
  if format != 'peft':
    return f'vllm serve {shlex.quote(str(to))}'
  base, revision = _base(config)
  if gguf.is_file(base):
    return (
      f'none as it is: its base is the file {base}; transformers reads that by '
      'from_pretrained(folder, gguf_file=name), with PEFT on top; or use '
      '--format=merged'
    )
  fits = [rank for rank in VLLM_RANKS if rank >= config.model.lora.rank]
  if not fits:
    return f'none: vLLM takes ranks up to {VLLM_RANKS[-1]}; use --format=merged'
  words = ['vllm', 'serve', base, '--enable-lora']
  words += ['--revision', revision] if revision else []
  words += ['--max-lora-rank', str(fits[0]), '--lora-modules', f'{name}={to}']
  return shlex.join(words)
