"""A backfill over two real Ray nodes, Postgres and S3's API survives the death of one of them."""

import pytest


@pytest.mark.slow
def test_a_node_dies_and_no_row_and_no_charge_is_lost_or_doubled() -> None:
    pytest.importorskip("dagster_ray", reason="the extra `ray` is not installed")
    pytest.importorskip("dagster_postgres", reason="the extra `postgres` is not installed")
    from benchmarks._postgres_server import NoPostgres
    from benchmarks.scale_out import run

    try:
        seen = run(quick=True)
    except NoPostgres as missing:
        pytest.skip(str(missing))
    assert seen["rows_equal"] is True and int(seen["rows"]) > 100_000
    assert seen["killed_node"] and seen["killed_attempts"] >= 1, "a step was under way there"
    assert seen["nodes_used"] == 2
    assert seen["charges"] == seen["attempts"] > seen["steps"], "the lost attempt and its retry"
    assert (seen["missing"], seen["duplicates"], seen["invented"]) == (0, 0, 0)
    assert seen["killed_charged"] == seen["killed_attempts"], "by an estimate"
    assert seen["money_difference"] == 0
