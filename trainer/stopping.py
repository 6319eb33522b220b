"""When to stop before the last epoch."""

from __future__ import annotations

from typing import Any

from trainer.contract import EarlyStopping


class Stopping:
    """Counts the epochs that brought nothing better."""

    def __init__(self, rule: EarlyStopping | None) -> None:
        self._rule = rule
        self.best: float | None = None
        self.waited = 0
        self.best_now = False

    def after(self, quality: float) -> bool:
        """Note what an epoch brought; True when it is enough."""
        self.best_now = self.best is None or quality > self.best
        if self.best_now:
            self.best, self.waited = quality, 0
        else:
            self.waited += 1
        return self.enough

    @property
    def enough(self) -> bool:
        return self._rule is not None and self.waited >= self._rule.patience

    @property
    def keep(self) -> bool:
        """These weights may be the result."""
        return self._rule is not None and self.best_now

    def state(self) -> dict[str, Any]:
        return {"best": self.best, "waited": self.waited}

    def restore(self, state: dict[str, Any]) -> None:
        self.best, self.waited = state["best"], state["waited"]
