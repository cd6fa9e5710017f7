"""Values checked against a declaration of types and ranges, and one sentence for what is wrong.

The declarations are annotations that pydantic reads: `RunConfig`'s fields and LLaMA-Factory's keys.
"""

from __future__ import annotations

import reprlib
from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationError
from pydantic_core import PydanticCustomError

from squeeze.errors import InputError


def _not_bool(value: Any) -> Any:
    """YAML's `yes` and `on` are no numbers, though Python counts with them."""
    if isinstance(value, bool):
        raise PydanticCustomError("number", "must be a number")
    return value


# YAML reads 1e-4 as text, so text that is a number is one.
Number = Annotated[float, BeforeValidator(_not_bool), Field(allow_inf_nan=False)]
Whole = Annotated[int, BeforeValidator(_not_bool)]
Share = Annotated[Number, Field(ge=0, lt=1)]
Positive = Annotated[Number, Field(gt=0, le=1e6)]
# More than any training has; what is absurd is refused here and not inside a library.
Rate = Annotated[Number, Field(gt=0, le=1e3)]
Decay = Annotated[Number, Field(ge=0, le=1e3)]
Norm = Annotated[Number, Field(ge=0, le=1e6)]
Warmup = Annotated[Number, Field(ge=0, le=1e12)]
Epochs = Annotated[Whole, Field(gt=0, le=10**12)]
Count = Annotated[Whole, Field(gt=0, le=10**7)]
CountOrNone = Annotated[Whole, Field(ge=0, le=10**7)]
Rank = Annotated[Whole, Field(gt=0, le=2**14)]
Tokens = Annotated[Whole, Field(gt=0, le=2**24)]
Seed = Annotated[Whole, Field(ge=0, lt=2**32)]  # numpy takes no more
Validation = Annotated[Number, Field(ge=0, le=1e7)]
# transformers' schedules that need no arguments of their own
Schedule = Literal[
    "linear",
    "cosine",
    "constant",
    "constant_with_warmup",
    "cosine_with_restarts",
    "polynomial",
    "inverse_sqrt",
]


def checked(work: Callable[[], Any], name: Callable[[str], str]) -> Any:
    """What `work` returns; its first `ValidationError` as an `InputError` with `name(field)`."""
    try:
        return work()
    except ValidationError as error:
        found = error.errors(include_url=False)[0]
        field = name(str(found["loc"][0])) if found["loc"] else "the configuration"
        inner = "".join(f".{part}" for part in found["loc"][1:] if isinstance(part, str))
        raise InputError(_sentence(field + inner, found)) from None


_KINDS = (
    ("bool", "must be true or false"),
    ("string", "must be text"),
    ("int", "must be a whole number"),
    ("float", "must be a number"),
    ("number", "must be a number"),
    ("finite", "must be a finite number"),
    ("tuple", "must be a list"),
    ("dict", "must be a mapping"),
    ("mapping", "must be a mapping"),
)


def _sentence(name: str, found: Any) -> str:
    """What is wrong with a value, and what is allowed."""
    kind, context = found["type"], found.get("ctx", {})
    value = reprlib.repr(found["input"])
    if kind == "literal_error":
        allowed = context["expected"].replace("'", "").replace(" or ", ", ")
        return f"{name} {value} is not known here; choose {allowed}"
    if kind == "greater_than":
        return f"{name} must be positive, not {value}"
    if kind == "greater_than_equal":
        return f"{name} must be 0 or more, not {value}"
    if kind == "less_than":
        return f"{name} must be below {context['lt']:g}, not {value}"
    if kind == "less_than_equal":
        return f"{name} must be at most {context['le']:g}, not {value}"
    for prefix, sentence in _KINDS:
        if kind.startswith(prefix):
            return f"{name} {sentence}, not {value}"
    return f"{name}: {found['msg']} ({value})"
