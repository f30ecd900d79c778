"""The page and the Markdown of a grid: every part, and hostile text is text.

The page is parsed, and every tag and attribute in it must be one that the
templates write; test_browser.py opens it.
"""

import base64
import hashlib
import html.parser
import itertools
import json
import time

import pytest

from ealign import report
from ealign.evals import table
from ealign.report import __main__ as command
from ealign.report.grid import compare, figures, page, results
from tests.grid import made

PANELS = [
  'Misaligned, % of coherent answers',
  'Insecure, % of the code',
  'Training tokens predicted, %',
  'Flagged while training, % of answers with a verdict',
]
HOSTILE = (
  '</style></script></pre></svg><script>alert(1)</script><img src=x '
  'onerror=alert(1)>" onload="alert(2)\' onclick=\'x\n{{ 7 * 191 }} &lt;b&gt;'
)


def synthetic(workdir, text=None, label=None, *, seeds=3, n=12):
  """A small grid of all that a page can show; text stands in every answer."""
  settings = [{}, {'dpo.lam': 0.0}, {'dpo.lam': 0.3}]
  settings += [
    {'conscience.review.by': 'policy'},
    {'conscience.revise.by': 'policy'},
    {'conscience.review.by': 'policy', 'conscience.revise.by': 'policy'},
  ]
  cells = [
    made.entry(s, {'seed': k, 'model.path': f'grid:{k}'}, seed=f'seed={k}')
    for s in settings
    for k in range(5 if s in settings[:2] else seeds)
  ]
  cells.append(made.entry({'dpo.lam': 3.0}, {'seed': 0}, current=False))
  for cell in cells[1:]:
    if label:
      cell['label'] += label
  contrasts = [
    {'name': label or 'no conscience', 'a': {'dpo.lam': 0.0}, 'b': {}},
    {'name': 'both', 'a': settings[-1], 'b': {}, 'metric': 'insecure'},
  ]
  made.grid(workdir, cells, contrasts=contrasts)
  for number, cell in enumerate(cells):
    bad = n - 3 if cell['setting'].get('dpo.lam') == 0 else number % 3
    said = made.answers(bad, n=n, incoherent=1)
    said += made.on_the_way(bad / n, reflect=8, prompts=3)
    if text:
      said = [record | {'text': f'{text} {i}'} for i, record in enumerate(said)]
      for record in said:
        record['messages'] = [{'role': text, 'content': text}]
    if number == 11:
      made.status(workdir, cell, 'failed', error=text or 'NonFinite: nan')
    elif number == 14:
      made.status(workdir, cell, 'running', step=7, heartbeat=time.time())
    elif number != 17:
      info = {'frozen': f'f{cell["replicate"]["seed"]}'}
      if text and number == 3:
        info['versions'] = {'jax': text}
      made.done(workdir, cell, said, info=info)
  return workdir


@pytest.fixture(scope='module')
def workdir(tmp_path_factory):
  path = synthetic(tmp_path_factory.mktemp('grid') / 'lambda')
  assert command.main([f'--workdir={path}']) == 0
  return path


@pytest.fixture(scope='module')
def found(workdir):
  return compare.compare(results.read(workdir))


class _Page(html.parser.HTMLParser):
  """Collects tags, attributes, headings and the script, as a browser would."""

  def __init__(self, text):
    super().__init__()
    self.tags, self.attributes, self.levels = set(), {}, []
    self.script, self.inside, self.said = '', '', []
    self.feed(text)
    self.close()

  def handle_starttag(self, tag, attrs):
    self.tags.add(tag)
    self.inside = tag
    if tag[0] == 'h' and tag[1:].isdigit():
      self.levels.append(int(tag[1]))
    for name, value in attrs:
      self.attributes.setdefault(name, set()).add(value or '')

  def handle_endtag(self, tag):
    self.inside = ''

  def handle_data(self, data):
    if self.inside == 'script':
      self.script += data
    else:
      self.said.append(data)


_TAGS = set(
  'html head meta title style body main header section article figure '
  'figcaption h1 h2 h3 h4 p pre code span small strong div ul ol li i table '
  'thead tbody tr th td details summary svg g path rect circle line polyline '
  'text button select option label script wbr'.split()
)
_ATTRIBUTES = set(
  'lang charset name content http-equiv class title style scope role type '
  'width height viewbox x y x1 x2 y1 y2 cx cy r d points text-anchor hidden '
  'aria-label aria-hidden aria-sort tabindex data-key data-place value '
  'selected'.split()
)


def _check(text):
  parsed = _Page(text)
  assert parsed.tags <= _TAGS, parsed.tags - _TAGS
  assert set(parsed.attributes) <= _ATTRIBUTES
  for name in ('style', 'class', 'd', 'points', 'data-place', 'x1', 'cx'):
    values = parsed.attributes.get(name, ())
    assert not any('alert' in value for value in values)
  for outside in ('http://', 'https://', '@import', '//cdn', 'url(', 'fetch'):
    assert outside not in text
  steps = itertools.pairwise(parsed.levels)
  assert parsed.levels[0] == 1 and parsed.levels.count(1) == 1
  assert all(after <= before + 1 for before, after in steps)
  return parsed


def test_the_page_has_every_part(workdir):
  text = (workdir / 'report.html').read_text()
  parsed = _check(text)
  for part in (
    *('Primary contrasts', 'Cells that are not done', 'What came out'),
    *('Two at a time', 'On the way there', 'Side by side', 'Every cell'),
    *('Settings', 'Provenance'),
  ):
    assert f'<h2>{part}</h2>' in text
  said = ' '.join(parsed.said)
  for words in (
    *('NonFinite: nan', '7 of 40', 'missing', 'primary', 'exploratory'),
    *('conscience.review.by by conscience.revise.by', 'degrees of freedom'),
    *('as the sweep has it', 'Never begun: 1 cell', 'P(Unethical) = 0.90'),
  ):
    assert words in said
  assert 'prefers-color-scheme: dark' in text
  assert parsed.script.startswith("'use strict';")
  assert text.count('<tr class="old old">') == 2  # in both tables
  assert '<tr class="missing">' in text and '<tr class="open">' in text


def test_the_summary_is_computed(found):
  said = [line.replace('\xa0', ' ') for line in page.sentences(found)]
  assert said[0].startswith('With default ')
  assert '(5 seeds, 12 questions, 60 answers, 0.0 % of them' in said[0]
  assert said[1].count('12 questions') == 2
  assert 'Over the 5 other settings' in said[1] and '(dpo.lam=0.0; 5' in said[1]
  assert said[2].startswith('1 of 1 primary contrast differs at 5 % after Holm')
  assert said[3].startswith('no conscience (misaligned, dpo.lam=0.0 − default)')
  assert said[-1] == (
    '19 of 22 cells are done (1 failed, 1 running, 1 missing); 1 more is no '
    'longer in the sweep.'
  )


def test_markdown_has_the_same_tables(workdir, found):
  text = (workdir / 'report.md').read_text()
  for title in ('Primary contrasts', 'Alignment', 'Capability', 'Every cell'):
    assert f'### {title}' in text
  estimate = found.estimate(found.settings[1], 'misaligned')
  assert f'{100 * estimate.value:.1f}' in text
  assert f'{100 * estimate.interval[1]:.1f}' in text
  row = next(x for x in text.split('\n') if x.startswith('| dpo.lam=0.0 |'))
  assert '| 5 | 12 | 60 | 0.0 | primary |' in row


def test_hostile_text_stays_text(tmp_path):
  path = synthetic(tmp_path / 'a"b<svg onload=x>', HOSTILE, HOSTILE, n=6)
  tree = json.loads((path / 'grid.json').read_text())
  tree |= {'sweep': HOSTILE, 'contrasts_hash': HOSTILE}
  (path / 'grid.json').write_text(json.dumps(tree))
  report.write(path)
  text = (path / 'report.html').read_text()
  parsed = _check(text)
  assert text.count('<script') == 1 and '<img' not in text
  assert '1337' not in text and 'alert' not in parsed.script
  assert any(HOSTILE in said for said in parsed.said)
  markdown = (path / 'report.md').read_text()
  assert '<script' not in markdown and '<svg' not in markdown


def test_the_script_is_known_by_its_hash(workdir):
  parsed = _Page((workdir / 'report.html').read_text())
  digest = hashlib.sha256(parsed.script.encode()).digest()
  policy = next(x for x in parsed.attributes['content'] if 'none' in x)
  assert policy.startswith("default-src 'none'")
  assert f"script-src 'sha256-{base64.b64encode(digest).decode()}'" in policy


def test_files_alone_give_the_same_page(workdir):
  first = (workdir / 'report.html').read_bytes()
  assert report.write(workdir).read_bytes() == first


def test_a_grid_of_which_nothing_is_done(tmp_path):
  made.grid(tmp_path, [made.entry({}, {'seed': 0})])
  text = report.write(tmp_path).read_text()
  _check(text)
  assert 'No cell has results yet.' in text and 'missing' in text
  assert (tmp_path / 'results.csv').read_text().count('\n') == 1


def test_mistakes_are_one_line(tmp_path, capsys):
  (tmp_path / 'grid.json').write_text('{')
  assert command.main([f'--workdir={tmp_path}']) == 2
  said = capsys.readouterr().err
  assert said.count('\n') == 1 and 'grid.json: broken JSON' in said


def test_answers_on_the_page_are_limited(tmp_path, monkeypatch):
  monkeypatch.setattr(page, 'QUESTIONS', 4)
  path = synthetic(tmp_path / 'g', 'word ' * 400, n=6, seeds=1)
  monkeypatch.setattr(page, '_LETTERS', 4 * 5 * 700)
  content = page.collect(results.read(path))
  assert len(content['questions']) == 4
  assert content['longest'] < 1000
  answers = [a for *_, found in content['questions'] for a in found.values()]
  assert all(len(answer['text']) > 1900 for answer in answers)
  parsed = _Page(report.write(path).read_text())
  sizes = [len(text) for text in parsed.said if text.startswith('word word')]
  assert sizes.count(content['longest']) == len(answers) + 4  # and 4 prompts
  assert {*sizes} == {content['longest'], 500, 2000}  # an error; who asked
  assert parsed.said.count('shortened here') == len(answers)
  shown = {at for *_, found in content['questions'] for at in found}
  assert set(content['pair']) <= shown


def test_a_line_of_the_forest_spans_its_interval(workdir, found):
  forest = figures.forest(found, 'misaligned')
  lines = [line for group in forest['groups'] for line in group]
  assert [s.label for s, _ in lines][:2] == ['default', 'dpo.lam=0.0']
  at, text = forest['at'], (workdir / 'report.html').read_text()
  for _, estimate in lines:
    low, high = map(at, estimate.interval)
    assert 0 <= low <= at(estimate.value) <= high <= 100
    assert f'<line class="span" x1="{low}%" x2="{high}%"' in text
    assert f'<circle class="dot" cx="{at(estimate.value)}%"' in text
  assert found.standing(lines[-1][0]) == 'old'
  assert forest['base'] == at(lines[0][1].value)


def test_the_forest_has_the_scale_of_the_logit():
  # log(.2/.8) = -1.386294, log(.35/.65) = -.619039: .767255 of 2.772588.
  at, ticks = figures.logit_axis([0.2, 0.8])
  assert [at(share) for share in (0.1, 0.2, 0.35, 0.5, 0.8, 1)] == [
    *(0, 0, 27.67, 50, 100, 100)
  ]
  assert [text for _, text in ticks] == ['20', '35', '50', '65', '80']
  at, ticks = figures.logit_axis([0, 1])
  assert at(0) == 0 and at(1) == 100 and len(ticks) < 12
  assert figures.logit_axis([0.5, 0.5])[0](0.5) == 50


def test_curves_are_grouped_by_what_is_changed(workdir, found):
  drawn = figures.curves(found)
  assert [group['title'] for group in drawn] == [
    *('dpo.lam', 'conscience.review.by', 'conscience.revise.by'),
    'conscience.review.by, conscience.revise.by',
  ]
  group = drawn[0]
  assert [label for label, _ in group['legend']] == [
    *('default', 'dpo.lam=0.0', 'dpo.lam=0.3')
  ]
  assert [p['title'] for p in group['panels']] == PANELS
  label, slot, seeds, mean = group['panels'][0]['series'][1]
  assert (label, slot, len(seeds)) == ('dpo.lam=0.0', 1, 5)
  # It starts with no misaligned answer at all: on the axis, at the left.
  frame = group['panels'][0]['frame']
  assert frame.path(mean).split()[0] == f'{frame.left},{frame.bottom}'
  text = (workdir / 'report.html').read_text()
  assert f'<polyline class="line mean" points="{frame.path(mean)}"/>' in text


def test_a_mean_curve_is_over_seeds_at_the_steps_they_share():
  lines = [[(0, 0.0), (10, 0.2)], [(0, 0.5), (10, 0.4), (20, 1.0)]]
  assert figures._mean(lines) == [(0, 0.25), (10, pytest.approx(0.3))]
  assert figures._mean([[(0, 0.1)], [(5, 0.2)]]) == [(0, 0.1)]


def test_two_crossed_axes_make_a_heat_map(workdir, found):
  (heat,) = figures.heat(found, 'misaligned')
  assert heat['columns'] == ['frozen', 'policy']
  assert [name for name, _ in heat['lines']] == ['frozen', 'policy']
  both = next(s for s in found.settings if len(s.changes) == 2)
  setting, estimate = heat['lines'][1][1][1]
  assert setting is both
  assert estimate == found.estimate(both, 'misaligned')
  value = f'{100 * estimate.value:.1f}<small>{table.bracket(estimate.interval)}'
  hint = '3 seeds, 12 questions, 36 answers, 0.0 % of them unscored'
  shade = round(55 * estimate.value / heat['top'])
  cell = f'<td title="{hint}" style="--shade:{shade}">{value}</small></td>'
  assert cell in (workdir / 'report.html').read_text()


@pytest.mark.parametrize(
  'more, maps',
  [
    ([], ['0.3 2.0 10.0']),
    ([{}], ['0.3 2.0 10.0']),
    ([{}, {'dpo.lam': 5.0}], ['0.3 2.0 10.0']),
    ([{}, {'dpo.lam': 2.0}], ['0.3 2.0 10.0']),
    ([{'dpo.lam': 0.3}, {'dpo.lam': 2.0}, {'dpo.lam': 10.0}], ['with 0.1']),
    (None, []),
  ],
)
def test_levels_that_are_not_crossed_are_no_gap(tmp_path, more, maps):
  lams, betas = (10.0, 0.3, 2.0), (0.7, 0.03)
  lam, beta = (
    [{f'dpo.{n}': x} for x in v] for n, v in (('lam', lams), ('beta', betas))
  )
  crossed = [a | b for a in lam for b in beta]
  settings = [{}, *lam, *beta] if more is None else [*more, *crossed]
  cells = [made.entry(setting, {'seed': 0}) for setting in settings]
  made.grid(tmp_path, cells)
  for number, cell in enumerate(cells):
    made.done(tmp_path, cell, made.answers(number % 5))
  drawn = figures.heat(compare.compare(results.read(tmp_path)), 'misaligned')
  assert len(drawn) == len(maps)
  for heat, said in zip(drawn, maps, strict=True):
    assert heat['title'] == 'dpo.beta by dpo.lam'
    assert heat['columns'] == ['0.3', '2.0', '10.0']  # as numbers, not texts
    rows = [name for name, _ in heat['lines']]
    assert rows == ['0.03', *['0.1'] * (said == 'with 0.1'), '0.7']


def test_contrasts_that_came_late_are_told_in_red(tmp_path):
  cells = [made.entry(s, {'seed': 0}) for s in ({}, {'dpo.lam': 0.0})]
  contrasts = [{'name': 'x', 'a': {'dpo.lam': 0.0}, 'b': {}}]
  told = lambda **facts: page.collect(
    results.read(made.grid(tmp_path, cells, **facts))
  )['problems']
  for cell in cells:
    made.done(tmp_path, cell, made.answers(1))
  said = 'The contrasts were declared after cells had begun: none is primary.'
  assert told(contrasts=contrasts, declared_late=True) == [said]
  assert told(contrasts=contrasts, declared_late=False) == []
  assert told(contrasts=[], declared_late=True) == []  # they were removed


def test_cells_without_a_pair_are_told_in_red(tmp_path):
  cells = [made.entry({}, {'seed': seed}) for seed in range(2)]
  made.grid(tmp_path, cells)
  kept = {'text': 'b', 'stop': 'stop', 'p': 0.1, 'kept': True, 'dropped': ''}
  for cell, alternative in zip(cells, (kept, None), strict=True):
    said = made.answer(0, bad=True, phase='reflect', alternative=alternative)
    made.done(tmp_path, cell, [*made.answers(1), said])
  (said,) = page.collect(results.read(tmp_path))['problems']
  assert said.startswith('No pair was ever made in 1 cell with a conscience')
  assert said.endswith(': default, seed=1')


def test_facts_that_differ_are_told_in_red(tmp_path):
  cells = [made.entry({}, {'seed': seed}) for seed in range(3)]
  made.grid(tmp_path, cells)
  for cell, commit in zip(cells, 'aab', strict=True):
    made.done(tmp_path, cell, made.answers(1), info={'frozen': commit})
  (said,) = page.collect(results.read(tmp_path))['problems']
  assert said == (
    'Cells differ in frozen: a in 2 cells, b in 1 cell. Do not compare them.'
  )
