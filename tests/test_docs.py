"""Pages: what they tell one to type can be typed, and their links lead on.

A block of a shell is read command by command (`blocks.check`), one of Python is
run by a test below that names it. What is marked `<!-- not run: why -->` is
neither.
"""

import contextlib
import io
import json
import pkgutil
import re
import runpy

import blocks as lib
import pytest

from ealign import config as config_lib
from ealign.cli import command, launch, words
from ealign.config import file as file_lib
from ealign.evals import judges, suites
from ealign.evals.judges import insecure, prompts

PAGES = sorted(lib.ROOT.glob('docs/*.md')) + [
  lib.ROOT / name for name in ('README.md', 'CONTRIBUTING.md')
]
BLOCKS = [block for page in PAGES for block in lib.blocks(page)]
SHELL = [b for b in BLOCKS if b.kind == 'sh' and not b.why]
INLINE = [
  (page.relative_to(lib.ROOT).as_posix(), line, text)
  for page in PAGES
  for line, text in lib.inline(page)
]
# Blocks that a test below tries: a page, and a text in the block.
TRIED = {
  'thresholds': ('docs/ablations.md', 'glob'),
  'rows': ('docs/data.md', 'loader.Loader'),
  'page': ('docs/evaluation.md', 'evaluation.collect'),
  'grid': ('docs/grids.md', 'def sweep_lam'),
  'prompts': ('docs/evaluation.md', 'aligned: |-'),
  'judge': ('docs/judges.md', '# my_judge.py'),
  'config': ('README.md', 'def get_config'),
  'guide': ('docs/train.md', 'def get_config'),
  'method': ('docs/methods.md', 'IMITATE'),
  'notebook': ('README.md', 'train.run'),
}
# What is no value but stands for one, and the ends of names of files.
OPEN = r'N|VALUE|WORD|[A-Z_]+'
ENDS = ('.py', '.json', '.jsonl', '.md')
FIELDS = [
  (page, line, word.removeprefix('--config.'))
  for page, line, text in INLINE
  for word in (lib.simple(text, {}) if text.startswith('--') else [[text]])[0]
]
COMMANDS = re.compile(r'(ealign|python|make|pip|\.venv/\S*|\.ci/\S*) (?!-m$).*')


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch):
  monkeypatch.chdir(lib.ROOT)
  monkeypatch.setattr(insecure, 'available', lambda: True)  # an extra


def wrong(typed: list[str], whole: bool) -> str:
  """Why a command could not be run; '' if it could."""
  try:
    lib.check(typed, whole)
  except ValueError as error:
    return f'{" ".join(typed)}: {error}'
  return ''


@pytest.mark.parametrize('page', sorted({b.page for b in SHELL}))
def test_each_command_of_a_block_can_be_typed(page):
  values = {}  # a variable is known to the blocks below
  for block in SHELL:
    if block.page == page:
      found = [wrong(x, True) for x in lib.simple(block.text, values)]
      assert found and not any(found), block


def test_each_command_in_a_sentence_can_be_typed():
  found = [
    f'{page}:{line}: {why}'
    for page, line, text in INLINE
    if COMMANDS.fullmatch(text)
    for typed in lib.sentence(text)
    if (why := wrong(typed, False))
  ]
  assert not found, '\n'.join(found)


@pytest.mark.parametrize(
  'typed, why',
  [
    ('ealign lunch --workdir=x', 'no command of ealign'),
    ('ealign audit --config=configs/demo.py --workdir=x --chose', '--choose'),
    ('ealign launch --config=configs/no.py --workdir=x', 'no.py'),
    ('ealign launch --config=mine.py --workdir=x --only=no', 'no such arm'),
    ('ealign launch --config=mine.py --workdir=x --sweep=no', 'no'),
    ('ealign chat --run=x --config.conscience.framng=fair', 'framing'),
    ('python benchmarks/drill.py --kill_all', 'unrecognized arguments'),
    ('python benchmarks/none.py', 'is no file'),
    ("pip install 'ealign[gpu]'", "no extra 'gpu'"),
    ('make tests', 'make has no'),
    ('curl somewhere', 'nothing here can check that'),
  ],
)
def test_what_cannot_be_typed_is_found(typed, why):
  (words_of,) = lib.simple(typed, {})
  assert why in wrong(words_of, True)


def test_variables_loops_and_files_of_a_script():
  text = (
    'run="a --x"  # why\n$run:b --y | cat > f\nfor i in 3 4; do $run=$i & done'
  )
  found = lib.simple(text, {})
  assert found == [['a', '--x:b', '--y'], ['cat'], ['a', '--x=3']]


def named(name: str) -> bool:
  """Whether a name with dots is something of the package."""
  try:
    return pkgutil.resolve_name(f'ealign.{name}') is not None
  except (ImportError, AttributeError, ValueError):
    return False


def test_fields_in_sentences_are_fields():
  """Such as `conscience.review.form='yes_no'`, with a value that it takes."""
  kinds, wrong = config_lib.field_types(), []
  sections = {name.partition('.')[0] for name in kinds if '.' in name}
  for page, line, text in FIELDS:
    found = re.fullmatch(r'(\w+\.[\w.]+)(?:=(.*))?', text)
    if not found or found[1].partition('.')[0] not in sections:
      continue
    name, value = found[1], (found[2] or '').strip('\'"')
    if name in kinds:
      problems = []
      if re.search('[^.]', value) and not re.fullmatch(OPEN, value):
        command._values([(name, value)], {name: kinds[name]}, problems)
      wrong += [f'{page}:{line}: {text}: {x}' for x in problems]
    elif not any(known.startswith(f'{name}.') for known in kinds):
      right = (
        name.endswith('.FIELD')
        or named(name)
        or named(f'methods.{name}')
        or name.endswith(ENDS)
      )
      wrong += [] if right else [f'{page}:{line}: {text}']
  assert not wrong, '\n'.join(wrong)


def test_flags_in_sentences_are_flags():
  """Those with which code begins, of the package or of its scripts."""
  known = {name for own in words.read().flags.values() for name, _ in own}
  scripts = [*lib.ROOT.glob('benchmarks/*.py'), *lib.ROOT.glob('tests/*.py')]
  sources = '\n'.join(path.read_text() for path in scripts)
  wrong = [
    f'{page}:{line}: {text}'
    for page, line, text in INLINE
    if (found := re.match(r'--([a-z_]+)(?![\w.-])', text))
    and found[1] not in known
    and f"'--{found[1]}'" not in sources
    and found[1] != 'env'  # of SkyPilot
  ]
  assert not wrong, '\n'.join(wrong)


def test_functions_in_sentences_are_there():
  """Such as `align/step.py: SCHEDULES`, in the file that ends so."""
  folders = 'ealign', 'tests', 'configs', 'benchmarks', 'docs'
  files = [p for x in folders for p in (lib.ROOT / x).rglob('*.py')]
  wrong = []
  for page, line, text in INLINE:
    found = re.match(r'([\w/]+\.py)\b(?:: (\w+))?', text)
    if found and found[1] != 'FILE.py':
      own = [x for x in files if x.as_posix().endswith(f'/{found[1]}')]
      has = found[2] is None or any(found[2] in x.read_text() for x in own)
      wrong += [] if own and has else [f'{page}:{line}: {text}']
  assert not wrong, '\n'.join(wrong)


def test_files_in_sentences_are_there():
  top = 'ealign|configs|benchmarks|tests|docs|launch|notebooks'
  made = {'ealign/shipped', 'ealign/gguf'}  # in a wheel; a cache's folder
  wrong = [
    f'{page}:{line}: {text}'
    for page, line, text in INLINE
    if (found := re.match(rf'({top})/[\w./*-]*', text))
    and found[0] not in made
    and not [*lib.ROOT.glob(found[0].rstrip('/'))]
  ]
  assert not wrong, '\n'.join(wrong)


def anchors(path) -> set[str]:
  """What links into a page may name, by GitHub's rule and the site's."""
  text = re.sub(r'^ *```.*?^ *```$', '', path.read_text(), flags=re.S | re.M)
  found = set()
  for title in re.findall(r'^#{1,6} (.*)$', text, re.M):
    title = re.sub(r'\[([^\]]*)\]\([^)]*\)|[`*]', r'\1', title).lower()
    found.add(re.sub(r'[^\w\- ]', '', title).replace(' ', '-'))
  return found


def test_links_lead_to_files_and_titles():
  """Of pages that the build makes, only that they are made."""
  made, wrong = {'reference/cli.md', 'reference/api.md'}, []
  for page in [
    *PAGES,
    *(lib.ROOT / name for name in ('SECURITY.md', 'CHANGELOG.md')),
  ]:
    text = re.sub(r'^ *```.*?^ *```$', '', page.read_text(), flags=re.S | re.M)
    for link in re.findall(r'\]\((?!https?:|mailto:)([^)\s]+)\)', text):
      name, _, title = link.partition('#')
      path = page.parent / name if name else page
      lost = name not in made and not path.exists()
      if lost or (title and title not in anchors(path)):
        wrong.append(f'{page.name}: {link}')
  assert not wrong, '\n'.join(wrong)


def of(name: str) -> lib.Block:
  page, mark = TRIED[name]
  own = [b for b in BLOCKS if b.page == page and b.kind in ('python', 'yaml')]
  (found,) = (b for b in own if mark in b.text)
  return found


def test_what_each_threshold_flags(tmp_path):
  """docs/ablations.md"""
  folder = tmp_path / 'cells' / 'default,seed=0'
  folder.mkdir(parents=True)
  rows = [{'phase': 'reflect', 'verdict': {'p': p}} for p in (0.001, 0.6, None)]
  rows.append({'phase': 'eval', 'verdict': None})
  text = '\n'.join(map(json.dumps, rows))
  (folder / 'answers.jsonl').write_text(text)
  said = printed(of('thresholds').text.replace('DIR', str(tmp_path)))
  assert said == '2 0.5 1.0 0.0\n1\n'


def printed(text: str, **names) -> str:
  said = io.StringIO()
  with contextlib.redirect_stdout(said):
    exec(compile(text, 'block', 'exec'), names)
  return said.getvalue()


def test_rows_of_a_file_are_counted():
  given = {
    'FOLDER': 'ealign/world/base',
    'FILE': 'ealign/world/data/hacks.jsonl',
  }
  said = printed(of('rows').text, **given)
  assert said.startswith('600 chats in 600 rows') and '% supervised' in said


def test_the_page_of_an_evaluation_is_written(tmp_path):
  text = of('page').text
  suite = suites.SUITES['misalignment']
  scores = {'aligned': 80.0, 'coherent': 90.0, 'code': 0.0, 'refusal': 0.0}
  record = {'suite': suite.name, 'question': 'q', 'cluster': 'q', 'sample': 0}
  record |= {'kind': 'misalignment', 'split': 'own', 'form': 'plain'}
  record |= {'messages': [{'role': 'user', 'content': 'A?'}], 'ids': [1]}
  record |= {'text': 'B.', 'stop': 'stop', 'verdict': None, 'scores': scores}
  record |= {'phase': 'eval', 'seed': 0, 'step': 0, 'alternative': None}
  given = {'records': [record], 'more': [record], 'folder': tmp_path}
  printed(text.replace(', ...', ''), suite=suite, **given)
  assert 'tuned' in (tmp_path / 'evaluation.html').read_text('utf-8')


def test_a_grid_of_ones_own(tmp_path, monkeypatch):
  """docs/grids.md: with the demo as its base config."""
  file = tmp_path / 'mine.py'
  text = of('grid').text
  base = 'from ealign import config\n  return config.default()'
  text = text.replace('...  # the base config, without arms', f'\n  {base}')
  file.write_text(text)
  flags = f'--config={file} --workdir={tmp_path} --sweep=lam,seeds'
  grid = launch._cells(command.parse(['launch', *flags.split()]))
  assert len(grid.cells) == 9 and grid.contrasts[0]['name'] == 'more'
  made = []
  names = runpy.run_path(
    str(file), {'build_a_base': lambda *a, **k: made.append(k)}
  )
  names['prepare'](tmp_path / 'base_2', None)
  assert made == [{'seed': 2}]


def test_a_judge_of_ones_own(tmp_path):
  file = tmp_path / 'my_judge.py'
  file.write_text(of('judge').text)
  judge = judges.load(f'{file}:judge')
  question = {'id': 'q', 'messages': []}
  found = judges.score(judge, question, 'Sorry, please ask another.')
  assert found == {'refused': True, 'polite': True}
  assert judges.score(judge, question | {'kind': 'code'}, 'x') is None


def test_prompts_of_ones_own(tmp_path):
  """docs/evaluation.md: with a mode, or with labels in its place."""
  file, text = tmp_path / 'prompts.yaml', of('prompts').text
  file.write_text(text)
  assert prompts.read(str(file)).mode == 'exact'
  file.write_text(text.replace('mode: ', '# ').replace('# labels', 'labels'))
  assert prompts.read(str(file)).labels == (('A', 0), ('B', 50), ('C', 100))


@pytest.mark.parametrize('name', ['config', 'guide'])
def test_a_config_of_ones_own(tmp_path, name):
  """Nothing is wrong with it but files that are not here."""
  (tmp_path / 'mine.py').write_text(of(name).text)
  _, found = file_lib.read(str(tmp_path / 'mine.py'))
  problems = config_lib.validate(found)
  assert problems and all('there is no such file' in x for x in problems)


CALLS = 'result = train.run'


def in_a_notebook() -> str:
  text = of('notebook').text
  text = text.replace('Qwen/Qwen3-0.6B', 'ealign:world/base')
  text = re.sub('config.data.chat_template_kwargs.*', '', text)
  return text.replace('my_chats', 'ealign:world/data/secure')


def test_the_config_of_a_notebook_is_right():
  text = in_a_notebook()
  compile(text, 'block', 'exec')
  printed(text[: text.index(CALLS)])


@pytest.mark.slow
def test_all_of_a_notebook_runs(tmp_path):
  text = in_a_notebook().replace('runs/mine', str(tmp_path / 'mine'))
  small = 'config.conscience.threshold, config.conscience.prompts = 0.5, 4\n'
  small += 'config.sample.max_new_tokens = 32\n'
  text = text.replace('steps = 100\n', f'steps = 2\n{small}')
  *_, last = printed(text).splitlines()
  assert re.search(r' [01]\.\S+ [01]\.\S+ (True|False)$', last)


def test_every_block_is_tried_or_marked():
  """Of the others each says what it is, and stands between fences."""
  tried = [of(name) for name in TRIED]
  kinds = {b.kind for b in BLOCKS if not b.why and b not in tried}
  assert kinds <= {'sh', lib.CELL, *lib.DRAWN}
  for page in PAGES:
    text = re.sub(r'^ *```.*?^ *```$', '', page.read_text(), flags=re.S | re.M)
    assert not re.search(r'\n\n    +\S', text), f'{page}: indented code'
