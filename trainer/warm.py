"""Start runs in a tenth of a second: a parent that has imported torch forks the ranks.

    python -m trainer.warm serve SOCKET                  the parent; says "ready" once everything is imported
    python -m trainer.warm run SOCKET spec.json RANKS    what takes the place of torchrun: same environment
                                                         for the ranks, ends with their exit code

For every run the parent forks an agent, and the agent forks the ranks. If `run` dies, the agent kills them;
if the agent dies, Linux does; if the parent dies, its runs go on. Where no parent answers, `run` becomes
torchrun. The parent never touches CUDA, for a forked process could not use it then, and
never computes, for threads of a pool do not survive a fork. Only the standard library is imported up here:
`run` must be light. The socket is as open as its folder: keep it in a private one.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Any, NoReturn

GRACE_S = 5.0  # for the peers of a rank that failed: rank 0 still has to tell the first cause
_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_MOST = 1 << 20


def serve(path: Path) -> int:
    """Import everything once, then fork an agent for each who connects."""
    for name in _ONE_THREAD:
        os.environ[name] = "1"
    _import_all()
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        path.chmod(0o600)
        listener.listen(64)
        listener.settimeout(1.0)
        print("ready", flush=True)
        while True:
            _take_away_the_dead()
            try:
                connection, _ = listener.accept()
            except TimeoutError:
                continue
            if os.fork() == 0:
                listener.close()
                _be_agent(connection)
            connection.close()


def run(path: Path, spec: Path, ranks: int, phase: str = "run") -> int:
    """Ask the parent for a gang, lend it our output, and wait for its end."""
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(str(path))
        except OSError as error:
            _start_cold(spec, ranks, phase, because=f"the warm parent does not answer ({error.strerror})")
        order = {"spec": str(spec.resolve()), "ranks": ranks, "phase": phase, "folder": str(Path.cwd())}
        order["environment"] = dict(os.environ)
        content = json.dumps(order).encode()
        # a line with the length first: the rest may come in parts
        socket.send_fds(connection, [f"{len(content):>10}".encode()], [1, 2])
        connection.sendall(content)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: connection.send(b"T"))
        said = b""
        while part := connection.recv(4096):
            said += part
    return int(said) if said else 128 + signal.SIGKILL  # silent: the agent itself was killed


def _start_cold(spec: Path, ranks: int, phase: str, *, because: str) -> NoReturn:
    """Become torchrun. COLD_BECAUSE of the contract, spelt out: this side imports nothing."""
    os.environ.setdefault("TAUON_COLD_BECAUSE", because)
    os.execv(sys.executable, [sys.executable, "-m", "trainer.launch", str(spec), str(ranks), phase])


def _import_all() -> None:
    import numpy
    import torch
    import torch._dynamo
    import torch.distributed
    import torch.nn.parallel

    from trainer import __main__, engine, forking

    assert numpy and torch and engine and __main__
    if torch.cuda.is_initialized():
        raise RuntimeError("CUDA was started in the warm parent: no forked process could use it.")
    if threading.active_count() > 1:
        raise RuntimeError("A thread runs in the warm parent: a fork would leave its locks taken.")
    forking.settle()


def _take_away_the_dead() -> None:
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _be_agent(connection: socket.socket) -> NoReturn:
    from trainer import forking  # not at the top: `run` is started by path, where no package is found

    def work() -> int:
        os.setsid()
        order = _read_order(connection)
        forking.step_into(order)
        return _watch(connection, _fork_ranks(connection, order))

    def tell(code: int) -> None:
        with contextlib.suppress(OSError):
            connection.sendall(str(code).encode())

    forking.end_with(work, tell)


def _read_order(connection: socket.socket) -> dict[str, Any]:
    from trainer import forking

    head, files, _, _ = socket.recv_fds(connection, 10, 2)
    forking.lend(dict(zip((1, 2), files, strict=True)))
    length = int(head)
    if length > _MOST:
        raise ValueError(f"an order of {length} bytes is too long")
    content = b""
    while len(content) < length:
        part = connection.recv(length - len(content))
        if not part:
            raise ConnectionError("whoever asked for the run is gone")
        content += part
    return json.loads(content)  # type: ignore[no-any-return]


def _fork_ranks(connection: socket.socket, order: dict[str, Any]) -> dict[int, int]:
    """The ranks by the file descriptor that becomes readable at their end."""
    # kept open until rank 0 listens on it: nobody else can take the port in between
    meet = socket.create_server(("127.0.0.1", 0))
    port = meet.getsockname()[1]
    ranks = int(order["ranks"])
    found = {}
    for rank in range(ranks):
        pid = os.fork()
        if pid == 0:
            connection.close()
            os.environ.update(
                RANK=str(rank),
                LOCAL_RANK=str(rank),
                GROUP_RANK="0",
                WORLD_SIZE=str(ranks),
                LOCAL_WORLD_SIZE=str(ranks),
                MASTER_ADDR="127.0.0.1",
                MASTER_PORT=str(port),
            )
            os.environ["TAUON_MEET_FD"] = str(meet.detach() if rank == 0 else -1)
            _be_rank(order)
        found[os.pidfd_open(pid)] = pid
    meet.close()
    return found


def _be_rank(order: dict[str, Any]) -> NoReturn:
    from trainer import forking

    def work() -> int:
        import torch

        from trainer.__main__ import main

        # read when the library was loaded, so in the parent; a number set since then must be told
        torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
        return main([order["phase"], order["spec"]])

    forking.end_with(work)


def _watch(connection: socket.socket, ranks: dict[int, int]) -> int:
    """Wait for all ranks. The first that fails decides the code, and ends its peers."""
    code, kill_at, listening = 0, float("inf"), True
    while ranks:
        wait_s = max(0.0, kill_at - time.monotonic()) if kill_at < float("inf") else None
        heard: list[Any] = [*ranks, connection] if listening else [*ranks]
        ready, _, _ = select.select(heard, [], [], wait_s)
        if connection in ready:
            said = connection.recv(1)
            listening = bool(said)
            _send_all(ranks, signal.SIGTERM if said else signal.SIGKILL)
        for handle in [one for one in ready if isinstance(one, int)]:
            _, status = os.waitpid(ranks.pop(handle), 0)
            os.close(handle)
            ended = os.waitstatus_to_exitcode(status)
            if ended and not code:
                code = ended if ended > 0 else 128 - ended  # as a shell says it: 137 after SIGKILL
                kill_at = time.monotonic() + GRACE_S
        if time.monotonic() >= kill_at:
            _send_all(ranks, signal.SIGKILL)
            kill_at = float("inf")
    return code


def _send_all(ranks: dict[int, int], number: int) -> None:
    for pid in ranks.values():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def main(words: list[str]) -> int:
    if len(words) == 2 and words[0] == "serve":
        return serve(Path(words[1]))
    if len(words) in (4, 5) and words[0] == "run":
        return run(Path(words[1]), Path(words[2]), int(words[3]), *words[4:])
    print(__doc__, file=sys.stderr)
    return 64


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
