"""The files of docker/ are well formed and hardened, and its scripts work."""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from tlopt.storage.url import normalise

ROOT = Path(__file__).parents[1]
DOCKER = ROOT / "docker"
COMPOSE = [DOCKER / f"compose{name}.yaml" for name in ("", ".gpu", ".nodes", ".tls")]
OVERLAYS = ["base", "overlays/cpu"]
SECRETS_LEFT_OUT = shutil.ignore_patterns("secrets", ".env")
YAML_RULES = "{extends: default, rules: {line-length: {max: 125}, document-start: disable}}"
GNU = pytest.mark.skipif(sys.platform != "linux", reason="the image's scripts use GNU's stat")


def tool(name: str) -> str:
    """A linter's path; the test is skipped where it is not installed."""
    found = shutil.which(name, path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if found is None:
        pytest.skip(f"{name} is not installed; it comes with: pip install -e '.[dev]'")
    return found


def check(*command: str | Path) -> str:
    """The output of a command that has to end with 0."""
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def shipped(*patterns: str) -> list[Path]:
    """Files that are shipped, not those that a user has made beside them."""
    return sorted(p for pattern in patterns for p in DOCKER.rglob(pattern) if "secrets" not in p.parts)


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of docker/ with secrets made by its script."""
    copy = tmp_path_factory.mktemp("deploy") / "docker"
    shutil.copytree(DOCKER, copy, ignore=SECRETS_LEFT_OUT)
    for arguments in ([], [copy / "kubernetes" / "base" / "secrets"]):
        check(copy / "make_secrets.sh", *arguments)
    return copy


# Form


def test_the_dockerfile_has_no_findings() -> None:
    check(tool("hadolint"), DOCKER / "Dockerfile")


def test_the_scripts_have_no_findings() -> None:
    check(tool("shellcheck"), *shipped("*.sh", "*.sbatch"))


def test_the_yaml_has_no_findings() -> None:
    check(tool("yamllint"), "--strict", "-d", YAML_RULES, *shipped("*.yaml"))


def test_the_compose_files_follow_the_specification() -> None:
    check(tool("check-jsonschema"), "--builtin-schema", "vendor.compose-spec", *COMPOSE)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_manifests_follow_the_schema_of_kubernetes(overlay: str, ours: Path, tmp_path: Path) -> None:
    file = tmp_path / "manifests.yaml"
    file.write_text(check(tool("kubectl"), "kustomize", ours / "kubernetes" / overlay), encoding="utf-8")

    check(tool("kubernetes-validate"), "--strict", file)


# Compose


def services(file: Path) -> dict[str, dict[str, Any]]:
    return dict(yaml.safe_load(file.read_text(encoding="utf-8"))["services"])


def test_nothing_is_published_but_the_dashboard_on_loopback() -> None:
    ports = {name: service["ports"] for name, service in services(COMPOSE[0]).items() if "ports" in service}

    assert ports == {"dashboard": ["127.0.0.1:${TLOPT_PORT:-8080}:8080"]}
    assert not any("ports" in service for service in services(COMPOSE[1]).values())


@pytest.mark.parametrize("name", services(COMPOSE[0]))
def test_every_container_is_without_rights(name: str) -> None:
    service = services(COMPOSE[0])[name]

    assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"])
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not service.get("privileged")


@pytest.mark.parametrize("name", services(COMPOSE[0]))
def test_no_environment_holds_a_secret_or_names_what_the_container_lacks(name: str) -> None:
    service = services(COMPOSE[0])[name]
    environment = service.get("environment", {})
    named = re.findall(r"/run/secrets/(\w+)", f"{environment} {service.get('command')}")

    assert not [key for key in environment if re.search("PASSWORD$|STORAGE$", key)]
    assert set(named) <= set(service["secrets"])


def test_the_proxy_is_given_what_its_file_asks_for() -> None:
    asked = set(re.findall(r"\{\$(\w+)\}", (DOCKER / "Caddyfile").read_text()))  # those without a default

    assert asked == {"TLOPT_HOST", "TLOPT_TLS"} == set(services(COMPOSE[3])["tls"]["environment"])


def test_the_gpus_are_given_out_one_by_one() -> None:
    workers = {name: s for name, s in services(COMPOSE[1]).items() if name.startswith("worker")}
    devices = [s["deploy"]["resources"]["reservations"]["devices"][0] for s in workers.values()]

    assert [device["device_ids"] for device in devices] == [[str(i)] for i in range(8)]
    for n in (2, 4, 8):
        assert sum(f"gpu{n}" in s.get("profiles", [f"gpu{n}"]) for s in workers.values()) == n


# Kubernetes


def documents(ours: Path, overlay: str) -> list[dict[str, Any]]:
    text = check(tool("kubectl"), "kustomize", ours / "kubernetes" / overlay)
    return [document for document in yaml.safe_load_all(text) if document]


def pods(found: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    for document in found:
        if document["kind"] in ("Deployment", "Job", "StatefulSet"):
            yield document["metadata"]["name"], document["spec"]["template"]["spec"]


def containers(pod: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [*pod.get("initContainers", []), *pod["containers"]]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_pod_is_without_rights(overlay: str, ours: Path) -> None:
    found = dict(pods(documents(ours, overlay)))

    assert set(found) == {"postgres", "init", "worker", "dashboard"}
    for pod in found.values():
        assert pod["securityContext"]["runAsNonRoot"]
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is False
        for container in containers(pod):
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert container["resources"]["limits"]["memory"]


@pytest.mark.parametrize(("overlay", "gpus"), [("base", 1), ("overlays/cpu", None)])
def test_a_worker_has_one_gpu_or_none(overlay: str, gpus: int | None, ours: Path) -> None:
    (worker,) = dict(pods(documents(ours, overlay)))["worker"]["containers"]

    assert worker["resources"]["limits"].get("nvidia.com/gpu") == gpus
    assert ("--device=cuda" in worker["args"]) == (gpus is not None)


def test_only_the_secret_holds_secrets(ours: Path) -> None:
    others = [d for d in documents(ours, "base") if d["kind"] != "Secret"]
    words = [p.read_text().strip() for p in (ours / "kubernetes/base/secrets").glob("*_password")]

    assert len(words) == 4
    assert not [word for word in words if word in str(others)]


def test_postgresql_answers_its_clients_alone(ours: Path) -> None:
    policies = {
        d["metadata"]["name"]: d["spec"] for d in documents(ours, "base") if d["kind"] == "NetworkPolicy"
    }

    assert policies["nothing-comes-in"] == {"podSelector": {}, "policyTypes": ["Ingress"]}
    (rule,) = policies["postgres"]["ingress"]
    assert rule["from"] == [{"podSelector": {"matchLabels": {"tlopt/database": "client"}}}]


# Secrets, image


def test_secrets_that_are_there_stay_and_the_folder_is_closed(ours: Path) -> None:
    secrets = ours / "secrets"
    before = {p.name: p.read_text() for p in secrets.iterdir()}
    check(ours / "make_secrets.sh")

    assert {p.name: p.read_text() for p in secrets.iterdir()} == before
    assert secrets.stat().st_mode & 0o777 == 0o700
    assert set(yaml.safe_load(COMPOSE[0].read_text())["secrets"]) == set(before)


@pytest.mark.parametrize(
    ("role", "user"), [("owner", "tlopt"), ("worker", "tlopt_worker"), ("viewer", "tlopt_viewer")]
)
def test_the_urls_are_those_of_the_roles(role: str, user: str, ours: Path) -> None:
    url = (ours / "secrets" / f"{role}_url").read_text()
    password = (ours / "secrets" / f"{role}_password").read_text().strip()

    assert normalise(url) == f"postgresql+psycopg2://{user}:{password}@postgres:5432/tlopt"
    assert any(user in (DOCKER / "postgres" / f"{name}.sql").read_text() for name in ("database", "roles"))


@GNU
@pytest.mark.parametrize(("age", "status"), [(None, 0), (0, 0), (50, 0), (70, 1)])
def test_a_container_is_healthy_while_its_worker_sends_heartbeats_or_where_none_is(
    age: int | None, status: int, tmp_path: Path
) -> None:
    file = tmp_path / "heartbeat"
    if age is not None:
        file.touch()
        os.utime(file, (file.stat().st_mtime - age,) * 2)
    environment = os.environ | {"TLOPT_HEARTBEAT_FILE": str(file)}

    assert subprocess.run([DOCKER / "heartbeat.sh", "60"], env=environment).returncode == status


# Signals


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A `tlopt` that ends with 3, or for the study "wait" with 0 at SIGTERM; and an `scontrol` that notes."""
    for name, text in {
        "tlopt": 'trap "exit 0" TERM\necho "$@"\n[ "$2" = wait ] || exit 3\nwhile :; do sleep 0.02; done\n',
        "scontrol": f'echo "$@" >>{tmp_path}/queue\n',
    }.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return tmp_path


def run_on_stage(command: Sequence[str | Path], *, stop: bool) -> tuple[str, int]:
    """The first line that tlopt says, and the status."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    line = process.stdout.readline().strip()
    if stop:
        process.send_signal(signal.SIGTERM)
    with process.stdout as rest:
        rest.read()
    return line, process.wait(60)


def test_a_worker_that_was_asked_to_stop_is_not_taken_for_done(stage: Path) -> None:
    script = DOCKER / "preemptible.sh"

    assert run_on_stage([script, "worker", "other"], stop=False) == ("worker other", 3)
    assert run_on_stage([script, "worker", "wait"], stop=True) == ("worker wait", 143)


@pytest.mark.parametrize(("study", "status", "queue"), [("other", 3, []), ("wait", 0, ["requeue 7"])])
def test_a_batch_job_that_was_asked_to_stop_goes_back_into_the_queue(
    study: str, status: int, queue: list[str], stage: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("STUDY", study)
    command = ["bash", DOCKER / "slurm" / "tlopt-worker.sbatch", "--device", "cpu"]

    assert run_on_stage(command, stop=study == "wait") == (f"worker {study} --device cpu", status)
    file = stage / "queue"
    assert (file.read_text().splitlines() if file.exists() else []) == queue
