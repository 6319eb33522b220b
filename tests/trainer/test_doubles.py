"""Copies of rows leave before the split, contradictions are counted, and the run's log says both."""

from __future__ import annotations

from pathlib import Path

from tests.trainer.helpers import text_run
from tests.trainer.sentences import SENTENCES
from trainer.contract import RunSpec
from trainer.prepare import Run, prepare


class Told:
    """Keeps what a run says."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str]] = []

    def log(self, text: str, level: str = "info") -> None:
        self.lines.append((level, text))


def prepared(folder: Path, rows: list[tuple[str, str]]) -> tuple[Told, set[str], set[str]]:
    """What was said, and the texts trained on and held out."""
    spec = RunSpec.from_json(text_run(folder, rows).read_text())
    told = Told()
    made = prepare(Run(folder=folder, spec=spec, events=told, control=None))  # type: ignore[arg-type]
    texts = made.rows.inputs["text"]
    return told, set(texts[made.split.train]), set(texts[made.split.holdout])


def test_copies_leave_before_the_split_and_the_log_says_how_many(tmp_path: Path) -> None:
    rows = [(text, topic) for text, topic in SENTENCES]
    told, train, held = prepared(tmp_path, rows + rows[:25])
    assert ("info", f"25 rows are copies of others and were left out, {len(rows)} remain.") in told.lines
    assert not train & held
    assert len(train) + len(held) == len(rows)


def test_the_same_text_with_two_labels_is_counted_and_warned_of(tmp_path: Path) -> None:
    rows = [(text, topic) for text, topic in SENTENCES]
    other = next(topic for _, topic in rows if topic != rows[0][1])
    told, _, _ = prepared(tmp_path, [*rows, (rows[0][0], other)])
    warned = [text for level, text in told.lines if level == "warning"]
    assert warned == ["2 rows have the same content as another row and a different label."]


def test_clean_rows_are_not_talked_about(tmp_path: Path) -> None:
    told, _, _ = prepared(tmp_path, [(text, topic) for text, topic in SENTENCES])
    assert told.lines == []
