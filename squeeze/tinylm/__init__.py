"""The tiny language model: a generated world and a model of a million parameters that knows it."""

from squeeze.tinylm.grammar import tiny_examples
from squeeze.tinylm.pretrain import tiny_lm

__all__ = ["tiny_examples", "tiny_lm"]
