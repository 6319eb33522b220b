"""One `up` for one folder: a second is refused, and what a killed one left running is ended."""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path
from typing import IO

import psutil

MARK = "TAUON_UP"  # in the environment of everything that `up` starts; its value is the folder
PATIENCE_S = 25  # as long as Ctrl-C waits: a training attempt saves a checkpoint before it goes


def hold(folder: Path) -> IO[str]:
    """Refuse when another `up` runs over this folder. The system drops the lock when this process ends."""
    file = (folder / "up.lock").open("a+")
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # lockf, not flock: no fork inherits it
    except OSError:
        file.seek(0)
        pid = file.read().strip()
        file.close()
        raise SystemExit(
            f"Tauon already runs over {folder} (process {pid}). Use that one, or stop it: kill -INT {pid}. "
            "For a second installation name another folder: TAUON_VAR=/some/folder make up"
        ) from None
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()
    return file


def end_leftovers(folder: Path, *, patience_s: float = PATIENCE_S) -> int:
    """Ask whatever an `up` over this folder started to end, then make it. Returns how many there were."""
    left = [process for process in psutil.process_iter() if _mark(process) == str(folder)]
    for process in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
    _, stubborn = psutil.wait_procs(left, timeout=patience_s)
    for process in stubborn:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    return len(left)


def _mark(process: psutil.Process) -> str | None:
    try:
        return None if process.pid == os.getpid() else process.environ().get(MARK)
    except (psutil.Error, OSError):  # gone, or not ours to read
        return None
