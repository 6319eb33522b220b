"""Batch prediction as a process: every row once, in order, whatever happens to the process."""

from __future__ import annotations

import csv
import io
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.bundles import write_films_bundle, write_weather_bundle, write_writer_bundle
from tests.trainer.helpers import environment, start_engine, wait_for
from trainer.contract import Event, EventKind, Exit, PredictManifest, PredictSpec, read_events
from trainer.control import Control
from trainer.events import Events
from trainer.failures import Preempted
from trainer.predict import Prediction

pytestmark = pytest.mark.slow

MANY = 20_000


def weather(number: int) -> dict[str, Any]:
    """Row `number` as the web lays it out: degrees from -10 to 29, snow now and then."""
    if number % 1000 == 7:
        return {"row": number, "cells": {"t": "mild", "sky": "sun", "id": f"i{number}"}}
    if number % 1000 == 9:
        return {"row": number, "bad": f"line {number + 1}: 2 cells, but the header has 3"}
    sky = "snow" if number % 11 == 0 else "sun"
    return {"row": number, "cells": {"t": str(number % 40 - 10), "sky": sky, "id": f"i{number}"}}


def lay_out(folder: Path, rows: int, **changes: Any) -> Path:
    write_weather_bundle(folder / "bundle")
    (folder / "data").mkdir()
    lines = "".join(json.dumps(weather(number)) + "\n" for number in range(1, rows + 1))
    (folder / "data" / "rows.jsonl").write_text(lines)
    columns = {"degrees": "t", "sky": "sky"}
    spec = PredictSpec(run_id="att_1", rows=rows, columns=columns, keep=("id",), **changes)
    path = folder / "spec.json"
    path.write_text(spec.to_json())
    return path


def start(spec: Path) -> subprocess.Popen[bytes]:
    return start_engine(spec, "predict")


def events(spec: Path, kind: EventKind) -> list[Event]:
    return [one for one in read_events(spec.parent / "events.jsonl")[0] if one.kind is kind]


def outputs(spec: Path) -> tuple[bytes, bytes, PredictManifest]:
    result = spec.parent / "result"
    manifest = PredictManifest.from_json((result / "manifest.json").read_text())
    return (
        (result / "predictions.csv").read_bytes(),
        (result / "predictions.jsonl").read_bytes(),
        manifest,
    )


def marks(spec: Path) -> int:
    return len(list((spec.parent / "checkpoints").glob("part-*.json")))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    spec = lay_out(tmp_path_factory.mktemp("whole"), MANY, part_rows=1000)
    assert start(spec).wait(timeout=120) == Exit.OK
    return spec


def test_each_row_has_one_line_in_both_files_in_order(undisturbed: Path) -> None:
    table, lines, manifest = outputs(undisturbed)
    rows = list(csv.DictReader(table.decode().splitlines()))
    assert [int(row["row"]) for row in rows] == list(range(1, MANY + 1))
    assert [json.loads(line)["row"] for line in lines.splitlines()] == list(range(1, MANY + 1))
    assert list(rows[0]) == [
        "row",
        "id",
        "label",
        "probability",
        "probability_cold",
        "probability_warm",
        "error",
    ]
    assert (rows[0]["id"], rows[0]["label"], rows[0]["error"]) == ("i1", "cold", "")
    assert rows[29]["label"] == "warm", "30 % 40 - 10 is 20 degrees"
    assert rows[32]["label"] == "cold", "it is warm enough, but it snows"
    assert manifest.rows == MANY
    assert manifest.answered + manifest.bad == MANY


def test_bad_rows_are_named_with_the_reason_and_not_lost(undisturbed: Path) -> None:
    table, lines, manifest = outputs(undisturbed)
    rows = list(csv.DictReader(table.decode().splitlines()))
    assert manifest.bad == 2 * MANY // 1000
    assert rows[6]["error"] == "Column 't' holds 'mild', which is no number."
    assert rows[8]["error"] == "line 10: 2 cells, but the header has 3"
    assert rows[6]["label"] == "" and rows[6]["id"] == "i7"
    assert json.loads(lines.splitlines()[6]) == {
        "row": 7, "input": {"id": "i7"}, "error": "Column 't' holds 'mild', which is no number.",
    }  # fmt: skip
    assert manifest.problems[0] == {"row": 7, "reason": "Column 't' holds 'mild', which is no number."}


def test_it_tells_how_far_it_is_and_when_it_will_be_done(undisturbed: Path) -> None:
    told = [one.data for one in events(undisturbed, EventKind.PROGRESS)]
    assert [one["step"] for one in told] == sorted(one["step"] for one in told)
    assert told[-1]["step"] == told[-1]["total_steps"] == MANY
    assert told[-1]["eta_s"] == 0
    assert [one.data["phase"] for one in events(undisturbed, EventKind.STATE)] == [
        "starting", "predicting", "exporting", "done",
    ]  # fmt: skip


def test_a_killed_process_goes_on_without_a_row_lost_or_doubled(undisturbed: Path, tmp_path: Path) -> None:
    spec = lay_out(tmp_path, MANY, part_rows=200)
    process = start(spec)
    wait_for(lambda: marks(spec) >= 3, what="three parts")
    process.kill()
    process.wait()
    assert not (tmp_path / "result" / "manifest.json").exists(), "it was killed in the middle"
    # a part whose mark is missing was being written: whatever lies there is not trusted
    (tmp_path / "checkpoints" / f"part-{marks(spec):06}.csv").write_text("half a li")
    assert start(spec).wait(timeout=120) == Exit.OK
    assert outputs(spec)[:2] == outputs(undisturbed)[:2]
    assert outputs(spec)[2] == outputs(undisturbed)[2]
    (said,) = [one for one in events(spec, EventKind.LOG) if "answered before" in one.data["text"]]
    assert int(said.data["text"].split()[0].replace(",", "")) >= 600


def test_a_process_that_is_asked_to_leave_saves_what_it_has(undisturbed: Path, tmp_path: Path) -> None:
    spec = lay_out(tmp_path, MANY, part_rows=MANY, part_s=600)
    process = start(spec)
    wait_for(lambda: events(spec, EventKind.PROGRESS), what="the first rows")
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) == Exit.PREEMPTED
    assert marks(spec) == 1
    assert start(spec).wait(timeout=120) == Exit.OK
    assert outputs(spec)[:2] == outputs(undisturbed)[:2]


def test_a_process_that_is_cancelled_ends_soon_and_leaves_no_result(tmp_path: Path) -> None:
    spec = lay_out(tmp_path, MANY, part_rows=200)
    process = start(spec)
    wait_for(lambda: marks(spec), what="the first part")
    (tmp_path / "control.json").write_text('{"cancel": true}')
    assert process.wait(timeout=10) == Exit.CANCELLED
    assert not (tmp_path / "result" / "manifest.json").exists()


def test_a_part_that_lost_bytes_and_all_behind_it_are_made_anew(undisturbed: Path, tmp_path: Path) -> None:
    spec = lay_out(tmp_path, MANY, part_rows=MANY // 8)
    assert start(spec).wait(timeout=120) == Exit.OK
    made = marks(spec)
    damaged = tmp_path / "checkpoints" / "part-000002.csv"
    damaged.write_bytes(damaged.read_bytes()[:-500])
    assert start(spec).wait(timeout=120) == Exit.OK
    assert outputs(spec)[:2] == outputs(undisturbed)[:2]
    said = [one.data["text"] for one in events(spec, EventKind.LOG)]
    assert f"{made - 2} finished parts are damaged or lie behind a damaged one, and are made anew." in said


def test_marks_behind_a_damaged_part_never_count_again(tmp_path: Path) -> None:
    spec = lay_out(tmp_path, 300, part_rows=64, part_s=600)
    assert start(spec).wait(timeout=60) == Exit.OK
    whole = outputs(spec)[:2]
    (tmp_path / "checkpoints" / "part-000001.jsonl").unlink()
    # this try leaves after one batch, so a mark of the first try behind it would be taken for the next part
    assert prediction(spec, asked_to_leave=True) == Exit.PREEMPTED
    assert marks(spec) == 2
    assert start(spec).wait(timeout=60) == Exit.OK
    assert outputs(spec)[:2] == whole


def prediction(spec: Path, *, asked_to_leave: bool) -> int:
    """In this process; asked to leave means before the first batch, so that it leaves at the first look."""
    control = Control(spec.parent / "control.json")
    control.preempted = asked_to_leave
    told = Events(spec.parent / "events.jsonl")
    try:
        Prediction(spec.parent, PredictSpec.from_json(spec.read_text()), told, control).run()
    except Preempted:
        return Exit.PREEMPTED
    finally:
        told.close()
    return Exit.OK


def test_a_model_that_writes_text_hears_a_stop_after_a_few_rows(tmp_path: Path) -> None:
    write_writer_bundle(tmp_path / "bundle")
    (tmp_path / "data").mkdir()
    lines = "".join(json.dumps({"row": n, "cells": {"t": "ba"}}) + "\n" for n in range(1, 31))
    (tmp_path / "data" / "rows.jsonl").write_text(lines)
    spec = tmp_path / "spec.json"
    spec.write_text(PredictSpec(run_id="att_1", rows=30, columns={"text": "t"}).to_json())
    assert prediction(spec, asked_to_leave=True) == Exit.PREEMPTED
    assert 1 <= json.loads((tmp_path / "checkpoints" / "part-000000.json").read_text())["rows"] <= 4


def test_cells_that_were_kept_break_no_row_and_are_no_formulas(tmp_path: Path) -> None:
    kept = [
        "=1+1",
        "+a",
        "-b",
        "@c",
        "\tt",
        "\rr",
        "\nn",
        "a\rb",
        "a\r\nb",
        "＝1",
        "-3.5e2",
        "+7",
        "-",
        'a"b',
    ]
    spec = lay_out(tmp_path, len(kept))
    lines = [{"row": n, "cells": {"t": "1", "sky": "sun", "id": one}} for n, one in enumerate(kept, start=1)]
    (tmp_path / "data" / "rows.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert start(spec).wait(timeout=60) == Exit.OK
    table, exact, _manifest = outputs(spec)
    assert [json.loads(line)["input"]["id"] for line in exact.splitlines()] == kept
    rows = list(csv.DictReader(io.StringIO(table.decode(), newline="")))
    assert [row["id"] for row in rows] == [
        "'=1+1", "'+a", "'-b", "'@c", "'\tt", "'\rr", "'\nn", "a\rb", "a\r\nb", "'＝1", "-3.5e2", "+7", "'-", 'a"b',
    ]  # fmt: skip
    assert b'"a\rb"' in table, "readers that end a line at CR alone need the quotes"


def answers_of(tmp_path: Path, columns: dict[str, str], rows: list[dict[str, str]]) -> list[dict[str, Any]]:
    """Run over these cells with the bundle that lies there already; the lines of the JSON Lines file."""
    (tmp_path / "data").mkdir()
    lines = "".join(json.dumps({"row": n, "cells": cells}) + "\n" for n, cells in enumerate(rows, start=1))
    (tmp_path / "data" / "rows.jsonl").write_text(lines)
    spec = tmp_path / "spec.json"
    spec.write_text(PredictSpec(run_id="att_1", rows=len(rows), columns=columns).to_json())
    assert start(spec).wait(timeout=60) == Exit.OK
    return [json.loads(line) for line in outputs(spec)[1].splitlines()]


def test_a_recommender_gives_each_user_a_ranked_list(tmp_path: Path) -> None:
    write_films_bundle(tmp_path / "bundle")
    known, unknown = answers_of(tmp_path, {"user": "who"}, [{"who": "ana"}, {"who": "somebody"}])
    assert known["items"][:2] == ["film01", "film02"], "what Ana has had is not offered again"
    assert unknown["items"][:2] == ["film00", "film01"]
    assert known["scores"] == sorted(known["scores"], reverse=True)
    table = (tmp_path / "result" / "predictions.csv").read_text().splitlines()
    assert table[0] == "row,items,scores,error"
    assert json.loads(next(csv.reader([table[1]]))[1]) == known["items"], "a list stands in a cell as JSON"


def test_a_language_model_goes_on_with_each_text(tmp_path: Path) -> None:
    write_writer_bundle(tmp_path / "bundle")
    first, empty = answers_of(tmp_path, {"text": "t"}, [{"t": "ba"}, {"t": " "}])
    assert first["text"] == "a" * 80
    assert empty == {"row": 2, "error": "Column 't' is empty."}


def test_a_changed_model_is_not_asked(tmp_path: Path) -> None:
    spec = lay_out(tmp_path, 3)
    with (tmp_path / "bundle" / "model.onnx").open("ab") as file:
        file.write(b"x")
    assert start(spec).wait(timeout=60) == Exit.BAD_DATA
    assert "does not match its checksum" in events(spec, EventKind.ERROR)[0].data["text"]


def test_it_never_loads_torch_or_django(tmp_path: Path) -> None:
    spec = lay_out(tmp_path, 3)
    code = (
        "import sys\nfrom trainer.__main__ import main\n"
        f"assert main(['predict', {str(spec)!r}]) == 0\n"
        "assert not {'torch', 'django'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], env=environment(), check=True, timeout=60)
    assert outputs(spec)[2].rows == 3
