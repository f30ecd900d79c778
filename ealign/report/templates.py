"""Renders the templates: pages, Markdown, and sentences.

Answers come from a model and are hostile: a page escapes every value, also the
sentences put on it, and nothing in Python makes markup.
"""

import base64
import functools
import hashlib
import pathlib
from collections.abc import Mapping

import jinja2

from ealign.evals import table
from ealign.runtime import atomic


@functools.cache
def _environment() -> jinja2.Environment:
  """Pages escape all values; Markdown does by a filter, sentences never."""
  made = jinja2.Environment(
    loader=jinja2.PackageLoader('ealign.report', ''),
    autoescape=jinja2.select_autoescape(
      disabled_extensions=('md.jinja', 'txt.jinja'), default=True
    ),
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
  )
  filters = [table.percent, table.bracket, table.points, table.p_value]
  filters += [table.shown, table.escape_markdown, sha256]
  made.filters |= {function.__name__: function for function in filters}
  made.globals['nbsp'] = '\u00a0'  # no line break before a per cent sign
  return made


def sha256(text: str) -> str:
  """The hash by which a content security policy allows the one script."""
  return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def sentences(name: str, **facts) -> list[str]:
  """The lines of a template, each a sentence without markup."""
  one_line = lambda x: x.replace('\n', ' ') if isinstance(x, str) else x
  text = _environment().overlay(finalize=one_line).get_template(name)
  return [x for line in text.render(facts).split('\n') if (x := line.strip())]


def text(name: str, **facts) -> str:
  """The sentences of a template as one text."""
  return ' '.join(sentences(name, **facts))


def render(name: str, content: Mapping) -> str:
  """A page."""
  return _environment().get_template(name).render(content).strip()


def save(workdir: pathlib.Path, content: Mapping, page: str) -> pathlib.Path:
  """Writes report.md and report.html; returns the path of the latter."""
  for file, name in (('report.md', 'report.md.jinja'), ('report.html', page)):
    text = render(name, content)
    write(workdir / file, text + '\n' * (file == 'report.md'))
  return workdir / 'report.html'


def write(path: pathlib.Path, text: str) -> None:
  """Writes a file at once.

  A lone surrogate of a model cannot be written as UTF-8 and becomes '?'.
  """
  atomic.write(path, text.encode('utf-8', 'replace'))
