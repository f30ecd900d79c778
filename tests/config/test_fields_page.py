"""docs/fields.md: current, complete, and its examples can be typed."""

import pathlib
import re

import pytest

from ealign import config as config_lib
from ealign import fields
from ealign.cli import command
from ealign.cli import fields as fields_cli
from ealign.config import page, synonyms

DOCS = pathlib.Path(__file__).parents[2] / 'docs' / 'fields.md'
ROWS = page.rows()


def test_the_page_is_current():
  remedy = 'run `ealign fields > docs/fields.md`'
  assert DOCS.read_text('utf-8') == page.page(), remedy


def test_every_field_has_a_meaning_beside_it():
  assert [row.name for row in ROWS] == list(config_lib.field_types())
  assert [row.name for row in ROWS if len(row.meaning) < 8] == []
  by_name = {row.name: row for row in ROWS}
  lam = by_name['dpo.lam']
  assert (lam.default, lam.allowed) == ('0.1', 'a number, at least 0')
  assert lam.meaning == 'weight of the DPO loss; 0 = plain SFT'
  # Of two lines above a field, and behind a field of two lines.
  assert by_name['conscience.review.form'].meaning.startswith(
    'How the question'
  )
  assert by_name['conscience.review.form'].meaning.endswith('to either label.')
  assert '`sigmoid`, `ipo`' in by_name['dpo.variant'].allowed
  assert '`good`, `fair`, a `.json`' in by_name['conscience.framing'].allowed


def test_sections_say_what_they_are():
  text = page.page()
  about = ' '.join(fields.Pool.__doc__.split())
  assert f'## pool\n\n{about}\n\n| field' in text
  assert 'Model(path' not in text


@pytest.mark.parametrize(
  'row',
  [row for row in ROWS if '--config.' in row.allowed],
  ids=lambda r: r.name,
)
def test_the_form_of_a_tuple_can_be_typed(row):
  flag, value = re.search(r'--config\.([\w.]+)=([^`"]+)', row.allowed).groups()
  kind, problems = config_lib.field_types()[flag], []
  found = command._values([(flag, value)], {flag: kind}, problems)
  assert flag == row.name and not problems
  config = config_lib.default()
  config.update_from_flattened_dict(found)
  assert row.name not in config_lib.structure(config) and found[flag]


def test_what_the_head_says_of_the_command_line():
  kinds = config_lib.field_types()
  typed = re.findall(r'`--config\.([\w.]+)=([^`]*)`', page.HEAD)
  assert len(typed) == 7
  for name, value in typed:
    value, problems = value.strip("'"), []
    (found,) = command._values([(name, value)], kinds, problems).values()
    assert not problems and config_lib.convert._fits(found, kinds[name])


def test_what_stands_for_a_name_is_no_tag():
  assert "'arm:\\<name>'" in page.page()
  assert not re.search(r'[^\\]<', re.sub('`[^`]*`', '', page.page()))


def test_the_command(capsys):
  assert fields_cli.main([]) == 0
  assert capsys.readouterr().out == page.page()
  assert fields_cli.main(['Rewa']) == 2
  assert fields_cli.main(['a', 'b']) == 2
  assert capsys.readouterr().out == ''
  assert fields_cli.main(['threshold']) == 0
  said = capsys.readouterr().out
  assert said.startswith("conscience.threshold='auto:0.05'\n    above 0")


def test_the_command_knows_what_others_call_a_field(capsys):
  rate = next(str(row) for row in ROWS if row.name == 'optim.lr')
  for word in ('learning_rate', 'Learning-Rate', 'optim.learning_rate'):
    assert fields_cli.main([word]) == 0
    called = f"No field is called '{word.lower()}'. Here it is 'optim.lr'."
    assert capsys.readouterr().out == f'{called}\n{rate}\n'
  ours = {row.name.rpartition('.')[2] for row in ROWS}
  for name, (field, _) in synonyms.SYNONYMS.items():
    assert fields_cli.main([name]) == 0, name
    head, *lines = capsys.readouterr().out.splitlines()
    if name not in ours:
      assert head.startswith(f'No field is called {name!r}. Here '), name
      assert field.startswith('--') or not field or f'{field}=' in lines[0]
  assert fields_cli.main(['mesh.arm']) == 0
  said = capsys.readouterr().out
  assert said.startswith("No field is called 'mesh.arm'. It is called mesh.st")
  assert '\nmesh.stack=1\n' in said


def test_the_command_says_where_all_names_are(capsys):
  for word, said in (
    ('xyzzy', "No field has 'xyzzy'; `ealign fields` lists all.\n"),
    (
      'dpoo.lam',
      "No field has 'dpoo.lam'. Did you mean 'dpo.lam'? "
      '`ealign fields` lists all.\n',
    ),
  ):
    assert fields_cli.main([word]) == 2
    assert capsys.readouterr() == ('', said)
