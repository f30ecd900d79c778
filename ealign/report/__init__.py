"""The report of a work folder: one page, made from the files of its runs.

`python -m ealign.report --workdir=DIR` writes DIR/report.html, which needs no
network, and DIR/report.md. A work folder holds one folder per arm, or is the
folder of a single run; of each the report reads config.json, answers.jsonl,
metrics.jsonl and run.json, and says what is missing. Of a folder with a
grid.json it is the report of a grid (`ealign.report.grid.page`).
"""

from ealign.report import page
from ealign.report.grid import page as grid_page
from ealign.report.grid import results


def write(workdir):
  """Writes the report of runs or of a grid; the path of its page."""
  return (grid_page if results.is_grid(workdir) else page).write(workdir)
