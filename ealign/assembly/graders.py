"""What reads for a model judge: an engine of its own, or an endpoint."""

import dataclasses
import os
import pathlib
from collections.abc import Sequence
from typing import Any

from ealign import fields
from ealign.assembly import subjects
from ealign.data import sources
from ealign.engine import Engine
from ealign.evals.judges import endpoint
from ealign.runtime import provenance

REPLIES = 'replies.jsonl'  # of a judge behind an endpoint


def named(
  name: str, model: fields.Model, template: tuple, load: subjects.Loader, paid
) -> tuple[dict, Any]:
  """The judge that `eval.judge` names: openai:NAME or other:FOLDER.

  Args:
    model: section of a config, whose other fields hold for a folder.
    template: arguments of its chat template.
    load: loads it.
    paid: of `paid`.

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
  found = subject(name, model, template)
  engine = load.engine(found)
  return described(found.name, engine), engine


def subject(name: str, model: fields.Model, template: tuple):
  """The model that other:FOLDER names; arguments as of `named`."""
  model = dataclasses.replace(model, adapter='', frozen_adapter='')
  path = name.removeprefix('other:')
  return subjects.of_folder(path, model, template)


def before(found: subjects.Subject) -> subjects.Subject:
  """What a model was before it was trained: the judge 'frozen' of it."""
  name = found.name
  if found.adapter or found.whole:
    name = f'{name} before it was trained'
  return dataclasses.replace(found, name=name, adapter='', whole='')


def reader(config: fields.Config, first: subjects.Subject):
  """The model that reads, or None: an endpoint does. first: as of `before`."""
  name = config.eval.judge
  if name.startswith('openai:'):
    return None
  if name.startswith('other:'):
    return subject(name, config.model, config.data.chat_template_kwargs)
  return before(first)


def of_itself(found: Sequence[subjects.Subject], by) -> list[str]:
  """A line for each model that judges its own answers; by: of `reader`.

  A base does, which is the usual baseline, and so does a folder of trained
  weights, which does not say what it was before.
  """
  return [
    f'{one.name} judges its own answers: if it was trained, name a judge with '
    '--judge=other:BASE'
    for one in found
    if by and not one.adapter and not one.whole and _files(one) == _files(by)
  ]


def _files(one: subjects.Subject) -> tuple:
  path = os.path.realpath(sources.resolve(one.base.path))
  return path, one.base.init, one.frozen_adapter


def paid(folder: pathlib.Path, say, price: str | None, cap) -> dict:
  """What an endpoint needs besides its name, for `named`.

  Args:
    folder: its replies are kept there.
    say: shows a line.
    price: dollars for a million tokens read and written, 'IN,OUT'.
    cap: dollars that it may cost in all.

  Raises:
    UserError: the price is none.
  """
  price = None if price is None else endpoint.Price.of(price)
  return {'path': folder / REPLIES, 'say': say, 'price': price, 'cap': cap}


def described(name: str, engine: Engine) -> dict[str, str]:
  """Who judges: `model` is a hash of the weights and of how it is spoken to.

  So that a judge in another number type, or with another chat template, is
  another one.
  """
  weights = provenance.tree_hash(engine.weights)
  spoken = engine.model.tokenizer.chat_template, engine.model.template
  model = provenance.text_hash(f'{weights} {spoken!r}')
  return {'name': name, 'model': model, 'weights': weights}
