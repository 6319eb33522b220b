"""A network as a chain: its layers in the order in which numbers run through them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn

Weighted = nn.Conv2d | nn.Linear
_HARMLESS = (
    nn.ReLU,
    nn.GELU,
    nn.SiLU,
    nn.Dropout,
    nn.MaxPool2d,
    nn.AvgPool2d,
    nn.AdaptiveAvgPool2d,
    nn.Flatten,
)


@dataclass(frozen=True, slots=True)
class Link:
    """One layer, and where it hangs, so that another can be put in its place."""

    parent: nn.Sequential
    index: int
    layer: nn.Module

    def replace(self, layer: nn.Module) -> None:
        self.parent[self.index] = layer


@dataclass(frozen=True, slots=True)
class Joint:
    """Two layers with weights, the second reading what the first says, and the norms between them."""

    first: Link
    second: Link
    norms: tuple[Link, ...]


def links(network: nn.Module) -> list[Link]:
    """All layers of the network's Sequentials, in order. Empty when it is not a plain chain.

    What a network names in BESIDE stands beside the chain: it reads the input and adds to the answer.
    """
    apart = beside(network)
    blocks = [child for name, child in network.named_children() if name not in apart]
    if isinstance(network, nn.Sequential):
        blocks = [network]
    if not all(isinstance(block, nn.Sequential) for block in blocks):
        return []
    return [link for block in blocks for link in _unfold(block)]  # type: ignore[arg-type]


def beside(network: nn.Module) -> tuple[str, ...]:
    """Names of the children that are no part of the chain."""
    return tuple(getattr(network, "BESIDE", ()))


def joints(network: nn.Module) -> list[Joint]:
    """Where a channel can be taken out: at every layer with weights but the last. Empty when unsure."""
    found: list[Joint] = []
    pending: Link | None = None
    norms: list[Link] = []
    for link in links(network):
        layer = link.layer
        if isinstance(layer, nn.Conv2d | nn.Linear):
            if isinstance(layer, nn.Conv2d) and layer.groups != 1:
                return []
            if pending is not None:
                found.append(Joint(pending, link, tuple(norms)))
            pending, norms = link, []
        elif isinstance(layer, nn.BatchNorm2d | nn.BatchNorm1d):
            norms.append(link)
        elif not isinstance(layer, _HARMLESS):
            return []
    # the numbers must fit, or the blocks are not run in the order in which they are written
    return found if all(_fits(joint) for joint in found) else []


def widths(network: nn.Module) -> list[int]:
    """What every layer with weights gives out; the last one gives the classes."""
    layers = [link.layer for link in links(network)]
    return [width_out(layer) for layer in layers if isinstance(layer, nn.Conv2d | nn.Linear)]


def width_in(layer: Weighted) -> int:
    return layer.in_channels if isinstance(layer, nn.Conv2d) else layer.in_features


def width_out(layer: Weighted) -> int:
    return layer.out_channels if isinstance(layer, nn.Conv2d) else layer.out_features


def _unfold(block: nn.Sequential) -> Iterator[Link]:
    for index, layer in enumerate(block):
        if isinstance(layer, nn.Sequential):
            yield from _unfold(layer)
        else:
            yield Link(block, index, layer)


def _fits(joint: Joint) -> bool:
    first, second = joint.first.layer, joint.second.layer
    assert isinstance(first, nn.Conv2d | nn.Linear)
    assert isinstance(second, nn.Conv2d | nn.Linear)
    flattened = isinstance(first, nn.Conv2d) and isinstance(second, nn.Linear)
    given, read = width_out(first), width_in(second)
    return read % given == 0 if flattened else read == given
