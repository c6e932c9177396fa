"""Writes results as Markdown tables."""

from __future__ import annotations

from collections.abc import Sequence


def markdown(result: dict) -> str:
    """Formats one result: its rows with metrics and cost, or a table with one row per method and one column per length."""
    model = result["model"]
    on = f"{model['name']} ({model['precision']}, {model['device']})" if model else "no server"
    draws = f"95 % intervals by {result['bootstrap_draws']:,} paired bootstraps over documents"
    head = f"**{result['task']}**, {on}, {result['date']}, seed {result['seed']}; {draws}."
    body = _one_slice(result, result["slices"][0]) if len(result["slices"]) == 1 else _by_length(result)
    return f"{head}\n\n{body}{_skipped(result)}"


def combined(results: Sequence[dict]) -> str:
    """Formats several results as in the paper's table: rows are methods, columns are sets and models. Each result has its own metric, in points."""
    names = list(dict.fromkeys(name for result in results for name in result["mean"]))
    labels = [f"{result['task']}, {result['model']['name']}" if result["model"] else result["task"] for result in results]
    rows = [[name, *(_points(result["mean"].get(name)) for result in results)] for name in names]
    return table(["method", *labels], rows)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Formats a table. Numbers are right-aligned."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "".join(f"| {' | '.join(map(_escaped, line))} |\n" for line in lines)


def _escaped(cell: str) -> str:
    """Returns the text of a cell. A bar in it, as in a row's name, would end the cell."""
    return cell.replace("|", "\\|")


def _one_slice(result: dict, one: dict) -> str:
    corpus = one["corpus"]
    header = [
        "method",
        "nDCG@10",
        "interval",
        f"to {result['baseline']}",
        "accuracy at 1",
        "recall at 10",
        "PSI",
        "vectors",
        "bytes",
        "tokens/s",
        "s a document",
    ]
    text = f"{corpus['documents']:,} documents, {corpus['queries']:,} queries; vectors, bytes and seconds are for one document.\n\n"
    return text + table(header, [_row(row, result["baseline"]) for row in one["rows"]]) + _by_characters(result, one)


def _row(row: dict, baseline: str) -> list[str]:
    values, cost = row["metrics"], row["cost"]
    ndcg, difference = values["ndcg_at_10"], row.get("difference", {}).get("ndcg_at_10")
    psi = row.get("position", {}).get("psi")
    gain = "" if difference is None or row["name"] == baseline else f"{difference['value']:+.3f} [{difference['low']:+.3f}, {difference['high']:+.3f}]"
    return [
        row["name"],
        f"{ndcg['value']:.3f}",
        f"[{ndcg['low']:.3f}, {ndcg['high']:.3f}]",
        gain,
        f"{values['accuracy_at_1']['value']:.3f}",
        f"{values['recall_at_10']['value']:.3f}",
        f"{psi['value']:.2f}" if psi else "",
        f"{cost['vectors_per_document']:,.1f}".removesuffix(".0") if cost["vectors_per_document"] else "",
        f"{cost['bytes_per_document']:,}" if cost["bytes_per_document"] else "",
        f"{cost['tokens_per_second']:,.0f}" if cost["tokens_per_second"] else "",
        f"{cost['seconds_per_document']:.2g}",
    ]


def _by_characters(result: dict, one: dict) -> str:
    """Formats the metric by the length of the queries' documents. Returns nothing if all documents have one length."""
    slices = one["rows"][0].get("by_length", []) if one["rows"] else []
    if len(slices) < 2:
        return ""
    header = ["method", *(f"{part['from']:,} to {part['to'] - 1:,} characters ({_count(part['queries'])})" for part in slices)]
    rows = [[row["name"], *(f"{part['value']:.3f}" for part in row["by_length"])] for row in one["rows"]]
    return f"\n{result['metric']} by the document's length:\n\n{table(header, rows)}"


def _count(queries: int) -> str:
    return "1 query" if queries == 1 else f"{queries:,} queries"


def _by_length(result: dict) -> str:
    """Formats accuracy at 1 (or the task's metric) by nominal length, and the mean of all lengths."""
    names = list(dict.fromkeys(row["name"] for one in result["slices"] for row in one["rows"]))
    found = {(row["name"], one["name"]): row["metrics"][result["metric"]] for one in result["slices"] for row in one["rows"]}
    rows = []
    for name in names:
        cells = [found.get((name, one["name"])) for one in result["slices"]]
        rows.append([name, *(f"{cell['value']:.2f}" if cell else "" for cell in cells), _points(result["mean"].get(name))])
    counts = result["slices"][0]["corpus"]
    text = f"{result['metric']} by tokens; {counts['documents']} documents and {counts['queries']} queries at each length. Mean in points.\n\n"
    return text + table(["method", *(f"{int(one['name']):,}" for one in result["slices"]), "mean"], rows)


def _points(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f}"


def _skipped(result: dict) -> str:
    reasons = dict.fromkeys(f"{name}: {reason}" for one in result["slices"] for name, reason in one["skipped"].items())
    return "\nNot run:\n\n" + "".join(f"* {reason}.\n" for reason in reasons) if reasons else ""
