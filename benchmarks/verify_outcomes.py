"""Outcomes of `squeeze verify` for every TRL trainer and loss type that a CPU runs, for the docs.

    python benchmarks/verify_outcomes.py            # all, ten minutes on one core
    python benchmarks/verify_outcomes.py grpo rloo  # these trainers again, the others as they were

Writes docs/verify-outcomes.json and the table of docs/verify-outcomes.md.
"""

import contextlib
import io
import re
import sys
import warnings
from collections import Counter
from pathlib import Path

from squeeze.files import read_json, write_json, write_text
from squeeze.provenance import versions
from squeeze.training.trainers import quiet
from squeeze.verify.loading import trl_trainer
from squeeze.verify.report import SCHEMA, to_json
from squeeze.verify.runner import verify

DOCS = Path(__file__).parents[1] / "docs"
DPO = (
    "sigmoid hinge ipo exo_pair nca_pair robust bco_pair sppo_hard aot aot_unpaired apo_zero "
    "apo_down discopop sft sigmoid_norm"
)
LOSSES = {
    "cpo": [None, "hinge", "ipo"],
    "simpo": [None],
    "dpo": DPO.split(),
    "kto": [None, "apo_zero_unpaired"],
    "orpo": [None],
    "reward": [None],
    "sft": [None],
    "grpo": ["dapo", "grpo", "bnpo", "dr_grpo", "cispo"],
    "rloo": [None],
}


def outcomes(trainer: str, loss: str | None) -> dict[str, object]:
    """The row of one trainer: its name, how many of each outcome, every check's measurement."""
    subject = trl_trainer(trainer, loss)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        found = to_json(subject.name, verify(subject))
    names = ("outcome", "deviation", "measured")
    checks = {check["id"]: {name: check[name] for name in names} for check in found["checks"]}
    return {"subject": found["subject"], "summary": found["summary"], "checks": checks}


def table(subjects: list[dict[str, object]]) -> str:
    """The table of the docs."""
    lines = ["| TRL trainer | passes | fails | not asked |", "|---|---|---|---|"]
    for row in subjects:
        checks = row["checks"]
        kinds = Counter(check["outcome"] for check in checks.values())
        blocked = sum(check["measured"].startswith("presupposes") for check in checks.values())
        fails = ", ".join(id for id, check in checks.items() if check["outcome"] == "fails") or "—"
        lines.append(
            f"| {row['subject'].removeprefix('TRL ')} | {kinds['passes']} | {fails} | {blocked} |"
        )
    return "\n".join(lines)


def main(chosen: list[str]) -> None:
    quiet()
    path = DOCS / "verify-outcomes.json"
    subjects = {row["subject"]: row for row in read_json(path)["subjects"]} if chosen else {}
    for trainer in chosen or LOSSES:
        for loss in LOSSES[trainer]:
            row = outcomes(trainer, loss)
            subjects[row["subject"]] = row
            print(row["subject"], row["summary"], flush=True)
    report = {"schema": SCHEMA, "versions": versions(), "model": "tiny random Llama, float32, CPU"}
    write_json(path, {**report, "subjects": list(subjects.values())})
    page = DOCS / "verify-outcomes.md"
    text = page.read_text(encoding="utf-8")
    found = table(list(subjects.values()))
    write_text(page, re.sub(r"\| TRL trainer \|(.*\n)(\|.*\n)+", lambda _: found + "\n", text))


main(sys.argv[1:])
