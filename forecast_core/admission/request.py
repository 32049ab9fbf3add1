"""From what is known of a run to the request that admission judges.

Belongs here: class, stage, deadline and default quotes from a run's assets, origin and tags. Does
not: reading them from a run (`resources.run_facts`), measured quotes (the estimator).

Job tags are lost when assets are launched directly, so assets speak first: `cost/pipeline` on the
asset, then on the run. What cannot be classified gets a `problem` and waits for a person.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, time, timedelta
from typing import Protocol

from forecast_core.admission.policy import PIPELINES, Policy
from forecast_core.admission.values import Quote, Request, Shape

CLASS_TAG = "admission/class"  # may lower the class of a run, never raise it
DEADLINE_TAG = "admission/deadline"  # ISO moment, or hh:mm of the policy's day
COVERS_TAG = "admission/covers"  # items that get their first forecast of the cycle
PIPELINE_KEY = "cost/pipeline"
RUNGS_KEY = "cost/rungs"  # the asset's ladder, dearest first
GPU_KEY = "admission/gpu"  # GPU lanes that the asset holds at its dearest rung


@dataclass(frozen=True)
class AssetFacts:
    """What an asset's metadata says about its cost."""

    key: str
    pipeline: str | None = None
    rungs: tuple[str, ...] = ()
    deadline: str | None = None
    gpu: int = 0


@dataclass(frozen=True)
class Work:
    """What a run will do, as far as its price depends on it: equal work has equal quotes.

    It is kept while the run waits, so that the run can be quoted again when more is known.
    """

    assets: tuple[AssetFacts, ...]
    pipelines: tuple[str, ...]
    partitions: int = 1

    @property
    def ladder(self) -> tuple[str, ...]:
        """The rungs to quote, as asked for first; without a ladder there is one."""
        return next((asset.rungs for asset in self.assets if asset.rungs), ("asked",))

    def gpu(self, rung: str) -> int:
        """GPU lanes that the work holds at a rung: those of its assets, at the rung asked for."""
        return max((a.gpu for a in self.assets if rung == (a.rungs or ("asked",))[0]), default=0)


@dataclass(frozen=True)
class RunFacts:
    """What is known of a run before it starts. `launch` joins the pieces of one backfill."""

    run_id: str
    origin: str
    assets: tuple[AssetFacts, ...]
    submitted: float
    partitions: int = 1
    launch: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)

    @property
    def work(self) -> Work:
        """What the run will do."""
        return Work(self.assets, self.pipelines, self.partitions)

    @property
    def pipelines(self) -> tuple[str, ...]:
        """Pipelines that pay for the run, in a stable order."""
        named = {asset.pipeline for asset in self.assets if asset.pipeline}
        if not named and PIPELINE_KEY in self.tags:
            named = {self.tags[PIPELINE_KEY]}
        return tuple(sorted(named))


class Quoter(Protocol):
    """Whoever prices work before it runs: one quote a rung, as asked for first."""

    def quotes(self, work: Work) -> Sequence[Quote]:
        """Upper bounds at p95; empty when there is no history to speak from."""
        ...


@dataclass(frozen=True)
class DefaultQuoter:
    """The policy's stated bound for everything, split equally over the run's pipelines."""

    policy: Policy

    def quotes(self, work: Work) -> tuple[Quote, ...]:
        """One quote a rung of the ladder of the assets; one quote without a ladder."""
        pipelines = work.pipelines or ("",)
        return tuple(self._quote(rung, pipelines, work.gpu(rung)) for rung in work.ladder)

    def _quote(self, rung: str, pipelines: Sequence[str], gpu: int) -> Quote:
        bound = self.policy.default_bound
        share = bound.rungs.get(rung, 1.0)
        each, over = divmod(int(bound.money * share), len(pipelines))
        charges = tuple((name, each + (i < over)) for i, name in enumerate(pipelines))
        lanes = max(gpu, bound.gpu)
        return Quote(rung, charges, bound.wall * share, bound.cpu, bound.memory_gib, lanes)


def request_of(facts: RunFacts, policy: Policy, quoter: Quoter | None = None) -> Request:
    """The request of a run; unknown work gets the default bound, unclear work a `problem`.

    Times in seconds since the epoch. Never raises for anything that a run may carry.
    """
    problem = _problem(facts)
    deadline, unclear = _deadline(facts, policy)
    quotes = quotes_of(facts.work, policy, quoter if problem is None else None)
    shape = Shape(_class_of(facts, policy), "", (), problem or unclear)
    return Request(
        facts.run_id,
        quoted(shape, quotes, policy),
        facts.submitted,
        deadline,
        facts.launch,
        _covers(facts),
    )


def quotes_of(work: Work, policy: Policy, quoter: Quoter | None = None) -> tuple[Quote, ...]:
    """One quote a rung: as measured, or the policy's stated bound for what has no history."""
    measured = tuple(quoter.quotes(work)) if quoter else ()
    return measured or DefaultQuoter(policy).quotes(work)


def quoted(shape: Shape, quotes: tuple[Quote, ...], policy: Policy) -> Shape:
    """The shape at these quotes, in the stage of the pipeline that pays most."""
    dearest = max(quotes[0].charges, key=lambda charge: charge[1])[0]
    return replace(shape, quotes=quotes, stage=policy.stage_name(dearest))


def seated(request: Request, policy: Policy) -> Request:
    """The request in a stage that the policy knows: stages may be renamed while runs wait or work,
    and a run that no pass can place would stop every other."""
    shape = request.shape
    if shape.stage in policy.stages:
        return request
    pipelines = (pipeline for quote in shape.quotes for pipeline, _ in quote.charges)
    known = (policy.stage_of[name] for name in pipelines if name in policy.stage_of)
    stage = next(known, next(iter(policy.stages)))
    return request._replace(shape=replace(shape, stage=stage))


def _problem(facts: RunFacts) -> str | None:
    remedy = f"set {PIPELINE_KEY} on it, or release the run by an override"
    for asset in facts.assets:
        if asset.pipeline is None and PIPELINE_KEY not in facts.tags:
            return f"asset {asset.key} names no pipeline that pays: {remedy}"
    if not facts.pipelines:
        return f"the run has no assets and no {PIPELINE_KEY} tag: {remedy}"
    for pipeline in facts.pipelines:
        if pipeline not in PIPELINES:
            return f"{PIPELINE_KEY}={pipeline!r} is unknown; use one of {', '.join(PIPELINES)}"
    wanted = facts.tags.get(COVERS_TAG, "0")
    return None if wanted.isdecimal() else f"{COVERS_TAG}={wanted!r} is no number of items"


def _class_of(facts: RunFacts, policy: Policy) -> str:
    """The least of the classes of the run's pipelines, or less where the run asks for less."""
    classes = {policy.class_of(pipeline, facts.origin) for pipeline in facts.pipelines}
    classes.add(facts.tags.get(CLASS_TAG))
    known = [name for name in classes if name is not None and name in policy.classes]
    lowest = min(policy.classes, key=lambda name: policy.classes[name].priority)
    return min(known, key=lambda name: (policy.classes[name].priority, name)) if known else lowest


def _covers(facts: RunFacts) -> int:
    wanted = facts.tags.get(COVERS_TAG, "0")
    return int(wanted) if wanted.isdecimal() else 0


def _deadline(facts: RunFacts, policy: Policy) -> tuple[float | None, str | None]:
    """The earliest deadline of the run and its assets, and what is unclear about it."""
    wanted = [asset.deadline for asset in facts.assets if asset.deadline]
    wanted += [facts.tags[DEADLINE_TAG]] if DEADLINE_TAG in facts.tags else []
    try:
        moments = [_moment(text, facts.submitted, policy.offset_s) for text in wanted]
    except ValueError:
        return None, f"deadline {wanted!r} is neither hh:mm nor an ISO moment"
    return min(moments, default=None), None


def _moment(text: str, submitted: float, offset_s: float) -> float:
    if len(text) > 8:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is not None:
            return moment.timestamp()
        return moment.replace(tzinfo=UTC).timestamp() - offset_s
    local = datetime.fromtimestamp(submitted + offset_s, UTC)
    moment = datetime.combine(local.date(), time.fromisoformat(text), UTC)
    moment += timedelta(days=1) if moment < local else timedelta()
    return moment.timestamp() - offset_s
