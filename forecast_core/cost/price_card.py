"""The price card: dated rates by environment, checked before a single charge is rated.

Belongs here: parsing and validating the card, and finding the rates of a day. Does not: pricing
usage (`cost`) or reading the file (`resources.price_card`, which names it in the error).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from decimal import Decimal, InvalidOperation
from itertools import pairwise
from typing import Any

from forecast_core.storage.tiers import Tier

TIERS = tuple(tier.value for tier in Tier)
DEFAULT_ENVIRONMENT = "default"

_FLAT = ("vcpu_s", "gib_s", "gpu_s", "transfer_gib")
_BY_TIER = ("gib_month", "read_request", "write_request", "retrieval_gib")
SKUS = (*_FLAT, *(f"{name}/{tier}" for name in _BY_TIER for tier in TIERS))
_DECIMALS = 9

# ISO 4217, the currencies in use.
_ISO_4217 = """
    AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BHD BIF BMD BND BOB BRL BSD BTN BWP BYN BZD CAD
    CDF CHF CLP CNY COP CRC CUP CVE CZK DJF DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD
    GNF GTQ GYD HKD HNL HTG HUF IDR ILS INR IQD IRR ISK JMD JOD JPY KES KGS KHR KMF KPW KRW KWD KYD
    KZT LAK LBP LKR LRD LSL LYD MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN MYR MZN NAD NGN NIO
    NOK NPR NZD OMR PAB PEN PGK PHP PKR PLN PYG QAR RON RSD RUB RWF SAR SBD SCR SDG SEK SGD SHP SLE
    SOS SRD SSP STN SVC SYP SZL THB TJS TMT TND TOP TRY TTD TWD TZS UAH UGX USD UYU UZS VED VES VND
    VUV WST XAF XCD XOF XPF YER ZAR ZMW ZWG
"""
CURRENCIES = frozenset(_ISO_4217.split())


class PriceCardError(ValueError):
    """A card that cannot rate: names the entry, what is wrong with it and the remedy."""


@dataclass(frozen=True)
class Rates:
    """One entry of the card: the price of each line from `effective_from` on.

    `prices` by sku (see `SKUS`), in `currency` per unit. `minimum_bytes` and `minimum_days` by
    tier: what a stored file is paid for at least.
    """

    name: str
    effective_from: date
    currency: str
    prices: Mapping[str, Decimal]
    minimum_bytes: Mapping[str, int] = field(default_factory=dict)
    minimum_days: Mapping[str, int] = field(default_factory=dict)
    effective_to: date | None = None

    def of(self, sku: str) -> Decimal:
        """The unit price of `sku`.

        Raises:
            PriceCardError: the entry has no such line.
        """
        try:
            return self.prices[sku]
        except KeyError:
            raise PriceCardError(
                f"{self.name}: no rate for {sku!r}; the lines of a card are {', '.join(SKUS)}"
            ) from None


@dataclass(frozen=True)
class Quota:
    """What a step holds: `vcpus` and `gib` for as long as it runs."""

    vcpus: float
    gib: float


@dataclass(frozen=True)
class PriceCard:
    """Every entry of the card by environment, oldest first, without gap or overlap."""

    currency: str
    provider: str
    region: str
    presumed: Quota
    entries: Mapping[str, tuple[Rates, ...]]

    def on(self, day: date, environment: str = DEFAULT_ENVIRONMENT) -> Rates:
        """The rates of `day`; an environment without entries of its own has the default ones.

        Raises:
            PriceCardError: no entry covers the day.
        """
        entries = self.entries.get(environment, self.entries[DEFAULT_ENVIRONMENT])
        for rates in reversed(entries):
            if rates.effective_from <= day:
                if rates.effective_to is not None and day > rates.effective_to:
                    break
                return rates
        raise PriceCardError(
            f"no entry of {environment!r} covers {day}: the card holds {entries[0].effective_from}"
            f" to {entries[-1].effective_to or 'today'}; add one whose effective_from is {day}"
        )

    @classmethod
    def parse(cls, content: Mapping[str, Any]) -> PriceCard:
        """Check a card read from YAML (see policies/price_card.yaml for its shape).

        Raises:
            PriceCardError: a missing or negative rate, an unknown line or currency, entries that
                overlap or leave a gap.
        """
        currency = content.get("currency")
        if currency not in CURRENCIES:
            raise PriceCardError(
                f"currency: {currency!r} is no currency; write an ISO 4217 code such as USD"
            )
        environments = content.get("environments")
        if not isinstance(environments, Mapping) or DEFAULT_ENVIRONMENT not in environments:
            raise PriceCardError(
                "environments: no entries under 'default'; list the dated entries of the card there"
            )
        return cls(
            currency=currency,
            provider=str(content.get("provider", "in-house")),
            region=str(content.get("region", "local")),
            presumed=_quota(content.get("presumed_quota")),
            entries={
                name: _timeline(f"environments.{name}", listed, currency)
                for name, listed in environments.items()
            },
        )


def _quota(content: Any) -> Quota:
    if not isinstance(content, Mapping):
        raise PriceCardError(
            "presumed_quota: missing; give vcpus and gib, what a step that declares none is"
            " presumed to hold"
        )
    values = {key: _amount(f"presumed_quota.{key}", content.get(key)) for key in ("vcpus", "gib")}
    return Quota(vcpus=float(values["vcpus"]), gib=float(values["gib"]))


def _timeline(where: str, listed: Any, currency: str) -> tuple[Rates, ...]:
    if not isinstance(listed, Sequence) or isinstance(listed, str) or not listed:
        raise PriceCardError(
            f"{where}: no entries; list at least one with effective_from and rates"
        )
    entries = [_entry(f"{where}[{index}]", entry, currency) for index, entry in enumerate(listed)]
    entries.sort(key=lambda rates: rates.effective_from)
    names = [rates.name for rates in entries]
    if len(set(names)) < len(names):
        raise PriceCardError(f"{where}: two entries share a name; names are {', '.join(names)}")
    for earlier, later in pairwise(entries):
        _check_neighbours(where, earlier, later)
    return tuple(entries)


def _check_neighbours(where: str, earlier: Rates, later: Rates) -> None:
    if earlier.effective_from == later.effective_from:
        raise PriceCardError(
            f"{where}: {earlier.name!r} and {later.name!r} overlap: both start on"
            f" {later.effective_from}; keep one, or move the other's effective_from"
        )
    if earlier.effective_to is None:
        return
    due = earlier.effective_to + timedelta(days=1)
    if later.effective_from < due:
        raise PriceCardError(
            f"{where}: {earlier.name!r} and {later.name!r} overlap from {later.effective_from} to"
            f" {earlier.effective_to}; end the first on {later.effective_from - timedelta(days=1)}"
        )
    if later.effective_from > due:
        raise PriceCardError(
            f"{where}: no rates from {due} to {later.effective_from - timedelta(days=1)}, a gap"
            f" between {earlier.name!r} and {later.name!r}; drop the first's effective_to"
        )


def _entry(where: str, content: Any, currency: str) -> Rates:
    if not isinstance(content, Mapping):
        raise PriceCardError(f"{where}: expected a mapping, found {type(content).__name__}")
    start = _day(f"{where}.effective_from", content.get("effective_from"))
    name = str(content.get("name", start.isoformat()))
    where = f"{where} ({name})"
    end = content.get("effective_to")
    effective_to = None if end is None else _day(f"{where}.effective_to", end)
    if effective_to is not None and effective_to < start:
        raise PriceCardError(f"{where}: effective_to {effective_to} is before {start}; swap them")
    minimum = content.get("minimum_object") or {}
    if not isinstance(minimum, Mapping) or set(minimum) - {"kib", "days"}:
        raise PriceCardError(f"{where}.minimum_object: give kib and days, each by tier")
    return Rates(
        name=name,
        effective_from=start,
        effective_to=effective_to,
        currency=currency,
        prices=_prices(where, content.get("rates")),
        minimum_bytes={
            tier: value * 1024
            for tier, value in _wholes(f"{where}.minimum_object.kib", minimum.get("kib")).items()
        },
        minimum_days=_wholes(f"{where}.minimum_object.days", minimum.get("days")),
    )


def _prices(where: str, content: Any) -> dict[str, Decimal]:
    if not isinstance(content, Mapping):
        raise PriceCardError(f"{where}: no rates; give {', '.join((*_FLAT, *_BY_TIER))}")
    given: dict[str, Any] = {}
    for name, value in content.items():
        by_tier = value.items() if isinstance(value, Mapping) else [(None, value)]
        given.update({name if tier is None else f"{name}/{tier}": v for tier, v in by_tier})
    unknown = sorted(set(given) - set(SKUS))
    if unknown:
        raise PriceCardError(
            f"{where}: unknown rate {unknown[0]!r}; the lines of a card are {', '.join(SKUS)}"
        )
    missing = [sku for sku in SKUS if given.get(sku) is None]
    if missing:
        raise PriceCardError(f"{where}: rate {missing[0]!r} is missing; write 0 if it is free")
    prices = {sku: _amount(f"{where}: rate {sku!r}", given[sku]) for sku in SKUS}
    for sku, amount in prices.items():
        if amount != round(amount, _DECIMALS):
            raise PriceCardError(
                f"{where}: rate {sku!r} is {amount}; at most {_DECIMALS} decimals keep sums exact"
            )
    return prices


def _amount(where: str, value: Any) -> Decimal:
    if value is None:
        raise PriceCardError(f"{where} is missing; write 0 if it is free")
    if isinstance(value, bool) or not isinstance(value, int | float | str | Decimal):
        raise PriceCardError(f"{where} is {value!r}; write a number")
    try:
        amount = Decimal(str(value))
    except InvalidOperation:
        raise PriceCardError(f"{where} is {value!r}; write a number") from None
    if not amount.is_finite() or amount < 0:
        raise PriceCardError(f"{where} is {value}; write zero or more")
    return amount


def _wholes(where: str, content: Any) -> dict[str, int]:
    if content is None:
        return {}
    if not isinstance(content, Mapping) or set(content) - set(TIERS):
        raise PriceCardError(f"{where}: expected a number for each of {', '.join(TIERS)}")
    values = {tier: _amount(f"{where}.{tier}", value) for tier, value in content.items()}
    for tier, value in values.items():
        if value != int(value):
            raise PriceCardError(f"{where}.{tier} is {value}; write a whole number")
    return {tier: int(value) for tier, value in values.items()}


def _day(where: str, value: Any) -> date:
    if isinstance(value, date) and not isinstance(value, datetime):
        return value
    try:
        return date.fromisoformat(value)
    except (TypeError, ValueError):
        raise PriceCardError(f"{where} is {value!r}; write a day as YYYY-MM-DD") from None
