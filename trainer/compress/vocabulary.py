"""Vocabulary pruning: keep the rows of a text table that say something, and forget where the others were.

A hashed table is at least twice as long as there are n-grams, and of those most are seen once or twice. Rows
are kept by what they contribute over the training rows (how often they are seen, times how long they are),
the largest first, up to a share of the whole. A small table of places in front, part of the graph, leads from
the old numbers to the new ones, so that texts are read as before.
"""

from __future__ import annotations

import copy

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from trainer.data import batches
from trainer.prepare import Prepared
from trainer.recipes.networks import TextBag

KEEP_CONTRIBUTION = 0.97


class PrunedTable(nn.Module):
    """Looks like the embedding it replaces: the old number in, a vector out, zeros for what was dropped."""

    place: Tensor

    def __init__(self, table: Tensor, kept: Tensor) -> None:
        super().__init__()
        place = torch.zeros(len(table), dtype=torch.int32)
        place[kept] = torch.arange(1, len(kept) + 1, dtype=torch.int32)
        narrow = len(kept) < torch.iinfo(torch.int16).max
        self.register_buffer("place", place.to(torch.int16) if narrow else place)
        self.rows = nn.Embedding(len(kept) + 1, table.shape[1], padding_idx=0)
        with torch.no_grad():
            self.rows.weight.zero_()
            self.rows.weight[1:] = table[kept]

    @property
    def weight(self) -> Tensor:
        return self.rows.weight

    def forward(self, ids_BL: Tensor) -> Tensor:
        return self.rows(self.place[ids_BL].long())  # type: ignore[no-any-return]


def can_prune(network: nn.Module) -> bool:
    return isinstance(network, TextBag) and isinstance(network.table, nn.Embedding)


def count_uses(prepared: Prepared, rows: int) -> npt.NDArray[np.int64]:
    """How often each row of the table is looked up over the training rows, and over no others."""
    uses = np.zeros(rows, dtype=np.int64)
    for part in batches(prepared.split.train, 1024):
        uses += np.bincount(np.concatenate(list(prepared.encoded[part])), minlength=rows)
    return uses


def prune_vocabulary(
    network: nn.Module, uses: npt.NDArray[np.int64], *, share: float = KEEP_CONTRIBUTION
) -> tuple[nn.Module, int]:
    """A copy with the rows that make up `share` of all contributions; also how many rows those are."""
    smaller = copy.deepcopy(network)
    assert isinstance(smaller, TextBag)
    table = smaller.table.weight.detach()
    contribution = torch.from_numpy(uses).double() * table.double().norm(dim=1)
    contribution[0] = 0.0  # the padding
    order = contribution.argsort(descending=True, stable=True)
    held = contribution[order].cumsum(0)
    count = max(1, min(int((held < share * held[-1]).sum()) + 1, int((contribution > 0).sum())))
    smaller.table = PrunedTable(table, order[:count].sort().values)  # type: ignore[assignment]
    return smaller, count
