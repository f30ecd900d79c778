import json
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys

import pytest
import yaml

from ealign.cli import command as command_lib
from ealign.cli import launch, scripts

ROOT = pathlib.Path(__file__).parents[2]
SHELL = ('xpk', 'tpu_vm', 'slurm')
NASTY = 'You $are "kind", it\'s $(HOME) `x` \\ $$ #: {é}\n  \t* 100%'
CONFIG = """
from ealign import config as config_lib

def get_config(arg=None):
  return config_lib.default()
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
  """A folder to start in, with a config file and stubs of all commands."""
  monkeypatch.chdir(tmp_path)
  (tmp_path / 'My_run2.py').write_text(CONFIG)
  (tmp_path / 'runs').mkdir()
  path = tmp_path / 'stubs'
  path.mkdir()
  monkeypatch.setenv('PATH', f'{path}:{os.environ["PATH"]}')
  for name in ('ZONE', 'PROJECT', 'CLUSTER', 'SLURM_JOB_ID'):
    monkeypatch.setenv(name, name.lower())
  stub('python', f'exec {sys.executable} -c "$SHOW" "$@"')
  show = 'import json, sys; print("argv", json.dumps(sys.argv[1:]))'
  monkeypatch.setenv('SHOW', show)
  return tmp_path


def stub(name, text):
  path = pathlib.Path('stubs') / name
  path.write_text(f'#!/usr/bin/env bash\n{text}\n')
  path.chmod(0o755)


def flags(*rest, config='My_run2.py', workdir='gs://b/d'):
  return [f'--config={config}', f'--workdir={workdir}', *rest]


def printed(capsys, kind, *rest, **where):
  """What --print_launch prints; the command has to be a sound one."""
  argv = ['launch', *flags(f'--print_launch={kind}', *rest, **where)]
  assert launch.main(argv) == 0
  return capsys.readouterr().out


def refused(capsys, *rest, **where):
  assert launch.main(['launch', *flags(*rest, **where)]) == 2
  out, err = capsys.readouterr()
  assert out == ''
  return err.splitlines()


def check(script, path, aside=''):
  """bash parses it and shellcheck has nothing to say but what is put aside."""
  path.write_text(script)
  subprocess.run(['bash', '-n', path], check=True)
  beside = pathlib.Path(sys.executable).parent
  tool = shutil.which('shellcheck', path=f'{beside}:{os.environ["PATH"]}')
  if not tool:
    pytest.skip('no shellcheck: pip install -e .[test]')
  done = subprocess.run(
    [tool, f'--exclude={aside}', path], capture_output=True, text=True
  )
  assert done.stdout + done.stderr == ''


def run(script, *arguments):
  """Runs it; what the stub of python was given, and the exit code."""
  path = pathlib.Path('script.sh')
  path.write_text(script)
  done = subprocess.run(
    ['bash', path, *arguments], capture_output=True, text=True
  )
  lines = done.stdout.splitlines()
  got = [json.loads(x[5:]) for x in lines if x.startswith('argv ')]
  return got, done


def test_every_file_is_short_and_has_a_kind():
  files = sorted(scripts.folder().iterdir())
  assert [file.name for file in files] == sorted(scripts.KINDS.values())
  for file in files:
    lines = file.read_text().splitlines()
    assert len(lines) < 40, file.name
    assert max(map(len, lines)) <= 120, file.name


@pytest.mark.parametrize('kind', SHELL)
def test_shell_is_sound_before_and_after(here, capsys, kind):
  text = (scripts.folder() / scripts.KINDS[kind]).read_text()
  check(text, here / 'file.sh')
  check(printed(capsys, kind, '--config.dpo.lam=0.3'), here / 'printed.sh')
  nasty = f'--config.pool.system={NASTY}'
  # SC2016: a $ in single quotes, which is as it should be here.
  check(printed(capsys, kind, nasty), here / 'nasty.sh', aside='SC2016')


@pytest.mark.parametrize('kind', scripts.KINDS)
def test_only_values_differ_from_the_file(here, capsys, kind):
  lines = (scripts.folder() / scripts.KINDS[kind]).read_text().splitlines()
  new = printed(capsys, kind).splitlines()
  assert len(new) == len(lines)
  for before, after in zip(lines, new, strict=True):
    if before != after:
      assert re.search(r'\$\{[A-Z_]+:-|\$\{1:|#SBATCH|  # [A-Z_]+$', before)
  assert not [line for line in new if re.search(r'  # [A-Z_]+$', line)]


WANTED = ['-m', 'ealign.launch']
GIVEN = ['--only=a*,b', f'--config.pool.system={NASTY}', '--config.dpo.lam=0.3']
GCLOUD = """
echo "gcloud $*" >> calls
for argument; do case $argument in
  --command=*mkdir*) ;;
  --command=*) mkdir -p ealign/.venv/bin && : > ealign/.venv/bin/activate
    bash -c "${argument#*=}"; exit ;;
  describe) echo ACTIVE ;;
esac; done
"""


def test_tpu_vm_gives_the_very_flags_to_python(here, capsys):
  stub('gcloud', GCLOUD)
  script = printed(capsys, 'tpu_vm', *GIVEN, '--topology=v5p:2x2x2')
  got, done = run(script)
  assert done.returncode == 0, done.stderr
  assert got == [[*WANTED, *flags(*GIVEN)]]
  calls = (here / 'calls').read_text()
  steps = [line.split()[3:5] for line in calls.splitlines() if 'gcloud' in line]
  assert steps == [
    *(['queued-resources', 'create'], ['queued-resources', 'describe']),
    *(['tpu-vm', 'scp'], ['tpu-vm', 'ssh'], ['tpu-vm', 'ssh']),
    ['queued-resources', 'delete'],
  ]
  create = calls.splitlines()[0]
  for each in ('--accelerator-type=v5p-16', '--runtime-version=v2-alpha-tpuv5'):
    assert each in create.split()
  assert '--spot --project=project --zone=zone' in create
  assert calls.count('--worker=all --batch-size=all') == 3


@pytest.mark.parametrize('code, slices', [(0, 1), (1, 1), (2, 1), (143, 3)])
def test_tpu_vm_asks_again_unless_the_run_is_to_blame(
  here, capsys, monkeypatch, code, slices
):
  stub('gcloud', GCLOUD)
  stub('python', f'exit {code}')
  monkeypatch.setenv('RESTARTS', '2')
  _, done = run(printed(capsys, 'tpu_vm'))
  assert done.returncode == code
  calls = (here / 'calls').read_text()
  assert calls.count('queued-resources create') == slices
  assert calls.count('queued-resources delete') == slices


def test_tpu_vm_deletes_no_slice_it_did_not_get(here, capsys):
  stub('gcloud', 'echo "$*" >> calls; [[ $* != *create* ]]')
  _, done = run(printed(capsys, 'tpu_vm'))
  assert done.returncode == 1
  assert 'delete' not in (here / 'calls').read_text()


def test_xpk_gives_the_very_flags_to_python(here, capsys):
  stub('pip', 'exit')
  stub(
    'xpk',
    'printf "%s\\n" "$@" > calls\n'
    'for x; do [[ $x != --command=* ]] || bash -c "${x#*=}"; done',
  )
  script = printed(capsys, 'xpk', *GIVEN, '--topology=tpu7x:4x4x4')
  got, done = run(script)
  assert done.returncode == 0, done.stderr
  assert got == [[*WANTED, *flags(*GIVEN)]]
  calls = (here / 'calls').read_text().splitlines()
  assert calls[:2] == ['workload', 'create']
  assert {'--workload=ealign-my-run2', '--tpu-type=tpu7x-128'} < set(calls)
  assert {'--spot', '--restart-on-exit-codes=42,143'} < set(calls)


@pytest.mark.parametrize(
  'code, state, count, again',
  [
    *((0, 'RUNNING', 0, False), (1, 'RUNNING', 0, False)),
    *((2, 'RUNNING', 0, False), (42, 'RUNNING', 0, True)),
    *((143, 'RUNNING', 49, True), (143, 'RUNNING', 50, False)),
    (143, 'CANCELLED', 0, False),
  ],
)
def test_slurm_queues_again_what_was_preempted(
  here, capsys, monkeypatch, code, state, count, again
):
  stub('srun', f'shift; "$@"; exit {code}')
  stub('squeue', f'echo {state}')
  stub('scontrol', 'echo "$*" > calls')
  monkeypatch.setenv('SLURM_RESTART_COUNT', str(count))
  got, done = run(printed(capsys, 'slurm', *GIVEN, '--topology=4x2'))
  assert done.returncode == code
  assert got == [[*WANTED, *flags(*GIVEN)]]
  assert (here / 'calls').exists() == again
  if again:
    assert (here / 'calls').read_text() == 'requeue slurm_job_id\n'


def test_slurm_hands_the_signal_to_the_tasks_and_waits(here, capsys):
  stub(
    'srun',
    'trap "sleep 0.2; exit 143" USR1; echo $$ > pid; kill -TERM $PPID; '
    'while :; do sleep 0.05; done',
  )
  stub('scancel', 'echo "$*" > told; kill -USR1 $(cat pid)')
  stub('squeue', 'echo RUNNING')
  stub('scontrol', 'echo "$*" > calls')
  _, done = run(printed(capsys, 'slurm'))
  assert done.returncode == 143
  assert (here / 'told').read_text() == '--signal=TERM slurm_job_id\n'
  assert (here / 'calls').exists()


def test_slurm_shows_each_process_all_gpus_of_its_node(
  here, capsys, monkeypatch
):
  stub('srun', 'echo "$JAX_LOCAL_DEVICE_IDS"')
  stub('squeue', 'echo RUNNING')
  monkeypatch.setenv('SLURM_GPUS_ON_NODE', '4')
  script = printed(capsys, 'slurm', '--topology=3x4', workdir='out')
  assert '#SBATCH --nodes=3\n#SBATCH --gpus-per-node=4\n' in script
  assert '#SBATCH --ntasks-per-node=1\n#SBATCH --requeue\n' in script
  assert run(script)[1].stdout == '0,1,2,3\n'


SKY = {
  'name': str,
  'workdir': str,
  'num_nodes': int,
  'resources': {
    'infra': str,
    'accelerators': str,
    'accelerator_args': {'runtime_version': str},
    'use_spot': bool,
    'job_recovery': {
      'strategy': str,
      'max_restarts_on_errors': int,
      'recover_on_exit_codes': [int],
    },
  },
  'setup': str,
  'run': str,
}
JOBSET = {
  'apiVersion': str,
  'kind': str,
  'metadata': {
    'name': str,
    'annotations': {'alpha.jobset.sigs.k8s.io/exclusive-topology': str},
  },
  'spec': {
    'network': {'enableDNSHostnames': bool},
    'failurePolicy': {
      'maxRestarts': int,
      'rules': [{'name': str, 'action': str, 'onJobFailureReasons': [str]}],
    },
    'replicatedJobs': [
      {
        'name': str,
        'template': {
          'spec': {
            'parallelism': int,
            'completions': int,
            'completionMode': str,
            'backoffLimit': int,
            'podFailurePolicy': {
              'rules': [
                {
                  'action': str,
                  'onPodConditions': [str],
                  'onExitCodes': {'operator': str, 'values': [int]},
                }
              ]
            },
            'template': {
              'spec': {
                'restartPolicy': str,
                'terminationGracePeriodSeconds': int,
                'nodeSelector': {
                  'cloud.google.com/gke-tpu-accelerator': str,
                  'cloud.google.com/gke-tpu-topology': str,
                  'cloud.google.com/gke-spot': str,
                },
                'containers': [
                  {
                    'name': str,
                    'image': str,
                    'command': [str],
                    'args': [str],
                    'resources': {'limits': {'google.com/tpu': int}},
                  }
                ],
              }
            },
          }
        },
      }
    ],
  },
}


def conform(value, schema, where=''):
  """The value has the schema's fields, all of them and no others."""
  if isinstance(schema, dict):
    assert isinstance(value, dict) and value.keys() == schema.keys(), where
    for name, inner in schema.items():
      conform(value[name], inner, f'{where}.{name}')
  elif isinstance(schema, list):
    assert isinstance(value, list), where
    for item in value:
      conform(item, schema[0], where)
  else:
    assert type(value) is schema, f'{where}: {value!r}'


@pytest.mark.parametrize('name, schema', [('skypilot', SKY), ('gke', JOBSET)])
def test_yaml_has_the_documented_fields(here, capsys, name, schema):
  file = (scripts.folder() / scripts.KINDS[name]).read_text()
  conform(yaml.safe_load(file), schema)
  conform(yaml.safe_load(printed(capsys, name, *GIVEN)), schema)


def test_the_rules_of_the_jobset_are_complete(here, capsys):
  # Of the CRD of JobSet: name and action are required, and what they may be.
  jobset = yaml.safe_load(printed(capsys, 'gke', *GIVEN))
  (rule,) = jobset['spec']['failurePolicy']['rules']
  assert re.fullmatch('[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?', rule['name'])
  actions = ('FailJobSet', 'RestartJobSet', 'RestartJobSetAndIgnoreMaxRestarts')
  assert rule['action'] in actions


def test_skypilot_gives_the_very_flags_to_python(here, capsys):
  text = printed(capsys, 'skypilot', *GIVEN, '--topology=v6e:8x8')
  task = yaml.safe_load(text)
  assert task['name'] == 'ealign-my-run2'
  resources = task['resources']
  assert resources['accelerators'] == 'tpu-v6e-64'
  assert resources['accelerator_args'] == {'runtime_version': 'v2-alpha-tpuv6e'}
  subprocess.run(['bash', '-n', '-c', task['setup']], check=True)
  (here / '.venv/bin').mkdir(parents=True)
  (here / '.venv/bin/python').symlink_to(here / 'stubs/python')
  assert run(task['run'])[0] == [[*WANTED, *flags(*GIVEN)]]


@pytest.mark.parametrize(
  'name, label, grid, hosts, chips',
  [
    ('v5e:4x4', 'tpu-v5-lite-podslice', '4x4', 4, 4),
    ('v5e:2x4', 'tpu-v5-lite-podslice', '2x4', 1, 8),
    ('v6e:1x1', 'tpu-v6e-slice', '1x1', 1, 1),
    ('v5p:4x4x4', 'tpu-v5p-slice', '4x4x4', 16, 4),
    ('v4:2x2x1', 'tpu-v4-podslice', '2x2x1', 1, 4),
    ('tpu7x:2x2x2', 'tpu7x', '2x2x2', 2, 4),
  ],
)
def test_jobset_has_the_slice_and_the_very_flags(
  here, capsys, name, label, grid, hosts, chips
):
  text = printed(capsys, 'gke', *GIVEN, f'--topology={name}')
  text = text.replace('${IMAGE}', 'image')  # as envsubst does
  jobset = yaml.safe_load(text)
  assert jobset['apiVersion'] == 'jobset.x-k8s.io/v1alpha2'
  (job,) = jobset['spec']['replicatedJobs']
  job = job['template']['spec']
  assert (job['completions'], job['parallelism']) == (hosts, hosts)
  assert job['completionMode'] == 'Indexed'
  pod = job['template']['spec']
  assert pod['nodeSelector'] == {
    'cloud.google.com/gke-tpu-accelerator': label,
    'cloud.google.com/gke-tpu-topology': grid,
    'cloud.google.com/gke-spot': 'true',
  }
  (container,) = pod['containers']
  assert container['resources'] == {'limits': {'google.com/tpu': chips}}
  assert container['command'] == ['python', *WANTED]
  assert [expanded(x) for x in container['args']] == flags(*GIVEN)


def expanded(argument):
  """What Kubernetes makes of it: $$ is $, and $(NAME) a variable."""
  return re.sub(
    r'\$(\$|\(\w+\))', lambda m: '$' if m[1] == '$' else 'LOST', argument
  )


def test_exit_codes_mean_the_same_everywhere(here, capsys):
  """42 and 143 restart; 1 and 2, which another try would not mend, do not."""
  again = {42, 134, 137, 143}
  job = yaml.safe_load(printed(capsys, 'gke'))['spec']
  pod = job['replicatedJobs'][0]['template']['spec']['podFailurePolicy']
  (rule,) = pod['rules']
  assert rule['action'] == 'FailJob'
  assert rule['onExitCodes'] == {'operator': 'NotIn', 'values': sorted(again)}
  assert job['failurePolicy']['rules'][0]['action'] == 'FailJobSet'
  task = yaml.safe_load(printed(capsys, 'skypilot'))
  recovery = task['resources']['job_recovery']
  assert set(recovery['recover_on_exit_codes']) == again
  assert '(42|134|137|143)' in printed(capsys, 'slurm')


@pytest.mark.parametrize('kind', SHELL)
def test_a_file_runs_as_it_is(here, kind):
  """Name and hardware by variables, the flags of the run by arguments."""
  stub('gcloud', GCLOUD)
  stub('pip', 'exit')
  stub('srun', 'shift; "$@"')
  stub('squeue', 'echo RUNNING')
  stub('xpk', 'for x; do [[ $x != --command=* ]] || bash -c "${x#*=}"; done')
  text = (scripts.folder() / scripts.KINDS[kind]).read_text()
  got, done = run(text, *flags(*GIVEN))
  assert done.returncode == 0, done.stderr
  assert got == [[*WANTED, *flags(*GIVEN)]]
  assert 'give the flags: --config=' in run(text)[1].stderr


@pytest.mark.parametrize(
  'kind, variable',
  [('tpu_vm', 'PROJECT'), ('tpu_vm', 'ZONE'), ('xpk', 'CLUSTER')],
)
def test_what_only_the_user_knows_is_asked_for(
  here, capsys, monkeypatch, kind, variable
):
  monkeypatch.delenv(variable)
  _, done = run(printed(capsys, kind))
  assert done.returncode != 0
  assert f'{variable}: set {variable} to' in done.stderr


@pytest.mark.parametrize(
  'rest, said',
  [
    (['gek'], 'must be one of xpk, tpu_vm, skypilot, gke, slurm. Did you mean'),
    (['xpk', '--topology=v5e:4x5'], 'no slice has it; use v5e:4x4'),
    (['xpk', '--topology=h100:8'], 'must be one of v4, v5e, v5p, v6e, tpu7x'),
    (['slurm', '--topology=v5e:4x4'], 'slurm wants nodes x GPUs of a node'),
    (['tpu_vm', '--topology=tpu7x:2x2x1'], 'use xpk or gke'),
    (['skypilot', '--topology=tpu7x:2x2x1'], 'use xpk or gke'),
    (['xpk', '--config.lamb=1'], "Did you mean 'dpo.lam'"),
    (['gek', '--topology=v5e:4x4'], "Did you mean 'gke'?"),
  ],
)
def test_a_slip_is_one_line(here, capsys, rest, said):
  (line,) = refused(capsys, f'--print_launch={rest[0]}', *rest[1:])
  assert said in line


@pytest.mark.parametrize('kind', ['xpk', 'tpu_vm', 'skypilot', 'gke'])
@pytest.mark.parametrize('workdir', ['runs/a', '/mnt/a', 'gs://', 's3://b/d'])
def test_a_folder_the_hosts_cannot_share(here, capsys, kind, workdir):
  (line,) = refused(capsys, f'--print_launch={kind}', workdir=workdir)
  assert line == (
    f'--workdir={workdir}: all hosts share it and it outlives them: '
    'use gs://BUCKET/DIR'
  )


def test_a_config_file_that_is_not_copied(here, capsys, monkeypatch):
  absolute = str(here / 'My_run2.py')
  assert '--config=My_run2.py ' in printed(capsys, 'xpk', config=absolute)
  monkeypatch.chdir(here / 'runs')
  for config in (absolute, '../My_run2.py'):
    (line,) = refused(capsys, '--print_launch=xpk', config=config)
    assert 'is outside this folder' in line and 'move it below' in line


def test_all_slips_at_once(here, capsys):
  wrong = ('--config.lamb=1', '--topology=v5e:3x3', '--print_launch=xpk')
  lines = refused(capsys, *wrong, workdir='out')
  assert [line.partition(':')[0] for line in lines] == [
    *('--config.lamb', '--topology=v5e', '--workdir=out')
  ]


def test_topology_alone_is_an_error(here, capsys):
  assert refused(capsys, '--topology=v5e:4x4') == [
    '--topology: goes with --plan or --print_launch'
  ]


@pytest.mark.parametrize('kind', scripts.KINDS)
def test_a_profile_is_a_flag_of_the_run(here, capsys, kind):
  assert '--profile=1:2' in printed(capsys, kind, '--profile=1:2')


def test_every_copy_of_the_clone_leaves_the_same_out():
  lines = (ROOT / '.dockerignore').read_text().splitlines()
  (tar,) = re.findall(
    r'--exclude=\{(.*)\}', (scripts.folder() / 'tpu_vm.sh').read_text()
  )
  assert lines == tar.split(',') == ['.git', '.venv', 'runs']


def test_who_is_a_host_is_not_for_a_script_to_say(here, capsys):
  where = ('--coordinator=a:1', '--processes=2', '--process=0')
  said = 'the machines of a cluster know who they are; leave it out'
  for given in (where, where[:1]):
    names = ', '.join(flag.partition('=')[0] for flag in given)
    assert refused(capsys, '--print_launch=xpk', *given) == [
      f'{names}: not together with --print_launch: {said}'
    ]


def test_what_this_machine_lacks_is_a_note(here, capsys):
  rest = ('--config.model.path=/far/model', '--print_launch=xpk')
  assert launch.main(['launch', *flags(*rest)]) == 0
  out, err = capsys.readouterr()
  assert '--config.model.path=/far/model' in out
  assert "note: model.path='/far/model': there is no such" in err


@pytest.mark.parametrize(
  'spec, name',
  [
    ('configs/qwen3_4b_insecure.py', 'ealign-qwen3-4b-insecure'),
    ('demo.py:runlocal', 'ealign-demo-runlocal'),
    ('a/Ünï--x.py', 'ealign-n-x'),
    (f'{"long" * 20}.py', f'ealign-{"long" * 8}l'),
    (f'{"a" * 32}-b.py', f'ealign-{"a" * 32}'),
  ],
)
def test_job_names_are_taken_by_all_clusters(spec, name):
  command = command_lib.Command(None, '', (), (), (), (f'--config={spec}',))
  assert scripts._job(command) == name
  assert re.fullmatch('[a-z]([a-z0-9-]{0,38}[a-z0-9])?', name)


def test_a_config_of_the_package_is_on_each_machine(here, capsys):
  config = 'ealign:configs/demo.py:runlocal'
  argv = ['launch', f'--config={config}', '--workdir=gs://b/d']
  assert launch.main([*argv, '--print_launch=xpk']) == 0
  script = capsys.readouterr().out
  assert 'JOB="${JOB:-ealign-demo-runlocal}"' in script
  assert f'set -- --config={config} --workdir=gs://b/d' in script


def test_quoting_of_a_line_for_python_is_that_of_the_shell(here, capsys):
  script = printed(capsys, 'slurm', *GIVEN)
  start = script.index('set -- ')
  given = shlex.split(script[start : script.index('# JAX')])
  assert given[2:] == flags(*GIVEN)
