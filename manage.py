#!/usr/bin/env python
"""Run a management command; embedded servers are started for it when none are named or running."""

import os
import sys


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "console.settings")
    try:
        from django.core.management import execute_from_command_line
    except ImportError:
        raise SystemExit(
            "Tauon is not installed here. Run `make up` (or `make install`), then .venv/bin/python manage.py"
        ) from None
    from console import embedded

    servers = embedded.configure_urls()
    if servers is None or os.environ.get("TAUON_EMBEDDED") == "running" or sys.argv[1:2] == ["up"]:
        execute_from_command_line(sys.argv)  # `up` starts and stops them itself
        return
    servers.start()
    try:
        execute_from_command_line(sys.argv)
    finally:
        servers.stop()  # stops only what this process started


if __name__ == "__main__":
    main()
