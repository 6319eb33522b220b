"""What the engine says of compressed variants is read in the reader's language, however many steps there were."""

from __future__ import annotations

import re

import pytest
from django.utils import translation

from jobs.forms_jobs import METHODS
from jobs.said import said
from trainer.compress import gate
from trainer.contract import Method

CUT = (
    "Hidden layers cut to 30 % of their width (32, 64, 128 to 10, 19, 38), "
    "then 14 epochs taught by the original."
)
SPLIT = "Large dense layers split in two of rank 26, 9, then 7 epochs taught by the original."
THIN = "Text table and last layer rewritten with 2 numbers an n-gram."
KEPT = "Of the text table the 933 of 4096 rows kept that say most."
STUDENT = "A new network of 25 % of the width (8, 16, 32), 16 epochs taught by the original."
STATIC = "8-bit integers, ranges calibrated on training rows (ONNX Runtime static QDQ)"


@pytest.mark.parametrize(
    "text",
    [CUT, SPLIT, THIN, KEPT, STUDENT, f"{CUT} {SPLIT}", f"{THIN} {KEPT}", f"{CUT} Then {STATIC}.",
     f"{CUT} {SPLIT} Then {STATIC}.", f"{THIN} {KEPT} Then {STATIC}."],
)  # fmt: skip
def test_every_way_a_variant_was_made_is_told_in_chinese(text: str) -> None:
    assert said(text) == text
    with translation.override("zh-hans"):
        left = re.sub(r"ONNX Runtime|QDQ|n-gram", "", said(text))
    assert not re.search(r"[a-z]{3}", left), left
    assert re.findall(r"\d+", text) == re.findall(r"\d+", said(text))


def test_an_unsure_verdict_is_told_in_chinese() -> None:
    verdict = gate.verdict(
        name="int8", size=(9, 3), compressed=(9, 3), latency_ms=(1.0, 1.0), accuracy_drop=0.0,
        max_accuracy_drop=0.01, drop_high=0.0174, lost_rows=2,
    )  # fmt: skip
    with translation.override("zh-hans"):
        assert "可能低 1.74 个百分点" in said(verdict)


def test_the_form_offers_every_method() -> None:
    assert {method for method, _ in METHODS} == set(Method)
    with translation.override("zh-hans"):
        assert not [label for _, label in METHODS if re.fullmatch(r"[\x00-\x7f]+", str(label))]
