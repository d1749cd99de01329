"""The dashboards, in short. Decides what they show; `make dashboards` writes the JSON files that Grafana reads.

A test compares the files with this, and asks a real Prometheus for every expression here.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FILES = Path(__file__).parent / "dashboards"
PROMETHEUS = {"type": "prometheus", "uid": "prometheus"}
HEIGHTS = {"stat": 5, "timeseries": 8, "piechart": 8}
GREEN, YELLOW, RED = "green", "yellow", "red"


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One panel: what it asks, legend -> PromQL. `steps`: colours from a value on; `width` in 24ths of the page."""

    title: str
    asks: dict[str, str]
    unit: str = "short"
    kind: str = "timeseries"
    width: int = 12
    steps: tuple[tuple[float, str], ...] = ()
    note: str = ""


def stat(title: str, expr: str, unit: str = "short", *steps: tuple[float, str], note: str = "") -> Panel:
    """One number."""
    return Panel(title=title, asks={title: expr}, unit=unit, kind="stat", width=6, steps=steps, note=note)


def graph(title: str, unit: str, asks: dict[str, str], note: str = "") -> Panel:
    """Lines over time."""
    return Panel(title=title, asks=asks, unit=unit, note=note)


def quantiles(metric: str, by: str = "", *, only: str = "") -> dict[str, str]:
    """p50, p95 and p99 of a histogram."""
    labels = f"le, {by}" if by else "le"
    legend = "{{" + by + "}} " if by else ""
    return {
        f"{legend}p{round(100 * q)}": f"histogram_quantile({q}, "
        f"sum by ({labels}) (rate({metric}_bucket{only}[$__rate_interval])))"
        for q in (0.5, 0.95, 0.99)
    }


def per_second(metric: str, by: str = "", only: str = "") -> str:
    """A counter's rate, summed."""
    grouping = f" by ({by})" if by else ""
    return f"sum{grouping} (rate({metric}{only}[$__rate_interval]))"


def by_service(metric: str, label: str) -> str:
    """A counter's rate by the first word of a subject: the service that it is about."""
    rate = f"rate({metric}[$__rate_interval])"
    return f'sum by (service) (label_replace({rate}, "service", "$1", "{label}", "([^.]+).*"))'


def share(part: str, whole: str) -> str:
    """One counter's part of another over the time shown, 0 to 1."""
    return f"sum(increase({part}[$__range])) / sum(increase({whole}[$__range]))"


DASHBOARDS: dict[str, tuple[str, tuple[Panel, ...]]] = {
    "a4co-services": (
        "A4CO: service health",
        (
            stat("Processes that answer", "sum(up{job=~'worker|bridge'})"),
            stat("Not ready", "sum(1 - ready)", "short", (0, GREEN), (1, RED), note="/ready of each says why"),
            stat("Bridges at work", "sum(bridge_active)", "short", (0, RED), (1, GREEN), note="One, of all"),
            stat("Bridges that have NATS", "sum(bridge_connected)", "short", (0, RED), (1, GREEN)),
            graph("Ready", "short", {"{{instance}}": "ready"}),
            graph("HTTP answers", "reqps", {"{{status_class}}": per_second("http_requests_total", "status_class")}),
            graph("HTTP requests", "reqps", {"{{route}}": per_second("http_requests_total", "route")}),
            graph("Time of an HTTP request", "s", quantiles("http_request_duration_seconds")),
            graph("CPU", "percentunit", {"{{instance}}": "rate(process_cpu_seconds_total[$__rate_interval])"}),
            graph("Memory", "bytes", {"{{instance}}": "process_resident_memory_bytes"}),
            graph("Open files", "percentunit", {"{{instance}}": "process_open_fds / process_max_fds"}),
            graph("Since the start", "s", {"{{instance}}": "time() - process_start_time_seconds"}),
        ),
    ),
    "a4co-events": (
        "A4CO: events",
        (
            stat("Read from NATS", per_second("bridge_in_total"), "cps"),
            stat("Published on NATS", per_second("events_published_total"), "cps"),
            stat("Processed", per_second("events_processed_total"), "cps"),
            stat("Failed", per_second("events_failed_total"), "cps", (0, GREEN), (0.01, RED)),
            graph("Read, by service", "cps", {"{{service}}": by_service("bridge_in_total", "route")}),
            graph("Published, by service", "cps", {"{{service}}": by_service("events_published_total", "subject")}),
            graph("Published, by event", "cps", {"{{eventType}}": per_second("events_published_total", "eventType")}),
            graph("Processed, by topic and outcome", "cps", {
                "{{topic}} {{outcome}}": per_second("events_processed_total", "topic, outcome"),
            }),
            graph("Time to process an event", "s", quantiles("events_processing_time_seconds")),
            graph("Time to process an event, by kind (p95)", "s", {
                "{{eventType}}": quantiles("events_processing_time_seconds", "eventType")["{{eventType}} p95"],
            }),
            graph("Errors: could not be applied or published", "cps", {
                "{{subject}}": per_second("events_failed_total", "subject"),
            }),
            graph("Dead letters, by reason", "cps", {"{{reason}}": per_second("dead_letters_total", "reason")}),
            graph("Retries: steps tried once more", "cps", {"{{step}}": per_second("saga_retries_total", "step")}),
            graph("Said again by a service, and counted once", "cps", {
                "{{route}}": per_second("bridge_in_total", "route", "{outcome='repeated'}"),
            }),
        ),
    ),
    "a4co-saga": (
        "A4CO: the order saga",
        (
            stat("Success", share("saga_completed_total{outcome='completed'}", "saga_completed_total"), "percentunit",
                 (0, RED), (0.5, YELLOW), (0.8, GREEN), note="Of the orders that ended in the time shown"),
            stat("Duration (p95)", (
                "histogram_quantile(0.95, sum by (le) (increase(saga_duration_seconds_bucket[$__range])))"
            ), "s", (0, GREEN), (60, YELLOW), (600, RED)),
            stat("Active", "sum(saga_active)"),
            stat("Oversold units", "sum(oversold)", "short", (0, GREEN), (1, RED), note="Never anything but 0"),
            stat("Need attention", "sum(orders_need_attention)", "short", (0, GREEN), (1, YELLOW),
                 note="GET /api/orders?attention=true shows which, and why"),
            graph("Orders", "cps", {
                "begun": per_second("saga_started_total"),
                "{{outcome}}": per_second("saga_completed_total", "outcome"),
            }),
            graph("Orders by state", "short", {"{{state}}": "sum by (state) (orders_by_state)"}),
            graph("Duration from the order to its end", "s", quantiles("saga_duration_seconds")),
            graph("Compensations", "cps", {"steps undone": per_second("saga_compensations_total")}),
            graph("Reservations", "short", {
                "active": "sum(inventory_reservations_active)",
                "expired": "sum(increase(inventory_reservations_expired_total[$__rate_interval]))",
            }),
            graph("Payments by status", "cps", {"{{status}}": per_second("payments_processed_total", "status")}),
            graph("Products at or below their threshold", "short", {"low": "sum(inventory_low_products)"}),
            graph("Deadlines that are due", "short", {"due": "sum(timers_due)"}),
        ),
    ),
    "a4co-bridge": (
        "A4CO: the bridge",
        (
            stat("Waiting on NATS", "sum(bridge_lag{direction='in'})"),
            stat("Waiting to be published", "sum(bridge_lag{direction='out'})"),
            stat("Dead letters open", "sum(dead_letters_open)", "short", (0, GREEN), (1, YELLOW)),
            stat("Unaccounted", "sum(bridge_in_unaccounted)", "short", (0, GREEN), (1, RED),
                 note="Read and become nothing known: never anything but 0"),
            graph("In, by outcome", "cps", {"{{outcome}}": per_second("bridge_in_total", "outcome")}),
            graph("In, by route", "cps", {"{{route}}": per_second("bridge_in_total", "route")}),
            graph("The ledger: all that was read, since the first start", "short", {
                "{{route}} {{outcome}}": "sum by (route, outcome) (bridge_in_total)",
            }),
            graph("Out", "cps", {
                "published": per_second("bridge_published_total"),
                "mirrored": per_second("bridge_mirrored_total"),
            }),
            graph("Waiting", "short", {
                "{{source}}": "sum by (source) (bridge_in_waiting)",
                "to be published": "sum(bridge_lag{direction='out'})",
            }),
            graph("Age of what waits", "s", {"{{source}}": "max by (source) (bridge_in_waiting_seconds)"}),
            graph("Gone before it was read", "short", {
                "{{source}}": "sum by (source) (bridge_in_gone_total)",
                "gaps since the start": "sum(bridge_gap_total)",
            }),
            graph("Dead letters open, by reason", "short", {"{{reason}}": "sum by (reason) (dead_letters_open)"}),
        ),
    ),
    "a4co-engine": (
        "A4CO: engine, log and recovery",
        (
            stat("Records that wait", "sum(events_lag)"),
            stat("Transactions", per_second("log_commits_total"), "cps"),
            stat("Commit (p99)", quantiles("log_commit_seconds")["p99"], "s", (0, GREEN), (0.1, YELLOW), (0.5, RED)),
            stat("Embedded log", "sum(log_size_bytes)", "bytes", note="On Kafka the brokers have it"),
            graph("Records that wait, by reader", "short", {"{{reader}}": "sum by (reader) (events_lag)"}),
            graph("Records appended", "cps", {"{{instance}}": per_second("log_records_total", "instance")}),
            graph("Time of a commit", "s", quantiles("log_commit_seconds")),
            graph("Records in a transaction", "short", {
                "records": f"{per_second('log_records_total')} / {per_second('log_commits_total')}",
            }),
            graph("Recovery", "percent", {"{{instance}}": "recovered_percent"}),
            graph("Partitions", "short", {"{{instance}} {{table}}": "table_partitions"},
                  note="Of each table and worker: how the work is shared"),
            graph("Rows", "short", {"{{table}}": "sum by (table) (table_rows)"}),
            graph("Records done", "cps", {"{{instance}}": per_second("events_processed_total", "instance")}),
        ),
    ),
}  # fmt: skip
"""uid -> title and panels."""


def document(uid: str, title: str, panels: tuple[Panel, ...]) -> dict[str, Any]:
    """A dashboard as Grafana reads it."""
    return {
        "uid": uid,
        "title": title,
        "tags": ["a4co"],
        "schemaVersion": 39,
        "version": 1,
        "editable": False,
        "refresh": "10s",
        "time": {"from": "now-30m", "to": "now"},
        "timezone": "browser",
        "links": [{"title": "A4CO", "type": "dashboards", "tags": ["a4co"], "asDropdown": True, "keepTime": True}],
        "panels": list(_placed(panels)),
    }


def _placed(panels: tuple[Panel, ...]) -> Iterator[dict[str, Any]]:
    """The panels from left to right, and line by line."""
    x = y = line = 0
    for number, panel in enumerate(panels, 1):
        height = HEIGHTS[panel.kind]
        if x + panel.width > 24:
            x, y = 0, y + line
        yield _panel(number, panel, {"x": x, "y": y, "w": panel.width, "h": height})
        x, line = x + panel.width, height


def _panel(number: int, panel: Panel, place: dict[str, int]) -> dict[str, Any]:
    steps = [{"color": color, "value": value if at else None} for at, (value, color) in enumerate(panel.steps)]
    is_stat = panel.kind == "stat"
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.note,
        "datasource": PROMETHEUS,
        "gridPos": place,
        "fieldConfig": {
            "defaults": {
                "unit": panel.unit,
                "color": {"mode": "thresholds" if steps else "palette-classic"},
                "thresholds": {"mode": "absolute", "steps": steps or [{"color": GREEN, "value": None}]},
            },
            "overrides": [],
        },
        "options": {"reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False}}
        if is_stat
        else {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi", "sort": "desc"}},
        "targets": [
            {"refId": chr(ord("A") + at), "datasource": PROMETHEUS, "expr": expr, "legendFormat": legend}
            | ({"instant": True, "range": False} if is_stat else {"range": True})
            for at, (legend, expr) in enumerate(panel.asks.items())
        ],
    }


def files() -> dict[str, str]:
    """File name -> its text."""
    return {
        f"{uid}.json": json.dumps(document(uid, title, panels), indent=2, ensure_ascii=False) + "\n"
        for uid, (title, panels) in DASHBOARDS.items()
    }


if __name__ == "__main__":
    for name, text in files().items():
        (FILES / name).write_text(text, encoding="utf-8")
