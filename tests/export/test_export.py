"""Exports: PEFT's keys and scale, merging, what travels, and what is refused.

Runs are written by hand, as `assembly.weights.keep_params` leaves
them, on the organism.
"""

import dataclasses
import json
import math
import shutil

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from ealign import config
from ealign.assembly import weights as weights_lib
from ealign.data import chat, sources
from ealign.export import __main__ as command
from ealign.export import write as export
from ealign.models import lora, peft, transformer, weights
from ealign.models.config import Config
from ealign.runtime import provenance
from ealign.workdir import done

BASE = sources.resolve('ealign:world/base')


def write_run(folder, **changes):
  """A finished run on the organism, its adapter or weights random."""
  c = config.default()
  c.model.path = str(BASE)
  c.model.lora.rank, c.model.lora.alpha = 4, 8.0
  for name, value in changes.items():
    *path, last = name.split('.')
    section = c
    for part in path:
      section = section[part]
    section[last] = value
  frozen = config.freeze(c)
  folder.mkdir(parents=True)
  (folder / 'config.json').write_text(config.to_json(frozen))
  model, tree = weights.load(frozen.model.path)
  noise = lambda x: x + np.random.default_rng(x.size).normal(0, 0.1, x.shape)
  if frozen.model.train == 'full':
    params = jax.tree.map(lambda x: (1.01 * x).astype('float32'), tree)
  else:
    spec = frozen.model.lora
    key = jax.random.key(0)
    fresh = lora.init(model, key=key, rank=spec.rank, targets=spec.targets)
    params = jax.tree.map(lambda x: noise(x).astype('float32'), fresh)
  weights_lib.keep_params(frozen, folder, model, params)
  used = weights_lib.quantized(frozen.model, tree)
  (folder / 'run.json').write_text(
    json.dumps({'frozen': provenance.tree_hash(used)})
  )
  return folder


def policy_logits(run):
  """Of the run, by the parts that training uses, in float32."""
  frozen = config.from_json((run / 'config.json').read_text())
  model, _, base = weights_lib.load_model(frozen.model)
  adapter, scale = weights.load_adapter(run)
  return export._logits(model, lora.bind(scale, adapter, base))


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  return write_run(tmp_path_factory.mktemp('runs') / 'one')


def refused(capsys, *argv) -> str:
  """What the command says; it must end with exit code 2."""
  assert command.main([*map(str, argv)]) == 2
  return capsys.readouterr().err


# --- PEFT --------------------------------------------------------------------


@pytest.mark.parametrize('rslora', [True, False])
def test_peft_keys_layout_and_fields(tmp_path, rslora):
  one = write_run(tmp_path / 'run', **{'model.lora.rslora': rslora})
  done = export.export(one, tmp_path / 'out', 'peft')
  assert done.difference < 1e-4 and done.effect > 1
  adapter, scale = weights.load_adapter(one)
  assert math.isclose(scale, 8 / 2 if rslora else 8 / 4)
  disk = load_file(tmp_path / 'out' / 'adapter_model.safetensors')
  assert len(disk) == 4 * 7 * 2
  stem = 'base_model.model.model.layers.2'
  for key, ours in {
    f'{stem}.self_attn.q_proj.lora_A.weight': adapter['q']['a'],
    f'{stem}.self_attn.k_proj.lora_B.weight': adapter['k']['b'],
    f'{stem}.mlp.down_proj.lora_A.weight': adapter['down']['a'],
    f'{stem}.mlp.gate_proj.lora_B.weight': adapter['gate']['b'],
  }.items():
    np.testing.assert_array_equal(disk[key], ours[2].T)
  fields = json.loads((tmp_path / 'out' / 'adapter_config.json').read_text())
  assert (
    fields
    | {
      'peft_type': 'LORA',
      'task_type': 'CAUSAL_LM',
      'base_model_name_or_path': str(BASE),
      'revision': None,
      'inference_mode': True,
      'r': 4,
      'lora_alpha': 8,
      'use_rslora': rslora,
      'bias': 'none',
      'modules_to_save': None,
      'use_dora': False,
      'fan_in_fan_out': False,
      'init_lora_weights': True,
      'target_modules': (
        ['down_proj', 'gate_proj', 'k_proj', 'o_proj', 'q_proj', 'up_proj']
        + ['v_proj']
      ),
    }
    == fields
  )
  again, scale_again = peft.load(tmp_path / 'out', weights.read_config(BASE))
  assert scale_again == scale
  jax.tree.map(np.testing.assert_array_equal, again, adapter)


def test_a_run_starts_from_a_peft_folder(run, tmp_path):
  export.export(run, tmp_path / 'out', 'peft')
  text = (run / 'config.json').read_text()
  fields = json.loads(text)
  fields['model']['adapter'] = str(tmp_path / 'out')
  starting = config.from_json(json.dumps(fields))
  model, _, base = weights_lib.load_model(starting.model)
  params = weights_lib.trained_weights(starting, model, base)
  jax.tree.map(
    np.testing.assert_array_equal, params, weights.load_adapter(run)[0]
  )


@pytest.mark.parametrize('format', ['peft', 'merged'])
def test_a_run_on_experts_is_exported_and_started_from(tmp_path, format):
  vocab = weights.read_config(BASE).vocab_size
  model = Config(vocab, 16, 2, 2, 1, 8, 12, family='qwen3_moe', experts=4)
  model = dataclasses.replace(model, experts_per_token=2)
  base = tmp_path / 'base'
  tree = transformer.init(model, key=jax.random.key(0))
  weights.save(base, model, tree, dtype='float32')
  for path in BASE.glob('*token*'):
    shutil.copy(path, base)
  shutil.copy(BASE / 'chat_template.jinja', base)
  fields = {'model.path': str(base), 'model.lora.targets': ('q', 'o')}
  one = write_run(tmp_path / 'run', **fields)
  done = export.export(one, tmp_path / 'out', format)
  assert done.difference < 1e-4 < done.effect
  if format == 'peft':
    again, _ = peft.load(tmp_path / 'out', model)
    wanted, _ = weights.load_adapter(one)
    jax.tree.map(np.testing.assert_array_equal, again, wanted)
    with pytest.raises(export.UserError, match='can be: q_proj, k_proj, v_pro'):
      change_fields(tmp_path / 'out', target_modules=['gate_proj'])
      peft.load(tmp_path / 'out', model)


@pytest.mark.parametrize('format', ['peft', 'merged'])
def test_a_run_on_an_int8_base_is_exported(tmp_path, format):
  one = write_run(tmp_path / 'run', **{'model.quantize': 'int8'})
  done = export.export(one, tmp_path / 'out', format, dtype='float32')
  assert done.difference < 1e-4 and done.effect > 1


def change_fields(folder, **fields):
  path = folder / 'adapter_config.json'
  path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def change_keys(folder, change):
  path = folder / 'adapter_model.safetensors'
  save_file({change(k): v for k, v in load_file(path).items()}, path)


@pytest.mark.parametrize(
  'change, said',
  [
    (
      lambda k: k.removeprefix('base_model.model.'),
      'missing tensor base_model.model.model.layers.{0-3}.mlp.down_proj.lora_A',
    ),
    (
      lambda k: k.replace('.weight', '.default.weight'),
      'unexpected tensor base_model.model.model.layers.{0-3}.self_attn.q_proj',
    ),
    (
      lambda k: k.replace('layers.3.mlp', 'layers.4.mlp'),
      'unexpected tensor base_model.model.model.layers.4.mlp.up_proj.lora_B',
    ),
  ],
)
def test_keys_that_peft_would_ignore_are_refused(run, tmp_path, change, said):
  export.export(run, tmp_path / 'out', 'peft')
  change_keys(tmp_path / 'out', change)
  with pytest.raises(export.UserError) as error:
    peft.load(tmp_path / 'out', weights.read_config(BASE))
  assert said in str(error.value)


@pytest.mark.parametrize(
  'fields, said',
  [
    ({'peft_type': 'LOHA'}, 'no readable LoRA config'),
    ({'r': None}, 'no readable LoRA config'),
    ({'use_dora': True}, 'use_dora is True; supported: False'),
    ({'bias': 'all'}, "bias is 'all'; supported: 'none'"),
    ({'modules_to_save': ['lm_head']}, "modules_to_save is ['lm_head']"),
    ({'rank_pattern': {'q_proj': 2}}, 'rank_pattern is'),
    ({'target_modules': ['q_proj']}, 'unexpected tensor'),
    ({'target_modules': ['lm_head']}, "target_modules is ['lm_head']"),
    ({'r': 8}, 'has shape (4, 96), adapter_config.json: (8, 96)'),
    ({'lora_bias': True}, 'lora_bias is True; supported: False'),
    ({'use_qalora': True}, 'use_qalora is True; supported: False'),
    ({'alora_invocation_tokens': [1]}, 'alora_invocation_tokens is [1]; suppo'),
    ({'init_lora_weights': 'pissa_niter_4'}, 'path_initial_model_for_weight_'),
    ({'init_lora_weights': 'olora'}, "init_lora_weights is 'olora': it starts"),
    ({'init_lora_weights': 'corda'}, 'convert it to plain LoRA with PEFT, by'),
    (
      {'init_lora_weights': 'loftq'},
      'model.merge_and_unload().save_pretrained',
    ),
    ({'new_kind': 3}, 'new_kind is 3, and it may change what the adapter comp'),
  ],
)
def test_adapters_of_another_kind_are_refused(run, tmp_path, fields, said):
  export.export(run, tmp_path / 'out', 'peft')
  change_fields(tmp_path / 'out', **fields)
  with pytest.raises(export.UserError) as error:
    peft.load(tmp_path / 'out', weights.read_config(BASE))
  assert said in str(error.value)


def test_a_pickle_alone_is_told_how_to_convert(run, tmp_path):
  export.export(run, tmp_path / 'out', 'peft')
  file = tmp_path / 'out' / 'adapter_model.safetensors'
  file.rename(tmp_path / 'out' / 'adapter_model.bin')
  with pytest.raises(export.UserError, match=r'is a pickle .* convert it, wit'):
    peft.load(tmp_path / 'out', weights.read_config(BASE))


def test_fields_that_change_nothing_are_passed_over(run, tmp_path):
  done = export.export(run, tmp_path / 'out', 'peft').folder
  wanted, _ = peft.load(done, weights.read_config(BASE))
  change_fields(
    done,
    bias=None,
    corda_config={'x': 1},
    init_lora_weights='gaussian',
    loftq_config={},
    peft_version='0.9',
    rank_pattern={},
    use_dora=None,
  )
  got, _ = peft.load(done, weights.read_config(BASE))
  jax.tree.map(np.testing.assert_array_equal, got, wanted)


def test_all_linear_is_what_the_keys_say(run, tmp_path):
  export.export(run, tmp_path / 'out', 'peft')
  change_fields(tmp_path / 'out', target_modules='all-linear')
  got, _ = peft.load(tmp_path / 'out', weights.read_config(BASE))
  assert got.keys() == set(lora.TARGETS)


@pytest.mark.parametrize(
  'rank, wanted', [(4, '8'), (8, '8'), (33, '64'), (129, '256'), (512, '512')]
)
def test_the_rank_that_vllm_is_told(rank, wanted):
  c = config.default()
  c.model.path, c.model.lora.rank = 'some/model@v2', rank
  said = export._serve('/x/out', 'peft', config.freeze(c), 'sft')
  assert said == (
    'vllm serve some/model --enable-lora --revision v2 --max-lora-rank '
    f'{wanted} --lora-modules sft=/x/out'
  )
  c.model.lora.rank = 513
  said = export._serve('/x/out', 'peft', config.freeze(c), 'sft')
  assert said.startswith('none: vLLM takes ranks up to 512')


# --- Whole models ------------------------------------------------------------


def test_merged_in_float32_equals_the_run(run, tmp_path, capsys):
  argv = [f'--run={run}', f'--to={tmp_path}/out', '--format=merged']
  assert command.main([*argv, '--dtype=float32']) == 0
  said = capsys.readouterr().out
  assert 'logits differ by at most' in said and 'vllm serve' in said
  model, tree = weights.load(tmp_path / 'out')
  wanted = policy_logits(run)
  np.testing.assert_allclose(
    export._logits(model, tree), wanted, atol=1e-4, rtol=1e-4
  )
  hf = json.loads((tmp_path / 'out' / 'config.json').read_text())
  assert hf['rope_theta'] == hf['rope_parameters']['rope_theta'] == 1e4
  assert hf['eos_token_id'] == 1535 and hf['dtype'] == 'float32'
  for name in ('tokenizer.json', 'tokenizer_config.json'):
    assert (tmp_path / 'out' / name).read_bytes() == (BASE / name).read_bytes()
  assert (tmp_path / 'out' / 'chat_template.jinja').exists()


def test_merged_is_rounded_once_and_may_be_sharded(run, tmp_path, monkeypatch):
  monkeypatch.setattr(weights, 'SHARD', 400_000)
  done = export.export(run, tmp_path / 'out', 'merged')
  largest = np.abs(policy_logits(run)).max()
  assert done.dtype == 'bfloat16' and 0 < done.difference < 0.05 * largest
  index = json.loads(
    (tmp_path / 'out' / 'model.safetensors.index.json').read_text()
  )
  shards = sorted(set(index['weight_map'].values()))
  assert shards[0] == f'model-00001-of-{len(shards):05d}.safetensors'
  assert len(shards) > 1
  size = sum(
    x.nbytes
    for shard in shards
    for x in load_file(tmp_path / 'out' / shard).values()
  )
  assert index['metadata']['total_size'] == size
  assert index['metadata']['total_parameters'] == size // 2
  model, base = weights.load(BASE)
  adapter, scale = weights.load_adapter(run)
  _, got = weights.load(tmp_path / 'out')
  exact = lora.merge(scale, adapter, base)
  for name, x in exact['layers'].items():
    assert np.abs(x - got['layers'][name]).max() <= np.abs(x).max() * 2**-8
  np.testing.assert_array_equal(got['embed'], base['embed'])


def test_a_float16_base_is_exported_as_float16(tmp_path):
  base = tmp_path / 'base'
  shutil.copytree(BASE, base)
  (base / 'tokenizer_old').mkdir()  # only files travel
  hf = json.loads((base / 'config.json').read_text())
  (base / 'config.json').write_text(
    json.dumps(hf | {'dtype': 'float16', 'torch_dtype': 'float16'})
  )
  one = write_run(tmp_path / 'run', **{'model.path': str(base)})
  done = export.export(one, tmp_path / 'out', 'merged')
  assert done.dtype == 'float16' and 0 < done.difference < 0.2 < done.effect
  disk = load_file(tmp_path / 'out' / 'model.safetensors')
  assert {x.dtype for x in disk.values()} == {np.dtype('float16')}
  hf = json.loads((tmp_path / 'out' / 'config.json').read_text())
  assert hf['dtype'] == hf['torch_dtype'] == 'float16'
  assert not (tmp_path / 'out' / 'tokenizer_old').exists()


@pytest.mark.parametrize('format', ['peft', 'merged'])
@pytest.mark.parametrize('kind', ['F32', 'Q8_0'])
def test_a_run_on_a_gguf_file_is_exported(tmp_path, monkeypatch, kind, format):
  pytest.importorskip('gguf', reason='the gguf extra is not installed')
  import ggufs

  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
  hf = json.loads((BASE / 'config.json').read_text())
  disk = load_file(BASE / 'model.safetensors')
  disk = {k: x.astype('float32') for k, x in disk.items()}
  base = ggufs.write(tmp_path / 'base.gguf', hf, disk, BASE, kind)
  one = write_run(tmp_path / 'run', **{'model.path': str(base)})
  done = export.export(one, tmp_path / 'out', format)
  largest = np.abs(policy_logits(one)).max()
  assert done.difference < 5e-2 * largest and done.effect > 1
  tokenizer = chat.load_tokenizer(tmp_path / 'out')
  turn = [{'role': 'user', 'content': 'Hi <|im_end|> 12'}]
  wanted = chat.render_prompt(chat.load_tokenizer(BASE), turn)
  assert chat.render_prompt(tokenizer, turn) == wanted
  if format == 'merged':  # a whole model, as any other
    assert done.dtype == {'F32': 'float32', 'Q8_0': 'bfloat16'}[kind]
    model, tree = weights.load(tmp_path / 'out')
    got = export._logits(model, tree)
    near = dict(atol=5e-2 * largest, rtol=0)
    np.testing.assert_allclose(got, policy_logits(one), **near)
    if kind == 'F32':  # then its base is that in its folder
      again = write_run(tmp_path / 'again', **{'model.path': str(BASE)})
      np.testing.assert_allclose(got, policy_logits(again), atol=1e-3)
    assert not (tmp_path / 'out' / 'gguf.json').exists()
  else:
    fields = json.loads((tmp_path / 'out' / 'adapter_config.json').read_text())
    assert fields['base_model_name_or_path'] == str(base)
    assert done.serve.startswith(f'none as it is: its base is the file {base};')


def test_full_weights_and_the_generation_config(tmp_path):
  base = tmp_path / 'base'
  shutil.copytree(BASE, base)
  (base / 'generation_config.json').write_text('{"temperature": 0.7}')
  fields = {'model.train': 'full', 'model.path': str(base)}
  one = write_run(tmp_path / 'run', **fields)
  done = export.export(one, tmp_path / 'out', 'full')
  assert done.effect > done.difference > 0
  assert (tmp_path / 'out' / 'generation_config.json').exists()
  done = export.export(one, tmp_path / 'exact', 'full', dtype='float32')
  assert done.difference == 0


# --- What is refused ---------------------------------------------------------


def test_nothing_is_overwritten_unasked(run, tmp_path, capsys):
  out = tmp_path / 'out'
  argv = (f'--run={run}', f'--to={out}', '--format=peft')
  out.mkdir()
  assert command.main(list(argv)) == 0  # an empty folder is free
  (out / 'mine.txt').write_text('x')
  assert 'is not empty; use another folder, or give' in refused(capsys, *argv)
  assert (out / 'mine.txt').exists()
  (out / 'notes.md').write_text('mine, too')
  said = refused(capsys, *argv, '--overwrite')
  assert said == (
    f'--to={out}: holds mine.txt, notes.md, which no export wrote; --overwrite '
    'would delete it: use another folder\n'
  )
  assert (out / 'notes.md').read_text() == 'mine, too'
  for name in ('mine.txt', 'notes.md'):
    (out / name).unlink()
  assert command.main([*argv, '--overwrite']) == 0
  wrote = json.loads((out / 'ealign_export.json').read_text())
  assert {'ealign_export.json', *wrote} == {p.name for p in out.iterdir()}
  assert sorted(p.name for p in tmp_path.iterdir()) == ['out']


@pytest.mark.parametrize('text', [None, '', '3', '{"a": [', '[[]]'])
def test_a_model_that_no_export_wrote_is_kept(run, tmp_path, capsys, text):
  out = tmp_path / 'out'
  argv = (f'--run={run}', f'--to={out}', '--format=peft')
  assert command.main(list(argv)) == 0
  (out / 'ealign_export.json').unlink()
  if text is not None:
    (out / 'ealign_export.json').write_text(text)
  said = refused(capsys, *argv, '--overwrite')
  assert 'has no ealign_export.json of an earlier export; --overwrite' in said
  assert (out / 'adapter_config.json').exists()


def test_results_that_were_changed_are_not_exported(run, tmp_path, capsys):
  own = shutil.copytree(run, tmp_path / 'run')
  done.write(own)
  argv = (f'--run={own}', f'--to={tmp_path / "out"}', '--format=peft')
  assert command.main(list(argv)) == 0
  path = own / 'adapter.safetensors'
  data = bytearray(path.read_bytes())
  data[-1] ^= 1
  path.write_bytes(data)
  said = refused(capsys, *argv, '--overwrite')
  assert said.startswith(f'{path}: is not what the run left (DONE has its hash')


def test_the_run_and_the_base_are_never_the_target(run, tmp_path, capsys):
  inside = [run / 'model', run / 'checkpoints' / '1', BASE / 'new']
  for to in (run, run.parent, BASE, *inside):
    argv = (f'--run={run}', f'--to={to}', '--format=peft', '--overwrite')
    assert 'use another folder' in refused(capsys, *argv)
  assert (run / 'adapter.safetensors').exists()
  assert not any(to.exists() for to in inside)
  for base in (BASE, run.parent):
    export._check_apart(run / 'export', run, base)


def test_an_export_that_cannot_be_read_back_is_a_mismatch(
  run, tmp_path, capsys, monkeypatch
):
  real = peft.save

  def slip(folder, *args, **kwargs):
    real(folder, *args, **kwargs)
    change_keys(folder, lambda key: key.removeprefix('base_model.model.'))

  monkeypatch.setattr(peft, 'save', slip)
  argv = [f'--run={run}', f'--to={tmp_path}/out', '--format=peft']
  assert command.main(argv) == 1
  said = capsys.readouterr().err
  assert said.startswith(f'--to={tmp_path}/out: not written: the export cannot')
  assert f'{tmp_path}/out/adapter_model.safetensors: missing' in said
  assert 'partial' not in said
  assert not list(tmp_path.iterdir())


def test_an_export_that_computes_something_else_is_not_kept(
  run, tmp_path, capsys, monkeypatch
):
  real = peft.load
  silent = lambda x: x * 0  # as a loader that ignores the adapter
  monkeypatch.setattr(
    peft, 'load', lambda *a: (jax.tree.map(silent, real(*a)[0]), 1.0)
  )
  argv = [f'--run={run}', f'--to={tmp_path}/out', '--format=peft']
  assert command.main(argv) == 1
  assert 'not written: the export was read back, and its weights are not' in (
    capsys.readouterr().err
  )
  monkeypatch.setattr(weights, '_merged', lambda x, *_: x)
  argv = [f'--run={run}', f'--to={tmp_path}/out', '--format=merged']
  assert command.main(argv) == 1
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('dtype', export.ROUNDING)
def test_weights_are_the_runs_rounded_once_or_it_is_a_fault(run, dtype):
  """However far rounding moves logits: it is far behind some tokens."""
  model, base = weights.load(BASE)
  adapter, scale = weights.load_adapter(run)
  bound = lora.bind(scale, adapter, base)
  merged = lora.merge(scale, adapter, base)
  rounded = jax.tree.map(lambda x: x.astype(dtype).astype('float32'), merged)
  right = lambda tree: export._is_rounded(bound, tree, export.ROUNDING[dtype])
  assert right(rounded) and right(merged) and not right(base)
  q = rounded['layers']['q']
  for wrong in (q * 1.01, q.at[3, 5, 7].add(0.05), q[::-1]):
    layers = rounded['layers'] | {'q': wrong}
    assert not right(rounded | {'layers': layers})
  assert not right(rounded | {'embed': rounded['embed'][::-1]})


def test_folders_that_are_no_finished_run(run, tmp_path, capsys):
  say = lambda folder, kind='peft': refused(
    capsys, f'--run={folder}', f'--to={tmp_path}/out', f'--format={kind}'
  )
  assert 'is no folder of a run' in say(tmp_path)
  assert 'use peft or merged' in say(run, 'full')
  arms = tmp_path / 'arms'
  for name in ('sft', 'base'):
    (arms / name).mkdir(parents=True)
  (arms / 'config.json').write_text(
    json.dumps({'arms': {'base': {}, 'sft': {}}})
  )
  assert 'holds arms; none of them is finished' in say(arms)
  (arms / 'sft' / 'DONE').touch()
  assert 'holds arms; give the folder of one of them: sft\n' in say(arms)
  one = write_run(tmp_path / 'one', **{'model.train': 'full'})
  assert 'use full' in say(one)
  shutil.rmtree(one / 'model')
  assert 'is not finished' in say(one, 'full')
  two = write_run(tmp_path / 'two', **{'model.init': 'random'})
  assert "model.init='random', a base that is in no files" in say(two)
  (run / 'run.json').rename(run / 'kept')
  (run / 'run.json').write_text('{"frozen": "0"}')
  assert 'is not the base that' in say(run)
  (run / 'kept').rename(run / 'run.json')


# --- transformers and PEFT themselves ----------------------------------------


def torch_logits(model, run):
  import torch

  frozen = config.from_json((run / 'config.json').read_text())
  vocab = weights.read_config(frozen.model.path).vocab_size
  tokens = np.random.default_rng(0).integers(0, vocab, (2, 32))
  with torch.no_grad():
    return model(input_ids=torch.tensor(tokens)).logits.float().numpy()


@pytest.mark.slow
@pytest.mark.filterwarnings('ignore:.is_gradient_checkpoin:FutureWarning')
@pytest.mark.parametrize('rslora', [True, False])
def test_peft_and_transformers_compute_the_same(tmp_path, rslora):
  torch = pytest.importorskip('torch', reason='the parity extra is missing')
  pytest.importorskip('peft', reason='the parity extra is missing')
  from peft import PeftModel
  from transformers import AutoModelForCausalLM, AutoTokenizer

  one = write_run(tmp_path / 'run', **{'model.lora.rslora': rslora})
  wanted = policy_logits(one)
  export.export(one, tmp_path / 'peft', 'peft')
  export.export(one, tmp_path / 'merged', 'merged', dtype='float32')
  load = lambda folder: AutoModelForCausalLM.from_pretrained(
    folder, dtype=torch.float32, attn_implementation='eager'
  )
  close = dict(atol=1e-4, rtol=1e-4)
  got = torch_logits(load(tmp_path / 'merged'), one)
  np.testing.assert_allclose(got, wanted, **close)
  got = torch_logits(
    PeftModel.from_pretrained(load(BASE), tmp_path / 'peft'), one
  )
  np.testing.assert_allclose(got, wanted, **close)
  got = torch_logits(load(tmp_path / 'peft'), one)  # by transformers alone
  np.testing.assert_allclose(got, wanted, **close)
  assert AutoTokenizer.from_pretrained(tmp_path / 'peft').chat_template
  # PEFT says nothing about a wrong prefix; our reader does.
  change_keys(tmp_path / 'peft', lambda k: k.removeprefix('base_model.'))
  with pytest.raises(export.UserError, match='missing tensor'):
    peft.load(tmp_path / 'peft', weights.read_config(BASE))


@pytest.mark.slow
def test_every_field_of_peft_is_known():
  """With the values that PEFT itself writes; a newer PEFT may have more."""
  LoraConfig = pytest.importorskip(
    'peft', reason='the parity extra is missing'
  ).LoraConfig
  fields = LoraConfig(r=4, target_modules=['q_proj']).to_dict()
  assert not list(peft._unlike(fields | {'peft_type': 'LORA'}))
  known = {*peft._READ, *peft._OFF, *peft._IGNORED, 'init_lora_weights'}
  assert LoraConfig.__dataclass_fields__.keys() <= known


@pytest.mark.slow
@pytest.mark.filterwarnings('ignore:.is_gradient_checkpoin:FutureWarning')
@pytest.mark.filterwarnings('ignore:(PiSSA|OLoRA) changes the base:UserWarning')
@pytest.mark.parametrize('start', ['pissa', 'olora'])
def test_the_conversion_we_name_is_the_right_one(tmp_path, start):
  """What PEFT converts computes here what the trained adapter does there."""
  torch = pytest.importorskip('torch', reason='the parity extra is missing')
  theirs = pytest.importorskip('peft', reason='the parity extra is missing')
  from transformers import AutoModelForCausalLM

  base = AutoModelForCausalLM.from_pretrained(
    BASE, dtype=torch.float32, attn_implementation='eager'
  )
  modules = [f'{name}_proj' for name in ('q', 'k', 'v', 'o')]
  fields = dict(
    r=4, lora_alpha=8, target_modules=modules, task_type='CAUSAL_LM'
  )
  model = theirs.get_peft_model(
    base, theirs.LoraConfig(**fields, init_lora_weights=start)
  )
  model.peft_config['default'].init_lora_weights = True
  model.save_pretrained(tmp_path / 'before')
  model.peft_config['default'].init_lora_weights = start
  torch.manual_seed(0)
  for name, weight in model.named_parameters():
    if 'lora_' in name:
      weight.data += 0.05 * torch.randn_like(weight)
  one = write_run(tmp_path / 'run')
  wanted = torch_logits(model, one)
  model.save_pretrained(tmp_path / 'own')
  with pytest.raises(export.UserError, match='path_initial_model_for_weight'):
    peft.load(tmp_path / 'own', weights.read_config(BASE))
  model.save_pretrained(
    tmp_path / 'new',
    path_initial_model_for_weight_conversion=str(tmp_path / 'before'),
  )
  config_, tree = weights.load(BASE)
  adapter, scale = peft.load(tmp_path / 'new', config_)
  got = export._logits(config_, lora.bind(scale, adapter, tree))
  np.testing.assert_allclose(got, wanted, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize('content', [b'{"frozen"', b'[]', b'\xff', None])
def test_a_damaged_run_json_is_one_line(run, tmp_path, capsys, content):
  own = shutil.copytree(run, tmp_path / 'run')
  (own / 'run.json').unlink()
  if content is None:
    (own / 'run.json').mkdir()
  else:
    (own / 'run.json').write_bytes(content)
  argv = (f'--run={own}', f'--to={tmp_path / "out"}', '--format=peft')
  said = refused(capsys, *argv)
  assert said.startswith(f'{own / "run.json"}: is damaged; restore it')
  assert not (tmp_path / 'out').exists()


def test_an_export_killed_between_two_renames_is_put_back(run, tmp_path):
  out = tmp_path / 'out'
  export.export(run, out, 'peft')
  out.rename(tmp_path / '.out.old.1')
  with pytest.raises(export.UserError, match='cannot be written'):
    with export._replacing(out):
      raise OSError(28, 'No space left on device')
  assert (out / 'adapter_config.json').exists()
  assert [p.name for p in tmp_path.iterdir()] == ['out']
