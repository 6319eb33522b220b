"""Every recipe the engine knows can be asked for, in the form and over REST, with the columns it needs."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.urls import reverse

from billing import seed
from jobs import compute
from jobs.forms_columns import RECIPES, likely
from jobs.models import DatasetVersion, Job
from jobs.services import datasets, dispatch
from jobs.services.tries import _shown
from jobs.specs import JobSpec
from jobs.words import QUALITIES, quality_label
from jobs.words import RECIPES as LABELS
from tenants.errors import Invalid
from tests.jobs.factories_datasets import make_dataset
from tests.jobs.factories_jobs import FakeCompute, make_version
from tests.jobs.test_jobs_pages import posted
from trainer.contract import NEEDS, DataSpec, Quality, Recipe, RunSpec, usual
from trainer.data import read_table

SHOP = {
    "columns": [
        {"name": "question", "type": "text", "missing": 0, "distinct": 140, "top": []},
        {"name": "intent", "type": "text", "missing": 0, "distinct": 10, "top": []},
        {"name": "reply", "type": "text", "missing": 0, "distinct": 20, "top": []},
        {"name": "theme", "type": "text", "missing": 0, "distinct": 4, "top": []},
        {"name": "customer", "type": "text", "missing": 0, "distinct": 30, "top": []},
        {"name": "product", "type": "number", "missing": 0, "distinct": 60, "top": []},
        {"name": "stars", "type": "number", "missing": 0, "distinct": 5, "top": []},
        {"name": "when", "type": "text", "missing": 0, "distinct": 150, "top": []},
        {"name": "price", "type": "number", "missing": 0, "distinct": 90, "top": []},
        {"name": "note", "type": "text", "missing": 9, "distinct": 9, "top": []},
    ]
}
COLUMNS: dict[Recipe, dict[str, Any]] = {
    Recipe.TEXT: {"text": "question", "label": "intent"},
    Recipe.READER: {"text": "question", "label": "intent"},
    Recipe.TABULAR: {"label": "intent"},
    Recipe.REGRESSION: {"label": "price", "features": ["stars", "theme"]},
    Recipe.INTENT: {"text": "question", "label": "intent", "answer": "reply"},
    Recipe.SENTIMENT: {"text": "question", "label": "intent", "topic": "theme"},
    Recipe.RECOMMEND: {"user": "customer", "item": "product", "rating": "stars", "text": "note"},
    Recipe.LANGUAGE: {"text": "question"},
}


@pytest.fixture(autouse=True)
def machine(db):
    seed.seed()
    with compute.use(FakeCompute(processes=4)) as fake:
        yield fake


@pytest.fixture
def shop(tenant) -> DatasetVersion:
    return make_version(tenant, profile=SHOP, name="shop")


def spec_of(version: DatasetVersion, recipe: Recipe, **columns: Any) -> dict[str, Any]:
    named = {**COLUMNS[recipe], **columns}
    return {"name": "A try", "recipe": str(recipe), "dataset": version.public_id, "columns": named}


def test_every_recipe_has_its_words_and_its_place_in_the_form():
    assert [one[0] for one in RECIPES] == list(Recipe)
    assert set(LABELS) == set(NEEDS) == set(Recipe)
    assert set(COLUMNS) == set(Recipe) - {Recipe.IMAGE}
    assert quality_label("tabular-regression") == "R²"
    assert quality_label("a recipe of tomorrow") == quality_label("text-classification")


@pytest.mark.parametrize("recipe", COLUMNS)
def test_a_spec_of_each_recipe_survives_json_and_reaches_the_engine(recipe, as_ben, shop):
    spec = JobSpec.parse(as_ben, spec_of(shop, recipe))
    stored = json.loads(json.dumps(spec.to_dict()))
    assert JobSpec.parse(as_ben, stored) == spec
    assert spec.hyperparameters == usual(recipe)
    job, attempt = Job(spec=stored, processes=1), type("Attempt", (), {"public_id": "att_1", "processes": 1})
    run = dispatch.run_spec(job, attempt, {"path": "data/table.csv", "format": "csv"})
    assert RunSpec.from_json(run.to_json()) == run
    for role, name in COLUMNS[recipe].items():
        assert getattr(run.data, role) == (tuple(name) if role == "features" else name)


@pytest.mark.parametrize(
    ("recipe", "columns", "pointer", "said"),
    [
        (Recipe.REGRESSION, {"label": "theme"}, "/columns/label", "does not hold numbers"),
        (
            Recipe.REGRESSION,
            {"features": ["price"]},
            "/columns/features/0",
            "answer would be in the question",
        ),
        (Recipe.INTENT, {"answer": ""}, "/columns/answer", "Name a column"),
        (Recipe.INTENT, {"answer": "note"}, "/columns/answer", "empty in 9 rows"),
        (Recipe.INTENT, {"answer": "intent"}, "/columns/answer", "plays another part"),
        (Recipe.SENTIMENT, {"topic": "colour"}, "/columns/topic", "no column colour"),
        (Recipe.RECOMMEND, {"rating": "theme"}, "/columns/rating", "holds no numbers"),
        (Recipe.RECOMMEND, {"time": "when"}, "/columns/time", "holds no numbers"),
        (Recipe.RECOMMEND, {"label": "intent"}, "/columns/label", "does not use this part"),
        (Recipe.LANGUAGE, {"label": "intent"}, "/columns/label", "does not use this part"),
        (Recipe.TEXT, {"user": "customer"}, "/columns/user", "does not use this part"),
    ],
)
def test_a_wrong_column_is_named_with_its_part(recipe, columns, pointer, said, as_ben, shop):
    with pytest.raises(Invalid) as caught:
        JobSpec.parse(as_ben, spec_of(shop, recipe, **columns))
    faults = {fault.pointer: fault.detail for fault in caught.value.faults}
    assert said in faults[pointer]


@pytest.mark.parametrize("recipe", COLUMNS)
def test_the_form_shows_the_columns_a_recipe_needs_and_submits_them(recipe, browser_of, ben, shop):
    browser = browser_of(ben)
    data = posted(shop, recipe=str(recipe), label="", **{})
    page = browser.post(reverse("jobs:job_new_data"), data, headers={"HX-Trigger-Name": "recipe"})
    html = page.content.decode()
    for role in ("label", "text", "topic", "answer", "user", "item", "rating", "time"):
        asked = role in (*NEEDS[recipe].columns, *NEEDS[recipe].optional)
        assert (f'name="{role}"' in html) is asked, role
    done = browser.post(reverse("jobs:job_new"), {**data, **COLUMNS[recipe]})
    assert done.status_code == 302, done.content.decode()[:2000]
    job = Job.objects.get()
    assert job.recipe == recipe
    assert job.spec["columns"]["text"] == COLUMNS[recipe].get("text")


def test_choosing_a_recipe_brings_its_usual_settings_and_leaves_what_was_typed(browser_of, ben, shop):
    typed = {"epochs": 10, "batch_size": 64, "learning_rate": 0.123, "weight_decay": 0.0}
    data = posted(shop, recipe="recommendation", **typed)
    html = (
        browser_of(ben)
        .post(reverse("jobs:job_new_data"), data, headers={"HX-Trigger-Name": "recipe"})
        .content.decode()
    )
    wanted = usual(Recipe.RECOMMEND)
    assert 'id="job-hyper" hx-swap-oob="true"' in html
    assert f'name="epochs" value="{wanted.epochs}"' in html
    assert f'name="batch_size" value="{wanted.batch_size}"' in html
    assert 'name="learning_rate" value="0.123"' in html
    again = browser_of(ben).post(reverse("jobs:job_new_data"), data).content.decode()
    assert "job-hyper" not in again  # another dataset alone changes no setting


def test_a_likely_column_is_chosen_for_each_part():
    columns = SHOP["columns"]
    assert likely("label", columns, [], Recipe.REGRESSION) == "price"
    assert likely("label", columns, [], Recipe.INTENT) == "intent"
    assert likely("answer", columns, [], Recipe.INTENT) == "reply"
    assert likely("user", columns, [], Recipe.RECOMMEND) == "customer"
    assert likely("item", columns, [], Recipe.RECOMMEND) == "product"
    assert likely("text", columns, ["question"], Recipe.TEXT) == "when"


def test_the_playground_shows_what_each_kind_of_model_says():
    assert _shown({"prediction": [1234567.0]}, ["price"]) == ("1.23457e+06", [])
    assert _shown({"items": ["m1", "m2"], "scores": [0.4, 0.1]}, []) == ("m1", [("m1", 0.4), ("m2", 0.1)])
    label, ranking = _shown(
        {
            "probabilities": [0.1, 0.9],
            "label": ["refund"],
            "answers": ["B", "A"],
            "answer_scores": [0.9, 0.1],
        },
        ["A", "B"],
    )
    assert (label, ranking[0]) == ("refund", ("B", 0.9))
    label, ranking = _shown({"probabilities": [0.2, 0.8], "label": ["good"], "topic": ["deals"]}, ["x", "y"])
    assert (label, ranking[0]) == ("good · deals", ("y", 0.8))
    assert _shown({"text": ["and so on"], "next": ["a"], "next_scores": [0.5]}, [])[0] == "and so on"


@pytest.mark.parametrize("quality", Quality)
def test_every_measure_has_a_name_people_read(quality):

    assert str(QUALITIES[quality])


def test_private_training_reaches_the_engine_and_is_refused_where_it_is_not_offered(as_ben, shop):
    asked = {**spec_of(shop, Recipe.TABULAR), "training": {"privacy_epsilon": 4}}
    spec = JobSpec.parse(as_ben, asked)
    assert JobSpec.parse(as_ben, json.loads(json.dumps(spec.to_dict()))) == spec
    assert spec.training.privacy_epsilon == 4
    for wrong, pointer in (
        ({**spec_of(shop, Recipe.LANGUAGE), "training": {"privacy_epsilon": 4}}, "/training/privacy_epsilon"),
        ({**asked, "resources": {"processes": 2}}, "/training/privacy_epsilon"),
        ({**asked, "training": {"privacy_epsilon": -1}}, "/training/privacy_epsilon"),
        ({**asked, "training": {"privacy_epsilon": 4, "privacy_delta": 0.1}}, "/training/privacy_delta"),
    ):
        with pytest.raises(Invalid) as caught:
            JobSpec.parse(as_ben, wrong)
        assert pointer in [fault.pointer for fault in caught.value.faults]


def test_the_form_asks_for_privacy_under_advanced(browser_of, ben, shop):
    data = posted(shop, label="intent", privacy_epsilon="3.5")
    assert browser_of(ben).post(reverse("jobs:job_new"), data).status_code == 302
    assert Job.objects.get().spec["training"]["privacy_epsilon"] == 3.5


def test_no_column_looks_chosen_that_nobody_chose(browser_of, ben, tenant):
    numbers = [
        {"name": f"n{at}", "type": "number", "missing": 0, "distinct": 40, "top": []} for at in range(3)
    ]
    plain = make_version(tenant, profile={"columns": numbers}, name="numbers")
    data = posted(plain, recipe="recommendation", label="")
    html = browser_of(ben).post(reverse("jobs:job_new_data"), data).content.decode()
    user = html.split('name="user"')[1].split("</select>")[0]
    assert 'value="" selected' in user
    assert "Choose a column" in user


@pytest.mark.parametrize(
    ("content", "file_name"),
    [
        (b"page\n" + b"".join(b'"Chapter %d, and what it says."\n' % n for n in range(20)), "book.csv"),
        (b"".join(b'{"page": "Chapter %d"}\n' % n for n in range(20)), "book.jsonl"),
    ],
)
def test_texts_alone_are_enough_for_a_language_model(as_ana, tmp_path, content, file_name):
    version = make_dataset(as_ana, content=content, file_name=file_name)
    assert [column["name"] for column in version.profile["columns"]] == ["page"]
    spec = JobSpec.parse(
        as_ana,
        {
            "name": "Writer",
            "recipe": "language-model",
            "dataset": version.public_id,
            "columns": {"text": "page"},
        },
    )
    assert spec.columns.text == "page"
    laid_out = datasets.materialize(version, tmp_path)
    rows, _places = read_table(tmp_path, DataSpec(**laid_out, text="page"))
    assert [(text or "").split(",")[0] for text in rows["page"]] == [f"Chapter {n}" for n in range(20)]
