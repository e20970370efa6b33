"""The deployment's files agree with each other, with the server, and with the guide.

What they do together is run by `tests/e2e/test_rolling_restart.py`.
"""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from wsmonitor_server.config import ServerConfig, load
from wsmonitor_server.figures import METRICS

ROOT = Path(__file__).resolve().parents[1]
DEPLOY = ROOT / "server" / "deploy"
GUIDE = (ROOT / "docs/how-to/deploy.md").read_text(encoding="utf-8")
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
NODES = {name: service for name, service in SERVICES.items() if name.startswith("node")}


def node() -> ServerConfig:
    return load(DEPLOY / "node.toml", {})


def test_the_settings_of_a_node_are_taken() -> None:
    config = node()
    assert (config.behind_proxy, config.metrics, config.log_format) == (True, True, "json")
    assert load(DEPLOY / "server.toml", {}).behind_proxy


def test_all_nodes_are_alike_but_for_their_address() -> None:
    assert len(NODES) == 2
    first, second = ({**service, "networks": None} for service in NODES.values())
    assert first == second
    [network] = COMPOSE["networks"]["inside"]["ipam"]["config"]
    addresses = {service["networks"]["inside"]["ipv4_address"] for service in NODES.values()}
    assert len(addresses) == 2
    assert all(ipaddress.ip_address(one) in ipaddress.ip_network(network["subnet"]) for one in addresses)


def test_the_proxy_leads_to_these_nodes_and_gives_none_up() -> None:
    site = (DEPLOY / "nginx-nodes.conf").read_text(encoding="utf-8")
    servers = re.findall(r"server (\w+):(\d+) (.*);", site)
    assert {name for name, _, _ in servers} == set(NODES)
    assert {int(port) for _, port, _ in servers} == {node().port}
    # With nginx's default, one that was away gets no connections for minutes.
    assert {rest for _, _, rest in servers} == {"max_fails=0"}
    for direction in ("read", "send"):
        [seconds] = re.findall(rf"proxy_{direction}_timeout (\d+)s;", site)
        assert int(seconds) > node().timing.heartbeat_timeout


def test_nobody_reaches_a_node_or_redis_from_outside() -> None:
    assert COMPOSE["networks"]["inside"]["internal"] is True
    for name, service in SERVICES.items():
        assert ("ports" in service) == (name == "proxy")
        assert ("outside" in service["networks"]) == (name == "proxy")


def test_a_drain_is_never_cut_off_and_health_is_readiness() -> None:
    for service in NODES.values():
        assert int(service["stop_grace_period"].removesuffix("s")) > node().drain_timeout
        assert f"http://127.0.0.1:{node().port}/readyz" in service["healthcheck"]["test"][-1]


@pytest.mark.parametrize("name", SERVICES)
def test_what_is_mounted_is_there(name: str) -> None:
    service = SERVICES[name]
    for volume in service["volumes"]:
        source = volume.partition(":")[0]
        assert (DEPLOY / source).is_file() if source.startswith(".") else source in COMPOSE["volumes"]
    for secret in service["secrets"]:
        assert (secret if isinstance(secret, str) else secret["source"]) in COMPOSE["secrets"]


def test_every_secret_is_one_that_the_guide_makes_and_none_is_in_the_repository() -> None:
    for secret in COMPOSE["secrets"].values():
        name = secret["file"].removeprefix("./")
        assert name in GUIDE
        assert not (DEPLOY / name).exists()
    mounted = {secret for service in NODES.values() for secret in service["secrets"]}
    text = (DEPLOY / "node.toml").read_text(encoding="utf-8")
    assert set(re.findall(r"/run/secrets/(\w+)", text)) == mounted


def test_the_image_has_what_the_store_needs() -> None:
    text = (DEPLOY / "Containerfile").read_text(encoding="utf-8")
    assert text.count("[redis]") == 2, "where wheels are made, and where they are installed"
    for service in NODES.values():
        assert (DEPLOY / service["build"]["context"] / service["build"]["dockerfile"]).resolve() == (
            DEPLOY / "Containerfile"
        )


def test_alerts_ask_for_metrics_that_there_are_and_the_guide_explains_each() -> None:
    rules = yaml.safe_load((DEPLOY / "alerts.yaml").read_text(encoding="utf-8"))["groups"][0]["rules"]
    names = {metric.full_name: metric for metric in METRICS.values()}
    for rule in rules:
        assert f"| `{rule['alert']}` |" in GUIDE
        for used in re.findall(r"wsmonitor_\w+", rule["expr"].replace('job="wsmonitor"', "")):
            metric = names[used.removesuffix("_bucket")]
            assert used.endswith("_bucket") == (metric.kind == "histogram")
    assert len(re.findall(r"^\| `Wsmonitor\w+` \|", GUIDE, re.MULTILINE)) == len(rules)
