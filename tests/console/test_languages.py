"""English and Simplified Chinese: the catalogue is whole, and real pages are in the reader's language."""

from __future__ import annotations

import ast
import gettext
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.test import Client
from django.urls import reverse
from django.utils import translation

from billing import errors as _ledger_errors  # noqa: F401  its refusals are checked too
from console import context, formats
from jobs import scheduling
from jobs.said import said
from jobs.services.jobs import cancel_job
from jobs.states import EndpointStatus, JobStatus, Reason
from tenants.errors import Conflict, Refused
from tenants.models import User
from tests.factories import BrowserOf
from tests.jobs.factories_jobs import make_job, make_version
from trainer.compress import gate

ROOT = settings.BASE_DIR
CATALOGUE = ROOT / "console" / "locale" / "zh_Hans" / "LC_MESSAGES" / "django.po"
CHINESE = re.compile(r"[\u4e00-\u9fff]")
PLACEHOLDER = re.compile(r"%\(\w+\)s|%%")
HOW_TO_MEND = (
    "run: .venv/bin/python manage.py makemessages -l zh_Hans -e html,txt,py -i .venv -i var -i tests "
)
HOW_TO_MEND += "-i bench -i docs -i static --no-location --no-obsolete, translate, then compilemessages"
# names and formats are the same in both languages; " of " becomes a stroke
SAME = re.compile(
    r"(Tauon|English|CSV|SKU|JSON Lines|[Ww]ebhook|PyTorch:|, |(%\(\w+\)s|%%|[ v/()·–,]|of|p50|p99)+)"
)


@dataclass
class Message:
    context: str | None = None
    id: str = ""
    plural: str | None = None
    texts: dict[int, str] = field(default_factory=dict)
    flags: str = ""

    @property
    def key(self) -> str:
        return f"{self.context}\x04{self.id}" if self.context is not None else self.id


def read_po(path: Path) -> list[Message]:
    """The messages of a .po file; the header is the one without an id."""
    found: list[Message] = []
    for block in re.split(r"\n\s*\n", path.read_text(encoding="utf-8")):
        message, target = Message(), ""
        for line in block.splitlines():
            if line.startswith("#"):
                message.flags += line if line.startswith("#,") else ""
                continue
            word, quote, rest = line.partition('"')
            target, text = word.strip() or target, ast.literal_eval(quote + rest)
            if target == "msgctxt":
                message.context = (message.context or "") + text
            elif target == "msgid":
                message.id += text
            elif target == "msgid_plural":
                message.plural = (message.plural or "") + text
            else:
                number = int(target[7:-1]) if "[" in target else 0
                message.texts[number] = message.texts.get(number, "") + text
        if message.texts:
            found.append(message)
    return found


@pytest.fixture(scope="module")
def messages() -> list[Message]:
    return [message for message in read_po(CATALOGUE) if message.id]


# -- the catalogue -------------------------------------------------------------------------------------------
def test_every_message_is_translated_and_none_is_a_guess(messages: list[Message]) -> None:
    assert len(messages) > 1000
    assert [message.id for message in messages if not all(message.texts.values())] == []
    assert [message.id for message in messages if "fuzzy" in message.flags] == []


def test_a_translation_fills_in_what_its_message_fills_in(messages: list[Message]) -> None:
    def holes(text: str) -> list[str]:
        return sorted(PLACEHOLDER.findall(text))

    wrong = [
        message.id
        for message in messages
        if not all(
            holes(text) in (holes(message.id), holes(message.plural or message.id))
            for text in message.texts.values()
        )
    ]
    assert wrong == []


def test_chinese_has_one_form_for_every_number(messages: list[Message]) -> None:
    header = next(message for message in read_po(CATALOGUE) if not message.id)
    assert "nplurals=1; plural=0;" in header.texts[0]
    assert {tuple(message.texts) for message in messages} == {(0,)}


def test_a_translation_is_in_chinese_with_chinese_punctuation(messages: list[Message]) -> None:
    texts = {message.id: message.texts[0] for message in messages}
    assert [id for id, text in texts.items() if not CHINESE.search(text) and not SAME.fullmatch(id)] == []
    # a Western full stop, comma or question mark right after a Chinese character
    assert [text for text in texts.values() if re.search(r"[\u4e00-\u9fff][.,;:?!](\s|$)", text)] == []


def test_the_compiled_catalogue_says_what_the_text_says(messages: list[Message]) -> None:
    with CATALOGUE.with_suffix(".mo").open("rb") as file:
        compiled = dict(gettext.GNUTranslations(file)._catalog)  # type: ignore[attr-defined]
    compiled.pop("", None)
    written = {(message.key, 0) if message.plural else message.key: message.texts[0] for message in messages}
    assert compiled == written, "the .mo is old: run .venv/bin/python manage.py compilemessages"


def test_the_catalogue_is_kept_with_the_code() -> None:
    ignored = (ROOT / ".gitignore").read_text().split()
    assert not {"*.mo", "*.po", "locale/", "*.m[op]"} & set(ignored)


# -- nothing is left out -------------------------------------------------------------------------------------
def test_every_marked_word_is_in_the_catalogue(messages: list[Message], tmp_path: Path) -> None:
    if shutil.which("xgettext") is None:
        pytest.skip("xgettext is not installed (apt install gettext): marked words cannot be collected")
    for name in ("tenants", "billing", "jobs", "console", "templates"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__", "locale"))
    (tmp_path / "console" / "locale").mkdir()
    (tmp_path / "bare.py").write_text(f"LOCALE_PATHS = [{str(tmp_path / 'console' / 'locale')!r}]\n")
    command = [
        sys.executable,
        "-m",
        "django",
        "makemessages",
        "-l",
        "zh_Hans",
        "-e",
        "html,txt,py",
        "--no-location",
    ]
    env = {**os.environ, "DJANGO_SETTINGS_MODULE": "bare", "PYTHONPATH": str(tmp_path)}
    subprocess.run(command, cwd=tmp_path, env=env, check=True, capture_output=True, timeout=120)
    marked = read_po(tmp_path / "console" / "locale" / "zh_Hans" / "LC_MESSAGES" / "django.po")
    missing = {one.key for one in marked} - {one.key for one in messages} - {""}
    assert not missing, HOW_TO_MEND


def test_what_the_scripts_say_is_handed_to_them(messages: list[Message]) -> None:
    handed = {str(word._args[0]) for word in context.WORDS}
    asked: set[str] = set()
    for script in (ROOT / "static" / "js").glob("*.js"):
        asked |= set(re.findall(r'\bword\("((?:[^"\\]|\\.)+)"', script.read_text()))
    assert asked and asked <= handed
    assert handed <= {message.id for message in messages}


def refusals(kind: type[Refused] = Refused) -> list[type[Refused]]:
    found = [kind]
    for one in kind.__subclasses__():
        found += refusals(one)
    return found


def test_the_message_of_every_refusal_is_in_the_catalogue(messages: list[Message]) -> None:
    known = {message.id for message in messages}
    always_told_more = {"BadParameter"}
    missing = [
        kind.__name__
        for kind in refusals()
        if kind.__name__ not in always_told_more and (kind.__doc__ or "").strip().splitlines()[0] not in known
    ]
    assert missing == []
    with translation.override("zh-hans"):
        assert str(Conflict()) == "其他人在此期间做了更改。请刷新后重试。"


# -- words that were written down before anybody read them ---------------------------------------------------
def decisions(*, quota: int | None, running: int) -> list[str]:
    """Why the scheduler lets a job of two processes wait."""
    now = datetime(2026, 11, 2, 12, 0, tzinfo=UTC)
    demand = scheduling.Demand(job=1, tenant=1, since=now - timedelta(minutes=1), processes=2, gpus=0)
    held = [scheduling.Holding(tenant=1, processes=running, gpus=())] if running else []
    made = scheduling.decide(
        [demand],
        held,
        scheduling.Capacity(node="here", processes=2),
        {1: scheduling.Quota(processes=quota)},
        now,
    )
    return [one.waiting_for for one in made if not one.place]


def test_what_the_scheduler_wrote_is_read_in_chinese() -> None:
    full, quota = decisions(quota=None, running=1), decisions(quota=1, running=0)
    assert [said(text) for text in full + quota] == full + quota  # English stays English
    with translation.override("zh-hans"):
        assert said(full[0]) == "正在等待 2 个进程；空闲 1 / 2"
        assert said(quota[0]) == "正在等待 2 个进程；您的配额是 1，已使用 0"


def test_the_verdict_of_a_report_is_read_in_chinese() -> None:
    numbers: dict[str, Any] = {
        "size": (1000, 250),
        "compressed": (900, 240),
        "latency_ms": (1.0, 1.5),
        "max_accuracy_drop": 0.01,
    }
    worse = gate.verdict(name="int8", accuracy_drop=0.05, **numbers)
    same = gate.verdict(name="int8", accuracy_drop=0.0, **numbers)
    yardstick = gate.verdict(name="original", accuracy_drop=0.0, **numbers)
    with translation.override("zh-hans"):
        for text in (worse, same, yardstick):
            assert CHINESE.search(said(text)) and not re.search(r"[a-z]{3}", said(text)), said(text)


def test_a_diverged_run_is_told_in_chinese() -> None:
    told = "The loss became nan at step 3 of 69: try a smaller learning_rate than 1e+03, or look for extreme values."
    assert said(told) == told
    with translation.override("zh-hans"):
        assert said(told).startswith("第 3 步（共 69 步）时损失变为 nan")


def test_words_nobody_knows_are_shown_as_they_are() -> None:
    with translation.override("zh-hans"):
        assert said("RuntimeError: mat1 and mat2 shapes") == "RuntimeError: mat1 and mat2 shapes"
        assert said(None) == ""


# -- real pages ----------------------------------------------------------------------------------------------
@pytest.fixture
def chinese(browser_of: BrowserOf):
    def sign_in(user: User) -> Client:
        client = browser_of(user)
        client.defaults["HTTP_ACCEPT_LANGUAGE"] = "zh-hans,zh;q=0.9,en;q=0.5"
        return client

    return sign_in


def text_of(html: str) -> str:
    """What is read on a page: no tags, no scripts."""
    return re.sub(r"\s+", " ", re.sub(r"<(script|style|template)\b.*?</\1>|<[^>]+>", " ", html, flags=re.S))


def test_a_month_is_written_the_chinese_way(chinese, ana: User) -> None:
    page = text_of(chinese(ana).get(reverse("billing:usage")).content.decode())
    assert re.search(r"20\d\d年\d{1,2}月", page) and "月 20" not in page


@pytest.mark.parametrize(
    ("view", "title"),
    [
        ("console:overview", "概览"),
        ("jobs:job_list", "任务"),
        ("jobs:job_new", "新建任务"),
        ("jobs:dataset_list", "数据集"),
        ("jobs:model_list", "模型"),
        ("jobs:endpoint_list", "推理服务"),
        ("billing:usage", "用量"),
        ("billing:invoice_list", "账单"),
        ("tenants:member_list", "成员"),
        ("tenants:token_list", "API 令牌"),
        ("tenants:audit_list", "审计日志"),
    ],
)
def test_a_page_has_its_title_in_chinese(chinese, ana: User, as_ana, view: str, title: str) -> None:
    if view == "console:overview":
        make_job(as_ana)  # a tenant that has done nothing yet is welcomed instead
    answer = chinese(ana).get(reverse(view))
    page = answer.content.decode()
    assert answer.status_code == 200 and '<html lang="zh-hans"' in page
    assert f"<title>{title} · Tauon</title>" in page and f"<h1>{title}</h1>" in page


def test_the_shell_has_no_english_left(chinese, ana: User) -> None:
    page = chinese(ana).get("/").content.decode()
    shell = text_of(page.split("<main")[0].split("<body")[1].partition(">")[2] + page.split("</main>")[1])
    ours = re.sub(r"Tauon|API|Ctrl K|Esc|English|Lab|req_\w+|\S+@\S+", "", shell)
    assert re.findall(r"[A-Za-z]{2,}", ours) == []
    labels = re.findall(r'(?:aria-label|title|placeholder)="([^"]*)"', page)
    assert [label for label in labels if re.search(r"[A-Za-z]{3,}", label) and not CHINESE.search(label)] == [
        one for one in labels if one in {"English", ana.email}
    ]


def test_every_status_has_its_badge_in_chinese(chinese, ana: User, as_ana, tenant) -> None:
    version = make_version(tenant)
    make_job(as_ana, version, name="waits")
    cancel_job(as_ana, make_job(as_ana, version, name="over"), reason=Reason.BY_USER)
    page = text_of(chinese(ana).get(reverse("jobs:job_list")).content.decode())
    assert "排队中" in page and "已停止" in page and "Queued" not in page and "Stopped" not in page
    with translation.override("zh-hans"):
        wanted = ["排队中", "启动中", "运行中", "停止中", "成功", "失败", "已停止"]
        assert [str(status.label) for status in JobStatus] == wanted
        assert str(EndpointStatus.LIVE.label) == "已上线"  # the dot of a live page says 实时


def test_a_refusal_is_told_in_chinese_to_pages_and_the_api(chinese, ana: User) -> None:
    client = chinese(ana)
    assert "这里什么都没有" in client.get("/jobs/job_none").content.decode()
    answer = client.post("/api/v1/jobs", {}, content_type="application/json")
    assert answer.status_code == 422 and CHINESE.search(answer.json()["detail"])
    assert answer.json()["code"] == "invalid"  # names stay names


def test_numbers_are_grouped_by_thousands_in_both_languages() -> None:
    for language in ("en", "zh-hans"):
        with translation.override(language):
            assert formats.number(1234567) == "1,234,567" and formats.money("1234.5") == "$1,234.50"


def test_the_choice_of_a_language_is_kept(browser_of: BrowserOf, ana: User) -> None:
    client = browser_of(ana)
    client.post(reverse("set_language"), {"language": "zh-hans", "next": "/"})
    assert '<html lang="zh-hans"' in client.get("/").content.decode()
    client.post(reverse("set_language"), {"language": "en", "next": "/"})
    assert '<html lang="en"' in client.get("/").content.decode()
