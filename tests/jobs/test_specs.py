"""Everything that can be wrong with a spec, each with its pointer and a sentence that helps."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest

from jobs import compute
from jobs.models import DatasetVersion
from jobs.services import dispatch
from jobs.specs import JobSpec
from tenants.actor import Actor
from tenants.errors import Invalid
from tests.jobs.factories_jobs import FakeCompute, make_version, spec_data
from trainer.contract import TrainingSpec


@pytest.fixture(autouse=True)
def machine():
    with compute.use(FakeCompute(processes=4)) as fake:
        yield fake


@pytest.fixture
def flowers(tenant) -> DatasetVersion:
    return make_version(tenant)


def faults(actor: Actor, data: Any) -> dict[str, str]:
    with pytest.raises(Invalid) as caught:
        JobSpec.parse(actor, data)
    assert caught.value.faults, "a fault without a pointer helps nobody"
    return {fault.pointer: fault.detail for fault in caught.value.faults}


def test_a_right_spec_survives_json_and_back(as_ben, flowers):
    spec = JobSpec.parse(as_ben, spec_data(flowers, limits={"max_time_s": 60, "max_spend": "2.50"}))
    again = JobSpec.parse(as_ben, spec.to_dict())
    assert again == spec
    assert spec.limits.max_spend == Decimal("2.50")
    assert spec.to_dict()["limits"]["max_spend"] == "2.50"


def test_how_to_train_reaches_the_engine_word_for_word(as_ben, flowers):
    training = {
        "schedule": "linear", "warmup_steps": 0, "clip_norm": 1.5, "grad_accumulation": 4, "compile": "on",
        "early_stopping": {"metric": "val/accuracy", "patience": 2}, "checkpoint_every_s": 30.0,
        "checkpoint_every_steps": 50, "keep_checkpoints": 3, "stall_after_s": 60.0,
        "privacy_epsilon": None, "privacy_delta": 1e-5, "privacy_clip": 1.0,
    }  # fmt: skip
    spec = JobSpec.parse(as_ben, spec_data(flowers, training=training, resources={"precision": "bf16"}))
    assert spec.to_dict()["training"] == training
    assert JobSpec.parse(as_ben, spec.to_dict()) == spec
    stored = json.loads(json.dumps(spec.to_dict()))["training"]
    assert dispatch.training_spec(stored) == spec.training
    assert dispatch.training_spec({}) == TrainingSpec()  # of a job from before there was such a section


def test_a_dataset_id_means_its_newest_version(as_ben, flowers):
    newer = make_version(as_ben.tenant, name="other")
    DatasetVersion.objects.filter(pk=newer.pk).update(dataset=flowers.dataset, number=2)
    spec = JobSpec.parse(as_ben, spec_data(flowers, dataset=flowers.dataset.public_id))
    assert spec.dataset == newer.public_id


@pytest.mark.parametrize(
    ("changes", "pointer", "words"),
    [
        ({"name": ""}, "/name", "required"),
        ({"name": "x" * 121}, "/name", "120"),
        ({"recipe": "magic"}, "/recipe", "'magic' is not one of image-classification"),
        ({"recipe": None}, "/recipe", "required"),
        ({"recipe": "image-classification", "columns": {}}, "/recipe", "this dataset is CSV table"),
        ({"dataset": "ds_nothing"}, "/dataset", "There is no dataset ds_nothing"),
        ({"dataset": 7}, "/dataset", "required"),
        ({"columns": {}}, "/columns/label", "There are: petal, sepal width, kind, country, note"),
        ({"columns": {"label": "colour"}}, "/columns/label", "no column colour. There are: petal"),
        ({"columns": {"label": "country"}}, "/columns/label", "There is 1 class"),
        ({"columns": {"label": "note"}}, "/columns/label", "empty in 60 rows"),
        (
            {"columns": {"label": "kind", "features": ["petal", "lid"]}},
            "/columns/features/1",
            "no column lid",
        ),
        ({"columns": {"label": "kind", "features": ["kind"]}}, "/columns/features/0", "answer"),
        ({"columns": {"label": "kind", "features": "petal"}}, "/columns/features", "list"),
        ({"columns": {"label": "kind", "text": "note"}}, "/columns/text", "tabular"),
        ({"recipe": "text-classification"}, "/columns/text", "Name a column"),
        ({"resources": []}, "/resources", "object"),
        ({"hyperparameters": {"epochs": 0}}, "/hyperparameters/epochs", "At least 1"),
        ({"hyperparameters": {"epochs": 2.5}}, "/hyperparameters/epochs", "whole number"),
        ({"hyperparameters": {"epochs": True}}, "/hyperparameters/epochs", "whole number"),
        ({"hyperparameters": {"learning_rate": 0}}, "/hyperparameters/learning_rate", "above 0"),
        ({"hyperparameters": {"learning_rate": float("nan")}}, "/hyperparameters/learning_rate", "number"),
        ({"hyperparameters": {"weight_decay": -1}}, "/hyperparameters/weight_decay", "0 or more"),
        ({"hyperparameters": {"optimizer": "lion"}}, "/hyperparameters/optimizer", "sgd, adam, adamw"),
        ({"hyperparameters": {"holdout": 1}}, "/hyperparameters/holdout", "between 0 and 1"),
        ({"hyperparameters": {"holdout": 0.001}}, "/hyperparameters/holdout", "holds out none"),
        ({"hyperparameters": {"seed": -1}}, "/hyperparameters/seed", "At least 0"),
        ({"training": []}, "/training", "object"),
        ({"training": {"schedule": "sine"}}, "/training/schedule", "constant, cosine, linear"),
        ({"training": {"warmup_steps": -1}}, "/training/warmup_steps", "At least 0"),
        ({"training": {"warmup_steps": "few"}}, "/training/warmup_steps", "whole number"),
        ({"training": {"clip_norm": 0}}, "/training/clip_norm", "above 0"),
        ({"training": {"grad_accumulation": 0}}, "/training/grad_accumulation", "from 1 to 1024"),
        ({"training": {"grad_accumulation": "all"}}, "/training/grad_accumulation", '"auto"'),
        ({"training": {"early_stopping": 3}}, "/training/early_stopping", "object"),
        (
            {"training": {"early_stopping": {"patience": 0}}},
            "/training/early_stopping/patience",
            "At least 1",
        ),
        (
            {"training": {"early_stopping": {"metric": "train/loss"}}},
            "/training/early_stopping/metric",
            "val/loss",
        ),
        (
            {"training": {"early_stopping": {"epochs": 3}}},
            "/training/early_stopping/epochs",
            "Known fields: metric, patience",
        ),
        ({"training": {"compile": True}}, "/training/compile", "off, on"),
        ({"training": {"checkpoint_every_s": 0}}, "/training/checkpoint_every_s", "Between 1 and"),
        ({"training": {"checkpoint_every_steps": 0}}, "/training/checkpoint_every_steps", "At least 1"),
        ({"training": {"keep_checkpoints": 0}}, "/training/keep_checkpoints", "At least 1"),
        ({"training": {"stall_after_s": 1}}, "/training/stall_after_s", "Between 10 and"),
        ({"training": {"amp": 1}}, "/training/amp", "Known fields: early_stopping, schedule"),
        ({"resources": {"processes": 2, "min_processes": 3}}, "/resources/min_processes", "which is 2"),
        ({"resources": {"min_processes": 0}}, "/resources/min_processes", "At least 1"),
        ({"resources": {"gpus": 1}}, "/resources/gpus", "this installation has 0 GPUs"),
        ({"resources": {"processes": 5}}, "/resources/processes", "at most 4 at once"),
        ({"resources": {"processes": 0}}, "/resources/processes", "At least 1"),
        ({"resources": {"precision": "fp16"}}, "/resources/precision", "fp16 needs a GPU"),
        ({"resources": {"precision": "fp8"}}, "/resources/precision", "fp32, bf16, fp16"),
        ({"limits": {"max_spend": 0}}, "/limits/max_spend", "above 0"),
        ({"limits": {"max_spend": "-1"}}, "/limits/max_spend", "above 0"),
        ({"limits": {"max_spend": "a lot"}}, "/limits/max_spend", "decimal"),
        ({"limits": {"max_spend": "NaN"}}, "/limits/max_spend", "decimal"),
        ({"limits": {"max_spend": "0.00001"}}, "/limits/max_spend", "4 decimals"),
        ({"limits": {"max_time_s": 1}}, "/limits/max_time_s", "At least 10"),
        ({"compression": {"methods": ["int8", "zip"]}}, "/compression/methods/1", "int8, prune"),
        ({"compression": {"max_accuracy_drop": 2}}, "/compression/max_accuracy_drop", "one point"),
        ({"compression": {"sparsity": 1}}, "/compression/sparsity", "between 0 and 1"),
        ({"publish_to": "My Endpoint!"}, "/publish_to", "my-endpoint"),
        ({"epochs": 3}, "/epochs", "not known. Known fields: recipe"),
        (
            {"resources": {"gpu": 1}},
            "/resources/gpu",
            "Known fields: gpus, processes, min_processes, precision",
        ),
    ],
)
def test_a_wrong_spec_is_told_where_and_why(as_ben, flowers, changes, pointer, words):
    found = faults(as_ben, spec_data(flowers, **changes))
    assert list(found) == [pointer], found
    assert words in found[pointer]


def test_everything_wrong_is_told_at_once(as_ben, flowers):
    found = faults(as_ben, spec_data(flowers, name="", resources={"gpus": 3}, limits={"max_spend": -2}))
    assert set(found) == {"/name", "/resources/gpus", "/limits/max_spend"}


@pytest.mark.parametrize("data", [None, [], "spec", 7])
def test_what_is_not_an_object_is_refused(as_ben, data):
    with pytest.raises(Invalid, match="JSON object"):
        JobSpec.parse(as_ben, data)


def test_a_dataset_of_others_looks_like_one_that_is_not_there(as_cy, flowers):
    theirs = faults(as_cy, spec_data(flowers))["/dataset"]
    missing = faults(as_cy, spec_data(flowers, dataset="dsv_0"))["/dataset"]
    assert theirs.replace(flowers.public_id, "X") == missing.replace("dsv_0", "X")


def test_an_archived_dataset_is_not_trained_on(as_ben, flowers):
    flowers.dataset.archived_at = flowers.created_at
    flowers.dataset.save()
    assert "archived" in faults(as_ben, spec_data(flowers))["/dataset"]


def test_images_of_one_class_cannot_be_told_apart(as_ben):
    cats = make_version(as_ben.tenant, format="images", name="cats", profile={"classes": {"cat": 90}})
    assert "1 class" in faults(as_ben, spec_data(cats))["/dataset"]


def test_images_need_no_columns(as_ben):
    digits = make_version(as_ben.tenant, format="images", name="digits")
    assert (
        "folder is the label" in faults(as_ben, spec_data(digits, columns={"label": "x"}))["/columns/label"]
    )


def test_nine_rows_are_too_few(as_ben):
    tiny = make_version(as_ben.tenant, rows=9, name="tiny")
    assert "9 usable rows" in faults(as_ben, spec_data(tiny, columns={"label": "kind"}))["/dataset"]


def test_a_tenant_cannot_ask_for_more_than_its_quota(as_ben, flowers):
    as_ben.tenant.max_processes = 2
    as_ben.tenant.save()
    assert (
        "may use 2 processes"
        in faults(as_ben, spec_data(flowers, resources={"processes": 3}))["/resources/processes"]
    )


def test_each_process_gets_its_own_gpu(as_ben, flowers):
    with compute.use(FakeCompute(processes=4, gpus=4)):
        spec = JobSpec.parse(as_ben, spec_data(flowers, resources={"gpus": 2, "precision": "fp16"}))
        assert spec.resources.processes == 2
        found = faults(as_ben, spec_data(flowers, resources={"gpus": 1, "processes": 2}))
    assert "2 GPUs for 2 processes" in found["/resources/gpus"]
