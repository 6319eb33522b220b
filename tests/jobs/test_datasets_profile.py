"""What a job may know of a dataset without reading it."""

from __future__ import annotations

import json

import pytest

from jobs.profiles import TableProfile
from tests.jobs.factories_datasets import CSV, images_zip, make_dataset, png, zip_of


def columns_of(version):
    return {column["name"]: column for column in version.profile["columns"]}


def test_columns_know_their_type_missing_distinct_top_and_extremes(as_ana):
    rows = "a,b,c,d\n" + "".join(f"{n / 2},w{n % 3},{'true' if n % 2 else 'FALSE'},\n" for n in range(10))
    columns = columns_of(make_dataset(as_ana, content=rows + "?,n/a,NULL,9\n"))
    assert [columns[name]["type"] for name in "abcd"] == ["number", "text", "boolean", "number"]
    assert [columns[name]["missing"] for name in "abcd"] == [1, 1, 1, 10]
    assert (columns["a"]["min"], columns["a"]["max"]) == (0.0, 4.5)
    assert columns["b"]["top"] == [["w0", 4], ["w1", 3], ["w2", 3]]
    assert columns["b"]["distinct"] == 3
    assert "min" not in columns["b"]


def test_columns_keep_the_order_of_the_file(as_ana):
    version = make_dataset(as_ana, content="zeta,alpha,mid\n" + "".join(f"{n},{n},{n}\n" for n in range(3)))
    assert [column["name"] for column in version.reload().profile["columns"]] == ["zeta", "alpha", "mid"]


@pytest.mark.parametrize("value", ["1_000", "inf", "nan0", "0x10", "1,5"])
def test_what_only_python_takes_for_a_number_is_text(value):
    profile = TableProfile()
    profile.add({"a": "1"})
    profile.add({"a": value})
    assert profile.columns()[0]["type"] == "text"


def test_more_than_a_thousand_distinct_values_are_not_counted(as_ana):
    rows = "".join(f"word {n},{n % 2}\n" for n in range(1001))
    columns = columns_of(make_dataset(as_ana, content="text,label\n" + rows))
    assert (columns["text"]["distinct"], columns["text"]["top"]) == (None, [])
    assert columns["label"]["distinct"] == 2


def test_at_most_fifty_values_are_listed(as_ana):
    rows = "".join(f"word {n % 60},{n % 2}\n" for n in range(300))
    columns = columns_of(make_dataset(as_ana, content="text,label\n" + rows))
    assert (columns["text"]["distinct"], len(columns["text"]["top"])) == (60, 50)


def test_long_values_are_shortened_but_still_told_apart(as_ana):
    rows = "".join(f"{'x' * 500}{n},{n}\n" for n in range(5))
    version = make_dataset(as_ana, content="text,label\n" + rows)
    assert columns_of(version)["text"]["distinct"] == 5
    assert all(len(row["text"]) <= 200 for row in version.profile["preview"])


def test_the_preview_is_the_first_twenty_good_rows(as_ana):
    version = make_dataset(as_ana)
    assert len(version.profile["preview"]) == 20
    assert version.profile["preview"][0] == {"text": "good thing 0", "stars": "0", "label": "yes"}


def test_a_column_that_appears_late_in_json_lines_is_missing_before(as_ana):
    lines = [{"a": n} for n in range(3000)] + [{"a": 1, "late": "x"}] * 2
    version = make_dataset(as_ana, content="\n".join(map(json.dumps, lines)), file_name="rows.jsonl")
    assert columns_of(version)["late"]["missing"] == 3000


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_the_delimiter_is_found(as_ana, delimiter):
    content = CSV.replace(b",", delimiter.encode())
    version = make_dataset(as_ana, content=content, file_name="table.txt")
    assert [column["name"] for column in version.profile["columns"]] == ["text", "stars", "label"]


def test_a_comma_inside_quotes_or_words_does_not_mislead(as_ana):
    rows = "text;label\n" + "".join(f"one, two, {n};yes\n" for n in range(10))
    version = make_dataset(as_ana, content=rows)
    assert [column["name"] for column in version.profile["columns"]] == ["text", "label"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "gb18030", "gbk"])
def test_chinese_text_is_read_in_its_usual_encodings(as_ana, encoding):
    rows = "文本,标签\n" + "".join(f"好东西{n},好\n" for n in range(10))
    version = make_dataset(as_ana, content=rows.encode(encoding))
    assert version.profile["preview"][0] == {"文本": "好东西0", "标签": "好"}


@pytest.mark.parametrize("name", ["table.csv", "table", "table.jsonl", "table.zip.csv"])
def test_the_content_tells_the_format_not_the_name(as_ana, name):
    lines = "".join(json.dumps({"a": n, "b": f"{n}"}) + "\n" for n in range(5))
    assert make_dataset(as_ana, content=lines, file_name=name).format == "jsonl"


def test_images_know_classes_and_size(as_ana):
    content = zip_of(
        {
            **{f"top/cat/{n}.png": png((n, 1, 2), 16) for n in range(3)},
            "top/dog/1.jpg": png((9, 9, 9), 20, "JPEG"),
            "top/dog/2.gif": png((9, 9, 9), 16, "GIF"),
            "top/dog/.hidden.png": b"x",
            "__MACOSX/top/dog/._1.png": b"x",
            "top/readme.md": b"x",
            "top/nested.zip": images_zip(),
        }
    )
    version = make_dataset(as_ana, content=content, file_name="cats.zip")
    assert version.format == "images"
    assert version.row_count == 5
    assert version.profile["classes"] == {"cat": 3, "dog": 2}
    assert version.profile["image"] == {"width": 16, "height": 16, "channels": 3, "sizes": 2}
    assert (version.profile["ignored"], version.profile["problem_count"]) == (2, 0)


def test_chinese_folder_names_of_an_old_zip_tool_are_read_right(as_ana):
    # names in GBK without the UTF-8 mark, as zip tools on Chinese Windows write them
    plain = zip_of({f"{name}/{n}.png": png((n, 1, 2)) for name in ("mao0", "gou0") for n in range(2)})
    content = plain.replace(b"mao0", "猫咪".encode("gbk")).replace(b"gou0", "小狗".encode("gbk"))
    version = make_dataset(as_ana, content=content, file_name="cats.zip")
    assert version.profile["classes"] == {"小狗": 2, "猫咪": 2}


def test_one_bad_number_in_a_column_is_named_with_its_row(as_ana, browser_of, api_of, ana):
    rows = "".join(f"{'n/a?' if n == 118 else n},{'yes' if n % 2 else 'no'}\n" for n in range(1, 201))
    version = make_dataset(as_ana, content="age,label\n" + rows)
    age = columns_of(version)["age"]
    assert age["type"] == "text"
    assert age["odd"] == {"count": 1, "first": [{"row": 118, "value": "n/a?"}]}
    assert "odd" not in columns_of(version)["label"]
    said = "would be a column of numbers but for row 118: “n/a?”"
    page = browser_of(ana).get(version.dataset.get_absolute_url()).content.decode()
    assert "Look at these values" in page and said in page
    path = f"/api/v1/datasets/{version.dataset.public_id}/versions/{version.public_id}"
    hint = api_of(ana).get(path).json()["hints"][0]
    assert (hint["column"], hint["row"], hint["value"], hint["count"]) == ("age", 118, "n/a?", 1)
    assert said in hint["detail"]


def test_rows_that_were_left_out_count_in_the_number_of_a_hint(as_ana):
    rows = "".join("1,2,3\n" if n == 4 else f"{'x' if n == 30 else n},a{n % 2}\n" for n in range(1, 41))
    version = make_dataset(as_ana, content="age,label\n" + rows)
    assert version.profile["problem_count"] == 1
    assert columns_of(version)["age"]["odd"]["first"] == [{"row": 30, "value": "x"}]


@pytest.mark.parametrize(("odd", "told"), [(0, False), (1, True), (30, True), (31, False), (300, False)])
def test_a_few_odd_values_are_a_slip_and_many_are_a_text(odd, told):
    profile = TableProfile()
    for n in range(300):
        profile.add({"a": f"word {n}" if n < odd else str(n)})
    column = profile.columns()[0]
    assert ("odd" in column) == told
    assert column["type"] == ("text" if odd else "number")
    if told:
        assert column["odd"]["count"] == odd and len(column["odd"]["first"]) <= 5
