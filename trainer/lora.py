"""Fine-tune a causal language model with LoRA (Hu and others, 2021): `python -m trainer lora lora.json`.

The base is a Hugging Face folder (config.json, safetensors, tokenizer.json) beside lora.json; the data are chats in
JSON Lines, one `{"messages": [{"role": "user", "content": "..."}, {"role": "assistant", ...}]}` a line. Only what
the assistant says is learned. Out comes the adapter in PEFT's own format, or the base with the adapter merged in;
the base folder is only read. Whole chats are held out, and the loss before and after says what was gained.

Needs the extra `[llm]`. Nothing is fetched, no code of the base is run, and weights are read from safetensors alone.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoModelForCausalLM, AutoTokenizer

from trainer import optim
from trainer.contract import RESULT_DIR
from trainer.control import Control
from trainer.data import epoch_order
from trainer.events import Events
from trainer.failures import BadData, Diverged
from trainer.files import replace_atomically
from trainer.guard import Stage, guarded
from trainer.reading import BadSpec, build, require

IGNORED = -100
ROLES = ("system", "user", "assistant")


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraSpec:
    """One fine-tuning run, complete. Paths are relative to the folder of lora.json."""

    run_id: str
    base: str
    chats: str
    out: str = "adapter"  # or "merged"
    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.05
    epochs: int = 3
    batch_size: int = 8
    learning_rate: float = 2e-4
    holdout: float = 0.1
    max_tokens: int = 1024  # of one chat; what is longer is cut at its beginning
    seed: int = 7

    @classmethod
    def from_json(cls, text: str) -> LoraSpec:
        """Read a spec, or raise BadSpec naming the field."""
        try:
            raw = json.loads(text)
        except ValueError as error:
            raise BadSpec("", f"this is not JSON: {error}") from None
        require(isinstance(raw, dict), "", "a spec is a JSON object")
        spec = build(cls, raw, "")
        for name in ("base", "chats"):
            path = getattr(spec, name)
            inside = bool(path) and not path.startswith("/") and ".." not in path.split("/")
            require(inside, f"/{name}", "must stay inside the run folder")
        require(spec.out in ("adapter", "merged"), "/out", "must be adapter or merged")
        for name in ("rank", "epochs", "batch_size", "max_tokens"):
            require(getattr(spec, name) >= 1, f"/{name}", "must be at least 1")
        require(0 < spec.learning_rate < math.inf, "/learning_rate", "must be above 0")
        require(0 < spec.holdout < 1, "/holdout", "must be between 0 and 1")
        return spec


@dataclass(frozen=True, slots=True, kw_only=True)
class Chat:
    """One chat as tokens; `learned` are those the assistant said."""

    tokens: Tensor
    learned: Tensor


def tune(path: Path) -> int:
    """Run the whole of it; returns an exit code, as the other commands do."""
    return guarded(path, _act)


def _act(stage: Stage) -> None:
    _tune(stage.folder, LoraSpec.from_json(stage.read()), stage.events, stage.control)
    stage.events.state("done")


def _tune(folder: Path, spec: LoraSpec, events: Events, control: Control) -> None:
    torch.manual_seed(spec.seed)
    tokenizer, base = load_base(folder / spec.base)
    chats = read_chats(folder / spec.chats, spec, tokenizer)
    order = np.random.default_rng([spec.seed, 0x5117]).permutation(len(chats))
    count = min(max(1, round(len(chats) * spec.holdout)), len(chats) - 1)
    held, train = [chats[at] for at in order[:count]], [chats[at] for at in order[count:]]
    config = LoraConfig(
        r=spec.rank,
        lora_alpha=spec.alpha,  # type: ignore[arg-type]
        lora_dropout=spec.dropout,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model: Any = get_peft_model(base, config).to(device)
    trained = sum(one.numel() for one in model.parameters() if one.requires_grad)
    whole = sum(one.numel() for one in model.parameters())
    events.log(
        f"{len(train):,} chats to learn from, {len(held):,} held out; "
        f"{trained:,} of {whole:,} weights are trained ({100 * trained / whole:.2f} %)."
    )
    before = measure(model, held, spec)
    events.metric("val/loss", before, step=0)
    events.state("training")
    steps = _learn(model, train, held, spec, events, control)
    after = measure(model, held, spec)
    events.state("exporting")
    out = folder / RESULT_DIR / spec.out
    if spec.out == "merged":
        model.merge_and_unload().save_pretrained(out, safe_serialization=True)
        tokenizer.save_pretrained(out)
    else:
        model.save_pretrained(out, safe_serialization=True)
    report = {
        **asdict(spec),
        "steps": steps,
        "trained_weights": trained,
        "all_weights": whole,
        "loss_before": before,
        "loss_after": after,
        "perplexity_before": math.exp(min(before, 50.0)),
        "perplexity_after": math.exp(min(after, 50.0)),
        "held_out_chats": len(held),
    }
    replace_atomically(folder / RESULT_DIR / "lora.json", json.dumps(report, indent=2).encode())
    events.log(
        f"Held-out perplexity: {report['perplexity_before']:.2f} before, {report['perplexity_after']:.2f} after."
    )


def _learn(
    model: nn.Module, train: list[Chat], held: list[Chat], spec: LoraSpec, events: Events, control: Control
) -> int:
    weights = [one for one in model.parameters() if one.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=spec.learning_rate, weight_decay=0.0)
    per_epoch = -(-len(train) // spec.batch_size)
    total, step = per_epoch * spec.epochs, 0
    for epoch in range(spec.epochs):
        order = epoch_order(len(train), seed=spec.seed, epoch=epoch)
        for first in range(0, len(order), spec.batch_size):
            control.stop_here()
            chosen = [train[at] for at in order[first : first + spec.batch_size]]
            optim.set_learning_rate(
                optimizer, optim.learning_rate(step, total_steps=total, peak=spec.learning_rate)
            )
            model.train()
            loss = loss_of(model, chosen) / sum(int(chat.learned.sum()) for chat in chosen)
            if not torch.isfinite(loss):
                raise Diverged(
                    f"The loss became {loss.item()} at step {step + 1}: try a smaller learning_rate."
                )
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(weights, 1.0)
            optimizer.step()
            step += 1
            events.step_metric("train/loss", loss.item(), step=step)
            events.progress(step=step, total_steps=total, epoch=epoch + 1, eta_s=None)
        events.metric("val/loss", measure(model, held, spec), step=step)
    return step


def load_base(folder: Path) -> tuple[Any, nn.Module]:
    """Tokenizer and model of a Hugging Face folder, from safetensors and without running its code."""
    if not (folder / "config.json").is_file():
        raise BadData(f"{folder.name} has no config.json: it is not a Hugging Face model folder.")
    if not list(folder.glob("*.safetensors")):
        raise BadData(
            f"{folder.name} has no .safetensors file. Pickled weights are never loaded: convert them."
        )
    only = {"local_files_only": True, "trust_remote_code": False}
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder), **only)
        model = AutoModelForCausalLM.from_pretrained(
            str(folder), use_safetensors=True, dtype=torch.float32, **only
        )
    except (OSError, ValueError, KeyError) as error:
        raise BadData(f"{folder.name} cannot be loaded as a causal language model: {error}") from None
    return tokenizer, model


def read_chats(path: Path, spec: LoraSpec, tokenizer: Any) -> list[Chat]:
    """Chats as tokens, or BadData naming the line."""
    found: list[Chat] = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        place = f"{spec.chats}, line {number}"
        try:
            messages = json.loads(line)["messages"]
        except (ValueError, KeyError, TypeError):
            raise BadData(
                f'{place}: a line is {{"messages": [{{"role": "user", "content": "..."}}, ...]}}.'
            ) from None
        found.append(_tokens(_checked(messages, place), spec, tokenizer))
    learnable = [chat for chat in found if bool(chat.learned.any())]
    if len(learnable) < 4:
        raise BadData(
            f"{spec.chats} holds {len(learnable)} chats in which the assistant speaks: at least 4 are needed."
        )
    return learnable


def _checked(messages: Any, place: str) -> list[dict[str, str]]:
    if not isinstance(messages, list) or not messages:
        raise BadData(f"{place}: messages are a list with one object or more.")
    for at, message in enumerate(messages):
        right = isinstance(message, dict) and isinstance(message.get("content"), str)
        if not right or message.get("role") not in ROLES:
            raise BadData(f"{place}: message {at + 1} needs content and a role out of {', '.join(ROLES)}.")
    return messages


def _tokens(messages: list[dict[str, str]], spec: LoraSpec, tokenizer: Any) -> Chat:
    """The chat in the base's own template when it has one, else in plain lines; each part knows who said it."""
    tokens: list[int] = []
    learned: list[bool] = []
    for text, by_assistant in _parts(messages, tokenizer):
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        tokens += ids
        learned += [by_assistant] * len(ids)
    if tokenizer.eos_token_id is not None:
        tokens.append(tokenizer.eos_token_id)
        learned.append(messages[-1]["role"] == "assistant")
    learned[0] = False  # nothing comes before the first token, so nothing foretells it
    cut = slice(-spec.max_tokens, None)
    return Chat(tokens=torch.tensor(tokens[cut]), learned=torch.tensor(learned[cut]))


def _parts(messages: list[dict[str, str]], tokenizer: Any) -> Iterator[tuple[str, bool]]:
    if getattr(tokenizer, "chat_template", None):
        said = ""
        for count, message in enumerate(messages, start=1):
            by_assistant = message["role"] == "assistant"
            if by_assistant:  # what opens an answer is given, not learned
                opened = tokenizer.apply_chat_template(
                    messages[: count - 1], tokenize=False, add_generation_prompt=True
                )
                if opened.startswith(said):
                    yield opened[len(said) :], False
                    said = opened
            whole = tokenizer.apply_chat_template(messages[:count], tokenize=False)
            yield whole[len(said) :], by_assistant
            said = whole
        return
    for message in messages:
        yield f"{message['role']}: ", False
        yield f"{message['content']}\n", message["role"] == "assistant"


def loss_of(model: nn.Module, chats: list[Chat]) -> Tensor:
    """The sum over the assistant's tokens of how surprising each was."""
    device = next(model.parameters()).device
    ids_BT = nn.utils.rnn.pad_sequence([chat.tokens for chat in chats], batch_first=True).to(device)
    learned_BT = nn.utils.rnn.pad_sequence([chat.learned for chat in chats], batch_first=True).to(device)
    lengths_B1 = torch.tensor([[len(chat.tokens)] for chat in chats], device=device)
    there_BT = (torch.arange(ids_BT.shape[1], device=device) < lengths_B1).long()
    logits_BTV = model(input_ids=ids_BT, attention_mask=there_BT).logits[:, :-1].float()
    wanted_BT = torch.where(learned_BT[:, 1:], ids_BT[:, 1:], IGNORED)
    return functional.cross_entropy(
        logits_BTV.transpose(1, 2), wanted_BT, ignore_index=IGNORED, reduction="sum"
    )


def measure(model: nn.Module, chats: list[Chat], spec: LoraSpec) -> float:
    """Mean loss of the assistant's tokens in chats that were never learned from."""
    model.eval()
    total = 0.0
    with torch.inference_mode():
        for first in range(0, len(chats), spec.batch_size):
            total += float(loss_of(model, chats[first : first + spec.batch_size]))
    return total / sum(int(chat.learned.sum()) for chat in chats)
