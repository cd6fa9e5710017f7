"""Conformance of a trainer: theorems asked of somebody's own pipeline, and a report."""
