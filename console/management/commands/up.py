"""Run all of Tauon with one command: database, Redis, web, gateway, workers, beat, replicas."""

from __future__ import annotations

import os
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from argparse import ArgumentParser
from typing import Any
from urllib.parse import urlsplit

import httpx
from django.conf import settings
from django.core.management import call_command
from django.core.management.base import BaseCommand
from django.db import connections

from console import alone, embedded, env, first_start, keeper, reachable, static_files

PYTHON = shlex.quote(sys.executable)


class Command(BaseCommand):
    help = __doc__

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--port", type=int, default=None, help="port of the console (default 8000, or a free one)"
        )
        parser.add_argument(
            "--gateway-port", type=int, default=None, help="port of the endpoints (default 8001)"
        )
        parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
        parser.add_argument(
            "--demo", action="store_true", help="make a demo tenant, with everything really run"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        host = options["host"]
        folder = env.var_dir()
        lock = alone.hold(folder)
        if left := alone.end_leftovers(folder):
            self.stdout.write(f"Ended {left} processes that an earlier run had left behind.")
        port = self._port(host, options["port"], 8000)
        gateway_port = self._port(host, options["gateway_port"], 8001, avoid=port)
        servers = _needed_servers()
        if servers is not None:
            servers.start(adopt=True)
        try:
            self._prepare()
            status = self._run(host, port, gateway_port, demo=options["demo"])
        finally:
            alone.end_leftovers(folder)  # nobody stays, whatever ended the loop
            connections.close_all()
            if servers is not None:
                servers.stop()
            lock.close()
        raise SystemExit(0 if status in (0, 130, 143) else status)

    def _port(self, host: str, asked: int | None, usual: int, *, avoid: int = 0) -> int:
        if asked is not None:
            if not _is_free(host, asked):
                raise SystemExit(
                    f"Port {asked} on {host} is taken or not ours to use. Name another, or none to have one found."
                )
            return asked
        found = free_port(host, usual, avoid=avoid)
        while not _claim(found):  # another start took it between our look and our hand
            found = free_port(host, usual, avoid=avoid)
        if found != usual:
            self.stdout.write(f"Port {usual} is taken; using {found}.")
        return found

    def _prepare(self) -> None:
        call_command("migrate", verbosity=0, interactive=False)
        static_files.collect()

    def _run(self, host: str, port: int, gateway_port: int, *, demo: bool) -> int:
        url = os.environ.get("TAUON_URL") or f"http://{host}:{port}"
        gateway_url = os.environ.get("TAUON_GATEWAY_URL") or f"http://{host}:{gateway_port}"
        environment = {
            **os.environ,
            "TAUON_URL": url,
            "TAUON_GATEWAY_URL": gateway_url,
            "TAUON_VAR": str(env.var_dir()),
            "TAUON_EMBEDDED": "running",
            alone.MARK: str(env.var_dir()),
            "PYTHONUNBUFFERED": "1",
        }
        welcome = first_start.welcome()
        manager = keeper.Keeper()
        for name, command in processes(host, port, gateway_port).items():
            # the gateway faces the world and asks no database: it gets no password to lose
            hidden = {"DATABASE_URL", "TAUON_MASTER_KEY", "TAUON_SECRET_KEY"} if name == "gateway" else set()
            own = {key: value for key, value in environment.items() if key not in hidden}
            manager.add_process(name, f"exec {command}", env=own, cwd=str(settings.BASE_DIR))
        greeter = threading.Thread(
            target=self._greet,
            args=(url, gateway_url, (host, port, gateway_port), welcome, environment, demo),
            daemon=True,
        )
        greeter.start()
        _end_with_the_terminal()
        manager.loop()
        return int(manager.returncode or 0)

    def _greet(
        self,
        url: str,
        gateway_url: str,
        here: tuple[str, int, int],
        welcome: first_start.Welcome,
        environment: dict[str, str],
        demo: bool,
    ) -> None:
        """Once everything answers, say where it is; then make the demo if asked."""
        # asked here, by the public name: a proxy in front may not be up yet
        host = "127.0.0.1" if here[0] in ("0.0.0.0", "") else here[0]
        for address, public in (
            (f"http://{host}:{here[1]}/health/ready", url),
            (f"http://{host}:{here[2]}/v2/health/live", gateway_url),
        ):
            if not _answers(address, host=urlsplit(public).netloc, within_s=60):
                self.stderr.write(f"{address} does not answer; read the log above.")
                return
        local, local_gateway = (f"http://{host}:{port}" for port in here[1:])
        self.stdout.write(welcome.text(url, gateway_url, local, local_gateway))
        self.stdout.flush()
        if demo:
            subprocess.run(
                [sys.executable, str(settings.BASE_DIR / "manage.py"), "demo"], env=environment, check=False
            )


def processes(host: str, port: int, gateway_port: int) -> dict[str, str]:
    """Name -> command of every process of an installation on one machine."""
    celery = f"{PYTHON} -m celery -q -A console.celery"
    return {
        "web": f"{PYTHON} -m daphne -b {host} -p {port} --access-log /dev/null console.asgi:application",
        "gateway": f"{PYTHON} -m uvicorn jobs.gateway:app --host {host} --port {gateway_port} "
        "--loop uvloop --http jobs.gateway.http:Protocol --no-access-log --log-level warning",
        "control": f"{celery} worker -Q control -n control@%h -P threads -c 4 --loglevel WARNING",
        # threads: an attempt only watches its gang; the work is in processes of their own
        "runs": f"{celery} worker -Q runs -n runs@%h -P threads -c {max(4, settings.LOCAL_PROCESSES)} --loglevel WARNING",
        "beat": f"{celery} beat --loglevel WARNING -s {shlex.quote(str(env.var_dir() / 'beat'))}",
        "replicas": f"{PYTHON} manage.py run_replicas",
    }


def free_port(host: str, wanted: int, *, avoid: int = 0) -> int:
    """The wanted port, else the next tenth one (8010, 8020, ...: the same at every start), else any free one."""
    tenths = range(wanted, min(wanted + 100, 65_536), 10) if wanted else ()
    for candidate in (*tenths, 0):
        if candidate == avoid != 0:
            continue
        if found := _is_free(host, candidate):
            return found
    raise SystemExit(
        f"No port can be opened on {host}. Is that an address of this machine? Leave out --host, or mend it."
    )


_claims: dict[int, socket.socket] = {}


def _claim(port: int) -> bool:
    """Keep a port from other starts on this machine: seconds pass until our servers listen on it.

    The name lives in the kernel, not in a folder, and goes with this process however it ends.
    """
    claim = socket.socket(socket.AF_UNIX)
    try:
        claim.bind(f"\0tauon port {port}")
    except OSError:
        claim.close()
        return False
    _claims[port] = claim
    return True


def _is_claimed(port: int) -> bool:
    with socket.socket(socket.AF_UNIX) as look:
        try:
            look.bind(f"\0tauon port {port}")
        except OSError:
            return True
    return False


def _is_free(host: str, port: int) -> int:
    """The port if we may listen there (0 asks for any free one), else 0."""
    if port and _is_claimed(port):
        return 0
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return 0
        return int(probe.getsockname()[1])


def _needed_servers() -> embedded.Embedded | None:
    """The embedded pair, if DATABASE_URL or REDIS_URL points at it; a server named from outside is asked first."""
    own = embedded.Embedded(env.var_dir())
    database, store = os.environ["DATABASE_URL"], os.environ["REDIS_URL"]
    if database != own.database_url:
        reachable.check_database(database)
    if store != own.redis_url:
        reachable.check_redis(store)
    return own if database == own.database_url or store == own.redis_url else None


def _end_with_the_terminal() -> None:
    """A closed terminal ends everything as Ctrl-C does; under `nohup` it does not."""
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        return

    def gone(*_: Any) -> None:
        nothing = os.open(os.devnull, os.O_WRONLY)
        for stream in (1, 2):  # a last word to a terminal that is gone would be an error
            os.dup2(nothing, stream)
        os.kill(os.getpid(), signal.SIGTERM)

    signal.signal(signal.SIGHUP, gone)


def _answers(address: str, *, host: str, within_s: float) -> bool:
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        try:
            # below 400: behind TLS the answer to plain HTTP is a redirect
            if httpx.get(address, headers={"Host": host}, timeout=2, trust_env=False).status_code < 400:
                return True
        except httpx.HTTPError:
            pass
        time.sleep(0.2)
    return False
