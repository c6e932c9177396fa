"""Parses the metrics and labels of a PromQL expression. It supports enough of the grammar to compare queries with the table of metrics."""

import re
from dataclasses import dataclass, field

TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|\[[^\]]*\]|[A-Za-z_:][\w:]*|\d[\w.]*|=~|!~|!=|[<>=]=|[^\s\w]')
# Prometheus' own words, which may occur where a metric could.
WORDS = {"and", "or", "unless", "bool", "offset"}
LISTS = {"by", "without", "on", "ignoring", "group_left", "group_right"}


@dataclass
class Use:
    """One selector, with the labels that it matches on, and those that an aggregation around it keeps."""

    metric: str
    labels: set[str] = field(default_factory=set)
    kept: set[str] | None = None  # The labels that the aggregation around it keeps. None without an aggregation.


def uses(expression: str) -> list[Use]:
    tokens = TOKEN.findall(expression)
    found: list[Use] = []
    around: list[set[str] | None] = []  # For each open bracket, the labels that its aggregation keeps.
    kept = None
    i = 0
    while i < len(tokens):
        token = tokens[i]
        following = tokens[i + 1] if i + 1 < len(tokens) else ""
        if token in LISTS:
            end = tokens.index(")", i)
            names = {name for name in tokens[i + 2 : end] if name != ","}
            kept = names if token == "by" else kept
            i = end
        elif token == "(":
            around.append(kept)
            kept = None
        elif token == ")":
            around.pop()
        elif re.match(r"[A-Za-z_:]", token) and following != "(" and following not in LISTS and token not in WORDS:
            use = Use(token, kept=next((names for names in around if names is not None), None))
            if following == "{":
                end = tokens.index("}", i)
                use.labels = {tokens[k - 1] for k in range(i + 2, end) if tokens[k] in ("=", "!=", "=~", "!~")}
                i = end
            use.labels |= use.kept or set()
            found.append(use)
        i += 1
    return found
