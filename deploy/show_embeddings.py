"""Embeds a few real texts through the command line client and shows a person what came back. Called by quickstart.sh with the client's path."""

import json
import subprocess
import sys
import time
from pathlib import Path

LONG_TEXT = Path("/usr/share/common-licenses/GPL-3").read_text(encoding="utf-8")  # On every Debian; some 6,800 of e5's tokens.
WAYS = {"GPL-3, its beginning": ["--truncate", "end"], "GPL-3, in windows": ["--windows"]}
PASSAGES = {
    "Apache-2.0, patents": "Subject to the terms and conditions of this License, each Contributor hereby grants to You a perpetual, worldwide, "
    "non-exclusive, no-charge, royalty-free, irrevocable patent license to make, have made, use, offer to sell, sell, import, and otherwise "
    "transfer the Work.",
    "Nile": "The Nile is about 6,650 km long. It rises in the highlands of East Africa and flows north through eleven countries into the "
    "Mediterranean Sea.",
    "bread": "Mix flour, water, salt and a little yeast, let the dough rise overnight in the cold, and bake it in a very hot oven until the crust "
    "is dark.",
}
QUERIES = ["may I sell copies of a free program?", "who gets a patent license?", "how long is the longest river of Africa?", "how do I bake bread?"]


def prompts_of(client: str) -> list[str]:
    """The prompts of the served model; e5 has query and passage, MiniLM none."""
    done = subprocess.run([client, "models", "--output", "json"], capture_output=True, text=True)
    return list(results(done)[0].get("prompts", {}))


def run(client: str, command: str, prompt: str | None, texts: dict[str, str], *flags: str) -> subprocess.CompletedProcess:
    lines = "".join(json.dumps({"id": name, "text": text}) + "\n" for name, text in texts.items())
    return subprocess.run([client, command, *(["--prompt-name", prompt] if prompt else []), *flags], input=lines, capture_output=True, text=True)


def results(done: subprocess.CompletedProcess) -> list[dict]:
    if done.returncode != 0:
        sys.exit(f"error: the client failed: {done.stderr.strip()}")
    return [json.loads(line) for line in done.stdout.splitlines()]


def embed(client: str, prompt: str | None, texts: dict[str, str], *flags: str) -> list[dict]:
    return results(run(client, "embed", prompt, texts, "--output", "json", *flags))


def show_long_text(client: str, prompt: str | None) -> None:
    """Shows the server's error for a text beyond the window, and the plan under an extension."""
    refused = run(client, "embed", prompt, {"GPL-3": LONG_TEXT})
    if refused.returncode != 0:
        print(f"\nA text beyond the model's window is refused unless the request says how to embed it:\n  {refused.stderr.strip()}")
    plan = run(client, "explain", prompt, {"GPL-3": LONG_TEXT}, "--output", "text", "--windows").stdout.splitlines()
    print("\nlongembed explain --windows says what would happen, without running the model:")
    print("\n".join(f"  {line}" for line in plan[:3] + ["  ..."][: len(plan) > 4] + plan[3:][-1:]))


def main(client: str) -> None:
    known = prompts_of(client)
    passage_prompt, query_prompt = (name if name in known else None for name in ("passage", "query"))
    show_long_text(client, passage_prompt)
    started = time.monotonic()
    passages = [embed(client, passage_prompt, {way: LONG_TEXT}, *flags)[0] for way, flags in WAYS.items()]
    passages += embed(client, passage_prompt, PASSAGES)
    queries = embed(client, query_prompt, {text: text for text in QUERIES})
    elapsed = time.monotonic() - started

    print(f"\n{len(passages) + len(queries)} texts in {len(WAYS) + 2} calls of the command line client: {elapsed * 1000:.0f} ms")
    for passage in passages:
        vector = ", ".join(f"{x:+.4f}" for x in passage["embedding"][:4])
        more = f", {passage['truncated_tokens']} cut away" if passage["truncated_tokens"] else ""
        more += f" in {len(passage['windows'])} windows" if len(passage["windows"]) > 1 else ""
        print(f"  {passage['id']:20} {passage['tokens']:4} tokens{more}: [{vector}, ...] of {len(passage['embedding'])}")

    print(f"\n{'Cosine similarity':44}" + "".join(f"{passage['id']:>22}" for passage in passages))
    for query in queries:
        scores = [sum(a * b for a, b in zip(query["embedding"], passage["embedding"])) for passage in passages]
        cells = "".join(f"{f'{score:.3f}' + ('  <' if score == max(scores) else '   '):>22}" for score in scores)
        print(f"  {query['id']:42}{cells}")


if __name__ == "__main__":
    main(sys.argv[1])
