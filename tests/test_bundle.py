"""Bundles: pieces that are whole, resumable and checked; steps of which one stops no other."""

import json
import platform
import sys
import tarfile
import zipfile
from functools import partial

import pytest
from typer.testing import CliRunner

from squeeze.bundle import build, run
from squeeze.bundle.build import Group, Target, lacking_wheels, pack, read_installed
from squeeze.bundle.run import BundleError, Step, unmet, unpack
from squeeze.errors import InputError

pytestmark = pytest.mark.cpu

HERE = f"{sys.version_info[0]}.{sys.version_info[1]}"
FACTS = {"python": HERE, "machine": platform.machine(), "squeeze": "0.1"}
MOST = 4096
CONTENTS = {"suite/test_it.py": b"print(1)\n" * 2000, "suite/none.txt": b""}


def wheel_of(path, name, version, *lines, files=()):
    """A wheel of a few lines."""
    stem = f"{name.replace('-', '_')}-{version}"
    about = "\n".join(["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}", *lines])
    kind = "Wheel-Version: 1.0\nGenerator: t\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    members = {"METADATA": about + "\n", "WHEEL": kind, "RECORD": ""}
    path.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path / f"{stem}-py3-none-any.whl", "w") as archive:
        for member, text in members.items():
            archive.writestr(zipfile.ZipInfo(f"{stem}.dist-info/{member}"), text)
        for member, text in files:
            archive.writestr(zipfile.ZipInfo(member), text)  # no dates: the same bytes again
    return path / f"{stem}-py3-none-any.whl"


def groups(calls, scratch, key="1"):
    """A suite and a wheel; `calls` are the groups whose files were asked for."""

    def suite(place):
        calls.append("suite")
        for name, content in CONTENTS.items():
            (place / name).parent.mkdir(exist_ok=True)
            (place / name).write_bytes(content)
            yield name.removeprefix("suite/"), place / name

    def wheels(place):
        calls.append("wheels")
        files = [("thing/__init__.py", "x = 1\n"), ("thing-1.data/purelib/more.py", "y = 2\n")]
        wheel = wheel_of(scratch, "thing", "1", files=[*files, ("thing-1.data/scripts/t", "")])
        return [(wheel.name, wheel)]

    return [Group("suite", key, suite), Group("wheels", key, wheels)]


@pytest.fixture
def bundle(tmp_path):
    """A bundle of a few kilobytes, and how it is packed again."""
    calls = []
    again = partial(pack, tmp_path / "bundle", groups(calls, tmp_path / "made"), FACTS, MOST)
    packed = list(again())
    assert [p.kept for p in packed] == [False, False]
    return tmp_path / "bundle", calls, again


def test_what_is_unpacked_is_what_was_packed(bundle, tmp_path):
    place, _, _ = bundle
    sizes = [path.stat().st_size for path in place.glob("*.[0-9]*")]
    assert len(sizes) > 5
    assert max(sizes) == MOST
    site = unpack(place, tmp_path / "work")
    assert "site-packages" in site.parts, "else datasets pickles what lies there, by value"
    for name, content in CONTENTS.items():
        assert (tmp_path / "work" / name).read_bytes() == content
    names = {path.name for path in site.iterdir()}
    assert names == {"thing", "more.py", "thing-1.dist-info"}


def test_unpacking_twice_leaves_what_is_there(bundle, tmp_path):
    unpack(bundle[0], tmp_path / "work")
    kept = tmp_path / "work" / "suite" / "made-since"
    kept.touch()
    unpack(bundle[0], tmp_path / "work")
    assert kept.exists()


def test_pieces_that_are_whole_are_not_built_again(bundle):
    place, calls, again = bundle
    calls.clear()
    assert [packed.kept for packed in again()] == [True, True]
    assert calls == []
    damaged = place / "wheels.000"
    before = damaged.read_bytes()
    damaged.write_bytes(before[:-1] + b"!")
    assert [packed.kept for packed in again()] == [True, False]
    assert calls == ["wheels"]
    assert damaged.read_bytes() == before


def test_a_stopped_build_goes_on_and_is_not_run_before(bundle, tmp_path):
    place, calls, again = bundle
    next(iter(changed := pack(place, groups(calls, tmp_path / "other", "2"), FACTS, MOST)))
    changed.close()
    with pytest.raises(BundleError, match="not built to its end; run squeeze bundle again"):
        unpack(place, tmp_path / "work")
    assert [packed.kept for packed in again()] == [False, True]
    unpack(place, tmp_path / "work")


DAMAGES = {
    "missing": (lambda p: (p / "suite.001").unlink(), "suite.001 missing; copy what is named"),
    "damaged": (lambda p: (p / "suite.001").write_bytes(b"x"), "suite.001 damaged .another sha256"),
    "cut manifest": (lambda p: (p / "bundle.json").write_text("{"), "bundle.json is missing or"),
    "odd manifest": (lambda p: (p / "bundle.json").write_text('{"groups": 3}'), "bundle.json is"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_bundle_that_is_not_whole_is_one_sentence(damage, bundle, tmp_path, monkeypatch, capsys):
    spoil, sentence = DAMAGES[damage]
    spoil(bundle[0])
    with pytest.raises(BundleError, match=sentence):
        unpack(bundle[0], tmp_path / "work")
    assert not (tmp_path / "work").exists()
    monkeypatch.setattr(run, "HERE", bundle[0])
    monkeypatch.setattr(sys, "argv", ["run.py"])
    assert run.main() == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_bundle_for_another_python_names_the_way_out(bundle, tmp_path):
    list(pack(bundle[0], [], FACTS | {"python": "3.99"}))
    with pytest.raises(BundleError, match=r"for Python 3\.99 .*squeeze bundle --python"):
        run.run(bundle[0], tmp_path / "work", tmp_path / "results", [])


def code(name, text, minutes=1.0):
    return Step(name, minutes, ("-c", text), ("rehearsed",))


HANGS = """
import signal, time
signal.signal(signal.SIGINT, signal.default_int_handler)
try:
    time.sleep(60)
except KeyboardInterrupt:
    print("so far")
"""
STEPS = [
    code("first", "import thing, sys; print('argv', sys.argv[1:])"),
    code("second", "print('out'); raise SystemExit(3)"),
    code("third", HANGS, 0.02),
    code("fourth", "import os; print(os.environ['SQUEEZE_CACHE'])"),
]


def test_each_step_runs_in_its_time_and_one_that_fails_stops_none(bundle, tmp_path):
    results = tmp_path / "results"
    found = run.run(bundle[0], tmp_path / "work", results, STEPS, rehearse=True)
    states = {name: one.state for name, one in found.items()}
    assert states == {
        **{"first": "done", "second": "failed, exit code 3", "third": "time limit"},
        "fourth": "done",
    }
    assert found["first"].last == "argv ['rehearsed']"
    # Asked to end, before it is killed; perhaps while the interpreter starts.
    assert found["third"].last in ("so far", "KeyboardInterrupt")
    assert found["fourth"].last == str(tmp_path / "work" / "cache")
    text = (results / "summary.md").read_text()
    assert "Failed: second (failed, exit code 3), third (time limit)" in text
    assert "no result of a GPU" in text
    assert json.loads((results / "summary.json").read_text())["second"]["last"] == "out"
    assert (tmp_path / "results.tar.gz").is_file()
    again = run.run(bundle[0], tmp_path / "work", results, [code("second", "pass")])
    assert {n: o.state for n, o in again.items()} == states | {"second": "done"}


def test_a_stopped_run_keeps_what_there_is_and_says_what_was_stopped(bundle, tmp_path):
    """As by a SIGTERM that reaches run.py in a step."""
    steps = [STEPS[0], code("second", "import os, signal; os.kill(os.getppid(), signal.SIGINT)")]
    with pytest.raises(KeyboardInterrupt):
        run.run(bundle[0], tmp_path / "work", tmp_path / "results", [*steps, STEPS[3]])
    with tarfile.open(tmp_path / "results.tar.gz") as archive:
        text = archive.extractfile("results/summary.json").read()
    assert {n: one["state"] for n, one in json.loads(text).items()} == {
        "first": "done",
        "second": "stopped",
    }


def test_without_a_gpu_only_a_rehearsal_goes_on(bundle, tmp_path):
    text = """open("../../results/environment.json", "w").write('{"gpus": []}')"""
    report = code("environment", text)
    with pytest.raises(BundleError, match=r"sees no GPU.*--rehearse"):
        run.run(bundle[0], tmp_path / "work", tmp_path / "results", [report, STEPS[0]])
    assert not (tmp_path / "results" / "first.log").exists()
    found = run.run(bundle[0], tmp_path / "work", tmp_path / "results", [report, STEPS[0]], True)
    assert found["first"].state == "done"


BAD_STEPS = {
    "no-such": ("no-such", []),
    "the steps are": ("first", []),
    "STEP=NUMBER": (None, ["study=x"]),
}


@pytest.mark.parametrize("sentence", BAD_STEPS)
def test_wrong_steps_are_one_sentence(sentence):
    with pytest.raises(BundleError, match=sentence):
        run._chosen(*BAD_STEPS[sentence])


def test_a_limit_of_ones_own():
    (study,) = run._chosen("study", ["study=90"])
    assert study.minutes == 90
    assert study.command == next(s for s in run.STEPS if s.name == "study").command


def test_steps_name_tests_that_there_are():
    root = build.checkout()
    named = [w for step in run.STEPS for w in step.command if w.endswith(".py")]
    assert len(named) == 4
    assert all((root / name).is_file() for name in named)


# --- what the machine lacks -----------------------------------------------------------------------


def test_lists_as_pip_prints_them(tmp_path):
    path = tmp_path / "list"
    path.write_text(
        "Package   Version\n--------- -------\nTorch     2.11.0+cu130\nmy_peft==0.21.2\n"
        "# a remark\nplain\nunknown\nlocal @ file:///x\n-e git+https://x\n"
    )
    found = read_installed(path, {"plain": "7", "local": "1"})
    assert found == {"torch": "2.11.0", "my-peft": "0.21.2", "plain": "7", "local": "1"}


@pytest.mark.parametrize(("line", "sentence"), [("=1", "line 1: '=1'"), ("a==x", "no version")])
def test_a_wrong_line_is_named(line, sentence, tmp_path):
    (tmp_path / "list").write_text(line)
    with pytest.raises(InputError, match=sentence):
        read_installed(tmp_path / "list", {})


def test_the_list_that_ships_is_whole():
    pinned = build.pinned_versions(build.checkout() / "constraints.txt")
    found = read_installed(build.KNOWN_MACHINE, pinned)
    assert found["torch"] == "2.11.0"
    assert found["peft"] == pinned["peft"]
    assert not {"trl", "datasets", "pydantic", "typing-inspection"} & found.keys()


def test_the_platforms_that_a_machine_runs():
    found = Target("3.12", "manylinux_2_17_x86_64", {}).platforms
    assert found[:2] == ["manylinux_2_17_x86_64", "manylinux2014_x86_64"]
    assert found[-2:] == ["manylinux_2_5_x86_64", "manylinux1_x86_64"]
    assert Target("3.12", "manylinux_2_28_aarch64", {}).machine == "aarch64"


def test_what_no_version_meets():
    requires = {"a": ["b>=2", "c; extra == 'more'", "d; sys_platform == 'win32'"], "b": ["e"]}
    target = Target("3.12", "manylinux_2_28_x86_64", {})
    found = unmet(["a[more]"], {"a": "1", "b": "1.5"}, requires, target.markers)
    assert found == ["b>=2", "c", "e"]


@pytest.fixture
def lacking(tmp_path, monkeypatch):
    """The wheels that a machine with torch 2.11 lacks, by the versions that are pinned."""
    index = tmp_path / "index"
    for name, version in {"other": "3.0", "newer": "3.0", "torch": "2.12"}.items():
        wheel_of(index, name, version, *["Requires-Dist: torch>=2"] * (name != "torch"))
    wheel_of(index, "other", "2.5", "Requires-Dist: torch>=2")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    needs = ("torch>=2.8", "other>=2", "newer>=3; python_version >= '3.90'")
    extras = [f"Provides-Extra: {name}" for name in ("test", "triton")]
    ours = wheel_of(
        tmp_path, "dpo-squeeze", "0.1", *(f"Requires-Dist: {n}" for n in needs), *extras
    )
    target = Target("3.99", "manylinux_2_28_x86_64", {"torch": "2.11.0"})
    (tmp_path / "scratch").mkdir()

    def names(**pinned):
        found = lacking_wheels(target, ours, tmp_path / "scratch", pinned)
        return [name.removesuffix("-py3-none-any.whl") for name, _ in found]

    return names


@pytest.mark.parametrize(("pinned", "taken"), [("2.5", "2.5"), ("2.6", "3.0")])
def test_wheels_that_the_machine_lacks_are_taken_in_pinned_versions_where_they_fit(
    pinned, taken, lacking
):
    """Another package than torch, and one that only its Python needs."""
    assert lacking(other=pinned, torch="2.12") == ["newer-3.0", f"other-{taken}"]


BAD = {
    "--python": (["--python", "312"], "like 3.12"),
    "--platform": (["--platform", "win_amd64"], "like manylinux_2_28_x86_64"),
    "--model": (["--model", "x"], "not embedded; choose smollm2-135m"),
    "--installed": (["--installed", "nowhere"], "cannot read the list of packages"),
}


@pytest.mark.parametrize("option", BAD)
def test_bad_options_are_one_sentence_before_anything_is_built(option, tmp_path):
    from squeeze.cli import app

    words, sentence = BAD[option]
    result = CliRunner().invoke(app, ["bundle", str(tmp_path / "out"), *words])
    assert isinstance(result.exception, InputError)
    assert sentence in str(result.exception)
    assert not (tmp_path / "out").exists()


def test_outside_of_a_checkout_there_is_no_suite_to_take(monkeypatch, tmp_path):
    monkeypatch.setattr(build, "__file__", str(tmp_path / "site" / "squeeze" / "bundle" / "b.py"))
    with pytest.raises(InputError, match="run it in a checkout"):
        build.checkout()
