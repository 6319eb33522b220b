"""Run all of Tauon with one command: database, Redis, web, gateway, workers, beat, replicas."""

from __future__ import annotations

import os
import shlex
import socket
import subprocess
import sys
import threading
import time
from argparse import ArgumentParser
from typing import Any

import honcho.manager
import httpx
from django.conf import settings
from django.core.management import call_command
from django.core.management.base import BaseCommand
from django.db import connections

from console import embedded, env, first_start, static_files

PYTHON = shlex.quote(sys.executable)
# a training attempt saves a checkpoint and a model worker finishes its requests before they go
honcho.manager.KILL_WAIT = 25


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
        port = options["port"] or free_port(options["host"], 8000)
        gateway_port = options["gateway_port"] or free_port(options["host"], 8001, avoid=port)
        servers = embedded.Embedded(env.var_dir()) if _needs_embedded() else None
        if servers is not None:
            servers.start()
        try:
            self._prepare()
            status = self._run(options["host"], port, gateway_port, demo=options["demo"])
        finally:
            connections.close_all()
            if servers is not None:
                servers.stop()
        raise SystemExit(0 if status in (0, 130, 143) else status)

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
            "PYTHONUNBUFFERED": "1",
        }
        welcome = first_start.welcome()
        manager = honcho.manager.Manager()
        for name, command in processes(host, port, gateway_port).items():
            manager.add_process(name, f"exec {command}", env=environment, cwd=str(settings.BASE_DIR))
        greeter = threading.Thread(
            target=self._greet, args=(url, gateway_url, welcome, environment, demo), daemon=True
        )
        greeter.start()
        manager.loop()
        return int(manager.returncode or 0)

    def _greet(
        self,
        url: str,
        gateway_url: str,
        welcome: first_start.Welcome,
        environment: dict[str, str],
        demo: bool,
    ) -> None:
        """Once everything answers, say where it is; then make the demo if asked."""
        for address in (f"{url}/health/ready", f"{gateway_url}/v2/health/live"):
            if not _answers(address, within_s=60):
                self.stderr.write(f"{address} does not answer; read the log above.")
                return
        self.stdout.write(welcome.text(url, gateway_url))
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
        "--loop uvloop --http httptools --no-access-log --log-level warning",
        "control": f"{celery} worker -Q control -n control@%h -P threads -c 4 --loglevel WARNING",
        # threads: an attempt only watches its gang; the work is in processes of their own
        "runs": f"{celery} worker -Q runs -n runs@%h -P threads -c {max(4, settings.LOCAL_PROCESSES)} --loglevel WARNING",
        "beat": f"{celery} beat --loglevel WARNING -s {shlex.quote(str(env.var_dir() / 'beat'))}",
        "replicas": f"{PYTHON} manage.py run_replicas",
    }


def free_port(host: str, wanted: int, *, avoid: int = 0) -> int:
    """The wanted port if nobody has it, else any free one."""
    for candidate in (wanted, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, candidate))
            except OSError:
                continue
            found = probe.getsockname()[1]
            if found != avoid:
                return int(found)
    raise SystemExit(f"No free port on {host}; name one with --port.")


def _needs_embedded() -> bool:
    """Whether DATABASE_URL or REDIS_URL points at our own pair (see `embedded.configure_urls`)."""
    own = embedded.Embedded(env.var_dir())
    return os.environ["DATABASE_URL"] == own.database_url or os.environ["REDIS_URL"] == own.redis_url


def _answers(address: str, *, within_s: float) -> bool:
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        try:
            if httpx.get(address, timeout=2, trust_env=False).status_code == 200:
                return True
        except httpx.HTTPError:
            pass
        time.sleep(0.2)
    return False
