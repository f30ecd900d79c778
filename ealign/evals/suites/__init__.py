"""Suites: one file and one line in SUITES each."""

from ealign.evals.suites import (
  contextual,
  misalignment,
  refusal,
  self_report,
  truthful,
  world,
)
from ealign.evals.suites.suite import Files, Suite

SUITES = {
  'misalignment': misalignment.SUITE,
  'contextual': contextual.SUITE,
  'refusal': refusal.SUITE,
  'truthful': truthful.SUITE,
  'self_report': self_report.SUITE,
  'world': world.SUITE,
}
