"""A small transformer that reads characters in their order and says which class a text belongs to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

WIDTH, HEADS, BLOCKS = 128, 4, 3
HIDDEN = 4 * WIDTH
DROPOUT = 0.1


class Block(nn.Module):
    """Attention, then two dense layers, each added to what came in; normalised before, not after."""

    def __init__(self, width: int = WIDTH, heads: int = HEADS, hidden: int = HIDDEN) -> None:
        super().__init__()
        self.heads = heads
        self.before = nn.LayerNorm(width)
        self.ask = nn.Linear(width, 3 * width)  # queries, keys and values in one
        self.tell = nn.Linear(width, width)
        self.between = nn.LayerNorm(width)
        self.up = nn.Linear(width, hidden)
        self.down = nn.Linear(hidden, width)
        self.dropout = nn.Dropout(DROPOUT)

    def forward(self, x_BLD: Tensor, hidden_B11L: Tensor) -> Tensor:
        asked = self.ask(self.before(x_BLD)).unflatten(-1, (3, self.heads, -1))  # B, L, 3, H, D/H
        query, key, value = asked.permute(2, 0, 3, 1, 4).unbind(0)
        read = functional.scaled_dot_product_attention(query, key, value, attn_mask=hidden_B11L)
        x_BLD = x_BLD + self.dropout(self.tell(read.transpose(1, 2).flatten(2)))
        return x_BLD + self.dropout(self.down(functional.gelu(self.up(self.between(x_BLD)))))  # type: ignore[no-any-return]


class Reader(nn.Module):
    """Characters and their places, some blocks, and the mean over the text. Character 0 is padding."""

    def __init__(self, transform: Mapping[str, Any], classes: int) -> None:
        super().__init__()
        self.table = nn.Embedding(len(transform["characters"]) + 2, WIDTH, padding_idx=0)
        self.places = nn.Embedding(int(transform["length"]), WIDTH)
        self.blocks = nn.ModuleList(Block() for _ in range(BLOCKS))
        self.rounds = 1  # how often a text goes through the blocks: more when they share their weights
        self.norm = nn.LayerNorm(WIDTH)
        self.dropout = nn.Dropout(DROPOUT)
        self.head = nn.Linear(WIDTH, classes)
        nn.init.normal_(self.table.weight, std=0.1)
        nn.init.normal_(self.places.weight, std=0.02)

    def forward(self, ids_BL: Tensor) -> Tensor:
        there_BL = ids_BL != 0
        # an added -1e4 instead of -inf: a text of padding alone would be no number at all
        hidden_B11L = (~there_BL)[:, None, None, :].to(self.places.weight.dtype) * -1e4
        x_BLD = self.table(ids_BL) + self.places(torch.arange(ids_BL.shape[1], device=ids_BL.device))
        x_BLD = self.dropout(x_BLD)
        for _ in range(self.rounds):
            for block in self.blocks:
                x_BLD = block(x_BLD, hidden_B11L)
        weight_BL1 = there_BL.to(x_BLD.dtype).unsqueeze(-1)
        mean_BD = (x_BLD * weight_BL1).sum(dim=1) / weight_BL1.sum(dim=1).clamp(min=1.0)
        return self.head(self.norm(mean_BD))  # type: ignore[no-any-return]
