"""The two towers of a recommendation: what a user liked on one side, every item with its text on the other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

WIDTH = 48
DROP_LIKES = 0.3  # share of a user's likes hidden in training, so that no single one is leaned on


class TwoTowers(nn.Module):
    """Scores every item for every user at once: a softmax over all items, no negative sampling."""

    word_ids: Tensor

    def __init__(self, transform: Mapping[str, Any], classes: int) -> None:
        super().__init__()
        self.items = classes
        longest = max(1, *(len(ids) for ids in transform["words"]))
        word_ids_IW = torch.zeros(classes, longest, dtype=torch.int64)
        for item, ids in enumerate(transform["words"]):
            word_ids_IW[item, : len(ids)] = torch.tensor(ids, dtype=torch.int64)
        self.register_buffer("word_ids", word_ids_IW)
        self.likes = nn.Embedding(1 + classes + len(transform["users"]), WIDTH, padding_idx=0)
        self.item = nn.Embedding(classes, WIDTH)
        self.words = nn.Embedding(int(transform["buckets"]) + 1, WIDTH, padding_idx=0)
        self.popularity = nn.Parameter(torch.zeros(classes))
        for table in (self.likes, self.item, self.words):
            nn.init.normal_(table.weight, std=WIDTH**-0.5)
        with torch.no_grad():
            self.likes.weight[0] = 0.0
            self.words.weight[0] = 0.0
            self.likes.weight[1 + classes :] = 0.0  # a user is what he liked until the loss says more

    def forward(self, ids_BL: Tensor) -> Tensor:
        there_BL = ids_BL != 0
        if self.training:
            there_BL = there_BL & (torch.rand(ids_BL.shape, device=ids_BL.device) > DROP_LIKES)
        mask_BL1 = there_BL.to(self.likes.weight.dtype).unsqueeze(-1)
        user_BD = _mean_of(self.likes(ids_BL), mask_BL1)
        return user_BD @ self.item_tower().T + self.popularity

    def item_tower(self) -> Tensor:
        """One vector an item. All it reads is constant once trained, so ONNX Runtime computes it on loading."""
        mask_IW1 = (self.word_ids != 0).to(self.item.weight.dtype).unsqueeze(-1)
        return self.item.weight + _mean_of(self.words(self.word_ids), mask_IW1)

    def score(self, logits_BI: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """How many choices are among the ten best, as in measuring, of the items the user has not had."""
        had_BI = torch.zeros_like(logits_BI, dtype=torch.bool)
        items_BL = torch.where((x > 0) & (x <= self.items), x - 1, y.unsqueeze(1))
        had_BI.scatter_(1, items_BL, True)
        had_BI.scatter_(1, y.unsqueeze(1), False)
        wanted_B1 = logits_BI.gather(1, y.unsqueeze(1))
        better_B = ((logits_BI > wanted_B1) & ~had_BI).sum(dim=1)
        return (better_B < 10).sum()

    def loss(self, logits_BI: Tensor, x: Tensor, y: Tensor) -> Tensor:
        return functional.cross_entropy(logits_BI, y, reduction="sum")


def _mean_of(vectors_NLD: Tensor, mask_NL1: Tensor) -> Tensor:
    """The sum over the square root of the number: many likes say more than one, not many times more."""
    return (vectors_NLD * mask_NL1).sum(dim=1) / mask_NL1.sum(dim=1).clamp(min=1.0).sqrt()
