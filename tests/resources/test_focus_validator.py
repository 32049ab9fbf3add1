"""The public focus-validator reads our export: what it fails is known, each with its reason.

It lives in an environment of its own (it needs older numpy, pyarrow and multimethod), always exits
with 0, and asks for some things that FOCUS does not: so its failures are read one by one.
"""

import subprocess
import sys
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from xml.etree import ElementTree

import polars as pl
import pytest

from forecast_core.cost.charges import Usage
from forecast_core.cost.settlement import Owner, Settlement, ledger_rows
from resources.ledger import Ledger
from resources.ledger_history import export_focus
from resources.price_card import load_price_card

pytestmark = pytest.mark.slow
PACKAGES = ("focus-validator==1.0.0", "multimethod<2", "pyarrow<22", "numpy<2")
NOT_OURS = {
    # In-house compute has no commitments; FOCUS wants these columns only of who sells them.
    "CommitmentDiscountCategory_Required",
    "CommitmentDiscountId_Required",
    "CommitmentDiscountName_Required",
    "CommitmentDiscountStatus_Required",
    "CommitmentDiscountType_Required",
    # FOCUS calls them InvoiceIssuerName, ProviderName, PublisherName and ResourceId.
    "InvoiceIssuer_Required",
    "Provider_Required",
    "Publisher_Required",
    "ResourceID_Required",
    # It looks for a column ChargeType that FOCUS 1.0 replaced by ChargeCategory.
    "SkuPriceId_Nullable",
    # Its list of currencies is missing from its own package; ours is checked against ISO 4217.
    "BillingCurrency_IsCurrencyCode",
}


@pytest.fixture(scope="module")
def validator(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program, installed from the package index at hand."""
    home = tmp_path_factory.mktemp("validator")
    subprocess.run([sys.executable, "-m", "venv", str(home)], check=True)
    install = [str(home / "bin" / "python"), "-m", "pip", "install", "--quiet", *PACKAGES]
    done = subprocess.run(install, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"focus-validator cannot be installed: {done.stderr.splitlines()[-1:]}")
    return home / "bin" / "focus-validator"


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory, project_root: Path) -> Path:
    """Charges of every kind: steps, overhead, storage-like idle capacity, other tiers."""
    folder = tmp_path_factory.mktemp("export")
    ledger = Ledger(f"sqlite:///{folder / 'ledger.db'}")
    card = load_price_card(project_root / "policies" / "price_card.yaml")
    start = datetime(2026, 5, 1, 12, tzinfo=UTC)
    owners = [
        Owner("dev", pipeline="training", forecaster="gbm", run_id="r", step_key="s", attempt=1),
        Owner("dev", cost_class="overhead", pipeline=None, run_id="r"),
        Owner("dev", cost_class="idle", pipeline=None),
    ]
    usage = Usage(cpu_s=1.5, rss_gib_s=2.25, bytes_read=2**30, files_read=3)
    for index, owner in enumerate(owners):
        end = start + timedelta(seconds=index + 1)
        settlement = Settlement(f"set-{index}", owner, start, end, usage)
        ledger.record(*ledger_rows(settlement, card.on(date(2026, 5, 1))))
    out = folder / "focus.csv"
    assert export_focus(ledger, card, out) >= 6
    return out


def failures(validator: Path, data: Path) -> tuple[int, set[str]]:
    """Checks made, and the names of those that failed."""
    report = data.with_suffix(".xml")
    command = [
        str(validator), "--data-file", str(data), "--validate-version", "1.0",
        "--column-namespace", "x_", "--output-type", "unittest",
        "--output-destination", str(report),
    ]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True)
    suites = ElementTree.parse(report).getroot()
    return int(suites.attrib["tests"]), {str(f.attrib["name"]) for f in suites.iter("failure")}


def test_only_what_is_not_ours_fails(validator: Path, export: Path) -> None:
    checks, failed = failures(validator, export)
    assert checks > 100
    assert failed == NOT_OURS


def test_it_would_notice_a_broken_export(validator: Path, export: Path) -> None:
    broken = export.with_name("broken.csv")
    rows = pl.read_csv(export, infer_schema=False)
    worse = rows.with_columns(BilledCost=pl.lit("much")).drop("BillingPeriodEnd")
    worse.write_csv(broken)
    _, failed = failures(validator, broken)
    assert failed - NOT_OURS == {"BilledCost_IsDecimal", "BillingPeriodEnd_Required"}
