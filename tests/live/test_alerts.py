"""The alert rules: Prometheus' own tool takes them, each fires on what it is for, and speaks of metrics there are."""

import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest
import yaml

from app.metrics.worker import Metrics
from tests.waiting import need_live

pytestmark = pytest.mark.live

RULES = Path(__file__).parents[2] / "deploy" / "prometheus"
NO_NAME = re.compile(
    r'"[^"]*"|\{[^}]*\}|\[[^]]*\]|\b\w+ ?(?:by \([^)]*\) )?\(|\b(?:and|or|unless|offset)\b|\bon \([^)]*\)|\b[\d.]\w*'
)
"""What is no metric's name in an expression: texts, labels, times, functions, words, numbers."""
PROMETHEUS_OWN = {"up"}


def promtool(*arguments: str) -> str:
    """Its output. Without the tool the test is skipped, or fails with REQUIRE_LIVE=1."""
    tool = shutil.which("promtool") or need_live("promtool is missing: it is in Debian's package prometheus")
    ran = subprocess.run([tool, *arguments], capture_output=True, text=True, check=False, cwd=RULES)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


def test_prometheus_takes_the_rules_and_each_alert_fires_on_what_it_is_for() -> None:
    assert "SUCCESS" in promtool("check", "rules", *(path.name for path in RULES.glob("*.rules.yml")))
    assert "SUCCESS" in promtool("test", "rules", *(path.name for path in RULES.glob("*.test.yml")))


def test_every_alert_is_tried_and_speaks_of_metrics_that_a_worker_has() -> None:
    text, _ = Metrics(time.time).exposition()
    exported = {line.split()[2] for line in text.decode().splitlines() if line.startswith("# TYPE")}
    for path in RULES.glob("*.rules.yml"):
        tried = path.with_name(path.name.replace(".rules.", ".test.")).read_text()
        for group in yaml.safe_load(path.read_text())["groups"]:
            for rule in group["rules"]:
                assert f"alertname: {rule['alert']}" in tried
                assert {"summary", "fix"} <= rule["annotations"].keys()
                names = set(re.findall(r"[a-z_]+", NO_NAME.sub(" ", rule["expr"])))
                assert names
                known = {re.sub("_bucket$", "", name) for name in names} - PROMETHEUS_OWN
                assert known <= exported, f"{rule['alert']}: {known - exported}"


def test_prometheus_takes_its_configuration() -> None:
    assert "SUCCESS" in promtool("check", "config", "prometheus.yml")
