"""setup.cfg takes everything along; versions and release papers agree."""

import configparser
import fnmatch
import pathlib
import re

import yaml
from packaged import bounds

import ealign

ROOT = pathlib.Path(__file__).parents[1]
SETUP = configparser.ConfigParser()
SETUP.read(ROOT / 'setup.cfg')
OUTSIDE = ('configs', 'configs.grids', 'configs.studies', 'launch')


def lines(section, name):
  return [x for x in SETUP[section][name].split('\n') if x and x[0] != '#']


def test_every_folder_with_code_is_a_package_of_the_wheel():
  here = {
    '.'.join(file.parent.relative_to(ROOT).parts)
    for file in (ROOT / 'ealign').rglob('__init__.py')
  }
  outside = {f'ealign.shipped.{name}' for name in OUTSIDE}
  assert set(lines('options', 'packages')) == here | outside
  places = dict(x.split(' = ') for x in lines('options', 'package_dir'))
  assert places == {
    f'ealign.shipped.{name}': name.replace('.', '/') for name in OUTSIDE
  }


def test_every_folder_of_configs_is_in_the_wheel():
  folders = {x.parent for x in (ROOT / 'configs').rglob('*.py')}
  found = {'.'.join(x.relative_to(ROOT).parts) for x in folders}
  assert found == set(OUTSIDE) - {'launch'}


def test_every_data_file_is_in_the_wheel():
  packages = set(lines('options', 'packages'))
  patterns = {
    name: SETUP['options.package_data'][name].split()
    for name in SETUP['options.package_data']
  }
  files = [
    file
    for file in (ROOT / 'ealign').rglob('*')
    if file.is_file() and file.suffix not in ('.py', '.pyc')
  ]
  assert len(files) > 40
  for file in files:
    parts = file.relative_to(ROOT).parts
    of = [n for n in range(1, len(parts)) if '.'.join(parts[:n]) in packages]
    package, inside = '.'.join(parts[: of[-1]]), '/'.join(parts[of[-1] :])
    globs = [
      glob
      for glob in patterns.get(package, ())
      if fnmatch.fnmatch(inside, glob) and inside.count('/') == glob.count('/')
    ]
    assert globs, f'{file.relative_to(ROOT)}: add it to package_data'


def test_every_requirement_has_a_lower_bound():
  assert 'jinja2==3.1.6' in bounds()  # it fails where one has none
  assert len(bounds()) == len(lines('options', 'install_requires'))


def test_every_extra_is_on_the_page_of_installing():
  page = (ROOT / 'docs/install.md').read_text()
  section = page.partition('## Extras')[2]
  named = re.findall('`([a-z-]+)`', section)
  assert set(SETUP['options.extras_require']) <= set(named)


def test_the_version_is_the_same_everywhere():
  changes = (ROOT / 'CHANGELOG.md').read_text()
  heads = re.findall(r'^## \[(.+?)\]', changes, re.MULTILINE)
  assert heads[0] == 'Unreleased' and heads[1] == ealign.__version__
  dated = re.findall(r'^## \[\d.+\] - \d{4}-\d\d-\d\d$', changes, re.MULTILINE)
  assert len(dated) == len(heads) - 1
  cited = yaml.safe_load((ROOT / 'CITATION.cff').read_text())
  assert cited['version'] == ealign.__version__
  assert cited['cff-version'] == '1.2.0' and cited['license'] == 'Apache-2.0'
  assert {'title', 'message', 'authors', 'references'} <= set(cited)


def test_types_are_told_of():
  assert (ROOT / 'ealign/py.typed').exists()
