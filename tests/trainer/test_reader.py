"""The transformer reads characters in their order: it learns, is compressed, and its file takes raw texts."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.trainer.helpers import engine, manifest, write_run
from tests.trainer.sentences import SENTENCES
from trainer.bundle import open_bundle
from trainer.contract import CompressionSpec, DataSpec, Method, Recipe
from trainer.data import words
from trainer.recipes import reader
from trainer.serve import predict


def test_characters_are_numbered_by_how_common_they_are_and_rare_ones_share_a_number() -> None:
    texts = {"text": words(["Ａbba", "ab", "退款 q"])}
    transform = reader.fit(texts)
    assert transform["characters"] == "ab"
    known = reader.encode(transform, {"text": words(["BAq", "", "a" * 500])})
    assert known[0].tolist() == [3, 2, reader.UNKNOWN]
    assert known[1].tolist() == [reader.UNKNOWN]
    assert len(known[2]) == reader.LENGTH
    assert reader.batch(known[:2]).tolist() == [[3, 2, 1], [1, 0, 0]]


@pytest.mark.slow
def test_a_transformer_beats_the_majority_and_one_block_of_it_is_many_times_smaller(tmp_path: Path) -> None:
    import json

    path = tmp_path / "data" / "table.jsonl"
    path.parent.mkdir(parents=True)
    lines = [json.dumps({"text": text, "topic": topic}, ensure_ascii=False) for text, topic in SENTENCES]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    spec = write_run(
        tmp_path,
        Recipe.READER,
        DataSpec(path="data/table.jsonl", format="jsonl", label="topic", text="text"),
        compression=CompressionSpec(methods=(Method.STRUCTURED, Method.WEIGHTS4), max_accuracy_drop=0.3),
        epochs=12,
        batch_size=16,
        holdout=0.3,
    )
    done = engine(spec, timeout_s=900)
    assert done.returncode == 0, done.stderr[-3000:]
    result = manifest(spec)
    found = {report.name: report for report in result.variants}
    assert result.beats_baseline
    assert found["original"].accuracy > result.baseline_accuracy + 0.2
    small = min(result.variants, key=lambda report: report.size_bytes)
    assert small.name.startswith("structured-30")
    assert found["original"].size_bytes / small.size_bytes > 15
    assert result.eager is not None
    assert result.eager.latency_p50_ms > 0
    bundle = open_bundle(spec.parent / "result" / small.name)
    probabilities, labels = predict(bundle, {"text": words([SENTENCES[0][0]])})
    assert probabilities.shape == (1, len(result.classes))
    assert labels[0] in result.classes
