"""The documentation site: `make docs` builds it, warnings are errors."""

import pathlib
import sys

import ealign

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import pages  # noqa: E402

project = 'ealign'
author = 'The ealign authors'
copyright = f'2026, {author}'
release = ealign.__version__

extensions = [
  'myst_nb',
  'sphinx.ext.autodoc',
  'sphinx.ext.napoleon',
]
exclude_patterns = ['_build']
default_role = 'code'
# Each page would copy 3,000 entries for its side bar: a fifth of the build.
toc_object_entries = False
# The type bytes in a signature may be a field of that name, of two classes.
suppress_warnings = ['ref.python']
napoleon_use_ivar = True
myst_heading_anchors = 4
myst_enable_extensions = ['colon_fence', 'dollarmath']
# Pages with cells run once; what they printed is kept in docs/_build until a
# cell changes. After a change of the package remove that folder.
nb_execution_mode = 'cache'
nb_execution_raise_on_error = True
nb_execution_timeout = 600

html_theme = 'sphinx_book_theme'
html_title = 'ealign'
html_static_path = ['static']
html_css_files = ['site.css']
html_theme_options = {
  'show_navbar_depth': 1,
  'home_page_in_toc': True,
  'navbar_persistent': [],  # the side bar has the search already
}


def _literal(app, what, name, obj, options, lines) -> None:
  del app, what, name, obj, options
  lines[:] = pages.literal(lines)


def _twins(app, error) -> None:
  if not error and app.builder.name == 'html':
    titles = {
      name: app.env.titles[name].astext() for name in app.env.found_docs
    }
    pages.twins(app.srcdir, app.outdir, titles)


def setup(app) -> None:
  pages.write(app.srcdir)
  app.connect('build-finished', _twins)
  app.connect('autodoc-process-docstring', _literal, priority=100)
