"""ealign: a language model taught by its own conscience, in pure JAX.

Axis letters, one alphabet for the package (array names carry them as suffix):
B batch, T query length, S cache length, L layers, V vocabulary, D model,
F feed-forward, N query heads, K key/value heads, G query heads per key/value
head, H head dim, R LoRA rank, E experts, P pairs, A arms, M labels, C chunk.
"""

__version__ = '0.1.0'
