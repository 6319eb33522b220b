"""From logits to a loss, a score and a shipped answer. Classes unless the network says otherwise.

A network with a method `loss(logits, x, y)`, `score(logits, x, y)` or `answer(logits)` is asked; the first two
give the sum over the rows, the last what a client gets.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional


def loss_of(network: nn.Module, logits: Tensor, x: Tensor, y: Tensor) -> Tensor:
    own = getattr(plain(network), "loss", None)
    return own(logits, x, y) if own else functional.cross_entropy(logits, y, reduction="sum")


def score_of(network: nn.Module, logits: Tensor, x: Tensor, y: Tensor) -> Tensor:
    own = getattr(plain(network), "score", None)
    return own(logits, x, y) if own else (logits.argmax(dim=1) == y).sum()


def answers_of(network: nn.Module, logits: Tensor) -> Tensor:
    own = getattr(plain(network), "answer", None)
    return own(logits) if own else logits.softmax(dim=1)  # type: ignore[no-any-return]


def plain(network: nn.Module) -> Any:
    """The network itself, out of what DistributedDataParallel and torch.compile put around it."""
    inner: Any = network
    while (deeper := getattr(inner, "_orig_mod", None) or getattr(inner, "module", None)) is not None:
        inner = deeper
    return inner
