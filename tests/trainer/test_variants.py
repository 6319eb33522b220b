"""What counts as done: the right kind of 8 bits, and a file that answers as its torch network did."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from tests.trainer.helpers import digits_run
from trainer.compress.quantize import quantize_int8
from trainer.compress.variants import SAME, Made, _alike, finish
from trainer.contract import CompressionSpec, Manifest, Recipe, RunSpec, read_events
from trainer.control import Control
from trainer.distributed import Gang
from trainer.events import Events
from trainer.export import export_network
from trainer.prepare import Run, prepare
from trainer.recipes import image, networks, tabular

IMAGE = {"side": 8, "channels": 1, "mean": [0.3], "scale": [0.3]}
COLUMNS = {"columns": [{"name": str(n), "kind": "number", "mean": 0.0, "scale": 1.0} for n in range(40)]}


def operators(path: Path) -> set[str]:
    return {node.op_type for node in onnx.load(path).graph.node}


def test_convolutions_get_calibrated_ranges_and_never_dynamic_ones(tmp_path: Path) -> None:
    network = networks.build(Recipe.IMAGE, IMAGE, 10, seed=1)
    examples = [torch.rand(2, 1, 8, 8), torch.rand(5, 1, 8, 8)]
    export_network(network, examples, tmp_path / "original", graph_input=image.GRAPH_INPUT)
    feeds = ({image.GRAPH_INPUT: np.random.default_rng(n).random((8, 1, 8, 8), np.float32)} for n in range(4))
    said = quantize_int8(tmp_path / "original" / "model.onnx", tmp_path / "int8", feeds)
    found = operators(tmp_path / "int8" / "model.onnx")
    assert "static" in said
    assert {"QuantizeLinear", "DequantizeLinear", "Conv"} <= found
    assert found.isdisjoint({"ConvInteger", "DynamicQuantizeLinear"})


def test_dense_layers_find_their_ranges_while_running(tmp_path: Path) -> None:
    network = networks.build(Recipe.TABULAR, COLUMNS, 3, seed=1)
    examples = [torch.randn(2, tabular.width(COLUMNS)), torch.randn(5, tabular.width(COLUMNS))]
    export_network(network, examples, tmp_path / "original", graph_input=tabular.GRAPH_INPUT)
    said = quantize_int8(tmp_path / "original" / "model.onnx", tmp_path / "int8", iter(()))
    assert "dynamic" in said
    assert "MatMulInteger" in operators(tmp_path / "int8" / "model.onnx")


def measured(name: str, differs: float | None) -> dict[str, object]:
    return {"name": name, "export_difference": differs}


def run_in(folder: Path, *, images: int = 20, **options: Any) -> Run:
    spec = RunSpec.from_json(digits_run(folder, images=images, **options).read_text())
    events = Events(folder / "events.jsonl")
    return Run(folder=folder, spec=spec, events=events, control=Control(folder / "control.json"))


def test_a_variant_whose_file_answers_otherwise_than_its_network_is_left_out_and_named(
    tmp_path: Path,
) -> None:
    run = run_in(tmp_path)
    made = [Made(name=name, method="") for name in ("original", "structured-50", "lowrank", "int8")]
    figures = [
        measured("original", 1e-7),
        measured("structured-50", 0.3),
        measured("lowrank", SAME / 2),
        measured("int8", None),  # made from a file: no network of its own to compare with
    ]
    assert [item.name for item in _alike(run, made, figures)] == ["original", "lowrank", "int8"]
    run.events.close()
    told = [event.data["text"] for event in read_events(tmp_path / "events.jsonl")[0]]
    assert told == ["structured-50 answers differently once it is reloaded (by 0.3) and is left out."]


def test_an_original_whose_file_answers_otherwise_ends_the_run(tmp_path: Path) -> None:
    run = run_in(tmp_path)
    with pytest.raises(RuntimeError, match="the export cannot be trusted"):
        _alike(run, [Made(name="original", method="")], [measured("original", 0.01)])
    run.events.close()


def test_a_model_that_is_no_better_than_the_commonest_class_is_named_as_such(tmp_path: Path) -> None:
    run = run_in(tmp_path, images=200, compression=CompressionSpec(methods=()))
    prepared = prepare(run)
    network = networks.build(Recipe.IMAGE, prepared.transform, 10, seed=1)
    for weight in network.parameters():  # it has learned nothing, and answers one class whatever it is shown
        torch.nn.init.zeros_(weight)
    alone = Gang(rank=0, world=1, device=torch.device("cpu"))
    result = finish(run, prepared, network, alone, steps=0)
    run.events.close()
    assert result.eager is not None
    assert min(result.eager.latency_p50_ms, result.eager.original_p50_ms) > 0
    assert result.beats_baseline is False
    assert result.baseline is not None
    assert (result.baseline.name, result.baseline.value) == ("commonest class", prepared.baseline_accuracy)
    assert Manifest.from_json(result.to_json()) == result
    events = read_events(tmp_path / "events.jsonl")[0]
    warned = [event.data["text"] for event in events if event.data.get("level") == "warning"]
    assert [text.startswith("This model is not clearly better than") for text in warned] == [True]
