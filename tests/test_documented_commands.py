"""Every `squeeze …` command in README and docs exists, with every option that is written there."""

import re
import shlex
from pathlib import Path

import pytest
from typer.main import get_command

from squeeze.cli import app

pytestmark = pytest.mark.cpu

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/*.md"))]
COMMAND = re.compile(r"^\s*(?:\$ )?((?:python -m )?squeeze [a-z-].*)$", re.MULTILINE)


def commands(page):
    """The lines of a page that begin with `squeeze`, joined where they end in a backslash."""
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    blocks = re.findall(r"^```[a-z]*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    blocks += re.findall(r"(?:^    .*\n)+", text, re.MULTILINE)
    return [line for block in blocks for line in COMMAND.findall(block)]


FOUND = sorted({line for page in PAGES for line in commands(page)})


def test_there_are_commands_to_check():
    assert len(FOUND) > 10


@pytest.mark.parametrize("line", FOUND)
def test_a_documented_command_exists_with_its_options(line):
    words = shlex.split(line.removeprefix("python -m "), comments=True)
    command = get_command(app)
    rest = words[1:]
    while rest and hasattr(command, "commands") and not rest[0].startswith("-"):
        assert rest[0] in command.commands, f"no command {rest[0]!r} in: {line}"
        command = command.commands[rest.pop(0)]
    known = {option for parameter in command.params for option in parameter.opts}
    known |= {option for parameter in command.params for option in parameter.secondary_opts}
    used = {option for word in rest for option in re.findall(r"(?<![\w-])--[a-z][a-z-]*", word)}
    assert used <= known | {"--help"}, f"unknown {sorted(used - known)} in: {line}"
