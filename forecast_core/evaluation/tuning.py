"""Searching settings under a CPU budget, and who is promoted: both stop where gain costs too much.

Belongs here: the search and its stopping rule, and the verdict over champion and challenger. Does
not: fitting anything (the caller's function does), or keeping the decision
(`resources.decision_store`).

A trial is worth what it is expected to improve, times what an improvement is worth, and costs what
the trials so far have cost. The expected improvement is read off the trials: the mean gain of the
last few over the best before them, held to fall no slower than 1 / n as records of random draws do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from forecast_core.levers.decisions import Decision

Evaluate = Callable[[Mapping[str, Any]], tuple[float, float]]
Stop = Literal["budget", "gain below cost", "trials"]
_PATIENCE = 6  # trials before the gain is judged, and that it is judged over


@dataclass(frozen=True)
class Range:
    """One setting: `low`..`high`, on a log scale where `log`, whole where `whole`."""

    low: float
    high: float
    log: bool = False
    whole: bool = False


@dataclass(frozen=True)
class Choice:
    """One setting that is a name, such as a loss."""

    of: tuple[str, ...]


Space = Mapping[str, Range | Choice]


@dataclass(frozen=True)
class Trial:
    """Settings, the error they gave (lower is better) and the CPU-seconds it took to know."""

    settings: Mapping[str, Any]
    error: float
    cpu_s: float


@dataclass(frozen=True)
class Search:
    """All trials in order, the first being today's settings, and why the search ended."""

    trials: tuple[Trial, ...]
    stopped: Stop
    best: Trial = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "best", min(self.trials, key=lambda trial: trial.error))

    @property
    def cpu_s(self) -> float:
        """What the search took."""
        return sum(trial.cpu_s for trial in self.trials)


def search(
    evaluate: Evaluate,
    today: Mapping[str, Any],
    space: Space,
    *,
    budget_cpu_s: float,
    worth_per_error: float,
    usd_per_cpu_s: float,
    max_trials: int = 60,
    seed: int = 1,
) -> Search:
    """Try settings, today's first, until the budget is spent or a trial is not worth its cost.

    Args:
        evaluate: settings -> (error, CPU-seconds). It is never begun when the dearest trial so
            far would not fit into what is left of the budget.
        worth_per_error: money that an error lower by 1 is worth, over the life of the settings.

    Raises:
        ValueError: a budget or a worth that is not positive, or an unknown setting in `today`.
    """
    if budget_cpu_s <= 0 or worth_per_error <= 0:
        raise ValueError("give a CPU budget and what an error is worth, both above zero")
    unknown = sorted(set(space) - set(today))
    if unknown:
        raise ValueError(f"{unknown[0]!r} is searched but today's settings have no such name")
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed))
    study.enqueue_trial({name: today[name] for name in space})
    trials: list[Trial] = []
    while True:
        stop = _stop(trials, budget_cpu_s, worth_per_error, usd_per_cpu_s, max_trials)
        if stop is not None:
            return Search(tuple(trials), stop)
        asked = study.ask()
        settings = {**today, **{name: _suggest(asked, name, of) for name, of in space.items()}}
        error, cpu_s = evaluate(settings)
        study.tell(asked, error)
        trials.append(Trial(settings, error, cpu_s))


def _suggest(trial: Any, name: str, of: Range | Choice) -> float | int | str:
    if isinstance(of, Choice):
        return str(trial.suggest_categorical(name, of.of))
    if of.whole:
        return int(trial.suggest_int(name, int(of.low), int(of.high), log=of.log))
    return float(trial.suggest_float(name, of.low, of.high, log=of.log))


def _stop(
    trials: Sequence[Trial], budget: float, worth: float, usd_per_cpu_s: float, most: int
) -> Stop | None:
    if not trials:
        return None
    spent = sum(trial.cpu_s for trial in trials)
    if spent + max(trial.cpu_s for trial in trials) > budget:
        return "budget"
    if len(trials) >= most:
        return "trials"
    if len(trials) < 1 + _PATIENCE:
        return None
    next_costs = spent / len(trials) * usd_per_cpu_s
    return "gain below cost" if expected_gain(trials) * worth < next_costs else None


def expected_gain(trials: Sequence[Trial]) -> float:
    """How much lower the next trial is expected to bring the error."""
    best = np.minimum.accumulate([trial.error for trial in trials])
    gains = best[:-1] - best[1:]
    recent = float(gains[-_PATIENCE:].mean())
    # Of n random draws the next is a record with chance 1 / (n + 1).
    spread = float(np.std([trial.error for trial in trials]))
    return max(recent, 0.0) if recent > 0 else spread / (len(trials) + 1) ** 2


# -- champion and challenger ---------------------------------------------------------------------

CHALLENGER = "challenger"
Verdict = Literal["promote", "keep: no gain", "keep: not worth its cost", "keep: too few windows"]
_T90 = {2: 6.31, 3: 2.92, 4: 2.35, 5: 2.13, 6: 2.02}  # 5 % quantile of t, by number of pairs
MIN_WINDOWS = 3


@dataclass(frozen=True)
class Comparison:
    """A challenger beside the champion on the same windows.

    Attributes:
        gain: mean fall of the error, with the ends of its 90 % interval.
        worth: money a period that the gain is worth; `dearer`: money a period it costs more.
    """

    verdict: Verdict
    gain: float
    gain_low: float
    gain_high: float
    worth: float
    dearer: float
    windows: int

    def option(self, group: str, settings: Mapping[str, Any]) -> dict[str, Any]:
        """As the decision log keeps options (`levers.decisions`): what it saves and loses."""
        scale = self.worth / self.gain if self.gain else 0.0
        return {
            "group": group,
            "lever": CHALLENGER,
            "settings": dict(settings),
            "level": 1,
            "saving": -self.dearer,
            "loss": -self.worth,
            "loss_interval": [-self.gain_high * scale, -self.gain_low * scale],
        }


def compare(
    champion: Sequence[tuple[float, float]],
    challenger: Sequence[tuple[float, float]],
    worth_per_error: float,
) -> Comparison:
    """Promote only a gain that is sure over the windows and worth more than it costs.

    Args:
        champion, challenger: (error, money a period) by window, the same windows in order.

    Raises:
        ValueError: they do not have the same number of windows.
    """
    if len(champion) != len(challenger):
        raise ValueError(f"{len(champion)} windows of one, {len(challenger)} of the other")
    fall = np.array([a[0] - b[0] for a, b in zip(champion, challenger, strict=True)])
    more = [b[1] - a[1] for a, b in zip(champion, challenger, strict=True)]
    dearer = float(np.mean(more)) if more else 0.0
    n = len(fall)
    mean = float(fall.mean()) if n else 0.0
    half = _T90.get(n, 1.9) * float(fall.std(ddof=1)) / n**0.5 if n > 1 else float("inf")
    worth = mean * worth_per_error
    verdict: Verdict = "promote"
    if n < MIN_WINDOWS:
        verdict = "keep: too few windows"
    elif mean - half <= 0 and not (mean >= 0 and dearer < 0):
        verdict = "keep: no gain"
    elif worth <= dearer:
        verdict = "keep: not worth its cost"
    return Comparison(verdict, mean, mean - half, mean + half, worth, dearer, n)


def promoted(decisions: Iterable[Decision], group: str) -> dict[str, Any]:
    """Settings of the group's champion: of the newest promotion in force; none when reverted."""
    settings: dict[str, Any] = {}
    for decision in decisions:  # oldest first
        if decision.state in ("applied", "reviewed"):
            for option in decision.options:
                if option["lever"] == CHALLENGER and option["group"] == group:
                    settings = dict(option["settings"])
    return settings
