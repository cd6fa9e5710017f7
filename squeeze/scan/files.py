"""A data file scanned into a table of scores, and the data without its worst share.

A scan that is stopped goes on where it was: finished rows stand in OUT.partial.jsonl until OUT is
written. The numbers themselves are `rows`' work, printing is the command line's.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
from filelock import FileLock, Timeout
from pydantic import TypeAdapter

from squeeze.data.encoding import EncodedItem, apply_template
from squeeze.data.examples import PreferenceExample
from squeeze.data.loading import (
    data_files,
    data_sha256,
    load_examples,
    open_data,
    resolve,
    trained_template,
)
from squeeze.data.rows import RowError
from squeeze.data.writing import WRITABLE, check_extension, open_writer, rows_of
from squeeze.errors import InputError
from squeeze.files import no_formula, parse_json, replacing
from squeeze.models import load_model, load_tokenizer, model_sha256
from squeeze.scan.ches import encode_pairs
from squeeze.scan.garbage import remarks
from squeeze.scan.rows import ScanRow, scan
from squeeze.scoring import fast_dtype

if TYPE_CHECKING:
    from transformers import PreTrainedModel

SORTED_BY = "normalised_ches"
TABLES = (".csv", ".parquet", ".jsonl")
Progress = Callable[[int, int], None]


def check_target(path: Path, flag: str, data: str, force: bool, suffixes: Sequence[str]) -> None:
    """Raise `InputError` unless `path` may be written: its ending, not DATA itself, not there."""
    if path.suffix not in suffixes:
        raise InputError(f"{flag} {path} must end in {', '.join(suffixes[:-1])} or {suffixes[-1]}")
    held = {resolve(data)[0], *data_files(data)}
    if path.resolve() in {file.resolve() for file in held if file.exists()}:
        raise InputError(f"{flag} {path} is the data itself; give another file")
    if path.exists() and not force:
        raise InputError(f"{flag} {path} exists; add --force to overwrite it")


def scan_data(
    data: str,
    model: str,
    *,
    format: str | None = None,
    template: str = "auto",
    limit: int | None = None,
    dtype: str = "auto",
    out: Path | None = None,
    progress: Progress = lambda done, total: None,
) -> pd.DataFrame:
    """Scan the first `limit` pairs (default: all), worst first, and write the table to `out`.

    Columns: `row` (number of the pair in the data, from 1), those of `ScanRow`, and `remarks` (what
    is wrong with the pair's texts); `template` "auto" renders rows as their training does;
    sorted by the length-normalised CHES score, highest first. Raises `InputError` for data, model,
    template or dtype that cannot be used, before the model is loaded where that can be known.
    """
    if dtype not in ("auto", "float32", "bfloat16"):
        raise InputError(f"unknown --dtype {dtype!r}; choose auto, float32 or bfloat16")
    if limit is not None and limit < 1:
        raise InputError(f"--limit must be positive, got {limit}")
    examples = load_examples(data, format)[:limit]
    tokenizer = load_tokenizer(model)
    template = trained_template(data, format) if template == "auto" else template
    apply_template(tokenizer, template)
    items = encode_pairs(tokenizer, examples)
    network, used = _load(model, dtype)
    _check_lengths(items, network, model)
    identity = {
        "model": model_sha256(model) or model,
        "data": data_sha256(data),
        "template": template,
        "dtype": str(used),
    }
    with _kept(out, identity) as (done, keep):
        for number, item in enumerate(items, start=1):
            if item.example not in done:
                done[item.example] = next(scan(network, [item], dtype=used))
                keep(done[item.example])
            progress(number, len(items))
    said = ["; ".join(found) for found in remarks(examples)]
    rows = [
        {"row": n, **asdict(done[e.id]), "remarks": remark}
        for n, (e, remark) in enumerate(zip(examples, said, strict=True), start=1)
    ]
    frame = pd.DataFrame(rows).sort_values(SORTED_BY, ascending=False, kind="stable")
    if out is not None:
        write_table(frame, out)
        _partial(out).unlink(missing_ok=True)
    return frame.reset_index(drop=True)


def _load(model: str, dtype: str) -> tuple[PreTrainedModel, torch.dtype]:
    network = load_model(model)
    network.to("cuda" if torch.cuda.is_available() else "cpu")  # type: ignore[arg-type]
    used = fast_dtype(network.device) if dtype == "auto" else getattr(torch, dtype)
    return network, used


def _check_lengths(items: Sequence[EncodedItem], network: PreTrainedModel, model: str) -> None:
    limit = getattr(network.config.get_text_config(), "max_position_embeddings", None)
    if limit is None:
        return
    for item in items:
        for kind, ids in item.response_ids.items():
            if len(item.prompt_ids) + len(ids) > limit:
                raise InputError(
                    f"example {item.example!r}, {kind}: prompt + response is "
                    f"{len(item.prompt_ids) + len(ids)} tokens, more than the {limit} that "
                    f"{model} can read; shorten or drop the example"
                )


def write_table(frame: pd.DataFrame, path: Path) -> None:
    """Write the table as CSV, Parquet or JSON lines by the file's ending, atomically."""
    with replacing(path) as temporary:
        if path.suffix == ".csv":
            frame.map(no_formula).to_csv(temporary, index=False)
        elif path.suffix == ".parquet":
            frame.to_parquet(temporary, index=False)
        else:
            frame.to_json(
                temporary, orient="records", lines=True, force_ascii=False, double_precision=15
            )


def _partial(out: Path) -> Path:
    return out.with_name(out.name + ".partial.jsonl")


@contextmanager
def _kept(
    out: Path | None, identity: dict[str, str]
) -> Iterator[tuple[dict[str, ScanRow], Callable[[ScanRow], None]]]:
    """Rows that an earlier, stopped scan of the same data and model has finished; and a keeper."""
    if out is None:
        yield {}, lambda row: None
        return
    path = _partial(out)
    lock = path.with_name(f"{path.name}.lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            stack.enter_context(FileLock(lock, blocking=False))
            stack.callback(lock.unlink, missing_ok=True)
            done = _read_partial(path, identity)
            stream = stack.enter_context(path.open("w", encoding="utf-8"))

            def keep(value: dict[str, Any]) -> None:
                stream.write(json.dumps(value, ensure_ascii=False) + "\n")
                stream.flush()

            keep(identity)
            for row in done.values():
                keep(asdict(row))
            yield done, lambda row: keep(asdict(row))
    except Timeout:
        raise InputError(
            f"another scan is writing --out {out}; wait for it, or give another file"
        ) from None
    except OSError as error:
        raise InputError(f"cannot write {path} ({error.strerror or error})") from error


_PARTIAL_START = '{"model": '  # how a partial file's first line begins, even if it was cut off


def _read_partial(path: Path, identity: dict[str, str]) -> dict[str, ScanRow]:
    """The rows of a partial file of the same scan; its last line may be cut off."""
    if not path.exists():
        return {}
    with path.open(encoding="utf-8", errors="replace") as stream:
        start = stream.readline(1 << 16)
    if start.strip() and not start.startswith(_PARTIAL_START):
        raise InputError(
            f"{path} is no stopped scan of squeeze's; move it, or choose another --out"
        )
    first, *lines = path.read_text(encoding="utf-8", errors="replace").splitlines() or [""]
    done: dict[str, ScanRow] = {}
    try:
        if parse_json(first) != identity:
            return {}
        for line in lines:
            row = _ROW.validate_json(line, strict=True)
            done[row.example] = row
    except ValueError:  # what follows is scanned again
        pass
    return done


_ROW = TypeAdapter(ScanRow)


def write_filtered(
    frame: pd.DataFrame, data: str, share: float, target: Path, format: str | None = None
) -> tuple[int, str]:
    """Write the data without the `share` of pairs that has the highest normalised CHES score.

    `frame` is the scan of all of `data`. The rows keep their order and, where it can be written,
    their format; otherwise they are written losslessly as `squeeze`. Columns that the format does
    not know are not carried over. Returns the number of pairs left out (at least one) and the
    format's name. Raises `InputError` when nothing would be left.
    Source: Razin et al. 2025, arXiv 2410.08847, §6 (filtering by the length-normalised score).
    """
    check_extension(target)
    known = open_data(data, format).format
    written = known if known in WRITABLE else "squeeze"
    n = max(1, round(len(frame) * share))
    if n >= len(frame):
        raise InputError(
            f"--drop-top {share} of {len(frame)} pairs leaves none; lower it, or give more data"
        )
    worst = set(frame.nlargest(n, SORTED_BY)["example"])
    kept = [e for e in load_examples(data, format) if e.id not in worst]
    with replacing(target) as temporary, open_writer(temporary, target.suffix, written) as write:
        for example in kept:
            for row in _written(example, written, data):
                write(row)
    return n, written


def _written(example: PreferenceExample, format: str, data: str) -> list[dict[str, Any]]:
    try:
        return rows_of(example, format)
    except RowError as error:
        raise InputError(
            f"example {example.id!r} {error}; convert the data first: "
            f"squeeze convert {data} clean.jsonl --to squeeze"
        ) from error
