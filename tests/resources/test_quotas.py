"""A step that passes a limit is stopped with a word, its neighbours and its process live on."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import textwrap
import threading
import time
from decimal import Decimal
from pathlib import Path

import dagster as dg
import pytest

from resources.family import GIB, Family, resident_gib
from resources.quotas import Cgroup, Limits, QuotaExceeded, guarded

ROOT = Path(__file__).parents[2]


def leak(most_gib: float = 1.0) -> int:
    held = []
    while sum(map(len, held)) < most_gib * GIB:
        held.append(bytearray(os.urandom(1 << 20)) * 8)
        time.sleep(0.005)
    return len(held)


def limits(**kwargs: object) -> Limits:
    return Limits(interval_s=0.05, **kwargs)  # type: ignore[arg-type]


def test_a_leak_is_stopped_and_every_limit_is_lifted() -> None:
    before = resource.getrlimit(resource.RLIMIT_DATA)
    quota = limits(memory_gib=resident_gib() + 0.1)
    with pytest.raises(QuotaExceeded, match="its quota is") as stopped, guarded(quota, "leaky"):
        leak()
    assert stopped.value.quota == "memory" and "leaky" in str(stopped.value)
    assert resource.getrlimit(resource.RLIMIT_DATA) == before
    assert len(bytearray(200 << 20)) == 200 << 20, "the process can use memory again"


def test_a_soft_limit_stops_one_large_allocation() -> None:
    with pytest.raises(QuotaExceeded) as stopped, guarded(limits(memory_gib=0.2), "greedy"):
        bytearray(2 * GIB)
    assert isinstance(stopped.value.__cause__, MemoryError)


def test_a_neighbour_thread_is_spared() -> None:
    ticks: list[float] = []
    done = threading.Event()

    def neighbour() -> None:
        while not done.is_set():
            ticks.append(time.monotonic())
            time.sleep(0.01)

    thread = threading.Thread(target=neighbour)
    thread.start()
    with pytest.raises(QuotaExceeded), guarded(limits(memory_gib=resident_gib() + 0.05)):
        leak()
    seen = len(ticks)
    time.sleep(0.1)
    done.set()
    thread.join()
    assert len(ticks) > seen


def test_money_ends_in_flight() -> None:
    started = time.monotonic()

    def spent() -> Decimal:
        return Decimal(str(time.monotonic() - started))

    quota = limits(money=Decimal("0.2"), spent=spent)
    with pytest.raises(QuotaExceeded, match="hold") as stopped, guarded(quota, "dear"):
        while True:
            time.sleep(0.01)
    assert stopped.value.quota == "money"


def test_threads_are_pinned_and_freed() -> None:
    before = os.sched_getaffinity(0)
    with guarded(limits(threads=1)):
        assert len(os.sched_getaffinity(0)) == 1
    assert os.sched_getaffinity(0) == before


def test_what_stays_within_its_limits_is_left_alone() -> None:
    with guarded(limits(memory_gib=64, money=Decimal(1), spent=lambda: Decimal(0))):
        result = sum(range(1000))
    assert result == 499_500
    with pytest.raises(KeyError), guarded(limits(memory_gib=64)):
        raise KeyError("its own error stays its own")


# More than the tests before may give back meanwhile.
HOG = "import time; held = bytearray(1 << 30); held[::4096] = b'x' * len(held[::4096])"


def test_a_child_that_hoards_memory_is_the_steps_and_ends_with_it() -> None:
    bystander = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    quota, family = limits(memory_gib=resident_gib() + 0.15), Family()
    begun = time.monotonic()
    try:
        with pytest.raises(QuotaExceeded, match="its quota is"), guarded(quota, "parent"):
            subprocess.run([sys.executable, "-c", f"{HOG}; time.sleep(60)"], check=False)
        assert time.monotonic() - begun < 30, "it did not wait for the child's own end"
        assert bystander.poll() is None, "what ran before the step is nobody's business"
        assert family.children() == [], "the hoarder is gone"
    finally:
        bystander.kill()
        bystander.wait()


def test_an_interrupt_never_reaches_the_next_step() -> None:
    for _ in range(20):
        quota = Limits(memory_gib=resident_gib() / 2, interval_s=0.001)
        with pytest.raises(QuotaExceeded), guarded(quota):
            while True:
                time.sleep(0.002)
        time.sleep(0.005)


def run_child(body: str) -> subprocess.CompletedProcess[str]:
    code = "from resources.quotas import *\nimport os, sys, time\n" + textwrap.dedent(body)
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=60
    )


def test_a_step_that_does_not_yield_ends_its_process_with_a_word() -> None:
    child = run_child("""
        with guarded(Limits(memory_gib=0.001, interval_s=0.05, grace_s=0.3), "deaf"):
            try:
                time.sleep(5)
            except BaseException:
                time.sleep(30)
    """)
    assert child.returncode == 70
    assert "deaf" in child.stderr and "did not yield" in child.stderr


def test_a_step_ends_with_its_worker() -> None:
    child = run_child("""
        from pathlib import Path
        if os.fork() == 0:
            if os.fork() == 0:
                with guarded(Limits(interval_s=0.05, end_with_parent=True), "orphan"):
                    print(os.getpid(), flush=True)
                    time.sleep(60)
            time.sleep(0.5)
            os._exit(0)
        os.wait()
    """)
    pid = int(child.stdout)
    for _ in range(100):
        if not Path(f"/proc/{pid}").exists():
            break
        time.sleep(0.1)
    assert not Path(f"/proc/{pid}").exists()


def test_a_stopped_step_leaves_a_failure_event_that_says_why() -> None:
    @dg.asset
    def leaky() -> None:
        with guarded(limits(memory_gib=resident_gib() + 0.05), "leaky"):
            leak()

    @dg.asset
    def neighbour() -> None: ...

    result = dg.materialize([leaky, neighbour], raise_on_error=False)
    assert not result.success
    failure = result.failure_data_for_node("leaky")
    assert failure and failure.error and "its quota is" in failure.error.to_string()
    assert [e.asset_key for e in result.get_asset_materialization_events()] == [
        dg.AssetKey("neighbour")
    ]


def test_a_cgroup_is_used_only_where_it_is_writable(tmp_path: Path) -> None:
    assert Cgroup.make("forecast-test", 1.0, tmp_path / "nowhere") is None
    (tmp_path / "cgroup.subtree_control").write_text("cpu memory")
    group = Cgroup.make("forecast-test", 1.0, tmp_path)
    assert group and (group.path / "memory.max").read_text() == str(GIB)
