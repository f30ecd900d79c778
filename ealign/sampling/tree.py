"""Labels as a tree behind a prompt: what they share is computed once.

  prompt --+-- "1" --+-- end
           |         +-- "0" -- end
           +-- "CODE" -- end

A node is a token that is read; an edge leads to a token that is predicted, at
the prompt's last token (the root) or at a node. A label is a path of edges.
Edges are numbered: M at the root, then K at each node, then, at the root and
at each node, all tokens that no label goes on with there, as one.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ealign.sampling.requests import OTHER

_LABEL = 2  # labels are padded to a multiple of this many tokens
_FEW = 64  # nodes up to which nothing is shared, so that shapes are few
_NODES, _CHILDREN = 16, 8  # the sizes of a tree are multiples of these


class Tree(NamedTuple):
  """Arrays whose first axis is that of the rows, or 1 where all have the same.

  Attributes:
    tokens: [B, N] of each node.
    depths: [B, N] tokens between the prompt and the node; -1 on padding.
    sees: [B, N, N] whether a node sees another: those on its way, and itself.
    starts: [B, M] tokens of the edges at the root; -1 on padding.
    nexts: [B, N, K] the same at each node. K = 1 where nothing is shared.
    into: [B, N] the edge that leads to each node.
    ends: [B, M] the last edge of each label.
    at: [B, M] where that begins: 0 is the root, n + 1 node n.
    left: [B, N + 1] whether to leave the tree there is in no label.
  """

  tokens: np.ndarray
  depths: np.ndarray
  sees: np.ndarray
  starts: np.ndarray
  nexts: np.ndarray
  into: np.ndarray
  ends: np.ndarray
  at: np.ndarray
  left: np.ndarray

  @property
  def apart(self) -> bool:
    """Whether they are chains: labels that share nothing but the root."""
    return self.nexts.shape[-1] == 1


def of(labels: Sequence[Sequence[int]], rest: bool = False) -> Tree:
  """The tree of labels. rest: whether all that leaves it will be asked for.

  Few labels are chains that share nothing: other labels, as many and about as
  long, are then of the same shape. N, M and K are the whole shape.

  Raises:
    ValueError: with rest, a label that another one begins with.
  """
  padded = pad(labels)
  rest = rest or any(label[-1] == OTHER for label in labels)
  few = padded[0].shape[0] * (padded[0].shape[1] - 1) <= _FEW
  return (
    chains(*(x[None] for x in padded)) if few and not rest else trie(labels)
  )


def pad(labels):
  """Labels as labels_MT, padded on the right where mask_MT is False."""
  lengths_M1 = np.array([[len(label)] for label in labels])
  size = -(-lengths_M1.max() // _LABEL) * _LABEL
  mask_MT = np.arange(size) < lengths_M1
  labels_MT = np.zeros(mask_MT.shape, np.int32)
  labels_MT[mask_MT] = np.concatenate(labels)
  return labels_MT, mask_MT


def chains(labels_BMT, mask_BMT) -> Tree:
  """Labels that share nothing, of each row: M (T - 1) nodes of one child."""
  B, M, T = labels_BMT.shape
  flat = lambda x: x.reshape(B, M * (T - 1))
  step_T, first_M1 = np.arange(T - 1), (T - 1) * np.arange(M)[:, None]
  edges_MT = np.where(step_T, M + first_M1 + step_T - 1, np.arange(M)[:, None])
  at_BM = np.sum(mask_BMT, -1) - 1  # edges of a label before its last
  before_BM = first_M1[:, 0] + at_BM  # and the node it begins at, plus one
  branch_N, step_N = np.repeat(np.arange(M), T - 1), np.tile(step_T, M)
  same_NN = branch_N[:, None] == branch_N
  return Tree(
    tokens=flat(labels_BMT[..., :-1]),
    depths=flat(np.where(mask_BMT[..., :-1], step_T, -1)).astype(np.int32),
    sees=(same_NN & (step_N <= step_N[:, None]))[None],
    starts=labels_BMT[..., 0],
    nexts=flat(np.where(mask_BMT[..., 1:], labels_BMT[..., 1:], -1))[..., None],
    into=edges_MT.reshape(1, -1).astype(np.int32),
    ends=np.where(at_BM, M + before_BM - 1, np.arange(M)).astype(np.int32),
    at=np.where(at_BM, before_BM, 0).astype(np.int32),
    left=np.zeros((1, M * (T - 1) + 1), bool),
  )


def trie(labels: Sequence[Sequence[int]]) -> Tree:
  """Labels that share their nodes; what pads the sizes is seen by no one."""
  labels = [tuple(label) for label in labels]
  nodes = {(): 0}  # the root, then the nodes, each behind its parent
  edges = {(): []}  # of each: the tokens that follow it, without OTHER
  for label in labels:
    for t, token in enumerate(label):
      before = label[:t]
      nodes.setdefault(before, len(nodes))
      follow = edges.setdefault(before, [])
      if token != OTHER and token not in follow:
        follow.append(token)
  M, N = len(labels), -(-(len(nodes) - 1) // _NODES) * _NODES
  K = max((len(edges[path]) for path in nodes if path), default=1)
  K = -(-K // _CHILDREN) * _CHILDREN

  def edge(label):
    n = nodes[label[:-1]]
    if label[-1] == OTHER:
      return M + N * K + n
    return (M + (n - 1) * K if n else 0) + edges[label[:-1]].index(label[-1])

  tree = _empty(N, M, K)
  tree.starts[0, : len(edges[()])] = edges[()]
  tree.ends[0] = [edge(label) for label in labels]
  tree.at[0] = [nodes[label[:-1]] for label in labels]
  tree.left[0, : len(nodes)] = True
  tree.left[
    0, [nodes[label[:-1]] for label in labels if label[-1] == OTHER]
  ] = 0
  for path, n in list(nodes.items())[1:]:
    n, own = n - 1, edges[path]
    tree.tokens[0, n], tree.depths[0, n] = path[-1], len(path) - 1
    tree.sees[0, n, [nodes[path[:t]] - 1 for t in range(1, len(path) + 1)]] = 1
    tree.nexts[0, n, : len(own)], tree.into[0, n] = own, edge(path)
  return tree


def check(labels: Sequence[Sequence[int]]) -> None:
  """Raises ValueError if a label is there twice, or begins another one."""
  every = sorted(map(tuple, labels))
  for label, after in zip(every, every[1:], strict=False):
    if after[: len(label)] == label:
      raise ValueError(f'the label {after} is one that begins with {label}')


def _empty(N, M, K) -> Tree:
  zeros = lambda *shape: np.zeros((1, *shape), np.int32)
  return Tree(
    tokens=zeros(N),
    depths=zeros(N) - 1,
    sees=zeros(N, N).astype(bool),
    starts=zeros(M) - 1,
    nexts=zeros(N, K) - 1,
    into=zeros(N),
    ends=zeros(M),
    at=zeros(M),
    left=zeros(N + 1).astype(bool),
  )
