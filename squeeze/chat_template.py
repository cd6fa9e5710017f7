"""Chat templates of users: tried once within limits of time and memory, before one is rendered.

A template is a program. jinja's sandbox keeps it from the machine, not from looping for hours or
making gigabytes of text, so a process of its own renders a small conversation first.
"""

from __future__ import annotations

import functools
import subprocess
import sys

from squeeze.errors import InputError

SECONDS = 5  # of the processor, for one conversation of four turns
MEGABYTES = 1000  # of address space
CHARACTERS = 1_000_000

# What transformers gives a template: its tags, functions and whitespace rules; any other error is
# left to the rendering itself. Exit code 7 is a text that is too long, the system's own a limit.
_TRIAL = f"""
import json, resource, sys
source = sys.stdin.read()
from jinja2.ext import Extension, loopcontrols
from jinja2 import nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment
class Generation(Extension):
    tags = {{"generation"}}
    def parse(self, parser):
        line = next(parser.stream).lineno
        inner = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return nodes.Scope(inner, lineno=line)
def stop(*words):
    raise ValueError
resource.setrlimit(resource.RLIMIT_AS, ({MEGABYTES} << 20,) * 2)
resource.setrlimit(resource.RLIMIT_CPU, ({SECONDS}, {SECONDS} + 1))
try:
    made = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
    )
    made.globals |= {{"raise_exception": stop, "strftime_now": lambda form: "1 January 2026"}}
    made.filters["tojson"] = lambda value, **options: json.dumps(value)
    text = "What is it? " * 100
    turns = [dict(role=r, content=text) for r in ("user", "assistant", "user", "assistant")]
    length = 0
    for piece in made.from_string(source).generate(
        messages=turns, add_generation_prompt=False, tools=None, documents=None,
        bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>",
    ):
        length += len(piece)
        if length > {CHARACTERS}:
            sys.exit(7)
except MemoryError:
    sys.exit(7)
except Exception:
    pass
"""


@functools.lru_cache(maxsize=8)
def require_bounded(template: str) -> None:
    """Raise `InputError` for a chat template that takes far more time or memory than one does."""
    if sys.platform == "win32":  # it has no such limits
        return
    command = [sys.executable, "-I", "-c", _TRIAL]
    try:
        done = subprocess.run(
            command, input=template.encode(), capture_output=True, timeout=60 * SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        pass
    else:
        if done.returncode == 0 or b"Error" in done.stderr:  # no jinja2 here, or none of its limits
            return
    raise InputError(
        f"the model's chat template takes more than {SECONDS} s, {MEGABYTES} MB or "
        f"{CHARACTERS:,} characters for four turns; choose another with --template"
    )
