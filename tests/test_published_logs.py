"""The authors' published logs: what is read, and what is left out and why."""

import json
from pathlib import Path

import numpy as np
import pytest

from squeeze.errors import InputError
from squeeze.published_logs import (
    ARGMAX,
    ARRAY_NAME,
    CHOSEN,
    LOG_NAME,
    argmax_problem,
    find_logs,
    impossible_share,
    read_published,
)

AUTHORS = Path(__file__).parents[2] / "shared" / "data" / "authors"
REJECTED = "logps_eval_prob_train/rejected"
EARLY = (CHOSEN, ARGMAX, "except_argmax_prob_logits", REJECTED)
MENDED = ("chosen_A_o", CHOSEN, ARGMAX, "except_argmax_prob_logits")


def values(fields, evaluations=8, prompts=20, seed=0):
    """[evaluations, fields, prompts] of a sound log: the argmax lies above chosen everywhere."""
    rng = np.random.default_rng(seed)
    array = rng.normal(-100, 10, size=(evaluations, len(fields), prompts))
    array[:, fields.index(ARGMAX)] = array[:, fields.index(CHOSEN)] + 30
    array[:, fields.index("except_argmax_prob_logits")] = np.nan
    return array


def write(directory, fields, array, lines=None, keep_array=True):
    """A run's directory as the authors' repository has it; bare NaN as their code writes it."""
    directory.mkdir(parents=True, exist_ok=True)
    means = array.mean(axis=2) if lines is None else lines
    rows = [dict(zip(fields, map(float, line), strict=True)) for line in means]
    log = directory / LOG_NAME
    log.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    if keep_array:
        np.save(directory / ARRAY_NAME, array)
    return log


def test_a_sound_log_keeps_every_line_and_its_argmax(tmp_path):
    array = values(MENDED)
    run = read_published(write(tmp_path / "pythia_dpo", MENDED, array))
    assert (run.name, run.n_prompts, run.notes, run.argmax_problem) == ("pythia_dpo", 20, (), "")
    np.testing.assert_allclose(run.mean(CHOSEN), array[:, 1].mean(axis=1))
    np.testing.assert_array_equal(run.values(ARGMAX), array[:, 2])


def test_an_early_log_is_told_by_its_first_field_even_where_the_means_look_possible(tmp_path):
    run = read_published(write(tmp_path / "run", EARLY, values(EARLY), keep_array=False))
    assert "random words" in run.argmax_problem


def test_an_argmax_below_its_own_text_is_impossible_in_a_mean_or_in_any_prompt(tmp_path):
    array = values(MENDED)
    array[3, 2, 5] = array[3, 1, 5] - 1.0  # one cell; the means still look possible
    assert "impossible" in read_published(write(tmp_path / "cell", MENDED, array)).argmax_problem
    assert impossible_share(array[:, 1], array[:, 2]) == pytest.approx(1 / (8 * 20))
    means = array.mean(axis=2)
    means[4, 2] = means[4, 1] - 1.0
    assert "impossible" in argmax_problem(MENDED, means)


def test_a_field_that_a_run_lacks_is_named(tmp_path):
    run = read_published(write(tmp_path / "run", MENDED, values(MENDED)))
    with pytest.raises(InputError, match="holds no 'logps_eval_prob_train/rejected'"):
        run.mean(REJECTED)


def test_lines_of_a_second_run_between_those_of_the_array_are_left_out(tmp_path):
    array = values(MENDED, evaluations=10)
    other = values(MENDED, evaluations=2, seed=1)
    other[0] = array[0]  # the same untouched model
    means, second = array.mean(axis=2), other.mean(axis=2)
    lines = [*means[:6], second[0], means[6], second[1], *means[7:]]
    run = read_published(write(tmp_path / "run", MENDED, array, lines))
    np.testing.assert_allclose(run.means[:, 1], means[:, 1])
    (note,) = run.notes
    assert note.startswith("lines 6, 8 of 12 left out")


@pytest.mark.parametrize(
    ("aborted", "kept", "words"),
    [(1, slice(1, None), "an aborted start"), (7, slice(7), "another")],
)
def test_without_an_array_the_untouched_model_marks_where_a_run_starts(
    tmp_path, aborted, kept, words
):
    means = values(MENDED, evaluations=12).mean(axis=2)
    means[aborted] = means[0]
    run = read_published(write(tmp_path / "run", MENDED, values(MENDED), means, keep_array=False))
    np.testing.assert_allclose(run.means[:, 1], means[kept, 1])
    assert words in run.notes[0]


def test_a_truncated_array_is_one_sentence(tmp_path):
    log = write(tmp_path / "run", MENDED, values(MENDED))
    array = log.with_name(ARRAY_NAME)
    array.write_bytes(array.read_bytes()[:-100])
    with pytest.raises(InputError, match="is no whole array"):
        read_published(log)


def test_an_array_whose_means_are_not_the_lines_is_refused(tmp_path):
    log = write(tmp_path / "run", MENDED, values(MENDED))
    np.save(log.with_name(ARRAY_NAME), values(MENDED, seed=5))
    with pytest.raises(InputError, match="has means that no line of the log states"):
        read_published(log)


def test_a_broken_line_and_a_foreign_line_name_their_number(tmp_path):
    log = write(tmp_path / "run", MENDED, values(MENDED), keep_array=False)
    whole = log.read_text(encoding="utf-8")
    log.write_text(whole + '{"chosen_A_o": 1', encoding="utf-8")
    with pytest.raises(InputError, match="line 9 is not JSON"):
        read_published(log)
    log.write_text(whole + '{"loss": 1}\n', encoding="utf-8")
    with pytest.raises(InputError, match="line 9 is no evaluation"):
        read_published(log)


def test_a_folder_without_the_logs_says_what_to_give(tmp_path):
    with pytest.raises(InputError, match="give a clone of the authors' repository"):
        find_logs(tmp_path)
    with pytest.raises(InputError, match="is no directory"):
        find_logs(tmp_path / "nowhere")


def test_logs_are_found_in_a_clone_and_in_a_folder_of_files(tmp_path):
    log = write(tmp_path / "src" / "exp_results" / "run", MENDED, values(MENDED))
    assert find_logs(tmp_path) == [log]
    flat = tmp_path / "flat"
    flat.mkdir()
    (flat / "a_dpo.jsonl").write_bytes(log.read_bytes())
    (flat / "data.jsonl").write_text('{"prompt": "x"}\n', encoding="utf-8")
    assert find_logs(flat) == [flat / "a_dpo.jsonl"]
    assert read_published(flat / "a_dpo.jsonl").name == "a_dpo"


@pytest.mark.skipif(not AUTHORS.is_dir(), reason="the authors' logs are not beside the checkout")
def test_the_authors_logs_are_read_as_their_numbers_say():
    """Means, cells and line numbers, computed from the files; docs/published-logs.md has them."""
    runs = {run.name: run for run in map(read_published, find_logs(AUTHORS))}
    early = runs["prob_pythia410m_dpo"]
    assert impossible_share(early.values(CHOSEN), early.values(ARGMAX)) == pytest.approx(
        0.296, abs=5e-4
    )
    random = early.kinds()["random"]
    assert impossible_share(early.values(random), early.values(ARGMAX)) == 0.0
    assert "random words" in early.argmax_problem
    interleaved = runs["pythia410_baseline_dpo_checkbug"]
    assert interleaved.notes[0].startswith("lines 32, 34, 36, 38, 40 of 45 left out")
    assert interleaved.argmax_problem == ""
    assert interleaved.means[0][interleaved.fields.index(ARGMAX)] == pytest.approx(-61.6, abs=0.05)
    assert len(runs["pythia410m_baseline_dpo_checkbug_5e7"].means) == 137
