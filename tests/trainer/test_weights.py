"""Weight-only storage: small on disk, and in memory the network that it was."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from trainer.bundle import open_graph
from trainer.compress.weights import GROUP, pack_weights, quantize_groups
from trainer.contract import ONNX_FILE, Recipe
from trainer.export import export_network
from trainer.recipes import image, networks, text

IMAGE = {"side": 16, "channels": 1, "mean": [0.3], "scale": [0.3]}
WORDS = {"buckets": 2048, "ngrams": [1, 2, 3], "max_characters": 100}


def picture() -> tuple[nn.Module, Sequence[Tensor], str]:
    torch.manual_seed(1)
    return (
        networks.build(Recipe.IMAGE, IMAGE, 10, seed=1),
        [torch.rand(2, 1, 16, 16), torch.rand(5, 1, 16, 16)],
        image.GRAPH_INPUT,
    )


def bag() -> tuple[nn.Module, Sequence[Tensor], str]:
    network = networks.build(Recipe.TEXT, WORDS, 3, seed=1)
    nn.init.normal_(network.table.weight, std=0.1)  # type: ignore[union-attr,arg-type]
    return network, [torch.randint(1, 2048, (2, 9)), torch.randint(1, 2048, (5, 30))], text.GRAPH_INPUT


@pytest.mark.parametrize("bits", [8, 4])
def test_a_group_is_off_by_half_a_step_at_most_and_its_range_is_chosen_for_the_least_error(bits: int) -> None:
    values = np.random.default_rng(3).normal(size=(37, 41)).astype(np.float32)
    numbers, scales = quantize_groups(values, bits)
    assert numbers.max() < 2**bits
    back = (numbers.astype(np.float32) - 2 ** (bits - 1)) * scales.astype(np.float32)
    wanted = np.zeros(back.size, dtype=np.float32)
    wanted[: values.size] = values.ravel()
    rows = wanted.reshape(back.shape)
    step = np.abs(rows).max(axis=1, keepdims=True) / (2 ** (bits - 1) - 1)
    plain = np.round(rows / step) * step  # rounding within the whole range
    error, usual = (np.sqrt(((one - rows) ** 2).mean()) for one in (back, plain))
    assert error < (1.01 if bits == 8 else 0.97) * usual
    assert numbers.shape[1] == GROUP[bits]


def test_zeros_stay_zeros_and_do_not_divide_by_zero() -> None:
    numbers, scales = quantize_groups(np.zeros((4, 64), dtype=np.float32), 4)
    assert not ((numbers.astype(np.float32) - 8) * scales.astype(np.float32)).any()


@pytest.mark.parametrize("make", [picture, bag])
@pytest.mark.parametrize(("bits", "smaller", "differs"), [(8, 3.7, 0.01), (4, 5.5, 0.1)])
def test_the_file_shrinks_and_what_runs_is_the_fp32_network(
    make: object, bits: int, smaller: float, differs: float, tmp_path: Path
) -> None:
    network, examples, graph_input = make()  # type: ignore[operator]
    export_network(network, examples, tmp_path / "original", graph_input=graph_input)
    said = pack_weights(tmp_path / "original" / ONNX_FILE, tmp_path / "packed", bits=bits)
    assert said.startswith(f"{bits}-bit weights")
    packed = tmp_path / "packed" / ONNX_FILE
    assert (tmp_path / "original" / ONNX_FILE).stat().st_size / packed.stat().st_size > smaller
    for batch in examples:
        expected = network.eval()(batch).softmax(dim=1).detach().numpy()
        (answer,) = open_graph(packed).run(None, {graph_input: batch.numpy()})
        assert np.abs(answer - expected).max() < differs
    # unpacked once, on loading: not one of the operations that do it is left to run
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "loaded.onnx")
    onnxruntime.InferenceSession(str(packed), options, providers=["CPUExecutionProvider"])
    left = {node.op_type for node in onnx.load(tmp_path / "loaded.onnx").graph.node}
    assert left.isdisjoint({"BitShift", "BitwiseAnd", "Slice"})
    assert not any(
        node.output[0].startswith("w0.") for node in onnx.load(tmp_path / "loaded.onnx").graph.node
    )


def test_four_bits_take_at_most_sixteen_hundredths_of_large_weights(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 512))
    export_network(network, [torch.rand(2, 512), torch.rand(5, 512)], tmp_path / "original", graph_input="x")
    pack_weights(tmp_path / "original" / ONNX_FILE, tmp_path / "packed", bits=4)
    sizes = [(tmp_path / name / ONNX_FILE).stat().st_size for name in ("original", "packed")]
    assert sizes[1] <= 0.16 * sizes[0]


def test_a_network_without_a_large_matrix_says_that_there_is_nothing_to_pack(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Linear(4, 3))
    export_network(network, [torch.rand(2, 4), torch.rand(5, 4)], tmp_path / "original", graph_input="x")
    with pytest.raises(ValueError, match="no matrix large enough"):
        pack_weights(tmp_path / "original" / ONNX_FILE, tmp_path / "packed", bits=8)
