"""Gangs on this machine: forked from a warm parent, or started by torchrun, in clean environments."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

import psutil
from django.conf import settings

from jobs.compute.base import LOST, Gang, Handle
from jobs.compute.warm import LEASH, WarmParent
from jobs.scheduling import Capacity
from trainer.contract import COLD_BECAUSE

MARK = "TAUON_RUN"  # in the environment of every process of a gang: how it is found without its parent
WARM = "warm"  # the mark of those that were forked: Linux shows them with the environment of their parent
LOG_FILE = "engine.log"
_NVIDIA = Path("/proc/driver/nvidia/gpus")
_KEPT = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "SSL_CERT_FILE")  # nothing that could be a credential


def node_name() -> str:
    """What this machine is called in leases and handles."""
    return os.environ.get("TAUON_NODE") or socket.gethostname()


class LocalCompute:
    """Starts `trainer run spec.json` in several processes; nothing of it outlives its end."""

    def __init__(self, *, warm: bool = True) -> None:
        self._started: dict[int, subprocess.Popen[bytes]] = {}  # ours alone know their exit codes
        self.warm_parent = WarmParent({**_clean(), MARK: WARM}) if warm else None

    def warm_up(self) -> None:
        """For a worker that has just started: the first run should not wait for the imports."""
        if self.warm_parent is not None and settings.WARM_START:
            self.warm_parent.warm_up()

    def close(self) -> None:
        """For a worker that ends."""
        if self.warm_parent is not None:
            self.warm_parent.close()

    def capacity(self) -> Capacity:
        gpus = settings.LOCAL_GPUS if settings.LOCAL_GPUS >= 0 else count_gpus()
        return Capacity(node=node_name(), processes=settings.LOCAL_PROCESSES, gpus=gpus)

    def start(self, gang: Gang) -> Handle:
        because, meet = self._way_in(gang)
        words = self.command(gang) if meet is None else self.warm_command(gang, meet)
        command = [sys.executable, "-I", "-S", str(LEASH), str(os.getpid()), *words]
        with (gang.folder / LOG_FILE).open("ab") as log:
            process = subprocess.Popen(
                command,
                cwd=gang.folder,
                env=environment(gang) | ({COLD_BECAUSE: because} if because else {}),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._started[process.pid] = process
        return {
            "node": node_name(),
            "run": gang.run,
            "pid": process.pid,
            "created": psutil.Process(process.pid).create_time(),
            "warm": meet is not None,
        }

    def poll(self, handle: Handle) -> int | None:
        if process := self._started.get(handle["pid"]):
            code = process.poll()
            if code is not None:
                del self._started[handle["pid"]]
            return code
        return None if self._leader(handle) else LOST

    def signal(self, handle: Handle, number: int) -> None:
        if leader := self._leader(handle):
            _send(leader, number)

    def stop(self, handle: Handle, *, grace_s: float) -> None:
        if handle.get("node") != node_name():
            return
        leader = self._leader(handle)
        if leader is not None and grace_s > 0:
            _send(leader, signal.SIGTERM)
            _wait(lambda: not _members(handle["run"], leader), grace_s)
        self._end(handle["run"], leader)
        if process := self._started.get(handle["pid"]):
            process.poll()  # takes the zombie away

    def stop_run(self, run: str) -> None:
        self._end(run, None)

    def command(self, gang: Gang) -> list[str]:
        """A cold start: torchrun, which imports torch in every process. Answering rows needs neither."""
        if gang.phase == "predict":
            return [sys.executable, "-P", "-m", "trainer", "predict", str(gang.spec.resolve())]
        return [sys.executable, "-m", "trainer.launch", str(gang.spec.resolve()), str(gang.processes)]

    def warm_command(self, gang: Gang, meet: Path) -> list[str]:
        """Ask the warm parent; by path and without site, since this process needs nothing but to wait."""
        client = settings.BASE_DIR / "trainer" / "warm.py"
        spec = str(gang.spec.resolve())
        return [sys.executable, "-I", "-S", str(client), "run", str(meet), spec, str(gang.processes)]

    def _way_in(self, gang: Gang) -> tuple[str, Path | None]:
        """Why this gang starts cold, or where the warm parent listens."""
        if self.warm_parent is None or not settings.WARM_START or gang.phase != "run":
            return "", None
        if gang.gpus:
            return "a forked process could not use a GPU", None
        if gang.compiles:
            return "torch.compile needs processes of its own", None
        meet = self.warm_parent.socket()
        return ("", meet) if meet is not None else ("the warm parent did not come up", None)

    def _end(self, run: str, leader: psutil.Process | None) -> None:
        """SIGKILL until nobody is left: a process may be forking while we look."""
        deadline = time.monotonic() + 5
        while (members := _members(run, leader)) and time.monotonic() < deadline:
            for member in members:
                _send(member, signal.SIGKILL)
            psutil.wait_procs(members, timeout=0.2)

    def _leader(self, handle: Handle) -> psutil.Process | None:
        """The very process we started, never another that got its number."""
        if handle.get("node") != node_name():
            return None
        try:
            process = psutil.Process(handle["pid"])
            same = abs(process.create_time() - handle["created"]) < 0.05
            return process if same and process.status() != psutil.STATUS_ZOMBIE else None
        except (psutil.Error, KeyError):
            return None


def environment(gang: Gang) -> dict[str, str]:
    """What a training process gets: no credentials, no address of ours, its own home."""
    home = str(gang.folder)
    return {
        **_clean(),
        "HOME": home,
        "TMPDIR": home,
        "CUDA_VISIBLE_DEVICES": ",".join(map(str, gang.gpus)),
        MARK: gang.run,
    }


def _clean() -> dict[str, str]:
    return {
        "LANG": "C.UTF-8",
        **{name: os.environ[name] for name in _KEPT if name in os.environ},
        "PYTHONPATH": str(settings.BASE_DIR),
        "PYTHONUNBUFFERED": "1",
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
        # one node: ranks meet on the loopback and nowhere else
        "GLOO_SOCKET_IFNAME": "lo",
        "NCCL_SOCKET_IFNAME": "lo",
    }


@cache
def count_gpus() -> int:
    """NVIDIA GPUs of this machine, without loading torch."""
    if _NVIDIA.is_dir():
        return len(list(_NVIDIA.iterdir()))
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return 0
    listed = subprocess.run([tool, "-L"], capture_output=True, text=True, timeout=20, check=False)
    return sum(line.startswith("GPU ") for line in listed.stdout.splitlines())


def _members(run: str, leader: psutil.Process | None) -> list[psutil.Process]:
    """Every living process of the gang: the leader, what is below it, and whoever carries the mark."""
    found: dict[int, psutil.Process] = {}
    for process in psutil.process_iter():
        try:
            if process.status() != psutil.STATUS_ZOMBIE and _belongs(process, run):
                found[process.pid] = process
        except psutil.Error:  # gone, or somebody else's
            continue
    if leader is not None:
        try:
            for process in [leader, *leader.children(recursive=True)]:
                if process.status() != psutil.STATUS_ZOMBIE:
                    found[process.pid] = process
        except psutil.Error:
            pass
    return list(found.values())


def _belongs(process: psutil.Process, run: str) -> bool:
    """By its mark; one that was forked from the warm parent by the folder it works in."""
    mark = process.environ().get(MARK)
    return mark == run or (mark == WARM and Path(process.cwd()).name == run)


def _send(process: psutil.Process, number: int) -> None:
    with contextlib.suppress(psutil.Error):
        process.send_signal(number)


def _wait(done: Callable[[], bool], timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while not done() and time.monotonic() < deadline:
        time.sleep(0.05)
