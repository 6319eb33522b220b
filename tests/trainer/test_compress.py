"""What a run leaves behind: smaller variants, measured honestly, in bundles that load anywhere."""

from __future__ import annotations

import hashlib
import json
import shutil
import zlib
from pathlib import Path

import numpy as np
import onnx
import pytest
import safetensors.numpy
import torch
from torch import nn

from tests.trainer.helpers import engine, events, manifest
from trainer.bundle import Tampered, open_bundle
from trainer.compress.prune import apply_masks, prune_by_magnitude, sparsity_of
from trainer.compress.quantize import quantize_int8
from trainer.contract import EventKind, Recipe
from trainer.export import export_network
from trainer.recipes import networks, tabular, text
from trainer.serve import predict

VARIANTS = ("original", "prune", "int8", "prune-int8")


def test_pruning_sets_the_smallest_share_of_all_layers_to_zero_and_the_masks_hold() -> None:
    torch.manual_seed(1)
    network = nn.Sequential(nn.Linear(20, 30), nn.ReLU(), nn.Linear(30, 5))
    with torch.no_grad():
        network[2].weight.mul_(100)  # all of the second layer is larger than any of the first
    masks = prune_by_magnitude(network, 0.4)
    assert sparsity_of(network) == pytest.approx(0.4, abs=1e-3)
    assert (network[2].weight != 0).all()
    with torch.no_grad():
        network[0].weight.add_(1.0)
    apply_masks(network, masks)
    assert sparsity_of(network) == pytest.approx(0.4, abs=1e-3)


def test_weights_that_are_zero_already_do_not_count_as_pruned() -> None:
    network = nn.Sequential(nn.Linear(10, 10))
    with torch.no_grad():
        network[0].weight[:5] = 0.0
    prune_by_magnitude(network, 0.5)
    assert sparsity_of(network) == pytest.approx(0.75)


@pytest.mark.parametrize("recipe", [Recipe.TEXT, Recipe.TABULAR])
def test_a_dense_network_loses_nearly_nothing_as_int8_and_any_batch_fits(
    recipe: Recipe, tmp_path: Path
) -> None:
    if recipe is Recipe.TEXT:
        transform = {"buckets": 4096, "ngrams": [1, 2, 3], "max_characters": 100}
        first, second = torch.randint(1, 4096, (2, 9)), torch.randint(0, 4096, (5, 30))
        graph_input = text.GRAPH_INPUT
    else:
        columns = [{"name": str(n), "kind": "number", "mean": 0.0, "scale": 1.0} for n in range(40)]
        transform = {"columns": columns}
        first, second = torch.randn(2, tabular.width(transform)), torch.randn(7, tabular.width(transform))
        graph_input = tabular.GRAPH_INPUT
    network = networks.build(recipe, transform, 3, seed=1)
    if recipe is Recipe.TEXT:
        nn.init.normal_(network.table.weight, std=0.1)  # type: ignore[union-attr,arg-type]
    export_network(network, [first, second], tmp_path / "original", graph_input=graph_input)
    quantize_int8(tmp_path / "original" / "model.onnx", tmp_path / "int8", iter(()))
    original, int8 = ((tmp_path / name / "model.onnx").read_bytes() for name in ("original", "int8"))
    assert len(original) / len(int8) > 2.5
    from trainer.bundle import open_graph

    for batch in (first, second):
        expected = network.eval()(batch).softmax(dim=1).detach().numpy()
        for name, tolerance in (("original", 1e-5), ("int8", 0.05)):
            (answer,) = open_graph(tmp_path / name / "model.onnx").run(None, {graph_input: batch.numpy()})
            assert np.abs(answer - expected).max() < tolerance


@pytest.mark.slow
def test_each_variant_is_a_bundle_and_was_told_as_an_event(finished: Path) -> None:
    result = manifest(finished)
    assert tuple(sorted(item.name for item in result.variants)) == tuple(sorted(VARIANTS))
    told = [event.data for event in events(finished, EventKind.VARIANT)]
    assert [item["name"] for item in told] == [item.name for item in result.variants]
    assert result.chosen in VARIANTS
    for item in result.variants:
        folder = finished.parent / "result" / item.name
        graph = (folder / "model.onnx").read_bytes()
        assert item.size_bytes == len(graph)
        assert item.compressed_size_bytes == len(zlib.compress(graph, 6))
        assert item.latency_p95_ms >= item.latency_p50_ms > 0
        description = json.loads((folder / "bundle.json").read_text())
        for name, checksum in description["sha256"].items():
            assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == checksum
        assert set(description["sha256"]) == {"model.onnx", "model.safetensors"}
        assert safetensors.numpy.load_file(folder / "model.safetensors")
        onnx.checker.check_model(onnx.load(folder / "model.onnx"))
    assert not list((finished.parent / "result").glob(".*"))


@pytest.mark.slow
def test_int8_is_much_smaller_and_pruning_shows_once_compressed(finished: Path) -> None:
    size = {item.name: item for item in manifest(finished).variants}
    assert size["original"].size_bytes / size["int8"].size_bytes > 3
    assert size["original"].compressed_size_bytes / size["prune"].compressed_size_bytes > 1.5
    assert size["prune-int8"].compressed_size_bytes < size["int8"].compressed_size_bytes
    assert size["original"].max_abs_difference < 1e-5
    assert 0 < size["int8"].max_abs_difference < 0.5
    zeros = [
        float((value == 0).mean())
        for name, value in safetensors.numpy.load_file(
            finished.parent / "result" / "prune" / "model.safetensors"
        ).items()
        if name.endswith("weight")
    ]
    assert max(zeros) > 0.4


@pytest.mark.slow
def test_a_bundle_answers_its_own_sample(finished: Path) -> None:
    for name in VARIANTS:
        bundle = open_bundle(finished.parent / "result" / name)
        probabilities, labels = predict(bundle, bundle.sample())
        assert probabilities.shape == (1, 10)
        assert probabilities.sum() == pytest.approx(1, abs=1e-4)
        assert labels[0] in bundle.classes


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["model.onnx", "model.safetensors"])
def test_a_file_that_was_changed_is_not_loaded(finished: Path, tmp_path: Path, victim: str) -> None:
    folder = tmp_path / "int8"
    folder.mkdir()
    for path in (finished.parent / "result" / "int8").iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    open_bundle(folder)
    content = bytearray((folder / victim).read_bytes())
    content[-1] ^= 1
    (folder / victim).write_bytes(content)
    with pytest.raises(Tampered, match=f"{victim} does not match its checksum"):
        open_bundle(folder)
    (folder / victim).unlink()
    with pytest.raises(Tampered, match="is missing"):
        open_bundle(folder)


@pytest.mark.slow
def test_compressing_again_from_the_checkpoint_finds_the_same_accuracy(
    finished: Path, tmp_path: Path
) -> None:
    before = {item.name: (item.accuracy, item.compressed_size_bytes) for item in manifest(finished).variants}
    spec = shutil.copytree(finished.parent, tmp_path / "copy") / finished.name
    # two processes made the checkpoint, one reads it: what it holds does not depend on that
    done = engine(spec, "compress")
    assert done.returncode == 0, done.stderr
    after = {item.name: (item.accuracy, item.compressed_size_bytes) for item in manifest(spec).variants}
    assert after["original"] == before["original"]
    assert after["int8"] == before["int8"]
