"""Long form of the fuzz suite, by hand: `python -m tests.fuzz --inputs 2000`.

Prints a line a fault with the seed that makes it again (`--only COMMAND --seed N`), and counts.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import logging
import os
import shutil
import sys
import tempfile
from pathlib import Path
from random import Random
from unittest.mock import patch

from squeeze.errors import InputError
from tests.fuzz.commands import Command, with_model
from tests.fuzz.harness import Outcome, invoke

_LIGHT = 4  # a command that loads no model and draws no page is called so many times as often


def ended(*arguments: object, **named: object) -> None:
    """In the place of a training."""
    raise InputError("the trainer would start here")


def saved(figure: object, path: object, **options: object) -> None:
    """In the place of drawing a figure, which takes most of a report's time."""
    Path(str(path)).write_bytes(b"\x89PNG")


def call(command: Command, seed: int, keep: bool = False) -> tuple[Outcome, list[str]]:
    """One input of a command: what it did, and what is wrong with that."""
    place = Path(tempfile.mkdtemp(prefix="squeeze-fuzz-"))
    try:
        argv = command.build(place, Random(seed))
        with contextlib.ExitStack() as patched:
            patched.enter_context(patch.dict(os.environ, {"PIP_NO_INDEX": "1"}))  # no network
            patched.enter_context(patch("squeeze.training.runner.train_phase", ended))
            if seed % 10:
                patched.enter_context(patch("matplotlib.figure.Figure.savefig", saved))
            outcome = invoke(argv, place)
        faults = outcome.faults
        try:
            faults += command.check(outcome, place)
        except Exception as error:  # noqa: BLE001 - an answer that cannot be read is a fault
            faults.append(f"its answer cannot be checked: {error!r}")
        return outcome, faults
    finally:
        if not keep:
            shutil.rmtree(place, ignore_errors=True)


def main() -> None:
    """Call every command on its share of the inputs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=2000)
    parser.add_argument("--only", help="one command, by its name")
    parser.add_argument("--seed", type=int, help="one input of --only, its output shown")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    given = parser.parse_args()
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["SQUEEZE_CACHE"] = f"{scratch}/cache"
        from squeeze.verify.tiny import save_tiny

        commands = with_model(save_tiny(Path(scratch) / "model"))
        if given.only:
            commands = {given.only: commands[given.only]}
        if given.seed is not None:
            outcome, faults = call(commands[given.only], given.seed, keep=True)
            print(outcome.argv, outcome.stdout, outcome.stderr, outcome.code, faults, sep="\n")
            return
        _all(commands, given.inputs, given.first)


def _all(commands: dict[str, Command], inputs: int, first: int) -> None:
    weights = {name: 1 if c.heavy else _LIGHT for name, c in commands.items()}
    codes: collections.Counter[int | None] = collections.Counter()
    faulty, slowest, largest, total = 0, 0.0, 0.0, 0
    for name, command in commands.items():
        n = max(1, round(inputs * weights[name] / sum(weights.values())))
        bad, spent = 0, 0.0
        for seed in range(first, first + n):
            outcome, faults = call(command, seed)
            codes[outcome.code] += 1
            spent += outcome.seconds
            slowest, largest = max(slowest, outcome.seconds), max(largest, outcome.megabytes)
            bad += bool(faults)
            if faults:
                print(f"  {name} --seed {seed}: {'; '.join(faults)}", flush=True)
        faulty, total = faulty + bad, total + n
        print(f"{name}: {n} inputs, {bad} with faults, {spent:.0f} s", flush=True)
    shown = ", ".join(f"{code}: {n}" for code, n in sorted(codes.items(), key=str))
    print(f"{total} inputs, {faulty} with faults; exit codes {shown}; slowest {slowest:.1f} s, ")
    print(f"most memory {largest:.0f} MB")
    sys.exit(bool(faulty))


if __name__ == "__main__":
    main()
