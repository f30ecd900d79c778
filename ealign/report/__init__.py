"""The report of a work folder: one page, made from the files of its runs.

`python -m ealign.report --workdir=DIR` writes DIR/report.html, which needs no
network, and DIR/report.md. A work folder holds one folder per arm, or is the
folder of a single run; of each the report reads config.json, answers.jsonl,
metrics.jsonl and run.json, and says what is missing. Of a folder with a
grid.json it is the report of a grid (`ealign.report.grid.page`).
"""

import pathlib
from typing import Any


def write(workdir: Any) -> pathlib.Path:
  """Writes report.html and report.md; of a grid, results.csv as well.

  Returns:
    The path of report.html.

  Raises:
    UserError: no run there, or a file that cannot be read.
  """
  from ealign.report import page, runs, templates  # with all that they load
  from ealign.report.grid import page as grid_page
  from ealign.report.grid import results

  workdir = pathlib.Path(workdir)
  if not (workdir / 'grid.json').is_file():
    content = page.collect(runs.read(workdir))
    return templates.save(workdir, content, 'page.html.jinja')
  grid = results.read(workdir)
  templates.write(workdir / 'results.csv', results.to_csv(grid.cells))
  return templates.save(workdir, grid_page.collect(grid), 'grid.html.jinja')
