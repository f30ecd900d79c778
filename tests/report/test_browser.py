"""The pages of a grid and of an evaluation in a real browser.

Hostile text runs nothing, sorting works by mouse and keyboard, and a narrow
screen does not scroll sideways.
"""

import os
import shutil

import pytest

from ealign import report
from ealign.evals import suites
from ealign.report import evaluation
from tests.report import test_evaluation_page as evaluated
from tests.report import test_grid_page as test_page

webdriver = pytest.importorskip(
  'selenium.webdriver', reason='selenium is not installed: extra test-browser'
)
CHROMIUM = shutil.which('chromium') or shutil.which('google-chrome')
DRIVER = shutil.which('chromedriver')
pytestmark = pytest.mark.skipif(
  not (CHROMIUM and DRIVER),
  reason='no Chromium: apt-get install chromium chromium-driver',
)

RUN = 'window.caught = (window.caught || 0) + 1; alert(1)'
HOSTILE = (
  f'</script></style></svg></pre></option></select><script>{RUN}</script>'
  f'<img src=x onerror="{RUN}"><svg onload="{RUN}"></svg>" onfocus="{RUN}" '
  f'autofocus tabindex=0 x=\'><iframe src="javascript:{RUN}"></iframe>'
  f'<a href="javascript:{RUN}">x</a><details open ontoggle="{RUN}">'
  '<link rel=stylesheet href=http://127.0.0.1:9/x><meta http-equiv=refresh '
  'content="0;url=http://127.0.0.1:9/">{{ 7 * 191 }}&lt;b&gt;'
)


@pytest.fixture(scope='module')
def browser(tmp_path_factory):
  folder = tmp_path_factory.mktemp('chromium')
  options = webdriver.ChromeOptions()
  options.binary_location = CHROMIUM
  flags = ['headless=new', 'disable-dev-shm-usage', 'disable-gpu']
  flags += ['no-first-run', f'user-data-dir={folder}']
  flags += ['no-sandbox'] if os.geteuid() == 0 else []
  for flag in flags:
    options.add_argument(f'--{flag}')
  logs = {'browser': 'ALL', 'performance': 'ALL'}
  options.set_capability('goog:loggingPrefs', logs)
  options.set_capability('unhandledPromptBehavior', 'ignore')
  service = webdriver.ChromeService(DRIVER)
  driver = webdriver.Chrome(options=options, service=service)
  driver.set_script_timeout(10)
  yield driver
  driver.quit()


def _show(browser, path, width=1200):
  browser.execute_cdp_cmd(
    'Emulation.setDeviceMetricsOverride',
    {'width': width, 'height': 900, 'deviceScaleFactor': 1, 'mobile': False},
  )
  browser.get(path.as_uri())


@pytest.fixture(scope='module')
def plain(tmp_path_factory):
  return report.write(
    test_page.synthetic(tmp_path_factory.mktemp('plain') / 'g')
  )


@pytest.fixture(scope='module')
def hostile(tmp_path_factory):
  path = tmp_path_factory.mktemp('hostile') / 'g'
  return report.write(test_page.synthetic(path, HOSTILE, HOSTILE, n=6, seeds=1))


def test_hostile_text_runs_nothing(browser, hostile):
  for log in ('browser', 'performance'):
    browser.get_log(log)  # what came before
  _show(browser, hostile)
  for button in browser.find_elements('css selector', 'thead button')[:3]:
    browser.execute_script('arguments[0].click()', button)
  browser.execute_script(
    'for (const x of document.querySelectorAll("details")) x.open = true;'
    'for (const x of document.querySelectorAll("*")) x.focus?.();'
  )
  with pytest.raises(Exception, match='no such alert'):
    browser.switch_to.alert.accept()
  assert browser.execute_script('return window.caught') is None
  assert browser.get_log('browser') == []
  asked = [
    entry['message']
    for entry in browser.get_log('performance')
    if '"Network.requestWillBeSent"' in entry['message']
  ]
  assert len(asked) == 1 and 'report.html' in asked[0]
  assert browser.current_url == hostile.as_uri()
  count = 'return document.querySelectorAll(arguments[0]).length'
  assert browser.execute_script(count, 'script') == 1
  assert browser.execute_script(count, 'img, iframe, a, link, base, form') == 0
  shown = browser.find_element('tag name', 'body').text
  assert HOSTILE in shown and '1337' not in shown


def test_a_script_of_the_page_other_than_ours_would_not_run(browser, plain):
  # Were a text ever not escaped: the policy knows the script by its hash.
  text = plain.read_text().replace('</main>', f'<script>{RUN}</script></main>')
  bad = plain.with_name('bad.html')
  bad.write_text(text.replace('<main>', f'<main><img src=x onerror="{RUN}">'))
  _show(browser, bad)
  assert browser.execute_script('return window.caught') is None
  said = ' '.join(entry['message'] for entry in browser.get_log('browser'))
  assert said.count('Content Security Policy') >= 3


def _table(browser, title):
  region = f'[role=region][aria-label="{title}"]'
  return browser.find_element('css selector', f'{region} table')


def _column(browser, table, at):
  return browser.execute_script(
    'return [...arguments[0].tBodies[0].rows].map('
    '(row) => row.cells[arguments[1]].dataset.key)',
    *(table, at),
  )


def test_a_click_or_a_key_sorts(browser, plain):
  _show(browser, plain)
  table = _table(browser, 'Alignment')
  heads = table.find_elements('css selector', 'thead th')
  titles = [head.text for head in heads]
  assert titles[:2] == ['setting', 'misaligned']
  before = _column(browser, table, 0)
  heads[1].find_element('tag name', 'button').click()
  values = [float(x) for x in _column(browser, table, 1) if x]
  assert values == sorted(values, reverse=True) and len(set(values)) > 2
  assert _column(browser, table, 0) != before
  assert heads[1].get_attribute('aria-sort') == 'descending'
  button = heads[1].find_element('tag name', 'button')
  button.send_keys('\ue007')  # Enter
  assert heads[1].get_attribute('aria-sort') == 'ascending'
  rising = [float(x) for x in _column(browser, table, 1) if x]
  assert rising == sorted(rising)
  heads[0].find_element('tag name', 'button').send_keys(' ')
  assert heads[0].get_attribute('aria-sort') == 'ascending'
  assert heads[1].get_attribute('aria-sort') == 'none'
  labels = _column(browser, table, 0)
  assert labels[:3] == ['default', 'dpo.lam=0.0', 'dpo.lam=0.3']
  # What is missing stands last either way: the baseline's own change.
  at = titles.index('change')
  for _ in range(2):
    heads[at].find_element('tag name', 'button').click()
    assert _column(browser, table, at)[-1] == ''


def test_two_settings_side_by_side(browser, plain):
  _show(browser, plain)
  shown = lambda: browser.execute_script(
    'return [...document.querySelectorAll(".answers")].map((x) => '
    '[...x.children].filter((y) => y.offsetParent).sort((a, b) => '
    'a.style.order - b.style.order).map((y) => y.querySelector("strong")'
    '.textContent))'
  )
  assert ['default', 'dpo.lam=0.0'] in shown()
  left, right = browser.find_elements('css selector', 'select.side')
  left.find_element('css selector', 'option[value="1"]').click()
  right.find_element('css selector', 'option[value="0"]').click()
  assert ['dpo.lam=0.0', 'default'] in shown()
  right.find_element('css selector', 'option[value="1"]').click()
  assert all(names in (['dpo.lam=0.0'], []) for names in shown())


@pytest.mark.parametrize('scheme', ['light', 'dark'])
def test_a_narrow_screen_does_not_scroll_sideways(browser, hostile, scheme):
  feature = {'name': 'prefers-color-scheme', 'value': scheme}
  browser.execute_cdp_cmd('Emulation.setEmulatedMedia', {'features': [feature]})
  _show(browser, hostile, width=390)
  assert browser.execute_script('return innerWidth') == 390
  wide = 'return document.documentElement.scrollWidth'
  assert browser.execute_script(wide) <= 390
  paper = browser.execute_script(
    'return getComputedStyle(document.body).backgroundColor'
  )
  assert ('rgb(253' in paper) == (scheme == 'light')


def test_a_reader_of_screens_finds_its_way(browser, plain):
  _show(browser, plain)
  found = browser.execute_script("""
    const all = (query) => [...document.querySelectorAll(query)];
    const empty = (x) => !x.textContent.trim();
    return {
      language: document.documentElement.lang,
      levels: all('h1, h2, h3, h4').map((x) => +x.tagName[1]),
      scopeless: all('th:not([scope])').length,
      unsorted: all('table.sortable thead th:not([aria-sort])').length,
      nameless: all('button, summary, option').filter(empty).length,
      unlabelled: all('select').filter((x) => !x.labels.length).length,
      mute: all('svg').filter((x) => !x.closest('[aria-hidden=true]')
        && !x.getAttribute('aria-label')).length,
      twice: all('[id]').length - new Set(all('[id]').map((x) => x.id)).size,
      scrolling: all('.wide').filter((x) => x.tabIndex < 0).length,
    };
  """)
  levels = found.pop('levels')
  assert levels[0] == 1 and 1 not in levels[1:]
  steps = zip(levels, levels[1:], strict=False)
  assert all(after - before <= 1 for before, after in steps)
  assert found.pop('language') == 'en'
  assert not any(found.values()), found


@pytest.fixture(scope='module')
def hostile_evaluation(tmp_path_factory):
  models = {'base': evaluated.of(evaluated.BASE)}
  models[f'model{HOSTILE}'] = evaluated.everything(HOSTILE)
  names = ('misalignment', 'contextual', 'refusal', 'self_report')
  content = evaluation.collect(
    models, [suites.SUITES[name] for name in names], settings={'x': HOSTILE}
  )
  return evaluation.write(tmp_path_factory.mktemp('evaluation'), content)


@pytest.mark.parametrize('scheme', ['light', 'dark'])
@pytest.mark.parametrize('width', [390, 1200])
def test_an_evaluation_runs_nothing_and_fits(
  browser, hostile_evaluation, scheme, width
):
  feature = {'name': 'prefers-color-scheme', 'value': scheme}
  browser.execute_cdp_cmd('Emulation.setEmulatedMedia', {'features': [feature]})
  for log in ('browser', 'performance'):
    browser.get_log(log)
  _show(browser, hostile_evaluation, width)
  browser.execute_script(
    'for (const x of document.querySelectorAll("details")) x.open = true;'
  )
  assert browser.execute_script('return window.caught') is None
  assert browser.get_log('browser') == []
  asked = [
    entry['message']
    for entry in browser.get_log('performance')
    if '"Network.requestWillBeSent"' in entry['message']
  ]
  assert len(asked) == 1
  count = 'return document.querySelectorAll(arguments[0]).length'
  assert browser.execute_script(count, 'script, img, iframe, a, link') == 0
  assert HOSTILE in browser.find_element('tag name', 'body').text
  wide = 'return document.documentElement.scrollWidth'
  assert browser.execute_script(wide) <= width
  apart = browser.execute_script(
    'return [...document.querySelectorAll("table.rates tbody tr")].filter('
    '(row) => row.cells[0].scrollWidth > row.cells[0].clientWidth + 1).length'
  )
  assert apart == 0  # no name runs into the numbers beside it
