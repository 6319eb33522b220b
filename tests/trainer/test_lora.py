"""LoRA on a tiny model made here: it learns what the assistant says, and leaves the base alone."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("transformers", reason="LoRA needs the extra llm: make install-dev")
pytest.importorskip("peft", reason="LoRA needs the extra llm: make install-dev")

from peft import PeftModel
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from tests.trainer.helpers import HOME, engine, events
from trainer.bundle import sha256_of
from trainer.contract import EventKind, Exit
from trainer.failures import BadData
from trainer.lora import LoraSpec, load_base, read_chats
from trainer.reading import BadSpec

TEMPLATE = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def chats() -> list[dict[str, Any]]:
    """The hand-written questions to a shop, each with its answer."""
    rows = map(json.loads, (HOME / "docs/samples/intents-v1.jsonl").read_text("utf-8").splitlines())
    return [
        {
            "messages": [
                {"role": "user", "content": row["text"]},
                {"role": "assistant", "content": row["answer"]},
            ]
        }
        for row in rows
        if row["text"].isascii()
    ]


def make_base(folder: Path, *, template: str | None = TEMPLATE) -> None:
    """A Llama of 70 thousand random weights with a tokenizer learned from the chats, as a Hugging Face folder."""
    special = ["<|pad|>", "<|eos|>", "<|unk|>", "<|user|>", "<|assistant|>", "<|system|>", "<|end|>"]
    tokenizer = Tokenizer(models.BPE(unk_token="<|unk|>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    texts = (message["content"] for chat in chats() for message in chat["messages"])
    tokenizer.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=400, special_tokens=special))
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<|pad|>", eos_token="<|eos|>", unk_token="<|unk|>"
    )
    fast.chat_template = template
    fast.save_pretrained(folder)
    torch.manual_seed(3)
    config = LlamaConfig(
        vocab_size=len(fast), hidden_size=48, intermediate_size=96, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=512,
        initializer_range=0.2,  # the head is not trained: with smaller weights it could not say anything clearly
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder, safe_serialization=True)


def lora_run(folder: Path, **options: Any) -> Path:
    make_base(folder / "base")
    (folder / "chats.jsonl").write_text("\n".join(json.dumps(chat) for chat in chats()))
    path = folder / "lora.json"
    given = {"rank": 16, "epochs": 12, "batch_size": 8, "learning_rate": 1e-2, "dropout": 0.0, **options}
    path.write_text(json.dumps({"run_id": "run-1", "base": "base", "chats": "chats.jsonl", **given}))
    return path


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    spec = lora_run(tmp_path_factory.mktemp("lora"))
    before = {path.name: sha256_of(path) for path in (spec.parent / "base").iterdir()}
    done = engine(spec, "lora", timeout_s=240)
    assert done.returncode == 0, done.stderr[-3000:]
    assert {path.name: sha256_of(path) for path in (spec.parent / "base").iterdir()} == before
    return spec


def report(spec: Path) -> dict[str, Any]:
    return json.loads((spec.parent / "result" / "lora.json").read_text())  # type: ignore[no-any-return]


def test_held_out_chats_become_far_less_surprising(tuned: Path) -> None:
    said = report(tuned)
    assert said["loss_before"] > 5.5  # random weights know nothing: about ln(400)
    assert said["loss_after"] < 0.75 * said["loss_before"]
    assert said["perplexity_after"] == pytest.approx(math.exp(said["loss_after"]))
    assert said["trained_weights"] < 0.6 * said["all_weights"]
    shown = [e.data for e in events(tuned, EventKind.METRIC) if e.data["name"] == "val/loss"]
    assert next(one["value"] for one in shown) == pytest.approx(said["loss_before"])


def test_the_adapter_is_one_that_peft_loads_onto_the_base(tuned: Path) -> None:
    folder = tuned.parent / "result" / "adapter"
    assert {"adapter_model.safetensors", "adapter_config.json"} <= {path.name for path in folder.iterdir()}
    base = AutoModelForCausalLM.from_pretrained(str(tuned.parent / "base"))
    ids = torch.arange(3, 20)[None]
    plain = base(input_ids=ids).logits
    with_it = PeftModel.from_pretrained(base, str(folder)).eval()(input_ids=ids).logits
    assert not torch.allclose(plain, with_it, atol=0.1)


def test_merged_the_model_answers_as_base_and_adapter_do(tuned: Path, tmp_path: Path) -> None:
    merged = lora_run(tmp_path, out="merged", epochs=1)
    assert engine(merged, "lora", timeout_s=240).returncode == 0
    apart = lora_run(tmp_path / "apart", epochs=1)
    assert engine(apart, "lora", timeout_s=240).returncode == 0
    ids = torch.arange(3, 30)[None]
    one = AutoModelForCausalLM.from_pretrained(str(tmp_path / "result" / "merged")).eval()
    assert type(one).__name__ == "LlamaForCausalLM"
    base = AutoModelForCausalLM.from_pretrained(str(apart.parent / "base"))
    other = PeftModel.from_pretrained(base, str(apart.parent / "result" / "adapter")).eval()
    assert torch.allclose(one(input_ids=ids).logits, other(input_ids=ids).logits, atol=1e-3)


@pytest.mark.parametrize("template", [TEMPLATE, None])
def test_only_what_the_assistant_says_is_learned(tmp_path: Path, template: str | None) -> None:
    make_base(tmp_path / "base", template=template)
    (tmp_path / "chats.jsonl").write_text("\n".join(json.dumps(chat) for chat in chats()[:6]))
    tokenizer, _ = load_base(tmp_path / "base")
    spec = LoraSpec(run_id="r", base="base", chats="chats.jsonl")
    first = read_chats(tmp_path / "chats.jsonl", spec, tokenizer)[0]
    learned = tokenizer.decode(first.tokens[first.learned])
    answer, question = (chats()[0]["messages"][at]["content"] for at in (1, 0))
    assert answer.split()[1] in learned
    assert question not in learned
    assert "<|assistant|>" not in learned
    assert first.learned[-1]  # to stop is learned too


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "line 1: a line is"),
        ('{"messages": []}', "messages are a list"),
        ('{"messages": [{"role": "robot", "content": "x"}]}', "message 1 needs content and a role"),
        ('{"messages": [{"role": "user", "content": "x"}]}', "0 chats in which the assistant speaks"),
    ],
)
def test_a_bad_chat_is_named_with_its_line(tmp_path: Path, line: str, said: str) -> None:
    make_base(tmp_path / "base")
    (tmp_path / "chats.jsonl").write_text(line)
    tokenizer, _ = load_base(tmp_path / "base")
    with pytest.raises(BadData, match=said):
        read_chats(
            tmp_path / "chats.jsonl", LoraSpec(run_id="r", base="base", chats="chats.jsonl"), tokenizer
        )


def test_pickled_weights_are_never_loaded(tmp_path: Path) -> None:
    spec = lora_run(tmp_path)
    weights = tmp_path / "base" / "model.safetensors"
    weights.rename(weights.with_name("pytorch_model.bin"))
    assert engine(spec, "lora").returncode == Exit.BAD_DATA
    (error,) = events(spec, EventKind.ERROR)
    assert "Pickled weights are never loaded" in error.data["text"]


def test_a_spec_that_cannot_be_read_ends_as_it_does_for_every_run(tmp_path: Path) -> None:
    spec = tmp_path / "lora.json"
    spec.write_bytes(b"\xff\xfe")
    done = engine(spec, "lora")
    assert done.returncode == Exit.BAD_SPEC
    (error,) = events(spec, EventKind.ERROR)
    assert "lora.json cannot be read" in error.data["text"]
    assert "BadSpec" in error.data["traceback"] and "BadSpec" in done.stderr
    assert not (tmp_path / "result").exists()


@pytest.mark.parametrize(
    ("field", "value"),
    [("base", "../base"), ("out", "both"), ("rank", 0), ("holdout", 1.0), ("colour", "red")],
)
def test_a_wrong_field_is_named(field: str, value: Any) -> None:
    raw = {"run_id": "r", "base": "base", "chats": "c.jsonl", field: value}
    with pytest.raises(BadSpec) as caught:
        LoraSpec.from_json(json.dumps(raw))
    assert caught.value.pointer == f"/{field}"
