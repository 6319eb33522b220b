"""How fast usage is taken, months are read, reports are made and accounts are closed; and that sums never differ.

python -m bench.billing [ingest] [month] [report] [close] [oracle] [--scale 1.0]

Everything runs on an embedded PostgreSQL of its own with fsync on, the client on the same cores. Rows are made in
the database. `--scale 0.01` is a smoke run: its figures say nothing and are not written.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from threading import Thread
from typing import Any

from bench.report import machine, write_result

HOME = Path(__file__).resolve().parents[1]
BATCH = 1000
START = date(2026, 3, 1)  # of the month that is read; generated rows lie in it

Metrics = dict[str, float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--rounds", type=int, default=5)
    chosen = parser.parse_args()
    if wrong := set(chosen.parts) - set(PARTS):
        parser.error(f"no such part: {', '.join(sorted(wrong))}; there are {', '.join(PARTS)}")
    with tempfile.TemporaryDirectory(prefix="tauon-bench-") as folder, database(Path(folder)):
        for name in chosen.parts or list(PARTS):
            metrics: Metrics = {}
            notes: list[str] = []
            began = time.perf_counter()
            PARTS[name](chosen, metrics, notes)
            print(f"{name}: measured in {time.perf_counter() - began:.0f} s", flush=True)
            if chosen.scale == 1.0:
                write_result("billing", metrics, notes, machine())
            else:
                print(json.dumps({"scale": chosen.scale, "metrics": metrics, "notes": notes}, indent=2))


@contextmanager
def database(folder: Path) -> Iterator[None]:
    """PostgreSQL and Redis for this run, migrated and seeded; fsync on."""
    folder.chmod(0o755)
    os.environ.update(TAUON_VAR=str(folder), DJANGO_SETTINGS_MODULE="console.settings", TAUON_TESTING="1")
    from console.embedded import Embedded  # noqa: PLC0415  the folder is known only now

    servers = Embedded(folder, durable=True)
    servers.start()
    os.environ.update(DATABASE_URL=servers.database_url, REDIS_URL=servers.redis_url)
    try:
        import django  # noqa: PLC0415

        django.setup()
        from django.core.management import call_command  # noqa: PLC0415

        call_command("migrate", verbosity=0)
        yield
    finally:
        servers.destroy()


def ingest(chosen: argparse.Namespace, metrics: Metrics, notes: list[str]) -> None:
    """Batches of 1,000 through our service, and the same statement by a practitioner's bare psycopg."""
    import psycopg  # noqa: PLC0415
    from django.db import connection  # noqa: PLC0415

    from billing.services import ingest as service  # noqa: PLC0415
    from tenants.models import Tenant  # noqa: PLC0415

    batches = max(2, round(20 * chosen.scale))
    ours, bare, two = [], [], []
    connection.ensure_connection()
    with psycopg.connect(os.environ["DATABASE_URL"]) as raw:
        price = raw.execute(
            "select id from billing_priceversion where meter_id = 'endpoint.requests'"
        ).fetchone()
        assert price is not None
        raw.commit()
        for number in range(chosen.rounds + 1):  # the first warms up
            for kind in ("ours", "bare") if number % 2 else ("bare", "ours"):
                tenant = Tenant.objects.create(name="Bench", slug=f"bench-{kind}-{number}")
                told = [list(_events(start, BATCH)) for start in range(0, batches * BATCH, BATCH)]
                began = time.perf_counter()
                if kind == "ours":
                    for batch in told:
                        results = service.record_batch(tenant, source="bench", events=batch)
                        assert all(one.outcome is service.Status.STORED for one in results)
                else:
                    for batch in told:
                        _store_bare(raw, tenant.pk, price[0], batch)
                rate = batches * BATCH / (time.perf_counter() - began)
                if number:
                    (ours if kind == "ours" else bare).append(rate)
            tenant = Tenant.objects.create(name="Bench", slug=f"bench-two-{number}")
            if number:
                two.append(_two_senders(tenant, batches))
    metrics["ingest_vs_psycopg"] = round(statistics.median(a / b for a, b in zip(ours, bare, strict=True)), 3)
    metrics["ingest_events_per_s"] = round(max(statistics.median(ours), statistics.median(two)))
    metrics["ingest_one_sender_events_per_s"] = round(statistics.median(ours))
    metrics["ingest_psycopg_events_per_s"] = round(statistics.median(bare))
    notes.append(
        "ingest: batches of 1,000, each its own transaction, every event checked, hashed and priced; the events' "
        "sums by hour and day are kept by a trigger in both. ingest_events_per_s is the better of one and two "
        f"senders (two: {statistics.median(two):.0f}). Spread of ours: {min(ours):.0f} to {max(ours):.0f}."
    )


def _events(start: int, count: int) -> Iterator[dict[str, Any]]:
    now = datetime.now(UTC) - timedelta(hours=1)
    for number in range(start, start + count):
        yield {
            "key": f"req-{number:012d}", "meter": "endpoint.requests", "quantity": str(number % 7 + 1),
            "event_time": (now + timedelta(milliseconds=number % 1_000_000)).isoformat(),
            "subject": f"ep_{number % 20}", "subject_title": "digits", "user": f"p{number % 5}@example.org",
            "labels": {"team": f"t{number % 3}"},
        }  # fmt: skip


def _store_bare(raw: Any, tenant: int, price: int, batch: list[dict[str, Any]]) -> None:
    """The same statement with the same columns; nothing is checked."""
    from billing.services.ingest import STORE  # noqa: PLC0415

    between = "\x1f"
    columns = {
        "tenant": tenant, "source": "bench", "key": between.join([one["key"] for one in batch]),
        "meter": between.join([one["meter"] for one in batch]), "sku": between.join(["standard"] * len(batch)),
        "price": between.join([str(price)] * len(batch)),
        "quantity": between.join([one["quantity"] for one in batch]),
        "time": between.join([one["event_time"] for one in batch]),
        "subject": between.join([one["subject"] for one in batch]),
        "title": between.join([one["subject_title"] for one in batch]),
        "user": between.join([one["user"] for one in batch]),
        "dims": between.join([json.dumps({"labels": one["labels"]}) for one in batch]),
        "hash": between.join(["0" * 64] * len(batch)),
    }  # fmt: skip
    with raw.transaction():
        raw.execute("select pg_advisory_xact_lock_shared(%s, %s)", [0x7A01, tenant])
        assert len(raw.execute(STORE, columns).fetchall()) == len(batch)


def _two_senders(tenant: Any, batches: int) -> float:
    from django.db import connection  # noqa: PLC0415

    from billing.services import ingest as service  # noqa: PLC0415

    told = [list(_events(start, BATCH)) for start in range(0, batches * BATCH, BATCH)]

    def send(mine: list[list[dict[str, Any]]]) -> None:
        try:
            for batch in mine:
                service.record_batch(tenant, source="bench", events=batch)
        finally:
            connection.close()

    threads = [Thread(target=send, args=[told[number::2]]) for number in range(2)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return batches * BATCH / (time.perf_counter() - began)


def month(chosen: argparse.Namespace, metrics: Metrics, notes: list[str]) -> None:
    """One tenant with 1.5 million events in a month: its sums by day and meter, and its page."""
    from django.test import Client  # noqa: PLC0415

    from bench.billing_rows import fill_events  # noqa: PLC0415
    from billing.months import Month  # noqa: PLC0415
    from billing.services import reports, rollups  # noqa: PLC0415
    from tenants.models import Membership, Tenant, User  # noqa: PLC0415
    from tenants.services import accounts  # noqa: PLC0415

    tenant = Tenant.objects.create(name="Month", slug="month")
    person = User.objects.create_user("ana@example.org", "correct horse battery", active_tenant=tenant)
    accounts.confirm_address(person)
    Membership.objects.create(tenant=tenant, user=person, role="owner")
    count = round(1_500_000 * chosen.scale)
    began = time.perf_counter()
    fill_events(tenant.pk, count, START)
    filled = time.perf_counter() - began
    span = Month.of(START)
    whole = reports.month_to_date(tenant, span)
    metrics["month_query_p50_ms"] = _p50(lambda: reports.spend_by_day(tenant, span), chosen.rounds * 8)
    metrics["month_by_subject_p50_ms"] = _p50(
        lambda: reports.spend_by_subject(tenant, span), chosen.rounds * 8
    )
    client = Client(SERVER_NAME="localhost")
    client.force_login(person, backend="django.contrib.auth.backends.ModelBackend")

    def page() -> None:
        assert client.get(f"/usage/?month={span}").status_code == 200

    metrics["month_page_p50_ms"] = _p50(page, chosen.rounds * 8)
    began = time.perf_counter()
    wrong = rollups.differences(tenant, span.start, span.end)
    check = time.perf_counter() - began
    assert not wrong and whole > 0
    notes.append(
        f"month: {count} stored events of one tenant, 20 subjects, 4 meters, 5 people; read from sums by day. "
        f"Filled in {filled:.0f} s; comparing every sum with the raw events took {check * 1000:.0f} ms, 0 differ."
    )


def report(chosen: argparse.Namespace, metrics: Metrics, notes: list[str]) -> None:
    """All tenants by day over 10 million events, from our sums; DuckDB over the events themselves."""
    from django.db import connection  # noqa: PLC0415

    from bench.billing_rows import DAYS, fill_sums  # noqa: PLC0415
    from billing.services import explorer, reports  # noqa: PLC0415
    from billing.services.explorer import Question  # noqa: PLC0415
    from billing.services.scopes import Scope  # noqa: PLC0415

    count = round(10_000_000 * chosen.scale)
    made = fill_sums(count, START)
    scope = Scope(tenant=None, currency="USD")
    question = Question(start=START, end=START + timedelta(days=DAYS), by="tenant", then="day")
    found = explorer.explore(scope, question)
    assert found.total.net > 0
    metrics["report_10m_ms"] = _p50(lambda: explorer.explore(scope, question), chosen.rounds)
    daily = Question(start=question.start, end=question.end, by="day", then="meter")
    metrics["report_10m_by_meter_ms"] = _p50(lambda: explorer.explore(scope, daily), chosen.rounds)
    notes.append(
        f"report: {count} events, {made} sums of them by day; every tenant by every day of a month as exact rows "
        f"and a chart, {len(found.rows)} rows out."
    )
    try:
        import duckdb  # noqa: PLC0415
    except ImportError:
        notes.append("report_vs_duckdb: not measured, DuckDB is not installed (pip install '.[bench]').")
        return
    from billing.models import UsageDay  # noqa: PLC0415

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "events.csv"
        with path.open("wb") as out, connection.cursor() as cursor:
            copy = "copy (select tenant_id, event_time::date as day, price_id, quantity from bench_event) to stdout csv"
            with cursor.copy(copy) as stream:
                for piece in stream:
                    out.write(piece)
        duck = duckdb.connect()
        duck.execute(
            "create table events as select * from read_csv(?, columns={'tenant': 'integer', 'day': 'date', "
            "'price': 'integer', 'quantity': 'decimal(38,12)'})",
            [str(path)],
        )
    sums = "select tenant, day, price, sum(quantity) from events group by all"
    rows = UsageDay.objects.between(question.start, question.end)
    ours = lambda: reports.priced(rows, "day", "tenant_id", currency="USD")  # noqa: E731
    theirs = lambda: duck.execute(sums).fetchall()  # noqa: E731
    assert len(ours()) == len(theirs())
    pairs = [(_once(ours), _once(theirs)) for _round in range(chosen.rounds)]
    metrics["report_vs_duckdb"] = round(statistics.median(a / b for a, b in pairs), 3)
    metrics["report_duckdb_ms"] = round(statistics.median(b for _a, b in pairs), 1)
    notes.append(
        f"report_vs_duckdb: our priced sums against DuckDB {duckdb.__version__} summing the same {count} events in its "
        "own table in memory, both into Python; below 1 we are faster. We read sums kept while events arrive."
    )


def close(chosen: argparse.Namespace, metrics: Metrics, notes: list[str]) -> None:
    """Finalize last month of 1,000 accounts in one run."""
    from bench.billing_rows import fill_small_accounts  # noqa: PLC0415
    from billing.models import BillingAccount, Invoice  # noqa: PLC0415
    from billing.services import closing  # noqa: PLC0415

    count = max(3, round(1000 * chosen.scale))
    # accounts of other parts of the bench are not part of this one
    BillingAccount.objects.update(parked_at=datetime.now(UTC), parked_reason="not measured")
    fill_small_accounts(count)
    before = Invoice.objects.count()
    began = time.perf_counter()
    done = closing.close_due()
    seconds = time.perf_counter() - began
    assert Invoice.objects.count() - before >= count, done
    began = time.perf_counter()
    again = closing.close_due()
    metrics["close_1000_accounts_s"] = round(seconds * 1000 / count, 2)
    assert again.invoiced == 0
    notes.append(
        f"close: {count} accounts with 60 events each, one transaction an account with its books checked; "
        f"asking again took {time.perf_counter() - began:.1f} s and closed nothing twice."
    )


def oracle(chosen: argparse.Namespace, metrics: Metrics, notes: list[str]) -> None:
    """Random histories against an exact oracle: the state machine of the tests, with more of them."""
    tests = sorted((HOME / "tests" / "billing").glob("test_oracle*.py"))
    if not tests:
        notes.append("oracle_trials, oracle_mismatches: not measured, there is no state machine to run.")
        return
    each = max(2, round(50 * chosen.scale))
    keep = {
        key: value
        for key, value in os.environ.items()
        if key not in ("DATABASE_URL", "REDIS_URL", "TAUON_VAR")
    }
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *map(str, tests)]
    # two at once, each with lives of its own: a life is one connection that waits for its database
    running = [
        subprocess.Popen(
            command, cwd=HOME, env={**keep, "TAUON_ORACLE_EXAMPLES": str(each)}, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )
        for _process in range(2)
    ]  # fmt: skip
    said = [process.communicate()[0].strip() for process in running]
    codes = [process.returncode for process in running]
    if not set(codes) <= {0, 1}:  # 1: a test failed, so a sum differed; anything else is no measurement
        notes.append(f"oracle_trials, oracle_mismatches: not measured: {' '.join(said)[-300:]}")
        return
    metrics["oracle_trials"] = each * len(running)
    metrics["oracle_mismatches"] = sum(codes)
    notes.append(
        f"oracle: {each * len(running)} random lives of a tenant (beats, crashes, duplicates, price changes, credit, "
        "refunds, voids, closes), billed against an exact oracle with the ledger at zero after every step: "
        f"{', '.join(one.splitlines()[-1] for one in said)}."
    )


def _p50(act: Callable[[], Any], times: int) -> float:
    act()  # warm
    return round(statistics.median(_once(act) for _time in range(max(3, times))), 2)


def _once(act: Callable[[], Any]) -> float:
    """Milliseconds."""
    began = time.perf_counter()
    act()
    return (time.perf_counter() - began) * 1000


PARTS: dict[str, Callable[[argparse.Namespace, Metrics, list[str]], None]] = {
    "ingest": ingest,
    "month": month,
    "report": report,
    "close": close,
    "oracle": oracle,
}

if __name__ == "__main__":
    main()
