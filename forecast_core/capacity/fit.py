"""What runs cost, learned from the ledger: a line in volume for each stage and rung, and its tail.

Belongs here: `fit`, the rates it gives, and the stated default where there is no history. Does not:
quoting a run to be admitted (`forecast_core.cost.estimate`), reading the ledger, what will run.

A stage is an asset; its driver is the rows it wrote, or the series of the cycle where it writes
none. Each quantity is `a` + `b` x driver with `a, b` >= 0, in relative least squares, recent runs
weighing more, scaled so that the fitted total is the total that was charged. What a run did beside
its line is kept as ratios (wall, money) and drawn again: the tail is the measured one. Runs of one
day share that day's luck (a busy machine), so a day's common part is kept apart from its runs'.

A stage also costs more from day to day at the same volume: its tables gather files, its windows
fill. Where a Mann-Kendall test sees such a drift in the last weeks it goes on, ever slower: a
window that has filled grows no more. Growth adds, as files and days do: it is a straight line. A
step (a machine became busy) rises over the whole of those weeks too, but not within their later
half, so the smaller of both paces is believed.

Rows are told beforehand for some work only. Elsewhere they may be no cause but what has gathered
(scores of all forecasts still open), so without them a stage's level and drift are those of its
cost itself, not of its cost beside its rows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import polars as pl

from forecast_core.capacity.plan import Default

Floats = npt.NDArray[np.float64]

QUANTITIES = ("money", "wall_s", "cpu_s", "gpu_s", "rss_gib_s", "bytes_written")
_HALF_LIFE = 40.0  # runs, for the slope
_LEVEL_HALF_LIFE = 10.0  # runs, for the level: machines and tables drift
_MOST_RATIOS = 400
_LEVERAGE = 1.15  # largest over smallest volume, below which a slope cannot be told
_BLOCK_DAYS = 7
_DRIFT_DAYS = 28  # how far back a drift is looked for
_DRIFT_LEAST = 10  # days without which none is told
_DRIFT_P = 0.01
_DRIFT_FADES = 21.0  # days in which it loses half of its pace
_LEAST_SHARE = 0.1  # of today's level that any past day is taken to have had
_TINY = 1e-12


@dataclass(frozen=True, slots=True)
class Line:
    """`a` + `b` x driver. `guessed`: what grows with the driver could not be told."""

    a: float
    b: float
    guessed: bool = False

    def at(self, driver: float) -> float:
        """The value at `driver`."""
        return self.a + self.b * driver


@dataclass(frozen=True)
class Rate:
    """What a run of one stage at one rung takes.

    `lines` by QUANTITIES, in the driver: rows, or series where `by_series`. `rows_each`: rows a
    series, as the last runs wrote. `ratios`: (wall, money) of runs over their line, the day's
    common part taken out. `level`: the error (log) of its own coming week. `drift`: by what share
    of itself each quantity rises on the first day to come, its rows being told; `untold`: quantity
    -> (what multiplies the line at `rows_each`, the drift) where they are not. `note` says where
    the rate is not measured, or what could not be told from the history.
    """

    stage: str
    rung: str
    lines: Mapping[str, Line]
    memory_gib: float
    rows_each: float
    by_series: bool
    ratios: tuple[tuple[float, float], ...]
    runs: int
    failures: float = 0.0
    level: float = 0.0
    note: str = ""
    drift: Mapping[str, float] = field(default_factory=dict)
    untold: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    @property
    def drifts(self) -> bool:
        """Whether it rises or falls from day to day."""
        return bool(self.drift) or any(pace for _, pace in self.untold.values())

    def of(
        self, quantity: str, series: float, rows_each: float | None = None, ahead: float = 0.0
    ) -> float:
        """The expected quantity of a run over `series` series, `ahead` days after the last that was
        measured; `rows_each` replaces the measured rows a series."""
        factor, pace = 1.0, self.drift.get(quantity, 0.0)
        if rows_each is None:
            rows_each = self.rows_each
            factor, pace = self.untold.get(quantity, (factor, pace))
        said = self.lines[quantity].at(series if self.by_series else series * rows_each)
        return said * factor * grown(pace, ahead)


@dataclass(frozen=True)
class Rates:
    """Every rate by (stage, rung), and what days did beside them.

    `days`: each day's money over its runs' lines. `level`: the error (log) of a coming week's
    level, as past weeks were told from those before them.
    """

    by_stage: Mapping[tuple[str, str], Rate] = field(default_factory=dict)
    days: tuple[float, ...] = (1.0,)
    level: float = 0.0

    def drifts(self, stage: str, rung: str) -> bool:
        """Whether a measured rate rises or falls from day to day."""
        found = self.by_stage.get((stage, rung)) or self.by_stage.get((stage, ""))
        return found is not None and found.drifts

    def of(self, stage: str, rung: str, defaults: Mapping[str, Default]) -> Rate:
        """The rate of a stage at a rung; a stated default, flagged, where nothing was measured.

        Raises:
            LookupError: neither measured nor stated.
        """
        found = self.by_stage.get((stage, rung)) or self.by_stage.get((stage, ""))
        if found is not None:
            return found
        for name in (f"{stage}:{rung}", f"{stage}", f"*:{rung}", "default"):
            if name in defaults:
                return stated(stage, rung, defaults[name], name)
        raise LookupError(
            f"stage {stage} at rung {rung!r} has no history and no stated default; add"
            f" defaults.{stage} or defaults.default to the plan"
        )


def stated(stage: str, rung: str, default: Default, name: str) -> Rate:
    """The rate that the plan states for a stage without history."""
    zero = Line(0.0, 0.0)
    pairs = {"money": default.money, "wall_s": default.wall_s, "cpu_s": default.cpu_s}
    lines = {key: Line(a, b / 1e6) for key, (a, b) in pairs.items()}
    lines["gpu_s"] = Line(default.gpu_s[0], default.gpu_s[1] / 1e6)
    lines["rss_gib_s"] = Line(
        lines["wall_s"].a * default.memory_gib, lines["wall_s"].b * default.memory_gib
    )
    lines["bytes_written"] = Line(0.0, default.bytes_each) if default.bytes_each else zero
    note = f"no history: stated default '{name}' ({default.source})"
    ratios = _lognormal(default.spread)
    return Rate(stage, rung, lines, default.memory_gib, default.rows_each, False, ratios, 0,
                note=note)  # fmt: skip


def _lognormal(spread: float) -> tuple[tuple[float, float], ...]:
    """A stated spread as ratios: the quantiles of a log-normal with mean 1."""
    from statistics import NormalDist

    points = [NormalDist().inv_cdf((k + 0.5) / 64) for k in range(64)]
    values = [math.exp(spread * z) for z in points]
    mean = sum(values) / len(values)
    return tuple((value / mean, value / mean) for value in values)


def fit(steps: pl.DataFrame, series: int | Mapping[str, int]) -> Rates:
    """Rates from `cost_steps`.

    `series`: how many item-stores the runs covered, one number or by run id; a filled column
    `x_series` speaks louder. Estimated settlements are left out; failures count as failures.
    An empty ledger gives no rates (every stage then takes its stated default).
    """
    runs = _runs(steps, series)
    if runs.is_empty():
        return Rates()
    rates, fitted = {}, []
    for (stage, rung), part in runs.group_by("stage", "rung", maintain_order=True):
        good = part.filter(~pl.col("failed"))
        if good.is_empty():
            continue
        rate, own = _rate(str(stage), str(rung), good, part.height - good.height)
        rates[str(stage), str(rung)] = rate
        fitted.append(own)
    together = pl.concat(fitted)
    days = (
        together.group_by("day")
        .agg(
            effect=pl.col("money").sum() / pl.col("line").sum(),
            flat_effect=pl.col("money").sum() / pl.col("flat").sum(),
            size=pl.col("line").sum(),
        )
        .sort("day")
    )
    if days.height < 5:
        return Rates(rates)
    return Rates(_without_days(rates, together, days), *_luck(days))


def _runs(steps: pl.DataFrame, series: int | Mapping[str, int]) -> pl.DataFrame:
    """One row a run, stage and rung: day, at, failed, rows, series, peak and QUANTITIES.

    What a run's process did between its steps goes to them, by what they took.
    """
    measured = steps.filter(~pl.col("x_estimated") & pl.col("x_run_id").is_not_null())
    overhead = pl.col("x_cost_class") == "overhead"
    runs = (
        measured.filter(~overhead)
        .with_columns(
            stage=pl.coalesce("x_asset", "x_step_key"),
            rung=pl.col("x_forecaster").fill_null("").cast(pl.String),
            failed=pl.col("x_status").is_in(["failure", "retry", "killed"]),
        )
        .filter(pl.col("stage").is_not_null())
        .group_by("x_run_id", "stage", "rung", "x_attempt", "failed")
        .agg(
            pl.col("date").min().alias("day"),
            pl.col("ChargePeriodStart").min().alias("at"),
            pl.col("rows").sum().cast(pl.Float64),
            pl.col("peak_rss_gib").max(),
            *(pl.col(name).cast(pl.Float64).sum() for name in QUANTITIES),
            *([pl.col("x_series").max().cast(pl.Float64)] if "x_series" in steps.columns else []),
        )
    )
    between = (
        measured.filter(overhead)
        .group_by("x_run_id")
        .agg(pl.col(name).cast(pl.Float64).sum().alias(f"between_{name}") for name in QUANTITIES)
    )
    took = pl.col("wall_s") + _TINY
    shared = runs.join(between, on="x_run_id", how="left").with_columns(
        pl.col(name) + pl.col(f"between_{name}").fill_null(0.0) * took / took.sum().over("x_run_id")
        for name in QUANTITIES
    )
    if isinstance(series, Mapping):
        given = pl.col("x_run_id").replace_strict(dict(series), default=None).cast(pl.Float64)
        usual = float(np.median(list(series.values()))) if series else 1.0
        given = given.fill_null(usual)
    else:
        given = pl.lit(float(series))
    known = pl.col("x_series") if "x_series" in runs.columns else pl.lit(None, pl.Float64)
    told = shared.with_columns(series=pl.when(known > 0).then(known).otherwise(given))
    return told.select(pl.exclude([f"between_{name}" for name in QUANTITIES])).sort("at", "stage")


def _rate(stage: str, rung: str, good: pl.DataFrame, failed: int) -> tuple[Rate, pl.DataFrame]:
    """The rate of one stage at one rung, and its runs beside their money line."""
    by_series = float(good["rows"].median() or 0.0) <= 0  # type: ignore[arg-type]
    driver = good["series" if by_series else "rows"].to_numpy().astype(np.float64)
    weights = 0.5 ** (np.arange(good.height)[::-1] / _HALF_LIFE)
    lines, leverage = {}, _spread(driver) >= _LEVERAGE
    day = _numbers(good["day"])
    covered = good["series"].to_numpy().astype(np.float64)
    recent = good.tail(20)
    each = float(recent["rows"].sum()) / max(float(recent["series"].sum()), 1.0)
    drift, untold, beside = {}, {}, {}
    for name in QUANTITIES:
        amounts = good[name].to_numpy().astype(np.float64)
        line = _line(driver, amounts, weights, leverage)
        said = line.a + line.b * driver
        trend = _trend(day, amounts, said)
        lines[name] = replace(line, a=line.a * trend.now, b=line.b * trend.now)
        beside[name] = np.maximum(said * trend.now, _TINY) * trend.then(day)
        drift[name] = trend.pace
        if not by_series and trend.now > 0:
            alone = _trend(day, amounts, line.a + line.b * covered * each)
            untold[name] = alone.now / trend.now, alone.pace
    money, wall = (good[name].to_numpy() / beside[name] for name in ("money", "wall_s"))
    note = ""
    if lines["money"].guessed:
        note = "volume hardly varied or told little: half of the cost is taken to grow with it"
    if good.height < 5:
        note = f"only {good.height} runs measured" + ("; " + note if note else "")
    rate = Rate(
        stage=stage,
        rung=rung,
        lines=lines,
        memory_gib=float(good["peak_rss_gib"].max() or 0.0),  # type: ignore[arg-type]
        rows_each=1.0 if by_series else each,
        by_series=by_series,
        ratios=tuple(zip(wall[-_MOST_RATIOS:], money[-_MOST_RATIOS:], strict=True)),
        runs=good.height,
        failures=failed / (failed + good.height),
        note=note,
        drift={name: pace for name, pace in drift.items() if pace},
        untold=untold,
    )
    own = good.select("day", "stage", "rung", "money").with_columns(
        line=pl.Series(beside["money"]),  # with its drift, and without: what was known at the time
        flat=pl.Series(lines["money"].a + lines["money"].b * driver),
    )
    return rate, own


def _spread(driver: Floats) -> float:
    low, high = float(np.min(driver)), float(np.max(driver))
    return high / low if low > 0 else math.inf if high > 0 else 1.0


def _line(x: Floats, y: Floats, weights: Floats, leverage: bool) -> Line:
    """Non-negative relative least squares, scaled to the weighted total.

    A slope of less than two standard errors is none: what happens to rise with the volume of a few
    runs must not be drawn out beyond them. Where cost in proportion to volume is as likely as none,
    or the volume hardly varied, half of it is taken to grow.
    """
    mean_x, mean_y = float(np.average(x, weights=weights)), float(np.average(y, weights=weights))
    if mean_y <= 0:
        return Line(0.0, 0.0)
    if mean_x <= 0:
        return Line(mean_y, 0.0)
    half = Line(mean_y / 2, mean_y / 2 / mean_x, guessed=True)
    if not leverage:
        return half
    # relative errors: a small run's line matters as much as a large one's
    smooth = np.maximum(np.abs(y), 0.1 * mean_y)
    w = weights / smooth**2
    sx, sy = float(np.average(x, weights=w)), float(np.average(y, weights=w))
    spread = float(np.average((x - sx) ** 2, weights=w))
    b = float(np.average((x - sx) * (y - sy), weights=w)) / spread if spread > 0 else 0.0
    a = sy - b * sx
    beside = float(np.average((y - a - b * x) ** 2, weights=w)) / max(len(x) - 2, 1)
    error = math.sqrt(beside / spread) if spread > 0 else math.inf
    if b < 2 * error:
        return half if b + 2 * error > mean_y / mean_x else Line(mean_y, 0.0)
    if a < 0:
        a, b = 0.0, float(np.average(x * y, weights=w) / np.average(x * x, weights=w))
    scale = mean_y / max(float(np.average(a + b * x, weights=weights)), _TINY)
    return Line(a * scale, b * scale)


@dataclass(frozen=True, slots=True)
class Trend:
    """Where something stands on its last day (`now`), and by what share of it a day it rises."""

    now: float
    pace: float
    last: float

    def then(self, day: Floats) -> Floats:
        """What past days had of it, as shares of now."""
        age = np.minimum(self.last - day, _DRIFT_DAYS)
        share: Floats = np.maximum(1 - self.pace * age, _LEAST_SHARE)
        return share


def faded(days: float) -> float:
    """Days of a drift's first pace that `days` of ever slower ones amount to."""
    keeps = 0.5 ** (1 / _DRIFT_FADES)
    return float(keeps * (1 - keeps**days) / (1 - keeps))


def grown(pace: float, ahead: float) -> float:
    """What 1 has become after `ahead` days: what rises adds its pace, what falls stays above 0."""
    far = pace * faded(ahead)
    return 1 + far if far > 0 else math.exp(far)


def _trend(day: Floats, amounts: Floats, said: Floats) -> Trend:
    """Of amounts over what was said of them, at the level of the last runs."""
    slope = _slope(*_by_day(day, amounts, said))
    age = np.minimum(day.max() - day, _DRIFT_DAYS)
    weights = said * 0.5 ** (np.arange(len(said))[::-1] / _LEVEL_HALF_LIFE)
    if weights.sum() <= 0:
        return Trend(1.0, 0.0, float(day.max()))
    beside = amounts / np.maximum(said, _TINY) + slope * age
    now = max(float(np.average(beside, weights=weights)), _TINY)
    return Trend(now, slope / now, float(day.max()))


def _by_day(day: Floats, amounts: Floats, said: Floats) -> tuple[Floats, Floats]:
    """The days, and the amounts of each over what was said of it."""
    days, place = np.unique(day, return_inverse=True)
    return days, np.bincount(place, amounts) / np.maximum(np.bincount(place, said), _TINY)


def _slope(days: Floats, beside: Floats) -> float:
    """By how much a day the last weeks rise where a Mann-Kendall test sees a trend in them, else 0:
    the smaller of the Theil-Sen slopes of the whole and of its later half."""
    recent = days > days[-1] - _DRIFT_DAYS
    x, y = days[recent], beside[recent]
    if len(x) < _DRIFT_LEAST or not (y > 0).all() or np.ptp(y) == 0:
        return 0.0
    from pymannkendall import original_test

    if original_test(y).p > _DRIFT_P:
        return 0.0
    half = len(x) // 2
    whole, later = _theil_sen(x, y), _theil_sen(x[half:], y[half:])
    return 0.0 if whole * later <= 0 else min(whole, later, key=abs)


def _theil_sen(x: Floats, y: Floats) -> float:
    first, second = np.triu_indices(len(x), 1)
    return float(np.median((y[second] - y[first]) / (x[second] - x[first])))


def level_error(days: Floats, beside: Floats) -> float:
    """How far (log, root mean square) each week's mean was from what the days before it said.

    Told as rates are: the level of the last days, and the drift that was seen by then; widened for
    how few weeks there are.
    """
    errors = []
    for start in range(_BLOCK_DAYS, len(days) - 2, _BLOCK_DAYS):
        past, ahead = slice(0, start), slice(start, start + _BLOCK_DAYS)
        trend = _trend(days[past], beside[past], np.ones(start))
        coming = np.mean([grown(trend.pace, day - trend.last) for day in days[ahead]])
        errors.append(math.log(float(np.mean(beside[ahead])) / (trend.now * float(coming))))
    if not errors:
        return 0.0
    return math.sqrt(sum(e * e for e in errors) / len(errors)) * math.sqrt(1 + 1 / len(errors))


def _luck(days: pl.DataFrame) -> tuple[tuple[float, ...], float]:
    """What days did beside their lines, and how wrong a week's level was told from before it."""
    effects = days["effect"].to_numpy()
    mean = float(np.average(effects, weights=days["size"].to_numpy()))
    level = level_error(_numbers(days["day"]), days["flat_effect"].to_numpy())
    return tuple(float(e) / mean for e in effects), level


def _numbers(days: pl.Series) -> Floats:
    return days.to_physical().to_numpy().astype(np.float64)


def _without_days(
    rates: Mapping[tuple[str, str], Rate], together: pl.DataFrame, days: pl.DataFrame
) -> dict[tuple[str, str], Rate]:
    """The same rates, their runs' ratios freed of what their day did to all runs."""
    effects = dict(days.select("day", "effect").iter_rows())
    at_the_time = days.select("day", "flat_effect")
    freed = {}
    for key, rate in rates.items():
        own = together.filter((pl.col("stage") == key[0]) & (pl.col("rung") == key[1]))
        luck = [effects[day] for day in own["day"].to_list()[-_MOST_RATIOS:]]
        pairs = [(w / e, m / e) for (w, m), e in zip(rate.ratios, luck, strict=True)]
        parts = own.join(at_the_time, on="day").with_columns(pl.col("flat") * pl.col("flat_effect"))
        own_level = level_error(
            *_by_day(_numbers(parts["day"]), parts["money"].to_numpy(), parts["flat"].to_numpy())
        )
        freed[key] = replace(rate, ratios=_centred(pairs), level=own_level)
    return freed


def _centred(pairs: Sequence[tuple[float, float]]) -> tuple[tuple[float, float], ...]:
    """Ratios with mean 1, so that drawing them again keeps the total."""
    wall = sum(w for w, _ in pairs) / len(pairs) or 1.0
    money = sum(m for _, m in pairs) / len(pairs) or 1.0
    return tuple((w / wall, m / money) for w, m in pairs)
