"""Tests the start of the server: its arguments, --check-config, environment variables, and the format of fatal errors."""

import json
import os
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from running_server import BUILD, MODELS, start_server

SERVER = BUILD / "longembed-server"
CLIENT = BUILD / "longembed"
LOOPBACK = "listen: 127.0.0.1:0\nmetrics_listen: 127.0.0.1:0\n"


def run(*arguments, env: dict | None = None, through: tuple[str, ...] = ()) -> subprocess.CompletedProcess:
    """Runs the server. `through` is a command that sets something and runs the rest. A preexec_fn would fork this process, which runs gRPC's
    threads."""
    if not SERVER.exists():
        pytest.skip("longembed-server has not been built; run tests/run.sh")
    return subprocess.run([*through, SERVER, *map(str, arguments)], capture_output=True, text=True, timeout=120, env={**os.environ, **(env or {})})


@pytest.fixture
def config(tmp_path):
    """Returns a function config(yaml) that writes a configuration and returns its path."""

    def write(yaml: str) -> Path:
        path = tmp_path / "config.yaml"
        path.write_text(yaml)
        return path

    return write


@pytest.fixture
def model(tmp_path) -> Path:
    """Makes a model directory for this test alone, with the weights of models/e5-small-v2."""
    source = MODELS / "e5-small-v2"
    if not source.exists():
        pytest.skip("models/e5-small-v2 has not been exported; run tests/run.sh")
    folder = tmp_path / "model"
    folder.mkdir()
    for file in source.iterdir():
        if file.suffix == ".pt":
            (folder / file.name).symlink_to(file)
        else:
            shutil.copy(file, folder)
    return folder


# ---------------------------------------------------------------------------------------------------------- check-config


@pytest.mark.parametrize("origin", ["https://example.org/", "https://a.org,https://b.org", "example.org", "*\r\nx: y"])
def test_values_that_are_not_an_origin_are_refused(config, origin):
    checked = run("--check-config", "--config", config("models: [{path: m}]\n"), env={"LONGEMBED__HTTP__ALLOWED_ORIGIN": origin})
    assert checked.returncode == 2 and "allowed_origin is " in checked.stderr, checked.stderr


def test_a_good_config_has_no_problem_and_no_port_is_opened(config, model):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        path = config(f"listen: 127.0.0.1:{port}\nprofiles: {{p: {{windows: {{}}}}}}\nmodels: [{{path: {model}}}]\n")
        checked = run("--check-config", "--config", path)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, f"{path}: no problem found\n", "")


@pytest.mark.parametrize("other", ["0.0.0.0:52213", "127.0.0.1:052213", ":52213"])
def test_addresses_that_take_one_port_are_reported(config, model, other):
    """Two texts may stand for one port, which a start would find in use."""
    checked = run("--check-config", "--config", config(f'listen: 127.0.0.1:52213\nmetrics_listen: "{other}"\nmodels: [{{path: model}}]\n'))
    assert f"metrics_listen: {other} takes the port of listen, 127.0.0.1:52213; each needs a port of its own" in checked.stderr
    assert checked.returncode == 1


def test_all_problems_are_reported_together(config, model, tmp_path):
    shutil.copytree(model, tmp_path / "cut", symlinks=True)
    (tmp_path / "cut/tokenizer.json").write_text("{}")
    shutil.copytree(model, tmp_path / "weightless", symlinks=True)
    (tmp_path / "weightless/encoder.pt").unlink()
    checked = run(
        "--check-config",
        "--config",
        config(
            "listen: nonsense\nhealth_listen: 127.0.0.1:5\nmetrics_listen: 127.0.0.1:5\nreflection: false\n"
            "tls: {certificate: none.pem, key: none.pem}\napi_keys: none.yaml\n"
            "profiles: {a: {nonsense: {}}, b: {windows: {tokens: 3, tokens_: 1}}}\n"
            "models: [{path: absent}, {path: cut}, {path: weightless}, {path: model, precision: fp16}, {path: model, device: abacus, name: other}]\n"
        ),
        through=("prlimit", "--nofile=300"),
    )
    told = checked.stderr.splitlines()
    assert checked.returncode == 1 and not checked.stdout
    for said in (
        'listen: "nonsense" is not an address',
        "metrics_listen: 127.0.0.1:5 is the address of health_listen, too",
        "connections.max is 1000, but this process may open 300 descriptors",
        "tls: ",
        "api_keys: ",
        "profiles.a: ",
        "profiles.b: ",
        "models[0]: ",
        "models[1]: ",
        "models[2]: ",
        "models[3]: ",
        "models[4]: ",
    ):
        assert any(line.startswith(said) for line in told), (said, told)
    assert "encoder.pt cannot be opened: No such file or directory" in checked.stderr and "fp16 is for CUDA" in checked.stderr


def problems_before_loading(path, said) -> list[str]:
    """Checks that --check-config, and a start that loads no model, refuse the config with a problem that begins so. Returns the lines of --check-config."""
    checked = run("--check-config", "--config", path)
    assert checked.returncode == 1 and checked.stderr.startswith(said), checked.stderr
    started = run("--config", path)
    assert started.returncode == 1 and f"longembed-server: {said}" in started.stderr and "model ready" not in started.stderr
    return checked.stderr.splitlines()


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        ("profiles: {p: {ntk: {factor: 2}}}", "profiles.p fits no model; "),
        ("limits: {max_tokens_per_sequence: 256}\nprofiles: {p: {windows: {tokens: 257}}}", "profiles.p: windows.tokens: is 257; the server allows at most 256 "),
        ("limits: {max_tokens_per_sequence: 256}\ntei: {extension: {windows: {tokens: 257}}}", "tei.extension: windows.tokens: is 257; the server allows at most 256 "),
        ("tei: {model: absent}", 'tei.model: is "absent"; this server has: e5-small-v2'),
        ("tei: {default_prompt: absent}", 'tei.default_prompt: is "absent"; '),
        ("tei: {extension: {yarn: {}}}", "tei.extension does not fit the model e5-small-v2: yarn: "),
        ("tei: {extension: {windoes: {}}}", "tei.extension: windoes: is unknown"),
        ("tei: {extension: {windows: {vectors: 3}}}", "tei.extension has windows.vectors, which is 3"),
        ("profiles: {p: {windows: {vectors: 2}}}\ntei: {profile: p}", "tei.profile has windows.vectors, which is 2"),
        ('profiles: {p: {windows: {}}}\ntei: {model: "e5-small-v2:p", profile: p}', 'tei.model names the profile "p"; leave out'),
        ("http: {openai_prompt: absent}", 'http.openai_prompt is "absent", which is not a prompt of any model'),
        ('profiles: {p: {windows: {}}}\ntei: {model: "e5-small-v2:absent"}', 'tei.model: is "e5-small-v2:absent"; the model e5-small-v2 has the profiles: p'),
    ],
)
def test_keys_that_refer_to_models_are_compared_with_them(config, model, extra, said):
    path = config(f"{LOOPBACK}log: {{format: text}}\n{extra}\nmodels: [{{path: model}}]\n")
    assert len(problems_before_loading(path, said)) == 1


@pytest.mark.parametrize(
    ("second", "said"),
    [
        ("{path: absent}", "models[1]: "),
        ("{path: model}", "models[1]: two models are named e5-small-v2"),
        ("{path: model, device: abacus, name: b}", "models[1]: "),
        ('{path: model, name: "e5-small-v2:p"}', '"e5-small-v2:p" would name two things'),
    ],
)
def test_the_last_model_is_checked_before_the_first_is_loaded(config, model, second, said):
    path = config(f"{LOOPBACK}log: {{format: text}}\nprofiles: {{p: {{windows: {{}}}}}}\nmodels: [{{path: model}}, {second}]\n")
    problems_before_loading(path, said)


@pytest.mark.parametrize("profile", ["p", "q:p"])
def test_an_alias_is_a_model(config, model, profile):
    path = config(f'profiles: {{"{profile}": {{windows: {{}}}}}}\ntei: {{model: "e5-small-v2:{profile}", default_prompt: query}}\nmodels: [{{path: model}}]\n')
    checked = run("--check-config", "--config", path)
    assert checked.returncode == 0, checked.stderr


def test_a_tokenizer_beyond_the_models_vocabulary(config, model):
    manifest = model / "longembed-model.yaml"
    entries = "vocabulary_size: 30522\n"
    assert entries in manifest.read_text()
    manifest.write_text(manifest.read_text().replace(entries, "vocabulary_size: 30000\n"))
    checked = run("--check-config", "--config", config("models: [{path: model}]\n"))
    assert checked.returncode == 1 and "tokenizer.json: has 30522 entries, the model only 30000" in checked.stderr


def test_two_models_of_one_name(config, model):
    checked = run("--check-config", "--config", config("models: [{path: model}, {path: model}]\n"))
    assert checked.returncode == 1 and checked.stderr == "models[1]: two models are named e5-small-v2; give one of them another name in the config\n"


def test_a_wrong_config_has_another_exit_status(config):
    path = config("reflection: maybe\nmodels: [{path: m}]\nlimits: {max_queue_wait: 5}\n")
    checked = run("--check-config", "--config", path)
    assert checked.returncode == 2
    assert checked.stderr.splitlines() == [
        f"{path}: line 1: reflection must be true or false, not maybe",
        f"{path}: line 3: limits.max_queue_wait must be a duration such as 500ms, 10s or 2m, not 5",
    ]
    absent = run("--check-config", "--config", "/nonexistent.yaml")
    assert absent.returncode == 2 and "/nonexistent.yaml" in absent.stderr


def test_the_environment_is_checked_too(config, model):
    path = config("models: [{path: model}]\n")
    assert run("--check-config", "--config", path, env={"LONGEMBED__LISTEN": "0.0.0.0:7", "LONGEMBED_SERVER": "x", "LONGEMBED_PORT": "tcp://a:1"}).returncode == 0
    checked = run("--check-config", "--config", path, env={"LONGEMBED__LISTEN": "x", "LONGEMBED__API_KEYS": "none.yaml", "LONGEMBED__REFLECTION": "false"})
    assert checked.returncode == 1 and 'listen: "x"' in checked.stderr and "none.yaml" in checked.stderr
    checked = run("--check-config", "--config", path, env={"LONGEMBED__REFLECTON": "false", "LONGEMBED_LOG_LEVEL": "info"})
    assert checked.returncode == 2
    assert "LONGEMBED__REFLECTON names no key of the config; did you mean LONGEMBED__REFLECTION?" in checked.stderr
    assert "LONGEMBED_LOG_LEVEL is not read; log.level of the config is set by LONGEMBED__LOG__LEVEL" in checked.stderr


# --------------------------------------------------------------------------------------------------------- what ends it


def test_an_error_that_ends_the_start_is_a_json_line(config):
    path = config("listen: nonsense\nmetrics_listen: nowhere\nmodels: [{path: absent}]\n")
    ended = run("--config", path)
    lines = [json.loads(line) for line in ended.stderr.splitlines()]
    fatal = [line for line in lines if line["level"] == "error"]
    assert ended.returncode == 1 and [line["event"] for line in fatal] == ["start failed"] * 2
    assert [line["why"].split(":")[0] for line in fatal] == ["listen", "metrics_listen"] and all("time" in line for line in fatal)


def test_a_problem_of_the_config_itself_is_a_json_line_too(config):
    path = config("reflection: 1\nchannelz: 2\nmodels: [{path: m}]\n")
    ended = run("--config", path)
    assert ended.returncode == 2 and [json.loads(line)["why"].split(":")[1] for line in ended.stderr.splitlines()] == [" line 1", " line 2"]
    path.write_text("log: {format: text}\nreflection: 1\nmodels: [{path: m}]\n")
    expected = f"longembed-server: {path}: line 2: reflection must be true or false, not 1\n"
    assert run("--config", path).stderr == expected
    ended = run("--config", path, env={"LONGEMBED__LOG__FORMAT": "json"})
    assert json.loads(ended.stderr)["why"] == expected.removeprefix("longembed-server: ").strip()
    path.write_text("reflection: [1\n")
    assert run("--config", path, env={"LONGEMBED__LOG__FORMAT": "text"}).stderr.startswith(f"longembed-server: {path}: line ")
    assert "line" in json.loads(run("--config", path).stderr)["why"]


def test_wrong_arguments_are_named():
    ended = run("--port", "5")
    assert ended.returncode == 2 and ended.stderr.startswith("longembed-server: unknown argument --port; ") and not ended.stdout
    assert run("--version").stdout.startswith("longembed-server ") and run("--help").returncode == 0


# ----------------------------------------------------------------------------------------------------------- with a model


def test_the_environment_outranks_the_file_and_its_values_are_not_logged(tmp_path, monkeypatch):
    (tmp_path / "secret-keys.yaml").write_text("keys: [{name: a, key: first}]\n")
    monkeypatch.setenv("LONGEMBED__API_KEYS", "secret-keys.yaml")
    monkeypatch.setenv("LONGEMBED__REFLECTION", "false")
    running = start_server(tmp_path, ["e5-small-v2"], "api_keys: nonexistent.yaml\n")
    log = running.log.read_text()
    assert '"event":"config overridden by the environment","variables":"LONGEMBED__API_KEYS, LONGEMBED__REFLECTION"' in log
    assert "secret-keys" not in log
    refused = subprocess.run([CLIENT, "models", "--server", f"127.0.0.1:{running.port}"], capture_output=True, text=True, timeout=60)
    assert refused.returncode == 1 and "API key" in refused.stderr
    assert running.stop() == 0
