"""What the web and the engine agree on: the run spec, event kinds, exit codes and file names.

Standard library only. This is the one file of `trainer` that the web may import, and the one place
where a name that crosses the border is written down.

A run folder looks like this; every path below is relative to it::

    spec.json           RunSpec, written by the web before the engine starts
    data/               the dataset version in clear: table.csv, table.jsonl, or images/<class>/<file>
    events.jsonl        one Event a line, appended by rank 0 (and by the engine's own phases)
    checkpoints/        step-<n>/, newest complete one is resumed
    control.json        written by the web: {"cancel": true} asks for a clean stop
    result/manifest.json    Manifest: the variants and their report, written last and atomically
    result/<variant>/   one bundle per variant: bundle.json, model.onnx, model.safetensors
    result/last-good.safetensors    instead of all that, after a loss that was no number: the newest weights
                        that were still numbers, with their step in the header

bundle.json holds all that serving needs besides the graph, so that a client may send raw rows::

    {"schema": 1, "recipe": ..., "variant": ..., "classes": [...],
     "inputs": [{"name": "image", "datatype": "FP32", "shape": [-1, 1, 8, 8]}],   v2 datatypes
     "outputs": [{"name": "probabilities", "datatype": "FP32", "shape": [-1, 10]},
                 {"name": "label", "datatype": "BYTES", "shape": [-1]}],
     "transform": {...recipe's own fitted numbers...},
     "sha256": {"model.onnx": ..., "model.safetensors": ...},
     "sample": {"image": [...one real held-out row, as JSON...]},
     "profile": {...}}   histograms of the training rows (trainer.gauges), where there are any

Images are one FP32 tensor with pixels in 0..1; text is one BYTES tensor "text" of shape [-1]; tabular has one
input per column, FP32 for numbers and BYTES for words, each of shape [-1].
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from trainer.predicting import BUNDLE_DIR as BUNDLE_DIR
from trainer.predicting import PREDICTIONS_CSV as PREDICTIONS_CSV
from trainer.predicting import PREDICTIONS_JSONL as PREDICTIONS_JSONL
from trainer.predicting import ROWS_FILE as ROWS_FILE
from trainer.predicting import PredictManifest as PredictManifest
from trainer.predicting import PredictSpec as PredictSpec
from trainer.reading import BadSpec as BadSpec
from trainer.reading import build, choice, object_at, require
from trainer.roles import COLUMNS as COLUMNS
from trainer.roles import NEEDS as NEEDS
from trainer.roles import Learns as Learns
from trainer.roles import Needs as Needs
from trainer.roles import Quality as Quality
from trainer.roles import Recipe as Recipe
from trainer.training import COMPILE as COMPILE
from trainer.training import PRIVATE as PRIVATE
from trainer.training import SCHEDULES as SCHEDULES
from trainer.training import WATCHED_METRICS as WATCHED_METRICS
from trainer.training import EarlyStopping as EarlyStopping
from trainer.training import TrainingSpec as TrainingSpec
from trainer.training import check_privacy, check_training, read_training

SCHEMA_VERSION = 1

SPEC_FILE = "spec.json"
DATA_DIR = "data"
EVENTS_FILE = "events.jsonl"
CONTROL_FILE = "control.json"
CHECKPOINTS_DIR = "checkpoints"
RESULT_DIR = "result"
COLD_BECAUSE = "TAUON_COLD_BECAUSE"  # in the environment: why torchrun starts this run, for its log
MANIFEST_FILE = "manifest.json"
BUNDLE_FILE = "bundle.json"
ONNX_FILE = "model.onnx"
SAFETENSORS_FILE = "model.safetensors"
LAST_GOOD_FILE = "last-good.safetensors"

FORMATS = ("csv", "jsonl", "images")
OPTIMIZERS = ("sgd", "adam", "adamw", "adafactor")


class Precision(StrEnum):
    FP32 = "fp32"
    BF16 = "bf16"
    FP16 = "fp16"


class Method(StrEnum):
    """Compression methods a spec may ask for; `none` is always measured beside them."""

    INT8 = "int8"  # 8-bit integers: smaller, and faster where the processor has instructions for them
    PRUNE = "prune"  # magnitude pruning: zeros, which show once the file is compressed
    STRUCTURED = "structured"  # narrower layers: whole channels and hidden units taken out
    DISTILL = "distill"  # a small student taught by the trained network
    LOWRANK = "lowrank"  # a large matrix as the product of two thin ones
    VOCABULARY = "vocabulary"  # rows of a text table that hardly say anything taken out
    SHARE = "share"  # the same numbers in several places: two short tables for a long one, one block for all
    WEIGHTS8 = "weights8"  # weights stored in 8 bits and unpacked on loading: smaller, as fast as before
    WEIGHTS4 = "weights4"  # the same in 4 bits


class EventKind(StrEnum):
    """Kinds of a line in events.jsonl, with the keys of its `data`."""

    STATE = "state"  # {"phase": "starting|training|predicting|evaluating|compressing|exporting|done|cancelled|preempted"}
    PROGRESS = "progress"  # {"step": int, "total_steps": int, "epoch": int, "eta_s": float | None}
    # a step done again after a restart is told again, with the same value
    METRIC = "metric"  # {"step": int, "name": "train/loss", "value": float}
    LOG = "log"  # {"level": "info|warning|error", "text": str}
    CHECKPOINT = "checkpoint"  # {"step": int, "path": str}
    # of rank 0, every few seconds; "gpus" only where NVML answers, energy since the run began
    RESOURCE = (
        "resource"  # {"rss_bytes", "cpu_percent", "gpus": [{"memory_bytes", "busy_percent", "energy_j"}]}
    )
    VARIANT = "variant"  # one VariantReport as a dict, as soon as it is measured
    ERROR = "error"  # {"reason": Failure value, "text": str, "traceback": str}


class Failure(StrEnum):
    """Why the engine gave up; the web maps each to a status, a text and whether a retry helps."""

    BAD_SPEC = "bad_spec"
    BAD_DATA = "bad_data"
    DIVERGED = "diverged"
    OUT_OF_MEMORY = "out_of_memory"
    DISK_FULL = "disk_full"
    STALLED = "stalled"  # no step was finished for too long: a process or a machine hangs
    KILLED = "killed"  # a process was killed from outside: by a person, or by Linux for want of memory
    CRASHED = "crashed"


class Exit:
    """Exit codes of `python -m trainer`; torchrun hides a rank's code, so events.jsonl says why as well."""

    OK = 0
    CRASHED = 1
    BAD_SPEC = 64  # EX_USAGE
    BAD_DATA = 65  # EX_DATAERR
    PREEMPTED = 75  # EX_TEMPFAIL: saved a checkpoint on SIGTERM, start again to go on
    CANCELLED = 76  # control.json asked for it
    KILLED = 137  # a process of the gang was killed from outside (128 + SIGKILL)


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSpec:
    """Where the rows are and which columns play which part."""

    path: str  # relative to the run folder: "data/table.csv", "data/table.jsonl" or "data/images"
    format: str  # "csv" | "jsonl" | "images"
    label: str | None = None  # name of the label column; None for images, where the folder is the label
    text: str | None = None  # name of the text column; of the items' texts for recommendation
    features: tuple[str, ...] = ()  # columns to learn from, tabular recipes; empty means all but the label
    topic: str | None = None  # the second thing to tell, sentiment recipe
    answer: str | None = None  # what is to be answered, intent recipe
    user: str | None = None  # who chose `item`, what they gave it and when: recommendation
    item: str | None = None
    rating: str | None = None
    time: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HyperParameters:
    """What the loop may be told. Names follow torch."""

    epochs: int = 10
    batch_size: int = 64  # global: rows of all processes together in one optimizer step
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    optimizer: str = "adamw"  # one of OPTIMIZERS
    holdout: float = 0.2  # share of rows never trained on; quality and the gate are measured there
    seed: int = 7


def usual(recipe: Recipe) -> HyperParameters:
    """What a recipe is trained with when nobody says otherwise."""
    return HyperParameters(**NEEDS[recipe].usual)  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """What the run gets. `processes` are those of all nodes together."""

    processes: int = 1
    min_processes: int | None = None  # it may run with as few, on the same batches; None: not with fewer
    gpus: int = 0  # in all: 0, or one for each process
    precision: Precision = Precision.FP32
    nodes: int = 1  # machines that share the processes evenly; each is started with `trainer.launch`


@dataclass(frozen=True, slots=True, kw_only=True)
class CompressionSpec:
    methods: tuple[Method, ...] = (Method.INT8, Method.PRUNE)
    max_accuracy_drop: float = 0.01  # share, not points: 0.01 lets accuracy fall from 0.98 to 0.97
    sparsity: float = 0.5  # share of weights that magnitude pruning sets to zero


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSpec:
    """One training run, complete: nothing else tells the engine what to do."""

    run_id: str
    recipe: Recipe
    data: DataSpec
    hyperparameters: HyperParameters = field(default_factory=HyperParameters)
    resources: Resources = field(default_factory=Resources)
    compression: CompressionSpec = field(default_factory=CompressionSpec)
    training: TrainingSpec = field(default_factory=TrainingSpec)
    schema: int = SCHEMA_VERSION

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=2)

    @classmethod
    def from_json(cls, text: str) -> RunSpec:
        """Read a spec back, or raise BadSpec naming the field."""
        try:
            raw = json.loads(text)
        except ValueError as error:
            raise BadSpec("", f"this is not JSON: {error}") from None
        if not isinstance(raw, dict):
            raise BadSpec("", "a run spec is a JSON object")
        if raw.get("schema") != SCHEMA_VERSION:
            raise BadSpec("/schema", f"this engine reads schema {SCHEMA_VERSION}, not {raw.get('schema')!r}")
        if "recipe" not in raw:
            raise BadSpec("/recipe", "is required")
        data = dict(object_at(raw, "data"))
        resources = dict(object_at(raw, "resources"))
        compression = dict(object_at(raw, "compression"))
        data["features"] = tuple(data.get("features", ()))
        resources["precision"] = choice(Precision, resources.get("precision", "fp32"), "/resources/precision")
        compression["methods"] = tuple(
            choice(Method, name, "/compression/methods")
            for name in compression.get("methods", ("int8", "prune"))
        )
        spec = build(
            cls,
            {
                **raw,
                "recipe": choice(Recipe, raw["recipe"], "/recipe"),
                "data": build(DataSpec, data, "/data"),
                "hyperparameters": build(
                    HyperParameters, object_at(raw, "hyperparameters"), "/hyperparameters"
                ),
                "resources": build(Resources, resources, "/resources"),
                "compression": build(CompressionSpec, compression, "/compression"),
                "training": read_training(dict(object_at(raw, "training"))),
            },
            "",
        )
        spec.check()
        return spec

    def check(self) -> None:
        """Raise BadSpec for a number or a path that no run could use."""
        hyper, data = self.hyperparameters, self.data
        require(data.format in FORMATS, "/data/format", f"must be one of {', '.join(FORMATS)}")
        require(data.format in NEEDS[self.recipe].formats, "/data/format", f"{self.recipe} cannot read this")
        inside = bool(data.path) and not data.path.startswith("/") and ".." not in data.path.split("/")
        require(inside, "/data/path", "must stay inside the run folder")
        require(hyper.epochs >= 1, "/hyperparameters/epochs", "must be at least 1")
        require(hyper.batch_size >= 1, "/hyperparameters/batch_size", "must be at least 1")
        require(0 < hyper.learning_rate < math.inf, "/hyperparameters/learning_rate", "must be above 0")
        require(0 <= hyper.weight_decay < math.inf, "/hyperparameters/weight_decay", "must not be negative")
        known = ", ".join(OPTIMIZERS)
        require(hyper.optimizer in OPTIMIZERS, "/hyperparameters/optimizer", f"must be one of {known}")
        require(0 < hyper.holdout < 1, "/hyperparameters/holdout", "must be between 0 and 1")
        require(0 <= hyper.seed < 2**32, "/hyperparameters/seed", "must be between 0 and 4294967295")
        require(self.resources.processes >= 1, "/resources/processes", "must be at least 1")
        fewest, most = self.resources.min_processes, self.resources.processes
        fits = fewest is None or 1 <= fewest <= most
        require(fits, "/resources/min_processes", f"must be between 1 and processes ({most})")
        nodes = self.resources.nodes
        require(nodes >= 1 and most % nodes == 0, "/resources/nodes", f"must share {most} processes evenly")
        require(self.resources.gpus >= 0, "/resources/gpus", "must not be negative")
        require(
            0 <= self.compression.max_accuracy_drop <= 1,
            "/compression/max_accuracy_drop",
            "is a share between 0 and 1",
        )
        require(0 < self.compression.sparsity < 1, "/compression/sparsity", "must be between 0 and 1")
        check_training(self.training)
        check_privacy(self.training, self.recipe, self.resources.processes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One line of events.jsonl. `seq` starts at 1 and has no gaps within one attempt's file."""

    seq: int
    at: str  # RFC 3339 UTC with microseconds, the engine's own clock: shown, never billed
    kind: EventKind
    data: dict[str, Any]

    def to_line(self) -> str:
        return json.dumps({"seq": self.seq, "at": self.at, "kind": self.kind, "data": self.data}) + "\n"

    @classmethod
    def from_line(cls, line: str) -> Event:
        raw = json.loads(line)
        return cls(seq=raw["seq"], at=raw["at"], kind=EventKind(raw["kind"]), data=raw["data"])


@dataclass(frozen=True, slots=True, kw_only=True)
class VariantReport:
    """What one variant measured on the held-out rows, on this machine, in one process with one thread."""

    name: str  # "original", "int8", "prune", "prune-int8", "structured-30-lowrank-int8", ...
    method: str  # one plain sentence: what was done
    size_bytes: int  # of model.onnx
    compressed_size_bytes: int  # of model.onnx after DEFLATE: where unstructured zeros show
    accuracy: float  # mean score of the held-out rows; Manifest.quality says what a score is
    accuracy_drop: float  # original.accuracy - accuracy; negative means better
    holdout_rows: int
    latency_p50_ms: float  # batch 1
    latency_p95_ms: float
    max_abs_difference: float  # of the probabilities against the torch original on the same rows
    passed_gate: bool
    verdict: str  # honest sentence, such as "3.8x smaller, 1.2x slower here"
    accuracy_low: float | None = None  # 95 % interval of the accuracy (Wilson)
    accuracy_high: float | None = None
    drop_high: float | None = None  # with 95 % confidence the drop is no larger: paired, on the same rows
    figures: dict[str, float] = field(default_factory=dict)  # further measures by name, such as "MAE"
    beats_baseline: bool | None = None  # with 95 % confidence better than Manifest.baseline, on the same rows
    source: str | None = None  # of one that stores another variant's numbers in fewer bits: that other's name


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """What the simplest guess scores on the held-out rows: a model must be better to be worth anything."""

    name: str  # how it guesses: "commonest class"
    value: float  # on the scale of VariantReport.accuracy


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """A combination that was made and measured and that another one beats in size, latency and quality alike."""

    name: str
    size_bytes: int
    accuracy: float
    latency_p50_ms: float
    verdict: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Eager:
    """The original in PyTorch itself, one row and one thread, in turns with its own file in ONNX Runtime."""

    latency_p50_ms: float
    original_p50_ms: float  # of the file, in these turns


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """The result of a finished run. `chosen` is the variant the gate picked; "original" when none passed."""

    recipe: Recipe
    chosen: str
    variants: tuple[VariantReport, ...]
    classes: tuple[str, ...]
    baseline_accuracy: float  # what the simplest guess scores, such as the most frequent class
    rows_trained: int
    steps: int
    machine: str
    quality: str = Quality.ACCURACY  # what `accuracy` of the variants is: one of Quality
    baseline: Baseline | None = None  # None: a run of an older engine
    privacy: dict[str, float] | None = None  # {"epsilon", "delta", ...} of a privately trained model
    beats_baseline: bool | None = None  # of the chosen variant; False: no better than guessing, so warn
    eager: Eager | None = None
    left_out: tuple[LeftOut, ...] = ()

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=2)

    @classmethod
    def from_json(cls, text: str) -> Manifest:
        raw = json.loads(text)
        return cls(
            **{
                **raw,
                "recipe": Recipe(raw["recipe"]),
                "variants": tuple(VariantReport(**variant) for variant in raw["variants"]),
                "classes": tuple(raw["classes"]),
                "baseline": Baseline(**raw["baseline"]) if raw.get("baseline") else None,
                "eager": Eager(**raw["eager"]) if raw.get("eager") else None,
                "left_out": tuple(LeftOut(**one) for one in raw.get("left_out", ())),
            }
        )


def read_events(path: Path, offset: int = 0) -> tuple[list[Event], int]:
    """Read whole lines from byte `offset` on; returns the events and the offset to go on from.

    A last line without a newline is still being written and is left for the next call.
    """
    if not path.exists():
        return [], offset
    with path.open("rb") as file:
        file.seek(offset)
        chunk = file.read()
    end = chunk.rfind(b"\n") + 1
    return [Event.from_line(line) for line in chunk[:end].decode().splitlines() if line], offset + end
