"""Magnitude pruning: set the smallest weights of the whole network to zero, then let the rest recover."""

from __future__ import annotations

import torch
from torch import Tensor, nn

Masks = dict[str, Tensor]


def prune_by_magnitude(network: nn.Module, sparsity: float) -> Masks:
    """Zero the share `sparsity` of all weights, the smallest first across layers; biases stay.

    Weights that are zero already, such as those of n-grams never seen, are not counted: pruning them saves
    nothing. Returns the masks, to be laid on again after every step of fine-tuning.
    """
    weights = dict(_weights(network))
    magnitudes = torch.cat([weight.detach().abs().flatten() for weight in weights.values()])
    zeros = int((magnitudes == 0).sum())
    count = zeros + round(sparsity * (magnitudes.numel() - zeros))
    # by rank and not by threshold, so that many equal weights cannot push the share off
    keep = torch.ones_like(magnitudes, dtype=torch.bool)
    keep[magnitudes.argsort(stable=True)[:count]] = False
    masks: Masks = {}
    start = 0
    for name, weight in weights.items():
        masks[name] = keep[start : start + weight.numel()].reshape(weight.shape)
        start += weight.numel()
    apply_masks(network, masks)
    return masks


def apply_masks(network: nn.Module, masks: Masks) -> None:
    with torch.no_grad():
        for name, weight in _weights(network):
            weight.mul_(masks[name])


def sparsity_of(network: nn.Module) -> float:
    """The share of weights that are zero."""
    zeros = sum(int((weight == 0).sum()) for _, weight in _weights(network))
    return zeros / sum(weight.numel() for _, weight in _weights(network))


def _weights(network: nn.Module) -> list[tuple[str, Tensor]]:
    kinds = (nn.Linear, nn.Conv2d, nn.Embedding)
    return [(name, layer.weight) for name, layer in network.named_modules() if isinstance(layer, kinds)]
