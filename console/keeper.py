"""Keeps the processes of `up` running: one that dies comes back, one that dies at once again and again ends all.

honcho starts them, prefixes their lines and ends them together; by itself it ends all when the first one dies.
"""

from __future__ import annotations

import multiprocessing
import time
from collections import Counter
from typing import Any, cast

import honcho.manager
from honcho.printer import Message

# a training attempt saves a checkpoint and a model worker finishes its requests before they go
honcho.manager.KILL_WAIT = 25
QUICK_S = 10.0  # a process that lived shorter than this died quickly
MOST_QUICK = 5  # so many quick deaths in a row are no accident
PAUSE_S = 1.0  # before the second try, then twice as long each time


class Keeper(honcho.manager.Manager):  # type: ignore[misc]
    """A honcho manager whose loop hears of a death only when nothing more can be done about it."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._born: dict[str, float] = {}
        self._quick: Counter[str] = Counter()
        self._due: dict[str, float] = {}  # name -> when it is started again
        self._told: Any = self.events
        self.events: Any = _Sieve(self._told, self)

    def read(self, timeout: float) -> Message:
        """The next message for honcho's loop; raises queue.Empty like the queue it stands for."""
        self._start_what_is_due()
        message = self._told.get(timeout=timeout)
        if message.type == "start":
            self._born[message.name] = time.monotonic()
            if self._terminating:  # it was being started while Ctrl-C ended the others
                self._procmgr.terminate(message.data["pid"])
        if message.type == "stop" and not self._terminating:
            return self._died(message)
        return message

    def _died(self, message: Message) -> Message:
        name, code = message.name, message.data["returncode"]
        lived_s = time.monotonic() - self._born.pop(name, 0.0)
        self._quick[name] = self._quick[name] + 1 if lived_s < QUICK_S else 0
        if self._quick[name] >= MOST_QUICK:
            self._system_print(
                f"{name} died {MOST_QUICK} times within {QUICK_S:.0f} s of its start (rc={code}); "
                "giving up. Its lines above say why.\n"
            )
            return message
        pause_s = PAUSE_S * 2 ** (self._quick[name] - 2) if self._quick[name] > 1 else 0.0
        self._due[name] = time.monotonic() + pause_s
        self._processes[name].pop("pid", None)
        again = f"in {pause_s:.0f} s" if pause_s else "now"
        text = f"{name} died (rc={code}); starting it again {again}\n"
        return Message(
            type="line",
            data=text,
            time=self._clock.now(),
            name=honcho.manager.SYSTEM_PRINTER_NAME,
            colour=None,
        )

    def _start_what_is_due(self) -> None:
        for name in [one for one, at in self._due.items() if at <= time.monotonic()]:
            del self._due[name]
            kept = self._processes[name]
            if self._terminating:
                kept["pid"], kept["returncode"] = 0, 0  # it is not started any more: nothing to wait for
                continue
            kept["process"] = multiprocessing.Process(
                name=name, target=kept["obj"].run, args=(self._told, True)
            )
            kept["process"].start()

    def terminate(self) -> None:
        """End all; what waits for its next start is not started."""
        if not self._terminating:
            self._due = dict.fromkeys(self._due, 0.0)
        super().terminate()

    def _killall(self, force: bool = False) -> None:
        """As honcho does, but for those that are between two lives and have no process."""
        all_of_them = cast(dict[str, Any], self._processes)  # type: ignore[has-type]
        self._processes = {name: one for name, one in all_of_them.items() if one.get("pid")}
        try:
            super()._killall(force=force)
        finally:
            self._processes = all_of_them


class _Sieve:
    """The queue as honcho's loop sees it: deaths that were mended are not in it."""

    def __init__(self, told: Any, keeper: Keeper) -> None:
        self._told, self._keeper = told, keeper

    def get(self, timeout: float) -> Message:
        return self._keeper.read(timeout)

    def put(self, message: Message) -> None:
        self._told.put(message)
