"""The one error of a source that cannot be read: it names file, row, problem and remedy.

Belongs here: the error. Does not: rows that can be read but break a rule; those go to
quarantine (`forecast_core.source.clean`) and never stop a load.
"""

from __future__ import annotations


class SourceError(ValueError):
    """A file cannot be used as it stands.

    `row` is the line in the file, or None where no single line is to blame.
    """

    def __init__(self, file: str, row: int | None, problem: str, remedy: str) -> None:
        self.file, self.row, self.problem, self.remedy = file, row, problem, remedy
        where = file if row is None else f"{file}, row {row}"
        super().__init__(f"{where}: {problem}. {remedy}.")

    def __reduce__(self) -> tuple[type[SourceError], tuple[str, int | None, str, str]]:
        # The default would rebuild it from the message alone, and fail in another process.
        return type(self), (self.file, self.row, self.problem, self.remedy)
