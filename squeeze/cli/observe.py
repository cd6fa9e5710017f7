"""`squeeze observe`: train and judge what is pre-registered at a level."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from squeeze.cli.app import RUN, app, seed_numbers
from squeeze.cli.engine import Address, Engines, GpusPerArm, Slurm, engine_of

Option = typer.Option


@app.command(rich_help_panel=RUN)
def observe(
    level: Annotated[str, typer.Argument(help="tiny, pretrained, gpu, or published.")],
    claims: Annotated[str | None, Option(help="Comma-separated; all by default.")] = None,
    seeds: Annotated[
        str, Option(help="evaluation, development, or numbers with commas.")
    ] = "evaluation",
    model: Annotated[str | None, Option(help="Another model than the registered one.")] = None,
    replace: Annotated[
        list[str] | None,
        Option("--set", help="FIELD=VALUE of the recipe, e.g. finetuning=full or data=FILE."),
    ] = None,
    logs: Annotated[
        Path | None, Option(help="For published: a clone of the authors' repository.")
    ] = None,
    records: Annotated[
        Path | None,
        Option(help="Probes of finished arms, read first and added to; goes between machines."),
    ] = None,
    recorded: Annotated[
        bool, Option("--recorded", help="Judge the arms that --records holds; train nothing.")
    ] = False,
    out: Annotated[Path, Option(help="The ledger's directory.")] = Path("reports"),
    engine: Engines = "local",
    address: Address = None,
    gpus_per_arm: GpusPerArm = None,
    slurm: Slurm = None,
) -> None:
    """Run the pre-registered experiments of a level and put the verdicts into the ledger.

    Everything is cached: stopped, it goes on where it was; finished, it only judges again. Verdicts
    of other seeds, another model or recipe than registered are shown and not recorded. "published"
    trains nothing: it judges the logs that the paper's authors published.
    """
    if level == "published":
        _published(logs, out)
        return
    from rich.console import Console

    from squeeze.claims import catalogue
    from squeeze.claims.ledger import merge, new_entry, read
    from squeeze.cli.verdicts import verdict_table
    from squeeze.errors import InputError
    from squeeze.interrupt import again, interruptible
    from squeeze.study.observations import claims_at, judge
    from squeeze.study.registration import plan, registration_sha256, stands_apart
    from squeeze.study.study import Study
    from squeeze.study.workers import check_engine
    from squeeze.tables import print_table
    from squeeze.training.progress import RunProgress

    check_engine(engine, address, slurm)
    console = Console()
    registered_level: Any = level
    registered = plan(registered_level)
    chosen = _seeds(seeds, registered.evaluation, registered.development)
    names = claims_at(registered_level)
    if claims is not None:
        names = [catalogue.get(name.strip()).id for name in claims.split(",")]
    if recorded and records is None:
        raise InputError("--recorded needs --records DIR, whose arms it judges")
    changed = bool(replace or model)
    if changed and claims is None:
        names = [name for name in names if not stands_apart(name)]
    apart = [name for name in names if stands_apart(name)]
    if apart and changed:
        raise InputError(
            f"--model and --set change the level's study, {', '.join(apart)} has its own: choose "
            "other claims with --claims"
        )
    entries, verdicts = [], []
    with engine_of(engine, address, gpus_per_arm, slurm, console) as elsewhere:
        study = Study(
            registered_level,
            chosen,
            model=model,
            recipe=dict(map(_field, replace or [])),
            records=records,
            engine=elsewhere,
            recorded=recorded,
        )
        if study.registered:
            read(out)  # a file that is not ours is better refused before the training
        if len(apart) < len(names):
            digest = registration_sha256(registered_level)[:12]
            console.print(f"registration {digest}, seeds {', '.join(map(str, chosen))}")
        for name in apart:
            digest, own = registration_sha256(registered_level, name)[:12], study.own(name)[1]
            console.print(f"{name}: registration {digest}, seeds {', '.join(map(str, own))}")
        with RunProgress(console, float(len(names)), shown=elsewhere is None) as progress:
            for name in names:
                progress.describe(name)
                start = time.perf_counter()
                with interruptible(again()):
                    found = judge(study, name)
                seconds = time.perf_counter() - start
                verdicts += found
                test = f"squeeze observe {level}"
                entries += [
                    new_entry(v, catalogue.get(name), seconds=seconds, test=test) for v in found
                ]
                progress.advance(1.0)
    print_table(verdict_table(verdicts), console)
    if study.registered:
        merge(out, entries)
        console.print(f"recorded in {out / 'claims.md'}", soft_wrap=True)
    else:
        console.print("not recorded: not the registered evaluation")


def _field(text: str) -> tuple[str, str]:
    from squeeze.errors import InputError

    name, equals, value = text.partition("=")
    if not equals or name in ("model", "seed", "arms"):
        raise InputError(
            f"--set must be FIELD=VALUE of the recipe, such as finetuning=full, not {text!r} "
            "(--model, --seeds and --claims choose the model, the seeds and the arms)"
        )
    return name, value


def _seeds(text: str, evaluation: tuple[int, ...], development: tuple[int, ...]) -> tuple[int, ...]:
    named = {"evaluation": evaluation, "development": development}
    if text in named:
        return named[text]
    return tuple(seed_numbers(text, "evaluation, development or distinct numbers"))


def _published(logs: Path | None, out: Path) -> None:
    """Judge the authors' logs, say what was left out of them, and record every row."""
    from rich.console import Console

    from squeeze.claims import catalogue
    from squeeze.claims.ledger import merge, new_entry, read
    from squeeze.cli.verdicts import verdict_table
    from squeeze.errors import InputError
    from squeeze.study.published import FIGURE, draw_published, judge_published
    from squeeze.tables import print_table

    if logs is None:
        raise InputError(
            "observe published needs --logs DIR, a clone of the authors' repository "
            "(Joshua-Ren/Learning_dynamics_LLM)"
        )
    console = Console(highlight=False)
    read(out)  # a file that is not ours is better refused before the work
    judged = judge_published(logs)
    for found in judged:
        for note in [*found.run.notes, found.run.argmax_problem]:
            if note:
                console.print(f"{found.run.name}: {note}", soft_wrap=True, markup=False)
        if found.phase is None:
            said = f"{found.run.name}: neither sft nor dpo in its name; not judged"
            console.print(said, soft_wrap=True, markup=False)
    rows = [row for found in judged for row in found.rows]
    print_table(verdict_table(rows), console)
    test = "squeeze observe published"
    merge(out, [new_entry(row, catalogue.get(row.claim), seconds=0.0, test=test) for row in rows])
    figure = draw_published(judged, out / FIGURE)
    console.print(f"recorded in {out / 'claims.md'}", soft_wrap=True)
    if figure is not None:
        console.print(f"Figure 4 from the authors' logs: {figure}", soft_wrap=True)
