"""Landing a mapped source: only the months and stores that changed, unless too much did.

Belongs here: from what changed in the files to the stages of a cycle, and remembering it once they
ran. Does not: comparing (`forecast_core.source.changes`), or any other source: those are landed
whole (`batch.Cycle.landing`).
"""

from datetime import timedelta

from forecast_assets.batch import Cycle, Stage, StageResult
from forecast_core.source.changes import Change, SourceChanged, changes
from forecast_core.source.landing import blocks
from resources import Settings
from resources.landed import Landed, Parts, Survey, over, parts, stage_of, survey
from resources.mapped_source import MappedSource
from resources.wiring import lake_of, source_of


class Landing:
    """The landing of one cycle; `done` is told of each stage that ran.

    Raises (by `stages`):
        SourceChanged: unless `accept`ed.
        SourceError: a file that cannot be used as it stands.
    """

    def __init__(self, settings: Settings, accept: bool = False) -> None:
        self._source, self._accept = source_of(settings), accept
        self._settings = settings
        self._survey: Survey | None = None
        self._left: list[Stage] = []
        self.changes: list[Change] = []
        self.partitions: int | None = None  # months of stores landed again; None: all there is

    def stages(self, cycle: Cycle) -> list[Stage]:
        """What has to run; nothing where nothing changed."""
        if not isinstance(self._source, MappedSource):
            return list(cycle.landing())
        self.check()
        self._record = self._landed(self._source)
        before = self._record.read()
        known = cycle.last + timedelta(days=cycle.horizon)
        if before is not None and before.stage == stage_of(self._source) and known <= before.known:
            self.partitions = 0
            return []
        now = survey(self._source, max(known, before.known) if before else known)
        whole = self._source.mapping.delivery == "whole"
        if before is not None:
            self.changes = changes(before.state, now.state, whole)
            if any(change.holds for change in self.changes) and not self._accept:
                raise SourceChanged(self.changes)
        self._survey = now if whole or before is None else over(now, before)
        self._left = self._chosen(cycle, parts(now, before), before is None)
        if not self._left:
            self._record.write(self._survey)
        return list(self._left)

    def check(self) -> None:
        """That what is in the lake is of this very mapping.

        Raises:
            SourceChanged: it is of another one of the same name, and that was not `accept`ed.
        """
        if not isinstance(self._source, MappedSource) or self._accept:
            return
        if (other := self._landed(self._source).another()) is not None:
            raise SourceChanged([other])

    def _landed(self, source: MappedSource) -> Landed:
        return Landed(self._settings.stage, lake_of(self._settings), source.path)

    def _chosen(self, cycle: Cycle, found: Parts, first: bool) -> list[Stage]:
        if first and set(cycle.stores) == set(self._source.stores()):
            return list(cycle.landing())
        self.partitions = found.count
        end = cycle.last + timedelta(days=cycle.horizon)
        within = {s: {m for m in months if m <= end} for s, months in found.prices.items()}
        return list(
            cycle.landing_again(
                found.calendar, blocks(within, cycle.stores), blocks(found.sales, cycle.stores)
            )
        )

    def done(self, result: StageResult) -> None:
        """Remember what was landed, once all of it is."""
        if result.stage in self._left:
            self._left.remove(result.stage)
            if not self._left and self._survey is not None:
                self._record.write(self._survey)
