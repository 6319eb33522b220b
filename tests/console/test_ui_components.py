"""Components escape what they are given, and filters write what people read."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from django.template import Context, Template
from django.utils import translation

from console import formats, graphics
from console.showcase import SampleForm

EVIL = "<script>alert(1)</script>\"'&"


def render(source: str, **values: object) -> str:
    return Template("{% load ui %}" + source).render(Context(values))


@pytest.mark.parametrize(
    "source",
    [
        '{% include "ui/badge.html" with label=evil tone=evil shape=evil only %}',
        '{% include "ui/tile.html" with label=evil value=evil hint=evil url=evil id=evil only %}',
        '{% include "ui/empty.html" with title=evil text=evil action_url=evil snippet=evil only %}',
        '{% include "ui/meter.html" with value=1 max=2 label=evil text=evil hint=evil tone=evil only %}',
        '{% include "ui/copy.html" with text=evil label=evil only %}',
        '{% include "ui/code.html" with code=evil language=evil only %}',
        '{% include "ui/secret.html" with text=evil only %}',
        '{% include "ui/id.html" with text=evil only %}',
        '{% include "ui/banner.html" with title=evil text=evil action_url=evil action_label=evil %}',
        '{% include "ui/toast.html" with text=evil tone=evil only %}',
        '{% include "ui/kv.html" with items=pairs only %}',
        '{% include "ui/tabs.html" with items=tabs active=evil only %}',
        "{% card title=evil hint=evil tone=evil action_url=evil action_label=evil %}{{ evil }}{% endcard %}",
        "{% dialog id=evil title=evil %}{{ evil }}{% enddialog %}",
        "{% table label=evil extra=evil %}<tr><td>{{ evil }}</td></tr>{% endtable %}",
        "{% confirm id=evil title=evil action=evil label=evil %}{{ evil }}{% endconfirm %}",
        '{% post_button evil evil icon="x" kind=evil field=evil %}',
        '{% icon "x" label=evil %}',
        "{% sparkline numbers label=evil %}",
        "{% stacked_bars bars title=evil %}",
        "{{ evil|initials }}",
    ],
)
def test_a_component_escapes_what_it_shows(source: str) -> None:
    bars = {
        "labels": [EVIL],
        "series": [{"name": EVIL, "values": [1]}, {"name": "b", "values": [2]}],
        "unit": EVIL,
    }
    tabs = [{"key": EVIL, "label": EVIL, "url": EVIL, "count": EVIL}]
    html = render(source, evil=EVIL, pairs=[(EVIL, EVIL)], tabs=tabs, numbers=[1, 2], bars=bars)
    assert "<script>" not in html
    assert '"\'&"' not in html
    assert EVIL not in html


def test_an_unknown_icon_says_which_ones_exist() -> None:
    with pytest.raises(KeyError, match="database"):
        graphics.icon("nonsense")


def test_a_field_shows_label_help_and_errors_and_ties_them_together() -> None:
    form = SampleForm({"name": ""})
    html = render('{% include "ui/field.html" with field=field only %}', field=form["name"])
    assert 'for="id_name"' in html
    assert 'id="id_name_helptext"' in html
    assert 'id="id_name_error"' in html
    assert 'aria-describedby="id_name_helptext id_name_error"' in html
    assert 'aria-invalid="true"' in html


def test_a_group_of_radios_is_a_fieldset() -> None:
    html = render('{% include "ui/field.html" with field=field only %}', field=SampleForm()["precision"])
    assert "<fieldset" in html and "<legend>" in html


def test_a_form_with_errors_lists_them_on_top_with_links_to_the_fields() -> None:
    html = render('{% include "ui/form_errors.html" with form=form only %}', form=SampleForm({}))
    assert 'href="#id_name"' in html
    assert 'role="alert"' in html


def test_a_post_button_carries_the_csrf_token() -> None:
    html = Template('{% load ui %}{% post_button "Stop" "/stop" %}').render(Context({"csrf_token": "abc"}))
    assert 'method="post"' in html and 'value="abc"' in html


def test_every_tone_has_a_shape_of_its_own_beside_its_colour() -> None:
    drawn = {
        tone: render('{% include "ui/badge.html" with label="x" tone=t only %}', t=tone)
        for tone in ("ok", "bad", "warn")
    }
    assert len({html.split("</svg>")[0].split("<svg")[1] for html in drawn.values()}) == 3


def test_bars_come_with_the_same_numbers_as_a_table() -> None:
    html = render(
        "{% stacked_bars d %}",
        d={"labels": ["1 Nov"], "series": [{"name": "a", "values": [Decimal("1.5")]}], "unit": "USD"},
    )
    assert "<table" in html and "$1.50" in html


def test_no_bars_at_all_still_draw_an_empty_chart() -> None:
    assert "<svg" in render("{% stacked_bars d %}", d={"labels": [], "series": [], "unit": "USD"})


@pytest.mark.parametrize(
    ("amount", "currency", "text"),
    [
        (Decimal("1234.5"), "USD", "$1,234.50"),
        (Decimal("0"), "USD", "$0.00"),
        (Decimal("0.000432"), "USD", "$0.00043"),
        (Decimal("-3"), "EUR", "−€3.00"),
        ("12.345", "CNY", "¥12.34"),
        (Decimal("1500"), "JPY", "¥1,500"),
        (Decimal("2"), "CHF", "CHF 2.00"),
        (None, "USD", "–"),
        ("", "USD", "–"),
        ("abc", "USD", "–"),
    ],
)
def test_money_is_written_with_its_currency(amount: object, currency: str, text: str) -> None:
    assert formats.money(amount, currency) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"), (0.25, "250 ms"), (2.5, "2.5 s"), (42, "42 s"), (125, "2 m 5 s"), (3600, "1 h"),
        (90061, "1 d 1 h"), (timedelta(minutes=3), "3 m"), (None, "–"), (-65, "−1 m 5 s"),
    ],
)  # fmt: skip
def test_a_duration_has_at_most_two_units(seconds: object, text: str) -> None:
    assert formats.duration(seconds) == text


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (3_355_443, "3.2 MiB"),
        (5 * 1024**4, "5.0 TiB"),
        (None, "–"),
    ],
)
def test_bytes_have_a_unit(size: object, text: str) -> None:
    assert formats.size_of(size) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1797, "1,797"),
        (0.12346, "0.1235"),
        (2.5, "2.5"),
        (12345.678, "12,346"),
        (0.00001234, "0.000012"),
        (None, "–"),
    ],
)
def test_a_number_keeps_the_digits_that_count(value: object, text: str) -> None:
    assert formats.number(value) == text


def test_a_share_is_written_in_per_cent() -> None:
    assert formats.percent(0.975) == "97.5 %"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (3, "just now"),
        (300, "5 minutes ago"),
        (-7200, "in 2 hours"),
        (86400 * 2, "2 days ago"),
        (86400 * 400, "1 year ago"),
    ],
)
def test_how_long_ago_is_said_in_one_unit(seconds: int, text: str) -> None:
    moment = datetime(2026, 11, 23, 12, tzinfo=UTC)
    assert formats.ago(moment - timedelta(seconds=seconds), moment) == text


def test_a_moment_is_a_time_element_with_its_exact_time_as_title() -> None:
    html = render(
        "{{ m|at }}{{ m|ago }}{{ none|ago }}", m=datetime(2026, 11, 23, 12, 5, tzinfo=UTC), none=None
    )
    assert '<local-time datetime="2026-11-23T12:05:00+00:00"><time' in html
    assert 'title="2026-11-23 12:05:00 UTC"' in html
    assert 'mode="ago"' in html
    assert html.endswith("–")


def test_progress_values_stay_plain_numbers_in_other_languages() -> None:
    with translation.override("zh-hans"):
        html = render(
            '{% include "ui/progress.html" with value=v max=m label="x" only %}', v=Decimal("1234.5"), m=20000
        )
    assert 'value="1234.5"' in html and 'max="20000"' in html


def test_days_are_written_in_one_way_in_charts_and_in_text():
    chart = {"labels": ["2026-11-23", "Late"], "series": [{"name": "a", "values": [1, 2]}], "unit": "USD"}
    html = render("{% stacked_bars d %}", d=chart)
    assert '<th scope="row">23 Nov</th>' in html and "Late" in html and "2026-11-23" not in html
    day = datetime(2026, 11, 23, 16, 12, tzinfo=UTC)
    written = render("{% load billing %}{{ d|utc_day }} / {{ d|utc }} / {{ d|date }}", d=day)
    assert written == "23 Nov 2026 / 23 Nov 2026, 16:12 / 23 Nov 2026"
