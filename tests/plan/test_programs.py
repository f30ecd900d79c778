"""What lies where while a program of the plan runs."""

import dataclasses

import jax
import pytest

from ealign import fields
from ealign.models import sharding
from ealign.plan import inference, programs
from ealign.runtime import mesh as mesh_lib
from tests import steps

ALL_DEVICES = True


def shapes(mesh, arms=1, **model):
  change = dataclasses.replace
  config = fields.Config()
  config = change(
    config,
    data=change(config.data, train='rows', length=64, batch_size=4),
    dpo=change(config.dpo, pairs=4, length=64),
    model=change(config.model, **model),
  )
  return programs.shapes(
    config, sharding.on_mesh(steps.MODEL, mesh), mesh, arms=arms
  )


@pytest.mark.parametrize('arms, places', [(2, 2), (3, 4)])
def test_arms_lie_on_their_groups_of_devices(arms, places):
  one = shapes(mesh_lib.make(data=2, devices=jax.devices()[:2]))
  run = shapes(mesh_lib.make(stack=2, data=2), arms)
  assert run.arms == places
  of_two = [inference.device_bytes(r.state.params) for r in (one, run)]
  assert of_two[1] == of_two[0] * places // 2


def test_full_fine_tuning_has_no_arms():
  assert shapes(mesh_lib.make(stack=2, data=2), train='full').arms == 1


@pytest.mark.parametrize('train', ['lora', 'full'])
def test_what_lies_beside_sampling(train):
  run = shapes(mesh_lib.make(devices=jax.devices()[:1]), train=train)
  sizes = programs.Sizes(prompt=32, review=64)
  found = {p.name: p for p in programs.listed(run, sizes)}
  everything = set(run.resident)
  beside = {'lora': {'params', 'rest'}, 'full': {'rest', 'frozen'}}[train]
  assert everything - set(found['decode'].holds) == beside
  assert not everything - set(found['hybrid'].holds)
  held = inference.device_bytes(found['decode'].args[0])
  own = run.resident['params' if train == 'full' else 'frozen']
  assert held >= inference.device_bytes(own)
