"""House rules of the front end, checked on the files themselves."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import pytest
from django.conf import settings
from django.template.loader import get_template

ROOT: Path = settings.BASE_DIR
VENDOR = ROOT / "static" / "vendor"
TEMPLATES = sorted((ROOT / "templates").rglob("*.html"))
CSS = sorted((ROOT / "static" / "css").glob("*.css"))
SCRIPTS = sorted((ROOT / "static" / "js").glob("*.js"))


def test_vendored_files_are_the_ones_the_lock_names() -> None:
    lock = json.loads((VENDOR / "vendor.lock.json").read_text())
    named = {}
    for package in lock["packages"]:
        assert package["version"] and package["licence"]
        assert "LICENSE" in package["files"], f"{package['name']} lacks its licence"
        named |= {f"{package['folder']}/{name}": digest for name, digest in package["files"].items()}
    there = {
        str(path.relative_to(VENDOR)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in VENDOR.rglob("*")
        if path.is_file() and path.name != "vendor.lock.json"
    }
    assert there == named


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda p: str(p.relative_to(ROOT / "templates")))
def test_a_template_compiles(path: Path) -> None:
    get_template(str(path.relative_to(ROOT / "templates")))


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda p: str(p.relative_to(ROOT / "templates")))
def test_a_template_has_no_inline_style_or_script(path: Path) -> None:
    text = re.sub(r"{%.*?%}|{#.*?#}", "", path.read_text(), flags=re.S)
    assert not re.search(r"\sstyle\s*=", text), "style attributes are refused by the content security policy"
    assert "<style" not in text
    assert not re.search(r"<script(?![^>]*\ssrc=)", text), (
        "an inline script is refused by the content security policy"
    )
    assert not re.search(r"[\s\"']on[a-z]+\s*=", text), (
        "on…= attributes are refused by the content security policy"
    )
    assert "hx-on" not in text
    assert not re.search(r"javascript:", text, re.I)


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda p: str(p.relative_to(ROOT / "templates")))
def test_a_template_asks_no_other_host(path: Path) -> None:
    found = re.findall(
        r"(?:src|href|action|hx-get|hx-post)\s*=\s*[\"'](?:https?:)?//[^\"']+", path.read_text()
    )
    assert not found


@pytest.mark.parametrize("path", [p for p in CSS if p.name != "tokens.css"], ids=lambda p: p.name)
def test_raw_colours_live_in_tokens_only(path: Path) -> None:
    text = re.sub(r"/\*.*?\*/", "", path.read_text(), flags=re.S)
    text = re.sub(
        r"light-dark\([^()]*(?:\([^()]*\)[^()]*)*\)", "", text
    )  # a token of its own, both looks at once
    raw = [one for one in re.findall(r"#[0-9a-fA-F]{3,8}\b", text) if one.lower() not in {"#fff"}]
    assert not raw


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda p: p.name)
def test_a_script_is_plain_and_needs_no_eval(path: Path) -> None:
    text = path.read_text()
    assert not re.search(r"^\s*(import|export)\s", text, re.M), "imports break hashed file names"
    assert not re.search(r"\beval\(|new Function|insertAdjacentHTML|outerHTML\s*=", text)


def test_css_layers_are_declared_once_in_order() -> None:
    assert "@layer tokens, base, ui, pages, print;" in (ROOT / "static/css/tokens.css").read_text()


def test_styles_and_scripts_of_ours_stay_small() -> None:
    assert sum(p.stat().st_size for p in CSS) < 100_000
    assert sum(p.stat().st_size for p in SCRIPTS) < 120_000
