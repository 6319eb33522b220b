"""A wrong value in the environment stops the start with a sentence."""

from __future__ import annotations

import pytest

from console import env


@pytest.mark.parametrize(
    ("name", "value", "read", "words"),
    [
        ("TAUON_DEBUG", "maybe", lambda: env.flag("TAUON_DEBUG", default=False), "neither yes nor no"),
        ("TAUON_LEASE_S", "soon", lambda: env.integer("TAUON_LEASE_S", 15), "not a whole number"),
        ("TAUON_LEASE_S", "1", lambda: env.integer("TAUON_LEASE_S", 15, at_least=2), "below 2"),
        ("DATABASE_URL", "mysql://x", lambda: env.url("DATABASE_URL", {"postgresql"}), "must start with"),
    ],
)
def test_a_wrong_value_is_named_with_what_is_wrong(monkeypatch, name, value, read, words):
    monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit, match=name) as stopped:
        read()
    assert words in str(stopped.value)


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
