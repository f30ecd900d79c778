"""A run's config: checked, and made what the code is given.

`default()` is a ConfigDict to change, `validate(config)` lists all of its
problems, `freeze(config)` makes the frozen `ealign.fields.Config` of it.
"""

from ealign.config.convert import (
  apply_arm,
  arms,
  default,
  differences,
  field_types,
  flatten,
  freeze,
  from_json,
  results,
  structure,
  to_json,
  type_name,
  validate,
)
from ealign.config.synonyms import did_you_mean
