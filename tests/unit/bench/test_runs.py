"""One run and many: what is measured, in which order, and what a contestant must not do."""

from __future__ import annotations

import math

import attrs
import msgspec
import pytest

from wippy_queue.bench import contestant
from wippy_queue.bench.measure import Run, measure, quantile
from wippy_queue.bench.runner import Plan, run_in_child, runs_of
from wippy_queue.bench.workloads import WORKLOADS
from wippy_queue.errors import Internal, Invalid, WippyQueueError

PLAIN = "tests.unit.bench.plain"
RUN = Run(
    engine=f"{PLAIN}:make",
    workload="noop",
    driver="memory",
    concurrency=2,
    prefetch=10,
    messages=40,
    loops=100,
    rate=2000.0,
    latencies=20,
)


IN_MEMORY = [name for name, drivers in contestant.BUILT_IN.items() if "memory" in drivers]


@pytest.mark.parametrize("workload", WORKLOADS)
@pytest.mark.parametrize(
    ("engine", "driver"), [(contestant.OURS, "memory"), *((name, "memory") for name in IN_MEMORY), ("client", "sqlite")]
)
def test_every_contestant_runs_every_workload(engine: str, driver: str, workload: str) -> None:
    measures = measure(attrs.evolve(RUN, engine=engine, driver=driver, workload=workload))
    numbers = attrs.asdict(measures)
    latencies = numbers.pop("quantiles")
    assert all(math.isfinite(number) and number > 0 for number in numbers.values())
    assert list(latencies) == sorted(latencies)


def test_this_engine_runs_on_a_driver_with_a_file() -> None:
    assert measure(attrs.evolve(RUN, engine=contestant.OURS, driver="sqlite")).rate > 0


@pytest.mark.parametrize("engine", IN_MEMORY)
def test_what_runs_in_memory_alone_says_so_and_names_what_runs_there(engine: str) -> None:
    with pytest.raises(Invalid, match=f"'{engine}' runs on --driver memory, not on sqlite: expected one of client,"):
        measure(attrs.evolve(RUN, engine=engine, driver="sqlite"))


def test_there_is_no_client_library_of_a_queue_in_memory() -> None:
    with pytest.raises(Invalid, match="runs on --driver sqlite, amqp, redis, sqs, not on memory: .* baseline"):
        measure(attrs.evolve(RUN, engine="client"))


@pytest.mark.parametrize(("workload", "size"), [("noop", 200), ("json", 850)])
def test_bodies_have_the_size_that_the_documentation_says(workload: str, size: int) -> None:
    assert len(msgspec.json.encode(WORKLOADS[workload].body(12_345))) == pytest.approx(size, rel=0.05)


def test_the_latency_is_taken_at_a_rate_that_one_core_and_all_workers_can_keep() -> None:
    assert WORKLOADS["noop"].rate(500, 1) == 500
    assert WORKLOADS["cpu"].rate(5000, 8) == 500
    assert WORKLOADS["sleep"].rate(500, 1) == 50


def test_a_publisher_that_is_late_counts_its_latency_from_when_it_was_due(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.monotonic_ns", lambda: 1_000_000_000)
    assert contestant.mark(1_000_000_000 - 100_000) == 1_000_000_000
    assert contestant.mark(1_000_000_000 - 50_000_000) == 1_000_000_000 - 50_000_000


def test_quantiles_are_values_that_were_measured() -> None:
    values = [float(n) for n in range(1, 101)]
    assert [quantile(values, q) for q in (0.0, 0.5, 0.99, 0.999, 1.0)] == [1.0, 50.0, 99.0, 100.0, 100.0]
    assert quantile([], 0.5) == 0.0


def test_anybodys_engine_is_measured_in_a_process_of_its_own() -> None:
    measures = run_in_child(RUN)
    assert measures.rate > 0
    assert len(measures.quantiles) > 100


def test_a_handler_that_never_tells_that_it_has_started_is_found_out() -> None:
    with pytest.raises(Internal, match=r"never called started\(\)"):
        measure(attrs.evolve(RUN, engine=f"{PLAIN}:silent"))


def test_an_error_of_a_contestant_is_told_in_one_line() -> None:
    with pytest.raises(Internal, match=r"broken failed at noop: no broker answers") as caught:
        run_in_child(attrs.evolve(RUN, engine=f"{PLAIN}:broken"))
    assert "Traceback" not in str(caught.value)


@pytest.mark.parametrize("name", ["nosuch", "no.such:thing", "math:nosuch", "math:pi"])
def test_a_contestant_that_does_not_exist_is_invalid(name: str) -> None:
    with pytest.raises(WippyQueueError, match=name):
        contestant.find(name, "memory")


def test_contestants_take_turns() -> None:
    plan = Plan(workloads=["noop"], against=["asyncio", "baseline"], rounds=3, concurrency=[1, 4])
    runs = [(run.concurrency, run.engine) for run in runs_of(plan, 100)]
    ours, loop, bare = contestant.OURS, "asyncio", "baseline"
    assert runs == [
        (concurrency, engine)
        for order in ([ours, loop, bare], [loop, bare, ours], [bare, ours, loop])
        for concurrency in (1, 4)
        for engine in order
    ]


def test_a_workload_has_its_own_numbers_where_nobody_says_otherwise() -> None:
    [run] = runs_of(Plan(workloads=["sleep"], rounds=1), 100)
    assert (run.concurrency, run.messages) == (100, WORKLOADS["sleep"].messages)
