"""Every error code that is raised anywhere is explained on one page, and its `type` leads there."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from typing import Any

import pytest
from django.test import Client
from rest_framework import exceptions
from rest_framework.serializers import BaseSerializer

from tenants.error_codes import CODES, GROUPS, problem_type
from tenants.errors import Refused
from tests.architecture.test_contracts import ROOT, sources

WORD = re.compile(r"[a-z][a-z0-9_]*")
HOW_TO_MEND = "say in tenants/error_codes.py what these mean and what to do next"


def strings(node: ast.AST | None) -> set[str]:
    """The texts an expression may stand for: a constant, either side of a condition, values of a dict."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return {node.value} if WORD.fullmatch(node.value) else set()
    if isinstance(node, ast.IfExp):
        return strings(node.body) | strings(node.orelse)
    if isinstance(node, ast.Dict):
        return set().union(*map(strings, node.values))
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "get":
        return strings(node.func.value) | set().union(*map(strings, node.args))
    return set()


def takers(trees: list[ast.Module]) -> dict[str, set[int]]:
    """Functions and classes of ours that take a `code`: name -> where among the positional arguments."""
    found: dict[str, set[int]] = {"Fault": {1}, "ErrorDetail": {1}}
    for node in (node for tree in trees for node in ast.walk(tree)):
        inside = node.body if isinstance(node, ast.ClassDef) else []
        makers = [one for one in inside if isinstance(one, ast.FunctionDef) and one.name == "__init__"]
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name != "__init__":
            makers = [node]
        for maker in makers:
            names = [one.arg for one in maker.args.posonlyargs + maker.args.args]
            bound = 1 if names[:1] in (["self"], ["cls"]) else 0
            if "code" in names + [one.arg for one in maker.args.kwonlyargs]:
                places = {names.index("code") - bound} if "code" in names else set()
                found.setdefault(node.name, set()).update(places)
    return found


def codes_in_source() -> dict[str, str]:
    """Every code written down in the sources: code -> one file that names it."""
    files = sources("console", "tenants", "billing", "jobs")
    trees = {path: ast.parse(path.read_text()) for path in files if path.name != "logs.py"}
    calls = takers(list(trees.values()))
    found: dict[str, str] = {}
    for path, tree in trees.items():
        for node in ast.walk(tree):
            codes: set[str] = set()
            if isinstance(node, ast.Call):
                name = getattr(node.func, "id", getattr(node.func, "attr", ""))
                if name in calls:
                    codes |= set().union(*(strings(one.value) for one in node.keywords if one.arg == "code"))
                    codes |= set().union(*(strings(node.args[i]) for i in calls[name] if i < len(node.args)))
            elif isinstance(node, ast.Assign):
                named = {getattr(target, "id", "") for target in node.targets}
                codes |= strings(node.value) if "code" in named else set()
                for target in (one for one in node.targets if isinstance(one, ast.Tuple)):
                    names = [getattr(one, "id", "") for one in target.elts]
                    if "code" in names and isinstance(node.value, ast.Tuple):
                        codes |= strings(node.value.elts[names.index("code")])
            found |= {code: str(path.relative_to(ROOT)) for code in codes}
    return found


def subclasses(kind: type) -> Iterator[Any]:
    for one in kind.__subclasses__():
        yield one
        yield from subclasses(one)


def test_every_code_in_the_sources_is_explained():
    found = codes_in_source()
    assert {"not_signed_in", "zip_bomb", "not_grantable", "range"} <= found.keys()
    assert {code: path for code, path in found.items() if code not in CODES} == {}, HOW_TO_MEND


def test_every_refusal_is_explained():
    assert {one.code for one in (Refused, *subclasses(Refused))} - CODES.keys() == set(), HOW_TO_MEND


def test_every_code_that_a_serializer_of_ours_can_give_is_explained(client):
    client.get("/api/schema")  # loads every module of the API
    codes = {one.default_code for one in subclasses(exceptions.APIException)}
    for kind in set(subclasses(BaseSerializer)):
        if kind.__module__.split(".")[0] in {"console", "tenants", "billing", "jobs"}:
            for field in kind().fields.values():
                codes |= set() if field.read_only else set(field.error_messages)
                codes |= {getattr(one, "code", "invalid") for one in field.validators}
    assert codes - CODES.keys() == set(), HOW_TO_MEND


def test_no_code_is_explained_twice_and_every_explanation_says_what_to_do():
    assert sum(map(len, GROUPS.values())) == len(CODES)
    assert [code for code, text in CODES.items() if not WORD.fullmatch(code) or not text.endswith(".")] == []


@pytest.mark.django_db
def test_the_type_of_a_problem_leads_to_its_explanation(api_of, browser_of, ana):
    problem = api_of(ana).get("/api/v1/jobs/job_none").json()
    assert problem["type"] == problem_type("not_found")
    path, _, anchor = problem["type"].partition("#")
    for reader in (Client(), browser_of(ana)):
        page = reader.get(path)
        assert page.status_code == 200
        text = page.content.decode()
        assert f'<li id="{anchor}">' in text and text.count('<li id="') == len(CODES)
