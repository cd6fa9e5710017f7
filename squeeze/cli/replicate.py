"""`squeeze replicate`: the main job."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from squeeze.cli.app import RUN, Plugin, app, load_plugin

Option = typer.Option


@app.command(rich_help_panel=RUN)
def replicate(
    model: Annotated[str | None, Option(help="Embedded name, local directory or hub id.")] = None,
    data: Annotated[str | None, Option(help="Embedded name or a preference file.")] = None,
    data_format: Annotated[
        str | None, Option("--from", help="The data file's format; recognised if not named.")
    ] = None,
    template: Annotated[str | None, Option(help="model, unmarked, chatml or plain.")] = None,
    arms: Annotated[str | None, Option(help="Comma-separated: dpo,sft-dpo,extend-dpo.")] = None,
    pairs: Annotated[int | None, Option(help="Training pairs.")] = None,
    held_out: Annotated[int | None, Option(help="Held-out prompts to probe.")] = None,
    epochs: Annotated[int | None, Option(help="DPO epochs.")] = None,
    seed: Annotated[
        int | None, Option(help="Seed of the split, the adapter and the order.")
    ] = None,
    beta: Annotated[float | None, Option(help="DPO's beta.")] = None,
    learning_rate: Annotated[float | None, Option(help="Of the DPO phase.")] = None,
    max_length: Annotated[int | None, Option(help="Tokens of prompt and answer.")] = None,
    too_long: Annotated[
        str | None, Option(help="Answers beyond --max-length: refuse or cut.")
    ] = None,
    finetuning: Annotated[str | None, Option(help="lora, or full: every weight.")] = None,
    dtype: Annotated[str | None, Option(help="auto, float32 or bfloat16.")] = None,
    config: Annotated[
        Path | None, Option(help="YAML or JSON: our fields, or LLaMA-Factory's.")
    ] = None,
    plugin: Plugin = None,
    out: Annotated[Path | None, Option(help="The run's directory.")] = None,
    quick: Annotated[bool, Option("--quick", help="A few pairs and epochs, all arms.")] = False,
    resume: Annotated[bool, Option("--resume", help="Go on with the run in --out.")] = False,
    force: Annotated[bool, Option("--force", help="Start over in --out.")] = False,
    yes: Annotated[
        bool, Option("--yes", help="Train even if it is projected to take more than a day.")
    ] = False,
    verbose: Annotated[
        bool, Option("--verbose", help="End with every row of every claim as a table.")
    ] = False,
) -> None:
    """Train a language model with DPO, three ways, and report whether it squeezes."""
    from rich.console import Console

    from squeeze.cli.verdicts import verdict_table
    from squeeze.distributed import is_main, leave, on_each
    from squeeze.interrupt import again, interruptible
    from squeeze.replicate import replicate as run
    from squeeze.tables import print_table
    from squeeze.training.config import QUICK, RunConfig, make_config, read_config
    from squeeze.training.llamafactory import is_llamafactory, overridden, translate

    options = {
        "model": model,
        "data": data,
        "data_format": data_format,
        "template": template,
        "arms": arms,
        "pairs": pairs,
        "held_out": held_out,
        "epochs": epochs,
        "seed": seed,
        "beta": beta,
        "learning_rate": learning_rate,
        "max_length": max_length,
        "too_long": too_long,
        "finetuning": finetuning,
        "dtype": dtype,
    }
    given = {k: v for k, v in options.items() if v is not None}

    def read() -> RunConfig:
        load_plugin(plugin)
        values = read_config(config) if config else {}
        if not (config and is_llamafactory(values)):
            return make_config((QUICK if quick else {}) | values | given)
        theirs, ours = overridden(values, (QUICK if quick else {}) | given)
        translation = translate(theirs, config.parent)
        for warning in translation.warnings if is_main() else ():
            typer.echo(f"{config.name}: {warning}", err=True)
        return make_config(translation.settings | ours)

    settings, console = on_each(read), Console(quiet=not is_main())
    target = out or Path("reports") / ("quick" if quick else "replicate")
    with interruptible(again("--resume")):
        verdicts = run(settings, target, resume=resume, force=force, yes=yes, console=console)
    if verbose:
        print_table(verdict_table(verdicts), console)
    console.print(f"report: {target / 'index.html'}", soft_wrap=True)
    leave()
