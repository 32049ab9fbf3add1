"""What makes an admission policy refusable, beyond the types of its fields.

Belongs here: rules that compare one part of a policy with another. Does not: parsing, decisions.
Every fault is one sentence that names the place and the remedy.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from forecast_core.admission.policy import (
    CLASSES,
    ORIGINS,
    PIPELINES,
    PROTECTED,
    Policy,
    WorkClass,
    units,
)

# What the platform starts by itself on these pipelines is what the protected classes are for.
OWN_CLASS = (("monitoring", "monitoring"), ("inference", "serving"))


def faults(policy: Policy) -> Iterator[str]:
    """Every fault of the policy; none means that it may govern."""
    tree = list(_tree(policy))
    yield from tree
    yield from _classes(policy)
    yield from _stages(policy)
    yield from _environments(policy)
    if not tree:
        yield from _floors(policy)
    yield from _protected(policy)
    yield from _default_bound(policy)


def _unknown(place: str, names: Iterable[str | None], known: Iterable[str]) -> Iterator[str]:
    for name in names:
        if name is not None and name not in known:
            yield f"{place}: {name!r} is unknown; use one of {', '.join(known)}"


def _tree(policy: Policy) -> Iterator[str]:
    roots = [name for name, budget in policy.budgets.items() if budget.parent is None]
    if len(roots) != 1:
        yield f"budgets: {len(roots)} nodes have no parent ({roots}); exactly one is the root"
    for name, budget in policy.budgets.items():
        if budget.parent is None:
            if (budget.environment, budget.pipeline, budget.work_class) != (None, None, None):
                yield f"budgets.{name}: the root covers everything; drop what it matches"
            continue
        if budget.parent not in policy.budgets:
            yield f"budgets.{name}: parent {budget.parent!r} does not exist"
            continue
        chain = policy.ancestors(name)
        if name in chain or policy.budgets[chain[-1]].parent is not None:
            yield f"budgets.{name}: its parents form a cycle ({' > '.join((name, *chain))})"
            continue
        parent = policy.budgets[budget.parent]
        for cut in ("environment", "pipeline", "work_class"):
            if getattr(parent, cut) not in (None, getattr(budget, cut)):
                yield (
                    f"budgets.{name}: its parent {budget.parent} covers {cut}"
                    f" {getattr(parent, cut)!r} alone; repeat it here"
                )
        if budget.period == parent.period and budget.limit > parent.limit:
            yield f"budgets.{name}: limit {units(budget.limit)} is above that of its parent"


def _classes(policy: Policy) -> Iterator[str]:
    yield from _unknown("classes", policy.classes, CLASSES)
    for missing in (name for name in CLASSES if name not in policy.classes):
        yield f"classes: {missing!r} is missing; state it"
    for index, rule in enumerate(policy.classify):
        yield from _unknown(f"classify.{index}.class", [rule.work_class], CLASSES)
        yield from _unknown(f"classify.{index}.pipeline", rule.pipeline or (), PIPELINES)
        yield from _unknown(f"classify.{index}.origin", rule.origin or (), ORIGINS)
    for name, budget in policy.budgets.items():
        yield from _unknown(f"budgets.{name}.class", [budget.work_class], CLASSES)
        yield from _unknown(f"budgets.{name}.pipeline", [budget.pipeline], PIPELINES)
        yield from _unknown(f"budgets.{name}.floors", budget.floors, CLASSES)
    for peak in policy.peaks:
        yield from _unknown(f"peaks.{peak.name}", (*peak.pause, *peak.runs), CLASSES)
        if (peak.start is None) != (peak.end is None):
            yield f"peaks.{peak.name}: give both 'from' and 'until', or neither"
        if peak.first and peak.last and peak.first > peak.last:
            yield f"peaks.{peak.name}: 'first' {peak.first} is after 'last' {peak.last}"
    for index, throttle in enumerate(policy.throttles):
        yield from _unknown(f"throttles.{index}.pause", throttle.pause, CLASSES)
        if (throttle.queue_age, throttle.memory_pressure, throttle.cpu_pressure) == (None,) * 3:
            yield f"throttles.{index}: names no load; give queue_age, memory_pressure, cpu_pressure"
    yield from _unknown("serving_reserve.pipeline", [policy.serving_reserve.pipeline], PIPELINES)
    for pipeline in PIPELINES:
        for origin in ORIGINS:
            if policy.class_of(pipeline, origin) is None:
                yield f"classify: no rule for pipeline {pipeline} started by {origin}; add one"


def _stages(policy: Policy) -> Iterator[str]:
    seen: dict[str, str] = {}
    for name, stage in policy.stages.items():
        yield from _unknown(f"stages.{name}.pipelines", stage.pipelines, PIPELINES)
        for pipeline in stage.pipelines:
            if pipeline in seen:
                yield f"stages.{name}: {pipeline} is in stage {seen[pipeline]} already"
            seen[pipeline] = name
        step = stage.of_a_step
        if step.cpu > stage.cpu or step.memory_gib > stage.memory_gib:
            yield f"stages.{name}.step: asks for more than its stage has; lower it"
    for pipeline in (p for p in PIPELINES if p not in seen):
        yield f"stages: pipeline {pipeline} has no stage; name it in one"
    for kind in ("cpu", "memory_gib", "gpu"):
        total = sum(getattr(stage, kind) for stage in policy.stages.values())
        if total > getattr(policy.host, kind) + 1e-9:
            yield (
                f"stages: their {kind} adds up to {total:g}, the host has"
                f" {getattr(policy.host, kind):g}; a stage's room must be its own"
            )
    floors = sum(work_class.floor_runs for work_class in policy.classes.values())
    if floors > policy.host.runs:
        yield f"classes: floor_runs add up to {floors}, the host runs {policy.host.runs} at once"


def _environments(policy: Policy) -> Iterator[str]:
    """A restriction for an environment that no budget names would never act, and never say so."""
    known = sorted({budget.environment or "" for budget in policy.budgets.values()} - {""})
    named = {
        f"classes.{name}.environments": tuple(work_class.environments)
        for name, work_class in policy.classes.items()
    } | {f"peaks.{peak.name}.environments": peak.environments for peak in policy.peaks}
    for place, environments in named.items() if known else ():
        yield from _unknown(place, environments, known)


def _floors(policy: Policy) -> Iterator[str]:
    for name, floors in policy.floors.items():
        budget = policy.budgets[name]
        if sum(floors.values()) > budget.limit:
            yield (
                f"budgets.{name}: floors ({units(sum(floors.values()))}, children's included)"
                f" are above its limit {units(budget.limit)}"
            )
        parent = policy.budgets[budget.parent] if budget.parent else None
        if parent and parent.period != budget.period:
            for work_class in (c for c in floors if c not in parent.floors):
                yield (
                    f"budgets.{name}: its {work_class} floor is per {budget.period}, its parent's"
                    f" budget per {parent.period}; state the parent's floor for {work_class} too"
                )


def _protected(policy: Policy) -> Iterator[str]:
    """Whatever would switch monitoring or serving off, or starve it, is an error."""
    yield from _declassed(policy)
    for name in PROTECTED:
        for peak in policy.peaks:
            if name in peak.pause or peak.runs.get(name) == 0:
                yield f"peaks.{peak.name}: switches {name} off; it may never pause"
        for index, throttle in enumerate(policy.throttles):
            if name in throttle.pause:
                yield f"throttles.{index}: switches {name} off; it may never pause"
        work_class = policy.classes.get(name)
        if work_class is None:
            continue
        bound = _least_bound(policy, work_class)
        if work_class.floor_runs < 1:
            yield f"classes.{name}: floor_runs 0 starves it; keep at least 1 lane"
        for environment, limits in work_class.environments.items():
            if not limits.allowed or 0 in (limits.max_runs, limits.max_money):
                yield f"classes.{name}.environments.{environment}: switches {name} off"
            elif limits.max_money is not None and limits.max_money < bound:
                yield (
                    f"classes.{name}.environments.{environment}: max_money"
                    f" {units(limits.max_money)} is below the default bound {units(bound)}: a run"
                    " without history could never start; raise it or leave it out"
                )
        for node, budget in policy.budgets.items():
            pipelines = [budget.pipeline] if budget.pipeline else list(PIPELINES)
            used = any(policy.class_of(p, o) == name for p in pipelines for o in ORIGINS)
            if not used or budget.work_class not in (None, name):
                continue
            floor = policy.floors[node].get(name, 0)
            if not floor:
                yield f"budgets.{node}: has no floor for {name}, others could starve it; add one"
            elif floor < bound:
                yield (
                    f"budgets.{node}: its floor for {name}, {units(floor)}, is below the default"
                    f" bound {units(bound)}: others could starve a run without history; raise it"
                )
    for pipeline in PIPELINES:
        stage = policy.stages.get(policy.stage_of.get(pipeline, ""))
        serves = {policy.class_of(pipeline, origin) for origin in ORIGINS} & set(PROTECTED)
        if stage and serves and (stage.runs < 1 or not stage.cpu or not stage.memory_gib):
            yield f"stages.{policy.stage_of[pipeline]}: has no room, {pipeline} could never run"


def _least_bound(policy: Policy, work_class: WorkClass) -> int:
    """What a run without history must be able to hold: the whole bound, or its cheapest rung."""
    bound = policy.default_bound
    shares = bound.rungs.values() if work_class.may_degrade else ()
    return int(bound.money * min(shares, default=1.0))


def _declassed(policy: Policy) -> Iterator[str]:
    """What keeps monitoring and serving alive is their class: their own work must be in it."""
    for pipeline, name in OWN_CLASS:
        for origin in ORIGINS:
            if origin in ("backfill", "manual"):
                continue  # a person asked, and may have asked for less
            found = policy.class_of(pipeline, origin)
            if found not in (None, name):
                yield (
                    f"classify: {pipeline} started by {origin} is {found}, which may pause and has"
                    f" no floor of {name}'s; make it {name}"
                )


def _default_bound(policy: Policy) -> Iterator[str]:
    bound = policy.default_bound
    if not bound.money or not bound.wall:
        yield "default_bound: money and wall must be above zero; unknown work is never free"
    for name, work_class in policy.classes.items():
        if work_class.max_chunk is not None and bound.wall > work_class.max_chunk:
            yield f"default_bound: wall {bound.wall:g}s is above classes.{name}.max_chunk"
    for name, stage in policy.stages.items():
        if bound.cpu > stage.cpu or bound.memory_gib > stage.memory_gib or bound.gpu > stage.gpu:
            yield f"default_bound: does not fit stage {name}; a run without a quote could not start"
