"""A small story model from scratch, finetuned, then trained with DPO for far too long.

`generator` and `reading` give stories, `training` trains on them, `run` is `squeeze stories`.
"""
