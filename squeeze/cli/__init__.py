"""The `squeeze` command: a module for each subcommand, heavy imports inside its functions."""

import signal
import sys
import traceback

from squeeze.cli import bench as bench
from squeeze.cli import bundle as bundle
from squeeze.cli import cache as cache
from squeeze.cli import claims as claims
from squeeze.cli import compare_losses as compare_losses
from squeeze.cli import data as data
from squeeze.cli import diagnose as diagnose
from squeeze.cli import models as models
from squeeze.cli import observe as observe
from squeeze.cli import replicate as replicate
from squeeze.cli import report as report
from squeeze.cli import scan as scan
from squeeze.cli import stories as stories
from squeeze.cli import verify as verify
from squeeze.cli.app import PANELS, app
from squeeze.cli.terminal import guard_streams, visible
from squeeze.distributed import EverywhereError, is_main, leave
from squeeze.errors import InputError, refused_by_system
from squeeze.extras import way_out
from squeeze.interrupt import Terminated, terminable

__all__ = ["app", "main"]

INTERNAL_ERROR = 70  # EX_SOFTWARE of sysexits.h

for registered in (app.registered_commands, app.registered_groups):
    # in the order of the panels; a command without one comes first, under "Commands"
    registered.sort(key=lambda command: [None, *PANELS].index(command.rich_help_panel or None))


def main() -> None:
    """Run the command line; an `InputError` becomes one sentence on stderr and exit code 2.

    So does an extra that is not installed, and a machine without room, memory or permission. Any
    other error is our own: it is shown whole, with exit code 70, which no verdict has.
    """
    guard_streams()
    try:
        with terminable():
            app()
    except Terminated:
        _say("stopped by SIGTERM; nothing half written is left")
        raise SystemExit(128 + signal.SIGTERM) from None
    except SystemExit as ended:
        if isinstance(ended.__context__, BrokenPipeError):  # typer ends with 1, which is a verdict
            raise SystemExit(2) from None
        raise
    except InputError as error:
        everywhere = isinstance(error, EverywhereError)
        if is_main() or not everywhere:
            _say(str(error))
        if everywhere:
            leave()
        raise SystemExit(2) from None
    except Exception as error:  # noqa: BLE001 (the outermost boundary)
        missing = way_out(error) if isinstance(error, ModuleNotFoundError) else None
        if (sentence := missing or refused_by_system(error)) is not None:
            _say(sentence)
            raise SystemExit(2) from None
        traceback.print_exc()
        print("squeeze: an error of squeeze itself; please report it", file=sys.stderr, flush=True)
        raise SystemExit(INTERNAL_ERROR) from None


def _say(sentence: str) -> None:
    """One line on stderr, whatever file names, libraries or data put into it."""
    print(f"squeeze: {visible(' '.join(sentence.split()))}", file=sys.stderr, flush=True)
