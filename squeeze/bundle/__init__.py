"""Bundles for a machine without a network: what it lacks, in pieces, and a script that runs it.

`build` collects and packs, here; `run` unpacks, checks and measures, there, without squeeze.
"""
