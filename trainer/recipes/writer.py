"""The network of the language model: a small causal transformer that also sees hashed pairs and triples."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

WIDTH, HEADS, BLOCKS = 128, 4, 2
BUCKETS = 2**13  # of pairs and of triples: a look-up says at once what attention would take long to find out


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.before, self.between = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.mix, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.wide, self.narrow = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, hidden_BTD: Tensor) -> Tensor:
        rows, length, _ = hidden_BTD.shape
        mixed = self.mix(self.before(hidden_BTD)).reshape(rows, length, 3, HEADS, WIDTH // HEADS)
        query, key, value = mixed.permute(2, 0, 3, 1, 4)  # each: batch, heads, time, width of a head
        seen = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        hidden_BTD = hidden_BTD + self.out(seen.transpose(1, 2).reshape(rows, length, WIDTH))
        return hidden_BTD + self.narrow(functional.gelu(self.wide(self.between(hidden_BTD))))  # type: ignore[no-any-return]


class Writer(nn.Module):
    """In training logits for every place, so that each character of a window teaches; else for the last."""

    def __init__(self, transform: Mapping[str, Any], classes: int) -> None:
        super().__init__()
        self.signs = nn.Embedding(classes, WIDTH, padding_idx=0)
        self.places = nn.Embedding(int(transform["context"]) + 1, WIDTH)
        self.pairs, self.triples = nn.Embedding(BUCKETS, WIDTH), nn.Embedding(BUCKETS, WIDTH)
        self.blocks = nn.Sequential(*(Block() for _ in range(BLOCKS)))
        self.last = nn.LayerNorm(WIDTH)
        self.bias = nn.Parameter(torch.zeros(classes))
        for table in (self.signs, self.places, self.pairs, self.triples):
            nn.init.normal_(table.weight, std=0.02)
        for block in self.blocks:
            assert isinstance(block, Block)
            for layer in (block.out, block.narrow):
                nn.init.normal_(layer.weight, std=0.02 / math.sqrt(2 * BLOCKS))

    def forward(self, ids_BT: Tensor) -> Tensor:
        back_1 = functional.pad(ids_BT, (1, 0))[:, :-1]
        back_2 = functional.pad(ids_BT, (2, 0))[:, :-2]
        pairs = (back_1 * 7919 + ids_BT) % BUCKETS
        triples = ((back_2 * 7919 + back_1) * 104729 + ids_BT) % BUCKETS
        places = torch.cumsum(torch.ones_like(ids_BT), dim=1) - 1
        hidden_BTD = self.signs(ids_BT) + self.places(places) + self.pairs(pairs) + self.triples(triples)
        hidden_BTD = self.last(self.blocks(hidden_BTD))
        if not self.training:
            end_B = ((ids_BT != 0).sum(dim=1) - 1).clamp(min=0)
            chosen = end_B.reshape(-1, 1, 1).expand(-1, 1, WIDTH)
            hidden_BTD = hidden_BTD.gather(1, chosen).squeeze(1)
        return hidden_BTD @ self.signs.weight.T + self.bias

    def loss(self, logits: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """A row counts as one: the mean over its characters."""
        if logits.dim() == 2:
            return functional.cross_entropy(logits, y, reduction="sum")
        there_BT = x != 0
        wanted_BT = functional.pad(x, (0, 1))[:, 1:].clone()
        wanted_BT.scatter_(1, there_BT.sum(dim=1, keepdim=True) - 1, y.unsqueeze(1))
        costs_BT = functional.cross_entropy(
            logits.transpose(1, 2), wanted_BT, reduction="none", ignore_index=0
        )
        return (costs_BT.sum(dim=1) / there_BT.sum(dim=1)).sum()

    def score(self, logits_BV: Tensor, x: Tensor, y: Tensor) -> Tensor:
        nats_B = functional.cross_entropy(logits_BV, y, reduction="none")
        return (1.0 - nats_B / math.log(logits_BV.shape[1])).sum()
