"""Dashboard readers without a browser: each speaks Streamlit's own protocol over its websocket.

Twenty real browsers would spend the two cores on drawing. What is measured here is what a server
gives a reader: from asking for a page to the last of its elements.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

PAGES = ("", "costs", "forecasts", "accuracy", "incidents", "capacity", "storage")
THINK_S = (2.0, 4.0)


@dataclass
class Seen:
    """What the readers met: seconds of each page, and every fault that a page showed."""

    seconds: list[float] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    bytes: int = 0


def read_for(port: int, readers: int, seconds: float, pages: Sequence[str] = PAGES) -> Seen:
    """So many readers open pages in turn for a while, with 2 to 4 s of reading in between."""
    seen = Seen()
    asyncio.run(_all(port, readers, time.monotonic() + seconds, pages, seen))
    return seen


async def _all(port: int, readers: int, until: float, pages: Sequence[str], seen: Seen) -> None:
    await asyncio.gather(*(_reader(port, n, until, pages, seen) for n in range(readers)))


async def _reader(port: int, number: int, until: float, pages: Sequence[str], seen: Seen) -> None:
    import websockets
    from streamlit.proto.BackMsg_pb2 import BackMsg

    chance = random.Random(number)
    await asyncio.sleep(chance.uniform(0, THINK_S[1]))  # nobody comes at the same moment
    url = f"ws://127.0.0.1:{port}/_stcore/stream"
    visit = number
    async with websockets.connect(
        url, subprotocols=[websockets.Subprotocol("streamlit")], max_size=None
    ) as socket:
        while time.monotonic() < until:
            asked = BackMsg()
            asked.rerun_script.query_string = ""
            asked.rerun_script.page_name = pages[visit % len(pages)]
            began = time.monotonic()
            await socket.send(asked.SerializeToString())
            await _drawn(socket, seen, pages[visit % len(pages)])
            seen.seconds.append(time.monotonic() - began)
            visit += 1
            await asyncio.sleep(chance.uniform(*THINK_S))


async def _drawn(socket: object, seen: Seen, page: str) -> None:
    from streamlit.proto.ForwardMsg_pb2 import ForwardMsg

    async for message in socket:  # type: ignore[attr-defined]
        seen.bytes += len(message)
        told = ForwardMsg()
        told.ParseFromString(message)
        kind = told.WhichOneof("type")
        if kind == "delta" and told.delta.HasField("new_element"):
            element = told.delta.new_element
            if element.HasField("exception"):
                seen.faults.append(f"{page}: {element.exception.message}")
            elif element.HasField("alert") and element.alert.format == element.alert.ERROR:
                seen.faults.append(f"{page}: {element.alert.body}")
        elif kind == "script_finished" and told.script_finished == ForwardMsg.FINISHED_SUCCESSFULLY:
            return
