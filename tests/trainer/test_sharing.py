"""Transformers cut down and numbers that do several jobs: the shapes are right, and the file answers as torch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from trainer.bundle import open_graph
from trainer.compress import blocks, sharing, structured
from trainer.compress.weights import pack_weights
from trainer.contract import ONNX_FILE, SAFETENSORS_FILE, Recipe
from trainer.export import export_network
from trainer.recipes import networks
from trainer.recipes.attention import BLOCKS, HIDDEN, Reader

LETTERS = {"characters": "abcdefghijklmnopqrstuvwxyz" * 20, "length": 24}
WORDS = {"buckets": 4096, "ngrams": [1, 2, 3], "max_characters": 100}


def reader() -> Reader:
    torch.manual_seed(1)
    return Reader(LETTERS, 3).eval()


def texts(*shape: int) -> Tensor:
    return torch.randint(1, 500, shape)


def bag() -> nn.Module:
    network = networks.build(Recipe.TEXT, WORDS, 3, seed=1)
    nn.init.normal_(network.table.weight, std=0.1)  # type: ignore[union-attr,arg-type]
    return network.eval()


def weights(network: nn.Module) -> int:
    return sum(value.numel() for value in network.parameters())


def test_padding_says_nothing_to_a_reader() -> None:
    network, ids = reader(), texts(2, 9)
    padded = torch.cat([ids, torch.zeros(2, 7, dtype=torch.int64)], dim=1)
    assert torch.allclose(network(ids), network(padded), atol=1e-5)
    assert torch.isfinite(network(torch.zeros(1, 5, dtype=torch.int64))).all()


def test_a_reader_notices_the_order_of_its_characters() -> None:
    network, ids = reader(), texts(1, 12)
    assert not torch.allclose(network(ids), network(ids.flip(1)), atol=1e-3)


def test_a_transformer_loses_blocks_and_the_hidden_units_that_matter_least() -> None:
    network = reader()
    first = network.blocks[0]
    with torch.no_grad():
        first.up.weight[5].mul_(100)  # type: ignore[union-attr,index]
    small = structured.shrink(network, 0.3)
    assert structured.hidden_widths(network) == [HIDDEN] * BLOCKS
    assert structured.hidden_widths(small) == [round(0.3 * HIDDEN)]
    assert (small.blocks[0].up.weight.abs().max() == first.up.weight.abs().max()).item()  # type: ignore
    assert structured.hidden_widths(structured.shrink(network, 0.5)) == [HIDDEN // 2] * 2
    assert network(texts(2, 5)).shape == small(texts(2, 5)).shape


def test_taking_nothing_out_changes_nothing() -> None:
    network, ids = reader(), texts(3, 8)
    assert torch.allclose(structured.shrink(network, 1.0)(ids), network(ids), atol=1e-6)


def test_a_student_of_a_transformer_has_learned_nothing_and_depends_on_the_seed_alone() -> None:
    network, ids = reader(), texts(2, 8)
    one, again, other = (structured.student(network, 0.3, seed=seed).eval()(ids) for seed in (1, 1, 2))
    assert torch.equal(one, again)
    assert not torch.allclose(one, other)
    assert not torch.allclose(one, structured.shrink(network, 0.3)(ids))


def test_one_block_does_the_work_of_all() -> None:
    network = reader()
    shared, done = sharing.share(network, seed=1)
    assert done == f"One block does the work of all {BLOCKS}"
    same = reader()
    same.blocks = nn.ModuleList([same.blocks[0]] * BLOCKS)
    ids = texts(2, 8)
    assert torch.allclose(shared.eval()(ids), same(ids), atol=1e-6)
    assert weights(shared) < weights(network)
    assert not sharing.can_share(shared)


def test_every_ngram_keeps_a_vector_of_its_own_in_two_short_tables() -> None:
    network = bag()
    shared, done = sharing.share(network, seed=1)
    assert "4096 rows became the products of two of" in done
    assert weights(shared) < weights(network) / 5
    ids = torch.arange(1, 4097)
    rows = shared.table(ids).detach()  # type: ignore[operator]
    assert len(torch.unique(rows, dim=0)) == len(ids)


@pytest.mark.parametrize(
    "make",
    [
        reader,
        lambda: structured.shrink(reader(), 0.3),
        lambda: sharing.share(reader(), seed=1)[0],
        lambda: sharing.share(bag(), seed=1)[0],
    ],
    ids=["reader", "one block", "shared block", "shared table"],
)
def test_what_was_cut_or_shared_is_exported_whole(make: Callable[[], nn.Module], tmp_path: Path) -> None:
    network = make().eval()
    batches = [texts(2, 20), texts(1, 3), torch.cat([texts(3, 11), torch.zeros(3, 2, dtype=torch.int64)], 1)]
    export_network(network, batches, tmp_path / "whole", graph_input="ids")
    pack_weights(tmp_path / "whole" / ONNX_FILE, tmp_path / "packed", bits=8)
    for folder, differs in (("whole", 1e-5), ("packed", 0.02)):
        session = open_graph(tmp_path / folder / ONNX_FILE)
        for batch in batches:
            (answer,) = session.run(None, {"ids": batch.numpy()})
            expected = network(batch).softmax(dim=1).detach().numpy()
            assert np.abs(answer - expected).max() < differs
    kept = safetensors.torch.load_file(tmp_path / "whole" / SAFETENSORS_FILE)
    assert sum(value.numel() for value in kept.values()) == weights(network)


def test_only_transformers_are_cut_by_blocks() -> None:
    assert blocks.is_reader(reader())
    assert not blocks.is_reader(bag())
    assert not structured.can_shrink(bag())
