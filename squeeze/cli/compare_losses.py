"""`squeeze compare-losses`: what each preference loss does to chosen, rejected, others, argmax."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from squeeze.cli.app import RUN, Plugin, app, load_plugin

if TYPE_CHECKING:
    from squeeze.claims.runs import Runs
    from squeeze.claims.types import Level
    from squeeze.training.config import RunConfig

Option = typer.Option


@app.command("compare-losses", rich_help_panel=RUN)
def compare_losses(
    model: Annotated[str | None, Option(help="Embedded name, local directory or hub id.")] = None,
    data: Annotated[str | None, Option(help="Embedded name or a preference file.")] = None,
    data_format: Annotated[str | None, Option("--from", help="The data file's format.")] = None,
    template: Annotated[str | None, Option(help="model, unmarked, chatml or plain.")] = None,
    losses: Annotated[str, Option(help="all, or names with commas.")] = "all",
    seeds: Annotated[str, Option(help="With commas.")] = "0,1,2",
    plugin: Plugin = None,
    pairs: Annotated[int | None, Option(help="Training pairs.")] = None,
    held_out: Annotated[int | None, Option(help="Held-out prompts to probe.")] = None,
    probe_train: Annotated[int | None, Option(help="Training prompts to probe.")] = None,
    epochs: Annotated[int | None, Option(help="Epochs of each loss.")] = None,
    sft_epochs: Annotated[int | None, Option(help="Epochs of the shared SFT.")] = None,
    learning_rate: Annotated[float | None, Option(help="Of each loss's phase.")] = None,
    out: Annotated[Path, Option(help="Directory of results and work.")] = Path("reports/losses"),
    as_json: Annotated[bool, Option("--json", help="Print losses.json.")] = False,
    force: Annotated[bool, Option("--force", help="Train again what OUT/work has.")] = False,
) -> None:
    """Train every preference loss from one SFT checkpoint and compare what they do."""
    from dataclasses import asdict, replace

    from rich.console import Console
    from rich.table import Table

    from squeeze.claims import catalogue
    from squeeze.claims.variants import COLUMNS, arm_of, loss_rows
    from squeeze.cli.verdicts import verdict_table
    from squeeze.interrupt import again, interruptible
    from squeeze.report.losses import cell, write
    from squeeze.training.config import make_config

    names, numbers = _losses(losses, plugin), _seeds(seeds)
    given = {
        "model": model,
        "data": data,
        "data_format": data_format,
        "template": template,
        "pairs": pairs,
        "held_out": held_out,
        "probe_train": probe_train,
        "epochs": epochs,
        "sft_epochs": sft_epochs,
        "learning_rate": learning_rate,
    }
    configs = [make_config(given | {"seed": seed}) for seed in numbers]
    if force:
        _clear(out / "work")
    with interruptible(again()):
        runs, trained, missing = _train(configs, names, out / "work")
    rows = [r for split in ("held_out", "train") for r in loss_rows(runs, trained, split)]
    judged = replace(runs, roles={loss: arm_of(loss) for loss in trained})
    verdicts = catalogue.get("VA-1").check(judged)
    write(out, rows, missing, [asdict(v) for v in verdicts])
    if as_json:
        typer.echo((out / "losses.json").read_text(encoding="utf-8"), nl=False)
        return
    table = Table("loss", "prompts", "cut", *(f"Δ{name}" for name in COLUMNS))
    for row in rows:
        table.add_row(row.loss, row.split, row.cut, *(cell(row, name) for name in COLUMNS))
    console = Console()
    console.print(table)
    for loss, reason in missing.items():
        console.print(f"{loss} was not measured: {reason}", markup=False)
    console.print(verdict_table(verdicts))
    console.print(f"written: {out}", soft_wrap=True)


def _clear(work: Path) -> None:
    """Remove earlier experiments, which are told by their names, and nothing else."""
    import re
    import shutil

    for place in work.glob("*"):
        if re.fullmatch(r"\d+-[0-9a-f]{16}", place.name):
            shutil.rmtree(place)


def _losses(named: str, plugin: Path | None) -> list[str]:
    from squeeze.errors import InputError
    from squeeze.losses import LOSSES, get_loss

    load_plugin(plugin)
    gated = ["gated_sigmoid", "gated_dpo_shift"]
    everything = [*(name for name in LOSSES if name != "sft"), *gated]
    given = [n.strip() for n in named.split(",") if n.strip()]
    names = everything if named == "all" else list(dict.fromkeys(given))
    if not names:
        raise InputError("--losses needs at least one loss, or all")
    return [get_loss(name).name for name in names]


def _seeds(text: str) -> list[int]:
    from squeeze.errors import InputError

    try:
        found = list(dict.fromkeys(int(part) for part in text.split(",")))
    except ValueError:
        raise InputError(f"--seeds must be whole numbers with commas, not {text!r}") from None
    return found


def _train(
    configs: list[RunConfig], names: list[str], work: Path
) -> tuple[Runs, list[str], dict[str, str]]:
    """Runs over all seeds, the losses trained on every seed, and why each other one was not."""
    import pandas as pd
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    from squeeze.claims.runs import Runs
    from squeeze.claims.variants import arm_of
    from squeeze.errors import InputError
    from squeeze.study.seed_run import Experiment
    from squeeze.trajectory import Trajectory

    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    missing: dict[str, str] = {}
    found: list[dict[str, pd.DataFrame]] = []
    with Progress(*columns, console=Console(stderr=True)) as progress:
        bar = progress.add_task("losses", total=len(configs) * len(names))
        for config in configs:
            experiment = Experiment(config, cache=work)
            found.append({})
            for name in names:
                progress.update(bar, description=f"{name}, seed {config.seed}")
                try:
                    if name not in missing:
                        found[-1][name] = experiment.trajectory(arm_of(name)).frame
                except InputError as error:
                    missing[name] = str(error)
                progress.advance(bar)
    trained = [name for name in names if name not in missing]
    if not trained:
        raise InputError(f"no loss could be trained: {missing}")
    frames = [pd.concat([f[n] for n in trained], ignore_index=True) for f in found]
    level: Level = "pretrained"
    return (
        Runs(tuple(map(Trajectory, frames)), level, tuple(c.seed for c in configs)),
        trained,
        missing,
    )
