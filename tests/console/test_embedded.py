"""The embedded PostgreSQL and Redis: private, ours alone, as root and as a plain user."""

from __future__ import annotations

import os
import pwd
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import psutil
import psycopg
import pytest
import redis

from console.embedded import Embedded

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def servers(tmp_path, monkeypatch):
    monkeypatch.setenv("TAUON_VAR", str(tmp_path))
    pair = Embedded(tmp_path, durable=False)
    yield pair
    pair.destroy()


def interpreter_for_others() -> str:
    """A Python of our version that another user may run: root's own may lie in a closed home."""
    wanted = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for candidate in (sys.executable, f"/usr/local/bin/{wanted}", f"/usr/bin/{wanted}"):
        real = Path(candidate).resolve()
        if real.exists() and all(parent.stat().st_mode & stat.S_IXOTH for parent in real.parents):
            return candidate
    pytest.skip(f"no {wanted} here that another user may run")


def modes_above(folder: Path) -> dict[str, int]:
    return {
        str(parent): stat.S_IMODE(parent.stat().st_mode) for parent in [*folder.parents] if parent.exists()
    }


@pytest.mark.slow
def test_both_start_answer_and_leave_nothing_behind(servers, tmp_path):
    before = modes_above(tmp_path)
    servers.start()
    with psycopg.connect(servers.database_url) as connection:
        assert connection.execute("show server_version").fetchone()[0].startswith("18")
        assert connection.execute("show listen_addresses").fetchone()[0] == ""
        postmaster = int((_postgres_home(connection) / "postmaster.pid").read_text().split()[0])
    client = redis.Redis.from_url(servers.redis_url)
    assert client.ping()
    assert client.config_get("port") == {"port": "0"}
    assert modes_above(tmp_path) == before, "no folder above ours may be loosened"
    assert stat.S_IMODE(servers.sockets.stat().st_mode) == 0o700
    again = Embedded(tmp_path, durable=False)
    again.start()  # already running: nothing new is started, and stopping `again` stops nothing
    again.stop()
    assert client.ping()
    servers.stop()
    assert not psutil.pid_exists(postmaster) or psutil.Process(postmaster).status() == psutil.STATUS_ZOMBIE
    with pytest.raises(redis.ConnectionError):
        redis.Redis.from_url(servers.redis_url, retry=None).ping()


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_a_plain_user_can_start_them_too(tmp_path):
    nobody = pwd.getpwnam("nobody")
    folder = Path("/tmp") / f"tauon-plain-{os.getpid()}"
    folder.mkdir()
    os.chown(folder, nobody.pw_uid, nobody.pw_gid)
    code = (
        "from pathlib import Path; from console.embedded import Embedded\n"
        f"pair = Embedded(Path({str(folder)!r}), durable=False); pair.start()\n"
        "import psycopg; print(psycopg.connect(pair.database_url).execute('select 41 + 1').fetchone()[0])\n"
        "pair.destroy()"
    )
    environment = {"PATH": os.environ["PATH"], "TAUON_VAR": str(folder), "HOME": str(folder)}
    # redis-py takes `timeout` from async_timeout before Python 3.11.3, which the other Python may be
    (folder / "async_timeout.py").write_text("from asyncio import timeout\n")
    packages = [path for path in sys.path if path.endswith("site-packages")]
    environment["PYTHONPATH"] = os.pathsep.join([str(folder), *packages])
    try:
        result = subprocess.run(
            [interpreter_for_others(), "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True,
            user=nobody.pw_uid, group=nobody.pw_gid, extra_groups=[],
        )  # fmt: skip
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    assert result.stdout.strip() == "42", result.stderr[-2000:]


def test_the_password_file_is_for_us_alone(tmp_path, monkeypatch):
    from console import env

    monkeypatch.setenv("TAUON_VAR", str(tmp_path))
    first = env.secret("TAUON_SOME_SECRET")
    assert first == env.secret("TAUON_SOME_SECRET")
    assert stat.S_IMODE((tmp_path / "secrets.json").stat().st_mode) == 0o600


def _postgres_home(connection: psycopg.Connection) -> Path:
    return Path(connection.execute("show data_directory").fetchone()[0])
