"""Structured pruning: take whole channels and hidden units out, so that the layers are really narrower.

Zeros in a full matrix save nothing while it runs; a narrower matrix does. What a channel is worth is told from
its weights: the sum of the magnitudes it is made from, times the sum of those that read it, times the scale of
the batch norm on it if there is one. Taking channels out of convolutions costs accuracy (15 points were seen
without it), so fine-tuning by `distill.teach` always follows.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from trainer.compress import blocks
from trainer.compress.chain import Joint, Weighted, beside, joints, widths

MIN_WIDTH = 4
EVEN = {
    nn.Conv2d: 16,
    nn.Linear: 8,
}  # runtimes calculate with as many numbers at once: other widths are slower


def can_shrink(network: nn.Module) -> bool:
    """Whether this network is a chain in which channels can be taken out one by one, or a transformer."""
    return blocks.is_reader(network) or bool(joints(network))


def shrink(network: nn.Module, keep: float) -> nn.Module:
    """A copy whose hidden layers keep the share `keep` of their channels, the ones that matter most."""
    if blocks.is_reader(network):
        return blocks.shrink(network, keep)
    narrow = copy.deepcopy(network)
    for number in range(len(joints(narrow))):
        # looked up anew: the layer that was cut last is the first of the next pair
        joint = joints(narrow)[number]
        _cut(joint, _worth(joint), keep)
    return narrow


def student(network: nn.Module, keep: float, *, seed: int) -> nn.Module:
    """A network of the same kind and `keep` of the width, whose chain has learned nothing yet."""
    small = shrink(network, keep)
    if blocks.is_reader(small):
        blocks.forget(small, seed=seed)
        return small
    torch.manual_seed(seed)
    known = beside(small)
    for name, layer in small.named_modules():
        if name.split(".")[0] in known:
            continue
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
            layer.reset_parameters()
            layer.reset_running_stats()
    return small


def hidden_widths(network: nn.Module) -> list[int]:
    """How many channels or units each hidden layer has, in order."""
    return blocks.hidden_widths(network) if blocks.is_reader(network) else widths(network)[:-1]


def _worth(joint: Joint) -> Tensor:
    """One number a channel; the larger, the more is lost without it."""
    first, second = _layers(joint)
    made_of = first.weight.detach().abs().flatten(1).sum(dim=1)
    read_by = _by_channel(second, channels=len(made_of)).abs().sum(dim=(0, 2))
    worth = made_of * read_by
    for norm in joint.norms:
        scale = norm.layer.weight
        if isinstance(scale, Tensor):
            worth = worth * scale.detach().abs()
    return worth


def _cut(joint: Joint, worth: Tensor, keep: float) -> None:
    first, second = _layers(joint)
    count = _even(
        keep * len(worth), EVEN[nn.Conv2d if isinstance(first, nn.Conv2d) else nn.Linear], most=len(worth)
    )
    stay = worth.argsort(descending=True, stable=True)[:count].sort().values
    joint.first.replace(_narrowed(first, out=stay))
    for norm in joint.norms:
        norm.replace(_narrowed_norm(norm.layer, stay))
    spread = _by_channel(second, channels=len(worth))[:, stay]
    joint.second.replace(_with_weight(second, spread.reshape(len(spread), -1, *second.weight.shape[2:])))


def _even(wanted: float, step: int, *, most: int) -> int:
    """About as many channels as wanted: a multiple of the step where there are enough of them to choose."""
    count = round(wanted) if most < 2 * step else max(step, round(wanted / step) * step)
    return min(most, max(MIN_WIDTH, count))


def _layers(joint: Joint) -> tuple[Weighted, Weighted]:
    first, second = joint.first.layer, joint.second.layer
    assert isinstance(first, nn.Conv2d | nn.Linear)
    assert isinstance(second, nn.Conv2d | nn.Linear)
    return first, second


def _by_channel(layer: Weighted, *, channels: int) -> Tensor:
    """Weights as (out, channel of the layer before, the rest): pixels of a kernel or of a flattened picture."""
    weight = layer.weight.detach()
    return weight.reshape(weight.shape[0], channels, -1)


def _narrowed(layer: Weighted, *, out: Tensor) -> Weighted:
    cut = _with_weight(layer, layer.weight.detach()[out])
    if layer.bias is not None:
        cut.bias = nn.Parameter(layer.bias.detach()[out].clone())
    return cut


def _with_weight(layer: Weighted, weight: Tensor) -> Weighted:
    changed = copy.deepcopy(layer)
    changed.weight = nn.Parameter(weight.clone())
    if isinstance(changed, nn.Conv2d):
        changed.out_channels, changed.in_channels = weight.shape[:2]
    else:
        changed.out_features, changed.in_features = weight.shape
    return changed


def _narrowed_norm(layer: nn.Module, stay: Tensor) -> nn.Module:
    assert isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d)
    cut = copy.deepcopy(layer)
    cut.num_features = len(stay)
    for name in ("weight", "bias"):
        if getattr(cut, name) is not None:
            setattr(cut, name, nn.Parameter(getattr(layer, name).detach()[stay].clone()))
    for name in ("running_mean", "running_var"):
        if getattr(cut, name) is not None:
            setattr(cut, name, getattr(layer, name)[stay].clone())
    return cut
