"""Make one combination of methods after another out of a trained network, each built on its own prefix."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator

from torch import Tensor, nn

from trainer.compress import factorize, search, sharing, structured, vocabulary
from trainer.compress.distill import soft_labels, teach
from trainer.contract import Method
from trainer.distributed import Gang
from trainer.failures import Cancelled, Preempted
from trainer.prepare import Prepared, Run

MOST_EPOCHS = 12  # of fine-tuning after channels were taken out
GENTLE = 0.5  # of the learning rate, where little was changed


def combinations(
    run: Run, prepared: Prepared, trained: nn.Module, gang: Gang, *, budget_s: float = search.BUDGET_S
) -> Iterator[tuple[str, nn.Module, str]]:
    """Name, network and one sentence for every combination that could be made within the time budget."""
    methods = run.spec.compression.methods
    if not any(method in search.SEARCHED for method in methods):
        return
    facts = {
        "chain": structured.can_shrink(trained),
        "dense": any(isinstance(layer, nn.Linear) for layer in trained.modules()),
        "table": vocabulary.can_prune(trained),
        "shared": sharing.can_share(trained),
    }
    for method in search.no_use(methods, **facts):
        run.events.log(f"{method} has nothing to work on in this network and is left out.")
    recipes = search.plan(methods, **facts)
    if not recipes:
        return
    began = time.monotonic()
    soft = soft_labels(trained, prepared, gang.device)
    made: dict[search.Recipe, tuple[nn.Module, str]] = {(): (trained, "")}
    for number, steps in enumerate(recipes):
        run.control.stop_here()
        if time.monotonic() - began > budget_s:
            left = ", ".join(map(search.name_of, recipes[number:]))
            run.events.log(f"The time for the search ({budget_s:g} s) is used up; not tried: {left}.")
            return
        if steps[:-1] not in made:
            continue  # what it is built on could not be made, which was said then
        source, before = made[steps[:-1]]
        name = search.name_of(steps)
        try:
            network, sentence = _step(run, prepared, copy.deepcopy(source), trained, soft, gang, steps[-1])
        except (Cancelled, Preempted, MemoryError, OSError):
            raise
        except Exception as error:
            run.events.log(f"{name} could not be made and is left out: {error}", level="warning")
            continue
        if network is None:
            run.events.log(f"{name} is left out: {sentence}")
            continue
        whole = f"{before} {sentence}".strip()
        made[steps] = (network, whole)
        yield name, network, whole


def _step(
    run: Run,
    prepared: Prepared,
    source: nn.Module,
    trained: nn.Module,
    soft: Tensor,
    gang: Gang,
    step: search.Step,
) -> tuple[nn.Module | None, str]:
    """One step on `source`, which is ours to change; None and why when it brings nothing."""
    hyper = run.spec.hyperparameters
    epochs = min(hyper.epochs, MOST_EPOCHS)
    if step.method is Method.STRUCTURED:
        assert step.width is not None
        narrow = structured.shrink(source, step.width / 100)
        taught = teach(run, prepared, narrow, soft, gang, epochs=epochs)
        return narrow, (
            f"Hidden layers cut to {step.width} % of their width "
            f"({_widths(trained)} to {_widths(narrow)}), then {taught} epochs taught by the original."
        )
    if step.method is Method.DISTILL:
        assert step.width is not None
        small = structured.student(source, step.width / 100, seed=hyper.seed)
        taught = teach(run, prepared, small, soft, gang, epochs=2 * epochs)
        return small, (
            f"A new network of {step.width} % of the width ({_widths(small)}), "
            f"{taught} epochs taught by the original."
        )
    if step.method is Method.LOWRANK:
        thin, ranks = factorize.factorize(source.cpu())
        if not ranks:
            return None, "no matrix is large enough and of low enough rank for two thin ones to be smaller."
        if "table" in ranks:  # nothing worth mending was cut off
            return thin, f"Text table and last layer rewritten with {ranks['table']} numbers an n-gram."
        taught = teach(run, prepared, thin, soft, gang, epochs=max(1, epochs // 2), pace=GENTLE)
        said = ", ".join(map(str, ranks.values()))
        return thin, (
            f"Large dense layers split in two of rank {said}, then {taught} epochs taught by the original."
        )
    if step.method is Method.SHARE:
        shared, done = sharing.share(source, seed=hyper.seed)
        taught = teach(run, prepared, shared, soft, gang, epochs=epochs)
        return shared, f"{done}, then {taught} epochs taught by the original."
    assert step.method is Method.VOCABULARY
    bag = source.cpu()
    rows = len(bag.table.weight)  # type: ignore[union-attr,arg-type]
    smaller, kept = vocabulary.prune_vocabulary(bag, vocabulary.count_uses(prepared, rows))
    return smaller, f"Of the text table the {kept} of {rows - 1} rows kept that say most."


def _widths(network: nn.Module) -> str:
    return ", ".join(map(str, structured.hidden_widths(network)))
