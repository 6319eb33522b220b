"""The points of a job's charts: all of them while there are few, else the extremes of stretches and the newest."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from django.db import connection

from jobs.models import Job, JobEvent
from trainer.contract import EventKind

EXACT = 6000  # so many points are drawn as they are
BUCKETS = 1000  # stretches of a longer job; each keeps the lowest and the highest point of every line
TAIL = 1000  # the newest points are always exact: that is where a reader looks

Point = tuple[str, float, float]  # name, step, value

# one pass in the database: a page must not fetch a hundred thousand rows to draw a thousand pixels;
# min() and max() of an array compare its first element, so each brings its own step and number along
_EXTREMES = """
with points as (
    select seq, data->>'name' as name, (data->>'value')::float8 as value, (data->>'step')::float8 as step,
           width_bucket(seq, %(first)s, %(after)s, %(buckets)s) as bucket
    from jobs_jobevent
    where job_id = %(job)s and kind = %(kind)s and seq >= %(first)s and seq < %(after)s
      and jsonb_typeof(data->'value') = 'number'
), extremes as (
    select name, min(array[value, seq, step]) as low, max(array[value, seq, step]) as high
    from points group by name, bucket
)
select name, point[3], point[1] from (
    select name, low as point from extremes union select name, high from extremes
) as both_ends order by point[2]
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Curves:
    """What the charts show first. `count` is of all points up to there, however few are drawn."""

    count: int
    points: list[Point]  # in the order they were measured


def read(job: Job) -> Curves:
    """The points up to the job's `last_seq` as it was read."""
    rows = JobEvent.objects.filter(job=job, seq__lte=job.last_seq, kind=EventKind.METRIC)
    count = rows.count()
    if count <= EXACT:
        return Curves(count=count, points=_exact(rows.order_by("seq").values_list("data", flat=True)))
    newest = list(rows.order_by("-seq").values_list("seq", "data")[:TAIL])[::-1]
    words: dict[str, int | str] = {
        "job": job.pk,
        "kind": str(EventKind.METRIC),
        "first": rows.order_by("seq").values_list("seq", flat=True)[0],
        "after": newest[0][0],
        "buckets": BUCKETS,
    }
    with connection.cursor() as cursor:
        cursor.execute(_EXTREMES, words)
        older = [(name, step, value) for name, step, value in cursor.fetchall()]
    return Curves(count=count, points=older + _exact(data for _seq, data in newest))


def _exact(rows: Iterable[dict[str, object]]) -> list[Point]:
    return [
        (str(data["name"]), data["step"], data["value"])  # type: ignore[misc]
        for data in rows
        if data.get("value") is not None
    ]
