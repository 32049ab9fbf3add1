"""Answers for many readers: computed once a change, by one of them, never kept when wrong."""

import threading

import pytest

from dashboard.kept import Kept


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_an_answer_is_computed_again_only_after_a_change() -> None:
    clock, calls, stamp = Clock(), [], [1]
    kept = Kept(look_every_s=2.0, clock=clock)

    def ask() -> int:
        return kept.get("a", lambda: stamp[0], lambda: calls.append(1) or len(calls))

    assert [ask(), ask()] == [1, 1]
    clock.now = 3.0
    assert ask() == 1  # looked again, nothing had changed
    stamp[0] = 2
    assert ask() == 1  # nobody looks more often than every two seconds
    clock.now = 6.0
    assert ask() == 2 and len(calls) == 2


def test_an_error_is_raised_and_never_kept() -> None:
    kept, answers = Kept(look_every_s=0.0), iter([ValueError("first"), 7])

    def compute() -> int:
        found = next(answers)
        if isinstance(found, Exception):
            raise found
        return found

    with pytest.raises(ValueError, match="first"):
        kept.get("a", lambda: 1, compute)
    assert kept.get("a", lambda: 1, compute) == 7


def test_readers_are_given_the_answer_of_before_while_one_computes() -> None:
    kept, stamp = Kept(look_every_s=0.0), [1]
    assert kept.get("a", lambda: stamp[0], lambda: "old") == "old"
    stamp[0] = 2
    begun, go = threading.Event(), threading.Event()

    def slow() -> str:
        begun.set()
        assert go.wait(10)
        return "new"

    found: list[str] = []
    worker = threading.Thread(target=lambda: found.append(kept.get("a", lambda: stamp[0], slow)))
    worker.start()
    assert begun.wait(10)
    assert kept.get("a", lambda: stamp[0], lambda: "twice") == "old"
    go.set()
    worker.join()
    assert found == ["new"]
    assert kept.get("a", lambda: stamp[0], lambda: "again") == "new"


def test_twenty_readers_of_a_new_answer_compute_it_once() -> None:
    kept, calls, start = Kept(), [], threading.Barrier(20)
    found: list[int] = []

    def ask() -> None:
        start.wait()
        found.append(kept.get("a", lambda: 1, lambda: calls.append(1) or 42))

    readers = [threading.Thread(target=ask) for _ in range(20)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    assert found == [42] * 20 and len(calls) == 1


def test_the_answers_longest_unused_go_first() -> None:
    kept = Kept(most=2)
    for key in ("a", "b", "a", "c"):
        kept.get(key, lambda: 1, lambda: 0)
    assert list(kept._entries) == ["a", "c"]
