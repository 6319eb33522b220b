"""A warm parent for model workers: it has imported ONNX Runtime, and forks a worker in a few milliseconds.

    python -P -m trainer.zygote FD

FD is one end of a Unix SEQPACKET socket. Each order is one packet, `{"config": path of serve.json, "folder":
path, "environment": {...}}`, with three files: the worker's stdout, its stderr, and a pipe for what the keeper
must hear: the worker's pid in one line and, when it has ended, its wait status in a second one. When the other
end of FD is closed or the keeper dies, the zygote ends, and Linux ends its workers with it.

No session is opened in here, for its threads would not survive a fork, and nothing of a tenant is ever read.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import sys
from pathlib import Path
from typing import Any, NoReturn

from trainer import forking
from trainer.control import die_with_parent

MOST = 64 * 1024  # bytes of an order


def run(fd: int) -> int:
    """Fork workers until nobody is there to ask for them."""
    die_with_parent()
    # imported here and not above: a worker's first line of this file must not cost the import twice
    from trainer import serve

    forking.settle()
    wake_in, wake_out = os.pipe()
    os.set_blocking(wake_out, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake_out, warn_on_full_buffer=False)
    told: dict[int, int] = {}  # pid -> the pipe that hears of it
    with socket.socket(fileno=fd) as orders:
        orders.send(b"ready")
        while True:
            readable, _, _ = select.select([orders.fileno(), wake_in], [], [])
            if wake_in in readable:
                os.read(wake_in, 4096)
                _tell_of_the_dead(told)
            if orders.fileno() in readable:
                packet, files, _flags, _ = socket.recv_fds(orders, MOST, 3)
                if not packet:
                    return 0
                out, err, news = files
                parent = os.getpid()
                pid = os.fork()
                if pid == 0:
                    die_with_parent()
                    if os.getppid() != parent:
                        os._exit(1)  # the zygote died before Linux was asked to end us with it
                    signal.set_wakeup_fd(-1)
                    orders.close()
                    for other in (wake_in, wake_out, news, *told.values()):
                        os.close(other)
                    _be_worker(serve.serve, json.loads(packet), out, err)
                told[pid] = news
                os.write(news, b"%d\n" % pid)
                os.close(out)
                os.close(err)


def _tell_of_the_dead(told: dict[int, int]) -> None:
    while told:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if not pid:
            return
        if (news := told.pop(pid, None)) is not None:
            with contextlib.suppress(OSError):  # nobody waits for it any more
                os.write(news, b"%d\n" % os.waitstatus_to_exitcode(status))
            os.close(news)


def _be_worker(serve: Any, order: dict[str, Any], out: int, err: int) -> NoReturn:
    def work() -> int:
        os.setsid()  # a Ctrl-C in the terminal is for the keeper, which drains
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        forking.lend({0: os.open(os.devnull, os.O_RDONLY), 1: out, 2: err})
        forking.step_into(order)
        return int(serve(Path(order["config"])))

    forking.end_with(work)


if __name__ == "__main__":
    sys.exit(run(int(sys.argv[1])))
