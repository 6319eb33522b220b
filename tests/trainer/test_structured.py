"""Narrower networks answer as before when what was taken out said nothing, and are smaller for real."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from trainer.compress.chain import joints, widths
from trainer.compress.structured import MIN_WIDTH, can_shrink, shrink, student
from trainer.contract import Recipe
from trainer.recipes import networks, tabular

IMAGE = {"side": 28, "channels": 1, "mean": [0.1], "scale": [0.3]}
COLUMNS = {"columns": [{"name": str(n), "kind": "number", "mean": 0.0, "scale": 1.0} for n in range(20)]}
BAG = {"buckets": 1024, "ngrams": [1, 2, 3], "max_characters": 100}


def silence_half(network: nn.Module) -> None:
    """Make every second channel of each hidden layer say nothing to the next layer."""
    for number, joint in enumerate(joints(network)):
        layer = joint.first.layer
        with torch.no_grad():
            layer.weight[number % 2 :: 2] = 0
            layer.bias[number % 2 :: 2] = 0


@pytest.mark.parametrize(
    ("recipe", "transform", "shape"),
    [(Recipe.IMAGE, IMAGE, (5, 1, 28, 28)), (Recipe.TABULAR, COLUMNS, (5, tabular.width(COLUMNS)))],
)
def test_taking_silent_channels_out_changes_no_answer(
    recipe: Recipe, transform: dict[str, object], shape: tuple[int, ...]
) -> None:
    network = networks.build(recipe, transform, 10, seed=3).eval()
    silence_half(network)
    narrow = shrink(network, 0.5).eval()
    batch = torch.randn(shape)
    assert torch.allclose(network(batch), narrow(batch), atol=1e-5)
    assert [2 * width for width in widths(narrow)[:-1]] == widths(network)[:-1]
    assert widths(narrow)[-1] == 10
    weights = [sum(value.numel() for value in one.parameters()) for one in (network, narrow)]
    assert weights[0] / weights[1] > 1.9


def test_the_scale_of_a_batch_norm_tells_which_channels_matter() -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8 * 9, 4)
    ).eval()
    norm = network[1]
    with torch.no_grad():
        norm.weight[2:6] = 0
        norm.bias[2:6] = 0
        norm.running_mean.normal_()
    narrow = shrink(network, 0.5).eval()
    batch = torch.randn(2, 3, 8, 8)
    assert torch.allclose(network(batch), narrow(batch), atol=1e-5)
    assert narrow[1].num_features == 4
    assert torch.equal(narrow[1].running_mean, norm.running_mean[[0, 1, 6, 7]])


def test_the_original_is_left_as_it_was() -> None:
    network = networks.build(Recipe.IMAGE, IMAGE, 10, seed=3)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    shrink(network, 0.25)
    student(network, 0.25, seed=1)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_a_few_channels_always_stay() -> None:
    narrow = shrink(networks.build(Recipe.TABULAR, COLUMNS, 3, seed=3), 0.001)
    assert widths(narrow) == [8, 8, 3]
    tiny = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))
    assert widths(shrink(tiny, 0.001)) == [MIN_WIDTH, 3]


@pytest.mark.parametrize("keep", [0.2, 0.3, 0.45])
def test_widths_are_such_that_no_lane_of_the_processor_idles(keep: float) -> None:
    network = networks.build(Recipe.IMAGE, {**IMAGE, "side": 28}, 10, seed=3)
    *convolutions, hidden, _classes = widths(shrink(network, keep))
    assert all(width % 16 == 0 for width in convolutions)
    assert hidden % 8 == 0


def test_a_student_is_as_narrow_and_has_learned_nothing() -> None:
    network = networks.build(Recipe.IMAGE, IMAGE, 10, seed=3)
    small = student(network, 0.25, seed=5)
    assert widths(small) == widths(shrink(network, 0.25))
    assert not torch.equal(small.features[0].weight, shrink(network, 0.25).features[0].weight)
    again = student(network, 0.25, seed=5)
    assert torch.equal(small.features[0].weight, again.features[0].weight)
    assert torch.equal(small.mean, network.mean)  # what the transform says stays


def test_what_stands_beside_the_chain_stays_whole_and_known_in_student_and_narrowed() -> None:
    network = networks.build(Recipe.TABULAR, COLUMNS, 3, seed=3).eval()
    with torch.no_grad():
        network.line.weight.normal_()
    batch = torch.randn(4, tabular.width(COLUMNS))
    for small in (shrink(network, 0.25), student(network, 0.25, seed=5)):
        assert torch.equal(small.line.weight, network.line.weight)
        with torch.no_grad():
            small.head[-1].weight.zero_()
        straight = networks.LINE_PACE * network.line(batch)
        assert torch.allclose(small.eval()(batch) - small.head[-1].bias, straight, atol=1e-4)


class Skips(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Sequential(nn.Linear(4, 6)), nn.Sequential(nn.Linear(4, 6))


@pytest.mark.parametrize(
    "network",
    [
        networks.build(Recipe.TEXT, BAG, 3, seed=1),
        Skips(),
        nn.Sequential(nn.Conv2d(4, 4, 3, groups=4), nn.Conv2d(4, 4, 1)),
        nn.Sequential(nn.Linear(4, 4), nn.LSTM(4, 4), nn.Linear(4, 2)),
        nn.Sequential(nn.Linear(4, 4)),
    ],
)
def test_a_network_that_is_no_plain_chain_is_not_cut(network: nn.Module) -> None:
    assert not can_shrink(network)
