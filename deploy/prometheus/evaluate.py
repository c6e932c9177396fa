#!/usr/bin/env python3
"""Asks a Prometheus for every query of the dashboard and every rule of the alerts, and shows which have data.

    deploy/prometheus/evaluate.py --prometheus http://127.0.0.1:9090

Exit status 1 when a query fails, when one that must have data has none, when a rule is unhealthy, or when an alert fires. For set-ups that are healthy and
under load: an idle server has no latency.
"""

import argparse
import http.client
import json
import math
import re
import sys
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from pathlib import Path

DASHBOARD = Path(__file__).resolve().parents[2] / "helm/longembed-server/files/dashboard.json"
METRIC = re.compile(r"\b(?:longembed[_:][\w:]+|process_\w+|up)\b(?:\{[^}]*\})?")
# Metrics that may be without series, or without a number, in a healthy set-up.
MAY_BE_EMPTY = {
    "longembed_rejected_total": "nothing was refused",
    "longembed_encoder_failures_total": "no batch failed",
    "longembed_connections_refused_total": "no connection was refused",
    "longembed_authentication_failures_total": "no key was wrong",
    "longembed_client_tokens_total": "no API keys",
    "longembed_tls_certificate_expiry_timestamp_seconds": "no TLS",
    "longembed_tls_reloads_total": "no TLS",
    "longembed_memory_limit_bytes": "no memory limit",
}


@dataclass
class Row:
    name: str
    result: str
    series: int = 0
    value: str = ""
    failed: bool = False


class Prometheus:
    def __init__(self, url: str):
        self.url = url.rstrip("/")

    def get(self, path: str, **parameters: str) -> dict:
        """Raises ValueError with Prometheus' own error. Ends the program when something else answers, or nothing."""
        try:
            try:
                with self._opener().open(f"{self.url}{path}?{urllib.parse.urlencode(parameters)}", timeout=30) as answer:
                    return json.load(answer)["data"]
            except urllib.error.HTTPError as error:
                reason = json.load(error)["error"]
        except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError) as error:
            reason = getattr(error, "reason", error)
            sys.exit(f"error: {self.url} does not answer as Prometheus does: {reason if str(reason).isprintable() else repr(reason)}")
        raise ValueError(reason)

    def _opener(self) -> urllib.request.OpenerDirector:
        """Returns one without the proxies of the environment, which could not reach this machine, if the URL is on it."""
        local = urllib.parse.urlsplit(self.url).hostname in ("localhost", "127.0.0.1", "::1")
        return urllib.request.build_opener(*([urllib.request.ProxyHandler({})] if local else []))

    def query(self, expression: str) -> list[float]:
        """Returns the value of each series, without NaN, which is the ratio or quantile of no data."""
        values = [float(series["value"][1]) for series in self.get("/api/v1/query", query=expression)["result"]]
        return [value for value in values if not math.isnan(value)]


def metrics_of(expression: str) -> list[str]:
    """Selectors, such as `up{job="a"}`."""
    return METRIC.findall(expression)


def reason_to_be_empty(expression: str) -> str | None:
    return next((MAY_BE_EMPTY[name] for name in (selector.split("{")[0] for selector in metrics_of(expression)) if name in MAY_BE_EMPTY), None)


def panel_queries(dashboard: dict, interval: str) -> list[tuple[str, str]]:
    """(panel, expression) with Grafana's variables replaced: everything is selected."""
    queries = []
    for panel in dashboard["panels"]:
        targets = panel.get("targets", [])
        for target in targets:
            expression = re.sub(r"\$(namespace|job|instance|model)\b", ".*", target["expr"]).replace("$__rate_interval", interval)
            queries.append((panel["title"] + (f" ({target['legendFormat']})" if len(targets) > 1 else ""), expression))
    return queries


def evaluate(prometheus: Prometheus, name: str, expression: str) -> Row:
    try:
        values = prometheus.query(expression)
    except ValueError as error:
        return Row(name, f"QUERY FAILED: {error}", failed=True)
    if values:
        return Row(name, "ok", len(values), f"{values[0]:.6g}")
    reason = reason_to_be_empty(expression)
    return Row(name, f"no data expected: {reason}" if reason else "NO DATA", failed=reason is None)


def evaluate_rule(prometheus: Prometheus, rule: dict) -> Row:
    if rule["health"] != "ok":
        return Row(rule["name"], f"UNHEALTHY: {rule.get('lastError') or rule['health']}", failed=True)
    if rule["type"] == "recording":
        return evaluate(prometheus, rule["name"], rule["name"])
    # An alert that does not fire has no series of its own: what counts is that its metrics have.
    selectors = metrics_of(rule["query"])
    rows = [evaluate(prometheus, rule["name"], selector) for selector in selectors]
    empty = next((row for row in rows if row.result != "ok"), None)
    firing = rule["state"] == "firing"
    state = "FIRES" if firing else f"ok, {rule['state']}"
    if empty and empty.failed:
        return Row(rule["name"], f"{empty.result} of {selectors[rows.index(empty)]}", failed=True)
    return Row(rule["name"], state + (f"; {empty.result}" if empty else ""), sum(row.series for row in rows), failed=firing)


def show(title: str, rows: list[Row]) -> None:
    width = max(len(row.name) for row in rows)
    print(f"\n{title:<{width}}  series  last value    result")
    for row in rows:
        print(f"{row.name:<{width}}  {row.series:>6}  {row.value:<12}  {row.result}")


def main() -> int:
    parser = argparse.ArgumentParser(description="Evaluates every query of the dashboard and every rule against a Prometheus.")
    parser.add_argument("--prometheus", required=True, help="URL, such as http://127.0.0.1:9090")
    parser.add_argument("--dashboard", type=Path, default=DASHBOARD)
    parser.add_argument("--expect", nargs="*", default=[], choices=MAY_BE_EMPTY, metavar="METRIC", help="metrics that must have data here, although they may be empty elsewhere")
    parser.add_argument("--interval", default="1m", help="for $__rate_interval; at least four scrapes (default: 1m)")
    arguments = parser.parse_args()
    for metric in arguments.expect:
        MAY_BE_EMPTY.pop(metric)
    prometheus = Prometheus(arguments.prometheus)
    panels = [evaluate(prometheus, *query) for query in panel_queries(json.loads(arguments.dashboard.read_text()), arguments.interval)]
    loaded = [rule for group in prometheus.get("/api/v1/rules")["groups"] if group["name"].startswith("longembed.") for rule in group["rules"]]
    if not loaded:
        sys.exit("error: this Prometheus has no rules of longembed; load helm/longembed-server/files/alerts.yaml")
    rules = [evaluate_rule(prometheus, rule) for rule in loaded]
    show("panel", panels)
    show("rule", rules)
    failed = [row.name for row in panels + rules if row.failed]
    without = sum(row.result.startswith("no data expected") for row in panels)
    print(f"\n{len(panels)} queries of panels, {without} without data as expected; {len(rules)} rules; {len(failed)} failed", end="")
    print(f": {', '.join(failed)}" if failed else "")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
