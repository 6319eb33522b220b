"""Thin pairs of layers in place of large ones, and what is never lost by them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from trainer.bundle import open_graph
from trainer.compress.factorize import factorize, rank_by_energy, thin_pair
from trainer.compress.quantize import quantize_int8
from trainer.compress.vocabulary import PrunedTable, can_prune, prune_vocabulary
from trainer.contract import Recipe
from trainer.export import export_network
from trainer.recipes import networks

BAG = {"buckets": 4096, "ngrams": [1, 2, 3], "max_characters": 100}


def bag(classes: int, *, used: int = 300) -> networks.TextBag:
    """A bag whose first `used` rows have learned something; the others were never seen."""
    torch.manual_seed(4)
    network = networks.build(Recipe.TEXT, BAG, classes, seed=4)
    assert isinstance(network, networks.TextBag)
    with torch.no_grad():
        network.table.weight[1 : used + 1].normal_(std=0.3)
        network.head[-1].bias.normal_()
    return network.eval()


def answers(network: nn.Module, ids: torch.Tensor) -> torch.Tensor:
    return network(ids).softmax(dim=1).detach()


def test_a_matrix_of_low_rank_is_split_without_loss() -> None:
    layer = nn.Linear(60, 40)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(40, 5) @ torch.randn(5, 60))
    pair = thin_pair(layer, 5)
    batch = torch.randn(7, 60)
    assert torch.allclose(layer(batch), pair(batch), atol=1e-3)
    network, ranks = factorize(nn.Sequential(layer), energy=0.999999)
    assert ranks == {"0": 5}
    assert torch.allclose(layer(batch), network(batch), atol=1e-2)


def test_a_matrix_that_is_not_worth_it_stays_whole() -> None:
    network = nn.Sequential(nn.Linear(20, 30), nn.ReLU(), nn.Linear(30, 3))
    same, ranks = factorize(network, energy=0.99)
    assert ranks == {}
    assert isinstance(same[0], nn.Linear)


def test_the_rank_is_the_smallest_that_holds_the_energy() -> None:
    values = torch.tensor([3.0, 4.0**0.5, 1.0])  # squares 9, 4, 1
    assert rank_by_energy(values, 9 / 14) == 1
    assert rank_by_energy(values, 0.9) == 2
    assert rank_by_energy(values, 0.999) == 3


@pytest.mark.parametrize("classes", [2, 3, 7])
def test_a_bag_of_ngrams_needs_fewer_numbers_than_classes_and_loses_nothing(classes: int) -> None:
    network = bag(classes)
    thin, ranks = factorize(network)
    assert ranks["table"] <= classes - 1
    ids = torch.randint(0, 300, (9, 40))
    assert torch.allclose(answers(network, ids), answers(thin, ids), atol=2e-2 if classes > 3 else 1e-5)
    assert network.table.weight.shape[1] == networks.TEXT_WIDTH  # the original is left as it was


def test_rows_that_say_nothing_are_dropped_and_no_answer_changes() -> None:
    network = bag(3)
    uses = np.ones(4097, dtype=np.int64)
    smaller, kept = prune_vocabulary(network, uses, share=1.0)
    assert kept == 300
    ids = torch.randint(0, 4097, (9, 40))
    assert torch.allclose(answers(network, ids), answers(smaller, ids), atol=1e-6)
    assert can_prune(network)
    assert not can_prune(smaller)


def test_the_rows_that_are_used_most_and_say_most_stay() -> None:
    network = bag(2)
    uses = np.zeros(4097, dtype=np.int64)
    uses[1:11] = 1000
    uses[11:301] = 1
    smaller, kept = prune_vocabulary(network, uses, share=0.9)
    assert kept <= 10
    assert (smaller.table(torch.arange(11, 301)) == 0).all()


def test_a_table_too_long_for_short_places_still_finds_its_rows() -> None:
    table = torch.randn(40_001, 2)
    pruned = PrunedTable(table, torch.arange(1, 40_001))
    assert pruned.place.dtype == torch.int32
    ids = torch.tensor([[1, 39_999, 40_000]])
    assert torch.equal(pruned(ids), table[ids])


def test_pruned_and_thin_tables_answer_the_same_as_graphs_and_nearly_so_in_8_bits(tmp_path: Path) -> None:
    thin, _ = factorize(bag(3))
    both, _ = prune_vocabulary(thin, np.ones(4097, dtype=np.int64), share=1.0)
    examples = [torch.randint(0, 4097, (2, 9)), torch.randint(0, 4097, (5, 30))]
    for name, network in (("thin", thin), ("both", both)):
        export_network(network, examples, tmp_path / name, graph_input="ids")
        quantize_int8(tmp_path / name / "model.onnx", tmp_path / f"{name}-int8", iter(()))
        for variant, tolerance in ((name, 1e-5), (f"{name}-int8", 0.05)):
            graph = open_graph(tmp_path / variant / "model.onnx")
            for ids in examples:
                (answer,) = graph.run(None, {"ids": ids.numpy()})
                assert np.abs(answer - answers(network, ids).numpy()).max() < tolerance
    # 4097 rows of two numbers in 8 bits; 300 of them behind 4097 places of 16 bits
    assert (tmp_path / "thin-int8" / "model.onnx").stat().st_size < 14_000
