"""Transformers: fewer blocks, narrower dense layers in those that stay, or one block in place of all.

What a transformer does to a text it does little by little, block after block, so that those that come first can
learn to do without the others; fine-tuning by `distill.teach` always follows.
"""

from __future__ import annotations

import copy

import torch
from torch import nn

from trainer.recipes.attention import Block, Reader

MIN_HIDDEN = 16


def is_reader(network: nn.Module) -> bool:
    return isinstance(network, Reader)


def shrink(network: nn.Module, keep: float) -> nn.Module:
    """A copy with the share `keep` of its blocks, at least one, and of their hidden units, the ones that matter."""
    small = copy.deepcopy(network)
    assert isinstance(small, Reader)
    count = max(1, round(keep * len(small.blocks)))
    small.blocks = nn.ModuleList(small.blocks[:count])
    for block in small.blocks:
        assert isinstance(block, Block)
        _narrow(block, keep)
    return small


def forget(network: nn.Module, *, seed: int) -> None:
    """Begin anew, in place: nothing of what was learned stays."""
    assert isinstance(network, Reader)
    torch.manual_seed(seed)
    for layer in network.modules():
        if isinstance(layer, nn.Linear | nn.LayerNorm):
            layer.reset_parameters()
    nn.init.normal_(network.table.weight, std=0.1)
    nn.init.normal_(network.places.weight, std=0.02)


def share(network: nn.Module) -> nn.Module:
    """A copy in which one block does the work of all, as often as there were blocks."""
    shared = copy.deepcopy(network)
    assert isinstance(shared, Reader)
    shared.rounds *= len(shared.blocks)
    shared.blocks = nn.ModuleList(shared.blocks[:1])
    return shared


def hidden_widths(network: nn.Module) -> list[int]:
    assert isinstance(network, Reader)
    return [block.up.out_features for block in network.blocks if isinstance(block, Block)]


def _narrow(block: Block, keep: float) -> None:
    up, down = block.up, block.down
    worth = up.weight.detach().abs().sum(dim=1) * down.weight.detach().abs().sum(dim=0)
    count = min(len(worth), max(MIN_HIDDEN, round(keep * len(worth))))
    stay = worth.argsort(descending=True, stable=True)[:count].sort().values
    narrow_up, narrow_down = nn.Linear(up.in_features, count), nn.Linear(count, down.out_features)
    with torch.no_grad():
        narrow_up.weight.copy_(up.weight[stay])
        narrow_up.bias.copy_(up.bias[stay])
        narrow_down.weight.copy_(down.weight[:, stay])
        narrow_down.bias.copy_(down.bias)
    block.up, block.down = narrow_up.to(up.weight.device), narrow_down.to(up.weight.device)
