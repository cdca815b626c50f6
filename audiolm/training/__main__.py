"""`python -m audiolm.training COMMAND …`: every step from a corpus to a checkpoint's components."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
from pathlib import Path

import torch

from audiolm.errors import AudioLMError
from audiolm.training.loop import LoopOptions, Trainer, setup_device

GRADIENT_TASKS = {
    "codec": "SoundStream: spectral and, if asked for, adversarial losses",
    "semantic": "w2v-BERT pre-training",
    "stage": "one of the three language models",
    "guided-stage": "a stage that follows its condition more closely, as guidance would have it",
    "masked-stage": "the fine stage that fills whole windows in parallel",
    "detector": "generated or original, with calibration",
}
COMMANDS = {
    "kmeans": "semantic tokenizer from a w2v-BERT run, or with new clusters from its own",
    "tokens": "token cache of a corpus",
    "detector-data": "generated and original audio for the detector",
    "detector-views": "what the detector's branches hear of it",
    "detector-rebuild": "all of a detector's steps in one, with its figures in the card",
    "curves": "the losses of runs as a picture",
}


def main(argv: list[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(prog="python -m audiolm.training", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in (GRADIENT_TASKS | COMMANDS).items():
        command = commands.add_parser(name, help=text)
        if argv[:1] != [name]:
            continue
        module = importlib.import_module(f"audiolm.training.{name.replace('-', '_')}")
        if name in GRADIENT_TASKS:
            _loop_arguments(command)
        module.add_arguments(command)
        command.set_defaults(module=module)
    args = parser.parse_args(argv)
    try:
        if args.command in GRADIENT_TASKS:
            _train(args)
        else:
            args.module.run(args)
    except AudioLMError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _train(args: argparse.Namespace) -> None:
    options = LoopOptions(
        steps=args.steps,
        max_minutes=args.max_minutes,
        learning_rate=args.lr,
        final_learning_rate_ratio=args.final_lr_ratio,
        warmup_steps=args.warmup_steps,
        weight_decay=args.weight_decay,
        average_decay=args.average_decay,
        validate_minutes=args.validate_minutes,
        keep_best=args.keep_best,
        seed=args.seed,
        precision=args.precision,
    )
    args.device = setup_device(args.device, args.threads)
    torch.manual_seed(args.seed + int(os.environ.get("RANK", 0)))
    task = args.module.build(args)
    trainer = Trainer(task, args.out, options, args.device)
    if args.resume:
        trainer.resume()
    figures = trainer.run()
    if trainer.world > 1:
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()
    if trainer.rank != 0:
        return
    print(json.dumps(figures | task.finish(args.out), indent=1))


def _loop_arguments(parser: argparse.ArgumentParser) -> None:
    defaults = LoopOptions()
    parser.add_argument("--out", type=Path, required=True, help="run folder to write")
    parser.add_argument("--resume", action="store_true", help="go on from the run in --out")
    parser.add_argument("--steps", type=int, default=defaults.steps)
    parser.add_argument("--max-minutes", type=float, default=defaults.max_minutes, help="wall-clock budget")
    parser.add_argument("--lr", type=float, default=defaults.learning_rate)
    parser.add_argument("--final-lr-ratio", type=float, default=defaults.final_learning_rate_ratio)
    parser.add_argument("--warmup-steps", type=int, default=defaults.warmup_steps)
    parser.add_argument("--weight-decay", type=float, default=defaults.weight_decay)
    parser.add_argument("--average-decay", type=float, default=defaults.average_decay)
    parser.add_argument("--validate-minutes", type=float, default=defaults.validate_minutes)
    parser.add_argument("--keep-best", action="store_true", help="keep the weights of the lowest validation loss")
    parser.add_argument("--seed", type=int, default=defaults.seed, help="repeats a run whose length --steps sets")
    parser.add_argument("--precision", choices=("bf16", "fp32"), default=defaults.precision)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")


if __name__ == "__main__":
    sys.exit(main())
