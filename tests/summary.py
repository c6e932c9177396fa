"""Adds up JUnit reports (FOLDER NAME...). Names what failed and what was skipped, and ends with "N passed, N failed, N skipped".

The exit status is 1 if a test failed or none ran. A runner that crashed leaves no report, or an invalid or empty one, which counts as a failure."""

import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path


def outcome(case: ElementTree.Element) -> str:
    if case.find("failure") is not None or case.find("error") is not None or case.get("status") == "fail":
        return "failed"
    if case.find("skipped") is not None or case.get("status") in ("notrun", "disabled"):
        return "skipped"
    return "passed"


def reason(case: ElementTree.Element) -> str:
    lines = [line.strip() for line in (case.findtext("system-out") or "").splitlines() if line.strip()]
    for i, line in enumerate(lines[:-1]):  # GoogleTest writes the location first, and then the text given to GTEST_SKIP or to the assertion.
        if line.endswith((": Skipped", ": Failure")):
            return lines[i + 1]
    for tag in ("failure", "error", "skipped"):
        if (found := case.find(tag)) is not None and found.get("message"):
            return found.get("message").splitlines()[0]
    return ""


def cases_of(report: Path) -> list[ElementTree.Element]:
    try:
        return list(ElementTree.parse(report).iter("testcase"))
    except (OSError, ElementTree.ParseError):
        return []


def main(folder: Path, expected: list[str]) -> int:
    totals = {"passed": 0, "failed": 0, "skipped": 0}
    for report in (folder / f"{name}.xml" for name in expected):
        counts = dict.fromkeys(totals, 0)
        cases = cases_of(report)
        for case in cases:
            kind = outcome(case)
            counts[kind] += 1
            if kind != "passed":
                print(f"  {kind}: {case.get('classname', '')} {case.get('name')}  {reason(case)[:200]}")
        if not cases:
            print(f"  failed: {report.stem} ran no test")
            counts["failed"] += 1
        print(f"{report.stem}: " + ", ".join(f"{count} {kind}" for kind, count in counts.items()))
        for kind, count in counts.items():
            totals[kind] += count
    print(", ".join(f"{count} {kind}" for kind, count in totals.items()))
    return 1 if totals["failed"] or not totals["passed"] else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
