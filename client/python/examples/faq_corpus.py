"""Makes a retrieval set for longembed-bench from FAQs in HTML. Every heading that ends with a question mark is a query; the text below it is its document.

    python faq_corpus.py FOLDER FILE.html...

Debian's packages debian-faq (/usr/share/doc/debian/FAQ/*.en.html) and anarchism (/usr/share/doc/anarchism/html/*.html) have several hundred questions.
"""

from __future__ import annotations

import html
import json
import re
import sys
from pathlib import Path

SHORTEST_ANSWER = 200  # In characters. A shorter answer only refers to another one.
FEWEST_QUESTIONS = 20


def plain(fragment: str) -> str:
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]*>", " ", fragment))).strip()


def questions(files: list[Path]) -> dict[str, str]:
    """Returns {question: answer}, with each question once."""
    found: dict[str, str] = {}
    for file in files:
        parts = re.split(r"<h[1-5][^>]*>(.*?)</h[1-5]>", file.read_text(encoding="utf-8", errors="replace"), flags=re.S)
        for heading, body in zip(parts[1::2], parts[2::2]):
            question, answer = re.sub(r"^[A-Z\d.]+\s+", "", plain(heading)), plain(body)
            if question.endswith("?") and len(answer) >= SHORTEST_ANSWER:
                found.setdefault(question, answer)
    return found


def write(folder: Path, name: str, lines: list[dict]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"faq.{name}.jsonl").write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")


def main(arguments: list[str]) -> int:
    if len(arguments) < 2:
        print(__doc__, file=sys.stderr)
        return 2
    folder, pairs = Path(arguments[0]), questions([Path(file) for file in arguments[1:]])
    if len(pairs) < FEWEST_QUESTIONS:
        print(f"only {len(pairs)} questions with answers were found, and {FEWEST_QUESTIONS} are needed; name more files of a FAQ", file=sys.stderr)
        return 1
    write(folder, "docs", [{"id": f"a{number}", "text": answer} for number, answer in enumerate(pairs.values())])
    write(folder, "queries", [{"id": f"q{number}", "text": question} for number, question in enumerate(pairs)])
    write(folder, "qrels", [{"query": f"q{number}", "doc": f"a{number}", "relevance": 1} for number in range(len(pairs))])
    print(f"{len(pairs)} questions and answers in {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
