"""Differentially private training (DP-SGD, Abadi and others, 2016): no single row can be told from the weights.

Each step draws its rows by chance, every row for itself; each row's gradient is cut to one length, and noise of
that length times the noise factor is added to their sum. How much privacy that costs, `accountant` says.

The draw and the noise must not be guessed, so they come from a secret of the run, not from its seed. The secret
stays in the run folder, which is deleted with the run: a run that goes on from a checkpoint draws as it would have.

What epsilon covers is the weights. The fitted transform (means, word lists) is not noised, and the held-out rows
are only measured.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from trainer import accountant, optim
from trainer.compress.variants import finish
from trainer.contract import (
    MANIFEST_FILE,
    RESULT_DIR,
    BadSpec,
    Manifest,
    Method,
    Precision,
    Recipe,
    RunSpec,
)
from trainer.data import Indices, Position, steps_per_epoch
from trainer.distributed import Gang
from trainer.files import replace_atomically
from trainer.loop import Training
from trainer.prepare import Prepared, Run
from trainer.recipes.outcomes import loss_of
from trainer.stepper import Stepper, roll_dice

SECRET_FILE = "privacy.secret"
MOST_NUMBERS = 32_000_000  # of gradients held at once: rows are taken in pieces that fit
# what needs no training rows once the weights are there; everything else would look at them again, unprotected
ALLOWED = (Method.INT8, Method.WEIGHTS8, Method.WEIGHTS4)


@dataclass(frozen=True, slots=True, kw_only=True)
class Promise:
    """What a private run promises about every single row it was trained on."""

    epsilon: float
    delta: float
    noise: float  # in units of the clip
    clip: float
    rate: float  # the chance of a row to take part in a step
    steps: int


def promise(spec: RunSpec, rows: int) -> Promise:
    """The noise that keeps the run within its epsilon, and the epsilon it really has. Raises BadSpec."""
    how, hyper = spec.training, spec.hyperparameters
    assert how.privacy_epsilon is not None
    if how.privacy_delta >= 1 / rows:
        raise BadSpec(
            "/training/privacy_delta",
            f"must be below one over the number of training rows (1/{rows}): a larger one promises nothing",
        )
    steps = steps_per_epoch(rows, hyper.batch_size) * hyper.epochs
    rate = min(1.0, hyper.batch_size / rows)
    known = {"rate": rate, "steps": steps, "delta": how.privacy_delta}
    try:
        noise = accountant.noise_for(epsilon_at_most=how.privacy_epsilon, **known)  # type: ignore[arg-type]
    except ValueError:
        raise BadSpec("/training/privacy_epsilon", "is so small that no noise would be enough") from None
    reached = accountant.epsilon(noise=noise, **known)  # type: ignore[arg-type]
    return Promise(epsilon=reached, noise=noise, clip=how.privacy_clip, **known)  # type: ignore[arg-type]


def secret_of(folder: Path) -> int:
    """The run's own secret, made once."""
    path = folder / SECRET_FILE
    if not path.exists():
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(os.urandom(16))
    return int.from_bytes(path.read_bytes(), "big")


def private_batches(
    rows: int, *, batch_size: int, secret: int, epochs: int, start: Position
) -> Iterator[tuple[Position, Indices]]:
    """Batches in which every row takes part by its own chance; of any size, also none. As many as there would be."""
    per_epoch = steps_per_epoch(rows, batch_size)
    rate = min(1.0, batch_size / rows)
    for epoch in range(start.epoch, epochs):
        first = -(-start.cursor // batch_size) if epoch == start.epoch else 0
        for number in range(first, per_epoch):
            dice = np.random.default_rng([secret, epoch, number])
            chosen = np.flatnonzero(dice.random(rows) < rate).astype(np.int64)
            yield Position(epoch=epoch, cursor=min(rows, (number + 1) * batch_size)), chosen


@dataclass(slots=True, kw_only=True)
class PrivateStepper(Stepper):
    """One step of DP-SGD: gradients row by row, each cut to the clip, their sum noised."""

    promise: Promise
    secret: int
    expected: int  # rows a step draws on average: the sum is divided by it, not by how many came
    _slopes: Any = field(init=False, default=None)

    def step(self, rows: Indices, number: int) -> Tensor:
        parameters = {name: one for name, one in self.network.named_parameters() if one.requires_grad}
        sums = {name: torch.zeros_like(one) for name, one in parameters.items()}
        total = torch.zeros((), dtype=torch.float64, device=self.gang.device)
        roll_dice(self.seed, number, 0)
        numbers = sum(one.numel() for one in parameters.values())
        size = max(1, min(256, MOST_NUMBERS // max(1, numbers)))
        for first in range(0, len(rows), size):
            total += self._add(rows[first : first + size], parameters, sums)
        noise = torch.Generator(device=self.gang.device)
        noise.manual_seed(int(np.random.default_rng([self.secret, 7, number]).integers(2**62)))
        spread = self.promise.noise * self.promise.clip
        for name, one in parameters.items():
            drawn = torch.randn(one.shape, generator=noise, device=one.device, dtype=one.dtype)
            one.grad = (sums[name] + spread * drawn) / self.expected
        self.optimizer.step()
        return total / max(1, len(rows))

    def _add(self, rows: Indices, parameters: Mapping[str, Tensor], sums: Mapping[str, Tensor]) -> Tensor:
        """Add the cut gradients of these rows to `sums`; returns the sum of their losses."""
        x, y = self.prepared.tensors(rows, self.gang.device)
        if self._slopes is None:
            self._slopes = vmap(
                grad(self._cost, has_aux=True), in_dims=(None, None, 0, 0), randomness="different"
            )
        buffers = dict(self.network.named_buffers())
        gradients, costs = self._slopes(
            {name: one.detach() for name, one in parameters.items()}, buffers, x, y
        )
        flat = [one.flatten(1).square().sum(dim=1) for one in gradients.values()]
        lengths = torch.stack(flat).sum(dim=0).sqrt()
        scale = (self.promise.clip / (lengths + 1e-6)).clamp(max=1.0)
        for name, one in gradients.items():
            sums[name].add_(torch.tensordot(scale, one, dims=1))
        return costs.double().sum()

    def _cost(
        self, parameters: dict[str, Tensor], buffers: dict[str, Tensor], x: Tensor, y: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The loss of one row."""
        logits = functional_call(self.network, (parameters, buffers), (x.unsqueeze(0),))
        cost = loss_of(self.network, logits.float(), x.unsqueeze(0), y.unsqueeze(0))
        return cost, cost.detach()


class PrivateTraining(Training):
    """The loop with other batches and another step."""

    def make_stepper(self) -> Stepper:
        made = promise(self.run.spec, self.rows)
        self.run.events.log(
            f"Private training: epsilon {made.epsilon:.2f} at delta {made.delta:g} after {made.steps:,} steps; "
            f"each row's gradient is cut to {made.clip:g} and noise of {made.noise:.2f} times that is added."
        )
        return PrivateStepper(
            network=self.network,
            optimizer=optim.make_optimizer(self.network, self.run.spec.hyperparameters, self.gang.device),
            prepared=self.prepared,
            gang=self.gang,
            precision=Precision.FP32,
            seed=self.run.spec.hyperparameters.seed,
            promise=made,
            secret=secret_of(self.run.folder),
            expected=min(self.rows, self.run.spec.hyperparameters.batch_size),
        )

    def batches(self, start: Position) -> Iterator[tuple[Position, Indices]]:
        hyper = self.run.spec.hyperparameters
        return private_batches(
            self.rows,
            batch_size=hyper.batch_size,
            secret=secret_of(self.run.folder),
            epochs=hyper.epochs,
            start=start,
        )


def train_privately(run: Run, prepared: Prepared, network: nn.Module, gang: Gang) -> int:
    """Train with DP-SGD; returns the number of steps."""
    return PrivateTraining(run, prepared, network, gang).go()


def finish_privately(run: Run, prepared: Prepared, network: nn.Module, gang: Gang, *, steps: int) -> Manifest:
    """Compress by what looks at no training row again, and write what was promised into the manifest."""
    spec = run.spec
    allowed = ALLOWED[1:] if spec.recipe is Recipe.IMAGE else ALLOWED  # convolutions are calibrated on rows
    kept = tuple(method for method in spec.compression.methods if method in allowed)
    for method in spec.compression.methods:
        if method not in kept:
            run.events.log(
                f"{method} is left out: it would look at the training rows again, outside the promised epsilon."
            )
    compression = replace(spec.compression, methods=kept)
    unseen = replace(run, spec=replace(spec, compression=compression))
    manifest = finish(unseen, prepared, network, gang, steps=steps)
    promised = asdict(promise(spec, len(prepared.split.train)))
    manifest = replace(manifest, privacy=promised)
    replace_atomically(run.folder / RESULT_DIR / MANIFEST_FILE, manifest.to_json().encode())
    return manifest
