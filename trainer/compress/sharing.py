"""Parameter sharing: the same numbers do several jobs.

Of a text table two short ones are kept, and each n-gram is the product of a row of either: the first is found by
its number divided by the length of the second, the second by what is left over, so that no two n-grams get the
same pair (Shi and others, Compositional embeddings using complementary partitions, 2020). Of a transformer one
block is kept and does the work of all (Lan and others, ALBERT, 2020). Either is taught by the original.
"""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn

from trainer.compress import blocks
from trainer.recipes.networks import TextBag

REMAINDERS = 32  # times as many rows in the second table as in the first: the more, the less is shared


class SharedTable(nn.Module):
    """Looks like the embedding it replaces. Numbers below 1 are padding, which the bag leaves out itself."""

    def __init__(self, rows: int, width: int, *, seed: int) -> None:
        super().__init__()
        self.length = max(1, math.isqrt(rows * REMAINDERS))
        self.quotients = nn.Embedding(-(-rows // self.length), width)
        self.remainders = nn.Embedding(self.length, width)
        chance = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            # products of what starts near one move with either; all zeros would never wake
            self.quotients.weight.normal_(1.0, 0.3, generator=chance)
            self.remainders.weight.normal_(0.0, 0.05, generator=chance)

    @property
    def weight(self) -> Tensor:
        return self.remainders.weight

    def forward(self, ids_BL: Tensor) -> Tensor:
        first = torch.div(ids_BL, self.length, rounding_mode="floor")
        return self.quotients(first) * self.remainders(ids_BL - first * self.length)  # type: ignore[no-any-return]


def can_share(network: nn.Module) -> bool:
    if isinstance(network, TextBag):
        return isinstance(network.table, nn.Embedding)
    return blocks.is_reader(network) and len(blocks.hidden_widths(network)) > 1


def share(network: nn.Module, *, seed: int) -> tuple[nn.Module, str]:
    """A copy that shares, not yet taught; also what was done."""
    if not isinstance(network, TextBag):
        count = len(blocks.hidden_widths(network))
        return blocks.share(network), f"One block does the work of all {count}"
    shared = copy.deepcopy(network).cpu()
    rows, width = shared.table.weight.shape
    table = SharedTable(rows, width, seed=seed)
    shared.table = table  # type: ignore[assignment]
    parts = f"{table.quotients.num_embeddings} and {table.remainders.num_embeddings}"
    return shared, f"The text table of {rows - 1} rows became the products of two of {parts} rows"
