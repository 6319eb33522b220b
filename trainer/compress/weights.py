"""Weight-only storage: weights in 8 or 4 bits on disk, ordinary 32-bit kernels once the model is loaded.

Each group of neighbouring weights shares one 16-bit scale; two 4-bit numbers share a byte. The graph itself holds
the few operations that unpack them. All they work on is constant, so ONNX Runtime does them once, when it loads
the graph, and what runs afterwards is the fp32 network: as quick as it was, a quarter or a seventh of the size.

Small layers gain from this where int8 arithmetic does not pay: nothing is converted while rows are answered.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from trainer.contract import ONNX_FILE

GROUP = {8: 128, 4: 32}  # weights that share a scale
SMALL = 512  # fewer weights than this stay as they are: they are biases and scales
FOUR_BITS_FROM = (
    4096  # smaller matrices, often the first and the last, get 8 bits: they are worth little space
)
_SHRINK = (
    1.0,
    0.95,
    0.9,
    0.85,
    0.8,
)  # of the range: cutting off the largest weight may fit the others better

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]
Constant = npt.NDArray[np.generic]


def pack_weights(original: Path, folder: Path, *, bits: int) -> str:
    """Write a model.onnx with packed weights into `folder`; returns one sentence saying how it was done."""
    model = onnx.load(original)
    graph = model.graph
    large = [item for item in graph.initializer if _worth_packing(item)]
    if not large:
        raise ValueError("there is no matrix large enough to be packed")
    unpacking: list[onnx.NodeProto] = []
    shared: dict[str, Constant] = {}
    for number, tensor in enumerate(large):
        graph.initializer.remove(tensor)
        values = numpy_helper.to_array(tensor)
        wide = bits if values.size >= FOUR_BITS_FROM else 8
        nodes, constants, common = _unpack(tensor.name, f"w{number}.", values, wide)
        unpacking += nodes
        shared |= common
        graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    graph.initializer.extend(
        numpy_helper.from_array(np.asarray(value), name) for name, value in shared.items()
    )
    nodes = [*unpacking, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    onnx.checker.check_model(model)
    folder.mkdir(parents=True, exist_ok=True)
    onnx.save(model, folder / ONNX_FILE)
    return f"{bits}-bit weights, unpacked to 32-bit floating point as the model is loaded"


def quantize_groups(values: Floats, bits: int) -> tuple[Bytes, npt.NDArray[np.float16]]:
    """Whole numbers from 0 up, one row a group, and the scale of each group; the middle stands for zero.

    The last group is filled up with zeros. Of several ranges each group gets the one with the least squared error.
    """
    group, middle = GROUP[bits], 2 ** (bits - 1)
    flat = np.zeros(-(-values.size // group) * group, dtype=np.float32)
    flat[: values.size] = values.ravel()
    rows = flat.reshape(-1, group)
    most = np.abs(rows).max(axis=1, keepdims=True)
    best = np.full((len(rows), 1), np.inf, dtype=np.float32)
    numbers = np.full(rows.shape, middle, dtype=np.uint8)
    scales = np.zeros((len(rows), 1), dtype=np.float16)
    for shrink in _SHRINK:
        scale = (most * shrink / (middle - 1)).astype(np.float16)  # as it will be stored
        wide = np.maximum(scale.astype(np.float32), 1e-12)
        tried = np.clip(np.round(rows / wide), 1 - middle, middle - 1)
        error = ((tried * scale.astype(np.float32) - rows) ** 2).sum(axis=1, keepdims=True)
        better = error < best
        best = np.where(better, error, best)
        numbers = np.where(better, tried + middle, numbers).astype(np.uint8)
        scales = np.where(better, scale, scales)
    return numbers, scales


def _worth_packing(tensor: onnx.TensorProto) -> bool:
    return tensor.data_type == TensorProto.FLOAT and int(np.prod(tensor.dims)) >= SMALL


def _unpack(
    name: str, prefix: str, values: Floats, bits: int
) -> tuple[list[onnx.NodeProto], dict[str, Constant], dict[str, Constant]]:
    """The operations that bring a packed tensor back under its old name, what they read, and what all share."""
    numbers, scales = quantize_groups(values, bits)
    group, middle = f"u{bits}.group", f"u{bits}.middle"
    own: dict[str, Constant] = {"scale": scales, "shape": np.asarray(values.shape, dtype=np.int64)}
    shared: dict[str, Constant] = {
        group: np.asarray([-1, GROUP[bits]], dtype=np.int64),
        middle: np.asarray(2 ** (bits - 1), dtype=np.float32),
    }
    steps: list[tuple[str, list[str], str, dict[str, Any]]] = []
    if bits == 4:
        pairs = numbers.reshape(-1, 2)
        own["packed"] = pairs[:, 0] | (pairs[:, 1] << 4)
        shared |= {
            "u.low": np.asarray(15, dtype=np.uint8),
            "u.four": np.asarray(4, dtype=np.uint8),
            "u.last": np.asarray([-1], dtype=np.int64),
        }
        steps += [
            ("BitwiseAnd", ["packed", "u.low"], "low", {}),
            ("BitShift", ["packed", "u.four"], "high", {"direction": "RIGHT"}),
            ("Unsqueeze", ["low", "u.last"], "first", {}),
            ("Unsqueeze", ["high", "u.last"], "second", {}),
            ("Concat", ["first", "second"], "bytes", {"axis": -1}),
        ]
    else:
        own["bytes"] = numbers
    steps += [
        ("Cast", ["bytes"], "float", {"to": TensorProto.FLOAT}),
        ("Reshape", ["float", group], "groups", {}),
        ("Sub", ["groups", middle], "centred", {}),
        ("Cast", ["scale"], "factor", {"to": TensorProto.FLOAT}),
        ("Mul", ["centred", "factor"], "scaled", {}),
    ]
    if values.size % GROUP[bits]:
        shared |= {"u.last": np.asarray([-1], dtype=np.int64), "u.start": np.zeros(1, dtype=np.int64)}
        own["size"] = np.asarray([values.size], dtype=np.int64)
        steps += [
            ("Reshape", ["scaled", "u.last"], "flat", {}),
            ("Slice", ["flat", "u.start", "size"], "whole", {}),
        ]
    steps.append(("Reshape", [steps[-1][2], "shape"], "", {}))

    def full(short: str) -> str:
        return short if short in shared else prefix + short

    nodes = [
        helper.make_node(kind, [full(one) for one in reads], [full(gives) if gives else name], **more)
        for kind, reads, gives, more in steps
    ]
    return nodes, {prefix + short: value for short, value in own.items()}, shared
