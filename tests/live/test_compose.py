"""The compose file: Docker takes it, and it has what is promised: health, limits, known ports, loopback only."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.live.prometheus import DEPLOYED

COMPOSE = DEPLOYED.parent / "compose.yaml"
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load(COMPOSE.read_text())["services"]
PORTS = {
    "nats": {4222, 8222},
    "kafka": {19092},
    "worker-1": {6066},
    "prometheus": {9090},
    "grafana": {3000},
    "jaeger": {16686, 4317, 4318},
}


@pytest.mark.live
def test_docker_takes_the_compose_file() -> None:
    if shutil.which("docker") is None or subprocess.run(["docker", "compose", "version"], check=False).returncode:
        pytest.skip("no docker with its compose plugin; the other tests here read the file without it")
    ran = subprocess.run(["docker", "compose", "-f", COMPOSE, "config", "-q"], capture_output=True, text=True)  # noqa: PLW1510
    assert ran.returncode == 0, ran.stderr


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_is_limited_restarted_and_asked_for_its_health(name: str) -> None:
    service = SERVICES[name]
    assert service["mem_limit"] == ("1g" if name == "kafka" else "512m")
    assert service["restart"] == "unless-stopped"
    own = "HEALTHCHECK" in (COMPOSE.parent / "Dockerfile").read_text()
    assert "healthcheck" in service or ("build" in service and own)
    assert "build" in service or not service["image"].endswith((":latest", service["image"].partition(":")[0]))
    for port in service.get("ports", ()):
        assert port.startswith("127.0.0.1:"), f"{name} is open to the network"
    for volume in service.get("volumes", ()):
        if volume.startswith("."):
            assert (COMPOSE.parent / volume.split(":")[0]).exists(), volume


def test_what_one_looks_at_is_at_the_ports_that_are_known() -> None:
    for name, ports in PORTS.items():
        assert {int(port.split(":")[1]) for port in SERVICES[name]["ports"]} == ports


def test_prometheus_scrapes_every_process_of_ours() -> None:
    jobs = yaml.safe_load((DEPLOYED / "prometheus.yml").read_text())["scrape_configs"]
    targets = {target for job in jobs for config in job["static_configs"] for target in config["targets"]}
    assert targets - {"127.0.0.1:9090"} == {f"{name}:6066" for name, of in SERVICES.items() if "build" in of}


def test_make_says_what_is_missing_where_there_is_no_docker(tmp_path: Path) -> None:
    for tool in ("make", "sh"):
        (tmp_path / tool).symlink_to(shutil.which(tool) or "")
    for target in ("up", "down"):
        command = [tmp_path / "make", target, f"SHELL={tmp_path / 'sh'}"]
        ran = subprocess.run(
            command, cwd=COMPOSE.parents[1], env={"PATH": str(tmp_path)}, capture_output=True, text=True, check=False
        )
        assert ran.returncode != 0
        assert "Docker with its compose plugin is needed" in ran.stderr
