"""The tiny language model: a generated world and a model of a million parameters that knows it."""

from squeeze.study.tiny_lm.grammar import tiny_examples
from squeeze.study.tiny_lm.pretrain import tiny_lm

__all__ = ["tiny_examples", "tiny_lm"]
