"""The page about states says what the code does."""

from __future__ import annotations

import re

import pytest
from django.conf import settings

from jobs.models import Job
from jobs.states import ENDPOINT_ARROWS, JOB_ARROWS, JOB_ENDED, Reason

PAGE = (settings.BASE_DIR / "jobs" / "LIFECYCLE.md").read_text()


def table(heading: str) -> dict[str, set[str]]:
    """State -> states it is entered from, as the page has it."""
    part = PAGE.split(f"## {heading}\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (\w+) \| ([\w, ]+) \|", part, flags=re.MULTILINE)
    return {state: set(sources.split(", ")) for state, sources in rows if state != "State"}


@pytest.mark.parametrize(("heading", "arrows"), [("Job", JOB_ARROWS), ("Endpoint", ENDPOINT_ARROWS)])
def test_the_page_has_every_arrow_and_no_other(heading, arrows):
    assert table(heading) == {str(state): set(map(str, sources)) for state, sources in arrows.items()}


def test_no_arrow_leaves_a_final_state():
    assert Job.LIFECYCLE.terminal == JOB_ENDED


def test_every_reason_is_on_the_page():
    for reason in Reason:
        assert reason == Reason.NONE or reason.value in PAGE
