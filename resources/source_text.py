"""Text files as batches of whole lines, in bounded memory, with nothing lost on the way.

Belongs here: opening (plain, gz, zip), decoding, cutting into chunks at line ends, and telling
lines that have the header's number of cells from those that do not. Does not: what a cell means
(`forecast_core.source.rows`), or formats with a schema of their own (`resources.source_files`).

A line that cannot be laid out in columns is handed on beside the batch, with its number and its
text. A file that cannot be read at all (cut in the middle, another encoding, no text) is a
`SourceError` that names the line.
"""

from __future__ import annotations

import codecs
import gzip
import io
import lzma
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Protocol

import numpy as np
import polars as pl

from forecast_core.source.error import SourceError
from forecast_core.source.mapping import Csv

CHUNK = 8 << 20
LINE = "\x00line"  # the column of line numbers: no file's own name
_NEWLINE, _QUOTE = 10, 34
_WHOLE = "Fetch or copy it again, whole"
_LONGEST = 64 << 20  # a line beyond that is no line
_NO_COLUMNS = (pl.exceptions.ComputeError, pl.exceptions.SchemaError)  # as polars says it


class Readable(Protocol):
    """What bytes can be read from."""

    def read(self, size: int = -1, /) -> bytes:
        """At most `size` bytes; none at the end."""


@dataclass(frozen=True)
class Batch:
    """Lines of one file: `rows` with the file's columns and `LINE`, and those unfit for columns.

    `unfit` has LINE, text (String) and defect (String). `typed`: numbers are numbers already.
    """

    file: str
    rows: pl.DataFrame
    unfit: pl.DataFrame
    typed: bool = False

    @property
    def lines(self) -> int:
        """How many rows of the source it stands for."""
        return self.rows.height + self.unfit.height


UNFIT = {LINE: pl.Int64, "text": pl.String, "defect": pl.String}


def text_header(path: Path, csv: Csv) -> list[str]:
    """The columns of a text file.

    Raises:
        SourceError: it cannot be read, is empty, or names a column twice.
    """
    for name, stream in members(path):
        with _reading(name):
            first = next(_chunks(name, stream, csv, 1 << 16), None)
        if first is not None:
            return _header(name, first[0], csv)[0]
    raise SourceError(str(path), None, "it is empty", _WHOLE)


def text_batches(
    path: Path, csv: Csv, numeric: Sequence[str] = (), chunk: int = CHUNK
) -> Iterator[Batch]:
    """Every line of a text file; `numeric` columns as Float64 where a whole chunk allows it.

    Raises:
        SourceError: see the module.
    """
    for name, stream in members(path):
        with _reading(name):
            yield from _batches(name, stream, csv, numeric, chunk)


def _batches(
    name: str, stream: IO[bytes], csv: Csv, numeric: Sequence[str], chunk: int
) -> Iterator[Batch]:
    header: list[str] = []
    again = b""
    line = 1
    for piece, last in _flagged(_chunks(name, stream, csv, chunk)):
        if not header:
            header, start, end = _header(name, piece, csv)
            line += piece.count(b"\n", 0, end)
            again, piece = piece[start:end], piece[end:]
        if piece:
            batch, taken = _parse(name, piece, line, header, again, csv, numeric, last)
            line += taken
            yield batch
    if not header:
        raise SourceError(name, None, "it is empty", _WHOLE)


def _flagged(chunks: Iterator[tuple[bytes]]) -> Iterator[tuple[bytes, bool]]:
    held: bytes | None = None
    for (piece,) in chunks:
        if held is not None:
            yield held, False
        held = piece
    if held is not None:
        yield held, True


def members(path: Path) -> Iterator[tuple[str, IO[bytes]]]:
    """(name, byte stream) of a file, of what a gz holds, or of each member of a zip."""
    with _reading(str(path)):
        magic = path.open("rb").read(4)
    if magic[:2] == b"\x1f\x8b":
        with gzip.open(path) as stream:
            yield str(path), stream  # type: ignore[misc]  # a byte stream, in other words
    elif magic == b"PK\x03\x04":
        yield from _zipped(path)
    elif path.suffix == ".gz" and magic:
        raise SourceError(str(path), None, "it is no gzip file, despite its name", _WHOLE)
    elif magic in (b"\xd0\xcf\x11\xe0", b"PAR1"):
        kind = "a Parquet file" if magic == b"PAR1" else "an Excel workbook"
        raise SourceError(
            str(path), None, f"it is {kind}, not text", "Set `format`, or save it as CSV"
        )
    else:
        with path.open("rb") as plain:
            yield str(path), plain


def _zipped(path: Path) -> Iterator[tuple[str, IO[bytes]]]:
    with _reading(str(path)), zipfile.ZipFile(path) as archive:
        names = [info for info in archive.infolist() if not info.is_dir()]
        if any(info.filename == "[Content_Types].xml" for info in names):
            raise SourceError(
                str(path), None, "it is an Excel workbook", "Save its sheet as CSV and map that"
            )
        if not names:
            raise SourceError(str(path), None, "the archive is empty", _WHOLE)
        for info in names:
            if info.flag_bits & 1:
                raise SourceError(
                    f"{path}:{info.filename}", None, "it is encrypted", "Unpack it beforehand"
                )
            with archive.open(info) as stream:
                yield f"{path}:{info.filename}", stream


@contextmanager
def _reading(name: str) -> Iterator[None]:
    """What a reader raises, as an error that names the file."""
    try:
        yield
    except FileNotFoundError:
        raise SourceError(name, None, "there is no such file", "Correct `files`") from None
    except IsADirectoryError:
        raise SourceError(
            name, None, "it is a folder", "Name its files, as in folder/*.csv"
        ) from None
    except PermissionError:
        raise SourceError(name, None, "it may not be read", "Give yourself the right to") from None
    except (EOFError, zlib.error, gzip.BadGzipFile, zipfile.BadZipFile, lzma.LZMAError) as error:
        raise SourceError(
            name, None, f"the compressed data is cut off or damaged ({error})", _WHOLE
        ) from None
    except (OSError, NotImplementedError) as error:
        raise SourceError(name, None, f"it cannot be read ({error})", _WHOLE) from error


def _chunks(name: str, stream: Readable, csv: Csv, size: int) -> Iterator[tuple[bytes]]:
    """UTF-8 text with `\\n` line ends, cut after whole records."""
    source = _utf8(name, stream, csv)
    held = b""
    line = 1
    while True:
        try:
            piece = source.read(size)
        except (EOFError, zlib.error, gzip.BadGzipFile, zipfile.BadZipFile) as error:
            raise SourceError(
                name,
                line + held.count(b"\n"),
                f"the compressed data is cut off or damaged after this line ({error})",
                _WHOLE,
            ) from None
        if not piece:
            break
        if piece[-1:] == b"\r":
            piece += source.read(1)  # CR LF must not be torn apart
        if b"\r" in piece:
            piece = piece.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        zero = piece.find(b"\0")
        if zero >= 0:
            at = line + held.count(b"\n") + piece.count(b"\n", 0, zero)
            raise SourceError(
                name,
                at,
                "it holds a zero byte: this is no text",
                "Set csv.encoding, or export it as CSV",
            )
        held += piece
        cut = _last_record_end(held)
        if cut:
            yield (held[:cut],)
            line += held.count(b"\n", 0, cut)
            held = held[cut:]
        if len(held) > _LONGEST:
            raise SourceError(
                name, line, "a quote opened here is not closed", 'Close it, or double it: ""'
            )
    if held:
        if held.count(b'"') % 2:
            opened = line + held.count(b"\n", 0, held.rfind(b'"'))
            raise SourceError(
                name,
                line if held.count(b'"') == 1 else opened,
                "a quote opened here is not closed",
                'Close it, or double it: ""',
            )
        yield (held if held.endswith(b"\n") else held + b"\n",)


def _last_record_end(held: bytes) -> int:
    """Behind the last line end that lies outside quotes; 0 if there is none."""
    if b'"' not in held:
        return held.rfind(b"\n") + 1
    data = np.frombuffer(held, dtype=np.uint8)
    ends = np.flatnonzero((data == _NEWLINE) & ~_quoted(data))
    return int(ends[-1]) + 1 if len(ends) else 0


def _quoted(data: np.ndarray) -> np.ndarray:
    """Whether each byte lies within quotes; a doubled quote leaves and enters again."""
    return (np.cumsum(data == _QUOTE, dtype=np.uint8) & 1).astype(np.bool_)


def _utf8(name: str, stream: Readable, csv: Csv) -> Readable:
    """The stream as UTF-8 without a byte-order mark, whatever it came in."""
    start = stream.read(4)
    rest: Readable = _Chained(start, stream)
    if start[:3] == codecs.BOM_UTF8:
        rest = _Chained(start[3:], stream)
    try:
        named = codecs.lookup(csv.encoding).name
    except LookupError:
        raise SourceError(
            name, None, f"csv.encoding {csv.encoding!r} is unknown", "Use utf-8, cp1252, utf-16"
        ) from None
    if start[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        named = "utf-16"
    if named in ("utf-8", "ascii"):
        return rest
    return _Recoded(name, rest, named)


class _Chained:
    """Bytes already read, then the rest."""

    def __init__(self, start: bytes, stream: Readable) -> None:
        self._start, self._stream = start, stream

    def read(self, size: int = -1, /) -> bytes:
        start, self._start = self._start, b""
        return start + self._stream.read(max(size - len(start), 0))


class _Recoded:
    """Another encoding, read as UTF-8."""

    def __init__(self, name: str, stream: Readable, encoding: str) -> None:
        self._name, self._stream = name, stream
        self._decoder = codecs.getincrementaldecoder(encoding)()
        self._line = 1

    def read(self, size: int = -1, /) -> bytes:
        while True:
            raw = self._stream.read(size)
            try:
                text = self._decoder.decode(raw, final=not raw)
            except UnicodeDecodeError as error:
                at = self._line + raw.count(b"\n", 0, error.start)
                raise SourceError(
                    self._name, at, f"it is not {error.encoding}", "Set csv.encoding to its own"
                ) from None
            self._line += text.count("\n")
            if text or not raw:
                return text.encode()


def _header(name: str, piece: bytes, csv: Csv) -> tuple[list[str], int, int]:
    """(columns, where the header starts, where it ends); blank lines before it are passed over."""
    import csv as reader

    start = 0
    for _ in range(csv.skip):
        start = piece.find(b"\n", start) + 1 or len(piece)
    while piece[start : start + 1] == b"\n":
        start += 1
    if csv.skip and start >= len(piece):
        raise SourceError(
            name, None, f"it ends within the {csv.skip} lines skipped", "Correct csv.skip"
        )
    end = start + _first_record(piece[start:])
    text = _decoded(name, piece[start:end], 1 + piece.count(b"\n", 0, start))
    rows = reader.reader(io.StringIO(text, newline=""), delimiter=csv.separator)
    found = [cell.strip() for cell in next(rows, [])]
    twice = [cell for at, cell in enumerate(found) if cell in found[:at] and cell]
    if twice:
        raise SourceError(
            name,
            1 + piece.count(b"\n", 0, start),
            f"column {twice[0]!r} is named twice",
            "Give every column its own name",
        )
    named = [cell or f"column {at}" for at, cell in enumerate(found, start=1)]
    return named, start, end


def _first_record(piece: bytes) -> int:
    data = np.frombuffer(piece, dtype=np.uint8)
    ends = np.flatnonzero((data == _NEWLINE) & ~_quoted(data))
    return int(ends[0]) + 1 if len(ends) else len(piece)


def _decoded(name: str, piece: bytes, line: int) -> str:
    try:
        return piece.decode()
    except UnicodeDecodeError as error:
        raise SourceError(
            name,
            line + piece.count(b"\n", 0, error.start),
            f"byte {piece[error.start]:#04x} is not utf-8",
            "Set csv.encoding to the file's own, such as cp1252",
        ) from None


def _parse(
    name: str,
    piece: bytes,
    line: int,
    header: list[str],
    again: bytes,
    csv: Csv,
    numeric: Sequence[str],
    last: bool,
) -> tuple[Batch, int]:
    """A chunk of whole records as a batch, and how many lines it took."""
    taken = piece.count(b"\n")
    numbers, unfit, piece = _laid_out(name, piece, line, len(header), again, csv, last)
    rows, typed = _columns(name, piece, line, header, csv, numeric)
    if rows.height != len(numbers):  # a quote in the middle of a cell, where readers disagree
        return _by_record(name, piece, numbers, unfit, header, csv), taken
    rows = rows.with_columns(pl.Series(LINE, numbers, dtype=pl.Int64))
    return Batch(name, rows, pl.DataFrame(unfit, schema=UNFIT, orient="row"), typed), taken


def _by_record(
    name: str,
    piece: bytes,
    numbers: np.ndarray,
    unfit: list[tuple[int, str, str]],
    header: list[str],
    csv: Csv,
) -> Batch:
    """Each record read by itself: slow, and safe where quotes are odd."""
    import csv as reader

    data = np.frombuffer(piece, dtype=np.uint8)
    ends = np.flatnonzero((data == _NEWLINE) & ~_quoted(data))
    starts = np.concatenate([[0], ends[:-1] + 1])
    good: list[tuple[int, list[str | None]]] = []
    for number, start, end in zip(numbers, starts, ends, strict=True):
        text = _decoded(name, piece[start:end], int(number))
        rows = reader.reader(io.StringIO(text, newline=""), delimiter=csv.separator)
        cells = next(rows, [])
        if len(cells) == len(header) and next(rows, None) is None:
            good.append((int(number), [None if c in csv.nameless else c for c in cells]))
        else:
            unfit.append((int(number), text, "unreadable_line: a quote stands amid a cell"))
    frame = pl.DataFrame(
        [cells for _, cells in good], schema=dict.fromkeys(header, pl.String), orient="row"
    ).with_columns(pl.Series(LINE, [number for number, _ in good], dtype=pl.Int64))
    return Batch(name, frame, pl.DataFrame(unfit, schema=UNFIT, orient="row"))


def _laid_out(
    name: str, piece: bytes, line: int, width: int, again: bytes, csv: Csv, last: bool
) -> tuple[np.ndarray, list[tuple[int, str, str]], bytes]:
    """(line of each record, unfit records, the text of the fit ones)."""
    separator = csv.separator.encode()
    plain = b'"' not in piece
    sound = plain and b"\n\n" not in piece and not piece.startswith(b"\n")
    if sound and again not in piece:
        records = piece.count(b"\n")
        if piece.count(separator) == records * (width - 1) and _even(piece, separator, width):
            return np.arange(line, line + records), [], piece
    data = np.frombuffer(piece, dtype=np.uint8)
    quoted = np.zeros(len(data), np.bool_) if plain else _quoted(data)
    newline = data == _NEWLINE
    ends = np.flatnonzero(newline & ~quoted)
    starts = np.concatenate([[0], ends[:-1] + 1])
    commas = np.flatnonzero((data == separator[0]) & ~quoted)
    cells = np.searchsorted(commas, ends) - np.searchsorted(commas, starts) + 1
    before = np.flatnonzero(newline)
    numbers = line + np.searchsorted(before, starts)
    blank = ends == starts
    bad = (cells != width) & ~blank
    unfit, dropped = [], blank | bad
    for at in np.flatnonzero(bad):
        text = _decoded(name, piece[starts[at] : ends[at]], int(numbers[at]))
        what = f"{cells[at]} cells where the header has {width}"
        if last and at == len(ends) - 1 and cells[at] < width:
            what += ": the file is cut off here"
        unfit.append((int(numbers[at]), text, f"unreadable_line: {what}"))
    head = again.strip(b"\n")
    if head in piece:
        for at in np.flatnonzero(~dropped):
            if piece[starts[at] : ends[at]].strip() == head.strip():
                dropped[at] = True
                unfit.append((int(numbers[at]), head.decode(), "repeated_header: the header again"))
    if dropped.any():
        keep = [piece[starts[at] : ends[at] + 1] for at in np.flatnonzero(~dropped)]
        piece, numbers = b"".join(keep), numbers[~dropped]
    return numbers, unfit, piece


def _even(piece: bytes, separator: bytes, width: int) -> bool:
    """Whether every line has the same number of cells, where their sum is already right."""
    if width == 1:
        return True
    data = np.frombuffer(piece, dtype=np.uint8)
    ends = np.flatnonzero(data == _NEWLINE)
    commas = np.flatnonzero(data == separator[0])
    held: bool = bool(
        (np.searchsorted(commas, ends) == (width - 1) * np.arange(1, len(ends) + 1)).all()
    )
    return held


def _columns(
    name: str, piece: bytes, line: int, header: list[str], csv: Csv, numeric: Sequence[str]
) -> tuple[pl.DataFrame, bool]:
    """The records in columns; numbers as such unless one of them is none."""
    text = dict.fromkeys(header, pl.String)
    wanted = [column for column in numeric if column in text]
    if not piece:
        return pl.DataFrame(schema=text), False
    attempts: list[type[pl.DataType]] = []
    if wanted and not csv.thousands:
        attempts = [pl.Int32, pl.Float64] if csv.decimal == "." else [pl.Float64]
    for dtype in attempts:
        try:
            return _read(piece, {**text, **dict.fromkeys(wanted, dtype)}, csv), True
        except _NO_COLUMNS:
            continue
    try:
        return _read(piece, text, csv), False
    except _NO_COLUMNS:
        _decoded(name, piece, line)  # names the line where it is the encoding
        return pl.DataFrame(schema=text), False


def _read(piece: bytes, schema: Mapping[str, type[pl.DataType]], csv: Csv) -> pl.DataFrame:
    """The reader knows one list of words for missing values: text that they emptied is read again,
    since in a name they are none."""
    read = partial(
        pl.read_csv,
        piece,
        has_header=False,
        schema=schema,
        separator=csv.separator,
        decimal_comma=csv.decimal == ",",
        glob=False,
    )
    if all(dtype == pl.String for dtype in schema.values()):
        return read(null_values=list(csv.nameless))
    rows = read(null_values=list(csv.missing))
    words = [name for name, dtype in schema.items() if dtype == pl.String]
    emptied = [name for name in words if rows[name].null_count()]
    if csv.missing == csv.nameless or not emptied:
        return rows
    at = [list(schema).index(name) for name in emptied]
    return rows.with_columns(read(null_values=list(csv.nameless), columns=at))
