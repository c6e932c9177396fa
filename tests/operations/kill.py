"""Kills two replicas behind haproxy in turn with kill -9, while `longembed embed` sends a corpus through haproxy. When the client ends, it is
restarted with --resume. No text may be lost or answered twice."""

import argparse
import json
import random
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path

import numpy as np

from harness import RETRY_CONFIG, STARTED, Balancer, LoadClient, Replica, Report, built, load, run, text_of, write_texts
from history import History, Outcome, ask_alone, judge, likeness, one_outcome_each

TOKENS = 64


class Embedding:
    """Runs `longembed embed --resume` again and again, until it has embedded the whole corpus."""

    def __init__(self, server: str, corpus: Path, out: Path, log: Path):
        self.command = [str(built("longembed")), "embed", "--server", server, "--resume", "--out", str(out), "--timeout", "60", str(corpus)]
        self.log, self.runs, self.statuses = log, 0, []
        self.process: subprocess.Popen | None = None
        self.run()

    def run(self) -> None:
        with self.log.open("a") as log:
            self.process = subprocess.Popen(self.command, stdout=log, stderr=log)
        STARTED.append(self.process)
        self.runs += 1

    def finished(self) -> bool:
        """Returns true if the run is complete. Restarts the command if it ended too early."""
        status = self.process.poll()
        if status is None:
            return False
        if len(self.statuses) < self.runs:
            self.statuses.append(status)
        if status == 0:
            return True
        if status == 2:
            raise RuntimeError(f"the client does not take its arguments: {self.log.read_text()[-500:]}")
        time.sleep(0.2)  # Without this pause, the command would be restarted many times to no effect while both replicas are down.
        self.run()
        return False

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()


def write_corpus(path: Path, count: int) -> list[str]:
    rng = random.Random(11)
    ids = [f"text-{i}" for i in range(count)]
    path.write_text("".join(json.dumps({"id": i, "text": text_of(rng.randrange(TOKENS // 2, TOKENS * 3 // 2), rng)}) + "\n" for i in ids))
    return ids


def read_vectors(out: Path) -> tuple[Counter, dict[str, list[float]], int]:
    ids, vectors, torn = Counter(), {}, 0
    for line in out.read_text().splitlines():
        try:
            answer = json.loads(line)
            ids[answer["id"]] += 1
            vectors[answer["id"]] = answer["embedding"]
        except (ValueError, KeyError):
            torn += 1
    return ids, vectors, torn


def undisturbed(replica: Replica, corpus: Path, folder: Path, ids: list[str]) -> dict[str, list[float]]:
    """Returns the vectors of some ids, from a server that is not killed."""
    wanted, some = set(ids), folder / "some.jsonl"
    some.write_text("".join(line for line in corpus.read_text().splitlines(keepends=True) if json.loads(line)["id"] in wanted))
    done = subprocess.run([str(built("longembed")), "embed", "--server", replica.address, str(some)], capture_output=True, text=True, check=True)
    return {answer["id"]: answer["embedding"] for answer in map(json.loads, done.stdout.splitlines())}


def storm(arguments: argparse.Namespace, replicas: list[Replica], embedding: Embedding, report: Report) -> int:
    """Kills the replicas. Returns the number of kills that happened while the corpus was in progress."""
    hits, client_kills = 0, set(random.Random(5).sample(range(1, arguments.rounds), arguments.client_kills))
    for i in range(arguments.rounds):
        began, replica = time.monotonic(), replicas[i % 2]
        hits += not embedding.finished()
        replica.kill()
        replica.start(wait=False)
        if i in client_kills:
            embedding.kill()
        while time.monotonic() < began + arguments.every:
            embedding.finished()
            time.sleep(0.1)
        replica.wait_serving()
    report.figure("kills", f"{arguments.rounds} of replicas, {arguments.client_kills} of the client")
    return hits


def body(arguments: argparse.Namespace, folder: Path, report: Report) -> None:
    corpus, out = folder / "corpus.jsonl", folder / "vectors.jsonl"
    with Replica(folder, arguments, name="r0") as r0, Replica(folder, arguments, name="r1") as r1, Balancer(folder, [r0, r1]) as balancer:
        texts = write_texts(folder / "texts.txt", 30, TOKENS)
        alone = ask_alone(r0.address, texts, folder)
        speed = load(balancer.address, texts, concurrency=16, connections=4, seconds=3)["goodput_per_second"]
        ids = write_corpus(corpus, int(speed * arguments.rounds * arguments.every * arguments.surplus) + 100)
        report.figure("corpus, texts", len(ids))
        began = time.monotonic()
        embedding = Embedding(balancer.address, corpus, out, folder / "client.log")
        # Other calls may fail, but each ends once, with a correct vector or none.
        beside = LoadClient(
            balancer.address, texts, rate=5, seconds=36000, timeout=20, service_config=RETRY_CONFIG, history=folder / "history.jsonl"
        )
        hits = storm(arguments, [r0, r1], embedding, report)
        while not embedding.finished() and time.monotonic() < began + arguments.limit:
            time.sleep(0.1)
        complete = embedding.finished()
        report.figure("calls beside it, by code", beside.stop()["codes"])
        judge(report, "calls beside it", History.read(folder / "history.jsonl"), alone)
        embedding.kill()
        report.figure("seconds", time.monotonic() - began)
        report.figure("runs of the client", f"{embedding.runs}, exit statuses {dict(Counter(embedding.statuses))}")
        sample = random.Random(3).sample(ids, 30)
        truth = undisturbed(r0, corpus, folder, sample)
    check(report, ids, out, truth, complete, hits, arguments.rounds)


def check(report: Report, ids: list[str], out: Path, truth: dict[str, list[float]], complete: bool, hits: int, rounds: int) -> None:
    found, vectors, torn = read_vectors(out)
    report.bar("the client finished", complete)
    report.bar("the corpus outlasted the kills", hits == rounds, f"{hits} of {rounds} kills hit a client at work")
    history = History()
    for i in ids:
        history.send(i, i, at=0)
    for i in found.elements():
        history.finish(i, Outcome(0, "OK"))
    wrong = one_outcome_each(history)
    report.bar("the corpus: 0 lost, none twice, no unknown ids", not wrong, f"{len(wrong)} of {len(ids)} {wrong[:3]}")
    report.bar("no torn lines", torn == 0, f"{torn}")
    lowest = min(likeness(np.array(vector, np.float32), np.array(vectors.get(i, []), np.float32)) for i, vector in truth.items())
    report.bar("vectors are those of a server that is not killed", lowest >= 0.99999, f"lowest cosine of {len(truth)}: {lowest:.7f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20, help="kills, of the two replicas in turn")
    parser.add_argument("--every", type=float, default=5, help="seconds between kills")
    parser.add_argument("--client-kills", type=int, default=1, help="times that the client is killed too, in the middle of its output")
    parser.add_argument("--surplus", type=float, default=1.3, help="size of the corpus, as a multiple of what the replicas embed in that time")
    parser.add_argument("--limit", type=float, default=1200, help="seconds after which an unfinished client has failed")
    run("kill", parser, body)
