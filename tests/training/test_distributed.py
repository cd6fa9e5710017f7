"""A run that two processes share: the same trajectory, one writer, one error, and no hang."""

import re
import time

import numpy as np
import pytest
import yaml

from squeeze.data.encoding import EncodedItem
from squeeze.distributed import in_item_order, repeated_rows, share_batch
from squeeze.errors import InputError
from squeeze.replicate import replicate
from squeeze.scoring import ResponseScores
from squeeze.study.seed_run import Experiment
from squeeze.training.config import make_config
from squeeze.trajectory import KEYS, Trajectory
from tests.training.processes import PATIENCE, Group

pytestmark = pytest.mark.cpu

# In float32 the sum of two half-batches' gradients and the gradient of the whole batch differ by
# some ε = 1.2e-7 of their size, in each of 8 updates here, and Adam passes relative errors
# on undiminished: some 1e-6 of a log-prob. Ten times that; an update of other pairs or of another
# size moves log-probs by 1e-3 of themselves at least (see the counterfactual).
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def options(tiny_options):
    return tiny_options | {"arms": "sft-dpo", "epochs": 3, "generations": 0}


@pytest.fixture(scope="module")
def alone(tmp_path_factory, options):
    """The run in one process."""
    out = tmp_path_factory.mktemp("alone") / "run"
    replicate(make_config(options), out)
    return out


@pytest.fixture(scope="module")
def killed(tmp_path_factory, options):
    """The run in two processes, one of them killed inside DPO; the probes that it left."""
    place = tmp_path_factory.mktemp("shared")
    (place / "config.yaml").write_text(yaml.safe_dump(options))
    group = start(place, "killed")
    deadline = time.monotonic() + PATIENCE
    work = place / "run" / "work"
    while not list(work.glob("sft-dpo-*/trajectory.parquet")):  # DPO has its first probe
        assert group.processes[0].is_alive(), group.output(0)
        assert time.monotonic() < deadline, "the run made no progress"
        time.sleep(0.02)
    for process in reversed(group.processes):  # torchrun ends the others when one ends
        process.kill()
    group.wait()
    return place, probes(place / "run")


@pytest.fixture(scope="module")
def shared(killed):
    """The same run, gone on with by two processes to its end."""
    place, _ = killed
    group = start(place, "resumed", "--resume")
    assert group.wait() == [0, 0], group.output(0) + group.output(1)
    return place / "run", group


def start(place, notes, *more):
    arguments = ["replicate", "--config", place / "config.yaml", "--out", place / "run", *more]
    return Group(arguments, place / notes)


def probes(out):
    path = out / "trajectory.parquet"
    return len(Trajectory.read(path).points("sft-dpo")) if path.exists() else 0


def frame(out):
    return Trajectory.read(out / "trajectory.parquet").frame


def assert_same(actual, expected):
    """The same responses in the same rows, and the same scores up to float32's rounding."""
    assert actual[KEYS].to_numpy().tolist() == expected[KEYS].to_numpy().tolist()
    for name in ("logp", "argmax_logp", "entropy", "peakiness"):
        np.testing.assert_allclose(actual[name], expected[name], rtol=TOLERANCE)


def test_two_processes_killed_and_resumed_have_the_trajectory_of_one(killed, shared, alone):
    _, left = killed
    assert left < probes(alone), "nothing was left to resume"
    assert_same(frame(shared[0]), frame(alone))


def test_twice_the_effective_batch_is_another_trajectory(alone, options, tmp_path):
    doubled = make_config(options | {"batch_size": 2 * options["batch_size"]})
    ours = Experiment(doubled, cache=tmp_path).trajectory("sft-dpo").frame
    theirs = frame(alone)
    assert_same(ours[ours["probe"] == 0], theirs[theirs["probe"] == 0])
    with pytest.raises(AssertionError):
        assert_same(ours.assign(step=theirs["step"]), theirs)


def test_shares_put_one_after_the_other_are_another_trajectory(alone):
    expected = frame(alone)
    names = list(dict.fromkeys(expected["example"]))
    whose = [names.index(name) % 2 for name in expected["example"]]
    gathered = expected.assign(rank=whose).sort_values(["probe", "rank"], kind="stable")
    with pytest.raises(AssertionError):
        assert_same(expected.assign(logp=gathered["logp"].to_numpy()), expected)


def test_rows_from_two_processes_are_put_in_the_order_of_the_items():
    items = [EncodedItem(name, "train", [1], {"chosen": [2], "rejected": [3]}) for name in "abc"]
    rows = [
        ResponseScores(item.example, "train", kind, -1.0, -1.0, 1.0, 0.5, 1)
        for item in items
        for kind in item.response_ids
    ]
    gathered = rows[0:2] + rows[4:6] + rows[2:4]  # a and c from one process, b from the other
    assert gathered != rows
    assert in_item_order(items, gathered) == rows


def test_the_main_process_writes_all_files_and_says_all(shared, alone):
    out, group = shared
    # A process killed while it writes leaves the temporary file, whose name begins with a dot.
    names = {p.relative_to(out) for p in out.rglob("*") if not p.name.startswith(".")}
    assert names == {p.relative_to(alone) for p in alone.rglob("*")}
    assert group.output(1) == ""
    assert "report:" in group.output(0)
    ours, theirs = (
        [p.relative_to(out) for p in group.written(r) if out in p.parents] for r in (0, 1)
    )
    assert len(ours) > 10
    # What the libraries of the other process keep for as long as they train: transformers its
    # random state in the checkpoint, datasets its tables beside the data.
    passing = [p for p in theirs if any(re.fullmatch(r"checkpoint-\d+|data", x) for x in p.parts)]
    assert passing == theirs


BAD = {
    "too many pairs": ({"pairs": 10_000}, "--pairs"),
    "a batch that cannot be shared": ({"batch_size": 3}, "2 processes cannot share the 3 rows"),
    "a wrong field": ({"epochs": 0}, "--epochs must be positive"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_ends_both_processes_with_one_message(case, options, tmp_path):
    values, message = BAD[case]
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(options | values))
    group = start(tmp_path, "notes")
    assert group.wait() == [2, 2]
    assert group.output(0).startswith("squeeze: ")
    assert message in group.output(0)
    assert len(group.output(0).splitlines()) == 1
    assert group.output(1) == ""
    assert not (tmp_path / "run").exists() or not any((tmp_path / "run").iterdir())


def test_a_model_that_diverges_ends_both_processes_with_one_message(
    options, nan_directory, tmp_path
):
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(options | {"model": str(nan_directory)}))
    group = start(tmp_path, "notes")
    assert group.wait() == [2, 2]
    assert group.output(0).count("is nan") == 1
    assert group.output(1) == ""


@pytest.mark.parametrize("name", ["FSDP", "DEEPSPEED", "PARALLELISM_CONFIG"])
def test_a_launch_that_shards_the_weights_is_refused(name, options, tmp_path, monkeypatch):
    monkeypatch.setenv(f"ACCELERATE_USE_{name}", "true")
    with pytest.raises(InputError, match=f"whole model in each process.*{name}.*torchrun"):
        replicate(make_config(options), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("batch_size", "accumulation", "n", "each"),
    [(4, 1, 2, (2, 1)), (1, 4, 2, (1, 2)), (2, 2, 4, (1, 1)), (6, 2, 4, (3, 1)), (3, 5, 1, (3, 5))],
)
def test_processes_share_a_batch_before_its_accumulation(
    batch_size, accumulation, n, each, monkeypatch
):
    monkeypatch.setenv("WORLD_SIZE", str(n))
    assert share_batch(batch_size, accumulation) == each
    assert each[0] * each[1] * n == batch_size * accumulation


def test_a_batch_that_cannot_be_shared_names_the_way_out(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(InputError, match=r"4 processes .* 6 rows .*batch_size 3 × accumulation 2"):
        share_batch(3, 2)


def test_rows_that_full_batches_do_not_divide_are_repeated(monkeypatch):
    assert repeated_rows(5, 2) == 0
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert [repeated_rows(rows, 2) for rows in (4, 5, 8)] == [0, 3, 0]
