"""A wrong value in the environment stops the start with a sentence."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from django.conf import settings
from django.db import ConnectionHandler

from console import env


@pytest.mark.parametrize(
    ("name", "value", "read", "words"),
    [
        ("TAUON_DEBUG", "maybe", lambda: env.flag("TAUON_DEBUG", default=False), "neither yes nor no"),
        ("TAUON_LEASE_S", "soon", lambda: env.integer("TAUON_LEASE_S", 15), "not a whole number"),
        ("TAUON_LEASE_S", "1", lambda: env.integer("TAUON_LEASE_S", 15, at_least=2), "below 2"),
        ("TAUON_STORAGE_OPTIONS", "{bucket", lambda: env.options("TAUON_STORAGE_OPTIONS"), "is not JSON"),
        ("TAUON_STORAGE_OPTIONS", "[1]", lambda: env.options("TAUON_STORAGE_OPTIONS"), "bucket_name"),
        ("DATABASE_URL", "mysql://x", lambda: env.url("DATABASE_URL", {"postgresql"}), "must start with"),
    ],
)
def test_a_wrong_value_is_named_with_what_is_wrong(monkeypatch, name, value, read, words):
    monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit, match=name) as stopped:
        read()
    assert words in str(stopped.value)


def test_a_storage_gets_its_options_from_the_environment(tmp_path):
    code = (
        "import django; django.setup(); from django.core.files.storage import default_storage as s; "
        "print(s.location)"
    )
    told = {
        "DJANGO_SETTINGS_MODULE": "console.settings",
        "TAUON_VAR": str(tmp_path / "var"),
        "TAUON_STORAGE": "django.core.files.storage.FileSystemStorage",
        "TAUON_STORAGE_OPTIONS": json.dumps({"location": str(tmp_path / "elsewhere")}),
    }
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **told}, cwd=settings.BASE_DIR,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout.strip() == str(tmp_path / "elsewhere"), done.stderr


def test_a_secret_may_come_from_a_file(monkeypatch, tmp_path):
    (tmp_path / "key").write_text("from-a-file\n")
    monkeypatch.setenv("TAUON_MASTER_KEY_FILE", str(tmp_path / "key"))
    monkeypatch.delenv("TAUON_MASTER_KEY", raising=False)
    assert env.secret("TAUON_MASTER_KEY") == "from-a-file"


def test_a_missing_secret_file_stops_the_start(monkeypatch):
    monkeypatch.setenv("TAUON_MASTER_KEY_FILE", "/nowhere/key")
    monkeypatch.delenv("TAUON_MASTER_KEY", raising=False)
    with pytest.raises(SystemExit, match="cannot be read"):
        env.secret("TAUON_MASTER_KEY")


@pytest.mark.parametrize(
    ("address", "expected", "options"),
    [
        (
            "postgresql://ana:p%40ss@db.example.org:5433/tauon?sslmode=verify-full&sslrootcert=/etc/ca.pem",
            ("tauon", "ana", "p@ss", "db.example.org", "5433"),
            {"connect_timeout": 10, "sslmode": "verify-full", "sslrootcert": "/etc/ca.pem"},
        ),
        (
            "postgres://ana@%2Fsome%2FFolder/tauon?connect_timeout=3&application_name=lab",
            ("tauon", "ana", "", "/some/Folder", ""),
            {"connect_timeout": "3", "application_name": "lab"},
        ),
        ("postgresql:///tauon?host=/tmp&user=ana", ("tauon", "ana", "", "/tmp", ""), {"connect_timeout": 10}),
    ],
)
def test_what_stands_in_the_address_of_the_database_reaches_it(monkeypatch, address, expected, options):
    monkeypatch.setenv("DATABASE_URL", address)
    found = env.database("DATABASE_URL")
    assert tuple(found[name] for name in ("NAME", "USER", "PASSWORD", "HOST", "PORT")) == expected
    assert found["OPTIONS"] == options


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("postgresql://ana@db/tauon?sslmod=require", 'invalid URI query parameter: "sslmod"'),
        ("postgresql://ana@db:many/tauon?sslmode", "missing key/value separator"),
        ("postgresql://ana:secret@db", "names no database"),
    ],
)
def test_an_address_of_a_database_that_cannot_be_read_stops_the_start(monkeypatch, address, words):
    monkeypatch.setenv("DATABASE_URL", address)
    with pytest.raises(SystemExit, match="DATABASE_URL: ") as stopped:
        env.database("DATABASE_URL")
    assert words in str(stopped.value) and "secret" not in str(stopped.value)


@pytest.mark.django_db
def test_options_of_the_address_are_those_of_the_connection(monkeypatch):
    address = f"{os.environ['DATABASE_URL']}?application_name=ask-me&options=-c%20statement_timeout%3D4321"
    monkeypatch.setenv("DATABASE_URL", address)
    wrapper = ConnectionHandler(
        {"default": {**settings.DATABASES["default"], **env.database("DATABASE_URL")}}
    )
    with wrapper["default"].cursor() as cursor:
        cursor.execute("select current_setting('application_name'), current_setting('statement_timeout')")
        assert cursor.fetchone() == ("ask-me", "4321ms")
    wrapper.close_all()
