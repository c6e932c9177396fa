"""longembed-bench: measures how well the ways of embedding long texts retrieve, on LongEmbed's tasks and on your own sets."""

from __future__ import annotations

import argparse
import importlib.util
import io
import json
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from longembed import TLS, Client, LongEmbedError

from . import advise, hub, recipes, report, runner, synthetic
from .corpus import Corpus, CorpusError, read_folder
from .embedders import EmbedderError
from .store import Store, write_whole

TASKS_HELP = "passkey, needle (generated); hub:SET (" + ", ".join(hub.SETS) + "); or a folder of PART.{docs,queries,qrels}.jsonl[.gz]"


def main(arguments: list[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    write_any_name(sys.stdout)
    try:
        refuse_missing_packages(options)
        return options.command(options)
    except (CorpusError, recipes.RecipeError, EmbedderError, LongEmbedError, ValueError, OSError, ImportError) as error:
        print(f"longembed-bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nlongembed-bench: stopped; run the same command again to continue", file=sys.stderr)
        return 130


def write_any_name(stream: TextIO) -> None:
    """Lets a stream write characters that its encoding lacks as escapes, as standard error does. Names of rows and sets may be in any script, and
    must not end a run."""
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="backslashreplace")


def refuse_missing_packages(options: argparse.Namespace) -> None:
    """Refuses to start without the packages that a command needs. pip installs the command without its extra, too."""
    needed = {"yaml": hasattr(options, "rows"), "matplotlib": not getattr(options, "no_pictures", options.command is not plot)}
    for name in (name for name, wanted in needed.items() if wanted and importlib.util.find_spec(name) is None):
        raise ImportError(f'{name} is not installed: pip install "longembed[bench]"')


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="longembed-bench", description=__doc__)
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    _run_parser(commands.add_parser("run", help="rows over tasks: JSON, a Markdown table and pictures for each task"))
    _passkey_parser(commands.add_parser("passkey", help="run over Passkey, or Needle, at eight lengths"))
    _advise_parser(
        commands.add_parser("advise", help="finds the recipe for a set by successive halving, and writes it as a profile or into a model's manifest")
    )
    _plot_parser(commands.add_parser("plot", help="a picture of one result or several"))
    _table_parser(commands.add_parser("table", help="one Markdown table of several results"))
    return top


def _run_parser(command: argparse.ArgumentParser) -> None:
    command.add_argument("tasks", nargs="+", metavar="TASK", help=TASKS_HELP)
    command.add_argument(
        "--rows", default="longembed", metavar="FILE|PRESET", help=f"recipes in YAML, or a preset: {', '.join(recipes.presets())} (default longembed)"
    )
    _measuring_arguments(command)
    command.set_defaults(command=run)


def _passkey_parser(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--needle", dest="tasks", action="store_const", const=["needle"], default=["passkey"], help="facts in prose in place of keys in filler"
    )
    command.add_argument("--rows", default="passkey", metavar="FILE|PRESET", help="recipes in YAML, or a preset (default passkey)")
    _measuring_arguments(command)
    command.set_defaults(command=run)


def _measuring_arguments(command: argparse.ArgumentParser) -> None:
    _server_arguments(command)
    command.add_argument("--only", nargs="+", default=[], metavar="ROW", help="run only these rows, and the rows that they sum")
    command.add_argument("--out", type=Path, default=Path("longembed-bench"), help="results go to OUT/TASK/MODEL (default longembed-bench)")
    command.add_argument("--store", type=Path, help="folder of the embeddings, which later runs reuse (default OUT/store)")
    command.add_argument("--parts", nargs="+", default=[], metavar="PART", help="for a folder: read only these parts of the set, such as dev")
    command.add_argument("--halves", nargs="+", dest="parts", default=argparse.SUPPRESS, help=argparse.SUPPRESS)  # The former name of --parts.
    command.add_argument("--lengths", type=int, nargs="+", default=list(synthetic.LENGTHS), metavar="TOKENS", help="nominal lengths of passkey and needle")
    command.add_argument("--haystack", type=Path, metavar="FILE", help="prose that needle hides its facts in (default: Persuasion, Jane Austen, public domain)")
    command.add_argument("--seed", type=_at_least(0, int), default=0, help="seed of keys, their places, and bootstrap draws (default 0)")
    command.add_argument("--quiet", action="store_true", help="no progress bars")
    command.add_argument("--no-pictures", action="store_true", help="draw no pictures")


def _server_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("--server", metavar="HOST:PORT", help="a running longembed-server; rows of bm25, openai and sentence_transformers need none")
    command.add_argument("--model", help="the model that embeds; optional if the server has only one")
    command.add_argument("--query-model", metavar="NAME", help="the model that embeds queries, for example the same weights in another precision")
    command.add_argument("--api-key", metavar="KEY", help="sent with every call")
    command.add_argument("--tls-ca", type=Path, metavar="FILE", help="use TLS, and trust the certificate authorities in this PEM file")
    command.add_argument("--timeout", type=_at_least(0.001), default=3600.0, metavar="SECONDS", help="longest time without an answer (default 3600)")


def _at_least(least: float, kind: Callable[[str], float] = float) -> Callable[[str], float]:
    """Returns a type for argparse: a number from `least` on. Refuses nan."""

    def number(text: str) -> float:
        value = kind(text)
        if not value >= least:
            raise argparse.ArgumentTypeError(f"is {text}; it must be at least {least}")
        return value

    number.__name__ = kind.__name__  # argparse names it where the text is no number.
    return number


def _advise_parser(command: argparse.ArgumentParser) -> None:
    command.add_argument("tasks", nargs=1, metavar="TASK", help=f"{TASKS_HELP}; one task, which must not be passkey or needle")
    command.add_argument("--rows", default="advise", metavar="FILE|PRESET", help="recipes to try, in YAML, or a preset (default advise)")
    command.add_argument("--objective", choices=advise.OBJECTIVES, default="one-vector", help="what the index keeps of a document (default one-vector)")
    command.add_argument("--max-vectors", type=_at_least(1), default=math.inf, metavar="N", help="maximum number of vectors per document, on average")
    command.add_argument("--within", type=_at_least(0), default=0.01, metavar="X", help="take the cheapest recipe within X of the best metric (default 0.01)")
    command.add_argument("--profile", metavar="NAME", help="write OUT/TASK/MODEL/advise/profile.yaml, for the server's config")
    command.add_argument("--manifest", type=Path, metavar="FOLDER", help="write the recommendation into this model's longembed-model.yaml")
    _measuring_arguments(command)
    command.set_defaults(command=advice)


def _plot_parser(command: argparse.ArgumentParser) -> None:
    command.add_argument("picture", choices=("heatmap", "gains", "cost", "position", "grids"), help="heatmap and gains take several results, the others one")
    command.add_argument("results", type=Path, nargs="+", metavar="RESULT", help="results.json, or the folder that holds it")
    command.add_argument("--out", type=Path, required=True, metavar="FILE", help="PNG, SVG or PDF; for grids, a folder")
    command.set_defaults(command=plot)


def _table_parser(command: argparse.ArgumentParser) -> None:
    command.add_argument("results", type=Path, nargs="+", metavar="RESULT", help="results.json, or the folder that holds it")
    command.set_defaults(command=tables)


@contextmanager
def connected(options: argparse.Namespace) -> Iterator[Client | None]:
    if not options.server:
        yield None
        return
    tls = TLS(root_certificates=options.tls_ca) if options.tls_ca else None
    with Client(options.server, model=options.model, api_key=options.api_key, tls=tls, timeout=options.timeout) as client:
        yield client


def bench_of(options: argparse.Namespace, client: Client | None) -> runner.Bench:
    if client and options.model and options.model in client.model().aliases:
        raise recipes.RecipeError(f"--model {options.model} names a profile, but rows have extensions of their own; give it as model of a row's document")
    store = Store(options.store or options.out / "store")
    return runner.Bench(client, store, options.seed, options.query_model, progress_bars(options.quiet), lambda line: print(line, flush=True))


def task_names(options: argparse.Namespace) -> dict[str, str]:
    """Returns {task's name, which is the folder of its results: the task as given}. Refuses tasks whose results would overwrite one another."""
    names: dict[str, str] = {}
    folders = [task for task in options.tasks if not _is_made(task)]
    if options.parts and not folders:
        raise CorpusError(f"--parts is for folders, and {', '.join(options.tasks)} is not one")
    if options.haystack and "needle" not in options.tasks:
        raise CorpusError("--haystack is for needle, which is not among the tasks")
    for task in options.tasks:
        made = _is_made(task)
        name = task.removeprefix("hub:") if made else "-".join([Path(task).resolve().name, *options.parts])
        if name in names:
            raise CorpusError(f"{names[name]} and {task} would both write {options.out / name}; run them one by one, with another --out")
        names[name] = task
    return names


def _is_made(task: str) -> bool:
    """Returns whether a task is made here or read from the hub, not from a folder."""
    return task in ("passkey", "needle") or task.startswith("hub:")


def tasks_of(options: argparse.Namespace) -> Iterator[runner.Task]:
    for name, task in task_names(options).items():
        if task == "passkey":
            yield runner.Task(name, {str(length): synthetic.passkey(length, options.seed) for length in sorted(options.lengths)})
        elif task == "needle":
            yield runner.Task(name, {str(length): synthetic.needle(length, options.seed, options.haystack) for length in sorted(options.lengths)})
        elif task.startswith("hub:"):
            yield runner.Task(name, hub.load(name))
        else:
            yield runner.Task(name, {"": read_folder(task, options.parts, name)})


def run(options: argparse.Namespace) -> int:
    chosen = recipes.load(options.rows).chosen(options.only)
    with connected(options) as client:
        bench = bench_of(options, client)
        for task in tasks_of(options):
            result = bench.run(task, chosen)
            folder = options.out / task.name / (result["model"]["name"] if result["model"] else "no-server")
            write(result, folder, pictures=not options.no_pictures)
    return 0


def write(result: dict, folder: Path, pictures: bool) -> None:
    files = [runner.save(result, folder), folder / "table.md"]
    write_whole(files[1], report.markdown(result).encode())
    if pictures:
        from . import plots

        files += plots.all_of(result, folder)
    print("\n" + report.markdown(result) + "\nwritten: " + ", ".join(map(str, files)))


def advice(options: argparse.Namespace) -> int:
    loaded = recipes.load(options.rows)
    if options.only:  # The rows are compared with the baseline, which is no candidate itself.
        loaded = loaded.chosen([*options.only, loaded.baseline])
    (task,) = tasks_of(options)
    if set(task.slices) != {""}:
        raise CorpusError(f"advise takes one set; {task.name} has a set for each length")
    corpus = task.slices[""]
    with connected(options) as client:
        if client is None:
            raise recipes.RecipeError("advise needs a running server: --server HOST:PORT")

        bench = bench_of(options, client)
        model = bench.describe_model()
        if options.manifest:
            advise.check_manifest(options.manifest, model)

        def evaluate(sample: Corpus, rows: Sequence[recipes.Row]) -> list[dict]:
            bench.say(f"round: {len(rows) - 1} recipes and the baseline on {len(sample.documents):,} of {len(corpus.documents):,} documents")
            return bench.measure("", sample, recipes.Recipes({row.name: row for row in rows}, loaded.baseline))["rows"]

        able = bench.able(compared(loaded, bench, model["name"] if options.manifest else None))
        baseline = loaded.rows[loaded.baseline]
        found = advise.advise(corpus, able, baseline, evaluate, options.objective, options.max_vectors, options.within, options.seed)
    write_advice(found, corpus, loaded, model, options)
    return 0


def compared(loaded: recipes.Recipes, bench: runner.Bench, manifest_of: str | None) -> list[recipes.Row]:
    """Returns the rows that may become advice, and the baseline, which never does. `manifest_of` names the model into whose manifest the advice is
    written, if any."""

    def may_be_advised(row: recipes.Row) -> bool:
        if row.kind != "document" or recipes.model_of(row) is None:
            return True
        return not bench.names_profile(row) and manifest_of in (None, recipes.model_of(row))

    return [row for row in loaded.rows.values() if row.name == loaded.baseline or may_be_advised(row)]


def write_advice(found: advise.Advice, corpus: Corpus, loaded: recipes.Recipes, model: dict, options: argparse.Namespace) -> None:
    """Writes the results, table and pictures of the last round to OUT/TASK/MODEL/advise, and the profile and the manifest if requested."""
    folder = options.out / corpus.name / model["name"] / "advise"
    slices = [{"name": "", "corpus": corpus.describe(), "rows": found.rows, "skipped": {}}]
    result = runner.gather(corpus.name, corpus.metric, loaded, model, slices, options.seed)
    notes = advise.evidence(found, corpus, loaded.baseline, result["date"], model)
    extension = advise.extension_of(found.winner)
    result["advice"] = {"objective": found.objective, "winner": found.winner.name, "extension": extension, "rounds": found.rounds, "evidence": notes}
    write(result, folder, pictures=not options.no_pictures)
    print(f"\nadvised: {found.winner.name}: {json.dumps(extension)}\n" + "".join(f"  {key}: {value}\n" for key, value in notes.items()))
    if options.profile:
        advise.write_profile(folder / "profile.yaml", options.profile, found.winner, notes)
        print(f"written: {folder / 'profile.yaml'}")
    if options.manifest:
        print(f"written: {advise.edit_manifest(options.manifest, found.winner, found.objective, notes)}")


def plot(options: argparse.Namespace) -> int:
    from . import plots

    results = [runner.load(path) for path in options.results]
    files = plots.picture(options.picture, results, options.out)
    print("written: " + ", ".join(map(str, files)))
    return 0


def tables(options: argparse.Namespace) -> int:
    print(report.combined([runner.load(path) for path in options.results]), end="")
    return 0


def progress_bars(quiet: bool):
    """Returns progress bars on standard error, which disappear when they are full. If standard error is not a terminal, nothing is shown."""
    from .systems import no_bars

    if quiet or not sys.stderr.isatty():
        return no_bars
    try:
        from tqdm import tqdm
    except ImportError as error:
        raise ImportError('progress bars need tqdm: pip install "longembed[bench]", or give --quiet') from error

    return lambda label, total: tqdm(total=total, desc=label, unit="text", leave=False, smoothing=0.05)


if __name__ == "__main__":
    sys.exit(main())
