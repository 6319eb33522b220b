"""Results of benches: one JSON file each, and bench/RESULTS.md made from all of them: python -m bench.report."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
TABLE = Path(__file__).parent / "RESULTS.md"


def machine() -> dict[str, Any]:
    """What the figures depend on. No host name: it means nothing to a reader."""
    processor = platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        processor = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": processor,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "load_1_min": round(os.getloadavg()[0], 1),
    }


def write_result(
    name: str, metrics: Mapping[str, float], notes: Sequence[str], where: Mapping[str, Any]
) -> Path:
    """Print a table and write results/NAME.json. Metrics and notes of parts not run this time stay."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    before = json.loads(path.read_text()) if path.exists() else {"metrics": {}, "notes": []}
    date = datetime.now(UTC).isoformat(timespec="seconds")
    result = {
        "name": name,
        "date": date,
        "machine": dict(where),
        "metrics": {**before["metrics"], **metrics},
        "notes": [*(one for one in before["notes"] if not _outdated(one, metrics, notes)), *notes],
    }
    path.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n")
    print(section(result))
    return path


def _outdated(note: str, metrics: Mapping[str, float], notes: Sequence[str]) -> bool:
    """Said anew, or that something is not measured which now is."""
    missing = "not measured" in note and any(key in metrics for key in _about(note).split(", "))
    return missing or _about(note) in map(_about, notes)


def _about(note: str) -> str:
    """What a note is about stands before its colon."""
    return note.split(":", 1)[0]


def section(result: Mapping[str, Any]) -> str:
    """One bench as Markdown."""
    where = result["machine"]
    described = (
        ", ".join(f"{key} {value}" for key, value in where.items()) if isinstance(where, dict) else where
    )
    lines = [
        f"## {result['name']}",
        "",
        f"{result['date']} · {described}",
        "",
        "| metric | value |",
        "|---|---|",
    ]
    lines += [f"| {key} | {value} |" for key, value in result["metrics"].items()]
    return "\n".join([*lines, "", *(f"- {note}" for note in result["notes"]), ""])


def main() -> None:
    found = [json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))]
    head = "# Measured\n\nMade by `python -m bench.report` from bench/results/*.json; do not edit.\n"
    TABLE.write_text("\n".join([head, *map(section, found)]))
    print(f"{TABLE.name}: {len(found)} benches")


if __name__ == "__main__":
    main()
