"""The `time` module: Go's semantics, in the sandbox that handlers run in. Layouts have a file of their own."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.lua.module_bench import ModuleBench, machine_in

INT64_MAX = 2**63 - 1


@pytest.fixture(scope="module")
def lua() -> ModuleBench:
    return ModuleBench("time")


@pytest.fixture(autouse=True, scope="module")
def _utc_is_local() -> Iterator[None]:
    with machine_in("UTC"):
        yield


class TestTimes:
    @pytest.mark.parametrize(
        ("parts", "expected"),
        [
            ("2024, 14, 1", "2025-02-01T00:00:00Z"),
            ("2024, 0, 1", "2023-12-01T00:00:00Z"),
            ("2024, 3, 0", "2024-02-29T00:00:00Z"),
            ("2024, 1, 366", "2024-12-31T00:00:00Z"),
            ("2024, 1, 1, 25, -1, 61", "2024-01-02T01:00:01Z"),
            ("2024, 1, 1, 0, 0, 0, -1", "2023-12-31T23:59:59Z"),
            ("2024, 1, 1.0, 5", "2024-01-01T05:00:00Z"),
        ],
    )
    def test_date_normalises_what_is_out_of_range(self, lua: ModuleBench, parts: str, expected: str) -> None:
        missing = ", 0" * (7 - len(parts.split(",")))
        assert lua.value(f"time.date({parts}{missing}, time.utc):format_rfc3339()") == expected

    def test_clock_changes_are_resolved_as_in_go(self, lua: ModuleBench) -> None:
        """2:30 does not exist on 10 March 2024, and 1:30 exists twice on 3 November."""
        there = 'time.load_location("America/New_York")'
        assert lua.text(f"time.date(2024, 3, 10, 2, 30, 0, 0, {there})") == "2024-03-10 01:30:00 -0500 EST"
        assert lua.text(f"time.date(2024, 11, 3, 1, 30, 0, 0, {there})") == "2024-11-03 01:30:00 -0400 EDT"

    @pytest.mark.parametrize(
        ("step", "expected"),
        [
            ("0, 1, 0", "2024-03-02"),  # 31 February is normalised, as in Go
            ("1, 0, 0", "2025-01-31"),
            ("0, 0, -31", "2023-12-31"),
            ("-1, -1, 1", "2023-01-01"),
        ],
    )
    def test_add_date_moves_by_the_calendar(self, lua: ModuleBench, step: str, expected: str) -> None:
        moment = "time.date(2024, 1, 31, 12, 0, 0, 0, time.utc)"
        assert lua.value(f"{moment}:add_date({step}):format(time.DATE_ONLY)") == expected

    def test_add_date_keeps_the_wall_clock_over_a_change_of_the_clocks(self, lua: ModuleBench) -> None:
        moment = 'time.date(2024, 3, 9, 12, 0, 0, 0, time.load_location("America/New_York"))'
        assert lua.text(f"{moment}:add_date(0, 0, 1)") == "2024-03-10 12:00:00 -0400 EDT"
        assert lua.text(f'{moment}:add("24h")') == "2024-03-10 13:00:00 -0400 EDT"

    @pytest.mark.parametrize(
        ("unit", "rounded", "truncated"),
        [  # the examples of Go's documentation
            ("1ns", "12:15:30.918273645", "12:15:30.918273645"),
            ("1us", "12:15:30.918274", "12:15:30.918273"),
            ("1ms", "12:15:30.918", "12:15:30.918"),
            ("1s", "12:15:31", "12:15:30"),
            ("2s", "12:15:30", "12:15:30"),
            ("1m", "12:16:00", "12:15:00"),
            ("10m", "12:20:00", "12:10:00"),
            ("1h", "12:00:00", "12:00:00"),
        ],
    )
    def test_rounding_is_that_of_the_go_documentation(
        self, lua: ModuleBench, unit: str, rounded: str, truncated: str
    ) -> None:
        code = (
            "local t = time.date(2012, 12, 7, 12, 15, 30, 918273645, time.utc) local unit = ... "
            'local layout = "15:04:05.999999999" '
            "return { t:round(unit):format(layout), t:truncate(unit):format(layout) }"
        )
        assert lua.run(code, unit) == [rounded, truncated]

    @given(
        seconds=st.integers(-62_000_000_000, 250_000_000_000),
        nanoseconds=st.integers(0, 999_999_999),
        unit=st.integers(1, INT64_MAX),
    )
    @settings(max_examples=200)
    def test_rounding_counts_from_year_one(self, lua: ModuleBench, seconds: int, nanoseconds: int, unit: int) -> None:
        year_one = -62_135_596_800
        total = (seconds - year_one) * 10**9 + nanoseconds
        left = total % unit
        down, up = total - left, total + unit - left
        rounded = down if left + left < unit else up
        expected = [[(t // 10**9) + year_one, t % 10**9] for t in (down, rounded)]
        first, last = -62_167_219_200 - 2 * 86400, 253_402_300_800 + 2 * 86400
        if not all(first <= second < last for second, _ in expected):
            return  # out of the years that there are; another test
        code = (
            "local s, n, unit = ... local t = time.unix(s, n) local a, b = t:truncate(unit), t:round(unit) "
            "return { { a:unix(), a:nanosecond() }, { b:unix(), b:nanosecond() } }"
        )
        assert lua.run(code, seconds, nanoseconds, unit) == expected

    def test_a_half_is_rounded_up(self, lua: ModuleBench) -> None:
        assert lua.value('time.unix(3, 500000000):round("1s"):unix()') == 4
        assert lua.value('time.unix(-1, 500000000):round("1s"):unix()') == 0

    def test_rounding_to_nothing_changes_nothing(self, lua: ModuleBench) -> None:
        assert lua.value("time.unix(5, 7):truncate(0):unix_nano()") == 5_000_000_007
        assert lua.value("time.unix(5, 7):round(-1):unix_nano()") == 5_000_000_007

    def test_an_amount_is_a_duration_a_text_or_nanoseconds(self, lua: ModuleBench) -> None:
        code = (
            "local t = time.unix(100) "
            'return { t:add("1m30s"):unix(), t:add(time.MINUTE):unix(), t:add(0.5 * time.MINUTE):unix(), '
            't:add(time.parse_duration("-1m")):unix() }'
        )
        assert lua.run(code) == [190, 160, 130, 40]

    def test_accessors_speak_of_the_location(self, lua: ModuleBench) -> None:
        code = (
            'local t = time.date(2024, time.DECEMBER, 31, 23, 59, 58, 7, time.fixed_zone("X", 3600)) '
            "local y, mo, d = t:date() local h, mi, s = t:clock() "
            "return { y, mo, d, h, mi, s, t:year(), t:month(), t:day(), t:hour(), t:minute(), t:second(), "
            "t:nanosecond(), t:weekday(), t:year_day(), t:utc():hour(), t:unix_nano() % 10 }"
        )
        assert lua.run(code) == [2024, 12, 31, 23, 59, 58, 2024, 12, 31, 23, 59, 58, 7, 2, 366, 22, 7]

    def test_comparisons(self, lua: ModuleBench) -> None:
        code = (
            "local a, b = time.unix(1, 5), time.unix(1, 6) local c = a:utc() "
            "return { a:before(b), b:after(a), a:equal(c), a == c, a ~= b, a < b, a <= c, b >= a, a > b, "
            "a == time.parse_duration(1) }"
        )
        assert lua.run(code) == [True, True, True, True, True, True, True, True, False, False]

    def test_the_difference_of_two_moments_is_a_duration(self, lua: ModuleBench) -> None:
        code = (
            "local a = time.date(2024, 1, 2, 0, 0, 0, 0, time.utc) "
            "local b = time.date(2024, 1, 1, 0, 0, 0, 1, time.utc) "
            "return { tostring(a:sub(b)), tostring(b:sub(a)), a:sub(a):nanoseconds() }"
        )
        assert lua.run(code) == ["23h59m59.999999999s", "-23h59m59.999999999s", 0]

    def test_a_difference_beyond_a_duration_is_the_longest_one_as_in_go(self, lua: ModuleBench) -> None:
        code = (
            "local a, b = time.date(1, 1, 1, 0, 0, 0, 0, time.utc), time.date(9999, 1, 1, 0, 0, 0, 0, time.utc) "
            "return { b:sub(a):nanoseconds(), a:sub(b):nanoseconds() }"
        )
        assert lua.run(code) == [INT64_MAX, -(2**63)]

    @pytest.mark.parametrize("seconds", [9_223_372_035, 9_223_372_036, 9_223_372_037])
    @pytest.mark.parametrize("nanoseconds", [0, 854_775_807, 854_775_808, 999_999_999])
    @pytest.mark.parametrize("sign", [1, -1])
    def test_the_edge_of_64_bits_is_exact(self, lua: ModuleBench, seconds: int, nanoseconds: int, sign: int) -> None:
        total = sign * (seconds * 10**9 + nanoseconds)
        found = lua.value("time.unix(...):sub(time.unix(0)):nanoseconds()", sign * seconds, sign * nanoseconds)
        assert found == max(-(2**63), min(INT64_MAX, total))

    @pytest.mark.parametrize(
        "expression",
        [
            "time.date(10000, 2, 1)",
            "time.date(-1, 1, 1)",
            "time.date(2024, 1, 1e12)",
            "time.date(2^53, 1, 1)",
            "time.date(2024, 1.5, 1)",
            "time.date(2024)",
            'time.date(2024, 1, 1, 0, 0, 0, 0, "UTC")',
            "time.unix(1e18)",
            "time.unix(0/0)",
            "time.unix(math.huge)",
            "time.unix()",
            "time.unix(0, 1.5)",
            "time.unix(253402300800 + 3 * 86400)",
            "time.date(9999, 12, 31):add(math.maxinteger)",
            "time.unix(0):add_date(9000, 0, 0)",
            "time.unix(0):add_date(0, 0)",
            "time.date(1500, 1, 1):unix_nano()",
            "time.date(2263, 1, 1):unix_nano()",
            'time.unix(0):add("tomorrow")',
            "time.unix(0):add({})",
            "time.unix(0):sub(5)",
            "time.unix(0):before(nil)",
            'time.unix(0):in_location("UTC")',
            'time.unix(0):round("x")',
            "time.unix(0).add(5)",
            "time.unix(0).unix()",
        ],
    )
    def test_nonsense_is_invalid_rather_than_garbage(self, lua: ModuleBench, expression: str) -> None:
        kind, message = lua.error(expression)
        assert kind == "Invalid", message

    def test_only_the_zero_time_is_zero(self, lua: ModuleBench) -> None:
        assert lua.value("time.date(1, 1, 1, 0, 0, 0, 0, time.utc):is_zero()") is True
        assert lua.value("time.unix(0):is_zero()") is False

    def test_a_float_of_seconds_keeps_its_fraction(self, lua: ModuleBench) -> None:
        """What `msg:header("timestamp")` holds."""
        assert lua.value("time.unix(1700000000.123):unix_nano()") == 1_700_000_000_123_000_000
        assert lua.value("time.unix(-0.5):unix_nano()") == -500_000_000
        assert lua.value("time.unix(0.9999999):unix_nano()") == 1_000_000_000

    def test_values_are_closed(self, lua: ModuleBench) -> None:
        assert lua.value("type(time.now())") == "userdata"
        assert "read-only" in lua.raised("time.now().x = 1")
        assert "compare" in lua.raised("return time.now() < 5")
        assert "compare" in lua.raised("return time.now() < time.parse_duration(5)")


class TestNow:
    def test_now_is_now(self, lua: ModuleBench) -> None:
        before = time.time_ns()
        found = lua.value("time.now():unix_nano()")
        assert before <= found <= time.time_ns()

    def test_elapsed_time_ignores_steps_of_the_wall_clock(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """As in Go, times of `now` are compared by the clock that never jumps."""
        walls, monos = iter([1_000_000_000_000, 5_000_000_000]), iter([7, 1_000_007])
        clocks = SimpleNamespace(time_ns=lambda: next(walls), monotonic_ns=lambda: next(monos))
        monkeypatch.setattr("wippy_queue.lua.modules.time.time", clocks)
        code = (
            "local start = time.now() local stop = time.now() "
            "return { stop:sub(start):nanoseconds(), start < stop, stop:utc() < start:utc(), "
            "stop:add(time.SECOND):sub(start):nanoseconds() }"
        )
        assert ModuleBench("time").run(code) == [1_000_000, True, True, 1_001_000_000]

    def test_the_far_future_is_later_than_now(self, lua: ModuleBench) -> None:
        """The clock that never jumps cannot count as far as that."""
        code = "local t = time.now() local far = t:add(math.maxinteger) return { t < far, far:sub(t):nanoseconds() }"
        assert lua.run(code) == [True, INT64_MAX]

    def test_local_time_is_that_of_the_machine(self, lua: ModuleBench) -> None:
        with machine_in("America/New_York"):
            assert lua.text("time.unix(1720000000)") == "2024-07-03 05:46:40 -0400 EDT"
            assert lua.text("time.unix(1720000000):utc():in_local()") == "2024-07-03 05:46:40 -0400 EDT"
            assert lua.value("time.date(2024, 1, 15, 12):unix()") == 1_705_338_000
            assert lua.value("time.now():location():string()") == "Local"
            parsed = lua.text('time.parse("2006-01-02 15:04 MST", "2024-01-15 12:00 EST")')
            assert parsed == "2024-01-15 12:00:00 -0500 EST"


class TestDurations:
    @pytest.mark.parametrize(
        ("text", "nanoseconds"),
        [
            ("0", 0),
            ("1ns", 1),
            ("1.5us", 1500),
            ("1µs", 1000),
            ("1μs", 1000),  # the Greek letter, beside the micro sign
            ("500ms", 500_000_000),
            ("1.5s", 1_500_000_000),
            ("+5s", 5_000_000_000),
            ("-1.5h", -5_400_000_000_000),
            ("1h30m", 5_400_000_000_000),
            ("1h15m30.918s", 4_530_918_000_000),
            (".5m", 30_000_000_000),
            ("1.s", 1_000_000_000),
            ("2562047h47m16.854775807s", INT64_MAX),
            ("0.1h0.1h", 720_000_000_000),
        ],
    )
    def test_texts_mean_what_they_mean_in_go(self, lua: ModuleBench, text: str, nanoseconds: int) -> None:
        assert lua.value("time.parse_duration(...):nanoseconds()", text) == nanoseconds

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "5",
            "-",
            "s",
            ".s",
            "1h-30m",
            "1 h",
            "1d",
            "1h ",
            " 1h",
            "1..5s",
            "1e3s",
            "0x1s",
            "2562048h",
            "2562047h1h",
            f"{9:9>30}s",
        ],
    )
    def test_what_is_no_duration_is_invalid(self, lua: ModuleBench, text: str) -> None:
        kind, message = lua.error("time.parse_duration(...)", text)
        assert kind == "Invalid"
        assert "1h30m" in message

    @pytest.mark.parametrize("value", ["{}", "nil", "true", "math.huge", "0/0", "1e19", "time.now()", "print"])
    def test_what_is_no_amount_is_invalid(self, lua: ModuleBench, value: str) -> None:
        assert lua.error(f"time.parse_duration({value})")[0] == "Invalid"

    @pytest.mark.parametrize(
        ("nanoseconds", "text"),
        [
            (0, "0s"),
            (1, "1ns"),
            (999, "999ns"),
            (1100, "1.1µs"),
            (2_200_000, "2.2ms"),
            (500_000_000, "500ms"),
            (1_500_000_000, "1.5s"),
            (60_000_000_000, "1m0s"),
            (245_001_000_000, "4m5.001s"),
            (5_400_000_000_000, "1h30m0s"),
            (3_600_000_000_001, "1h0m0.000000001s"),
            (-90_000_000_000, "-1m30s"),
            (INT64_MAX, "2562047h47m16.854775807s"),
            (-(2**63), "-2562047h47m16.854775808s"),
        ],
    )
    def test_durations_print_as_in_go(self, lua: ModuleBench, nanoseconds: int, text: str) -> None:
        assert lua.text("time.parse_duration(...)", nanoseconds) == text

    @given(nanoseconds=st.integers(-INT64_MAX, INT64_MAX))
    @settings(max_examples=200)
    def test_what_is_printed_can_be_read(self, lua: ModuleBench, nanoseconds: int) -> None:
        code = "local d = time.parse_duration(...) return time.parse_duration(tostring(d)):nanoseconds()"
        assert lua.run(code, nanoseconds) == nanoseconds

    def test_units_are_whole_where_they_can_be(self, lua: ModuleBench) -> None:
        """`print(d:hours())` shows 24, not 24.0, as in Wippy."""
        code = (
            'local d = time.parse_duration("1h30m45s500ms") local day = time.parse_duration("24h") '
            "return { d:minutes(), d:seconds(), d:milliseconds(), d:microseconds(), d:nanoseconds(), "
            "day:hours() .. '' }"
        )
        assert lua.run(code) == [90.75 + 0.5 / 60, 5445.5, 5445500, 5445500000, 5445500000000, "24"]

    def test_durations_compare(self, lua: ModuleBench) -> None:
        code = (
            'local a, b = time.parse_duration("60s"), time.parse_duration("1m") local c = time.parse_duration(1.9) '
            "return { a == b, a ~= c, c < a, a <= b, c:nanoseconds() }"
        )
        assert lua.run(code) == [True, True, True, True, 1]


class TestLocations:
    def test_names(self, lua: ModuleBench) -> None:
        code = (
            'return { time.utc:string(), time.localtz:string(), tostring(time.load_location("Asia/Tokyo")), '
            'time.fixed_zone("IST", 19800):string(), time.load_location("UTC"):string(), '
            "time.now():utc():location():string() }"
        )
        assert lua.run(code) == ["UTC", "Local", "Asia/Tokyo", "IST", "UTC", "UTC"]

    @pytest.mark.parametrize("name", ["Mars/Phobos", "America", "../../etc/passwd", "/etc/localtime", "a\0b"])
    def test_what_is_no_zone_is_not_found(self, lua: ModuleBench, name: str) -> None:
        assert lua.error("time.load_location(...)", name)[0] == "NotFound"

    def test_an_empty_name_is_invalid(self, lua: ModuleBench) -> None:
        assert lua.error("time.load_location(...)", "")[0] == "Invalid"

    def test_a_machine_without_zones_is_told_the_cure(self, lua: ModuleBench, monkeypatch: pytest.MonkeyPatch) -> None:
        def nothing(key: str) -> ZoneInfo:
            raise KeyError(key)

        monkeypatch.setattr("wippy_queue.lua.modules.time.ZoneInfo", nothing)
        kind, message = lua.error('time.load_location("Europe/Berlin")')
        assert kind == "Invalid"
        assert "pip install tzdata" in message

    @pytest.mark.parametrize("arguments", ['"X"', "5, 5", '"X", 1.5', '"X", 90000'])
    def test_a_fixed_zone_has_a_name_and_an_offset_of_at_most_a_day(self, lua: ModuleBench, arguments: str) -> None:
        assert lua.error(f"time.fixed_zone({arguments})")[0] == "Invalid"

    def test_moments_that_python_cannot_express_have_a_zone_too(self, lua: ModuleBench) -> None:
        there = 'time.load_location("America/New_York")'
        assert lua.value(f"time.date(0, 1, 1, 0, 0, 0, 0, {there}):year()") == 0
        assert lua.value(f"time.date(9999, 12, 31, 23, 59, 59, 0, {there}):year()") == 9999


class TestSleep:
    @pytest.mark.parametrize("amount", ["time.MILLISECOND", '"1ms"', 'time.parse_duration("1ms")', "0", "-5"])
    def test_sleep_takes_every_form_of_an_amount(self, lua: ModuleBench, amount: str) -> None:
        assert lua.value(f"time.sleep({amount})") is True

    def test_sleep_sleeps(self, lua: ModuleBench) -> None:
        started = time.monotonic()
        lua.value('time.sleep("50ms")')
        assert time.monotonic() - started >= 0.05

    def test_a_wrong_amount_is_invalid(self, lua: ModuleBench) -> None:
        assert lua.error('time.sleep("soon")')[0] == "Invalid"

    def test_a_cancelled_worker_wakes_up_with_an_error(self) -> None:
        lua = ModuleBench("time")
        asleep = threading.Event()

        class Cancel(threading.Event):
            def wait(self, timeout: float | None = None) -> bool:
                asleep.set()
                return super().wait(timeout)

        lua.context.cancel = Cancel()
        found: list[tuple[str, str]] = []
        thread = threading.Thread(target=lambda: found.append(lua.error('time.sleep("1h")')), daemon=True)
        thread.start()
        assert asleep.wait(10)  # on another thread: so the interpreter lock is free while it sleeps
        lua.context.cancel.set()
        thread.join(10)
        assert found
        assert found[0][0] == "Canceled"

    def test_the_deadline_of_the_call_ends_the_sleep(self) -> None:
        lua = ModuleBench("time")
        lua.context.deadline = time.monotonic() + 0.01
        assert lua.value('time.sleep("1h")') is True  # the runtime ends the handler then

    def test_the_longest_sleep_is_no_overflow(self) -> None:
        lua = ModuleBench("time")
        lua.context.deadline = time.monotonic() + 0.01
        assert lua.value("time.sleep(math.maxinteger)") is True


@pytest.mark.parametrize("name", ["after", "timer", "ticker"])
def test_channels_raise_an_error_that_says_so(lua: ModuleBench, name: str) -> None:
    message = lua.raised(f'time.{name}("1s")')
    assert f"time.{name}" in message
    assert "channels are not supported" in message


def test_constants(lua: ModuleBench) -> None:
    code = (
        "return { time.NANOSECOND, time.MICROSECOND, time.MILLISECOND, time.SECOND, time.MINUTE, time.HOUR, "
        "time.JANUARY, time.MAY, time.DECEMBER, time.SUNDAY, time.SATURDAY, math.type(time.HOUR) }"
    )
    assert lua.run(code) == [1, 10**3, 10**6, 10**9, 60 * 10**9, 3600 * 10**9, 1, 5, 12, 0, 6, "integer"]
