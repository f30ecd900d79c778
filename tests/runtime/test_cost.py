import functools
import pathlib

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from ealign.runtime import cost


def count(fn, *args, **kwargs):
  return cost.count(jax.jit(fn).lower(*args).compile().as_text(), **kwargs)


def array(*shape, sharding=None):
  return jax.ShapeDtypeStruct(shape, jnp.float32, sharding=sharding)


def test_matmul():
  counts = count(jnp.matmul, array(8, 16), array(16, 32))
  assert counts.flops == 2 * 8 * 16 * 32
  assert counts.hbm_bytes == 4 * (8 * 16 + 16 * 32 + 8 * 32)
  assert not counts.collectives and not counts.unknown


def test_batched_product_counts_each():
  counts = count(
    lambda x, y: jnp.einsum('bik,bkj->bij', x, y),
    *(array(3, 8, 16), array(3, 16, 32)),
  )
  assert counts.flops == 2 * 3 * 8 * 16 * 32


@pytest.mark.parametrize('outer, inner', [(5, 7), (1, 3)])
def test_loops_count_as_often_as_they_run(outer, inner):
  def nested(x, w):
    once = lambda x, _: (jnp.tanh(x @ w), None)
    body = lambda x, _: (jax.lax.scan(once, x @ w, length=inner)[0], None)
    return jax.lax.scan(body, x, length=outer)[0]

  counts = count(nested, array(8, 16), array(16, 16))
  assert counts.flops == 2 * 8 * 16 * 16 * outer * (inner + 1)
  assert counts.unknown == 0


def test_a_loop_that_ends_by_its_data():
  def loop(x, w):
    more = lambda x: jnp.sum(x) < 100.0
    return jax.lax.while_loop(more, lambda x: x @ w, x)

  counts = count(loop, array(8, 16), array(16, 16), unknown=10)
  assert counts.unknown == 1
  assert counts.flops == 10 * 2 * 8 * 16 * 16


def test_convolution():
  conv = functools.partial(
    jax.lax.conv_general_dilated, window_strides=(1,), padding=[(1, 1)]
  )
  counts = count(conv, array(2, 4, 6), array(8, 4, 3))
  # 6 places of 3 taps each, but the outer two meet the padding once.
  assert counts.flops == 2 * 2 * 4 * 8 * (6 * 3 - 2)


def sharded(fn, *args):
  mesh = jax.make_mesh((4,), ('x',), axis_types=(AxisType.Auto,))
  spec = lambda *axes: NamedSharding(mesh, PartitionSpec(*axes))
  return count(
    jax.shard_map(
      fn,
      mesh=mesh,
      in_specs=tuple(PartitionSpec(*s) for _, s in args),
      out_specs=PartitionSpec('x'),
      check_vma=False,
    ),
    *(array(*shape, sharding=spec(*s)) for shape, s in args),
  )


def test_collectives_by_kind_and_bytes():
  def step(x):  # [2, 16] on each of 4 devices
    whole = jax.lax.all_gather(x, 'x', tiled=True)  # [8, 16]
    total = jax.lax.psum(x, 'x')  # [2, 16]
    part = jax.lax.psum_scatter(whole, 'x', tiled=True)  # [2, 16]
    return jax.lax.ppermute(part + total, 'x', [(i, 3 - i) for i in range(4)])

  counts = sharded(step, ((8, 16), ('x',)))
  assert dict(counts.collectives) == {
    'all-gather': 4 * 8 * 16,
    'all-reduce': 4 * 2 * 16,
    'reduce-scatter': 4 * 2 * 16,
    'collective-permute': 4 * 2 * 16,
  }
  assert counts.collective_bytes == 4 * (8 + 2 + 2 + 2) * 16
  assert counts.gathered == [(4 * 8 * 16, 1)]
  assert counts.transfers == 4


def test_collectives_of_a_loop():
  def step(x, w):
    body = lambda x, w: (
      jnp.tanh(x @ jax.lax.all_gather(w, 'x', tiled=True)),
      0,
    )
    return jax.lax.scan(body, x, w)[0]

  counts = sharded(step, ((4, 16), ('x',)), ((5, 16, 16), (None, 'x')))
  assert dict(counts.collectives) == {'all-gather': 5 * 4 * 16 * 16}
  assert counts.gathered == [(4 * 16 * 16, 5)]
  assert counts.transfers == 5
  assert counts.flops == 5 * 2 * 1 * 16 * 16


WINDOWED = pathlib.Path(__file__).parent / 'windowed.hlo'


def test_a_loop_that_steps_by_two():
  # As the compiler for TPUs writes a product overlapped with its transfers:
  # no noted trip count, its bound and its step are passed on by a loop around.
  counts = cost.count(WINDOWED.read_text())
  assert counts.flops == 3 * 4 * 2 * 8 * 16 * 16
  assert dict(counts.collectives) == {'collective-permute': 3 * 4 * 2 * 8 * 16}
  assert counts.unknown == 0


SPREAD = """
%begin (p0: bf16[4,8]) -> (bf16[4,8], bf16[16,8]) {
  %p0 = bf16[4,8]{1,0} parameter(0)
  %g0 = bf16[16,8]{1,0} all-gather(%p0), channel_id=7, dimensions={0}
  ROOT %t0 = (bf16[4,8]{1,0}, bf16[16,8]{1,0}) tuple(%p0, %g0)
}

%piece (p1: bf16[4,8], x1: bf16[8,8]) -> bf16[8,8] {
  %p1 = bf16[4,8]{1,0} parameter(0)
  %x1 = bf16[8,8]{1,0} parameter(1)
  %g1 = bf16[16,8]{1,0} all-gather(%p1), channel_id=7, dimensions={0}
  ROOT %y1 = bf16[8,8]{1,0} convolution(%x1, %x1), dim_labels=bf_io->bf
}

%body (s: (s32[], bf16[8,8], bf16[4,8])) -> (s32[], bf16[8,8], bf16[4,8]) {
  %s = (s32[], bf16[8,8]{1,0}, bf16[4,8]{1,0}) parameter(0)
  %i = s32[] get-tuple-element(%s), index=0
  %x = bf16[8,8]{1,0} get-tuple-element(%s), index=1
  %w = bf16[4,8]{1,0} get-tuple-element(%s), index=2
  %y = bf16[8,8]{1,0} fusion(%w, %x), kind=kCustom, calls=%piece
  %one = s32[] constant(1)
  %next = s32[] add(%i, %one)
  ROOT %o = (s32[], bf16[8,8]{1,0}, bf16[4,8]{1,0}) tuple(%next, %y, %w)
}

%more (q: (s32[], bf16[8,8], bf16[4,8])) -> pred[] {
  %q = (s32[], bf16[8,8]{1,0}, bf16[4,8]{1,0}) parameter(0)
  %j = s32[] get-tuple-element(%q), index=0
  %n = s32[] constant(36)
  ROOT %lt = pred[] compare(%j, %n), direction=LT
}

ENTRY %main (w0: bf16[4,8], x0: bf16[8,8]) -> bf16[8,8] {
  %w0 = bf16[4,8]{1,0} parameter(0)
  %x0 = bf16[8,8]{1,0} parameter(1)
  %a = (bf16[4,8], bf16[16,8]) fusion(%w0), kind=kCustom, calls=%begin
  %zero = s32[] constant(0)
  %all = (s32[], bf16[8,8]{1,0}, bf16[4,8]{1,0}) tuple(%zero, %x0, %w0)
  %loop = (s32[], bf16[8,8], bf16[4,8]) while(%all), condition=%more, body=%body
  ROOT %r = bf16[8,8]{1,0} get-tuple-element(%loop), index=1
}
"""


def test_a_transfer_hidden_behind_a_loop_is_sent_once():
  # Begun before the loop; each trip moves a part of it beside its product.
  counts = cost.count(SPREAD)
  assert dict(counts.collectives) == {'all-gather': 2 * 16 * 8}
  assert counts.gathered == [(2 * 16 * 8, 1)]
  assert counts.flops == 36 * 2 * 8**3
  # Each trip reads and writes an 8 x 8 and counts up, the transfer comes once.
  assert counts.hbm_bytes == 36 * (2 * (2 * 8 * 8) + 3 * 4) + 2 * 16 * 8


def test_of_branches_the_dearest_counts():
  def choose(x, w, which):
    return jax.lax.cond(which, lambda x: jnp.tanh(x @ w) @ w, jnp.sin, x)

  which = jax.ShapeDtypeStruct((), bool)
  counts = count(choose, array(8, 16), array(16, 16), which)
  assert counts.flops == 2 * 2 * 8 * 16 * 16


def test_a_loop_reads_its_slice_of_a_stack():
  def layers(x, w):
    return jax.lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, w)[0]

  counts = count(layers, array(8, 64), array(5, 64, 64))
  whole = 4 * 5 * 64 * 64
  assert whole <= counts.hbm_bytes < 4 * whole  # not 5 times the whole


TILED_ANEW = """
%tile (p: s8[36,8,4]) -> s8[36,8,4] {
  %p = s8[36,8,4]{2,1,0} parameter(0)
  ROOT %c = s8[36,8,4]{2,1,0} copy(%p)
}

%layer (w: s8[36,8,4], i: s32[]) -> s8[1,8,4] {
  %w = s8[36,8,4]{2,1,0} parameter(0)
  %i = s32[] parameter(1)
  %z = s32[] constant(0)
  %t = s8[36,8,4]{2,1,0} fusion(%w), kind=kLoop, ALIAS calls=%tile
  ROOT %s = s8[1,8,4]{2,1,0} dynamic-slice(%t, %i, %z, %z)
}

ENTRY %main (w: s8[36,8,4], i: s32[]) -> s8[1,8,4] {
  %w = s8[36,8,4]{2,1,0} parameter(0)
  %i = s32[] parameter(1)
  ROOT %f = s8[1,8,4]{2,1,0} fusion(%w, %i), kind=kLoop, calls=%layer
}
"""


def test_what_is_only_tiled_anew_is_read_where_it_is_used():
  alias = 'output_to_operand_aliasing={{}: (0, {})},'
  of_layer, whole = 8 * 4, 36 * 8 * 4
  seen = lambda text: cost.count(text).hbm_bytes
  assert seen(TILED_ANEW.replace('ALIAS', alias)) == 2 * of_layer + 4
  assert seen(TILED_ANEW.replace('ALIAS', '')) == whole + of_layer + 4


AT_ONCE = """
ENTRY %main (p: bf16[64,8]) -> bf16[4,8] {
  %p = bf16[64,8]{1,0} parameter(0)
  %g = bf16[128,8]{1,0} all-gather(%p), channel_id=1, dimensions={0}
  %c = bf16[128,8]{1,0} copy(%g)
  ROOT %s = bf16[4,8]{1,0} reduce-scatter(%c), channel_id=2, dimensions={0}
}
"""
BEGUN = """
%scatter (q: bf16[128,8]) -> bf16[4,8] {
  %q = bf16[128,8]{1,0} parameter(0)
  ROOT %r = bf16[4,8]{1,0} reduce-scatter(%q), channel_id=2, dimensions={0}
}

ENTRY %main (p: bf16[64,8]) -> bf16[4,8] {
  %p = bf16[64,8]{1,0} parameter(0)
  %gs = (bf16[64,8], bf16[128,8]) all-gather-start(%p), channel_id=1
  %g = bf16[128,8]{1,0} all-gather-done(%gs)
  %cs = (bf16[128,8], bf16[128,8], u32[]) copy-start(%g)
  %c = bf16[128,8]{1,0} copy-done(%cs)
  %ss = ((bf16[128,8]), bf16[4,8]) async-start(%c), calls=%scatter
  ROOT %s = bf16[4,8]{1,0} async-done(%ss)
}
"""


def test_what_is_begun_and_awaited_costs_what_it_does_at_once():
  counts, begun = cost.count(AT_ONCE), cost.count(BEGUN)
  gathered, scattered, copied = 64 + 128, 128 + 4, 2 * 128
  assert counts.hbm_bytes == 2 * 8 * (gathered + scattered + copied)
  assert begun == counts
