"""Benchmarks: what runs beside what, how it is measured, and how the numbers are shown."""
