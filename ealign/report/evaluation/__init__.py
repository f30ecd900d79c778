"""The page of an evaluation: models beside each other on the same questions.

`collect` makes its content from answer records, `write` the one file
evaluation.html, which loads nothing; `blocks` and `lines` are for a terminal.
"""

import pathlib
from collections.abc import Mapping
from typing import Any

from ealign.report import templates
from ealign.report.evaluation.page import blocks, collect, lines

__all__ = ['blocks', 'collect', 'lines', 'write']


def write(folder: Any, content: Mapping[str, Any]) -> pathlib.Path:
  """Writes evaluation.html into the folder; content: of `collect`."""
  path = pathlib.Path(folder) / 'evaluation.html'
  templates.write(path, templates.render('evaluation.html.jinja', content))
  return path
