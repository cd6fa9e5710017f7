"""The cache: what is damaged is made again and said, what grows is bounded, nobody else gets in."""

import os
import sys
import time

import pytest

from squeeze import cache
from squeeze.cli import main
from squeeze.errors import InputError

pytestmark = pytest.mark.cpu


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("SQUEEZE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def made(target, times=[]):  # noqa: B006 - counts the calls
    def make(scratch):
        times.append(target)
        scratch.mkdir()
        (scratch / "weights").write_bytes(b"abcdef")

    cache.kept(target, make)
    return times.count(target)


@pytest.mark.parametrize("harm", ["flip", "truncate", "remove", "lengthen"])
def test_what_is_damaged_is_made_again_with_a_note(root, harm, capsys):
    target = root / "models" / "x"
    assert made(target) == made(target) == 1
    weights = target / "weights"
    if harm == "remove":
        weights.unlink()
    else:
        data = {"flip": b"abcdeg", "truncate": b"abc", "lengthen": b"abcdefg"}[harm]
        weights.write_bytes(data)
    assert made(target) == 2
    assert weights.read_bytes() == b"abcdef"
    assert "weights is damaged; it is made again" in capsys.readouterr().err
    assert made(target) == 2


def test_what_an_earlier_version_left_is_sealed_as_it_is(root):
    target = root / "tinylm" / "old"
    target.mkdir(parents=True)
    (target / "weights").write_bytes(b"as it was")
    assert made(target) == 0
    (target / "weights").write_bytes(b"as it is!")
    assert made(target) == 1


def test_a_file_that_was_about_to_change_when_the_process_died_is_trusted(root):
    place = root / "experiments" / "e"
    place.mkdir(parents=True)
    (place / "a").write_text("1")
    cache.seal(place, ["a"])
    cache.unseal(place, ["a"])
    (place / "a").write_text("2")
    assert cache.damaged(place) is None
    cache.seal(place, ["a"])
    (place / "a").write_text("3")
    assert cache.damaged(place) == "a"


@pytest.mark.skipif(os.name != "posix", reason="modes of POSIX")
def test_directories_are_private_to_the_user(tmp_path, monkeypatch):
    monkeypatch.delenv("SQUEEZE_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "squeeze").mkdir(mode=0o755)
    place = cache.private(cache.cache_directory() / "kernels")
    assert [p.stat().st_mode & 0o777 for p in (place, place.parent)] == [0o700, 0o700]
    place.chmod(0o777)
    assert not cache.only_ours(place)


def test_without_a_home_the_way_out_is_named(monkeypatch):
    from pathlib import Path

    for name in ("SQUEEZE_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)

    def homeless():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", staticmethod(homeless))
    with pytest.raises(InputError, match="set SQUEEZE_CACHE"):
        cache.cache_directory()


NEW, OLD, OLDER = (f"{n}-0123456789abcdef" for n in range(3))


@pytest.fixture
def full(root):
    """Three experiments of a megabyte, unused for 0, 10 and 20 days, and a model."""
    for name, days in ((NEW, 0), (OLD, 10), (OLDER, 20)):
        place = root / "experiments" / name
        place.mkdir(parents=True)
        (place / "data").write_bytes(b"x" * 1_000_000)
        then = time.time() - 86400 * days
        for path in (place / "data", place):
            os.utime(path, (then, then))
    (root / "models" / "m").mkdir(parents=True)
    return root


def left(root):
    return sorted(path.name for path in (root / "experiments").iterdir())


def test_growth_is_bounded_the_longest_unused_first_and_said(full, monkeypatch, capsys):
    cache.bound()
    assert len(left(full)) == 3
    monkeypatch.setenv("SQUEEZE_CACHE_GB", "0.0025")
    cache.bound()
    assert left(full) == [NEW, OLD]
    assert OLDER in capsys.readouterr().err
    monkeypatch.setenv("SQUEEZE_CACHE_GB", "0")
    cache.bound()
    assert left(full) == [NEW], "what was used this week stays"
    for given in ("much", "nan", "-1"):
        monkeypatch.setenv("SQUEEZE_CACHE_GB", given)
        with pytest.raises(InputError, match="SQUEEZE_CACHE_GB must be a number"):
            cache.bound()


def test_what_is_not_ours_is_neither_listed_nor_removed(full, monkeypatch, capsys):
    """SQUEEZE_CACHE may name a directory that holds somebody's models and experiments."""
    mine = [full / "models" / "llama", full / "experiments" / "2024", full / "models" / "loop"]
    for path in mine[:2]:
        path.mkdir(parents=True)
        os.utime(path, (0, 0))
    mine[2].symlink_to(mine[2])
    monkeypatch.setenv("SQUEEZE_CACHE_GB", "0")
    cache.bound()
    code, out, _ = run(monkeypatch, capsys, "clean", "--all")
    assert code == 0
    assert NEW in out
    assert [path.is_symlink() or path.is_dir() for path in mine] == [True] * 3


def run(monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["squeeze", "cache", *arguments])
    code = 0
    try:
        main()
    except SystemExit as ended:
        code = ended.code
    return code, *capsys.readouterr()


def test_the_command_shows_sizes_by_kind_and_cleans_by_kind_age_and_size(full, monkeypatch, capsys):
    code, out, _ = run(monkeypatch, capsys, "list")
    assert code == 0
    assert "experiments 3 MB" in out
    code, _, err = run(monkeypatch, capsys, "clean")
    assert code == 2
    assert "--unused DAYS" in err
    _, out, _ = run(monkeypatch, capsys, "clean", "--unused", "15")
    assert "freed 1.0 MB" in out
    assert left(full) == [NEW, OLD]
    run(monkeypatch, capsys, "clean", "--kind", "experiments", "--larger", "2")
    assert left(full) == [NEW, OLD]
    run(monkeypatch, capsys, "clean", "--kind", "experiments")
    assert left(full) == []
    assert (full / "models" / "m").is_dir()


def test_what_a_process_is_at_is_kept(full, monkeypatch, capsys):
    from filelock import FileLock

    (full / "experiments" / OLD / "dpo").mkdir()
    with FileLock(full / "experiments" / OLD / "dpo" / "lock"):
        _, out, _ = run(monkeypatch, capsys, "clean", "--all")
    assert f"in use, kept: experiments/{OLD}" in out
    assert left(full) == [OLD]
