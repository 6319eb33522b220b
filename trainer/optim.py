"""How weights move: the optimizer by name, and a learning rate that is a pure function of the step."""

from __future__ import annotations

import math

import torch
from torch import nn

from trainer.contract import HyperParameters

WARMUP_SHARE = 0.05
LOWEST_SHARE = 0.01


def make_optimizer(network: nn.Module, hyper: HyperParameters, device: torch.device) -> torch.optim.Optimizer:
    fused = device.type in ("cuda", "cpu")  # one pass over the numbers, on a CPU too: several times as fast
    rate, decay = hyper.learning_rate, hyper.weight_decay
    if hyper.optimizer == "sgd":
        return torch.optim.SGD(network.parameters(), lr=rate, momentum=0.9, weight_decay=decay, fused=fused)
    if hyper.optimizer == "adafactor":
        return torch.optim.Adafactor(network.parameters(), lr=rate, weight_decay=decay)
    kind = torch.optim.AdamW if hyper.optimizer == "adamw" else torch.optim.Adam
    return kind(network.parameters(), lr=rate, weight_decay=decay, fused=fused)


def learning_rate(
    step: int, *, total_steps: int, peak: float, schedule: str = "cosine", warmup_steps: int | None = None
) -> float:
    """Rise linearly over the first steps, then stay, or fall to a hundredth of the peak.

    A pure function of the step: a resumed run needs no stored schedule.
    """
    warmup = max(1, round(total_steps * WARMUP_SHARE)) if warmup_steps is None else warmup_steps
    if step < warmup:
        return peak * (step + 1) / warmup
    if schedule == "constant":
        return peak
    done = min(1.0, (step - warmup) / max(1, total_steps - warmup))
    left = 1 - done if schedule == "linear" else 0.5 * (1 + math.cos(math.pi * done))
    return peak * (LOWEST_SHARE + (1 - LOWEST_SHARE) * left)


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate
