"""Low rank: a large matrix as the product of two thin ones, by singular values.

Most of what a wide dense layer does happens in few directions. Cut off where the kept directions hold the
asked share of the energy (the squares of the singular values), two thin matrices are smaller and quicker.

A bag of n-grams is linear up to its answer, so table and last layer are one matrix of (n-grams x classes):
its rank is below the number of classes, and the softmax does not see what all classes have in common. For two
classes one number an n-gram says all that 32 said, and nothing at all is lost.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from trainer.recipes.networks import TextBag

ENERGY = 0.9
TABLE_ENERGY = 0.9999
MIN_RANK = 4
_WORTH_IT = 0.8  # of the weights at most: a small saving is not worth a layer more


def factorize(network: nn.Module, *, energy: float = ENERGY) -> tuple[nn.Module, dict[str, int]]:
    """A copy with thin pairs where they save weights; also what each layer's rank is now. Linear layers only."""
    if isinstance(network, TextBag):
        return _factorize_bag(network)
    thin = copy.deepcopy(network)
    ranks: dict[str, int] = {}
    for name, layer in list(thin.named_modules()):
        if not isinstance(layer, nn.Linear):
            continue
        rank = rank_by_energy(torch.linalg.svdvals(layer.weight.detach().float()), energy)
        rank = max(MIN_RANK, rank)
        if rank * (layer.in_features + layer.out_features) > _WORTH_IT * layer.weight.numel():
            continue
        path, _, last = name.rpartition(".")
        setattr(thin.get_submodule(path), last, thin_pair(layer, rank))
        ranks[name] = rank
    return thin, ranks


def thin_pair(layer: nn.Linear, rank: int) -> nn.Sequential:
    """The best two layers of this rank in place of one."""
    left, values, right = torch.linalg.svd(layer.weight.detach().float(), full_matrices=False)
    root = values[:rank].sqrt()
    first = nn.Linear(layer.in_features, rank, bias=False)
    second = nn.Linear(rank, layer.out_features, bias=layer.bias is not None)
    with torch.no_grad():
        first.weight.copy_(root[:, None] * right[:rank])
        second.weight.copy_(left[:, :rank] * root)
        if layer.bias is not None:
            second.bias.copy_(layer.bias)
    return nn.Sequential(first, second)


def rank_by_energy(values: Tensor, energy: float) -> int:
    """How many of the singular values hold the share `energy` of all their squares."""
    held = values.double().square().cumsum(0)
    return int((held < energy * held[-1]).sum()) + 1


def _factorize_bag(network: TextBag) -> tuple[nn.Module, dict[str, int]]:
    thin = copy.deepcopy(network)
    table, last = thin.table.weight.detach(), thin.head[-1]
    assert isinstance(last, nn.Linear)
    says_VC = table.double() @ last.weight.detach().double().T  # what each n-gram says for each class
    says_VC -= says_VC.mean(dim=1, keepdim=True)  # the softmax does not see it
    # the small square matrix has the same directions: a table of 131,072 rows needs no decomposition itself
    squares, directions = torch.linalg.eigh(says_VC.T @ says_VC)
    squares, directions = squares.flip(0).clamp(min=0), directions.flip(1)
    rank = rank_by_energy(squares.sqrt(), TABLE_ENERGY)
    if rank >= table.shape[1]:
        return thin, {}
    kept = directions[:, :rank]
    narrow = nn.Embedding(len(table), rank, padding_idx=0)
    answer = nn.Linear(rank, last.out_features)
    with torch.no_grad():
        narrow.weight.copy_(says_VC @ kept)
        answer.weight.copy_(kept)
        answer.bias.copy_(last.bias)
    _set_table(thin, narrow)
    thin.head[-1] = answer
    return thin, {"table": rank}


def _set_table(network: TextBag, table: nn.Module) -> None:
    network.table = table  # type: ignore[assignment]
