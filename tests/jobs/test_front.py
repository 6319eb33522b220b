"""The compression report: the front is drawn from what was measured, and the page says what the gate thought."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest

from jobs import front
from jobs.front import LATENCY, SIZE, Point, chart, log_steps
from tests.jobs.factories_registry import make_model

pytestmark = pytest.mark.django_db(transaction=True)


def point(name, size, quality, *, ms=1.0, **more):
    return Point(name=name, size_bytes=size, latency_ms=ms, quality=quality, **more)


@pytest.mark.parametrize("by", [SIZE, LATENCY])
@pytest.mark.parametrize(
    "points",
    [
        [point("original", 1000, 0.9)],
        [point("original", 1000, 1.0), point("int8", 1000, 1.0), point("prune", 1000, 1.0)],
        [point("original", 1000, 0.0), point("int8", 10, 0.0)],
        [point("original", 10**9, 0.99, ms=900.0), point("int8", 10, 0.2, ms=0.0004)],
        [
            point("original" if n == 0 else f"variant-{n}", 2000 - n, 0.9 + n / 1000, ms=1 + n / 100)
            for n in range(30)
        ],
    ],
)
def test_everything_stays_inside_and_labels_do_not_overlap(points, by):
    plot = chart(points, by=by, floor=points[0].quality - 0.01)
    assert all(0 <= float(dot.x[:-1]) <= 100 and 0 <= float(dot.y) <= plot.bottom for dot in plot.dots)
    assert all(0 <= float(tick.at[:-1]) <= 100 for tick in plot.x_ticks)
    heights = sorted(float(label.y) for label in plot.labels)
    assert all(below - above >= 14.9 for above, below in pairwise(heights))
    assert heights[-1] <= plot.bottom
    assert 0 <= float(plot.floor) <= plot.bottom
    named = [name for label in plot.labels for name, _chosen in label.names]
    assert set(named) <= {one.name for one in points}
    assert points[0].name in named


def test_smaller_is_left_and_better_is_up_whatever_the_factor():
    plot = chart([point("original", 1_000_000, 0.98), point("small", 20_000, 0.97)], by=SIZE, floor=None)
    dots = {dot.point.name: dot for dot in plot.dots}
    assert float(dots["small"].x[:-1]) < float(dots["original"].x[:-1]) - 30
    assert float(dots["small"].y) > float(dots["original"].y)
    assert plot.floor is None


def test_the_line_leads_over_the_variants_that_none_beats_and_past_the_others():
    points = [
        point("original", 1000, 0.98), point("front", 100, 0.97), point("beaten", 300, 0.96, left_out=True),
        point("smallest", 10, 0.90),
    ]  # fmt: skip
    plot = chart(points, by=SIZE, floor=0.97)
    corners = {(line.x1, line.y1) for line in plot.steps} | {(line.x2, line.y2) for line in plot.steps}
    at = {dot.point.name: (dot.x, dot.y) for dot in plot.dots}
    assert {at["original"], at["front"], at["smallest"]} <= corners
    assert at["beaten"] not in corners
    kinds = {dot.point.name: dot.kind for dot in plot.dots}
    assert kinds == {"original": "", "front": "", "beaten": "left-out", "smallest": ""}


def test_the_front_the_original_and_the_chosen_one_are_named_and_the_others_are_not():
    points = [
        point("original", 1000, 0.97), point("front", 100, 0.98), point("behind", 300, 0.96),
        point("picked", 400, 0.96, is_chosen=True),
    ]  # fmt: skip
    names = {name for label in chart(points, by=SIZE, floor=None).labels for name, _chosen in label.names}
    assert names == {"original", "front", "picked"}


def test_one_that_was_left_out_far_below_does_not_squeeze_the_others():
    points = [point("original", 1000, 0.98), point("bad", 10, 0.10, left_out=True)]
    assert [dot.point.name for dot in chart(points, by=SIZE, floor=0.97).dots] == ["original"]


def test_an_interval_is_drawn_as_high_as_it_is():
    points = [point("original", 1000, 0.98, low=0.97, high=0.99)]
    (dot,) = chart(points, by=SIZE, floor=None).dots
    assert float(dot.top) < float(dot.y) < float(dot.bottom)


@pytest.mark.parametrize(("low", "high"), [(10, 2000), (1e3, 1e9), (0.01, 0.02), (3e5, 4e6)])
@pytest.mark.parametrize("by", [SIZE, LATENCY])
def test_a_logarithmic_axis_has_few_round_numbers_inside(low, high, by):
    ticks = log_steps(math.log(low), math.log(high), by)
    assert len(ticks) <= front.TICKS + 1
    assert all(low * 0.999 <= tick <= high * 1.001 for tick in ticks)


def test_the_report_says_intervals_both_yardsticks_and_what_was_left_out(as_ana, browser_of, ana, tmp_path):
    version = make_model(as_ana, tmp_path, spec={"compression": {"max_accuracy_drop": 0.015}})
    original = version.parent
    for one in version.model.versions.all():
        one.report |= {"accuracy_low": 0.951, "accuracy_high": 0.989, "drop_high": 0.0123}
        one.manifest |= {
            "eager": {"latency_p50_ms": 2.0, "original_p50_ms": 2 * original.latency_p50_ms},
            "left_out": [
                {"name": "lowrank-int8", "size_bytes": 12_000, "accuracy": 0.971, "latency_p50_ms": 0.4,
                 "verdict": "3.3x smaller, 1.9x slower here, accuracy 0.40 points lower"}
            ],
        }  # fmt: skip
        one.save()
    page = browser_of(ana).get(version.get_absolute_url()).content.decode()
    assert "95.1 % – 98.9 %" in page
    assert "1.23 points" in page
    assert "The gate allows 1.5 points" in page
    assert "Against PyTorch itself" in page
    assert (
        "6.2× faster" in page
    )  # 1.0 ms, half of what was measured beside a file twice as slow, against 0.16 ms
    assert "lowrank-int8" in page
    assert "1 more combination was made and measured" in page
    assert 'class="floor"' in page


def test_a_report_of_an_older_run_leaves_out_what_it_does_not_know(as_ana, browser_of, ana, tmp_path):
    version = make_model(as_ana, tmp_path)
    page = browser_of(ana).get(version.get_absolute_url()).content.decode()
    assert "Against PyTorch itself" not in page
    assert "Tried and left out" not in page
    assert "The gate allows" not in page
    assert 'class="floor"' not in page
