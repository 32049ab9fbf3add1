"""The admission store: waiting runs, money held, the decision log and the overrides.

Belongs here: tables and single transactions on them, in SQLite or Postgres. Does not: when a run is
settled or what it cost (`escrow`), Dagster (`coordinator`), rules (`forecast_core.admission`).

One pass is one write transaction, alone in the store (SQLite `BEGIN IMMEDIATE`, Postgres an
advisory lock): what was read is still true when the holds are written, so no number of processes
can hold more than a budget has. A crash anywhere leaves the pass done or not begun.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, OperationalError

from forecast_core.admission import Decision, Holding, Quote, Request, Shape
from forecast_core.admission.record import (
    canonical,
    digest,
    quote_from_json,
    quote_to_json,
    shape_from_json,
    shape_to_json,
    work_from_json,
    work_to_json,
)
from forecast_core.admission.request import Work
from resources.admission_tables import (
    SCHEMA_VERSION,
    SLOT_S,
    facts,
    insert_once,
    metadata,
    open_engine,
    runs,
    shapes,
    spent,
    version,
    works,
)
from resources.ledger_tables import missing_columns

LOCK_TIMEOUT_S = 30.0
_PASS_LOCK = 0x61646D74  # one pass at a time among all processes of a Postgres server
Row = dict[str, Any]


class StoreError(RuntimeError):
    """The admission store cannot be used; nothing was written, so nothing starts."""


class AdmissionStore:
    """Admission in SQLite or Postgres, safe for any number of processes."""

    def __init__(self, url: str, *, timeout_s: float = LOCK_TIMEOUT_S) -> None:
        """Open `url` (SQLAlchemy), creating what is missing.

        Raises:
            StoreError: it cannot be opened, or a newer version wrote it.
        """
        self.url = sa.make_url(url)
        self._shapes: dict[str, Shape] = {}
        try:
            self._engine = open_engine(self.url, timeout_s)
            self._prepare()
        except DBAPIError as error:
            raise self._explained(error) from error
        except ValueError as error:
            raise StoreError(str(error)) from None

    @property
    def name(self) -> str:
        """The store as shown in messages, without a password."""
        return self.url.render_as_string(hide_password=True)

    @contextmanager
    def alone(self) -> Iterator[sa.Connection]:
        """A write transaction that no other pass or settlement runs beside."""
        try:
            with self._engine.execution_options(writes=True).begin() as connection:
                if connection.dialect.name == "postgresql":
                    connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_PASS_LOCK)))
                yield connection
        except DBAPIError as error:
            raise self._explained(error) from error

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """A transaction that only reads."""
        try:
            with self._engine.connect() as connection:
                yield connection
        except DBAPIError as error:
            raise self._explained(error) from error

    def close(self) -> None:
        """Release the connections."""
        self._engine.dispose()

    def _explained(self, error: DBAPIError) -> StoreError:
        cause = str(error.orig)
        if isinstance(error, OperationalError) and "locked" in cause:
            return StoreError(f"{self.name}: another process held it too long; try again")
        return StoreError(f"{self.name}: cannot be used ({cause}); nothing starts until it can")

    def _prepare(self) -> None:
        with self._engine.connect() as connection:
            if sa.inspect(connection).has_table(version.name):
                found = connection.execute(sa.select(sa.func.max(version.c.version))).scalar()
                if found is not None and found > SCHEMA_VERSION:
                    raise StoreError(f"{self.name}: schema {found} is newer; upgrade this project")
                if found == SCHEMA_VERSION:
                    return
        with self.alone() as connection:
            for statement in missing_columns(connection, metadata):
                connection.execute(sa.text(statement))
            metadata.create_all(connection)
            insert_once(connection, version, [{"version": SCHEMA_VERSION}])

    # ---- waiting -----------------------------------------------------------------------------

    def enlist(
        self,
        connection: sa.Connection,
        environment: str,
        request: Request,
        work: Work | None = None,
    ) -> bool:
        """Write a run down as waiting, and what it will do; False when it is known already."""
        row = {
            "run_id": request.id,
            "environment": environment,
            "work_class": request.shape.work_class,
            "shape": _keep(connection, shapes, shape_to_json(request.shape)),
            "work": _keep(connection, works, work_to_json(work)) if work else None,
            "submitted": request.submitted,
            "deadline": request.deadline,
            "launch": request.launch,
            "covers": request.covers,
            "state": "waiting",
            "told": False,
        }
        return insert_once(connection, runs, [row]) == 1

    def waiting(self, connection: sa.Connection, environment: str) -> tuple[Request, ...]:
        """The runs of an environment that wait, in order of submission."""
        return tuple(request for request, _ in self.queue(connection, environment))

    def queue(
        self, connection: sa.Connection, environment: str
    ) -> list[tuple[Request, str | None]]:
        """`waiting`, each run with the key of its work."""
        query = (
            sa.select(runs)
            .where(runs.c.state == "waiting", runs.c.environment == environment)
            .order_by(runs.c.submitted, runs.c.run_id)
        )
        rows = _rows(connection, query)
        known = self._shapes_of(connection, {row["shape"] for row in rows})
        return [(_request(row, known), row["work"]) for row in rows]

    def works(self, environment: str) -> dict[str, Work]:
        """What the waiting runs of an environment will do, by key."""
        query = (
            sa.select(works)
            .join(runs, runs.c.work == works.c.hash)
            .where(runs.c.state == "waiting", runs.c.environment == environment)
            .distinct()
        )
        with self.reading() as connection:
            rows = _rows(connection, query)
        return {row["hash"]: work_from_json(json.loads(row["body"])) for row in rows}

    def waiting_ids(self, environment: str) -> list[str]:
        """The runs that wait, by id."""
        query = sa.select(runs.c.run_id).where(
            runs.c.state == "waiting", runs.c.environment == environment
        )
        with self.reading() as connection:
            return list(connection.execute(query).scalars())

    def admitted(
        self, connection: sa.Connection, environment: str | None = None
    ) -> list[tuple[str, Holding]]:
        """(environment, holding) of everything that holds money."""
        query = sa.select(runs).where(runs.c.state == "admitted").order_by(runs.c.admitted)
        if environment is not None:
            query = query.where(runs.c.environment == environment)
        rows = _rows(connection, query)
        known = self._shapes_of(connection, {row["shape"] for row in rows})
        return [
            (
                row["environment"],
                Holding(
                    _request(row, known), quote_from_json(json.loads(row["quote"])), row["admitted"]
                ),
            )
            for row in rows
        ]

    def _shapes_of(self, connection: sa.Connection, keys: Iterable[str]) -> dict[str, Shape]:
        """Equal shapes come back as one object, for as long as the store is open."""
        missing = [key for key in keys if key not in self._shapes]
        for start in range(0, len(missing), 500):
            query = sa.select(shapes).where(shapes.c.hash.in_(missing[start : start + 500]))
            for row in _rows(connection, query):
                self._shapes[row["hash"]] = shape_from_json(json.loads(row["body"]))
        return self._shapes

    def find(self, run_id: str) -> Row | None:
        """Everything known of one run."""
        with self.reading() as connection:
            row = _one(connection, run_id)
        return None if row is None else _with_hold(row)

    def holding(self, run_id: str) -> Holding | None:
        """What a run that was admitted and is not settled holds."""
        with self.reading() as connection:
            row = _one(connection, run_id)
            if row is None or row["state"] != "admitted":
                return None
            known = self._shapes_of(connection, {row["shape"]})
        quote = quote_from_json(json.loads(row["quote"]))
        return Holding(_request(row, known), quote, row["admitted"])

    def states(self, run_ids: Sequence[str]) -> dict[str, str]:
        """Run -> state, of those that are known."""
        found: dict[str, str] = {}
        with self.reading() as connection:
            for start in range(0, len(run_ids), 500):
                query = sa.select(runs.c.run_id, runs.c.state).where(
                    runs.c.run_id.in_(run_ids[start : start + 500])
                )
                found |= {row["run_id"]: row["state"] for row in _rows(connection, query)}
        return found

    def untold(self, environment: str, limit: int = 1000) -> list[Row]:
        """Runs whose last decision the queue may not know yet, starts first."""
        query = (
            sa.select(runs)
            .where(runs.c.environment == environment, runs.c.told.is_(False))
            .where(runs.c.code.is_not(None), runs.c.state.in_(("waiting", "admitted", "rejected")))
            .order_by(runs.c.state, runs.c.submitted, runs.c.run_id)
            .limit(limit)
        )
        with self.reading() as connection:
            return [_with_hold(row) for row in _rows(connection, query)]

    def told(self, run_id: str, pass_id: int | None) -> None:
        """The queue knows the decision of that pass (and of no later one)."""
        with self.alone() as connection:
            connection.execute(
                sa.update(runs)
                .where(runs.c.run_id == run_id, runs.c.pass_id.is_not_distinct_from(pass_id))
                .values(told=True)
            )

    # ---- one pass ----------------------------------------------------------------------------

    def apply(
        self,
        connection: sa.Connection,
        pass_id: int,
        decisions: Iterable[tuple[Decision, Shape]],
        now: float,
        grace_s: float,
    ) -> None:
        """Write what changed: states, money held with its expiry, reasons, the quotes judged."""
        started, others = [], []
        keys: dict[int, str] = {}
        for decision, shape in decisions:
            if id(shape) not in keys:
                keys[id(shape)] = _keep(connection, shapes, shape_to_json(shape))
            row = {
                "shape": keys[id(shape)],
                "key": decision.id,
                "code": decision.code,
                "reason": decision.reason,
                "earliest": _finite(decision.earliest),
                "latest": _finite(decision.latest),
                "rung": decision.rung,
                "pass_id": pass_id,
                "told": False,
            }
            if decision.starts:
                quote = next(quote for quote in shape.quotes if quote.rung == decision.rung)
                held = {
                    "state": "admitted",
                    "quote": canonical(quote_to_json(quote)),
                    "admitted": now,
                    "expires": now + 2 * quote.wall_s + grace_s,
                }
                started.append(row | held)
            else:
                state = "rejected" if decision.action == "reject" else "waiting"
                others.append(row | {"state": state})
        for rows in (started, others):
            if rows:
                columns = [name for name in rows[0] if name != "key"]
                update = (
                    sa.update(runs)
                    .where(runs.c.run_id == sa.bindparam("key"), runs.c.state == "waiting")
                    .values({name: sa.bindparam(f"new_{name}") for name in columns})
                )
                connection.execute(
                    update,
                    [{k if k == "key" else f"new_{k}": v for k, v in row.items()} for row in rows],
                )

    def last_words(
        self, connection: sa.Connection, environment: str
    ) -> dict[str, tuple[str | None, float | None]]:
        """Run -> code and earliest start last written, of what waits."""
        query = sa.select(runs.c.run_id, runs.c.code, runs.c.earliest).where(
            runs.c.state == "waiting", runs.c.environment == environment
        )
        return {row[0]: (row[1], row[2]) for row in connection.execute(query).tuples()}

    # ---- money -------------------------------------------------------------------------------

    def spent_since(self, connection: sa.Connection, since: float) -> list[Row]:
        """Settled nanos by environment, pipeline, class and moment of admission, since then."""
        key = (spent.c.environment, spent.c.pipeline, spent.c.work_class, spent.c.slot)
        query = (
            sa.select(*key, sa.func.sum(spent.c.nanos).label("nanos"))
            .where(spent.c.slot >= int(since // SLOT_S))
            .group_by(*key)
        )
        return [
            {**row, "nanos": int(row["nanos"]), "admitted": row["slot"] * SLOT_S}
            for row in _rows(connection, query)
        ]

    def last_starts(self, connection: sa.Connection, environment: str) -> dict[str, float]:
        """Class -> when a run of it last started."""
        query = (
            sa.select(runs.c.work_class, sa.func.max(runs.c.admitted).label("at"))
            .where(runs.c.environment == environment, runs.c.admitted.is_not(None))
            .group_by(runs.c.work_class)
        )
        return {row["work_class"]: row["at"] for row in _rows(connection, query)}

    def end(
        self, connection: sa.Connection, run_id: str, costs: Mapping[str, int], now: float
    ) -> bool:
        """Settle an admitted run at what each pipeline cost; False when it holds nothing.

        Called again for a settled run it corrects the amounts (a late charge), and returns False.
        """
        row = _one(connection, run_id)
        if row is None or row["state"] not in ("admitted", "settled"):
            return False
        connection.execute(sa.delete(spent).where(spent.c.run_id == run_id))
        if costs:
            shared = {name: row[name] for name in ("run_id", "environment", "work_class")}
            shared["slot"] = int(row["admitted"] // SLOT_S)
            connection.execute(
                sa.insert(spent),
                [{**shared, "pipeline": p, "nanos": amount} for p, amount in costs.items()],
            )
        update = sa.update(runs).where(runs.c.run_id == run_id, runs.c.state == "admitted")
        return connection.execute(update.values(state="settled", ended=now)).rowcount == 1

    def book(
        self,
        connection: sa.Connection,
        environment: str,
        run_id: str,
        work_class: str,
        costs: Mapping[str, int],
        at: float,
    ) -> None:
        """Count money that nobody held beforehand (overhead, a run that passed no gate)."""
        keys = {"run_id": run_id, "environment": environment, "work_class": work_class}
        connection.execute(sa.delete(spent).where(spent.c.run_id == run_id))
        rows = [
            {**keys, "slot": int(at // SLOT_S), "pipeline": pipeline, "nanos": amount}
            for pipeline, amount in costs.items()
        ]
        if rows:
            connection.execute(sa.insert(spent), rows)

    def withdraw(self, connection: sa.Connection, run_id: str, now: float) -> bool:
        """A waiting run that will not come (cancelled in the queue, or refused in process)."""
        update = sa.update(runs).where(runs.c.run_id == run_id, runs.c.state == "waiting")
        return connection.execute(update.values(state="withdrawn", ended=now)).rowcount == 1

    def holders(self, environment: str) -> list[tuple[str, float, float]]:
        """(run, moment its hold expires, quoted seconds) of what holds money."""
        query = sa.select(runs.c.run_id, runs.c.expires, runs.c.quote).where(
            runs.c.state == "admitted", runs.c.environment == environment
        )
        with self.reading() as connection:
            return [
                (row[0], row[1], json.loads(row[2])["wall_s"])
                for row in connection.execute(query).tuples()
            ]

    def booked(self, run_ids: Sequence[str]) -> dict[str, dict[str, int]]:
        """Run -> pipeline -> settled nanos."""
        found: dict[str, dict[str, int]] = {}
        with self.reading() as connection:
            for start in range(0, len(run_ids), 500):
                chunk = run_ids[start : start + 500]
                query = sa.select(spent).where(spent.c.run_id.in_(chunk))
                for row in _rows(connection, query):
                    found.setdefault(row["run_id"], {})[row["pipeline"]] = row["nanos"]
        return found

    def extend(self, connection: sa.Connection, run_id: str, expires: float) -> None:
        """The holder lives: keep its money until then."""
        update = sa.update(runs).where(runs.c.run_id == run_id, runs.c.state == "admitted")
        connection.execute(update.values(expires=expires))

    def rehold(self, connection: sa.Connection, run_id: str, quote: Quote) -> None:
        """An admitted run holds another sum from now on."""
        update = sa.update(runs).where(runs.c.run_id == run_id, runs.c.state == "admitted")
        connection.execute(update.values(quote=canonical(quote_to_json(quote))))

    # ---- facts -----------------------------------------------------------------

    def fact(self, connection: sa.Connection, environment: str, name: str) -> float:
        """A number that passes read (`items_due`); 0 when nobody stated it."""
        query = sa.select(facts.c.value).where(
            facts.c.environment == environment, facts.c.name == name
        )
        return float(connection.execute(query).scalar() or 0.0)

    def state_fact(
        self, connection: sa.Connection, environment: str, name: str, value: float
    ) -> None:
        """State a number for the passes to come."""
        row = {"environment": environment, "name": name, "value": value}
        if insert_once(connection, facts, [row]) == 0:
            connection.execute(
                sa.update(facts)
                .where(facts.c.environment == environment, facts.c.name == name)
                .values(value=value)
            )


def _rows(connection: sa.Connection, query: sa.Select[Any]) -> list[dict[str, Any]]:
    return [dict(row) for row in connection.execute(query).mappings()]


def _keep(connection: sa.Connection, table: sa.Table, value: Mapping[str, Any]) -> str:
    """The key of a value that is written once, however many runs share it."""
    body = canonical(value)
    key = digest(body)
    insert_once(connection, table, [{"hash": key, "body": body}])
    return key


def _one(connection: sa.Connection, run_id: str) -> Row | None:
    return next(iter(_rows(connection, sa.select(runs).where(runs.c.run_id == run_id))), None)


def _with_hold(row: Row) -> Row:
    """The row with `money` (nanos), `wall_s`, `memory_gib` and dearest `pipeline` of what it holds,
    if any."""
    quote = quote_from_json(json.loads(row["quote"])) if row["quote"] else Quote("", (), 0.0)
    dearest = max(quote.charges, key=lambda charge: charge[1], default=("", 0))
    held = {"money": quote.money, "wall_s": quote.wall_s, "memory_gib": quote.memory_gib}
    return row | held | {"pipeline": dearest[0]}


def _finite(value: float) -> float | None:
    return None if value == float("inf") else value


def _request(row: Row, known: Mapping[str, Shape]) -> Request:
    return Request(
        row["run_id"],
        known[row["shape"]],
        row["submitted"],
        row["deadline"],
        row["launch"],
        row["covers"],
    )
