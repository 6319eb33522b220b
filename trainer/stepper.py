"""One optimizer step: forward, backward, update, over this rank's part of a global batch."""

from __future__ import annotations

import contextlib
import random
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from trainer.contract import Precision
from trainer.data import Indices, shard
from trainer.distributed import Gang
from trainer.prepare import Prepared, Run
from trainer.recipes.outcomes import loss_of


@dataclass(slots=True, kw_only=True)
class Stepper:
    """Forward, backward, update: one optimizer step over this rank's part of a global batch."""

    network: nn.Module
    optimizer: torch.optim.Optimizer
    prepared: Prepared
    gang: Gang
    precision: Precision
    seed: int
    pieces: int = 0  # of a global batch; 0: one for each rank
    clip_norm: float | None = None
    scaler: Any = field(init=False)

    def __post_init__(self) -> None:
        half = self.precision is Precision.FP16 and self.gang.device.type == "cuda"
        self.scaler = torch.amp.GradScaler(self.gang.device.type, enabled=half)

    def step(self, rows: Indices, number: int) -> Tensor:
        """Returns this rank's share of the batch's mean loss, still on the device."""
        pieces = self.pieces or self.gang.world
        mine = range(self.gang.rank, pieces, self.gang.world)
        self.optimizer.zero_grad(set_to_none=True)
        total = torch.zeros((), dtype=torch.float64, device=self.gang.device)
        for piece in mine:
            # the ranks exchange gradients once, with the last piece
            wait = self.gang.together and piece != mine[-1]
            with self.network.no_sync() if wait else contextlib.nullcontext():  # type: ignore[operator]
                total += self.learn(rows, number, piece, pieces)
        self.scaler.unscale_(self.optimizer)
        if self.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.network.parameters(), self.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return total

    def learn(self, rows: Indices, number: int, piece: int, pieces: int) -> Tensor:
        """Add the gradients of one piece of the batch; returns its share of the loss."""
        roll_dice(self.seed, number, piece)
        mine = shard(rows, rank=piece, world=pieces)
        idle = len(mine) == 0  # the last batch may have fewer rows than there are pieces
        x, y = self.prepared.tensors(rows[:1] if idle else mine, self.gang.device)
        with autocast(self.gang.device, self.precision):
            logits_BC = self.network(x)
        whole = loss_of(self.network, logits_BC.float(), x, y)
        share = 0.0 if idle else 1.0 / len(rows)
        # DDP divides by the number of ranks; the batch's mean wants the plain sum
        self.scaler.scale(whole * (share * self.gang.world)).backward()
        return whole.detach() * share


def roll_dice(seed: int, number: int, piece: int) -> None:
    """Set every source of chance by seed, step and piece of the batch.

    So no rank carries a random state from one step to the next: after a restart, and on another number of
    ranks, each piece of each batch meets the same dropout again.
    """
    mixed = seed + 1_000_003 * (number + 1) + 7919 * piece
    # not torch.manual_seed: without a GPU in use it notes each call with its stack, 0.1 ms a time, and keeps it
    torch.default_generator.manual_seed(mixed)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed(mixed)
    random.seed(mixed)
    np.random.seed(mixed % 2**32)


def autocast(device: torch.device, precision: Precision) -> contextlib.AbstractContextManager[Any]:
    if precision is Precision.FP32:
        return contextlib.nullcontext()
    kind = torch.bfloat16 if precision is Precision.BF16 else torch.float16
    return torch.autocast(device.type, dtype=kind)


def usable_precision(run: Run, gang: Gang) -> Precision:
    """fp16 needs a GPU; elsewhere fp32 is what trains."""
    asked = run.spec.resources.precision
    return Precision.FP32 if asked is Precision.FP16 and gang.device.type == "cpu" else asked
