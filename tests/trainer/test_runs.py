"""Real runs as real processes: they learn, repeat bit by bit, survive kills, and stop when told."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from sklearn.datasets import load_breast_cancer, load_wine

from tests.trainer.helpers import (
    alive,
    children,
    digits_run,
    engine,
    events,
    losses,
    manifest,
    phases,
    rank_of,
    start_engine,
    table_run,
    text_run,
    wait_for,
)
from tests.trainer.sentences import SENTENCES
from trainer.contract import CompressionSpec, EventKind, Exit, Failure
from trainer.evaluate import load_holdout

pytestmark = pytest.mark.slow
NO_COMPRESSION = CompressionSpec(methods=())


def weights(spec: Path) -> bytes:
    newest = max((spec.parent / "checkpoints").iterdir(), key=lambda path: int(path.name.split("-")[1]))
    return (newest / "model.safetensors").read_bytes()


def only_error(spec: Path) -> dict[str, str]:
    (error,) = events(spec, EventKind.ERROR)
    return error.data


def test_two_processes_learn_the_digits(finished: Path) -> None:
    result = manifest(finished)
    original = result.variants[0]
    assert original.name == "original"
    assert original.accuracy > 0.95
    assert original.holdout_rows + result.rows_trained == 1797
    assert result.baseline_accuracy < 0.2
    assert result.steps == 8 * -(-result.rows_trained // 64)


def test_a_run_tells_its_story_in_order_and_in_full(finished: Path) -> None:
    assert phases(finished) == ["starting", "training", "exporting", "compressing", "evaluating", "done"]
    story = events(finished)
    assert [event.seq for event in story] == list(range(1, len(story) + 1))
    steps = manifest(finished).steps
    assert sorted(losses(finished)) == list(range(1, steps + 1))  # short: every step is shown
    accuracy = [event.data for event in story if event.data.get("name") == "val/accuracy"]
    assert len(accuracy) == 8
    last = [event.data for event in story if event.kind is EventKind.PROGRESS][-1]
    assert last == {"step": steps, "total_steps": steps, "epoch": 8, "eta_s": 0.0}


def test_what_training_measured_is_what_the_exported_file_scores(finished: Path) -> None:
    shown = [event.data["value"] for event in events(finished) if event.data.get("name") == "val/accuracy"]
    assert manifest(finished).variants[0].accuracy == pytest.approx(shown[-1], abs=1e-9)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One uninterrupted two-process training that others are compared with."""
    spec = digits_run(tmp_path_factory.mktemp("pair"), images=500, processes=2, epochs=12, batch_size=33)
    assert engine(spec, "train", processes=2).returncode == 0
    return spec


def test_the_same_seed_gives_the_same_losses_with_two_processes(pair: Path, tmp_path: Path) -> None:
    spec = digits_run(tmp_path, images=500, processes=2, epochs=12, batch_size=33)
    assert engine(spec, "train", processes=2).returncode == 0
    assert losses(spec) == losses(pair)
    assert weights(spec) == weights(pair)


@pytest.mark.chaos
def test_a_killed_rank_ends_the_run_and_the_next_attempt_goes_on_as_if_nothing_had_happened(
    pair: Path, tmp_path: Path
) -> None:
    spec = digits_run(tmp_path, images=500, processes=2, epochs=12, batch_size=33)
    process = start_engine(spec, "train", processes=2)
    wait_for(lambda: events(spec, EventKind.CHECKPOINT), what="a checkpoint")
    family = children(process.pid)
    (victim,) = [pid for pid in family if rank_of(pid) == 1 and not children(pid)]
    os.kill(victim, signal.SIGKILL)
    assert process.wait(timeout=40) != 0
    wait_for(lambda: not any(alive(pid) for pid in family), timeout_s=5, what="every process to be gone")
    assert "done" not in phases(spec)
    error = only_error(spec)
    assert error["reason"] == Failure.KILLED
    assert "killed or lost" in error["text"]

    assert engine(spec, "train", processes=2).returncode == 0
    said = [event.data["text"] for event in events(spec, EventKind.LOG)]
    assert any("Going on from the checkpoint" in text for text in said)
    assert losses(spec) == losses(pair)
    assert weights(spec) == weights(pair)


def test_ranks_do_not_outlive_the_process_that_started_them(tmp_path: Path) -> None:
    spec = digits_run(tmp_path, images=300, processes=2, epochs=3000)
    process = start_engine(spec, "train", processes=2)
    wait_for(lambda: events(spec, EventKind.CHECKPOINT), what="a checkpoint")
    family = children(process.pid)
    assert len(family) >= 2
    process.kill()
    process.wait(timeout=10)
    wait_for(lambda: not any(alive(pid) for pid in family), timeout_s=5, what="every rank to be gone")


def test_cancel_stops_every_rank_at_the_same_step_within_seconds(tmp_path: Path) -> None:
    spec = digits_run(tmp_path, images=300, processes=2, epochs=3000)
    process = start_engine(spec, "run", processes=2)
    wait_for(lambda: events(spec, EventKind.CHECKPOINT), what="a checkpoint")
    family = children(process.pid)
    asked = time.monotonic()
    (spec.parent / "control.json").write_text('{"cancel": true}')
    assert process.wait(timeout=10) != 0
    assert time.monotonic() - asked < 10
    assert not any(alive(pid) for pid in family)
    assert phases(spec)[-1] == "cancelled"
    assert not events(spec, EventKind.ERROR)
    assert not (spec.parent / "result" / "manifest.json").exists()


def test_cancel_and_sigterm_have_exit_codes_of_their_own_and_sigterm_loses_no_step(tmp_path: Path) -> None:
    spec = digits_run(tmp_path, images=300, epochs=3000)
    process = start_engine(spec, "run")
    wait_for(lambda: events(spec, EventKind.CHECKPOINT), what="a checkpoint")
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=10) == Exit.PREEMPTED
    assert phases(spec)[-1] == "preempted"
    saved = events(spec, EventKind.CHECKPOINT)[-1].data["step"]
    assert saved == max(event.data["step"] for event in events(spec, EventKind.METRIC))

    (spec.parent / "control.json").write_text('{"cancel": true}')
    assert engine(spec, "run").returncode == Exit.CANCELLED
    assert phases(spec)[-1] == "cancelled"
    first_again = [event.data["step"] for event in events(spec, EventKind.CHECKPOINT)][-1]
    assert first_again == saved + 1


def test_after_a_checkpoint_rotted_the_one_before_is_used_and_only_the_rest_is_done_again(
    tmp_path: Path,
) -> None:
    spec = digits_run(tmp_path, images=300, epochs=2)
    assert engine(spec, "train").returncode == 0
    trained, whole = losses(spec), weights(spec)
    newest = spec.parent / "checkpoints" / f"step-{max(trained)}"
    (newest / "model.safetensors").write_bytes(b"rot")

    assert engine(spec, "run").returncode == 0
    warned = [event.data["text"] for event in events(spec, EventKind.LOG) if event.data["level"] == "warning"]
    assert any(newest.name in text and "checksum" in text for text in warned)
    assert losses(spec) == trained
    assert weights(spec) == whole
    assert manifest(spec).steps == max(trained)

    told = len(events(spec, EventKind.METRIC))
    (spec.parent / "control.json").write_text('{"cancel": true}')
    assert engine(spec, "run").returncode == Exit.CANCELLED
    assert len(events(spec, EventKind.METRIC)) == told  # trained already: it stops before the compression
    assert not (spec.parent / "result" / "manifest.json").exists()  # no old report beside half a result


def test_a_loss_that_is_no_number_ends_the_run_by_name(tmp_path: Path) -> None:
    spec = digits_run(tmp_path, images=200, epochs=50, optimizer="sgd", learning_rate=1e20)
    assert engine(spec).returncode == Exit.CRASHED
    error = only_error(spec)
    assert error["reason"] == Failure.DIVERGED
    assert "smaller learning_rate" in error["text"]


def test_bad_data_has_its_exit_code_and_names_the_row(tmp_path: Path) -> None:
    spec = table_run(tmp_path, ["a", "y"], [[1, "u"], [2, "v"], [3, ""]] * 5, "y")
    assert engine(spec).returncode == Exit.BAD_DATA
    error = only_error(spec)
    assert error["reason"] == Failure.BAD_DATA
    assert error["text"] == (
        "data/table.csv, row 3 (line 4): column 'y' is empty. Fill it in or remove the row."
    )


def test_bad_data_is_named_also_when_two_processes_find_it(tmp_path: Path) -> None:
    spec = digits_run(tmp_path, images=30, processes=2)
    torn = spec.parent / "data" / "images" / "0" / "torn.png"
    torn.write_bytes(b"not a picture")
    assert engine(spec, processes=2).returncode != 0
    assert only_error(spec)["reason"] == Failure.BAD_DATA
    assert "data/images/0/torn.png" in only_error(spec)["text"]


def test_a_bad_spec_is_refused_by_its_field(tmp_path: Path) -> None:
    spec = digits_run(tmp_path, images=30)
    raw = json.loads(spec.read_text())
    raw["hyperparameters"]["epochs"] = 0
    spec.write_text(json.dumps(raw))
    assert engine(spec).returncode == Exit.BAD_SPEC
    assert only_error(spec)["reason"] == Failure.BAD_SPEC
    assert "/hyperparameters/epochs" in only_error(spec)["text"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1500k", "none", str(folder)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("needs the right to mount a small disk")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_is_named_and_the_last_whole_checkpoint_stays(small_disk: Path) -> None:
    spec = digits_run(small_disk, images=60, epochs=50)
    assert engine(spec, "train").returncode == Exit.CRASHED
    error = only_error(spec)
    assert error["reason"] == Failure.DISK_FULL
    assert "free some space" in error["text"]
    assert not list((small_disk / "checkpoints").glob(".step-*"))


def test_a_table_of_numbers_beats_the_majority_with_every_variant_measured(tmp_path: Path) -> None:
    cancer = load_breast_cancer()
    rows = [
        [*(f"{value:g}" for value in row), cancer.target_names[label]]
        for row, label in zip(cancer.data, cancer.target, strict=True)
    ]
    rows[3][2] = ""  # a missing value here and there is usual
    rows[40][5] = "NA"
    spec = table_run(tmp_path, [*cancer.feature_names, "diagnosis"], rows, "diagnosis", epochs=15)
    assert engine(spec).returncode == 0
    result = manifest(spec)
    assert result.classes == ("benign", "malignant")
    assert result.variants[0].accuracy > result.baseline_accuracy + 0.2
    assert [item.name for item in result.variants] == ["original", "prune", "int8", "prune-int8"]


def test_a_table_with_words_learns_from_them(tmp_path: Path) -> None:
    wine = load_wine()
    rows = []
    for row, label in zip(wine.data, wine.target, strict=True):
        strength = "strong" if row[0] > 13 else "light"
        rows.append([strength, f"{row[6]:g}", f"{row[9]:g}", f"{row[12]:g}", f"cultivar {label}"])
    header = ["strength", "flavanoids", "colour", "proline", "cultivar"]
    spec = table_run(tmp_path, header, rows, "cultivar", epochs=40, compression=NO_COMPRESSION)
    assert engine(spec).returncode == 0
    result = manifest(spec)
    assert result.variants[0].accuracy > result.baseline_accuracy + 0.3
    assert result.chosen == "original"
    assert result.beats_baseline
    bundle = json.loads((spec.parent / "result" / "original" / "bundle.json").read_text())
    assert bundle["inputs"][0] == {"name": "strength", "datatype": "BYTES", "shape": [-1]}


def test_hand_written_sentences_in_two_languages_beat_the_majority(tmp_path: Path) -> None:
    rows = [*SENTENCES, SENTENCES[0]]
    spec = text_run(tmp_path, rows, epochs=20, batch_size=16, holdout=0.3)
    assert engine(spec).returncode == 0
    result = manifest(spec)
    assert result.rows_trained + result.variants[0].holdout_rows == len(SENTENCES)
    assert result.variants[0].accuracy > result.baseline_accuracy + 0.3
    assert {item.name for item in result.variants} == {"original", "prune", "int8", "prune-int8"}


def test_held_out_rows_survive_the_way_to_the_measuring_process(tmp_path: Path) -> None:
    import numpy as np

    from trainer.data import words
    from trainer.evaluate import save_holdout

    inputs = {"n": np.asarray([1.5, np.nan], dtype=np.float32), "w": words(["质量", 'a"\n'])}
    save_holdout(tmp_path / "h.npz", inputs, np.asarray([0, 1]), guess=np.asarray([1, 1]))
    back, labels, reference, guess = load_holdout(tmp_path / "h.npz")
    assert list(back["w"]) == ["质量", 'a"\n']
    assert np.array_equal(back["n"], inputs["n"], equal_nan=True)
    assert labels.tolist() == [0, 1]
    assert not reference
    assert guess is not None
    assert guess.tolist() == [1]  # the same for all rows: kept once
