"""`squeeze compare-losses`: what each preference loss does to chosen, rejected, others, argmax."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from squeeze.cli.app import RUN, Plugin, app, load_plugin, seed_numbers
from squeeze.cli.engine import Address, Engines, GpusPerArm, Slurm, engine_of

Option = typer.Option


@app.command("compare-losses", rich_help_panel=RUN)
def compare_losses(
    model: Annotated[
        str | None, Option(help="Embedded names, local directories or hub ids, with commas.")
    ] = None,
    data: Annotated[str | None, Option(help="Embedded name or a preference file.")] = None,
    data_format: Annotated[str | None, Option("--from", help="The data file's format.")] = None,
    template: Annotated[str | None, Option(help="model, unmarked, chatml or plain.")] = None,
    losses: Annotated[
        str, Option(help="all, or names with commas; ipo:tau=0.5 sets a hyper-parameter.")
    ] = "all",
    seeds: Annotated[str, Option(help="With commas.")] = "0,1,2",
    plugin: Plugin = None,
    pairs: Annotated[int | None, Option(help="Training pairs.")] = None,
    held_out: Annotated[int | None, Option(help="Held-out prompts to probe.")] = None,
    probe_train: Annotated[int | None, Option(help="Training prompts to probe.")] = None,
    epochs: Annotated[int | None, Option(help="Epochs of each loss.")] = None,
    sft_epochs: Annotated[int | None, Option(help="Epochs of the shared SFT.")] = None,
    learning_rate: Annotated[float | None, Option(help="Of each loss's phase.")] = None,
    out: Annotated[Path, Option(help="Directory of results and work.")] = Path("reports/losses"),
    plan: Annotated[
        bool, Option("--plan", help="Show every training and its state; train nothing.")
    ] = False,
    as_json: Annotated[bool, Option("--json", help="Print losses.json.")] = False,
    force: Annotated[bool, Option("--force", help="Train again what OUT/work has.")] = False,
    engine: Engines = "local",
    address: Address = None,
    gpus_per_arm: GpusPerArm = None,
    slurm: Slurm = None,
) -> None:
    """Train every preference loss from one SFT checkpoint each, and compare what they do."""
    from contextlib import nullcontext
    from dataclasses import asdict

    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    from squeeze.claims import catalogue
    from squeeze.claims.variants import arm_of, loss_rows
    from squeeze.cli.verdicts import verdict_table
    from squeeze.interrupt import again, interruptible
    from squeeze.report.losses import FILES, earlier, header, merged, records, remarks, table, write
    from squeeze.run_directory import held, sweep
    from squeeze.study.loss_grid import LossGrid
    from squeeze.study.workers import check_engine
    from squeeze.tables import print_table
    from squeeze.training.config import RunConfig, make_config

    check_engine(engine, address, slurm)
    names, numbers = _losses(losses, plugin), seed_numbers(seeds, "distinct whole numbers")
    models = _names(model or RunConfig.model, "--model needs at least one model")
    given = {
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
    configs = {m: [make_config(given | {"model": m, "seed": s}) for s in numbers] for m in models}
    for name in names:  # a wrong hyper-parameter is told before anything is trained
        configs[models[0]][0].arm(arm_of(name))
    grid, console = LossGrid(names, configs, out / "work"), Console()
    if plan:
        rows = list(grid.plan())
        print_table(
            _table(["model", "seed", "loss", "state"], [list(r.cells) for r in rows]), console
        )
        left = sum(row.state != "trained" for row in rows)
        console.print(f"{left} of {len(rows)} trainings to do, from one SFT a model and seed")
        return
    earlier(out)  # a file that is not ours is refused before the training
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    verdicts: list[Any] = []
    content: dict[str, Any] = {}
    bars = Progress(*columns, console=Console(stderr=True), disable=engine != "local")
    elsewhere = engine_of(engine, address, gpus_per_arm, slurm, bars.console, plugin)
    alone = held(out) if engine == "local" else nullcontext()  # no lock is sure over a network
    with alone, interruptible(again()), elsewhere as trained, bars as progress:
        sweep(out, FILES)
        if force:
            _clear(out / "work")
        bar = progress.add_task("losses", total=len(grid), completed=-1)
        for name in models:
            found = grid.train(
                name,
                lambda what: progress.update(bar, description=what, advance=1),
                trained,
            )
            changes = [
                r
                for s in ("held_out", "train")
                for r in loss_rows(found.runs, list(found.runs.roles), s)
            ]
            judged = catalogue.get("VA-1").check(found.runs)
            content = merged(
                *(out, records(name, numbers, changes)),
                *({name: found.missing}, {name: [asdict(verdict) for verdict in judged]}),
            )
            write(out, content)
            verdicts += judged
    if as_json:
        typer.echo((out / "losses.json").read_text(encoding="utf-8"), nl=False)
        return
    print_table(_table(header(), table(content)), console)
    for remark in remarks(content):
        console.print(remark, markup=False)
    print_table(verdict_table(verdicts), console)
    console.print(f"written: {out / 'index.html'}", soft_wrap=True)


def _table(header: list[str], rows: list[list[str]]) -> Any:
    from rich.markup import escape
    from rich.table import Table

    table = Table(*header)
    for row in rows:
        table.add_row(*map(escape, row))
    return table


def _clear(work: Path) -> None:
    """Remove earlier experiments, which are told by their names, and nothing else."""
    import re
    import shutil

    for place in work.glob("*"):
        if re.fullmatch(r"\d+-[0-9a-f]{16}", place.name):
            shutil.rmtree(place)


def _names(text: str, empty: str) -> list[str]:
    from squeeze.errors import InputError

    names = list(dict.fromkeys(n.strip() for n in text.split(",") if n.strip()))
    if not names:
        raise InputError(empty)
    return names


def _losses(named: str, plugin: Path | None) -> list[str]:
    from squeeze.losses import LOSSES, get_loss

    load_plugin(plugin)
    if named == "all":
        gated = ["gated_sigmoid", "gated_dpo_shift"]
        return [*(name for name in LOSSES if name != "sft"), *gated]
    names = _names(named, "--losses needs at least one loss, or all")
    for name in names:
        get_loss(name.partition(":")[0])
    return names
