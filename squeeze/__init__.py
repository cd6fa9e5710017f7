"""Squeeze: learning dynamics of LLM finetuning as falsifiable claims, checked and reported."""

__version__ = "0.1.0"
