"""Messages on a terminal."""

import pytest

from ealign.runtime import errors


@pytest.mark.parametrize(
  'text, shown',
  [
    ('plain ü 🙂\n\tand a tab', 'plain ü 🙂\n\tand a tab'),
    ('\x1b[31mred\x1b[0m', '\\x1b[31mred\\x1b[0m'),
    ('\x1b]0;title\x07', '\\x1b]0;title\\x07'),
    ('back\x08\rover\x7f\x9b', 'back\\x08\\rover\\x7f\\x9b'),
    ('\u202eturned\u2069', '\\u202eturned\\u2069'),
    ('half \udcff', 'half \\udcff'),
  ],
)
def test_control_characters_are_shown(text, shown):
  assert errors.visible(text) == shown
  assert str(errors.UserError(text)) == shown
