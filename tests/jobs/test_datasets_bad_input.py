"""Every wrong upload gets a named error at /file, and nothing of it stays."""

from __future__ import annotations

import gzip
import io
import json
import stat
import struct
import zipfile

import pytest

from jobs import archives, tables
from jobs.models import Dataset
from tenants.errors import Invalid, TooLarge
from tests.jobs.factories_datasets import CSV, images_zip, make_dataset, png, stored_files, zip_of

GOOD = images_zip()
ROWS = b"".join(b"row %d,yes\n" % n for n in range(20))


def refusal(actor, content, file_name="table.csv"):
    with pytest.raises(Invalid) as refused:
        make_dataset(actor, content=content, file_name=file_name)
    assert stored_files() == []
    assert Dataset.objects.count() == 0
    assert all(fault.pointer == "/file" for fault in refused.value.faults)
    return refused.value


def with_entry(name: str, content: bytes = b"x", **fields: int) -> bytes:
    """A good zip with one more entry of any name or kind."""
    out = io.BytesIO(GOOD)
    with zipfile.ZipFile(out, "a") as archive:
        info = zipfile.ZipInfo("placeholder")
        info.filename = name
        for field, value in fields.items():
            setattr(info, field, value)
        archive.writestr(info, content)
    return out.getvalue()


def damaged(content: bytes) -> bytes:
    """The same zip with one byte of the first image changed."""
    place = content.index(b"cat/0.png") + 30
    return content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :]


def encrypted(content: bytes) -> bytes:
    raw = bytearray(content)
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        start = 0
        while (start := raw.find(mark, start)) >= 0:
            raw[start + offset] |= 1
            start += 4
    return bytes(raw)


def twice() -> bytes:
    out = io.BytesIO(GOOD)
    with zipfile.ZipFile(out, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("cat/0.png", png())
    return out.getvalue()


@pytest.mark.parametrize(
    ("content", "file_name", "code"),
    [
        (b"", "table.csv", "empty"),
        (b" \n\n", "table.csv", "empty"),
        (b"text,label\n", "table.csv", "empty"),
        (b"1,2,3\n4,5,6\n", "table.csv", "no_header"),
        (b"text,,label\na,b,c\n", "table.csv", "no_header"),
        (b"text,text,label\na,b,c\n", "table.csv", "duplicate_column"),
        (b"amount\n1\n2\n", "table.csv", "one_column"),
        (b'{"amount": 1}\n{"amount": 2}\n', "rows.jsonl", "one_column"),
        (b"text\nsame\nsame\n", "table.csv", "one_class"),
        (b"text,label\n" + b"same,yes\n" * 20, "table.csv", "one_class"),
        (b"text,label\n" + b"\xff\xfe\xfa,\x80\n" * 20, "table.csv", "bad_encoding"),
        ("text,label\n".encode("utf-16"), "table.csv", "bad_encoding"),
        (b"a,b\n" + b"\0\1\2" * 5000, "table.csv", "unknown_format"),
        (gzip.compress(CSV), "table.csv", "unknown_format"),
        (b"PAR1" + b"x" * 100, "table.csv", "unknown_format"),
        (png(), "cat.png", "unknown_format"),
        (b'[{"text": "a"}]', "rows.json", "json_array"),
        (b'{\n  "text": "a"\n}\n', "rows.json", "no_good_row"),
        (b"text,label\n" + ROWS + b"one,two,three\n" * 10, "table.csv", "too_many_bad_rows"),
        (b"not a zip", "cats.zip", "corrupt_zip"),
        (GOOD[: len(GOOD) // 2], "cats.zip", "corrupt_zip"),
        (damaged(GOOD), "cats.zip", "corrupt_zip"),
        (zip_of({"cat/a.txt": b"x"}), "cats.zip", "empty"),
        (zip_of({"cat/inner.zip": GOOD}), "cats.zip", "empty"),
        (zip_of({"cat/1.png": png(), "cat/2.png": png()}), "cats.zip", "one_class"),
        (zip_of({"a.png": png(), "b.png": png()}), "cats.zip", "no_good_row"),
        (zip_of({"train/cat/1.png": png(), "test/cat/2.png": png()}), "cats.zip", "no_good_row"),
        (zip_of({"[Content_Types].xml": b"x", "xl/media/1.png": png()}), "book.xlsx", "unknown_format"),
        (with_entry("../escaped.png"), "cats.zip", "path_escapes"),
        (with_entry("cat/../../escaped.png"), "cats.zip", "path_escapes"),
        (with_entry("/etc/escaped.png"), "cats.zip", "path_escapes"),
        (with_entry("C:/escaped.png"), "cats.zip", "path_escapes"),
        (with_entry("cat\\..\\escaped.png"), "cats.zip", "path_escapes"),
        (with_entry("cat//escaped.png"), "cats.zip", "path_escapes"),
        (with_entry("cat/a\nb.png"), "cats.zip", "path_escapes"),
        (with_entry("cat/link.png", b"/etc/passwd", external_attr=stat.S_IFLNK << 16), "cats.zip", "symlink"),
        (with_entry("cat/pipe.png", external_attr=(stat.S_IFIFO | 0o777) << 16), "cats.zip", "symlink"),
        (encrypted(GOOD), "cats.zip", "encrypted_zip"),
    ],
)  # fmt: skip
def test_a_wrong_upload_is_refused_by_name(as_ana, content, file_name, code):
    assert refusal(as_ana, content, file_name).faults[0].code == code


def test_a_path_twice_in_a_zip_is_refused(as_ana):
    assert refusal(as_ana, twice(), "cats.zip").faults[0].code == "duplicate_name"


def test_a_zip_that_unpacks_to_more_than_allowed_is_refused_unread(as_ana, settings):
    settings.MAX_UNPACKED_BYTES = 2 * 1024 * 1024
    bomb = zip_of({"cat/1.png": bytes(2 * 1024 * 1024), "dog/1.png": bytes(1024)})
    assert refusal(as_ana, bomb, "cats.zip").faults[0].code == "zip_bomb"


def test_a_zip_that_grows_a_thousandfold_is_refused_unread(as_ana):
    bomb = zip_of({f"{name}/1.png": bytes(10 * 1024 * 1024) for name in ("cat", "dog")})
    assert len(bomb) < 50_000
    assert refusal(as_ana, bomb, "cats.zip").faults[0].code == "zip_bomb"


def test_a_zip_that_lies_about_its_sizes_is_corrupt(as_ana):
    raw = bytearray(zip_of({"cat/1.png": bytes(9_000_000), "dog/1.png": png()}))
    for mark, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        raw[raw.find(mark) + offset :][:4] = raw[raw.find(mark) + offset :][:4]
        struct.pack_into("<I", raw, raw.find(mark) + offset, 500)
    assert refusal(as_ana, bytes(raw), "cats.zip").faults[0].code == "corrupt_zip"


def test_a_zip_of_too_many_files_is_refused(as_ana, monkeypatch):
    monkeypatch.setattr(archives, "MAX_ENTRIES", 5)
    assert refusal(as_ana, GOOD, "cats.zip").faults[0].code == "too_many_entries"


def test_a_list_of_contents_too_long_to_read_is_refused_before_it_is_read(as_ana, monkeypatch):
    monkeypatch.setattr(archives, "MAX_DIRECTORY_BYTES", 100)
    assert refusal(as_ana, GOOD, "cats.zip").faults[0].code == "too_many_entries"


def test_an_upload_over_the_cap_is_too_large(as_ana, settings):
    settings.MAX_UPLOAD_BYTES = 100
    with pytest.raises(TooLarge) as refused:
        make_dataset(as_ana)
    assert [(fault.pointer, fault.code) for fault in refused.value.faults] == [("/file", "too_large")]
    assert stored_files() == []


def test_too_many_bad_rows_are_named_with_number_and_reason(as_ana):
    error = refusal(as_ana, b"text,label\n" + ROWS + b"one,two,three\n" * 10)
    assert "10 of 30 rows" in error.detail
    assert "Row 21: line 22: 3 cells, but the header has 2." in error.detail
    assert error.faults[1].code == "bad_row"


def problems(actor, content, file_name="table.csv"):
    version = make_dataset(actor, content=content, file_name=file_name)
    return version, version.profile["problems"]


def test_bad_rows_of_a_csv_are_left_out_and_named(as_ana):
    bad = b'x,y,z\n,\n"open" quote,no\nnul \0 inside,no\n'
    version, found = problems(as_ana, b"text,label\n" + ROWS + bad)
    assert version.row_count == 20
    assert version.profile["problem_count"] == 4
    assert [one["row"] for one in found] == [21, 22, 23, 24]
    reasons = " ".join(one["reason"] for one in found)
    for words in ("3 cells", "every cell is empty", "after a closing quote", "NUL"):
        assert words in reasons


def test_a_cell_larger_than_a_mebibyte_is_a_bad_row_and_the_next_row_is_read(as_ana):
    version, found = problems(as_ana, b"text,label\n" + ROWS + b"x" * (2 * 1024**2) + b",no\nlast,no\n")
    assert version.row_count == 21
    assert [one["row"] for one in found] == [21]
    assert "1 MiB" in found[0]["reason"]
    assert version.profile["columns"][1]["top"] == [["yes", 20], ["no", 1]]


def test_a_line_that_never_ends_is_a_bad_row_and_is_never_held_whole(as_ana, monkeypatch):
    monkeypatch.setattr(tables, "MAX_LINE", 1000)
    version, found = problems(as_ana, b"text,label\n" + ROWS + b"x" * 5000 + b"\nlast,no\n")
    assert version.row_count == 21
    assert "longer than 1000" in found[0]["reason"]
    lines = b"".join(b'{"text": "row %d", "label": "yes"}\n' % n for n in range(20))
    long = b'{"text": "' + b"x" * 5000 + b'"}\n{"text": "last", "label": "no"}\n'
    from jobs.services import datasets
    from tests.jobs.factories_datasets import upload

    version = datasets.create_dataset(as_ana, name="Lines", file=upload(lines + long, "rows.jsonl"))
    assert (version.row_count, version.profile["problems"][0]["row"]) == (21, 21)


def test_a_quote_that_is_never_closed_is_named_where_it_opens(as_ana):
    _version, found = problems(as_ana, b"text,label\n" + ROWS + b'"never closed,no\n')
    assert found == [{"row": 21, "reason": "line 22: a quote is opened and never closed"}]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{broken", "not JSON"),
        ("[1, 2]", "a row is a JSON object"),
        ("17", "a row is a JSON object"),
        ("{}", "empty"),
        ('{"text": ["a"], "label": "x"}', "plain values"),
        ('{"text": {"a": 1}, "label": "x"}', "plain values"),
        ('{"text": NaN, "label": "x"}', "no number of JSON"),
        ('{"text": 1e999, "label": "x"}', "too large a number"),
        ('{"text": "a", "text": "b"}', "twice"),
        ('{"": "a", "label": "b"}', "column name"),
        ('{"text": "\\u0000", "label": "b"}', "NUL"),
        ('{"text": "\\ud800", "label": "b"}', "half a character"),
        ('{"\\ud800": "a", "label": "b"}', "column name"),
        ("[" * 100_000, "nested too deep"),
        ('{"text": ' + "9" * 5000 + "}", "not JSON"),
    ],
)
def test_a_bad_line_of_json_is_left_out_and_named(as_ana, line, words):
    rows = "".join(json.dumps({"text": f"row {n}", "label": "yes"}) + "\n" for n in range(20))
    version, found = problems(as_ana, rows + "\n" + line + "\n", "rows.ndjson")
    assert version.row_count == 20
    assert found[0]["row"] == 21
    assert "line 22" in found[0]["reason"]
    assert words in found[0]["reason"]


def test_only_the_first_hundred_bad_rows_are_listed_but_all_are_counted(as_ana):
    version, found = problems(as_ana, b"text,label\n" + ROWS * 100 + b"only one\n" * 150)
    assert (len(found), version.profile["problem_count"]) == (100, 150)


def test_corrupt_images_are_left_out_and_named_by_path(as_ana):
    good = {f"{name}/{n}.png": png((n, 2, 3)) for name in ("cat", "dog") for n in range(10)}
    version, found = problems(
        as_ana,
        zip_of({**good, "cat/cut.png": png()[:50], "dog/text.jpg": b"hello", "lost.png": png()}),
        "cats.zip",
    )
    assert version.row_count == 20
    assert [one["reason"].split(":")[0] for one in found] == ["cat/cut.png", "dog/text.jpg", "lost.png"]
    assert version.profile["classes"] == {"cat": 10, "dog": 10}


def test_an_image_of_too_many_pixels_is_not_decoded(as_ana, monkeypatch):
    monkeypatch.setattr(archives, "MAX_PIXELS", 10_000)
    good = {f"{name}/{n}.png": png((n, 2, 3)) for name in ("cat", "dog") for n in range(10)}
    version, found = problems(as_ana, zip_of({**good, "cat/huge.png": png(side=200)}), "cats.zip")
    assert version.row_count == 20
    assert "pixels" in found[0]["reason"]
