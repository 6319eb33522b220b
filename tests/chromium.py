"""Finds a Chromium for the browser tests, or installs one: `python -m tests.chromium`."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
MEND = "sudo apt-get update && sudo apt-get install -y chromium"


def find() -> str | None:
    """Path of a Chromium: $TAUON_CHROMIUM, one on the PATH, or Playwright's own."""
    if given := os.environ.get("TAUON_CHROMIUM"):
        return given
    for name in NAMES:
        if path := shutil.which(name):
            return path
    kept = Path(os.environ.get("PLAYWRIGHT_BROWSERS_PATH") or Path.home() / ".cache" / "ms-playwright")
    found = sorted(kept.glob("chromium-*/chrome-linux*/chrome"))
    return str(found[-1]) if found else None


def install() -> str:
    """Playwright's own download first, then apt; a clear line when neither works."""
    tries = [[sys.executable, "-m", "playwright", "install", "--with-deps", "chromium"]]
    if shutil.which("apt-get"):
        sudo = [] if os.geteuid() == 0 else ["sudo", "-n"]
        tries += [[*sudo, "apt-get", "update", "-qq"], [*sudo, "apt-get", "install", "-y", "-qq", "chromium"]]
    for command in tries:
        subprocess.run(command, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        if path := find():
            return path
    raise SystemExit(f"The browser tests need Chromium and it could not be installed. Run: {MEND}")


if __name__ == "__main__":
    print(f"Chromium: {find() or install()}")
