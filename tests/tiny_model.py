"""A tiny real model as a directory; the model and its tokenizer are `squeeze.verify.tiny`'s."""

from squeeze.verify.tiny import VOCABULARY as VOCABULARY
from squeeze.verify.tiny import save_tiny as save_tiny_model
from squeeze.verify.tiny import tiny_model as tiny_model
from squeeze.verify.tiny import tiny_tokenizer as tiny_tokenizer

__all__ = ["VOCABULARY", "save_tiny_model", "tiny_model", "tiny_tokenizer"]
