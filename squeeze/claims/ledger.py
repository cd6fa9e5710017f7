"""The ledger: what every check of every claim came out as, last time it ran, in one JSON file.

`reports/claims.json` is the record and `reports/claims.md` its readable copy; both are written only
by `merge`. Nothing here judges a claim (see `statistics`) or knows pytest (tests/ledger_plugin.py).
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping
from dataclasses import MISSING, dataclass, fields, replace
from pathlib import Path
from typing import Any

from filelock import FileLock
from pydantic import TypeAdapter, ValidationError

from squeeze.claims import catalogue
from squeeze.claims.catalogue import Claim
from squeeze.claims.table import WORST_FIRST, markdown, overview
from squeeze.claims.types import Entry, Key, Verdict, verdict_from
from squeeze.errors import InputError
from squeeze.files import misfit, parse_json, read_bytes, read_json, write_text
from squeeze.provenance import now, this_device, versions

SCHEMA = 2
EARLIER = (1,)  # "not supported" stood for contradicted and inconclusive alike
JSON_NAME = "claims.json"
MARKDOWN_NAME = "claims.md"


@dataclass(frozen=True)
class Failure:
    """A test that did not pass, and the (claim, level) pairs that it declares to check."""

    test: str
    reason: str
    claims: tuple[tuple[str, str], ...] = ()


def new_entry(verdict: Verdict, claim: Claim, *, seconds: float, test: str = "") -> Entry:
    """Return the entry of a check that just ran in this process, stamped with date and versions.

    Raises `InputError` if the effect or an end of the interval is NaN, or if the claim is not
    stated at the verdict's level.
    """
    if verdict.level not in claim.levels:
        raise InputError(
            f"claim {claim.id} is stated at {', '.join(claim.levels)}, not at "
            f"{verdict.level!r}; add the level to the claim or correct the verdict"
        )
    numbers = [x for x in (verdict.effect, *(verdict.interval or ())) if x is not None]
    if any(math.isnan(x) for x in numbers):
        raise InputError(
            f"the verdict on {claim.id} at level {verdict.level} has a NaN effect or interval; "
            "record it as 'not run' with a reason if nothing could be measured"
        )
    return Entry(
        verdict=verdict,
        sentence=claim.sentence,
        source=claim.source,
        kind=claim.kind,
        seconds=round(seconds, 3),
        date=now(),
        device=this_device(),
        versions=versions(),
        test=test,
    )


# --- the file -----------------------------------------------------------------------------------


def read(directory: Path) -> dict[Key, Entry]:
    """Return the entries of `directory`/claims.json by key, empty if there is no such file.

    A ledger of an earlier schema, whose words meant something else, counts as none: `merge` puts it
    aside. Raises `InputError` if the file is not a ledger, or of a later schema.
    """
    path = directory / JSON_NAME
    way_out = "move it away or choose another directory (--squeeze-out, --reports)"
    try:
        document = parse_json(read_bytes(path).decode("utf-8"))
    except FileNotFoundError:
        return {}
    except (ValueError, OSError) as error:
        raise InputError(f"{path} cannot be read as a claim ledger ({error}); {way_out}") from error
    schema = document.get("schema") if isinstance(document, dict) else None
    if schema in EARLIER and isinstance(document.get("claims"), list):
        return {}
    if schema != SCHEMA:
        raise InputError(
            f"{path} is not a claim ledger of schema {SCHEMA} (its schema is {schema!r}); {way_out}"
        )
    try:
        entries = [entry_from_json(row) for row in document["claims"]]
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path} holds a broken entry ({error}); {way_out}") from error
    return {entry.key: entry for entry in entries}


def merge(
    directory: Path,
    entries: Collection[Entry],
    failures: Collection[Failure] = (),
    passed: Collection[str] = (),
) -> dict[Key, Entry]:
    """Merge a run into `directory`'s ledger, write both files, and return all entries by key.

    Only the keys that the run touched change. Within the run the worse verdict on a key wins, and
    "not run" never replaces a verdict. A failure turns "supported" into "inconclusive": for what
    its test recorded, now or in an earlier run, and for every (claim, level) it declares; once the
    test is among `passed` (node ids), such a note is withdrawn.
    Safe when several processes merge at once. Raises `InputError` as `read` does, and if the
    directory cannot be written.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with FileLock(directory / ".claims.lock"):
            merged = _merged(read(directory), entries, failures, passed)
            rows = [merged[key] for key in sorted(merged)]
            document = {"schema": SCHEMA, "claims": [entry_to_json(row) for row in rows]}
            _put_aside(directory / JSON_NAME)
            text = json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False)
            write_text(directory / JSON_NAME, text + "\n")
            write_text(directory / MARKDOWN_NAME, _markdown(merged))
    except OSError as error:
        raise InputError(
            f"the claim ledger cannot be written to {directory} ({error}); "
            "choose another directory (--squeeze-out)"
        ) from error
    return merged


def _put_aside(path: Path) -> None:
    """Keep a ledger of an earlier schema beside the new one, as claims-1.json."""
    if path.exists() and (schema := read_json(path)["schema"]) in EARLIER:
        path.replace(path.with_stem(f"{path.stem}-{schema}"))


def _markdown(entries: Mapping[Key, Entry]) -> str:
    return markdown(overview(catalogue.load(), entries))


# --- merging ------------------------------------------------------------------------------------


def _merged(
    old: Mapping[Key, Entry],
    new: Collection[Entry],
    failures: Collection[Failure],
    passed: Collection[str],
) -> dict[Key, Entry]:
    merged = {k: e for k, e in old.items() if not (_is_failure_note(e) and e.test in passed)}
    fresh: set[Key] = set()
    # Sorted, so that the result does not depend on the order in which xdist's workers report.
    for entry in sorted(new, key=lambda e: (WORST_FIRST.index(e.verdict.outcome), e.test)):
        has_verdict = entry.key in merged and not _is_not_run(merged[entry.key])
        if entry.key not in fresh and not (_is_not_run(entry) and has_verdict):
            merged[entry.key] = entry
            fresh.add(entry.key)
    for failure in failures:
        for key in _concerned(failure, merged, [*old.values(), *new]):
            merged[key] = _failed(key, merged.get(key), failure, fresh=key in fresh)
    run = {key[:2] for key, entry in merged.items() if not _is_not_run(entry)}
    # "Not run" says something about a claim and level only while nothing else does.
    return {
        key: entry
        for key, entry in merged.items()
        if not (_is_not_run(entry) and not key[2] and key[:2] in run)
    }


def _concerned(failure: Failure, merged: Mapping[Key, Entry], all_of: list[Entry]) -> set[Key]:
    own = {entry.key for entry in all_of if entry.test == failure.test}
    for claim, level in failure.claims:
        # A test that recorded some comparisons speaks for those; one that recorded none speaks
        # for all of the claim at that level.
        if not any(key[:2] == (claim, level) for key in own):
            whole = {key for key in merged if key[:2] == (claim, level)}
            own |= whole or {(claim, level, "")}
    return own


def _is_failure_note(entry: Entry) -> bool:
    verdict = entry.verdict
    return verdict.outcome == "inconclusive" and verdict.effect is None and not verdict.statistic


def _is_not_run(entry: Entry) -> bool:
    return not entry.verdict.ran


def _failed(key: Key, entry: Entry | None, failure: Failure, *, fresh: bool) -> Entry:
    if entry is not None and entry.verdict.outcome in ("contradicted", "inconclusive"):
        return entry
    reason = f"{failure.test} failed: {failure.reason}"
    if entry is not None and fresh:
        return replace(entry, verdict=replace(entry.verdict, outcome="inconclusive", reason=reason))
    # What an earlier run measured is no evidence for this verdict, so only the words are kept.
    claim, level, comparison = key
    bare = Verdict(claim, level, "inconclusive", comparison=comparison, reason=reason)  # type: ignore[arg-type]
    words = entry or _words(claim)
    return Entry(
        bare, words.sentence, words.source, words.kind, date=now(), device=this_device(),
        versions=versions(), test=failure.test,
    )  # fmt: skip


def _words(claim_id: str) -> Entry:
    claim = catalogue.get(claim_id)
    nothing = Verdict(claim.id, claim.levels[0], "not run")
    return Entry(nothing, claim.sentence, claim.source, claim.kind)


# --- JSON ---------------------------------------------------------------------------------------

_TUPLES = ("interval", "seeds", "seed_means")
_EMPTY: dict[str, Any] = {
    field.name: {} if field.default is MISSING else field.default
    for field in (*fields(Verdict), *fields(Entry))
    if field.default is not MISSING or field.default_factory is not MISSING
}


def entry_to_json(entry: Entry) -> dict[str, Any]:
    """Return the entry as one flat object of JSON's own types, without what is empty.

    Infinities become strings.
    """
    facts = vars(entry.verdict) | {k: v for k, v in vars(entry).items() if k != "verdict"}
    given = {name: value for name, value in facts.items() if value != _EMPTY.get(name, ...)}
    plain: dict[str, Any] = _plain(given)
    return plain


def entry_from_json(row: Mapping[str, Any]) -> Entry:
    """Return the entry that `entry_to_json` wrote; raises TypeError or ValueError."""
    values = dict(row)
    own = {name: values.pop(name) for name in Entry.__dataclass_fields__ if name in values}
    values |= {k: tuple(map(_number, values[k])) for k in _TUPLES if k in values}
    values |= {k: _number(values[k]) for k in ("effect", "bound", "detectable") if k in values}
    verdict = verdict_from(values)
    numbers = (verdict.effect, *(verdict.interval or ()), *verdict.seed_means)
    if any(number is not None and math.isnan(number) for number in numbers):
        raise ValueError(f"a row of {verdict.claim} holds a number that is none")
    try:
        return _ENTRY.validate_python({"verdict": verdict, **own})
    except ValidationError as error:
        raise ValueError(misfit(error).removeprefix(", at ")) from None


_ENTRY = TypeAdapter(Entry)


def _number(value: Any) -> Any:
    """Infinities were written as strings."""
    return float(value) if isinstance(value, str) else value


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else str(float(value))
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if hasattr(value, "tolist"):  # NumPy and torch scalars and arrays
        return _plain(value.tolist())
    return str(value)
