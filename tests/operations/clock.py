"""Changes the system clock by an hour and by half a minute, back and forward, while the server works. Deadlines, waits and ages are durations: no
call may be lost or late, no stream may end, and no histogram may grow by more than the elapsed time. A preloaded library shifts the clock for the
server's process only."""

import argparse
import os
import struct
import subprocess
import threading
import time
from pathlib import Path

# isort: skip. Imported before grpc, because it silences grpc's log.
from harness import LoadClient, Metrics, Replica, Report, failures, program, python_client, run, write_texts
import grpc
from history import History, ask_alone, judge

# Adds the number of seconds in the file CLOCK_SHIFT to the system's clock.
LIBRARY = r"""
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>
static volatile long* shift;
__attribute__((constructor)) static void map(void) {
  const char* path = getenv("CLOCK_SHIFT");
  if (!path) return;
  int file = open(path, O_RDONLY);
  void* page = mmap(0, sizeof(long), PROT_READ, MAP_SHARED, file, 0);
  if (page != MAP_FAILED) shift = page;
}
int clock_gettime(clockid_t id, struct timespec* t) {
  int result = syscall(SYS_clock_gettime, id, t);
  if (shift && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) t->tv_sec += *shift;
  return result;
}
int gettimeofday(struct timeval* t, void* zone) {
  struct timespec now;
  (void)zone;
  clock_gettime(CLOCK_REALTIME, &now);
  t->tv_sec = now.tv_sec;
  t->tv_usec = now.tv_nsec / 1000;
  return 0;
}
time_t time(time_t* t) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  if (t) *t = now.tv_sec;
  return now.tv_sec;
}
"""
STEPS = [-3600, -30, 30, 3600]
CALLERS = 2
HISTOGRAMS = ("request_duration", "queue_duration", "tokenization_duration", "inference_duration")


class Clock:
    """The server's clock, as an offset to the true clock in seconds."""

    def __init__(self, folder: Path):
        self.shift, self.library = folder / "shift", folder / "shift.so"
        source = folder / "shift.c"
        source.write_text(LIBRARY)
        subprocess.run([program("gcc"), "-O1", "-shared", "-fPIC", "-o", str(self.library), str(source)], check=True)
        self.shift.write_bytes(bytes(8))

    def environment(self) -> dict[str, str]:
        return {"LD_PRELOAD": str(self.library), "CLOCK_SHIFT": str(self.shift)}

    def set(self, seconds: int) -> None:
        with self.shift.open("r+b") as file:
            file.write(struct.pack("l", seconds))


class Stream(threading.Thread):
    """Keeps an EmbedStream open all the time, with one message in progress at a time."""

    def __init__(self, replica: Replica, pb):
        super().__init__(daemon=True)
        self.messages, self.stubs = pb
        self.channel = grpc.insecure_channel(replica.address, [("grpc.use_local_subchannel_pool", 1)])
        self.answered, self.stopped, self.error = 0, threading.Event(), ""
        self.turn = threading.Semaphore(1)
        self.start()

    def requests(self):
        while not self.stopped.is_set():
            if self.turn.acquire(timeout=0.1):
                yield self.messages.EmbedStreamRequest(id=str(self.answered), input=self.messages.Input(text="river stone house"))

    def run(self) -> None:
        try:
            for answer in self.stubs.EmbeddingServiceStub(self.channel).EmbedStream(self.requests()):
                if answer.result.HasField("error"):
                    self.error = f"an answer's error: {answer.result.error.message}"
                self.answered += 1
                time.sleep(0.1)
                self.turn.release()
        except grpc.RpcError as error:
            self.error = f"{error.code().name}: {error.details()}"

    def stop(self) -> None:
        self.stopped.set()
        self.join(20)


def sums(metrics: Metrics) -> dict[str, float]:
    return {name: metrics.total(f"longembed_{name}_seconds_sum") for name in HISTOGRAMS}


def body(arguments: argparse.Namespace, folder: Path, report: Report) -> None:
    clock, pb = Clock(folder), python_client(folder)
    texts = write_texts(folder / "texts.txt", 20, 32)
    path = folder / "history.jsonl"
    with Replica(folder, arguments, environment=clock.environment()) as replica:
        alone = ask_alone(replica.address, texts, folder)
        before = replica.metrics()
        stream = Stream(replica, pb)
        client = LoadClient(replica.address, texts, concurrency=CALLERS, seconds=36000, timeout=arguments.timeout, history=path)
        time.sleep(1)
        for step in STEPS:
            step_and_back(clock, step, replica, arguments.seconds, report)
        result = client.stop()
        report.bar("the stream was not ended", not stream.error and stream.is_alive() and stream.answered > 0, f"{stream.answered} answers {stream.error}")
        stream.stop()
        report.figure("codes", result["codes"])
        report.bar("no call lost or late", failures(result) == 0 and result["calls"] > 0, f"{failures(result)} of {result['calls']} {result['errors'] or ''}")
        judge(report, "steps", History.read(path), alone, replica.metrics, before, alone=False)
        report.bar("exit status 0", replica.terminate() == 0)


def step_and_back(clock: Clock, step: int, replica: Replica, seconds: float, report: Report) -> None:
    began, before, lowest = time.monotonic(), sums(replica.metrics()), dict.fromkeys(HISTOGRAMS, 0.0)
    for shift in (step, 0):
        clock.set(shift)
        end = time.monotonic() + seconds / 2
        while time.monotonic() < end:
            time.sleep(0.2)
            grown = {name: total - before[name] for name, total in sums(replica.metrics()).items()}
            lowest = {name: min(lowest[name], grown[name]) for name in HISTOGRAMS}
    # Allows for the calls or batches that can run at the same time. A call in progress at the first scrape began at most a second before it.
    truth = max(CALLERS + 1, os.cpu_count() or 1) * (time.monotonic() - began + 1)
    wrong = [f"{name}: {grown[name]:+.1f} s, lowest {lowest[name]:+.1f} s" for name in HISTOGRAMS if grown[name] > truth or lowest[name] < -1e-6]
    report.bar(f"{step:+d} s and back: no histogram shrinks, or grows by more than the elapsed time", not wrong, f"at most {truth:.0f} s: {wrong or grown}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10, help="of each step: half of it shifted, half of it back")
    parser.add_argument("--timeout", type=float, default=10, help="deadline of a call, seconds")
    run("clock", parser, body)
