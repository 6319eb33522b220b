"""Runs a command that dies with its parent: `python leash.py PARENT_PID COMMAND...`. Standard library only.

A launcher that is killed leaves its processes behind. The kernel can be asked to kill a process when its
parent dies; the request survives exec, so this file asks and becomes the command.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1

if __name__ == "__main__":
    parent, command = int(sys.argv[1]), sys.argv[2:]
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before we could ask
            sys.exit(1)
    os.execv(command[0], command)
