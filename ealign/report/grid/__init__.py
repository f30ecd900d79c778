"""The report of a grid: estimates over seeds, tables, figures, one page."""
