"""The `time` module: writing and reading by Go layouts."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.lua.module_bench import ModuleBench, machine_in


@pytest.fixture(scope="module")
def lua() -> ModuleBench:
    return ModuleBench("time")


@pytest.fixture(autouse=True, scope="module")
def _utc_is_local() -> Iterator[None]:
    with machine_in("UTC"):
        yield


class TestFormat:
    """What Go prints for Monday, 5 March 2018, 19:08:07.0405006 at -03:00, BRT, unless a case says otherwise."""

    MOMENT = 'time.date(2018, 3, 5, 19, 8, 7, 40500600, time.fixed_zone("BRT", -3 * 3600))'

    @pytest.mark.parametrize(
        ("layout", "expected"),
        [
            ("time.ANSIC", "Mon Mar  5 19:08:07 2018"),
            ("time.UNIX_DATE", "Mon Mar  5 19:08:07 BRT 2018"),
            ("time.RUBY_DATE", "Mon Mar 05 19:08:07 -0300 2018"),
            ("time.RFC822", "05 Mar 18 19:08 BRT"),
            ("time.RFC822Z", "05 Mar 18 19:08 -0300"),
            ("time.RFC850", "Monday, 05-Mar-18 19:08:07 BRT"),
            ("time.RFC1123", "Mon, 05 Mar 2018 19:08:07 BRT"),
            ("time.RFC1123Z", "Mon, 05 Mar 2018 19:08:07 -0300"),
            ("time.RFC3339", "2018-03-05T19:08:07-03:00"),
            ("time.RFC3339NANO", "2018-03-05T19:08:07.0405006-03:00"),
            ("time.KITCHEN", "7:08PM"),
            ("time.STAMP", "Mar  5 19:08:07"),
            ("time.STAMP_MILLI", "Mar  5 19:08:07.040"),
            ("time.STAMP_MICRO", "Mar  5 19:08:07.040500"),
            ("time.STAMP_NANO", "Mar  5 19:08:07.040500600"),
            ("time.DATE_TIME", "2018-03-05 19:08:07"),
            ("time.DATE_ONLY", "2018-03-05"),
            ("time.TIME_ONLY", "19:08:07"),
            ('"2006-01-02 15:04"', "2018-03-05 19:08"),
            ('"Monday 2 January 2006, 3:04:05 pm"', "Monday 5 March 2018, 7:08:07 pm"),
            ('"1/2/06 03:4:5"', "3/5/18 07:8:7"),
            ('"_2 __2 002"', " 5  64 064"),
            ('"15_2006"', "19_2018"),
            ('"-07 -0700 -07:00 -070000 -07:00:00"', "-03 -0300 -03:00 -030000 -03:00:00"),
            ('"Z07 Z0700 Z07:00 Z070000 Z07:00:00"', "-03 -0300 -03:00 -030000 -03:00:00"),
            ('"05.00 05,000 05.99 05.9"', "07.04 07,040 07.04 07"),
            ('"05.000000000000"', "07.040500600000"),
            ('"Monet, Jane, Monthly"', "Monet, Jane, Monthly"),  # words, for a small letter follows
            ('"5.003"', "7.007"),  # the hour: a fraction is zeros alone
            ('"no layout at all: X"', "no layout at all: X"),
            ('""', ""),
        ],
    )
    def test_a_layout_writes_what_go_writes(self, lua: ModuleBench, layout: str, expected: str) -> None:
        assert lua.value(f"{self.MOMENT}:format({layout})") == expected

    def test_utc_is_z_where_the_layout_allows_it(self, lua: ModuleBench) -> None:
        moment = "time.date(2018, 3, 5, 0, 5, 0, 0, time.utc)"
        assert lua.value(f'{moment}:format("Z07:00 -07:00 MST 3PM")') == "Z +00:00 UTC 12AM"
        assert lua.value(f"{moment}:format_rfc3339()") == "2018-03-05T00:05:00Z"

    def test_a_zone_without_a_name_prints_its_offset(self, lua: ModuleBench) -> None:
        moment = 'time.date(2018, 3, 5, 0, 0, 0, 0, time.fixed_zone("", -(3 * 3600 + 30 * 60)))'
        assert lua.value(f'{moment}:format("MST")') == "-0330"

    def test_a_time_as_text_is_what_go_prints(self, lua: ModuleBench) -> None:
        assert lua.text(self.MOMENT) == "2018-03-05 19:08:07.0405006 -0300 BRT"

    def test_a_layout_must_be_text(self, lua: ModuleBench) -> None:
        assert lua.error(f"{self.MOMENT}:format(5)")[0] == "Invalid"

    def test_a_handler_that_makes_up_layouts_does_not_fill_the_memory(self, lua: ModuleBench) -> None:
        code = (
            "local from = ... for i = from, from + 2000 do time.unix(0):format('2006-' .. ('x'):rep(200) .. i) end "
            "return 1"
        )
        lua.run(code, 0)
        before = lua.memory(code)
        lua.run(code, 10_000)
        assert lua.memory(code) < before + 100_000


class TestParse:
    @pytest.mark.parametrize(
        ("layout", "value", "expected"),
        [
            ("2006-01-02T15:04:05Z07:00", "2024-12-29T15:04:05Z", "2024-12-29 15:04:05 +0000 UTC"),
            ("2006-01-02T15:04:05Z07:00", "2024-12-29T15:04:05.25+09:00", "2024-12-29 15:04:05.25 +0900 +0900"),
            ("2006-01-02", "2024-02-29", "2024-02-29 00:00:00 +0000 UTC"),
            ("15:04:05", "14:30:00", "0000-01-01 14:30:00 +0000 UTC"),
            ("3:04PM", "12:05AM", "0000-01-01 00:05:00 +0000 UTC"),
            ("3:04pm", "12:05pm", "0000-01-01 12:05:00 +0000 UTC"),
            ("Jan _2 2006", "sep  4 2019", "2019-09-04 00:00:00 +0000 UTC"),
            ("Monday, January 2 2006", "TUESDAY,   may 14 2019", "2019-05-14 00:00:00 +0000 UTC"),
            ("02 Jan 06 15:04 MST", "04 Apr 70 21:00 UTC", "1970-04-04 21:00:00 +0000 UTC"),
            ("02 Jan 06", "04 Apr 68", "2068-04-04 00:00:00 +0000 UTC"),
            ("2006-01-02 15:04:05 MST", "2024-12-29 14:30:00 EST", "2024-12-29 14:30:00 +0000 EST"),
            ("2006-01-02 15:04 MST", "2024-12-29 14:30 GMT+3", "2024-12-29 14:30:00 +0300 GMT+3"),
            ("2006-01-02 15:04 -0700 MST", "2024-07-29 14:30 +0200 CEST", "2024-07-29 14:30:00 +0200 CEST"),
            ("2006-002", "2024-060", "2024-02-29 00:00:00 +0000 UTC"),
            ("2006-__2", "2023- 60", "2023-03-01 00:00:00 +0000 UTC"),
            ("05.000", "07.125", "0000-01-01 00:00:07.125 +0000 UTC"),
            ("05.999", "07", "0000-01-01 00:00:07 +0000 UTC"),
            ("05", "07,5", "0000-01-01 00:00:07.5 +0000 UTC"),
            ("05.999", "07.1234567899", "0000-01-01 00:00:07.123456789 +0000 UTC"),
        ],
    )
    def test_a_value_is_read_as_go_reads_it(self, lua: ModuleBench, layout: str, value: str, expected: str) -> None:
        assert lua.text("time.parse(...)", layout, value) == expected

    @pytest.mark.parametrize(
        ("layout", "value", "message"),
        [
            (
                "2006-01-02T15:04:05Z07:00",
                "invalid",
                'parsing time "invalid" as "2006-01-02T15:04:05Z07:00": cannot parse "invalid" as "2006"',
            ),
            ("2006-01-02", "2024-13-01", 'parsing time "2024-13-01": month out of range'),
            ("2006-01-02", "2023-02-29", 'parsing time "2023-02-29": day out of range'),
            ("2006-01-02", "2024-02-00", 'parsing time "2024-02-00": day out of range'),
            ("2006-002", "2023-366", 'parsing time "2023-366": day-of-year out of range'),
            ("2006-01-02 002", "2023-03-02 060", 'parsing time "2023-03-02 060": day-of-year does not match day'),
            ("2006-01 002", "2023-02 060", 'parsing time "2023-02 060": day-of-year does not match month'),
            ("15:04", "24:00", 'parsing time "24:00": hour out of range'),
            ("15:04", "10:60", 'parsing time "10:60": minute out of range'),
            ("15:04", "10:00 ", 'parsing time "10:00 ": extra text: " "'),
            ("15:04", "1000", 'parsing time "1000" as "15:04": cannot parse "00" as ":"'),
            ("Jan", "Foo", 'parsing time "Foo" as "Jan": cannot parse "Foo" as "Jan"'),
            ("-07:00", "+25:00", 'parsing time "+25:00": time zone offset hour out of range'),
            ("2006", "20\n6", 'parsing time "20\\n6" as "2006": cannot parse "20\\n6" as "2006"'),
        ],
    )
    def test_what_does_not_fit_is_told_in_gos_words(
        self, lua: ModuleBench, layout: str, value: str, message: str
    ) -> None:
        assert lua.error("time.parse(...)", layout, value) == ("Invalid", message)

    def test_a_value_without_a_zone_is_in_the_location_that_is_given(self, lua: ModuleBench) -> None:
        there = 'time.load_location("America/New_York")'
        text = lua.text(f'time.parse("2006-01-02 15:04", "2024-12-29 14:30", {there})')
        assert text == "2024-12-29 14:30:00 -0500 EST"

    def test_an_abbreviation_means_what_it_means_there(self, lua: ModuleBench) -> None:
        there = 'time.load_location("America/New_York")'
        text = lua.text(f'time.parse("2006-01-02 15:04 MST", "2024-07-01 12:00 EDT", {there})')
        assert text == "2024-07-01 12:00:00 -0400 EDT"

    def test_an_abbreviation_that_has_changed_its_meaning_means_what_it_meant_then(self, lua: ModuleBench) -> None:
        """Moscow's MSK went from +4 to +3 at 2:00 that night."""
        there = 'time.load_location("Europe/Moscow")'
        text = lua.text(f'time.parse("2006-01-02 15:04 MST", "2014-10-26 00:00 MSK", {there})')
        assert text == "2014-10-26 00:00:00 +0400 MSK"

    def test_an_offset_that_holds_there_names_the_location(self, lua: ModuleBench) -> None:
        there = 'time.load_location("America/New_York")'
        layout = '"2006-01-02T15:04:05Z07:00"'
        assert lua.value(f'time.parse({layout}, "2024-07-01T12:00:00-04:00", {there}):location():string()') == (
            "America/New_York"
        )
        assert lua.value(f'time.parse({layout}, "2024-07-01T12:00:00-05:00", {there}):location():string()') == ""

    @pytest.mark.parametrize("arguments", ["5", '"2006"', '"2006", "2024", "UTC"', "nil, nil"])
    def test_wrong_arguments_are_invalid(self, lua: ModuleBench, arguments: str) -> None:
        assert lua.error(f"time.parse({arguments})")[0] == "Invalid"


class TestAgainstPython:
    """Python's datetime as the second opinion, over random moments."""

    ZONES = ("UTC", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe", "Pacific/Apia", "Europe/Dublin")

    @given(
        moment=st.datetimes(datetime(1, 1, 3), datetime(9999, 12, 28)),  # noqa: DTZ001  # zone comes below
        zone=st.sampled_from(ZONES),
    )
    @settings(max_examples=200)
    def test_fields_and_text_agree(self, lua: ModuleBench, moment: datetime, zone: str) -> None:
        there = moment.replace(tzinfo=UTC).astimezone(ZoneInfo(zone))
        seconds = (moment - datetime(1970, 1, 1)) // timedelta(seconds=1)  # noqa: DTZ001  # both are UTC
        found = lua.run(
            "local s, n, zone = ... local t = time.unix(s, n):in_location(time.load_location(zone)) "
            'local text = t:format("2006-01-02 15:04:05.000000 MST") '
            "return { text, t:weekday(), t:year_day(), t:unix(), t:nanosecond() }",
            seconds,
            moment.microsecond * 1000,
            zone,
        )
        text = f"{there.year:04}-{there:%m-%d %H:%M:%S.%f %Z}"
        weekday = there.isoweekday() % 7
        assert found == [text, weekday, there.timetuple().tm_yday, seconds, moment.microsecond * 1000]

    @given(moment=st.datetimes(datetime(1, 1, 3), datetime(9999, 12, 28)))  # noqa: DTZ001
    @settings(max_examples=100)
    def test_what_was_written_can_be_read(self, lua: ModuleBench, moment: datetime) -> None:
        code = (
            "local s, n = ... local t = time.unix(s, n):utc() "
            "for _, layout in ipairs{ time.RFC3339NANO, 'Monday 2 Jan 2006 3:04:05.999999999 PM -07:00', "
            "  '2006 002 150405.000000' } do "
            "  local back, err = time.parse(layout, t:format(layout)) "
            "  if not back or not back:equal(t) then return layout .. ': ' .. tostring(err or back) end "
            "end return 'fine'"
        )
        seconds = (moment - datetime(1970, 1, 1)) // timedelta(seconds=1)  # noqa: DTZ001
        assert lua.run(code, seconds, moment.microsecond * 1000) == "fine"
