"""Patterns agree with `re` where both can answer, and answer fast where `re` cannot."""

from __future__ import annotations

import random
import re
import time
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wippy_queue.patterns import MAX_TEXT, Pattern

_ATOMS = st.sampled_from(["a", "b", "c", ".", "[ab]", "[^a]", "[a-c]", r"\d", r"\W", r"\.", "^", "$", "1", ""])
_REPEATS = st.sampled_from(["", "", "*", "+", "?", "{2}", "{1,2}", "{0,1}", "{1,}", "*?", "+?"])


def _repeat(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    group = st.tuples(inner, _REPEATS).map(lambda pair: f"(?:{pair[0]}){pair[1]}")
    return st.one_of(
        group,
        st.lists(inner, min_size=1, max_size=3).map("".join),
        st.lists(inner, min_size=2, max_size=3).map("|".join),
    )


_PATTERNS = st.recursive(_ATOMS, _repeat, max_leaves=8)
_TEXTS = st.text(alphabet="abc1.", max_size=8)


@settings(max_examples=600)
@given(pattern=_PATTERNS, text=_TEXTS)
def test_a_search_finds_what_re_finds(pattern: str, text: str) -> None:
    assert Pattern(pattern).search(text) == bool(re.search(pattern, text))


@pytest.mark.parametrize(
    ("pattern", "matching", "other"),
    [
        ("^api:/v[0-9]+/admin/.*", "api:/v12/admin/users", "web:/api:/v1/admin/"),
        (r"^user:\d{1,3}$", "user:123", "user:1234"),
        (r"\w+@(example|test)\.com$", "me@example.com", "me@exampleXcom"),
        ("^(read|write)$", "write", "writer"),
        ("", "anything", None),
        (r"[\]\-x]", "]", "a"),
        ("[]a]", "]", "b"),
        ("[a-]", "-", "b"),
        ("a{2,}b", "aab", "ab"),
        (r"^\S+\s\S+$", "one two", "one"),
        ("^(문서|글):.+", "문서:1", "문:1"),
        ("a|", "zzz", None),
        (r"^[^\d]+$", "abc", "ab1"),
        ("x}", "x}", "x"),
    ],
)
def test_what_policies_write_matches_as_expected(pattern: str, matching: str, other: str | None) -> None:
    compiled = Pattern(pattern)
    assert compiled.search(matching)
    assert other is None or not compiled.search(other)


@pytest.mark.parametrize(
    ("pattern", "why"),
    [
        ("(a", "a ( without a )"),
        ("a)", "a ) without a ("),
        ("[a", "a [ without a ]"),
        ("*a", "nothing to repeat"),
        ("a**", "directly after another"),
        ("a{2,1}", "the smaller number first"),
        ("a{x}", "expected {3}"),
        ("a{2", "expected {3}"),
        ("a{1001}", "from 0 to 1000"),
        ("[z-a]", "to a higher one"),
        (r"[\d-z]", "to a higher one"),
        (r"\b", "not supported"),
        (r"(a)\1", "not supported"),
        ("(?i)a", "only (?: is supported"),
        ("(?<name>a)", "only (?: is supported"),
        ("[[:alpha:]]", "not supported"),
        ("\\", "not supported"),
        ("(((((a{9}){9}){9}){9}){9})", "too large"),
        ("((((){1000}){1000}){1000}){1000}", "too large"),
        ("(" * 51 + ")" * 51, "groups in groups"),
        ("a" * 1001, "longer than 1000"),
    ],
)
def test_a_bad_pattern_says_what_is_wrong(pattern: str, why: str) -> None:
    with pytest.raises(ValueError, match=re.escape(why)):
        Pattern(pattern)


@pytest.mark.parametrize(
    "pattern",
    ["^(a+)+$", "^(a|a)*$", "^(a|aa)+$", "^(.*a){20}$", "(a?){200}a{200}", "^(([a-z])+.)+[A-Z]([a-z])+$", "(.+)*.*=.*"],
)
def test_no_text_makes_a_search_hang(pattern: str) -> None:
    """Each of these takes a backtracking engine for ever."""
    compiled, text = Pattern(pattern), "a" * (MAX_TEXT - 1) + "!"
    began = time.process_time()
    compiled.search(text)
    assert time.process_time() - began < 5


def test_a_text_that_is_too_long_is_refused() -> None:
    with pytest.raises(ValueError, match="longer than 4096"):
        Pattern("a").search("a" * (MAX_TEXT + 1))


def test_a_search_gives_up_at_its_deadline() -> None:
    with pytest.raises(TimeoutError):
        Pattern("a").search("a" * 10 + "b", time.monotonic() - 1)


def test_what_a_pattern_remembers_is_bounded() -> None:
    text = "".join(random.Random(1).choice("ab") for _ in range(1000))
    tracemalloc.start()
    try:
        pattern = Pattern("[ab]*a[ab]{900}z")
        pattern.search(text)
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 6_000_000  # without a bound: more than 10 MB
