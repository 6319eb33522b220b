"""Private training: the promise is kept by draw, cut and noise, counted as others count it, and told."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_breast_cancer

from tests.trainer.helpers import engine, events, losses, manifest, table_run
from trainer import accountant
from trainer.contract import BadSpec, CompressionSpec, EventKind, Method, Recipe, RunSpec, TrainingSpec
from trainer.data import Position
from trainer.distributed import Gang
from trainer.prepare import Run, prepare
from trainer.privacy import SECRET_FILE, PrivateTraining, private_batches, promise
from trainer.recipes import networks

CASES = ((1.1, 0.01, 1000), (0.8, 0.1, 200), (4.0, 0.05, 500), (2.0, 1.0, 30))


def private_run(folder: Path, *, epsilon: float, rows: int | None = None, **options: object) -> Path:
    data = load_breast_cancer()
    table = [
        [*map(float, row), target] for row, target in zip(data.data[:rows], data.target[:rows], strict=True)
    ]
    header = [*(str(name).replace(" ", "_") for name in data.feature_names), "benign"]
    compression = CompressionSpec(methods=(Method.INT8, Method.PRUNE), max_accuracy_drop=0.05)
    given = {"epochs": 30, "batch_size": 64, "learning_rate": 1e-2, "compression": compression, **options}
    path = table_run(folder, header, table, "benign", **given)
    spec = RunSpec.from_json(path.read_text())
    training = replace(spec.training, privacy_epsilon=epsilon, privacy_delta=1e-4, schedule="constant")
    path.write_text(replace(spec, training=training).to_json())
    return path


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    spec = private_run(tmp_path_factory.mktemp("private"), epsilon=4.0)
    done = engine(spec)
    assert done.returncode == 0, done.stderr[-3000:]
    return spec


def test_a_private_model_of_real_patients_is_useful_and_says_what_it_costs_them(finished: Path) -> None:
    found = manifest(finished)
    assert found.privacy is not None
    assert 3.5 < found.privacy["epsilon"] <= 4.0
    assert found.privacy["delta"] == 1e-4
    original = next(one for one in found.variants if one.name == "original")
    assert original.accuracy > 0.88  # always answering the commonest class: 0.63
    assert found.beats_baseline
    said = [event.data["text"] for event in events(finished, EventKind.LOG)]
    assert any(text.startswith("Private training: epsilon") for text in said)


def test_no_compression_looks_at_the_training_rows_again(finished: Path) -> None:
    assert [one.name for one in manifest(finished).variants] == ["original", "int8"]
    said = [event.data["text"] for event in events(finished, EventKind.LOG)]
    assert any(text.startswith("prune is left out") for text in said)


def test_a_private_model_tells_nothing_of_what_its_rows_looked_like(finished: Path) -> None:
    for folder in (finished.parent / "result").glob("*/bundle.json"):
        assert "profile" not in json.loads(folder.read_text())


def test_a_private_model_tells_no_quantiles_of_its_rows(tmp_path: Path) -> None:
    rows = [[number / 7, number % 2] for number in range(1000)]
    run = table_run(tmp_path, ["x", "y"], rows, "y")
    spec = RunSpec.from_json(run.read_text())
    for epsilon, pieces in ((4.0, 0), (None, 4)):
        asked = replace(spec, training=replace(spec.training, privacy_epsilon=epsilon))
        prepared = prepare(Run(folder=tmp_path, spec=asked, events=_Quiet(), control=None))  # type: ignore[arg-type]
        assert len(prepared.transform["columns"][0]["edges"][1:]) == pieces
        assert prepared.encoded.shape[1] == 2 + pieces


def test_the_draw_and_the_noise_come_from_a_secret_and_not_from_the_seed(
    finished: Path, tmp_path: Path
) -> None:
    again = private_run(tmp_path, epsilon=4.0, epochs=2)
    assert engine(again, "train").returncode == 0
    once = losses(again)
    assert (again.parent / SECRET_FILE).stat().st_mode & 0o077 == 0
    for path in (again.parent / "events.jsonl", again.parent / SECRET_FILE):
        path.unlink()
    for part in sorted((again.parent / "checkpoints").rglob("*"), reverse=True):
        part.rmdir() if part.is_dir() else part.unlink()
    assert engine(again, "train").returncode == 0
    assert losses(again) != once


@pytest.mark.parametrize(("noise", "rate", "steps"), CASES)
def test_epsilon_is_what_opacus_counts_and_never_less(noise: float, rate: float, steps: int) -> None:
    accountants = pytest.importorskip("opacus.accountants", reason="opacus comes with the extra privacy")
    theirs = accountants.RDPAccountant()
    theirs.history = [(noise, rate, steps)]
    wanted = theirs.get_epsilon(1e-5)
    ours = accountant.epsilon(noise=noise, rate=rate, steps=steps, delta=1e-5)
    assert wanted * (1 - 1e-9) <= ours <= 1.05 * wanted


def test_the_least_noise_that_is_enough_is_found() -> None:
    known = {"rate": 0.05, "steps": 400, "delta": 1e-5}
    noise = accountant.noise_for(epsilon_at_most=3.0, **known)  # type: ignore[arg-type]
    assert accountant.epsilon(noise=noise, **known) <= 3.0  # type: ignore[arg-type]
    assert accountant.epsilon(noise=noise - 0.02, **known) > 3.0  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no amount of noise"):
        accountant.noise_for(epsilon_at_most=1e-9, **known)  # type: ignore[arg-type]


def test_every_row_is_drawn_by_its_own_chance_and_a_resumed_run_draws_the_same() -> None:
    drawn = list(private_batches(200, batch_size=20, secret=5, epochs=30, start=Position()))
    assert len(drawn) == 300
    sizes = [len(rows) for _, rows in drawn]
    assert len(set(sizes)) > 5
    assert abs(np.mean(sizes) - 20) < 1
    assert all(len(set(rows.tolist())) == len(rows) for _, rows in drawn)
    position = drawn[144][0]
    rest = list(private_batches(200, batch_size=20, secret=5, epochs=30, start=position))
    assert [rows.tolist() for _, rows in rest] == [rows.tolist() for _, rows in drawn[145:]]


def test_no_single_row_moves_the_sum_by_more_than_the_clip(tmp_path: Path) -> None:
    path = private_run(tmp_path, epsilon=4.0, rows=120)
    spec = RunSpec.from_json(path.read_text())
    run = Run(folder=tmp_path, spec=spec, events=_Quiet(), control=None)  # type: ignore[arg-type]
    prepared = prepare(run)
    network = networks.build(Recipe.TABULAR, prepared.transform, len(prepared.classes), seed=1).eval()
    gang = Gang(rank=0, world=1, device=torch.device("cpu"))
    stepper = PrivateTraining(run, prepared, network, gang).stepper
    parameters = dict(network.named_parameters())

    def sums_of(rows: np.ndarray) -> torch.Tensor:
        sums = {name: torch.zeros_like(one) for name, one in parameters.items()}
        stepper._add(rows, parameters, sums)  # type: ignore[attr-defined]
        return torch.cat([one.flatten() for one in sums.values()])

    rows = prepared.split.train[:30]
    whole = sums_of(rows)
    for left_out in range(0, 30, 7):
        moved = (whole - sums_of(np.delete(rows, left_out))).norm()
        assert moved <= 1.0 + 1e-4
    by_hand = torch.zeros_like(whole)
    for row in rows:
        x, y = prepared.tensors(np.array([row]), gang.device)
        network.zero_grad()
        torch.nn.functional.cross_entropy(network(x), y).backward()
        slope = torch.cat([one.grad.flatten() for one in network.parameters()])  # type: ignore[union-attr]
        by_hand += slope * min(1.0, 1.0 / float(slope.norm()))
    assert torch.allclose(whole, by_hand, atol=1e-4)


@pytest.mark.parametrize(
    ("training", "pointer"),
    [
        (TrainingSpec(privacy_epsilon=0.0), "/training/privacy_epsilon"),
        (TrainingSpec(privacy_epsilon=4.0, privacy_delta=1.5), "/training/privacy_delta"),
        (TrainingSpec(privacy_epsilon=4.0, compile="on"), "/training/compile"),
    ],
)
def test_a_promise_that_cannot_be_kept_is_refused(
    tmp_path: Path, training: TrainingSpec, pointer: str
) -> None:
    spec = RunSpec.from_json(private_run(tmp_path, epsilon=4.0, rows=60).read_text())
    with pytest.raises(BadSpec) as caught:
        replace(spec, training=training).check()
    assert caught.value.pointer == pointer


def test_two_processes_and_other_recipes_are_refused(tmp_path: Path) -> None:
    spec = RunSpec.from_json(private_run(tmp_path, epsilon=4.0, rows=60).read_text())
    for wrong in (
        replace(spec, resources=replace(spec.resources, processes=2)),
        replace(spec, recipe=Recipe.LANGUAGE),
    ):
        with pytest.raises(BadSpec, match="privacy_epsilon"):
            wrong.check()


def test_a_delta_that_promises_nothing_is_refused(tmp_path: Path) -> None:
    spec = RunSpec.from_json(private_run(tmp_path, epsilon=4.0, rows=60).read_text())
    assert promise(spec, 5000).epsilon <= 4.0
    with pytest.raises(BadSpec, match="one over the number of training rows"):
        promise(spec, 20_000)


class _Quiet:
    def log(self, text: str, level: str = "info") -> None:
        pass
