"""Services: order, failures, restarts, deadlines."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from tests.support import DEADLINE, eventually
from wippy_queue.errors import Canceled, Invalid, NotFound, StopReport, Unavailable, WippyQueueError
from wippy_queue.events import Event, ServiceStateChanged
from wippy_queue.ids import EntryId
from wippy_queue.lifecycle import Lifecycle
from wippy_queue.queues import RetryPolicy
from wippy_queue.supervision import State, Supervisor

AT_ONCE = Lifecycle(restart=RetryPolicy(initial_delay=0.0))


class FakeService:
    """Writes down what is asked of it, and does what the test wants."""

    def __init__(self, name: str, log: list[str]) -> None:
        self.name = name
        self.log = log
        self.fail_with: list[Exception] = []  # one a start
        self.hold: threading.Event | None = None  # start() waits for it
        self.hold_stop: threading.Event | None = None
        self.starts = 0
        self.report = StopReport()
        self.break_now: Callable[[Exception], None] = lambda error: None
        self.sick: Exception | None = None

    def start(self, on_failure: Callable[[Exception], None]) -> None:
        self.starts += 1
        self.break_now = on_failure
        if self.hold is not None:
            assert self.hold.wait(DEADLINE)
        if self.fail_with:
            raise self.fail_with.pop(0)
        self.log.append(f"+{self.name}")

    def cancel_start(self) -> None:
        if self.hold is not None:
            self.fail_with.append(Canceled("stopped"))
            self.hold.set()

    def stop(self, timeout: float) -> StopReport:
        if self.hold_stop is not None:
            assert self.hold_stop.wait(DEADLINE)
        self.log.append(f"-{self.name}")
        return self.report

    def check(self) -> None:
        if self.sick is not None:
            raise self.sick


class Setup:
    def __init__(self) -> None:
        self.log: list[str] = []
        self.events: list[Event] = []
        self.supervisor = Supervisor("test", self.events.append)

    def add(self, name: str, *needs: str, lifecycle: Lifecycle = AT_ONCE) -> FakeService:
        service = FakeService(name, self.log)
        self.supervisor.add(EntryId(f"app:{name}"), service, lifecycle, [EntryId(f"app:{need}") for need in needs])
        return service

    def start(self, *names: str, wait: bool = True) -> None:
        self.supervisor.start([EntryId(f"app:{name}") for name in names], wait)

    def stop(self, *names: str, timeout: float | None = None) -> StopReport:
        return self.supervisor.stop([EntryId(f"app:{name}") for name in names] or None, timeout)

    def state(self, name: str) -> State:
        return self.supervisor.statuses()[EntryId(f"app:{name}")].state


@pytest.fixture
def setup() -> Iterator[Setup]:
    made = Setup()
    yield made
    made.supervisor.stop(None, 1.0)
    made.supervisor.close()


def test_dependencies_start_first_and_stop_last(setup: Setup) -> None:
    setup.add("consumer", "store", "driver")
    setup.add("driver")
    setup.add("store", "driver")
    setup.start("consumer")
    setup.stop()
    assert setup.log == ["+driver", "+store", "+consumer", "-consumer", "-store", "-driver"]


def test_independent_services_start_side_by_side(setup: Setup) -> None:
    """Each waits until the other has begun: one after the other they would never come up."""
    a, b = setup.add("a"), setup.add("b")
    both = threading.Barrier(2, timeout=DEADLINE)
    for service in (a, b):
        original = service.start

        def start(on_failure: Callable[[Exception], None], original: Callable[..., None] = original) -> None:
            both.wait()
            original(on_failure)

        service.start = start  # type: ignore[method-assign]
    setup.start("a", "b")
    assert sorted(setup.log) == ["+a", "+b"]


def test_stopping_a_service_stops_first_what_depends_on_it(setup: Setup) -> None:
    setup.add("driver")
    setup.add("consumer", "driver")
    setup.start("consumer")
    setup.stop("driver")
    assert setup.log[2:] == ["-consumer", "-driver"]
    assert (setup.state("consumer"), setup.state("driver")) == (State.STOPPED, State.STOPPED)


def test_a_second_start_and_a_second_stop_are_harmless(setup: Setup) -> None:
    setup.add("driver")
    setup.stop()
    setup.start("driver")
    setup.start("driver")
    setup.stop()
    setup.stop()
    setup.start("driver")
    assert setup.log == ["+driver", "-driver", "+driver"]


def test_a_service_that_fails_is_stopped_and_started_again(setup: Setup) -> None:
    service = setup.add("driver")
    setup.start("driver")
    service.break_now(RuntimeError("broken pipe"))
    eventually(lambda: service.starts == 2 and setup.state("driver") is State.RUNNING, "restarted")
    assert setup.log == ["+driver", "-driver", "+driver"]
    assert setup.supervisor.statuses()[EntryId("app:driver")].restarts == 1
    changes = [(event.old, event.new) for event in setup.events if isinstance(event, ServiceStateChanged)]
    assert changes[2:4] == [("Running", "Failed"), ("Failed", "Starting")]


def test_what_an_old_life_reports_does_not_hurt_the_new_one(setup: Setup) -> None:
    service = setup.add("driver")
    setup.start("driver")
    old = service.break_now
    setup.stop()
    setup.start("driver")
    old(RuntimeError("late"))
    assert setup.state("driver") is State.RUNNING


def test_a_start_waits_out_failures_that_pass(setup: Setup) -> None:
    service = setup.add("driver")
    service.fail_with = [Unavailable("not yet"), Unavailable("not yet")]
    setup.start("driver")
    assert service.starts == 3


def test_a_service_that_is_not_up_in_time_stops_what_was_started(setup: Setup) -> None:
    setup.add("driver")
    slow = Lifecycle(start_timeout=0.2, restart=RetryPolicy(initial_delay=0.0))
    setup.add("consumer", "driver", lifecycle=slow).fail_with = [Unavailable("no route to host")] * 100_000
    with pytest.raises(Unavailable, match=r"app:consumer is not up after 0\.2 s: no route to host"):
        setup.start("consumer")
    assert setup.log == ["+driver", "-driver"]
    assert setup.state("driver") is State.STOPPED


def test_a_start_that_hangs_is_reported_and_let_go(setup: Setup) -> None:
    service = setup.add("driver", lifecycle=Lifecycle(start_timeout=0.1))
    service.hold = threading.Event()
    with pytest.raises(Unavailable, match="is not up after"):
        setup.start("driver")
    eventually(lambda: setup.state("driver") is State.STOPPED, "stopped")


def test_a_mistake_of_the_user_is_not_waited_out(setup: Setup) -> None:
    setup.add("consumer").fail_with = [WippyQueueError("handler.lua:3: syntax error", kind=Invalid.default_kind)] * 99
    begin = time.monotonic()
    with pytest.raises(Unavailable, match=r"handler\.lua:3: syntax error"):
        setup.start("consumer")
    assert time.monotonic() - begin < AT_ONCE.start_timeout


def test_a_non_retryable_error_ends_in_exited(setup: Setup) -> None:
    service = setup.add("driver")
    setup.start("driver")
    service.break_now(Invalid("access refused"))
    eventually(lambda: setup.state("driver") is State.EXITED, "exited")
    eventually(lambda: setup.log == ["+driver", "-driver"], "torn down")
    assert service.starts == 1
    setup.start("driver")  # by hand it may be tried again
    assert setup.state("driver") is State.RUNNING


def test_max_attempts_ends_the_restarts(setup: Setup) -> None:
    policy = RetryPolicy(initial_delay=0.0, max_attempts=2)
    service = setup.add("driver", lifecycle=Lifecycle(restart=policy))
    service.fail_with = [Unavailable("away")] * 99
    setup.start("driver", wait=False)
    eventually(lambda: service.starts == 3, "two restarts")
    eventually(lambda: setup.state("driver") is State.FAILED, "failed")
    setup.stop()
    assert service.starts == 3


def test_one_that_stayed_up_starts_counting_afresh(setup: Setup) -> None:
    policy = RetryPolicy(initial_delay=0.0, max_attempts=1)
    service = setup.add("driver", lifecycle=Lifecycle(stable_threshold=0.0, restart=policy))
    setup.start("driver")
    for number in range(2, 6):
        eventually(lambda: setup.state("driver") is State.RUNNING, "running")
        service.break_now(RuntimeError("again"))
        eventually(lambda: service.starts == number, "restarted")  # noqa: B023 - waited for inside the loop


def test_a_service_that_does_not_do_its_work_is_failed(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wippy_queue.supervision.supervisor._CHECK_INTERVAL", 0.02)
    service = setup.add("consumer")
    setup.start("consumer")
    service.sick = Unavailable("deaf")
    eventually(lambda: service.starts >= 2, "restarted")
    service.sick = None


def test_a_stop_during_a_start_cancels_it(setup: Setup) -> None:
    service = setup.add("driver")
    service.hold = threading.Event()
    errors: list[Exception] = []

    def start() -> None:
        try:
            setup.start("driver")
        except Canceled as error:
            errors.append(error)

    thread = threading.Thread(target=start)
    thread.start()
    eventually(lambda: service.starts == 1, "starting")
    setup.stop()
    thread.join(DEADLINE)
    assert len(errors) == 1
    assert setup.state("driver") is State.STOPPED


def test_a_service_that_hangs_in_stop_does_not_hang_the_rest(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wippy_queue.supervision.supervisor._STOP_SLACK", 0.1)
    service = setup.add("consumer", "driver")
    setup.add("driver")
    setup.start("consumer")
    service.hold_stop = threading.Event()
    begin = time.monotonic()
    setup.stop(timeout=0.1)
    assert time.monotonic() - begin < DEADLINE / 2
    assert setup.log[-1] == "-driver"
    service.hold_stop.set()


@pytest.mark.parametrize("first", ["driver", "consumer"])
def test_a_service_that_hangs_in_its_stop_keeps_no_other_one_from_theirs(
    setup: Setup, first: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wippy_queue.supervision.supervisor._STOP_SLACK", 0.1)
    services = {
        name: setup.add(name, *needs) for name, needs in sorted(NEEDS.items(), key=lambda item: item[0] != first)
    }
    setup.start("consumer")
    services["consumer"].hold_stop = threading.Event()
    stopping = threading.Thread(target=setup.stop, kwargs={"timeout": 0.1}, daemon=True)
    stopping.start()
    stopping.join(DEADLINE / 2)
    assert not stopping.is_alive()
    assert setup.log[-1] == "-driver"
    services["consumer"].hold_stop.set()


def test_a_start_that_was_given_up_does_not_stop_the_next_one(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no second start before the first one has come back, and what that has begun was stopped."""
    monkeypatch.setattr("wippy_queue.supervision.supervisor._STOP_SLACK", 0.1)
    service = setup.add("consumer", lifecycle=Lifecycle(start_timeout=0.2))
    hold = service.hold = threading.Event()
    monkeypatch.setattr(service, "cancel_start", lambda: None)
    setup.start("consumer", wait=False)
    eventually(lambda: service.starts == 1, "it hangs")
    setup.stop(timeout=0.1)
    with pytest.raises(Unavailable, match=r"its start\(\) did not return"):
        setup.start("consumer")
    setup.start("consumer", wait=False)
    assert service.starts == 1
    hold.set()
    eventually(lambda: setup.state("consumer") is State.RUNNING, "started")
    assert setup.log == ["+consumer", "-consumer", "+consumer"]


def test_a_start_that_hangs_is_told_after_its_timeout(setup: Setup) -> None:
    service = setup.add("driver", lifecycle=Lifecycle(start_timeout=0.1, stop_timeout=0.1))
    hold = threading.Event()
    service.start = lambda on_failure: assert_set(hold)  # type: ignore[method-assign]
    with pytest.raises(Unavailable, match="not up"):
        setup.start("driver")
    hold.set()


def assert_set(event: threading.Event) -> None:
    assert event.wait(DEADLINE)


NEEDS = {"driver": (), "consumer": ("driver",)}


def test_the_reports_of_all_services_add_up(setup: Setup) -> None:
    setup.add("a").report = StopReport(finished=("1",), handed_back=("2",))
    setup.add("b").report = StopReport(handed_back=("3",), abandoned=("4",))
    setup.start("a", "b")
    report = setup.stop()
    assert (sorted(report.finished), sorted(report.handed_back), report.abandoned) == (["1"], ["2", "3"], ("4",))


def test_an_unknown_service_is_not_found(setup: Setup) -> None:
    setup.add("driver")
    with pytest.raises(NotFound, match="did you mean 'app:driver'"):
        setup.start("drivr")
