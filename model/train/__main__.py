"""The trainer's command line: `python -m model.train positions|rotary CHECKPOINT --out FOLDER`."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path

if not __package__:  # Run as a folder: Python has put this folder on the path instead of the repository.
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from model.export.errors import ExportError  # noqa: E402
from model.train.errors import TrainError  # noqa: E402
from model.train.texts import DEBIAN_TEXTS  # noqa: E402


def parse_arguments(arguments: list[str]) -> argparse.Namespace:
    description = "Tunes an encoder for long texts. Run the same command again to continue a run that was stopped."
    parser = argparse.ArgumentParser(prog="model.train", description=description)
    recipes = parser.add_subparsers(dest="recipe", required=True)
    positions = recipes.add_parser("positions", help="new rows for the position table, as E5-Base-4k; short texts keep their vectors to the bit")
    positions.add_argument("--stride", type=int, default=8, help="rows for each trained position (default 8: 512 tokens become 4,096)")
    rotary = recipes.add_parser("rotary", help="a student with rotary positions, distilled from a BERT, as E5-RoPE")
    for recipe, minutes, rate in ((positions, 60.0, 3e-4), (rotary, 60.0, 2e-4)):
        recipe.add_argument("checkpoint", metavar="NAME|DIR|HUB", help="what model.export takes: a known name, a folder, or owner/name of the hub")
        recipe.add_argument("--out", required=True, type=Path, metavar="FOLDER", help="the checkpoint to write; the state is in FOLDER/training")
        kinds = "files or folders: txt, md, rst, html, jsonl, each gzipped or not"
        recipe.add_argument("--texts", nargs="+", type=Path, metavar="PATH", help=f"{kinds} (default {DEBIAN_TEXTS}, English)")
        recipe.add_argument("--english", action="store_true", help="leave out texts that are not English prose (always so for the default texts)")
        budget = recipe.add_mutually_exclusive_group()
        budget.add_argument("--minutes", type=float, default=minutes, help=f"minutes of training, over all runs (default {minutes:.0f})")
        budget.add_argument("--steps", type=int, help="steps of training, instead of minutes")
        recipe.add_argument("--seed", type=int, default=0, help="seed of the order of texts and of batches (default 0)")
        recipe.add_argument("--learning-rate", type=float, default=rate, help=f"default {rate}")
        recipe.add_argument("--threads", type=int, default=os.cpu_count(), help="default: every core")
    return parser.parse_args(arguments)


def refuse_bad_numbers(options: argparse.Namespace) -> None:
    for name in ("minutes", "steps", "learning_rate", "threads"):
        value = getattr(options, name)
        if value is not None and not 0 < value < float("inf"):
            raise TrainError(f"--{name.replace('_', '-')} {value} is not above 0 and finite; correct it.")
    if options.recipe == "positions" and options.stride < 2:
        raise TrainError(f"--stride {options.stride} adds no rows; give at least 2.")


def run(options: argparse.Namespace) -> None:
    refuse_bad_numbers(options)
    from model.train import recipes  # Imports torch, which takes seconds.

    recipes.run(options)


def main(arguments: list[str] | None = None) -> int:
    try:
        run(parse_arguments(sys.argv[1:] if arguments is None else arguments))
    except (ExportError, TrainError) as error:
        print(f"Training failed: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"Training failed: {error.filename or 'a file'}: {error.strerror or error}; correct this, and run the same command again.", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Stopped; run the same command again to continue.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # SIGTERM is handled like SIGINT: the state is written before the program ends.
    sys.exit(main())
