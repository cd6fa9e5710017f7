"""Processes of one run (torchrun, `accelerate launch`): who writes, who waits, who scores.

Built on accelerate's process state and collectives, which a run in one process never imports. How
gradients and batches are shared is the trainer's business.
"""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any, ParamSpec, Protocol, TypeVar, runtime_checkable

from squeeze.errors import InputError

T = TypeVar("T")
P = ParamSpec("P")


@runtime_checkable
class Score(Protocol):
    """What says which response it belongs to."""

    @property
    def example(self) -> str: ...

    @property
    def split(self) -> str: ...

    @property
    def kind(self) -> str: ...


Row = TypeVar("Row", bound=Score)


class Item(Protocol):
    """One example of a probe set, with its responses by kind."""

    @property
    def example(self) -> str: ...

    @property
    def split(self) -> str: ...

    @property
    def response_ids(self) -> Mapping[str, object]: ...


Scored = TypeVar("Scored", bound=Item)


class EverywhereError(InputError):
    """An `InputError` that every process raises at the same point: one of them need say it."""


def processes() -> int:
    """How many processes the launcher started."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """This process' number among them."""
    return int(os.environ.get("RANK", "0"))


def is_main() -> bool:
    """Whether this process writes and speaks for all."""
    return rank() == 0


def _operations() -> Any:
    """accelerate's collectives, with the processes joined and this one on its own device."""
    import torch
    from accelerate import PartialState, utils  # type: ignore[import-untyped]

    PartialState(cpu=not torch.cuda.is_available(), timeout=timedelta(minutes=30))
    return utils


def _attempt(work: Callable[[], T]) -> tuple[T | None, str | None]:
    try:
        return work(), None
    except InputError as error:
        return None, str(error)


_inside_on_main = False


def on_main(work: Callable[[], T]) -> T:
    """What `work` returns on the main process, on all of them; nobody goes on before it is done.

    Raises its `InputError` on all of them. Inside, further calls are plain calls.
    """
    global _inside_on_main
    if processes() == 1 or _inside_on_main:
        return work()
    operations = _operations()
    operations.wait_for_everyone()  # nobody still reads what the main process may change
    outcome: list[Any] = [None]
    if is_main():
        _inside_on_main = True
        try:
            outcome = [_attempt(work)]
        finally:
            _inside_on_main = False
    operations.broadcast_object_list(outcome)
    value, error = outcome[0]
    if error is not None:
        raise EverywhereError(error)
    return value  # type: ignore[no-any-return]


def main_only(function: Callable[P, T]) -> Callable[P, T]:
    """A function that `on_main` runs whenever it is called; all processes must call it."""

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        return on_main(lambda: function(*args, **kwargs))

    return call


def on_each(work: Callable[[], T]) -> T:
    """Run `work`, which must not communicate, on every process; each gets its own result.

    Raises on all processes the `InputError` of the first that has one.
    """
    if processes() == 1 or _inside_on_main:
        return work()
    operations = _operations()
    value, error = _attempt(work)
    errors = [found for found in operations.gather_object([error]) if found is not None]
    if errors:
        raise EverywhereError(errors[0])
    return value  # type: ignore[return-value]


def score_shared(
    score: Callable[[Sequence[Scored]], Iterable[Row]], items: Sequence[Scored]
) -> list[Row]:
    """All that `score(items)` yields, on every process, each scoring its share of the items.

    Raises on all processes the `InputError` of one.
    """
    n = processes()
    if n == 1 or _inside_on_main:
        return list(score(items))
    mine = on_each(lambda: list(score(items[rank() :: n])))
    return in_item_order(items, _operations().gather_object(mine))


def in_item_order(items: Sequence[Item], rows: Iterable[Row]) -> list[Row]:
    """Rows from several processes, one a response, in the order in which one process has them."""
    found = {(row.example, row.split, row.kind): row for row in rows}
    return [found[i.example, i.split, kind] for i in items for kind in i.response_ids]


def require_whole_weights() -> None:
    """Raise `InputError` where the launcher splits the model or its rows over processes."""
    for name in ("FSDP", "DEEPSPEED", "PARALLELISM_CONFIG"):
        if os.environ.get(f"ACCELERATE_USE_{name}", "false").lower() == "true":
            raise InputError(
                "squeeze replicate needs the whole model in each process, but this launch shards "
                f"it ({name}); start it with torchrun, or accelerate launch --multi_gpu without a "
                "configuration of FSDP, DeepSpeed or other parallelism"
            )


def share_batch(batch_size: int, accumulation: int) -> tuple[int, int]:
    """Batch size and accumulation of each process, so that a step sees as many rows as in one.

    What the batch size cannot be divided by is taken out of accumulation. Raises `InputError` where
    that leaves a rest.
    """
    n = processes()
    by = math.gcd(batch_size, n)
    if accumulation % (n // by):
        raise InputError(
            f"{n} processes cannot share the {batch_size * accumulation} rows of a step equally "
            f"(batch_size {batch_size} × accumulation {accumulation}); start a number of processes "
            f"that divides them, or choose the two (for SFT sft_batch_size, sft_accumulation) so "
            f"that {n} does"
        )
    return batch_size // by, accumulation // (n // by)


def repeated_rows(rows: int, batch_size: int) -> int:
    """How many rows a trainer repeats an epoch so that each process has as many full batches.

    `batch_size` is that of each process. A single process repeats none: its last batch is smaller.
    """
    return 0 if processes() == 1 else -rows % (batch_size * processes())


def leave() -> None:
    """End what joins the processes; all must call it.

    Nobody exits before all are here: a launcher kills the others when one ends with an error.
    """
    if processes() > 1:
        import torch.distributed as dist

        if dist.is_initialized():
            dist.barrier()
            dist.destroy_process_group()
