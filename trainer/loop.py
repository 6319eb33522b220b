"""The training loop, readable top to bottom. A step depends on seed, step and rank: resuming is exact."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from trainer import checkpoint, optim
from trainer.contract import CHECKPOINTS_DIR, Precision
from trainer.data import Indices, epoch_order, shard, steps_per_epoch
from trainer.distributed import Gang, sum_over_ranks, wrap
from trainer.failures import Cancelled, Diverged, Preempted
from trainer.prepare import Prepared, Run

CHECKPOINT_EVERY_S = 10.0
CHECKPOINT_COST = 20  # never spend more than about 1/20 of the time on checkpoints
SYNC_EVERY_ON_GPU = 10  # reading a loss stops the GPU's queue, so look at ten at once


def train(run: Run, prepared: Prepared, network: nn.Module, gang: Gang) -> int:
    """Train from the newest checkpoint to the last epoch; returns the number of steps."""
    return _Training(run, prepared, network, gang).go()


@dataclass(slots=True, kw_only=True)
class Stepper:
    """Forward, backward, update: one optimizer step over this rank's part of a global batch."""

    network: nn.Module
    optimizer: torch.optim.Optimizer
    prepared: Prepared
    gang: Gang
    precision: Precision
    seed: int
    scaler: Any = field(init=False)

    def __post_init__(self) -> None:
        half = self.precision is Precision.FP16 and self.gang.device.type == "cuda"
        self.scaler = torch.amp.GradScaler(self.gang.device.type, enabled=half)

    def step(self, rows: Indices, number: int) -> Tensor:
        """Returns this rank's share of the batch's mean loss, still on the device."""
        # dropout differs by rank and step, and is the same again after a restart
        torch.manual_seed(self.seed + 1_000_003 * (number + 1) + 7919 * self.gang.rank)
        mine = shard(rows, rank=self.gang.rank, world=self.gang.world)
        idle = len(mine) == 0  # the last batch may have fewer rows than there are ranks
        x, y = self.prepared.tensors(rows[:1] if idle else mine, self.gang.device)
        with autocast(self.gang.device, self.precision):
            logits_BC = self.network(x)
        losses_B = functional.cross_entropy(logits_BC.float(), y, reduction="none")
        share = losses_B.sum() * (0.0 if idle else 1.0 / len(rows))
        self.optimizer.zero_grad(set_to_none=True)
        # DDP divides by the number of ranks; the batch's mean wants the plain sum
        self.scaler.scale(share * self.gang.world).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return share.detach()


class _Training:
    def __init__(self, run: Run, prepared: Prepared, network: nn.Module, gang: Gang) -> None:
        self.run, self.prepared, self.network, self.gang = run, prepared, network, gang
        hyper = run.spec.hyperparameters
        self.rows = len(prepared.split.train)
        self.per_epoch = steps_per_epoch(self.rows, hyper.batch_size)
        self.total = self.per_epoch * hyper.epochs
        self.stepper = Stepper(
            network=wrap(network, gang),
            optimizer=optim.make_optimizer(network, hyper, gang.device),
            prepared=prepared,
            gang=gang,
            precision=usable_precision(run, gang),
            seed=hyper.seed,
        )
        if self.stepper.precision is not run.spec.resources.precision:
            run.events.log("fp16 needs a GPU; training in fp32 on the CPU.", level="warning")
        self.pending: list[tuple[int, Tensor]] = []  # losses not yet summed over the ranks and shown
        self.saved_step = -1
        self.next_save = 0.0

    def go(self) -> int:
        first = self.resume()
        self.run.events.all_steps = self.total <= 1000
        self.saved_at(first, cost_s=0.0)
        started = time.monotonic()
        for step, rows in self.batches(start=first):
            hyper = self.run.spec.hyperparameters
            rate = optim.learning_rate(step - 1, total_steps=self.total, peak=hyper.learning_rate)
            optim.set_learning_rate(self.stepper.optimizer, rate)
            self.pending.append((step, self.stepper.step(rows, step)))
            epoch_ends = step % self.per_epoch == 0
            stop: Exception | None = None
            if epoch_ends or self.gang.device.type == "cpu" or step % SYNC_EVERY_ON_GPU == 0:
                stop = self.look_up(step)
            if epoch_ends:
                self.validate(step)
            if epoch_ends or stop or time.monotonic() >= self.next_save:
                self.save(step)
            if stop:
                raise stop
            pace = (time.monotonic() - started) / (step - first)
            self.run.events.progress(
                step=step,
                total_steps=self.total,
                epoch=-(-step // self.per_epoch),
                eta_s=pace * (self.total - step),
            )
        return self.total

    def batches(self, *, start: int) -> Iterator[tuple[int, Indices]]:
        """Global batches from step `start` on, numbered from 1; the same after any number of restarts."""
        hyper = self.run.spec.hyperparameters
        for epoch in range(start // self.per_epoch, hyper.epochs):
            order = self.prepared.split.train[epoch_order(self.rows, seed=hyper.seed, epoch=epoch)]
            for place in range(max(0, start - epoch * self.per_epoch), self.per_epoch):
                rows = order[place * hyper.batch_size : (place + 1) * hyper.batch_size]
                yield epoch * self.per_epoch + place + 1, rows

    def look_up(self, step: int) -> Exception | None:
        """Agree with the other ranks on the losses and on whether to stop, in one exchange."""
        if self.gang.leads:
            self.run.control.poll()
        control = self.run.control
        orders = torch.tensor([float(control.cancelled), float(control.preempted)], device=self.gang.device)
        shares = torch.stack([loss for _, loss in self.pending])
        said = sum_over_ranks(torch.cat([orders, shares]).double(), self.gang).tolist()
        for (at, _), loss in zip(self.pending, said[2:], strict=True):
            if not math.isfinite(loss):
                raise Diverged(
                    f"The loss became {loss} at step {at} of {self.total}: try a smaller learning_rate than "
                    f"{self.run.spec.hyperparameters.learning_rate:g}, or look for extreme values."
                )
            self.run.events.step_metric("train/loss", loss, step=at)
        self.pending.clear()
        if said[0]:
            return Cancelled()
        return Preempted() if said[1] else None

    def validate(self, step: int) -> None:
        mine = shard(self.prepared.split.holdout, rank=self.gang.rank, world=self.gang.world)
        totals = torch.zeros(2, dtype=torch.float64, device=self.gang.device)
        size = max(64, self.run.spec.hyperparameters.batch_size)
        self.network.eval()
        with torch.inference_mode():
            for start in range(0, len(mine), size):
                x, y = self.prepared.tensors(mine[start : start + size], self.gang.device)
                logits_BC = self.network(x).float()
                totals[0] += functional.cross_entropy(logits_BC, y, reduction="sum")
                totals[1] += (logits_BC.argmax(dim=1) == y).sum()
        self.network.train()
        loss, right = (sum_over_ranks(totals, self.gang) / len(self.prepared.split.holdout)).tolist()
        self.run.events.metric("val/loss", loss, step=step)
        self.run.events.metric("val/accuracy", right, step=step)

    def save(self, step: int) -> None:
        """Rank 0 writes: weights and optimizer are the same on every rank."""
        if not self.gang.leads or step == self.saved_step:
            return
        began = time.monotonic()
        path = checkpoint.save_checkpoint(
            self.run.folder / CHECKPOINTS_DIR,
            step=step,
            weights=self.network.state_dict(),
            optimizer={
                "optimizer": self.stepper.optimizer.state_dict(),
                "scaler": self.stepper.scaler.state_dict(),
            },
            spec=self.run.spec,
            world=self.gang.world,
        )
        self.saved_at(step, cost_s=time.monotonic() - began)
        self.run.events.checkpoint(step=step, path=str(path.relative_to(self.run.folder)))

    def saved_at(self, step: int, *, cost_s: float) -> None:
        self.saved_step = step
        self.next_save = time.monotonic() + max(CHECKPOINT_EVERY_S, CHECKPOINT_COST * cost_s)

    def resume(self) -> int:
        """Take up the newest whole checkpoint; 0 when there is none."""
        warn = lambda text: self.run.events.log(text, level="warning")  # noqa: E731
        found = checkpoint.load_newest(self.run.folder / CHECKPOINTS_DIR, self.run.spec, warn)
        if found is None:
            return 0
        self.network.load_state_dict(found.weights)
        self.stepper.optimizer.load_state_dict(found.optimizer["optimizer"])
        self.stepper.scaler.load_state_dict(found.optimizer["scaler"])
        self.run.events.log(f"Going on from the checkpoint at step {found.step} of {self.total}.")
        return found.step


def autocast(device: torch.device, precision: Precision) -> contextlib.AbstractContextManager[Any]:
    if precision is Precision.FP32:
        return contextlib.nullcontext()
    kind = torch.bfloat16 if precision is Precision.BF16 else torch.float16
    return torch.autocast(device.type, dtype=kind)


def usable_precision(run: Run, gang: Gang) -> Precision:
    """fp16 needs a GPU; elsewhere fp32 is what trains."""
    asked = run.spec.resources.precision
    return Precision.FP32 if asked is Precision.FP16 and gang.device.type == "cpu" else asked


def probabilities(
    network: nn.Module, prepared: Prepared, rows: Indices, device: torch.device
) -> np.ndarray[Any, Any]:
    """What torch itself answers for these rows: the yardstick for every exported file."""
    network.eval()
    parts = []
    with torch.inference_mode():
        for start in range(0, len(rows), 256):
            x, _ = prepared.tensors(rows[start : start + 256], device)
            parts.append(network(x).float().softmax(dim=1).cpu().numpy())
    return np.concatenate(parts)
