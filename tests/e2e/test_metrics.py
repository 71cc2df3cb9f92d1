"""What a Prometheus server scrapes from the real daemon; dashboard and alerts ask for nothing else."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import pytest_asyncio
from prometheus_client.parser import text_string_to_metric_families

from tests.addresses import kept_address
from tests.e2e.shop import FEE_MSAT, PRICE_MSAT, QUICK, Shop, open_shop
from tests.harness import is_over

pytestmark = pytest.mark.asyncio(loop_scope="module")

ROOT = Path(__file__).parents[2]
DASHBOARD = ROOT / "contrib" / "grafana" / "holdpay.json"
RULES = ROOT / "contrib" / "prometheus" / "holdpay.rules.yml"
NAME = re.compile(r"\bholdpay_\w+")


class Scraped:
    """One scrape of a daemon that has sold one code and refunded nothing."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.samples = {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    def value(self, name: str, **labels: str) -> float:
        return self.samples[name, tuple(sorted(labels.items()))]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def address() -> AsyncIterator[str]:
    with kept_address() as kept:
        yield kept


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shop(tmp_path_factory: pytest.TempPathFactory, address: str) -> AsyncIterator[Shop]:
    config = f'{QUICK}\n[metrics]\nlisten = "{address}"\n'
    async with open_shop(tmp_path_factory.mktemp("metrics"), extra_config=config) as opened:
        yield opened


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def scraped(shop: Shop, address: str) -> Scraped:
    order = await shop.daemon.order()
    done = await shop.daemon.until(order.id, is_over)
    async with httpx.AsyncClient(trust_env=False) as client:
        answer = await client.get(f"http://{address}/metrics")
        assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        assert (await client.get(f"http://{address}/")).status_code == 404
        assert (await client.post(f"http://{address}/metrics")).status_code == 404
    for secret in (done.code, done.number, done.payment_hash, done.preimage, done.provider_order_id, done.id):
        assert secret
        assert secret not in answer.text
    return Scraped(answer.text)


async def test_what_was_sold_and_what_is_open_is_counted(scraped: Scraped) -> None:
    assert scraped.value("holdpay_requests_total", kind="code", funding="hold") == 1
    assert scraped.value("holdpay_orders_closed_total", kind="code", end="fulfilled") == 1
    assert scraped.value("holdpay_spent_sat_total", kind="code") == pytest.approx((PRICE_MSAT + FEE_MSAT) / 1000)
    assert scraped.value("holdpay_routing_fees_sat_total") == pytest.approx(FEE_MSAT / 1000)
    assert scraped.value("holdpay_day_sat") == pytest.approx((PRICE_MSAT + FEE_MSAT) / 1000)
    assert scraped.value("holdpay_orders_open") == scraped.value("holdpay_holds") == 0
    assert scraped.value("holdpay_orders_open_limit") > 0
    levels = [scraped.value("holdpay_holds_by_level", level=level) for level in ("ok", "late", "warning", "critical")]
    assert (levels, scraped.value("holdpay_orders_waiting")) == ([0] * 4, 0)
    assert scraped.value("holdpay_database_commits_total") >= 4


async def test_lnd_the_provider_and_the_event_loop_are_told(scraped: Scraped) -> None:
    assert scraped.value("holdpay_ready") == 1
    assert scraped.value("holdpay_lnd_state", holdpay_lnd_state="ready") == 1
    assert scraped.value("holdpay_lnd_state", holdpay_lnd_state="unreachable") == 0
    assert scraped.value("holdpay_lnd_block_height") > 0
    placed = {"endpoint": "createorder", "outcome": "ok"}
    assert scraped.value("holdpay_provider_request_duration_seconds_count", **placed) == 1
    assert scraped.value("holdpay_provider_requests_total") >= 3
    assert scraped.value("process_resident_memory_bytes") > 0


def _names_asked_for(path: Path) -> set[str]:
    if path.suffix == ".json":
        panels = json.loads(path.read_text())["panels"]
        asked = " ".join(target["expr"] for panel in panels for target in panel.get("targets", []))
    else:
        asked = " ".join(re.findall(r"^\s+expr: (.*)$", path.read_text(), re.MULTILINE))
    return set(NAME.findall(asked))


@pytest.mark.parametrize("path", [DASHBOARD, RULES], ids=lambda path: path.name)
async def test_what_dashboard_and_alerts_ask_for_is_there(scraped: Scraped, path: Path) -> None:
    asked = _names_asked_for(path)
    assert len(asked) >= 8
    there = {name for name, _ in scraped.samples}
    labels = {label for _, labels in scraped.samples for label, _ in labels}
    assert asked - there - labels == set()


@pytest.fixture(scope="module")
def promtool() -> str:
    """Debian's, on PATH or out of its package; no package is installed."""
    found = shutil.which("promtool")
    kept = ROOT / ".cache" / "prometheus" / "usr" / "bin" / "promtool"
    if found is None and not kept.exists() and shutil.which("apt-get") and shutil.which("dpkg-deb"):
        folder = kept.parents[2]
        folder.mkdir(parents=True, exist_ok=True)
        download = ["apt-get", "download", "-q", "prometheus"]
        if subprocess.run(download, cwd=folder, check=False, capture_output=True).returncode != 0:
            subprocess.run(["apt-get", "update", "-q"], check=False, capture_output=True)
            subprocess.run(download, cwd=folder, check=False, capture_output=True)
        for package in folder.glob("prometheus_*.deb"):
            subprocess.run(["dpkg-deb", "-x", package, folder], check=True)
    if found is None and not kept.exists():
        pytest.skip("needs promtool on PATH, or Debian's package of prometheus")
    return found or str(kept)


async def test_prometheus_finds_nothing_to_complain_of(scraped: Scraped, promtool: str) -> None:
    checked = subprocess.run(
        [promtool, "check", "metrics"], input=scraped.text, text=True, capture_output=True, check=False
    )
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")
    rules = subprocess.run([promtool, "check", "rules", RULES], text=True, capture_output=True, check=False)
    assert rules.returncode == 0, rules.stdout + rules.stderr
