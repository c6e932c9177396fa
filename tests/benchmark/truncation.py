"""Measures time and memory of a text of 16 MiB that is truncated to a model's window, compared with its first 64 KiB, on a running server on this machine.

    python tests/benchmark/truncation.py --server 127.0.0.1:50051 --pid PID --model e5-small-v2

Needs the Python package (client/python), and `max_request_bytes` above 16 MiB in the server's configuration. Each time is the least of five calls. Memory is the peak of
the server's resident memory above what reading such a message and refusing it takes.
"""

import argparse
from pathlib import Path

from longembed import Client, InvalidArgument

TEXT = ("the river mills unbelievable it's a bb \u043f\u0440\u0438\u0432\u0435\u0442 \u043c\u0438\u0440 " * 350_000).encode()[: 16 << 20].decode(errors="ignore")
CALLS = 5


def peak(pid: int) -> int:
    """Returns the peak of resident bytes since the last call."""
    status = Path(f"/proc/{pid}/status").read_text()
    Path(f"/proc/{pid}/clear_refs").write_text("5")
    return 1024 * int(status.split("VmHWM:")[1].split()[0])


def of_refusing(client: Client, pid: int, model: str) -> int:
    """Returns the peak of resident bytes when the server reads the message and refuses it."""
    most = 0
    for _ in range(CALLS):
        peak(pid)
        try:
            client.embed([TEXT], model=model, prompt_name="none of the model's")
        except InvalidArgument:
            most = max(most, peak(pid))
    return most


def of_embedding(client: Client, pid: int, model: str, truncate: str, text: str) -> tuple[float, float, int]:
    """Returns the seconds of tokenization, the seconds in total, and the peak of resident bytes."""
    tokenization, total, most = [], [], 0
    for _ in range(CALLS):
        peak(pid)
        timing = client.embed([text], model=model, truncate=truncate).timing
        tokenization.append(timing.tokenization)
        total.append(timing.total)
        most = max(most, peak(pid))
    return min(tokenization), min(total), most


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--server", required=True, metavar="HOST:PORT")
    parser.add_argument("--pid", required=True, type=int, help="the server's process")
    parser.add_argument("--model", required=True)
    options = parser.parse_args()
    print("| truncate | bytes of text | tokenization, ms | in all, ms | MiB above the message |\n|---|---:|---:|---:|---:|")
    with Client(options.server) as client:
        for truncate in ("END", "START"):
            message = of_refusing(client, options.pid, options.model)
            for text in (TEXT[: 40 << 10], TEXT):
                tokenization, total, most = of_embedding(client, options.pid, options.model, truncate, text)
                above = max(0, most - message) / 2**20
                print(f"| {truncate} | {len(text.encode())} | {1e3 * tokenization:.0f} | {1e3 * total:.0f} | {above:.0f} |", flush=True)


if __name__ == "__main__":
    main()
