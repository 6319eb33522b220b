"""The engine's front door: python -m trainer run|train|compress|evaluate|lora|predict|serve."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path


def main(arguments: list[str] | None = None) -> int:
    """Read the command and start it. Positional arguments only: torchrun eats abbreviated flags."""
    parser = argparse.ArgumentParser(prog="python -m trainer", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, does in (
        ("run", "train, evaluate, compress, measure, gate and export"),
        ("train", "train only; the result is the last checkpoint"),
        ("compress", "export, compress and measure the last checkpoint"),
    ):
        commands.add_parser(name, help=does).add_argument(
            "spec", type=Path, help="spec.json in its run folder"
        )
    evaluate = commands.add_parser("evaluate", help="measure bundles on held-out rows and print JSON")
    evaluate.add_argument("bundle", type=Path, nargs="+", help="folder with bundle.json")
    evaluate.add_argument("holdout", type=Path, help="held-out rows, as the engine saves them (.npz)")
    lora = commands.add_parser("lora", help="fine-tune a Hugging Face folder on chats")
    lora.add_argument("config", type=Path, help="lora.json in its run folder")
    predict = commands.add_parser("predict", help="answer every row of a dataset with a bundle")
    predict.add_argument("spec", type=Path, help="spec.json in its run folder")
    serve = commands.add_parser("serve", help="answer inference requests on a Unix socket")
    serve.add_argument("config", type=Path, help="serve.json")
    chosen = parser.parse_args(arguments)

    # Imported where needed: serve and evaluate must stay light, and torch alone takes over a second.
    if chosen.command == "serve":
        from trainer.serve import serve as serve_model

        return serve_model(chosen.config)
    if chosen.command == "predict":
        from trainer.predict import predict as predict_rows

        return predict_rows(chosen.spec)
    if chosen.command == "lora":
        from trainer.lora import tune

        return tune(chosen.config)
    if chosen.command == "evaluate":
        from trainer.control import die_with_parent
        from trainer.evaluate import measure

        die_with_parent()
        print(json.dumps(measure(chosen.bundle, chosen.holdout)))
        return 0
    from trainer import engine

    phases = {"run": engine.run_all, "train": engine.run_training, "compress": engine.run_compression}
    code = phases[chosen.command](chosen.spec)
    if code:
        engine.leave_now(code)
    return code


if __name__ == "__main__":
    sys.exit(main())
