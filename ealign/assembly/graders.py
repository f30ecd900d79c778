"""What reads for a model judge: an engine of its own, or an endpoint."""

import dataclasses
import os
from typing import Any

from ealign import fields
from ealign.assembly import subjects
from ealign.engine import Engine
from ealign.evals.judges import endpoint
from ealign.runtime import provenance


def named(
  name: str, model: fields.Model, template: tuple, load: subjects.Loader, paid
) -> tuple[dict, Any]:
  """The judge that `eval.judge` names: openai:NAME or other:FOLDER.

  Args:
    model: section of a config, whose other fields hold for a folder.
    template: arguments of its chat template.
    load: loads it.
    paid: of `endpoint.connect`.

  Returns:
    Who judges, as `described`, and what reads for it.

  Raises:
    UserError: there is none of this name, or it cannot be used.
  """
  if name.startswith('openai:'):
    grader = endpoint.connect(name, **paid)
    where = {'address': grader.address}
    own = f'{grader.name} at {grader.address}'
    return {'name': name, 'model': own} | where, grader
  model = dataclasses.replace(model, adapter='', frozen_adapter='')
  path = name.removeprefix('other:')
  engine = load.engine(subjects.of_folder(path, model, template))
  label = os.path.basename(path.rstrip('/')) or path
  return described(label, engine), engine


def described(name: str, engine: Engine) -> dict[str, str]:
  """Who judges: `model` is a hash of the weights and of how it is spoken to.

  So that a judge in another number type, or with another chat template, is
  another one.
  """
  weights = provenance.tree_hash(engine.weights)
  spoken = engine.model.tokenizer.chat_template, engine.model.template
  model = provenance.text_hash(f'{weights} {spoken!r}')
  return {'name': name, 'model': model, 'weights': weights}
