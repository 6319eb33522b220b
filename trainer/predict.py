"""Answer every row of a dataset with one bundle: ONNX Runtime in a process of its own, never torch.

    python -m trainer predict spec.json

The run folder is described in `trainer.predicting`. Rows are answered as `POST .../predict` answers them, in
batches, and written in parts; a part that has its mark is never done again. So a process that was killed goes on
behind its last finished part, and no row is lost or written twice.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import time
import traceback
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from trainer.bundle import Bundle, Tampered, WrongInput, open_bundle
from trainer.contract import (
    CHECKPOINTS_DIR,
    CONTROL_FILE,
    EVENTS_FILE,
    MANIFEST_FILE,
    RESULT_DIR,
    BadSpec,
    Exit,
)
from trainer.control import Control, die_with_parent
from trainer.events import Events
from trainer.failures import BadData, Cancelled, Preempted, exit_code, explain
from trainer.files import replace_atomically, sync_folder, write_durably
from trainer.plain import predictions
from trainer.predict_rows import Reader, Table
from trainer.predicting import (
    BUNDLE_DIR,
    MOST_PROBLEMS,
    PREDICTIONS_CSV,
    PREDICTIONS_JSONL,
    ROWS_FILE,
    PredictManifest,
    PredictSpec,
)
from trainer.protocol import Request, Results
from trainer.usage import Usage

BATCH_ROWS = 64  # more at once gains little on a CPU, and a cancel would wait longer
WRITER_ROWS = 4  # of a model that writes text, which takes a while over each: a cancel must be heard in time
KINDS = ("csv", "jsonl")
PREVIEW_ROWS = 5


@dataclass(slots=True)
class Part:
    """What one finished part holds; its mark on disk is this, as JSON."""

    rows: int = 0
    bad: int = 0
    problems: list[dict[str, Any]] = field(default_factory=list)
    sizes: dict[str, int] = field(default_factory=dict)  # bytes of its files by kind


@dataclass(slots=True)
class Written:
    """The lines of the part that is being made."""

    csv: list[str] = field(default_factory=list)
    jsonl: list[str] = field(default_factory=list)


def predict(spec_path: Path) -> int:
    """Answer all rows; whatever happens, leave an event, a fitting exit code and no half result."""
    die_with_parent()
    spec_path = spec_path.resolve()
    folder = spec_path.parent
    control = Control(folder / CONTROL_FILE)
    control.listen()
    events = Events(folder / EVENTS_FILE, usage=Usage())
    try:
        (folder / RESULT_DIR / MANIFEST_FILE).unlink(missing_ok=True)
        events.state("starting")
        Prediction(folder, _read_spec(spec_path), events, control).run()
        events.state("done")
        events.flush()
    except Cancelled:
        events.state("cancelled")
        return Exit.CANCELLED
    except Preempted:
        events.state("preempted")
        return Exit.PREEMPTED
    except Exception as error:
        reason, text = explain(BadData(str(error)) if isinstance(error, Tampered) else error)
        trace = traceback.format_exc()
        print(trace, file=sys.stderr)
        events.error(reason, text, trace)
        return exit_code(reason)
    finally:
        events.close()
    return Exit.OK


class Prediction:
    """One run over one dataset."""

    def __init__(self, folder: Path, spec: PredictSpec, events: Events, control: Control) -> None:
        self.folder, self.spec, self.events, self.control = folder, spec, events, control
        self.parts_dir = folder / CHECKPOINTS_DIR
        self.bundle: Bundle = open_bundle(folder / BUNDLE_DIR)
        # only what the rest of the text hangs on takes long: all other models answer a batch in one go
        self.batch_rows = WRITER_ROWS if hasattr(self.bundle.recipe, "go_on") else BATCH_ROWS
        self.reader = Reader(folder, spec, self.bundle)
        self.table = Table(self.bundle, spec.keep, files="file" in next(self.reader.lines(after=0), {}))

    def run(self) -> None:
        parts = self._finished_parts()
        done = sum(part.rows for part in parts)
        if done:
            self.events.log(
                f"{done:,} of {self.spec.rows:,} rows were answered before; going on behind them."
            )
        self.events.state("predicting")
        self._predict(parts, done)
        self.events.state("exporting")
        self._export(parts)

    def _finished_parts(self) -> list[Part]:
        """Those that an earlier try has marked and that are still whole, without a gap; the rest is made anew."""
        self.parts_dir.mkdir(exist_ok=True)
        parts: list[Part] = []
        while (part := self._marked(len(parts))) and part.sizes == self._sizes(len(parts)):
            parts.append(part)
        # marks behind a gap are of other rows than the parts that will fill it may hold
        stale = [
            mark for mark in self.parts_dir.glob("part-*.json") if mark >= self._path(len(parts), "json")
        ]
        if stale:
            self.events.log(
                f"{len(stale)} finished parts are damaged or lie behind a damaged one, and are made anew.",
                level="warning",
            )
            for mark in stale:
                mark.unlink()
            sync_folder(self.parts_dir)
        return parts

    def _marked(self, number: int) -> Part | None:
        """What the mark of a part says; None without a mark, or with one that cannot be read."""
        try:
            return Part(**json.loads(self._path(number, "json").read_text()))
        except (FileNotFoundError, ValueError, TypeError):
            return None

    def _sizes(self, number: int) -> dict[str, int]:
        """Bytes of the files of a part that are there."""
        paths = {kind: self._path(number, kind) for kind in KINDS}
        return {kind: path.stat().st_size for kind, path in paths.items() if path.is_file()}

    def _predict(self, parts: list[Part], done: int) -> None:
        began, before = time.monotonic(), done
        lines = self.reader.lines(after=done)
        part, written = Part(), Written()
        part_began = began
        while batch := list(islice(lines, self.batch_rows)):
            for line, said in zip(batch, self.answer(batch), strict=True):
                self._take(line, said, part, written)
            done += len(batch)
            pace = (time.monotonic() - began) / (done - before)
            self.events.progress(
                step=done, total_steps=self.spec.rows, epoch=0, eta_s=pace * (self.spec.rows - done)
            )
            self.control.poll()
            asked = self.control.preempted or self.control.cancelled
            if asked or part.rows >= self.spec.part_rows or time.monotonic() - part_began >= self.spec.part_s:
                self._finish(parts, part, written)
                part, written, part_began = Part(), Written(), time.monotonic()
            self.control.stop_here()
        if part.rows:
            self._finish(parts, part, written)
        if done != self.spec.rows:
            raise BadData(f"{ROWS_FILE} has {done} rows; the spec says {self.spec.rows}.")

    def answer(self, batch: list[dict[str, Any]]) -> list[dict[str, Any] | str]:
        """For each row what the model says, or why it says nothing."""
        values: list[Any] = []
        told: list[dict[str, Any] | str] = []
        for line in batch:
            try:
                values.append(self.reader.value(line))
                told.append({})
            except WrongInput as wrong:
                told.append(wrong.detail)
        answers = iter(self._ask(values))
        return [next(answers) if isinstance(one, dict) else one for one in told]

    def _ask(self, values: list[Any]) -> list[dict[str, Any] | str]:
        """All together; if that fails, each by itself, so that a bad row costs only its own answer."""
        if not values:
            return []
        try:
            encoded = self.bundle.encode(self.reader.joined(values))
            request = Request(rows=len(values), encoded=encoded, plain=True)
            return [*predictions(request, Results(self.bundle.probabilities(encoded)), 0, self.bundle)]
        except MemoryError:
            raise
        except WrongInput as wrong:
            if len(values) == 1:
                return [self.reader.named(wrong)]
        except Exception as error:
            if len(values) == 1:
                print(f"the model failed on a row: {error!r}", file=sys.stderr, flush=True)
                return ["The model failed on this row."]
        return [self._ask([value])[0] for value in values]

    def _take(self, line: dict[str, Any], said: dict[str, Any] | str, part: Part, written: Written) -> None:
        part.rows += 1
        if isinstance(said, str):
            part.bad += 1
            if len(part.problems) < MOST_PROBLEMS:
                part.problems.append({"row": line["row"], "reason": said})
        written.csv.append(self.table.csv_line(line, said))
        written.jsonl.append(self.table.json_line(line, said))

    def _finish(self, parts: list[Part], part: Part, written: Written) -> None:
        """Both files first, the mark last: what has a mark is whole."""
        if not part.rows:
            return
        number = len(parts)
        for kind, lines in zip(KINDS, (written.csv, written.jsonl), strict=True):
            content = "".join(lines).encode()
            write_durably(self._path(number, kind), content)
            part.sizes[kind] = len(content)
        replace_atomically(self._path(number, "json"), json.dumps(asdict(part)).encode())
        parts.append(part)
        done = sum(one.rows for one in parts)
        self.events.checkpoint(step=done, path=f"{CHECKPOINTS_DIR}/{self._path(number, 'json').name}")

    def _export(self, parts: list[Part]) -> None:
        result = self.folder / RESULT_DIR
        result.mkdir(exist_ok=True)
        sums = {
            name: self._join(result / name, kind, parts, head)
            for name, kind, head in (
                (PREDICTIONS_CSV, "csv", self.table.csv_head()),
                (PREDICTIONS_JSONL, "jsonl", ""),
            )
        }
        sync_folder(result)
        problems = [problem for part in parts for problem in part.problems]
        rows, bad = sum(part.rows for part in parts), sum(part.bad for part in parts)
        with (result / PREDICTIONS_JSONL).open(encoding="utf-8") as file:
            preview = [json.loads(line) for line in islice(file, PREVIEW_ROWS)]
        manifest = PredictManifest(
            rows=rows,
            answered=rows - bad,
            bad=bad,
            problems=tuple(problems[:MOST_PROBLEMS]),
            preview=tuple(preview),
            files=sums,
        )
        said = f"{manifest.answered:,} of {rows:,} rows were answered."
        self.events.log(said, level="warning" if bad else "info")
        replace_atomically(result / MANIFEST_FILE, manifest.to_json().encode())

    def _join(self, path: Path, kind: str, parts: list[Part], head: str) -> str:
        """All parts one behind the other; returns the SHA-256."""
        with path.open("wb") as target:
            target.write(head.encode())
            for number, part in enumerate(parts):
                self.control.stop_here()
                began = target.tell()
                with self._path(number, kind).open("rb") as source:
                    shutil.copyfileobj(source, target, 1 << 20)
                if target.tell() - began != part.sizes[kind]:  # the next try sees it and makes the part anew
                    raise OSError(f"{source.name} has changed since it was finished. Start the run again.")
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def _path(self, number: int, kind: str) -> Path:
        return self.parts_dir / f"part-{number:06}.{kind}"


def _read_spec(path: Path) -> PredictSpec:
    try:
        return PredictSpec.from_json(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise BadSpec("", f"{path.name} cannot be read: {error}") from None
