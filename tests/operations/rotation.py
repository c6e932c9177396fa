"""Replaces certificates every few seconds under load, on a server that requires client certificates (mTLS). No call may fail, and an invalid pair
must leave the old one in use."""

import argparse
import os
import shutil
import socket
import ssl
import threading
import time
from pathlib import Path

import grpc

from harness import Authority, LoadClient, Replica, Report, failures, latency, python_client, run, until, write_texts
from history import History, ask_alone, judge


class Files:
    """The server's files. They are replaced one after the other, as an operator would do it."""

    def __init__(self, folder: Path):
        self.folder, self.authority = folder, Authority(folder / "authority")
        self.certificate, self.key = folder / "tls.pem", folder / "tls.key"
        self.client_certificate, self.client_key = self.authority.issue("client")
        self.renew()

    def renew(self) -> None:
        for source, target in zip(self.authority.issue("server"), (self.certificate, self.key)):
            self.put(source.read_bytes(), target)

    @staticmethod
    def put(content: bytes, target: Path) -> None:
        fresh = target.with_suffix(".new")
        fresh.write_bytes(content)
        os.replace(fresh, target)

    def settings(self) -> dict:
        return {"tls": {"certificate": str(self.certificate), "key": str(self.key), "client_ca": str(self.authority.certificate)}}

    def served(self, port: int) -> str:
        """Returns the serial number of the certificate that the server shows to a new connection."""
        context = ssl.create_default_context(cafile=self.authority.certificate)
        context.load_cert_chain(self.client_certificate, self.client_key)
        context.set_alpn_protocols(["h2"])
        with socket.create_connection(("127.0.0.1", port), timeout=5) as plain, context.wrap_socket(plain, server_hostname="localhost") as secure:
            return secure.getpeercert()["serialNumber"]


class FreshConnections(threading.Thread):
    """Opens a new connection for every call, so that every handshake is tested during the rotation."""

    def __init__(self, files: Files, replica: Replica, pb):
        super().__init__(daemon=True)
        self.files, self.replica, self.pb = files, replica, pb
        self.calls, self.errors, self.stopped = 0, [], False
        self.start()

    def run(self) -> None:
        files = self.files
        credentials = grpc.ssl_channel_credentials(
            files.authority.certificate.read_bytes(), files.client_key.read_bytes(), files.client_certificate.read_bytes()
        )
        request = self.pb[0].EmbedRequest(inputs=[self.pb[0].Input(text="a new connection")])
        while not self.stopped:
            with grpc.secure_channel(self.replica.address, credentials, [("grpc.use_local_subchannel_pool", 1)]) as channel:
                try:
                    self.pb[1].EmbeddingServiceStub(channel).Embed(request, timeout=30)
                except grpc.RpcError as error:
                    self.errors.append(f"{error.code().name}: {error.details()}")
            self.calls += 1

    def stop(self) -> None:
        self.stopped = True
        self.join(60)


def broken_pairs(files: Files, folder: Path) -> dict[str, tuple[bytes | None, bytes | None]]:
    """Returns pairs of certificate and key that must be refused. None stands for a missing file."""
    other = Authority(folder / "other")
    certificate, key = (path.read_bytes() for path in other.issue("server"))
    return {
        "another pair's key": (files.certificate.read_bytes(), key),
        "garbage for a certificate": (b"-----BEGIN CERTIFICATE-----\nnot base64 !\n-----END CERTIFICATE-----\n", files.key.read_bytes()),
        "a truncated certificate": (certificate[: len(certificate) // 2], key),
        "empty files": (b"", b""),
        "no certificate": (None, key),
        "no key": (certificate, None),
    }


def rotate(arguments: argparse.Namespace, files: Files, replica: Replica, report: Report) -> list[float]:
    """Returns the seconds until each new certificate was served."""
    taken = []
    for i in range(arguments.rounds):
        began, before = time.monotonic(), files.served(replica.port)
        files.renew()
        if not until(lambda: files.served(replica.port) != before, arguments.every - 0.5, 0.1):
            report.bar(f"rotation {i + 1} was taken up within {arguments.every - 0.5:.0f} s", False)
        taken.append(time.monotonic() - began)
        time.sleep(max(0.0, began + arguments.every - time.monotonic()))
    return taken


def break_in_turn(arguments: argparse.Namespace, files: Files, replica: Replica, folder: Path, report: Report) -> None:
    good = files.certificate.read_bytes(), files.key.read_bytes()
    for name, pair in broken_pairs(files, folder).items():
        before = files.served(replica.port)
        for content, target in zip(pair, (files.certificate, files.key)):
            target.unlink() if content is None else files.put(content, target)
        time.sleep(arguments.broken_seconds)
        report.bar(f"{name}: the old pair stays in use", files.served(replica.port) == before and replica.alive())
        for content, target in zip(good, (files.certificate, files.key)):
            files.put(content, target)
    files.renew()
    before = good[0]
    serial = ssl.PEM_cert_to_DER_cert(files.certificate.read_text())
    report.bar(
        "a good pair after the broken ones is taken up",
        until(lambda: served_der(files, replica) == serial, 10, 0.1) and files.certificate.read_bytes() != before,
    )


def served_der(files: Files, replica: Replica) -> bytes:
    context = ssl.create_default_context(cafile=files.authority.certificate)
    context.load_cert_chain(files.client_certificate, files.client_key)
    with socket.create_connection(("127.0.0.1", replica.port), timeout=5) as plain, context.wrap_socket(plain, server_hostname="localhost") as secure:
        return secure.getpeercert(binary_form=True)


def body(arguments: argparse.Namespace, folder: Path, report: Report) -> None:
    files = Files(folder)
    pb = python_client(folder)
    texts = write_texts(folder / "texts.txt", 20, 32)
    with Replica(folder, arguments, files.settings()) as replica:
        secure = {"tls_root": files.authority.certificate, "client_certificate": files.client_certificate, "client_key": files.client_key}
        alone, before = ask_alone(replica.address, texts, folder, **secure), replica.metrics()
        paths = {"lasting connections": folder / "lasting.jsonl", "a connection for 5 calls": folder / "changing.jsonl"}
        lasting, changing = (
            LoadClient(replica.address, texts, concurrency=2, seconds=36000, history=path, **options, **secure)
            for path, options in zip(paths.values(), ({}, {"connections": 2, "calls_per_connection": 5}))
        )
        fresh = FreshConnections(files, replica, pb)
        taken = rotate(arguments, files, replica, report)
        reloads = replica.metrics()
        break_in_turn(arguments, files, replica, folder, report)
        fresh.stop()
        results = dict(zip(paths, (lasting.stop(), changing.stop())))
        for name, path in paths.items():
            judge(report, name, History.read(path), alone, replica.metrics, before, alone=False)
        refused = replica.metrics().total("longembed_tls_reloads_total", result="refused")
        expiry = replica.metrics().total("longembed_tls_certificate_expiry_timestamp_seconds") - time.time()
        report.figure("rotations", arguments.rounds)
        report.figure("a new certificate served after, s", " ".join(f"{seconds:.1f}" for seconds in taken))
        for name, result in results.items():
            report.figure(f"{name}, p50 p99, ms", f"{latency(result, 'OK', 'p50'):.0f} {latency(result, 'OK', 'p99'):.0f}")
            report.bar(
                f"{name}: 0 failures", failures(result) == 0 and result["calls"] > 0, f"{failures(result)} of {result['calls']} {result['errors'] or ''}"
            )
        report.bar(
            "a connection for every call: 0 failures", not fresh.errors and fresh.calls > 0, f"{len(fresh.errors)} of {fresh.calls} {fresh.errors[:2] or ''}"
        )
        taken_up = reloads.total("longembed_tls_reloads_total", result="ok")
        report.bar("every rotation is counted", taken_up >= arguments.rounds, f"longembed_tls_reloads_total{{result=ok}} {taken_up:.0f}")
        report.bar("broken pairs are counted", refused >= 6, f"longembed_tls_reloads_total{{result=refused}} {refused:.0f}")
        report.bar("the expiry is that of the certificate in use", 29 * 86400 < expiry <= 30 * 86400 + 60, f"in {expiry / 86400:.2f} days")
        report.bar("exit status 0", replica.terminate() == 0)
    shutil.rmtree(folder / "authority")  # Keys must not stay in a folder that is kept.


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=12, help="rotations")
    parser.add_argument("--every", type=float, default=10, help="seconds between rotations")
    parser.add_argument("--broken-seconds", type=float, default=4, help="that each broken pair stays")
    run("rotation", parser, body)
