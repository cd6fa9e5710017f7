"""Outer boundaries: the user's code, chat templates, the terminal, a system that refuses."""

import errno
import os
import signal
import sys
import time
from contextlib import suppress

import pytest

from squeeze import cli
from squeeze.chat_template import require_bounded
from squeeze.cli.app import load_plugin
from squeeze.cli.terminal import visible
from squeeze.errors import InputError, refused_by_system
from squeeze.files import replacing
from squeeze.interrupt import terminable
from squeeze.user_code import users_code

pytestmark = pytest.mark.cpu


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("x = 1\n1/0\n", "mine.py, line 2: ZeroDivisionError: division by zero"),
        ("def f(:\n", "mine.py, line 1: SyntaxError: "),
        ("import sys\nsys.exit(3)\n", "mine.py, line 2: SystemExit: 3"),
        ("def f(): return f()\nf()\n", "mine.py, line 1: RecursionError"),
        ("from squeeze import get_loss\n\nget_loss('sigmod')\n", "mine.py, line 3: unknown loss"),
    ],
)
def test_a_plugin_that_fails_names_the_file_and_the_line(tmp_path, code, said):
    (tmp_path / "mine.py").write_text(code)
    with pytest.raises(InputError) as found:
        load_plugin(tmp_path / "mine.py")
    assert said in str(found.value)


def test_ctrl_c_in_the_users_code_passes():
    with pytest.raises(KeyboardInterrupt), users_code("it"):
        raise KeyboardInterrupt


@pytest.mark.skipif(sys.platform == "win32", reason="it has no limits of a process")
@pytest.mark.parametrize(
    "template",
    [
        "{{ 'a' * 10 ** 10 }}",
        "{{ messages[0]['content'].center(10 ** 10) }}",
        "{% for i in range(99999) %}{{ 'aaaaaaaaaaaaaaaaaaaaaaaa' * 999 }}{% endfor %}",
        "{% set n = namespace(x='aa') %}{% for c in messages[0]['content'] %}"
        "{% set n.x = n.x + n.x %}{% endfor %}",
    ],
)
def test_a_template_that_makes_gigabytes_is_refused(template):
    with pytest.raises(InputError, match="choose another with --template"):
        require_bounded(template)


def test_control_characters_are_shown_and_colours_pass():
    assert visible("\x1b[31mred\x1b[0m \x1b]0;title\x07 a\tb\n") == (
        "\x1b[31mred\x1b[0m \\x1b]0;title\\x07 a\tb\n"
    )
    assert visible("\u202eabc") == "\\u202eabc"
    assert visible("👩‍👩‍👧") == "👩‍👩‍👧"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "x"), "no room to write"),
        (RuntimeError("I/O error: No space left on device (os error 28)"), "no room to write"),
        (PermissionError(errno.EACCES, "Permission denied", "/x"), "the system refused it"),
        (OSError(errno.EROFS, "Read-only file system", "/x"), "Read-only file system"),
        (FileExistsError(errno.EEXIST, "File exists", "/x"), "the system refused it"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "not enough memory"),
        (MemoryError(), "not enough memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: 1 TB"), "not enough memory"),
    ],
)
@pytest.mark.parametrize("wrapped", [False, True])
def test_what_the_system_refuses_is_one_sentence_and_exit_code_2(
    error, said, wrapped, monkeypatch, capsys
):
    def fails():
        if not wrapped:
            raise error
        raise RuntimeError("a library's own words") from error

    monkeypatch.setattr(cli, "app", fails)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    err = capsys.readouterr().err
    assert err.startswith(f"squeeze: {said}") or said in err
    assert len(err.splitlines()) == 1


def test_an_error_of_our_own_is_none_of_the_systems():
    assert refused_by_system(FileNotFoundError(errno.ENOENT, "No such file", "x")) is None
    assert refused_by_system(KeyError("x")) is None


def test_sigterm_leaves_nothing_half_written_whatever_the_command(tmp_path, monkeypatch, capsys):
    """What `finally` removes stays behind where a process ends by the signal itself."""

    def converts():
        with replacing(tmp_path / "out.jsonl") as temporary:
            temporary.write_text("half")
            with suppress(Exception), users_code("a plugin"):
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(60)

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(cli, "app", converts)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 143
    assert capsys.readouterr().err.startswith("squeeze: stopped by SIGTERM")
    assert not [*tmp_path.iterdir()]
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_process_ends_by_the_signal_itself():
    reading, writing = os.pipe()
    with terminable():
        child = os.fork()
        if child == 0:
            os.write(writing, b"x")
            time.sleep(60)
            os._exit(0)
        os.read(reading, 1)
        os.kill(child, signal.SIGTERM)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGTERM


def test_a_reader_that_goes_away_is_no_verdict(monkeypatch):
    """typer ends with exit code 1 then, which in CI means that an alarm went off."""

    def told():
        try:
            raise BrokenPipeError
        except BrokenPipeError:
            sys.exit(1)

    monkeypatch.setattr(cli, "app", told)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
