"""The meter around every step: measures it, charges it once, whatever way it ends.

Belongs here: the `Meter` resource that IO managers and bodies talk to, and the `@metered`
decorator. Does not: reading the kernel (`meter_probe`), Dagster's contexts (`meter_step`), prices
(`forecast_core.cost.charges`), or steps that died without a word (`ledger_reconcile`).

A step is metered from its first input load to its last output written, since bodies are lazy and
most of the work is done while writing. What the process uses between steps (its start, imports,
Dagster's own events) is charged to the run as overhead, measured on its own: the process clock has
no hole. The ledger failing does not fail a forecast: the reconciler settles what could not be
written.
"""

import atexit
import functools
import gc
import inspect
import multiprocessing.util
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar, cast

import dagster as dg

from forecast_core.admission.grant import Grant
from forecast_core.cost.charges import CostRecord, TierIO, Usage, price
from forecast_core.cost.settlement import (
    OVERHEAD,
    Owner,
    Settlement,
    Share,
    by_share,
    charge_set_of,
    common,
    ledger_rows,
    records,
    span_of,
)
from resources.family import resident_gib
from resources.gate import Gate
from resources.ledger import Ledger, LedgerError, open_ledger
from resources.meter_probe import ProcessProbe, Reading, probe
from resources.meter_step import (
    AnyContext,
    Key,
    Step,
    by_place,
    key_of,
    payer_of_output,
    payers_of_body,
    step_context,
    step_of,
)
from resources.price_card import load_price_card
from resources.quotas import each_within

F = TypeVar("F", bound=Callable[..., Any])
CostMetadata = Mapping[str, Mapping[str, dg.MetadataValue]]


@dataclass
class _Open:
    """A step under way: since when, and what the IO managers reported."""

    step: Step
    payers: dict[str, Owner]
    mark: Reading
    begun: datetime
    high_water_gib: float
    part: int = 0
    io: Usage = field(default_factory=Usage)
    shares: dict[Share, float] = field(default_factory=dict)
    method: str = "rows"
    in_generator: bool = False


class Meter:
    """Charges steps to a ledger by a price card. One for a process, under the key `meter`."""

    def __init__(
        self,
        ledger_url: str,
        price_card: Path,
        environment: str,
        *,
        code_version: str | None = None,
        config_version: str | Callable[[], str] | None = None,
    ) -> None:
        """Nothing is opened before the first charge; a `config_version` that has to be looked up
        is asked for then, once.

        Raises:
            PolicyError: the price card cannot be used.
        """
        self.ledger_url = ledger_url
        self.environment = environment
        self.card = load_price_card(price_card)
        self.code_version, self.config_version = code_version, config_version
        self._open: dict[Key, _Open] = {}
        self._pid = 0
        # Early, so that it runs late: what others do at exit is overhead too.
        atexit.register(self.flush)
        self._gaps: list[Settlement] = []
        self._gap_count = 0
        self._last_run: Step | None = None
        self.gate: Gate | None = None  # asked before a step works; None: every step may

    @property
    def ledger(self) -> Ledger:
        """The ledger behind this meter."""
        return open_ledger(self.ledger_url)

    # -- what IO managers call -------------------------------------------------------------

    def opened(self, context: AnyContext) -> None:
        """The step has begun; idempotent for an attempt.

        Raises:
            dg.Failure: admission refuses the run; nothing was done.
        """
        self._admit(context)
        self._step(context)

    def read(self, context: AnyContext, bytes: int, files: int, tier: str = "hot") -> None:
        """`files` of `bytes` in all were read from `tier`."""
        self._moved(context, Usage(bytes_read=bytes, files_read=files), TierIO(bytes, files), tier)

    def wrote(self, context: AnyContext, bytes: int, files: int, tier: str = "hot") -> None:
        """`files` of `bytes` in all were written to `tier`."""
        io = TierIO(bytes_written=bytes, files_written=files)
        self._moved(context, Usage(bytes_written=bytes, files_written=files), io, tier)

    def settle(
        self,
        context: dg.OutputContext,
        rows_by_partition: Mapping[str, int],
        series: Mapping[str, int] | None = None,
    ) -> CostMetadata:
        """Charge the step up to now; the metadata of each partition, split by rows.

        A step with several outputs is charged a part at each: what it used since the last one.
        `series`: how many were written, by store ('' where rows belong to none).
        """
        with self._timed():
            open_step = self._step(context)
            payer = payer_of_output(context, open_step.step, self.environment)
            cut = context.asset_partitions_def if context.has_asset_partitions else None
            owners = by_place(payer, rows_by_partition, cut, series or {}) or {payer: 1.0}
            last = open_step.part + 1 >= open_step.step.awaited
            if len(open_step.payers) > 1:  # whoever settled owes nothing of a later failure
                open_step.payers.pop(payer.asset or "", None)
            settlement = self._charge(
                open_step,
                replace(payer, partition=span_of(list(rows_by_partition))),
                owners,
                final=last and not open_step.in_generator,
                rows=sum(rows_by_partition.values()),
                partitions=sum(1 for key in rows_by_partition if key),
            )
            rates = self.card.on(settlement.start.date(), self.environment)
            keyed = rows_by_partition or {"": 0}
            return {
                key: metadata_of(record)
                for key, record in records(settlement, rates, keyed).items()
            }

    # -- what bodies call ------------------------------------------------------------------

    def share(self, context: AnyContext, weights: Mapping[Share, float], method: str) -> None:
        """Split what this step costs by a measured driver, such as fit seconds by segment group.

        `method` names the driver in the ledger (`x_method`). Replaces an earlier split.
        """
        open_step = self._step(context)
        open_step.shares = dict(weights)
        open_step.method = method

    def grant(self, context: AnyContext, *, more: bool = False) -> Grant | None:
        """What admission granted the run and it has not used, beyond its cheapest rung; None
        where nothing ends it.

        `more`: after asking for a larger hold; None where budgets have no room for one.
        """
        run_id = step_of(context).run_id
        if self.gate is None or (more and not self.gate.more(run_id)):
            return None
        rates = self.card.on(datetime.now(UTC).date(), self.environment)
        # A CPU-second holds the memory of the process for a second.
        price = rates.of("vcpu_s") + rates.of("gib_s") * Decimal(resident_gib())
        return self.gate.left(run_id, self._running_cost(context), price)

    def failed(self, context: AnyContext, error: BaseException) -> None:
        """The step raised: charge it up to now, with its status. Idempotent."""
        status = "retry" if isinstance(error, dg.RetryRequested) else "failure"
        self.closed(context, status)

    def closed(self, context: AnyContext, status: str = "success") -> None:
        """The step ends without a further output: charge what is left. Idempotent."""
        with self._timed():
            open_step = self._open.get(key_of(context))
            if open_step is not None:
                self._close(open_step, status)

    def flush(self) -> None:
        """Charge what this process has not charged yet: open steps, and overhead up to now."""
        if self._pid != os.getpid():
            return
        for open_step in list(self._open.values()):
            self._close(open_step, "unsettled")
        if self._last_run is not None:
            self._gap(self._last_run)
            self._write([])

    def within(self, context: AnyContext) -> AbstractContextManager[None]:
        """Work within what admission granted the run: memory, cores, money."""
        if self.gate is None:
            return nullcontext()
        step = step_context(context)
        return self.gate.within(
            self.gate.admit(step), str(step.step.key), lambda: self._running_cost(context)
        )

    def _admit(self, context: AnyContext) -> None:
        if self.gate is not None and key_of(context) not in self._open:
            self._last_run = step_of(context)  # whoever is refused pays for its start all the same
            self.gate.admit(step_context(context))

    def _running_cost(self, context: AnyContext) -> Decimal:
        """What the step has used and not been charged for; asked from another thread."""
        found = self._open.get(key_of(context))
        if found is None:
            return Decimal(0)
        used = _usage(self._now().since(found.mark), 0.0) + found.io
        rates = self.card.on(datetime.now(UTC).date(), self.environment)
        return sum((charge.cost for charge in price(used, rates)), Decimal(0))

    # -- inside ----------------------------------------------------------------------------

    def _step(self, context: AnyContext) -> _Open:
        """The open step of `context`, opened at need; a forked child starts afresh."""
        if self._pid != os.getpid():
            self._begin_process()
        found = self._open.get(key_of(context))
        return found or self._begin(context)

    def _begin_process(self) -> None:
        self._pid = os.getpid()
        self._open, self._gaps, self._last_run = {}, [], None
        probe().start()
        # What is imported by now lives to the end: spare the collector the walk over it, in every
        # step and at exit, where it takes a CPU-second that nobody could be charged for. duckdb is
        # the exception: it prints a page about whatever was not collected.
        if "duckdb" not in sys.modules:
            gc.freeze()
        # A child of multiprocessing leaves without atexit, but runs its finalizers.
        if multiprocessing.parent_process() is not None:
            multiprocessing.util.Finalize(None, self.flush, exitpriority=100)

    def _begin(self, context: AnyContext) -> _Open:
        step = step_of(context)
        # A card without today's rates fails the step before its work, not after it.
        self.card.on(datetime.now(UTC).date(), self.environment)
        # A step of this process that never settled (its writing raised) ends here at the latest.
        for stranded in list(self._open.values()):
            self._close(stranded, "unsettled")
        self._gap(step)
        open_step = _Open(
            step=step,
            payers=self._payers(context, step),
            mark=probe().charged,  # where the gap ended: no hole between the two
            begun=self._gaps[-1].end,
            high_water_gib=probe().restart_peak(),
        )
        self._open[step.key] = open_step
        return open_step

    def _payers(self, context: AnyContext, step: Step) -> dict[str, Owner]:
        """Who pays if the step ends before it settles; a body knows, an input does not yet."""
        if isinstance(context, dg.InputContext):
            return {}
        if isinstance(context, dg.OutputContext):
            payer = payer_of_output(context, step, self.environment)
            return {payer.asset or "": payer}
        return payers_of_body(context, step, self.environment)

    def enter(self, context: AnyContext, *, in_generator: bool) -> None:
        """The body begins: from here on it is known who pays if it raises."""
        self._admit(context)
        with self._timed():
            open_step = self._step(context)
            open_step.payers = payers_of_body(context, open_step.step, self.environment)
            open_step.in_generator = in_generator

    def returned(self, context: AnyContext, unhandled: int) -> None:
        """The body returned; `unhandled` of its outputs carry no value, so nobody settles them."""
        open_step = self._open.get(key_of(context))
        if open_step is None:
            return
        open_step.in_generator = False
        awaited = max(open_step.step.awaited - unhandled, 0)
        if isinstance(context, dg.AssetCheckExecutionContext) or open_step.part >= awaited:
            self.closed(context)
        else:
            open_step.step = replace(open_step.step, awaited=awaited)

    def _moved(self, context: AnyContext, usage: Usage, io: TierIO, tier: str) -> None:
        open_step = self._step(context)
        open_step.io += replace(usage, tiers={} if tier == "hot" else {tier: io})

    def _close(self, open_step: _Open, status: str) -> None:
        payers = list(open_step.payers.values()) or [open_step.step.owner(self.environment)]
        self._charge(
            open_step,
            common(payers),
            dict.fromkeys(payers, 1.0),
            final=True,
            status=status,
            method="even",
        )

    def _charge(
        self,
        open_step: _Open,
        payer: Owner,
        owners: Mapping[Owner, float],
        *,
        final: bool,
        status: str = "success",
        method: str | None = None,
        rows: int = 0,
        partitions: int = 0,
    ) -> Settlement:
        """Write one part of the step, and begin the next or forget the step."""
        step, now, instant = open_step.step, self._now(), datetime.now(UTC)
        grown = now.since(open_step.mark)
        settlement = Settlement(
            charge_set=charge_set_of(*step.key, open_step.part),
            owner=self._versioned(payer),
            start=open_step.begun,
            end=max(instant, open_step.begun + timedelta(microseconds=1)),
            usage=_usage(grown, probe().peak_gib(open_step.high_water_gib)) + open_step.io,
            part=open_step.part,
            final=final,
            status=status,
            rows=rows,
            partitions=partitions,
            meter_cpu_s=grown.meter_cpu_s,
        )
        parts = by_share(owners, open_step.shares)
        split = {self._versioned(owner): weight for owner, weight in parts.items()}
        driver = open_step.method if open_step.shares else method or "rows"
        probe().charged = open_step.mark = now
        open_step.begun = settlement.end
        open_step.high_water_gib = probe().restart_peak()
        open_step.part += 1
        open_step.io = Usage()
        if final:
            del self._open[step.key]
            self._last_run = step
        self._write([(settlement, split, driver)])
        return settlement

    def _gap(self, step: Step) -> None:
        """What this process used since the last step: overhead of the run at hand."""
        now = self._now()
        grown = now.since(probe().charged)
        probe().charged = now
        end = datetime.now(UTC)
        name = f"{step.run_id}:overhead:{probe().name}:{self._gap_count}"
        self._gap_count += 1
        owner = Owner(
            environment=self.environment,
            cost_class=OVERHEAD,
            pipeline=None,
            run_id=step.run_id,
            cycle=step.cycle,
        )
        owner = self._versioned(owner)
        self._gaps.append(
            Settlement(
                charge_set=name,
                owner=owner,
                start=end - timedelta(seconds=max(grown.clock, 1e-6)),
                end=end,
                usage=_usage(grown, 0.0),
                meter_cpu_s=grown.meter_cpu_s,
            )
        )

    def _write(self, batch: Sequence[tuple[Settlement, Mapping[Owner, float], str]]) -> None:
        """Record settlements, the gaps before them included, in one transaction."""
        gaps, self._gaps = self._gaps, []
        whole: list[tuple[Settlement, Mapping[Owner, float], str]] = [
            (g, {}, "whole") for g in gaps
        ]
        rows = [
            ledger_rows(s, self.card.on(s.start.date(), self.environment), owners, method)
            for s, owners, method in [*whole, *batch]
        ]
        try:
            self.ledger.record_all(rows)
        except LedgerError as error:
            # The forecast is worth more than its receipt: the reconciler will write an estimate.
            dg.get_dagster_logger().error(
                f"not charged, left to `forecast cost reconcile`: {error}"
            )

    def _versioned(self, owner: Owner) -> Owner:
        if callable(self.config_version):
            self.config_version = self.config_version()
        return replace(owner, code_version=self.code_version, config_version=self.config_version)

    def _now(self) -> Reading:
        return probe().read()

    @contextmanager
    def _timed(self) -> Iterator[None]:
        """Count what metering itself takes."""
        began = time.thread_time()
        try:
            yield
        finally:
            measuring: ProcessProbe = probe()
            measuring.spent(time.thread_time() - began)


def _usage(grown: Reading, peak_gib: float) -> Usage:
    return Usage(
        cpu_s=grown.cpu_s,
        rss_gib_s=grown.rss_gib_s,
        peak_rss_gib=peak_gib,
        wall_s=grown.clock,
        gpu_s=grown.gpu_s,
    )


def metadata_of(record: CostRecord) -> dict[str, dg.MetadataValue]:
    """A cost record as Dagster metadata: JSON under `cost`, plottable numbers beside it."""
    return {
        name: dg.MetadataValue.json(value)
        if isinstance(value, dict)
        else dg.MetadataValue.int(value)
        if isinstance(value, int)
        else dg.MetadataValue.float(cast(float, value))
        for name, value in record.metadata().items()
    }


def record_in(metadata: Mapping[str, Any]) -> CostRecord | None:
    """The cost record in a materialization's metadata; None where it has none."""
    return CostRecord.parse({k: getattr(v, "value", v) for k, v in metadata.items()})


def metered(fn: F) -> F:
    """Meter an asset, multi-asset, check or op body; goes right below Dagster's decorator.

    The body's own signature stands, with the resource `meter` added where it does not ask for it
    itself. A generator is metered to its end. Outside a run the body is called as it is.
    """
    signature = inspect.signature(fn)
    asks = "meter" in signature.parameters

    def split(kwargs: dict[str, Any]) -> tuple[Meter | None, AnyContext | None]:
        meter = kwargs.get("meter") if asks else kwargs.pop("meter", None)
        context = _current_context() if isinstance(meter, Meter) else None
        return (meter, context) if context is not None else (None, None)

    @functools.wraps(fn)
    def call(*args: Any, **kwargs: Any) -> Any:
        meter, context = split(kwargs)
        if meter is None or context is None:
            return fn(*args, **kwargs)
        meter.enter(context, in_generator=False)
        with _charging(meter, context), meter.within(context):
            result = fn(*args, **kwargs)
        meter.returned(context, _valueless(result))
        return result

    @functools.wraps(fn)
    def iterate(*args: Any, **kwargs: Any) -> Iterator[Any]:
        meter, context = split(kwargs)
        if meter is None or context is None:
            yield from fn(*args, **kwargs)
            return
        meter.enter(context, in_generator=True)
        with _charging(meter, context):
            # Between two items Dagster works, which no limit may interrupt.
            yield from each_within(lambda: meter.within(context), fn(*args, **kwargs))
        meter.closed(context)

    wrapper: Any = iterate if inspect.isgeneratorfunction(fn) else call
    if not asks:
        added = inspect.Parameter(
            "meter", inspect.Parameter.KEYWORD_ONLY, annotation=dg.ResourceParam[Meter]
        )
        wrapper.__signature__ = signature.replace(
            parameters=_before_var_keyword([*signature.parameters.values()], added)
        )
        wrapper.__annotations__ = {**fn.__annotations__, "meter": dg.ResourceParam[Meter]}
    return cast(F, wrapper)


def _before_var_keyword(
    parameters: list[inspect.Parameter], added: inspect.Parameter
) -> list[inspect.Parameter]:
    named = [p for p in parameters if p.kind is not inspect.Parameter.VAR_KEYWORD]
    rest = [p for p in parameters if p.kind is inspect.Parameter.VAR_KEYWORD]
    return [*named, added, *rest]


@contextmanager
def _charging(meter: Meter, context: AnyContext) -> Iterator[None]:
    try:
        yield
    except BaseException as error:
        meter.failed(context, error)
        raise


def _valueless(result: Any) -> int:
    """How many results carry no value, so that no IO manager sees them."""
    # A MaterializeResult is itself a tuple, hence the exact types.
    items = result if type(result) in (tuple, list) else [result]
    empty: object = dg.MaterializeResult().value
    return sum(
        1
        for item in items
        if isinstance(item, dg.ObserveResult)
        or (isinstance(item, dg.MaterializeResult) and item.value is empty)
    )


def _current_context() -> AnyContext | None:
    for kind in (dg.AssetExecutionContext, dg.AssetCheckExecutionContext, dg.OpExecutionContext):
        try:
            context: AnyContext = kind.get()
        except dg.DagsterInvariantViolationError:
            continue
        return context
    return None
