"""From a trained network to files: an ONNX graph that answers probabilities as torch does, and weights."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import safetensors.numpy
import safetensors.torch
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from trainer.bundle import PROBABILITIES_OUTPUT, open_graph
from trainer.contract import ONNX_FILE, SAFETENSORS_FILE
from trainer.recipes.outcomes import answers_of

OPSET = 18
TOLERANCE = 1e-4


class ExportMismatch(RuntimeError):
    """The exported graph does not answer as torch does."""


class Shipped(nn.Module):
    """The network as it is shipped: probabilities instead of logits, or numbers in the units of the data."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        return answers_of(self.network, self.network(x))


WithSoftmax = Shipped


def export_network(network: nn.Module, examples: Sequence[Tensor], folder: Path, *, graph_input: str) -> None:
    """Write model.onnx and model.safetensors; `examples` are real batches of two or more shapes."""
    folder.mkdir(parents=True, exist_ok=True)
    network = network.cpu().eval()
    shipped = Shipped(network).eval()
    path = folder / ONNX_FILE
    # The tracing exporter takes 0.1 s, the newer one 1 to 3 s. Tracing keeps one branch of data-dependent
    # code without a word, so its graph counts only once it agrees with torch on other shapes and contents.
    try:
        _trace(shipped, examples[0], path, graph_input)
        _verify(shipped, examples, path, graph_input)
    except Exception:  # any trouble of the old exporter is a reason to ask the new one
        _capture(shipped, examples[0], path, graph_input)
        _verify(shipped, examples, path, graph_input)
    weights = {name: value.contiguous() for name, value in network.state_dict().items()}
    safetensors.torch.save_file(weights, folder / SAFETENSORS_FILE)


def export_initializers(folder: Path) -> None:
    """Write model.safetensors from model.onnx itself, for variants that exist only as a graph."""
    graph = onnx.load(folder / ONNX_FILE).graph
    tensors = {item.name: np.ascontiguousarray(numpy_helper.to_array(item)) for item in graph.initializer}
    safetensors.numpy.save_file(tensors, folder / SAFETENSORS_FILE)


def _trace(shipped: nn.Module, example: Tensor, path: Path, graph_input: str) -> None:
    axes = {graph_input: {0: "rows"}, PROBABILITIES_OUTPUT: {0: "rows"}}
    if example.dtype == torch.int64:
        axes[graph_input][1] = "length"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says on every call that there is a newer exporter
        torch.onnx.export(
            shipped,
            (example,),
            str(path),
            dynamo=False,
            opset_version=OPSET,
            input_names=[graph_input],
            output_names=[PROBABILITIES_OUTPUT],
            dynamic_axes=axes,
        )


def _capture(shipped: nn.Module, example: Tensor, path: Path, graph_input: str) -> None:
    axes = {0: torch.export.Dim.DYNAMIC}
    if example.dtype == torch.int64:
        axes[1] = torch.export.Dim.DYNAMIC
    torch.onnx.export(
        shipped,
        (example,),
        str(path),
        dynamo=True,
        opset_version=OPSET,
        input_names=[graph_input],
        output_names=[PROBABILITIES_OUTPUT],
        dynamic_shapes=(axes,),
        external_data=False,
        verbose=False,
    )


def _verify(shipped: nn.Module, examples: Sequence[Tensor], path: Path, graph_input: str) -> None:
    session = open_graph(path)
    for example in examples:
        with torch.inference_mode():
            expected = shipped(example).numpy()
        answer = session.run([PROBABILITIES_OUTPUT], {graph_input: example.numpy()})[0]
        if answer.shape != expected.shape or not np.allclose(
            answer, expected, rtol=TOLERANCE, atol=TOLERANCE
        ):
            raise ExportMismatch(
                f"{path.name} differs from torch for a batch of shape {tuple(example.shape)}"
            )
