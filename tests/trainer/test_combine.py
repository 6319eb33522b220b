"""Small networks are taught and calibrated on training rows alone, and measured on held-out rows alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from tests.trainer.helpers import digits_run, engine, events, manifest, text_run
from tests.trainer.sentences import SENTENCES
from trainer.compress.combine import combinations
from trainer.compress.distill import loss_of, soft_labels, teach
from trainer.compress.structured import shrink, student
from trainer.compress.variants import finish
from trainer.contract import CompressionSpec, EventKind, Method, RunSpec, read_events
from trainer.control import Control
from trainer.data import Indices
from trainer.distributed import Gang
from trainer.events import Events
from trainer.failures import Diverged
from trainer.prepare import Prepared, Run, prepare
from trainer.recipes import networks

ALONE = Gang(rank=0, world=1, device=torch.device("cpu"))
EVERYTHING = CompressionSpec(methods=tuple(Method), max_accuracy_drop=0.05)


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched(Prepared):
    """Notes every row anybody asks for."""

    asked: set[int] = field(default_factory=set)

    def tensors(self, rows: Indices, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        self.asked.update(rows.tolist())
        return Prepared.tensors(self, rows, device)


def run_of(folder: Path, compression: CompressionSpec, **hyper: object) -> Run:
    path = digits_run(folder, images=500, compression=compression, **hyper)
    spec = RunSpec.from_json(path.read_text())
    control = Control(folder / "control.json")
    return Run(folder=folder, spec=spec, events=Events(folder / "events.jsonl"), control=control)


def watched(prepared: Prepared) -> Watched:
    known = {name: getattr(prepared, name) for name in Prepared.__slots__}
    return Watched(**known)


def trained(run: Run, prepared: Prepared, *, epochs: int = 6) -> nn.Module:
    """A network that knows its training rows: taught by their labels, told as very sure answers."""
    network = networks.build(run.spec.recipe, prepared.transform, 10, seed=1)
    sure = 12.0 * nn.functional.one_hot(torch.from_numpy(prepared.labels[prepared.split.train]), 10).float()
    teach(run, prepared, network, sure, ALONE, epochs=epochs)
    return network


@pytest.fixture(scope="module")
def school(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Run, Prepared, nn.Module]]:
    run = run_of(tmp_path_factory.mktemp("school"), EVERYTHING, epochs=3, learning_rate=2e-3)
    prepared = prepare(run)
    yield run, prepared, trained(run, prepared)
    run.events.close()


def accuracy(network: nn.Module, prepared: Prepared, rows: Indices) -> float:
    x, y = prepared.tensors(rows, torch.device("cpu"))
    with torch.inference_mode():
        return float((network.eval()(x).argmax(dim=1) == y).float().mean())


def test_soft_labels_are_the_teachers_answers_to_the_training_rows_in_order(
    school: tuple[Run, Prepared, nn.Module],
) -> None:
    _, prepared, teacher = school
    seen = watched(prepared)
    soft = soft_labels(teacher, seen, torch.device("cpu"))
    assert seen.asked == set(prepared.split.train.tolist())
    x, _ = prepared.tensors(prepared.split.train[7:9], torch.device("cpu"))
    assert torch.allclose(soft[7:9], teacher.eval()(x), atol=1e-4)


def test_the_loss_is_least_when_the_student_answers_as_the_teacher() -> None:
    soft, labels = torch.randn(6, 4), torch.randint(0, 4, (6,))
    wrong = soft.roll(1, dims=1)
    assert loss_of(soft, soft, soft.argmax(1)) < loss_of(wrong, soft, soft.argmax(1))
    assert loss_of(soft, soft, labels) < loss_of(soft + torch.randn(6, 4) * 5, soft, labels)


def test_a_student_learns_from_its_teacher(school: tuple[Run, Prepared, nn.Module]) -> None:
    run, prepared, teacher = school
    soft = soft_labels(teacher, prepared, torch.device("cpu"))
    pupil = student(teacher, 0.25, seed=3)
    before = accuracy(pupil, prepared, prepared.split.holdout)
    teach(run, prepared, pupil, soft, ALONE, epochs=10)
    assert accuracy(pupil, prepared, prepared.split.holdout) > before + 0.4


def test_cut_channels_cost_accuracy_and_teaching_brings_it_back(
    school: tuple[Run, Prepared, nn.Module],
) -> None:
    run, prepared, teacher = school
    held = prepared.split.holdout
    narrow = shrink(teacher, 0.3)
    cut = accuracy(narrow, prepared, held)
    soft = soft_labels(teacher, prepared, torch.device("cpu"))
    teach(run, prepared, narrow, soft, ALONE, epochs=5)
    assert cut < accuracy(teacher, prepared, held) - 0.05
    assert accuracy(narrow, prepared, held) > accuracy(teacher, prepared, held) - 0.05


def test_teaching_that_diverges_says_so(school: tuple[Run, Prepared, nn.Module]) -> None:
    run, prepared, teacher = school
    soft = torch.full((len(prepared.split.train), 10), float("nan"))
    with pytest.raises(Diverged):
        teach(run, prepared, shrink(teacher, 0.5), soft, ALONE, epochs=1)


def test_no_combination_is_made_with_a_look_at_a_held_out_row(
    school: tuple[Run, Prepared, nn.Module],
) -> None:
    run, prepared, teacher = school
    seen = watched(prepared)
    made = [name for name, _, _ in combinations(run, seen, teacher, ALONE, budget_s=3600)]
    assert "structured-30" in made
    assert "distill-25" in made
    assert seen.asked == set(prepared.split.train.tolist())


def test_quality_is_measured_on_held_out_rows_and_never_on_training_rows(tmp_path: Path) -> None:
    """Every held-out label is made wrong: who measured on training rows would still report a high accuracy."""
    few = replace(EVERYTHING, methods=(Method.INT8, Method.STRUCTURED))
    run = run_of(tmp_path, few, epochs=3, learning_rate=2e-3)
    prepared = prepare(run)
    network = trained(run, prepared)
    assert accuracy(network, prepared, prepared.split.train) > 0.9
    labels = prepared.labels.copy()
    x, _ = prepared.tensors(prepared.split.holdout, torch.device("cpu"))
    labels[prepared.split.holdout] = (network(x).argmax(dim=1).numpy() + 1) % 10
    result = finish(run, replace(prepared, labels=labels), network, ALONE, steps=1)
    run.events.close()
    assert result.variants[0].accuracy == 0.0
    assert all(report.accuracy < 0.2 for report in result.variants)
    assert all(report.holdout_rows == len(prepared.split.holdout) for report in result.variants)


def test_a_search_out_of_time_says_what_it_did_not_try(tmp_path: Path) -> None:
    run = run_of(tmp_path, EVERYTHING, epochs=1)
    prepared = prepare(run)
    network = networks.build(run.spec.recipe, prepared.transform, 10, seed=1)
    assert list(combinations(run, prepared, network, ALONE, budget_s=0)) == []
    run.events.close()
    told = [event.data["text"] for event in read_events(tmp_path / "events.jsonl")[0]]
    assert any("not tried: structured-30, structured-30-lowrank" in text for text in told)


@pytest.mark.slow
def test_every_combination_that_stays_is_reloaded_measured_and_given_an_interval(tmp_path: Path) -> None:
    spec = digits_run(tmp_path, epochs=5, learning_rate=2e-3, images=900, compression=EVERYTHING)
    done = engine(spec, timeout_s=600)
    assert done.returncode == 0, done.stderr[-3000:]
    result = manifest(spec)
    found = {report.name: report for report in result.variants}
    assert {"original", "prune", "int8", "prune-int8"} < set(found)
    cut = [report for name, report in found.items() if name.startswith("structured")]
    assert cut
    assert max(found["original"].size_bytes / report.size_bytes for report in cut) > 8
    for report in result.variants:
        assert report.accuracy_low is not None
        assert report.accuracy_low <= report.accuracy <= report.accuracy_high
        assert (report.drop_high is None) == (report.name == "original")
        assert (spec.parent / "result" / report.name / "model.safetensors").is_file()
    folders = {path.name for path in (spec.parent / "result").iterdir() if path.is_dir()}
    assert folders == set(found)  # what is left out takes no room
    told = {event.data["name"] for event in events(spec, EventKind.VARIANT)}
    assert told == set(found)
    beaten = {one.name for one in result.left_out}
    assert not beaten & set(found)
    assert {"weights8", "weights4", "structured-30-weights4"} <= beaten | set(found)
    assert all(one.verdict and one.size_bytes > 0 for one in result.left_out)
    by_name = {report.name: report.source for report in result.variants}
    assert by_name["weights4"] == "original"
    assert all(source is None or source in beaten | set(found) for source in by_name.values())


@pytest.mark.slow
def test_a_bag_of_ngrams_shrinks_many_times_without_a_lost_row(tmp_path: Path) -> None:
    methods = (Method.INT8, Method.LOWRANK, Method.VOCABULARY)
    compression = CompressionSpec(methods=methods, max_accuracy_drop=0.01)
    spec = text_run(tmp_path, SENTENCES, epochs=20, batch_size=16, holdout=0.3, compression=compression)
    assert engine(spec).returncode == 0
    found = {report.name: report for report in manifest(spec).variants}
    assert found["lowrank"].accuracy == found["original"].accuracy
    assert found["lowrank"].max_abs_difference < 1e-4
    assert found["lowrank"].passed_gate
    assert found["original"].size_bytes / found["lowrank"].size_bytes > 10
    assert np.isfinite([report.latency_p50_ms for report in found.values()]).all()
