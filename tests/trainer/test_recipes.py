"""Raw rows become the same numbers in training and in serving, whatever is missing, rare or odd in them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from trainer.contract import DataSpec
from trainer.data import words
from trainer.failures import BadData
from trainer.recipes import image, tabular, text


def test_text_is_read_the_same_in_any_case_and_width_and_in_chinese() -> None:
    transform = text.fit({"text": words(["Hello world", "质量很好"])})
    same = text.encode(transform, {"text": words(["Hello  WORLD", "ｈｅｌｌｏ world"])})
    assert same[0].tolist() == same[1].tolist()
    good, bad = text.encode(transform, {"text": words(["质量很好", "质量很差"])})
    assert set(good) & set(bad)
    assert set(good) != set(bad)


def test_texts_of_different_length_are_padded_with_zero_which_no_ngram_uses() -> None:
    transform = text.fit({"text": words(["a", "abcdef"])})
    ids = text.batch(text.encode(transform, {"text": words(["a", "abcdef", ""])}))
    assert ids.shape[0] == 3
    assert (ids[0] != 0).sum() == 1
    assert (ids[2] == 0).all()
    assert ids.max() <= transform["buckets"]


def test_a_table_tells_numbers_from_words_and_marks_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("age,city,y\n1,Rome,a\n,Rome,b\n3,Rome,a\nNA,,b\n5,Oslo,a\n")
    rows = tabular.read(tmp_path, DataSpec(path="t.csv", format="csv", label="y"))
    assert rows.inputs["age"].dtype == np.float32
    transform = json.loads(json.dumps(tabular.fit(rows.inputs)))  # as it comes out of a bundle
    assert [item["datatype"] for item in tabular.signature(transform)] == ["FP32", "BYTES"]
    encoded = tabular.encode(transform, rows.inputs)
    assert encoded.shape == (5, tabular.width(transform))
    age, age_missing, city_missing, city_rare, rome = encoded.T
    assert age_missing.tolist() == [0, 1, 0, 1, 0]
    assert age[[1, 3]].tolist() == [0, 0]
    assert np.isclose(age[[0, 2, 4]].mean(), 0)
    assert city_missing.tolist() == [0, 0, 0, 1, 0]
    assert city_rare.tolist() == [0, 0, 0, 0, 1]
    assert rome.tolist() == [1, 1, 1, 0, 0]


def test_a_number_is_also_told_by_how_far_it_has_come_through_each_piece_of_its_range() -> None:
    values = np.concatenate([np.linspace(0, 199, 1600), np.full(1600, 500)]).astype(np.float32)
    transform = json.loads(json.dumps(tabular.fit({"a": values})))
    edges = transform["columns"][0]["edges"]
    assert edges[0] == 0 and edges[-1] == 500
    assert sorted(set(edges)) == edges  # half of the rows are equal: pieces without width are left out
    rows = {"a": np.asarray([0, edges[1] / 2, edges[2], 500, 9999, -9999, np.nan], dtype=np.float32)}
    encoded = tabular.encode(transform, rows)
    assert encoded.shape == (7, tabular.width(transform))
    pieces = encoded[:, 2:]
    assert pieces[0].tolist() == pieces[5].tolist() == pieces[6].tolist() == [0] * len(edges[1:])
    assert pieces[1].tolist() == pytest.approx([0.5, *[0] * len(edges[2:])])
    assert pieces[2].tolist() == pytest.approx([1, 1, *[0] * len(edges[3:])])
    assert pieces[3].tolist() == pieces[4].tolist() == [1] * len(edges[1:])
    assert encoded[:, 1].tolist() == [0, 0, 0, 0, 0, 0, 1]


def test_a_model_of_before_numbers_came_in_pieces_reads_its_rows_as_it_did() -> None:
    transform = {"columns": [{"name": "a", "kind": "number", "mean": 1.0, "scale": 2.0}]}
    assert tabular.width(transform) == 2
    rows = {"a": np.asarray([3, np.nan], dtype=np.float32)}
    assert tabular.encode(transform, rows).tolist() == [[1, 0], [0, 1]]


def test_few_rows_are_not_cut_in_pieces() -> None:
    assert tabular.fit({"a": np.arange(350, dtype=np.float32)})["columns"][0]["edges"] == []


def test_a_column_with_one_word_among_numbers_holds_words(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,y\n1,x\ninfinite,y\n")
    assert tabular.read(tmp_path, DataSpec(path="t.csv", format="csv", label="y")).inputs["a"].dtype == object


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (DataSpec(path="t.csv", format="csv", label="z"), r"no column 'z' \(label\); it has: a, b, y"),
        (DataSpec(path="t.csv", format="csv", label="y", features=("q",)), "no column 'q'"),
        (DataSpec(path="t.csv", format="csv", label="y", features=("a", "y")), "also a feature"),
        (DataSpec(path="t.csv", format="csv", label="b"), r"row 1 \(line 2\): column 'b' is empty"),
        (DataSpec(path="t.csv", format="csv", label="y", features=("b",)), "empty in every row"),
        (DataSpec(path="other.csv", format="csv", label="y"), "not in the run folder"),
    ],
)
def test_a_table_that_does_not_fit_the_spec_says_which_column(
    tmp_path: Path, data: DataSpec, said: str
) -> None:
    (tmp_path / "t.csv").write_text("a,b,y\n1,,u\n2,,v\n")
    with pytest.raises(BadData, match=said):
        tabular.read(tmp_path, data)


def picture(folder: Path, name: str, picture: Image.Image) -> None:
    path = folder / "images" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path)


IMAGES = DataSpec(path="images", format="images")


def test_grey_pictures_in_any_file_format_become_one_channel(tmp_path: Path) -> None:
    picture(tmp_path, "a/1.png", Image.new("L", (20, 30), 100))
    picture(tmp_path, "a/2.png", Image.new("RGB", (10, 10), (9, 9, 9)))
    picture(tmp_path, "b/3.png", Image.new("1", (16, 16), 1))
    picture(tmp_path, "b/4.png", Image.new("I;16", (16, 16), 65535))
    picture(tmp_path, "b/5.png", Image.new("RGBA", (16, 16), (0, 0, 0, 0)))
    pixels = image.read(tmp_path, IMAGES).inputs["image"]
    assert pixels.shape == (5, 1, 16, 16)
    assert [int(item.mean()) for item in pixels] == [100, 9, 255, 255, 255]


def test_one_picture_in_colour_makes_all_three_channels_and_large_ones_shrink(tmp_path: Path) -> None:
    picture(tmp_path, "a/1.png", Image.new("L", (400, 300), 50))
    picture(tmp_path, "b/2.jpg", Image.new("RGB", (500, 400), (200, 0, 0)))
    rows = image.read(tmp_path, IMAGES)
    assert rows.inputs["image"].shape == (2, 3, image.MAX_SIDE, image.MAX_SIDE)
    assert list(rows.labels) == ["a", "b"]


def test_a_file_that_is_no_image_is_named(tmp_path: Path) -> None:
    picture(tmp_path, "a/1.png", Image.new("L", (8, 8)))
    (tmp_path / "images" / "a" / "torn.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    with pytest.raises(BadData, match=r"images/a/torn\.png cannot be read as an image"):
        image.read(tmp_path, IMAGES)


def test_a_picture_cut_off_in_the_middle_is_named(tmp_path: Path) -> None:
    noise = np.random.default_rng(1).integers(0, 255, (40, 40), dtype=np.uint8)
    picture(tmp_path, "a/1.png", Image.fromarray(noise))
    path = tmp_path / "images" / "a" / "1.png"
    path.write_bytes(path.read_bytes()[:600])
    with pytest.raises(BadData, match=r"images/a/1\.png"):
        image.read(tmp_path, IMAGES)


def test_bytes_and_floats_of_the_same_picture_become_the_same_numbers() -> None:
    pixels = np.arange(64, dtype=np.uint8).reshape(1, 1, 8, 8)
    sent = (pixels / 255).astype(np.float32)
    assert np.allclose(image.batch(pixels), image.batch(sent), atol=1e-6)
