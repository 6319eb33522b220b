"""Gangs on this machine: torchrun (torch elastic) process groups in clean environments."""

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
from jobs.scheduling import Capacity

MARK = "TAUON_RUN"  # in the environment of every process of a gang: how it is found without its parent
LOG_FILE = "engine.log"
_LEASH = Path(__file__).with_name("leash.py")
_NVIDIA = Path("/proc/driver/nvidia/gpus")
_KEPT = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "SSL_CERT_FILE")  # nothing that could be a credential


def node_name() -> str:
    """What this machine is called in leases and handles."""
    return os.environ.get("TAUON_NODE") or socket.gethostname()


class LocalCompute:
    """Starts `torchrun -m trainer run spec.json` and sees to it that nothing of it outlives its end."""

    def __init__(self) -> None:
        self._started: dict[int, subprocess.Popen[bytes]] = {}  # ours alone know their exit codes

    def capacity(self) -> Capacity:
        gpus = settings.LOCAL_GPUS if settings.LOCAL_GPUS >= 0 else count_gpus()
        return Capacity(node=node_name(), processes=settings.LOCAL_PROCESSES, gpus=gpus)

    def start(self, gang: Gang) -> Handle:
        command = [sys.executable, "-I", "-S", str(_LEASH), str(os.getpid()), *self.command(gang)]
        with (gang.folder / LOG_FILE).open("ab") as log:
            process = subprocess.Popen(
                command,
                cwd=gang.folder,
                env=environment(gang),
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
        """torchrun reads everything up to `-m`; the engine gets positional words only."""
        return [
            sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr", "localhost",
            "--nnodes", "1", "--nproc-per-node", str(gang.processes), "--max-restarts", "0",
            "-m", "trainer", "run", str(gang.spec.resolve()),
        ]  # fmt: skip

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
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    home = str(gang.folder)
    return {
        "LANG": "C.UTF-8",
        **kept,
        "HOME": home,
        "TMPDIR": home,
        "PYTHONPATH": str(settings.BASE_DIR),
        "PYTHONUNBUFFERED": "1",
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": ",".join(map(str, gang.gpus)),
        # one node: ranks meet on the loopback and nowhere else
        "GLOO_SOCKET_IFNAME": "lo",
        "NCCL_SOCKET_IFNAME": "lo",
        # without it a restarted gang can read the addresses of the dead one and hang
        "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
        MARK: gang.run,
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
            if process.status() != psutil.STATUS_ZOMBIE and process.environ().get(MARK) == run:
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


def _send(process: psutil.Process, number: int) -> None:
    with contextlib.suppress(psutil.Error):
        process.send_signal(number)


def _wait(done: Callable[[], bool], timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while not done() and time.monotonic() < deadline:
        time.sleep(0.05)
