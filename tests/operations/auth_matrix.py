"""Tests access to every method that the server or its protos describe: with no key, wrong keys and right keys, over plaintext, TLS and mTLS. Also
tests the health and metrics ports, and keys that are replaced while the server runs. No call may succeed without its key, and no key may appear in
a log."""

import argparse
import hashlib
import http.client
import threading
import time
from collections import Counter
from pathlib import Path

from harness import Authority, Replica, Report, python_client, run, until  # isort: skip. Imported before grpc, because it silences grpc's log.
import grpc
import yaml
from google.protobuf import descriptor_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

PLAIN_KEY, HASHED_KEY, LATER_KEY = "plain-Key-4711-of-alpha", "hashed-Key-0815-of-beta", "later-Key-2342-of-gamma"
HASH = hashlib.sha256(HASHED_KEY.encode()).hexdigest()

RIGHT = {
    "Bearer, plain in the file": [("authorization", f"Bearer {PLAIN_KEY}")],
    "Bearer, hashed in the file": [("authorization", f"Bearer {HASHED_KEY}")],
    "x-api-key": [("x-api-key", PLAIN_KEY)],
}
WRONG = {
    "no key": [],
    "unknown key": [("authorization", "Bearer unknown-Key-1234")],
    "unknown x-api-key": [("x-api-key", "unknown-Key-5678")],
    "empty key": [("authorization", "Bearer ")],
    "empty x-api-key": [("x-api-key", "")],
    "no scheme": [("authorization", PLAIN_KEY)],
    "another scheme": [("authorization", f"Basic {PLAIN_KEY}")],
    "a key cut short": [("authorization", f"Bearer {PLAIN_KEY[:-1]}")],
    "a key and more": [("authorization", f"Bearer {PLAIN_KEY}x")],
    "another case": [("authorization", f"Bearer {PLAIN_KEY.upper()}")],
    "the hash in the file": [("authorization", f"Bearer {HASH}")],
    "a client's name": [("authorization", "Bearer alpha")],
    "a key in another field": [("api-key", PLAIN_KEY), ("cookie", f"key={PLAIN_KEY}")],
}
# The services of gRPC's own packages. Reflection adds those of later versions.
GRPC_SERVICES = {
    "grpc.health.v1.Health": ["Check", "Watch"],
    "grpc.reflection.v1.ServerReflection": ["ServerReflectionInfo"],
    "grpc.reflection.v1alpha.ServerReflection": ["ServerReflectionInfo"],
    "grpc.channelz.v1.Channelz": ["GetTopChannels", "GetServers", "GetServer", "GetServerSockets", "GetChannel", "GetSubchannel", "GetSocket"],
}
NOT_THERE = [
    "/longembed.v1.EmbeddingService/Nothing", "/longembed.v1.Nothing/Embed", "/longembed.v2.EmbeddingService/Embed",
    "//longembed.v1.EmbeddingService/Embed", "/longembed.v1.EmbeddingService/Embed/", "/LONGEMBED.V1.EMBEDDINGSERVICE/EMBED",
]  # fmt: skip
# Paths on the metrics port. Only the first exists.
ASKED_FOR_METRICS = [
    ("GET", "/metrics"), ("GET", "/"), ("GET", "/health"), ("GET", "/config"), ("GET", "/../etc/passwd"), ("GET", "/debug/pprof"),
    ("POST", "/metrics"), ("PUT", "/metrics"), ("DELETE", "/metrics"), ("POST", "/longembed.v1.EmbeddingService/ListModels"),
]  # fmt: skip


def is_health(method: str) -> bool:
    return method.startswith("/grpc.health.v1.Health/")


def of_file(file) -> set[str]:
    """Returns the methods of a file descriptor, which is compiled in or comes from reflection."""
    proto = file if isinstance(file, descriptor_pb2.FileDescriptorProto) else descriptor_pb2.FileDescriptorProto.FromString(file.serialized_pb)
    return {f"/{proto.package}.{service.name}/{method.name}" for service in proto.service for method in service.method}


def known_methods(pb, tei) -> set[str]:
    return of_file(pb.DESCRIPTOR) | of_file(tei.DESCRIPTOR) | {f"/{service}/{name}" for service, names in GRPC_SERVICES.items() for name in names}


def reflected_methods(channel: grpc.Channel) -> tuple[set[str], set[str]]:
    """Returns the methods that reflection describes, and the services that it lists by name only."""
    database = ProtoReflectionDescriptorDatabase(channel)
    methods, silent = set(), set()
    for service in database.get_services():
        try:
            methods |= {method for method in of_file(database.FindFileContainingSymbol(service)) if method.startswith(f"/{service}/")}
        except KeyError:
            silent.add(service)
    return methods, silent


class Caller:
    """Calls methods with raw bytes, and records every message that the server returns."""

    def __init__(self):
        self.calls, self.words = 0, []

    def code(self, channel: grpc.Channel, method: str, metadata: list) -> str:
        """Returns the status code, which is OK as soon as there is an answer. A unary call is made as a stream of one message, which is the same
        on the wire."""
        self.calls += 1
        call = channel.stream_stream(method)(iter([b""]), timeout=10, metadata=metadata)
        try:
            for _ in call:
                call.cancel()
                return "OK"
            return call.code().name
        except grpc.RpcError as error:
            self.words.append(f"{error.details()} {error.trailing_metadata()}")
            return error.code().name

    def silent_stream(self, channel: grpc.Channel, metadata: list) -> str:
        """Opens an EmbedStream and sends nothing. The server must check the key first."""
        end = threading.Event()

        def nothing():
            end.wait(10)
            yield from ()

        try:
            for _ in channel.stream_stream("/longembed.v1.EmbeddingService/EmbedStream")(nothing(), timeout=5, metadata=metadata):
                pass
            return "OK"
        except grpc.RpcError as error:
            return error.code().name
        finally:
            end.set()


def fresh(options: list | None = None) -> list:
    return [("grpc.use_local_subchannel_pool", 1), *(options or [])]


class Transport:
    """A server with one channel that it must accept and several that it must refuse."""

    def __init__(self, name: str, replica: Replica, let_in: grpc.Channel, shut_out: dict[str, grpc.Channel]):
        self.name, self.replica, self.let_in, self.shut_out = name, replica, let_in, shut_out


def check_matrix(transport: Transport, methods: list[str], served: set[str], caller: Caller, report: Report) -> None:
    """Checks every method with every key over one transport."""
    past, refused_right, unhealthy, seen = [], [], [], Counter()
    for method in methods:
        for name, metadata in WRONG.items():
            code = caller.code(transport.let_in, method, metadata)
            seen[code] += 1
            if is_health(method):
                if code != "OK":
                    unhealthy.append(f"{method} with {name}: {code}")
            elif code != "UNAUTHENTICATED" and not (code == "UNIMPLEMENTED" and method not in served):
                past.append(f"{method} with {name}: {code}")
        for name, metadata in RIGHT.items():
            code = caller.code(transport.let_in, method, metadata)
            # channelz answers a request for server 0 with INTERNAL.
            if (
                code in ("UNAUTHENTICATED", "PERMISSION_DENIED", "UNAVAILABLE", "UNKNOWN", "DEADLINE_EXCEEDED")
                or code == "INTERNAL"
                and "channelz" not in method
            ):
                refused_right.append(f"{method} with {name}: {code}")
    report.figure(f"{transport.name}, answers to wrong keys", dict(seen))
    report.bar(f"{transport.name}: 0 bypasses", not past, f"{len(past)} of {len(methods) * len(WRONG)} {past[:4] or ''}")
    report.bar(
        f"{transport.name}: right keys are let in", not refused_right, f"{len(refused_right)} refused of {len(methods) * len(RIGHT)} {refused_right[:4] or ''}"
    )
    report.bar(f"{transport.name}: health needs no key", not unhealthy, f"{unhealthy[:4] or ''}")
    code = caller.silent_stream(transport.let_in, [])
    report.bar(f"{transport.name}: a stream that sends nothing is refused", code == "UNAUTHENTICATED", code)
    for how, channel in transport.shut_out.items():
        codes = Counter(caller.code(channel, method, metadata) for method in methods for metadata in (RIGHT["x-api-key"], []))
        report.bar(f"{transport.name}: no connection {how}", set(codes) == {"UNAVAILABLE"}, f"{dict(codes)}")


def check_other_ports(replica: Replica, methods: list[str], caller: Caller, report: Report) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{replica.health_port}", fresh()) as channel:
        wrong = []
        for method in methods:
            for metadata in ([], RIGHT["x-api-key"]):
                code = caller.code(channel, method, metadata)
                if code != ("OK" if is_health(method) else "UNIMPLEMENTED"):
                    wrong.append(f"{method}: {code}")
        report.bar(
            "health port: grpc.health.v1 and nothing else, with or without key", not wrong, f"{len(wrong)} wrong of {2 * len(methods)} {wrong[:4] or ''}"
        )
    statuses = {}
    for verb, path in ASKED_FOR_METRICS:
        connection = http.client.HTTPConnection("127.0.0.1", replica.metrics_port, timeout=5)
        connection.request(verb, path, body=b"x" if verb in ("POST", "PUT") else None)
        answer = connection.getresponse()
        statuses[f"{verb} {path}"] = answer.status
        caller.words.append(answer.read().decode(errors="replace"))
        connection.close()
    right = all((status == 200) == (what == "GET /metrics") for what, status in statuses.items())
    report.bar("metrics port: GET /metrics and nothing else", right, str(statuses))
    with grpc.insecure_channel(f"127.0.0.1:{replica.metrics_port}", fresh()) as channel:
        codes = Counter(caller.code(channel, method, RIGHT["x-api-key"]) for method in methods[:5])
    report.bar("metrics port: no gRPC", "OK" not in codes, str(dict(codes)))


def check_reload(transport: Transport, keys: Path, caller: Caller, report: Report) -> None:
    """Replaces the keys while a connection is open."""
    method, later = "/longembed.v1.EmbeddingService/ListModels", [("authorization", f"Bearer {LATER_KEY}")]

    def code(metadata: list) -> str:
        return caller.code(transport.let_in, method, metadata)

    write_keys(keys, [{"name": "gamma", "key": LATER_KEY}])
    began = time.monotonic()
    taken = until(lambda: code(later) == "OK", 10, 0.1)
    report.bar("a new key is let in", taken, f"after {time.monotonic() - began:.1f} s")
    codes = [code(metadata) for metadata in RIGHT.values()]
    report.bar("keys that were taken out are refused, on an open connection too", set(codes) == {"UNAUTHENTICATED"}, str(codes))
    for name, content in {
        "broken YAML": "keys: [",
        "no keys": "keys: []\n",
        "an empty file": "",
        "a key without a name": "keys: [{key: x}]\n",
        "no file": None,
    }.items():
        keys.unlink() if content is None else keys.write_text(content)
        time.sleep(2.5)
        codes = code([]), code(RIGHT["x-api-key"]), code(later)
        report.bar(f"{name}: the old keys stay in use", codes == ("UNAUTHENTICATED", "UNAUTHENTICATED", "OK"), f"no key, removed key, current key: {codes}")


def check_leaks(replicas: list[Replica], caller: Caller, report: Report) -> None:
    keys = {
        value.removeprefix("Bearer ").removeprefix("Basic ").removeprefix("key=")
        for variants in (RIGHT, WRONG)
        for metadata in variants.values()
        for _, value in metadata
    }
    # Shorter strings are not keys, and they occur in many messages.
    keys = {key for key in keys | {LATER_KEY} if len(key) > 10} | {hashlib.sha256(key.encode()).hexdigest() for key in (PLAIN_KEY, HASHED_KEY, LATER_KEY)}
    places = {f"log of {replica.name}": replica.log.read_text() for replica in replicas} | {"errors and metrics": "\n".join(caller.words)}
    found = [f"{key} in {place}" for place, text in places.items() for key in keys if key.lower() in text.lower()]
    report.figure("searched", {place: f"{len(text)} characters" for place, text in places.items()})
    report.bar("no key, nor the hash of one, in any log, error or metric", not found, f"{len(keys)} searched for {found[:4] or ''}")
    logged = [replica.name for replica in replicas if "UNAUTHENTICATED" in replica.log.read_text() and "alpha" in replica.log.read_text()]
    report.bar("the logs that were searched tell of refused calls, and of clients by name", len(logged) == len(replicas), str(logged))


def check_refused_config(arguments: argparse.Namespace, folder: Path, settings: dict, report: Report) -> None:
    replica = Replica(folder, arguments, {**settings, "channelz": True}, "unsafe").start(wait=False)
    ended = until(lambda: not replica.alive(), 60, 0.1)
    replica.kill()
    report.bar(
        "channelz with keys on a plaintext port is a config error",
        ended and replica.process.returncode not in (0, -6, -11) and "channelz" in replica.log.read_text(),
        f"exit status {replica.process.returncode}",
    )


def write_keys(path: Path, keys: list[dict]) -> None:
    path.write_text(yaml.safe_dump({"keys": keys}))


def open_transports(arguments: argparse.Namespace, folder: Path, settings: dict) -> list[Transport]:
    authority, other = Authority(folder / "authority"), Authority(folder / "other")
    certificate, key = authority.issue("server")
    root = authority.certificate.read_bytes()
    tls = {"certificate": str(certificate), "key": str(key)}

    def credentials(issuer: Authority | None = None) -> grpc.ChannelCredentials:
        if issuer is None:
            return grpc.ssl_channel_credentials(root)
        client_certificate, client_key = issuer.issue("client")
        return grpc.ssl_channel_credentials(root, client_key.read_bytes(), client_certificate.read_bytes())

    replicas = {
        "plaintext": Replica(folder, arguments, settings, "plaintext"),
        "TLS": Replica(folder, arguments, {**settings, "tls": tls, "channelz": True}, "tls"),
        "mTLS": Replica(folder, arguments, {**settings, "tls": {**tls, "client_ca": str(authority.certificate)}, "channelz": True}, "mtls"),
    }
    for replica in replicas.values():
        replica.start(wait=False)
    for replica in replicas.values():
        replica.wait_serving()

    def secure(name: str, with_credentials: grpc.ChannelCredentials) -> grpc.Channel:
        return grpc.secure_channel(replicas[name].address, with_credentials, fresh())

    plain = {name: grpc.insecure_channel(replica.address, fresh()) for name, replica in replicas.items()}
    not_mtls = {
        "in plaintext": plain["mTLS"],
        "without a certificate": secure("mTLS", credentials()),
        "with another authority's certificate": secure("mTLS", credentials(other)),
    }
    return [
        Transport("plaintext", replicas["plaintext"], plain["plaintext"], {"with TLS": secure("plaintext", credentials())}),
        Transport("TLS", replicas["TLS"], secure("TLS", credentials()), {"in plaintext": plain["TLS"]}),
        Transport("mTLS", replicas["mTLS"], secure("mTLS", credentials(authority)), not_mtls),
    ]


def with_key(replica: Replica, root: bytes) -> grpc.Channel:
    """Opens a channel that sends a valid key with every call, including those of reflection."""
    key = grpc.metadata_call_credentials(lambda _, callback: callback(RIGHT["Bearer, plain in the file"], None))
    return grpc.secure_channel(replica.address, grpc.composite_channel_credentials(grpc.ssl_channel_credentials(root), key), fresh())


def body(arguments: argparse.Namespace, folder: Path, report: Report) -> None:
    from generated_client import generate_tei_client

    pb, tei = python_client(folder)[0], generate_tei_client(folder / "generated")[0]
    keys = folder / "keys.yaml"
    write_keys(keys, [{"name": "alpha", "key": PLAIN_KEY}, {"name": "beta", "sha256": HASH}])
    settings = {"api_keys": str(keys), "log": {"level": "debug"}}
    check_refused_config(arguments, folder, settings, report)
    transports, caller = open_transports(arguments, folder, settings), Caller()
    replicas = [transport.replica for transport in transports]
    try:
        reflected, silent = reflected_methods(with_key(replicas[1], (folder / "authority/ca.pem").read_bytes()))
        known = known_methods(pb, tei)
        methods = sorted(known | reflected | set(NOT_THERE))
        report.figure("methods", f"{len(methods)}, of which reflection describes {len(reflected)}; services that it only names: {sorted(silent) or 'none'}")
        unheard = {service for service in silent if not any(method.startswith(f"/{service}/") for method in known)}
        report.bar("every service that the server names is in the matrix", not unheard, f"{sorted(unheard) or ''}")
        report.bar(
            "the server serves what its protos describe",
            of_file(pb.DESCRIPTOR) | of_file(tei.DESCRIPTOR) <= reflected,
            f"missing {sorted((of_file(pb.DESCRIPTOR) | of_file(tei.DESCRIPTOR)) - reflected)}",
        )
        for transport in transports:
            # A plaintext server with keys has no channelz.
            served = {m for m in known | reflected if transport.name != "plaintext" or not m.startswith("/grpc.channelz.")}
            check_matrix(transport, methods, served, caller, report)
        check_other_ports(replicas[0], methods, caller, report)
        check_reload(transports[1], keys, caller, report)
        report.figure("calls", caller.calls)
        failures = [replica.metrics().total("longembed_authentication_failures_total") for replica in replicas]
        report.bar("every server counted its refusals", min(failures) > 0, f"longembed_authentication_failures_total {failures}")
        caller.words += [replica.metrics_text() for replica in replicas]
    finally:
        statuses = [replica.terminate() for replica in replicas]
    report.bar("exit status 0", statuses == [0] * len(statuses), str(statuses))
    check_leaks(replicas, caller, report)


if __name__ == "__main__":
    run("auth_matrix", argparse.ArgumentParser(description=__doc__), body)
