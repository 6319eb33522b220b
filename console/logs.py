"""One line a log record: level, logger, event, then the extra fields as key=value."""

from __future__ import annotations

import logging
import re

_STANDARD = set(logging.LogRecord("", 0, "", 0, "", (), None).__dict__) | {"message", "asctime", "taskName"}
_TOKEN = re.compile(r"tau_[0-9A-Za-z]{8,}")


class LineFormatter(logging.Formatter):
    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s", "%H:%M:%S")

    def format(self, record: logging.LogRecord) -> str:
        line = super().format(record)
        extra = {key: value for key, value in record.__dict__.items() if key not in _STANDARD}
        if extra:
            line += " " + " ".join(f"{key}={value}" for key, value in extra.items())
        return _TOKEN.sub("tau_[hidden]", line)  # a token never reaches a log
