"""Typed readers of the environment. A wrong value stops the start with a sentence, not a traceback later.

A value comes from the environment first, then from `var/secrets.json`, which is made on first use with
random secrets and mode 0600. There is no default password anywhere.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import psycopg
from psycopg.conninfo import conninfo_to_dict

BASE_DIR = Path(__file__).resolve().parent.parent
NAME_ANOTHER = "Name a folder that is yours: TAUON_VAR=/some/folder make up"


class BadEnvironment(SystemExit):
    """An environment variable holds something we cannot use."""

    def __init__(self, name: str, why: str) -> None:
        super().__init__(f"{name}: {why}")


def var_dir() -> Path:
    """The folder for everything that is made at run time; `TAUON_VAR` moves it."""
    folder = Path(os.environ.get("TAUON_VAR") or BASE_DIR / "var").resolve()
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)  # secrets and data: for nobody else
    except OSError as error:
        raise BadEnvironment(
            "TAUON_VAR", f"{folder} cannot be made: {error.strerror}. {NAME_ANOTHER}"
        ) from None
    if not os.access(folder, os.W_OK | os.X_OK):
        raise BadEnvironment("TAUON_VAR", f"{folder} is not writable for you. {NAME_ANOTHER}")
    return folder


def text(name: str, default: str | None = None) -> str:
    value = os.environ.get(name, default)
    if value is None:
        raise BadEnvironment(name, "is not set and has no default; set it and start again")
    return value


def flag(name: str, *, default: bool) -> bool:
    value = os.environ.get(name)
    if value is None or value == "":
        return default
    if value.lower() in {"1", "true", "yes", "on"}:
        return True
    if value.lower() in {"0", "false", "no", "off"}:
        return False
    raise BadEnvironment(name, f"{value!r} is neither yes nor no; write 1 or 0")


def integer(name: str, default: int, *, at_least: int = 0) -> int:
    value = os.environ.get(name)
    if value is None or value == "":
        return default
    try:
        number = int(value)
    except ValueError:
        raise BadEnvironment(name, f"{value!r} is not a whole number") from None
    if number < at_least:
        raise BadEnvironment(name, f"{number} is below {at_least}")
    return number


def words(name: str, default: list[str]) -> list[str]:
    """A comma-separated list."""
    value = os.environ.get(name)
    return default if not value else [word.strip() for word in value.split(",") if word.strip()]


def options(name: str) -> dict[str, Any]:
    """A JSON object; nothing is an empty one."""
    try:
        found = json.loads(os.environ.get(name) or "{}")
    except ValueError as error:
        raise BadEnvironment(name, f"is not JSON: {error}") from None
    if not isinstance(found, dict):
        raise BadEnvironment(name, 'must be a JSON object, such as {"bucket_name": "tauon"}')
    return found


def url(name: str, schemes: set[str]) -> str | None:
    value = os.environ.get(name)
    if not value:
        return None
    if urlparse(value).scheme not in schemes:
        raise BadEnvironment(name, f"must start with one of {', '.join(sorted(schemes))}://")
    return value


def database(name: str) -> dict[str, Any]:
    """What Django wants to know of a PostgreSQL address; libpq reads it, so `?sslmode=require` and the like work."""
    address = url(name, {"postgresql", "postgres"}) or ""
    try:
        parts = conninfo_to_dict(address)
    except psycopg.ProgrammingError as error:
        why = " ".join(str(error).split())
        raise BadEnvironment(
            name,
            f"{why}. After the ? stand options of libpq, such as ?sslmode=require&application_name=tauon",
        ) from None
    found = {"NAME": "dbname", "USER": "user", "PASSWORD": "password", "HOST": "host", "PORT": "port"}
    known = {ours: str(parts.pop(theirs, "") or "") for ours, theirs in found.items()}
    if not known["NAME"] and "service" not in parts:
        raise BadEnvironment(name, "names no database; write postgresql://user@host/name")
    return {**known, "OPTIONS": {"connect_timeout": 10, **parts}}


def secret(name: str, *, size_bytes: int = 32) -> str:
    """A secret from the environment, from the file named by NAME_FILE, or made once and kept in var/secrets.json."""
    if value := os.environ.get(name):
        return value
    if file := os.environ.get(f"{name}_FILE"):
        try:
            return Path(file).read_text().strip()
        except OSError as error:
            raise BadEnvironment(f"{name}_FILE", f"cannot be read: {error}") from None
    return _kept_secret(name, size_bytes)


def _kept_secret(name: str, size_bytes: int) -> str:
    path = var_dir() / "secrets.json"
    with (var_dir() / "secrets.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two processes may meet at the very first start
        kept = json.loads(path.read_text()) if path.exists() else {}
        if name not in kept:
            kept[name] = secrets.token_urlsafe(size_bytes)
            # 0600 from the first byte, then renamed: no reader sees half a file or a wide mode
            aside = path.with_suffix(".tmp")
            descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "w") as file:
                json.dump(kept, file, indent=1)
            aside.replace(path)
    return str(kept[name])
