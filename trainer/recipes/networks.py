"""The networks behind the recipes: small, and built from the transform alone, so that it can be rebuilt."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainer.contract import Recipe
from trainer.recipes import tabular
from trainer.recipes.attention import Reader
from trainer.recipes.towers import TwoTowers
from trainer.recipes.writer import Writer

TEXT_WIDTH = 32
LINE_PACE = (
    5.0  # Adam moves all weights alike: so much quicker the line finds its slope than the layers beside it
)


class Picture(nn.Module):
    """Convolutions that halve the picture until it is 4 pixels wide, then two dense layers.

    No batch norm: its statistics would differ with the number of ranks.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, transform: Mapping[str, Any], classes: int) -> None:
        super().__init__()
        channels, side = int(transform["channels"]), int(transform["side"])
        self.register_buffer("mean", torch.tensor(transform["mean"]).reshape(1, channels, 1, 1))
        self.register_buffer("scale", torch.tensor(transform["scale"]).reshape(1, channels, 1, 1))
        width = 32 if side <= 32 else 16  # the first layers cost most: they see every pixel
        layers: list[nn.Module] = [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
        while side > 4:
            wider = min(2 * width, 128)
            layers += [nn.Conv2d(width, wider, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
            width, side = wider, side // 2
        self.features = nn.Sequential(*layers)
        self.head = nn.Sequential(
            nn.Flatten(),
            nn.Linear(width * side * side, 128),
            nn.ReLU(),
            nn.Dropout(0.2),
            nn.Linear(128, classes),
        )
        _prepare_for_relu(self)

    def forward(self, pixels_BCHW: Tensor) -> Tensor:
        return self.head(self.features((pixels_BCHW - self.mean) / self.scale))  # type: ignore[no-any-return]


class TextBag(nn.Module):
    """The sum of n-gram vectors over the square root of their number, then one dense layer.

    Linear on purpose: a table that starts at zero would never wake a ReLU behind it, and it must start at
    zero so that an n-gram unseen in training says nothing. Written as Gather and sum, not as nn.EmbeddingBag:
    that one exports to a graph 30 to 200 times slower.
    """

    def __init__(self, transform: Mapping[str, Any], classes: int) -> None:
        super().__init__()
        self.table = nn.Embedding(int(transform["buckets"]) + 1, TEXT_WIDTH, padding_idx=0)
        last = nn.Linear(TEXT_WIDTH, classes)
        self.head = nn.Sequential(nn.Dropout(0.2), last)
        nn.init.zeros_(self.table.weight)
        nn.init.normal_(last.weight)  # the larger these are, the sooner the zeros of the table move

    def forward(self, ids_BL: Tensor) -> Tensor:
        mask_BL = (ids_BL != 0).to(self.table.weight.dtype)
        vectors_BLD = self.table(ids_BL) * mask_BL.unsqueeze(-1)
        count_B1 = mask_BL.sum(dim=1, keepdim=True).clamp(min=1.0)
        return self.head(vectors_BLD.sum(dim=1) / count_B1.sqrt())  # type: ignore[no-any-return]


class TwoHeads(TextBag):
    """A bag with two answers: what the last layer says of each is added up to one logit for every pair."""

    pairs: Tensor

    def __init__(self, transform: Mapping[str, Any], classes: int) -> None:
        first, second = len(transform["first"]), len(transform["second"])
        super().__init__(transform, first + second)
        pairs_HP = torch.zeros(first + second, first * second)
        for pair in range(first * second):
            pairs_HP[pair // second, pair] = 1.0
            pairs_HP[first + pair % second, pair] = 1.0
        self.register_buffer("pairs", pairs_HP)

    def forward(self, ids_BL: Tensor) -> Tensor:
        return super().forward(ids_BL) @ self.pairs


class Table(nn.Module):
    """A straight line through the features, and two hidden layers beside it for what is not straight.

    Wide and deep (Cheng and others, 2016): on few rows the line says nearly all, and it starts at nothing.
    """

    BESIDE = ("line",)

    def __init__(self, transform: Mapping[str, Any], classes: int) -> None:
        super().__init__()
        width = tabular.width(transform)
        self.head = nn.Sequential(
            nn.Linear(width, 128),
            nn.ReLU(),
            nn.Dropout(0.4),
            nn.Linear(128, 64),
            nn.ReLU(),
            nn.Dropout(0.4),
            nn.Linear(64, classes),
        )
        _prepare_for_relu(self)
        self.line = nn.Linear(width, classes, bias=False)
        nn.init.zeros_(self.line.weight)

    def forward(self, features_BF: Tensor) -> Tensor:
        return self.head(features_BF) + LINE_PACE * self.line(features_BF)  # type: ignore[no-any-return]


class Amount(Table):
    """A table's network that says one number: it learns the scaled target and ships the unscaled.

    By the squared error, for that is what R² counts.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, transform: Mapping[str, Any], classes: int) -> None:
        super().__init__(transform, 1)
        target = transform["target"]
        self.logarithm = bool(target["logarithm"])
        self.register_buffer("mean", torch.tensor(float(target["mean"])))
        self.register_buffer("scale", torch.tensor(float(target["scale"])))

    def loss(self, scaled_B1: Tensor, x: Tensor, y: Tensor) -> Tensor:
        return functional.mse_loss(scaled_B1[:, 0], self._scaled(y), reduction="sum")

    def distance(self, scaled_B1: Tensor, taught_B1: Tensor, y: Tensor) -> Tensor:
        """What a student is judged by: mostly its teacher's number, a little the true one."""
        teacher = functional.mse_loss(scaled_B1, taught_B1)
        return 0.8 * teacher + 0.2 * functional.mse_loss(scaled_B1[:, 0], self._scaled(y))

    def score(self, scaled_B1: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """Against the spread of the training rows, for a batch has none of its own."""
        return (1.0 - (scaled_B1[:, 0] - self._scaled(y)) ** 2).sum()

    def answer(self, scaled_B1: Tensor) -> Tensor:
        amount_B1 = scaled_B1.clamp(-8.0, 8.0) * self.scale + self.mean
        return amount_B1.exp() if self.logarithm else amount_B1

    def _scaled(self, y: Tensor) -> Tensor:
        return ((y.log() if self.logarithm else y) - self.mean) / self.scale


_NETWORKS: dict[Recipe, type[nn.Module]] = {
    Recipe.IMAGE: Picture,
    Recipe.TEXT: TextBag,
    Recipe.READER: Reader,
    Recipe.TABULAR: Table,
    Recipe.REGRESSION: Amount,
    Recipe.INTENT: TextBag,
    Recipe.SENTIMENT: TwoHeads,
    Recipe.RECOMMEND: TwoTowers,
    Recipe.LANGUAGE: Writer,
}


def build(recipe: Recipe, transform: Mapping[str, Any], classes: int, *, seed: int) -> nn.Module:
    """A network with weights that depend on the seed alone: raw rows of numbers in, logits out."""
    torch.manual_seed(seed)
    return _NETWORKS[recipe](transform, classes)


def _prepare_for_relu(network: nn.Module) -> None:
    for layer in network.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)
    last = [layer for layer in network.modules() if isinstance(layer, nn.Linear)][-1]
    with torch.no_grad():
        last.weight.mul_(0.2)  # start undecided: the first loss is near log(classes)
