"""What the rounds come to: medians, ranges and ratios; and the command that prints them."""

from __future__ import annotations

import builtins
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from wippy_queue.bench.contestant import OURS
from wippy_queue.bench.measure import QUANTILES, Measures, Run
from wippy_queue.bench.report import Row, as_json, print_report, ratios_of, rows_of
from wippy_queue.bench.runner import Result, Results
from wippy_queue.bench.workloads import WORKLOADS
from wippy_queue.cli.bench import bench
from wippy_queue.errors import Invalid

MACHINE = {"cpu": "a cpu", "cores": 2, "python": "3.11", "lupa": "2.8", "system": "Linux", "load_before": 0.1}
KEYS = [
    *("engine", "workload", "driver", "concurrency", "prefetch", "messages"),
    *("rate", "publish_rate", "p50_ms", "p99_ms", "cpu_us", "peak_rss_mb", "rounds"),
]


def result(engine: str, rate: float, workload: str = "noop", concurrency: int = 4) -> Result:
    run = Run(
        engine=engine,
        workload=workload,
        driver="memory",
        concurrency=concurrency,
        prefetch=100,
        messages=1000,
        loops=1,
        rate=500.0,
        latencies=10,
    )
    measures = Measures(
        rate=rate,
        publish_rate=2 * rate,
        p50_ms=0.1,
        p99_ms=0.2,
        p999_ms=0.3,
        cpu_us=5.0,
        peak_rss_mb=30.0,
        start_s=0.01,
        stop_s=0.02,
        quantiles=tuple(0.1 + q for q in QUANTILES),
    )
    return Result(run, measures)


ROUNDS = [
    *(result(OURS, rate) for rate in (100.0, 300.0, 200.0)),
    *(result("asyncio", rate) for rate in (50.0, 1000.0, 100.0)),
    *(result(OURS, 90.0, concurrency=16) for _ in range(3)),
    *(result("asyncio", 30.0, concurrency=16) for _ in range(3)),
]


def test_a_row_holds_the_medians_and_the_ranges_of_its_rounds() -> None:
    row = rows_of(ROUNDS)[0]
    assert (row.engine, row.median("rate"), row.range("rate")) == (OURS, 200.0, (100.0, 300.0))


def test_ratios_are_this_engines_rate_over_the_others_in_the_first_setting() -> None:
    assert ratios_of(rows_of(ROUNDS)) == {"noop": {"asyncio": 2.0}}


def test_the_json_has_the_keys_that_programs_count_on() -> None:
    found = as_json(Results(MACHINE, ROUNDS))
    assert list(found) == ["machine", "rows", "ratios"]
    assert [list(row) for row in found["rows"]] == [KEYS] * 4
    assert found["rows"][0]["rounds"] == 3
    json.dumps(found, allow_nan=False)


def test_the_table_shows_every_setting_and_the_machine(capsys: pytest.CaptureFixture[str]) -> None:
    print_report(Results(MACHINE, ROUNDS))
    shown = capsys.readouterr().out
    assert "4 workers" in shown and "16 workers" in shown
    assert "(100-300)" in shown and "2.00" in shown and "3.00" in shown
    assert "a cpu, 2 cores" in shown


def plot(rows: list[Row], path: Path) -> None:
    from wippy_queue.bench.plot import draw

    draw(rows, path)


def test_the_plot_is_a_picture(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed: pip install 'wippy_queue[bench]'")
    plot(rows_of([*ROUNDS, result(OURS, 10.0, "cpu")]), tmp_path / "bench.png")
    assert (tmp_path / "bench.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(Invalid, match="--plot"):
        plot(rows_of(ROUNDS), tmp_path / "bench.nosuch")


def test_without_matplotlib_a_plot_names_the_extra_before_anything_runs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any) -> Any:
        if name.partition(".")[0] == "matplotlib":
            raise ImportError(name)
        return real(name, *args)

    monkeypatch.setattr(builtins, "__import__", without)
    done = CliRunner().invoke(bench, ["--plot", str(tmp_path / "bench.png")])
    assert isinstance(done.exception, Invalid)
    assert "pip install 'wippy_queue[bench]'" in str(done.exception)


def test_the_command_prints_json() -> None:
    size = ["-n", "50", "-r", "2", "-c", "2", "--rate", "5000", "--latencies", "20"]
    options = ["-w", "noop", "-w", "json", "-a", "tests.unit.bench.plain:make", "--json", *size]
    done = CliRunner().invoke(bench, options, catch_exceptions=False)
    found = json.loads(done.stdout)
    assert [(row["engine"], row["workload"], row["rounds"]) for row in found["rows"]] == [
        (engine, workload, 2) for workload in ("noop", "json") for engine in (OURS, "tests.unit.bench.plain:make")
    ]
    assert set(found["ratios"]) == {"noop", "json"}
    assert found["machine"]["cores"] >= 1


def test_the_command_knows_every_workload() -> None:
    [option] = [option for option in bench.params if option.name == "workloads"]
    assert list(option.type.choices) == list(WORKLOADS)  # type: ignore[attr-defined]


@pytest.mark.parametrize("options", [["-a", "nosuch"], ["-a", "asyncio", "--driver", "amqp"], ["-a", "client"]])
def test_a_contestant_that_cannot_run_is_told_before_anything_runs(
    options: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wippy_queue.bench.runner.execute", lambda *_: pytest.fail("something runs"))
    done = CliRunner().invoke(bench, options)
    assert isinstance(done.exception, Invalid)
    assert f"contestant {options[1]!r}" in str(done.exception)


def test_behind_a_driver_the_ratio_is_to_the_client_library_where_nobody_is_named() -> None:
    size = ["-n", "50", "-r", "1", "-c", "2", "--rate", "5000", "--latencies", "20"]
    done = CliRunner().invoke(bench, ["-w", "noop", "-w", "json", "--driver", "sqlite", "--json", *size])
    found = json.loads(done.stdout)
    assert {workload: list(ratios) for workload, ratios in found["ratios"].items()} == {
        "noop": ["client"],
        "json": ["client"],
    }
    assert {row["driver"] for row in found["rows"]} == {"sqlite"}
