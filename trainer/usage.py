"""What this process takes of the machine: memory, processor, and a GPU's memory and energy if NVML answers."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import Any

_PAGE = os.sysconf("SC_PAGE_SIZE")


class Usage:
    """Call it for one reading; processor time is measured since the reading before."""

    def __init__(self, *, gpus: bool = False) -> None:
        self._at, self._cpu_s = time.monotonic(), _cpu_seconds()
        self._gpus = _Gpus() if gpus else None

    def __call__(self) -> dict[str, Any]:
        now, cpu_s = time.monotonic(), _cpu_seconds()
        percent = 100 * (cpu_s - self._cpu_s) / max(1e-6, now - self._at)
        self._at, self._cpu_s = now, cpu_s
        found: dict[str, Any] = {"rss_bytes": _resident_bytes(), "cpu_percent": round(percent, 1)}
        if self._gpus is not None and (read := self._gpus.read()):
            found["gpus"] = read
        return found


class _Gpus:
    """The GPUs this process may use. Silent where pynvml or the driver is missing."""

    def __init__(self) -> None:
        self._handles: list[Any] = []
        self._energy_before: list[float | None] = []
        try:
            import pynvml
        except ImportError:
            return
        self._nvml = pynvml
        with contextlib.suppress(pynvml.NVMLError):
            pynvml.nvmlInit()
            shown = os.environ.get("CUDA_VISIBLE_DEVICES")
            numbers = (
                [int(one) for one in shown.split(",") if one.strip().isdecimal()]
                if shown is not None
                else list(range(pynvml.nvmlDeviceGetCount()))
            )
            self._handles = [pynvml.nvmlDeviceGetHandleByIndex(number) for number in numbers]
            self._energy_before = [self._joules(handle) for handle in self._handles]

    def read(self) -> list[dict[str, Any]]:
        found = []
        for handle, before in zip(self._handles, self._energy_before, strict=True):
            with contextlib.suppress(self._nvml.NVMLError):
                now = self._joules(handle)
                found.append(
                    {
                        "memory_bytes": int(self._nvml.nvmlDeviceGetMemoryInfo(handle).used),
                        "busy_percent": int(self._nvml.nvmlDeviceGetUtilizationRates(handle).gpu),
                        "energy_j": None if now is None or before is None else round(now - before, 1),
                    }
                )
        return found

    def _joules(self, handle: Any) -> float | None:
        try:
            return float(self._nvml.nvmlDeviceGetTotalEnergyConsumption(handle)) / 1000
        except self._nvml.NVMLError:
            return None  # older cards do not count it


def _cpu_seconds() -> float:
    used = os.times()
    return used.user + used.system


def _resident_bytes() -> int | None:
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE
    except (OSError, ValueError, IndexError):
        return None
