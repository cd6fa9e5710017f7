"""Protocol-buffer wire format, as far as TensorBoard's and W&B's files need it.

A message is a run of (field number, value): an integer, 4 or 8 bytes, or bytes that may be text or
another message. No reader of these files then needs the package that wrote them.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

Value = int | bytes


def fields(message: bytes) -> Iterator[tuple[int, Value]]:
    """The fields of a message, in order; raises `ValueError` for bytes that are none."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        number, kind = key >> 3, key & 7
        if kind == 0:
            value, at = _varint(message, at)
            yield number, value
            continue
        if kind == 2:
            length, at = _varint(message, at)
        elif kind in (1, 5):
            length = 8 if kind == 1 else 4
        else:
            raise ValueError(f"wire type {kind}")
        if at + length > len(message):
            raise ValueError("a field is longer than its message")
        yield number, message[at : at + length]
        at += length


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(message) or shift > 63:
            raise ValueError("an integer that does not end")
        byte = message[at]
        value |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return value, at
        shift += 7


def floating(value: Value) -> float:
    """A float field of 4 or 8 bytes."""
    if not isinstance(value, bytes) or len(value) not in (4, 8):
        raise ValueError("no floating-point field")
    return float(struct.unpack("<f" if len(value) == 4 else "<d", value)[0])


def text(value: Value) -> str:
    """A text field."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
