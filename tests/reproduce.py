"""On failure, a note with Python that reproduces the call: paste it and see the failure again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from typing import Any

from torch import Tensor


@contextmanager
def reproducible(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Iterator[None]:
    """Run a block; if it raises, add a snippet that calls `function` with these arguments.

    Arguments may be numbers, texts, containers, tensors, functions at module level and dataclasses
    whose repr rebuilds them.
    """
    try:
        yield
    except Exception as error:
        error.add_note(snippet(function, *args, **kwargs))
        raise


def snippet(function: Callable[..., Any], *args: Any, **kwargs: Any) -> str:
    """Return Python source that imports what it needs and prints function(*args, **kwargs)."""
    imports = {_import(function)}
    given = [_code(value, imports) for value in args]
    given += [f"{name}={_code(value, imports)}" for name, value in kwargs.items()]
    call = f"{function.__name__}({', '.join(given)})"
    return "\n".join(["To reproduce:", "", *sorted(imports), "", f"print({call})"])


def _code(value: Any, imports: set[str]) -> str:
    """Return an expression for a value, adding the imports that it needs."""
    if isinstance(value, Tensor):
        imports.add("import torch")
        return f"torch.tensor({value.tolist()}, dtype={value.dtype})"
    if isinstance(value, list | tuple):
        inside = ", ".join(_code(item, imports) for item in value)
        return f"[{inside}]" if isinstance(value, list) else f"({inside},)"
    if isinstance(value, dict):
        pairs = (f"{_code(k, imports)}: {_code(v, imports)}" for k, v in value.items())
        return "{" + ", ".join(pairs) + "}"
    if is_dataclass(value):
        imports.add(_import(type(value)))
        given = {f.name: getattr(value, f.name) for f in fields(value)}
        usual = {f.name: f.default for f in fields(value)}
        parts = [f"{k}={_code(v, imports)}" for k, v in given.items() if v != usual[k]]
        return f"{type(value).__name__}({', '.join(parts)})"
    if callable(value):
        imports.add(_import(value))
        return str(value.__name__)
    return repr(value)


def _import(thing: Any) -> str:
    return f"from {thing.__module__} import {thing.__name__}"
