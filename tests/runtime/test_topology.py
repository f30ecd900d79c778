import pytest

from ealign.runtime import topology as topology_lib
from ealign.runtime.errors import UserError


@pytest.mark.parametrize(
  'name, chips, hosts, per_host, accelerator',
  [
    ('v5e:1x1', 1, 1, 1, 'v5litepod-1'),
    ('v5e:2x2', 4, 1, 4, 'v5litepod-4'),
    ('v5e:2x4', 8, 1, 8, 'v5litepod-8'),
    ('v5e:4x4', 16, 4, 4, 'v5litepod-16'),
    ('v6e:16x16', 256, 64, 4, 'v6e-256'),
    ('v4:2x2x1', 4, 1, 4, 'v4-8'),
    ('v5p:2x2x2', 8, 2, 4, 'v5p-16'),
    ('v5p:8x16x16', 2048, 512, 4, 'v5p-4096'),
    ('tpu7x:4x4x4', 64, 16, 4, 'tpu7x-128'),
  ],
)
def test_what_follows_from_a_name(name, chips, hosts, per_host, accelerator):
  slice_ = topology_lib.parse(name)
  assert str(slice_) == name
  assert (slice_.chips, slice_.hosts) == (chips, hosts)
  assert slice_.chips_per_host == per_host
  assert slice_.accelerator_type == accelerator


def test_jax_shows_two_devices_for_a_chip_of_tpu7x_alone():
  devices = {kind: chip.devices for kind, chip in topology_lib.CHIPS.items()}
  assert devices == dict.fromkeys(devices, 1) | {'tpu7x': 2}


@pytest.mark.parametrize('kind', topology_lib.CHIPS)
def test_every_shape_is_its_own_name_and_type(kind):
  chip = topology_lib.CHIPS[kind]
  slices = [
    topology_lib.parse(f'{kind}:{"x".join(map(str, shape))}')
    for shape in topology_lib.shapes(kind)
  ]
  sizes = [slice_.chips for slice_ in slices]
  assert sizes == sorted(set(sizes))  # so a type names one shape
  assert sizes[-1] == chip.most
  assert all(s.hosts * s.chips_per_host == s.chips for s in slices)


def test_shapes_are_those_on_offer():
  flat = topology_lib.shapes('v6e')
  assert flat == [
    *((1, 1), (2, 2), (2, 4), (4, 4)),
    *((4, 8), (8, 8), (8, 16), (16, 16)),
  ]
  deep = topology_lib.shapes('v5p')
  assert deep[:8] == [
    *((2, 2, 1), (2, 2, 2), (2, 2, 4), (2, 4, 4)),
    *((4, 4, 4), (4, 4, 8), (4, 4, 12), (4, 8, 8)),
  ]
  assert (8, 12, 16) in deep and deep[-1] == (16, 16, 24)


@pytest.mark.parametrize(
  'name, said',
  [
    ('v5e', '--topology=v5e: must be one of v4, v5e, v5p, v6e, tpu7x, a colon'),
    ('v7:2x2', 'must be one of v4, v5e, v5p, v6e, tpu7x'),
    ('V5E:4x4', 'must be one of'),
    ('v5e:4,4', 'such as v5e:4x4'),
    ('v5e:x4', 'such as v5e:4x4'),
    ('', 'such as v5e:4x4'),
    ('v5e:4x5', '--topology=v5e:4x5: no slice has it; use v5e:4x4'),
    ('v5p:4x4', 'no slice has it; use v5p:2x2x4'),
    ('v5p:4x4x2', 'use v5p:2x4x4'),
    ('v5p:4x4x16', 'use v5p:4x8x8'),
    ('v5e:64x64', 'use v5e:16x16'),
    ('v4:0x1x1', 'use v4:2x2x1'),
  ],
)
def test_a_wrong_name_is_one_line_with_the_nearest(name, said):
  with pytest.raises(UserError) as error:
    topology_lib.parse(name)
  assert said in str(error.value)
  assert '\n' not in str(error.value)
