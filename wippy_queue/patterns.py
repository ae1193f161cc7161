"""Regular expressions that cannot be made to hang: a search takes time linear in the length of the text.

A pattern becomes a program whose steps are all followed side by side, as Ken Thompson described it (CACM 11:6, 1968)
and RE2 does it; nothing is ever tried again. The syntax is the part of RE2's that tells whether there is a match:
literals, ``.``, classes, ``\\d \\w \\s`` (ASCII) and their opposites, ``^ $``, groups, ``|``, ``* + ? {m,n}``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from time import monotonic
from typing import Any, Final, NoReturn

MAX_PATTERN: Final = 1000  # characters
MAX_TEXT: Final = 4096  # characters of a text that is searched
_MAX_PROGRAM: Final = 1000  # steps that a pattern may become; they bound what one character of a text can cost
_MAX_DEPTH: Final = 50  # groups in groups
_MAX_REPEAT: Final = 1000
_MAX_KNOWN: Final = 5000  # transitions that are remembered,
_MAX_REMEMBERED: Final = 50_000  # and the steps in them: some 3 MB

_Ranges = tuple[tuple[int, int], ...]  # of code points, both ends included

_HIGHEST: Final = 0x10FFFF
_DIGIT: Final[_Ranges] = ((48, 57),)
_WORD: Final[_Ranges] = ((48, 57), (65, 90), (95, 95), (97, 122))
_SPACE: Final[_Ranges] = ((9, 10), (12, 13), (32, 32))
_SHORT: Final = {"d": _DIGIT, "w": _WORD, "s": _SPACE}
_CONTROL: Final = {"n": "\n", "t": "\t", "r": "\r", "f": "\f", "v": "\v"}

# Steps of a program: what to do, and what belongs to it.
_CHAR, _SPLIT, _JUMP, _START, _END, _FOUND = range(6)


class Pattern:
    """A compiled pattern.

    Args:
        text: the pattern.

    Raises:
        ValueError: it is malformed, uses what is not supported, or is too large; the message says where.

    Thread safety: may be used from any thread.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self._program = _Compiler(_Parser(text).parse()).program
        self._first = self._closure([0], at_start=True)
        self._again = self._closure([0], at_start=False)  # a match may begin at any character
        self._known: dict[tuple[frozenset[int], str], frozenset[int]] = {}
        self._remembered = 0

    def search(self, text: str, deadline: float = math.inf) -> bool:
        """Return whether the pattern matches anywhere in the text.

        Args:
            text: what to search, at most ``MAX_TEXT`` characters.
            deadline: when to give up, in monotonic seconds; the worst patterns take seconds for the longest texts.

        Raises:
            ValueError: the text is too long.
            TimeoutError: the deadline has passed.
        """
        if len(text) > MAX_TEXT:
            raise ValueError(f"the text is longer than {MAX_TEXT} characters")
        found, known = len(self._program) - 1, self._known
        states = self._first
        for character in text:
            if found in states:
                return True
            following = known.get((states, character))
            if following is None:
                if monotonic() >= deadline:
                    raise TimeoutError("the search of a text has taken too long")
                following = self._step(states, ord(character))
                self._remember(states, character, following)
            states = following
        return found in states or found in self._closure(states, at_start=not text, at_end=True)

    def _remember(self, states: frozenset[int], character: str, following: frozenset[int]) -> None:
        if len(self._known) >= _MAX_KNOWN or self._remembered >= _MAX_REMEMBERED:
            self._known.clear()
            self._remembered = 0
        self._known[states, character] = following
        self._remembered += len(following)

    def _step(self, states: frozenset[int], code: int) -> frozenset[int]:
        program = self._program
        reached = [at + 1 for at in states if program[at][0] == _CHAR and _holds(program[at][1], code)]
        return self._again | self._closure(reached, at_start=False)

    def _closure(self, states: Iterable[int], *, at_start: bool, at_end: bool = False) -> frozenset[int]:
        """Return the steps that are reached without taking a character."""
        reached: set[int] = set()
        pending = list(states)
        while pending:
            at = pending.pop()
            if at in reached:
                continue
            reached.add(at)
            kind, operand = self._program[at]
            if kind == _SPLIT:
                pending.extend(operand)
            elif kind == _JUMP:
                pending.append(operand)
            elif (kind == _START and at_start) or (kind == _END and at_end):
                pending.append(at + 1)
        return frozenset(reached)


def _holds(ranges: _Ranges, code: int) -> bool:
    return any(low <= code <= high for low, high in ranges)


def _opposite(ranges: Iterable[tuple[int, int]]) -> _Ranges:
    gaps, start = [], 0
    for low, high in sorted(ranges):
        if low > start:
            gaps.append((start, low - 1))
        start = max(start, high + 1)
    return (*gaps, (start, _HIGHEST)) if start <= _HIGHEST else tuple(gaps)


class _Parser:
    """A pattern to a tree of tuples: (chars, ranges), (start,), (end,), (all, parts), (any, parts), (repeat, ...)."""

    def __init__(self, text: str) -> None:
        if len(text) > MAX_PATTERN:
            raise ValueError(f"the pattern is longer than {MAX_PATTERN} characters")
        self._text = text
        self._at = 0
        self._depth = 0

    def parse(self) -> tuple[Any, ...]:
        tree = self._alternatives()
        if self._at < len(self._text):
            self._refuse("a ) without a (")
        return tree

    def _refuse(self, why: str) -> NoReturn:
        raise ValueError(f"bad pattern at character {min(max(self._at, 1), len(self._text))}: {why}")

    def _peek(self) -> str:
        return self._text[self._at : self._at + 1]

    def _take(self) -> str:
        character = self._peek()
        self._at += 1
        return character

    def _alternatives(self) -> tuple[Any, ...]:
        parts = [self._sequence()]
        while self._peek() == "|":
            self._at += 1
            parts.append(self._sequence())
        return parts[0] if len(parts) == 1 else ("any", parts)

    def _sequence(self) -> tuple[Any, ...]:
        parts: list[tuple[Any, ...]] = []
        while self._peek() not in ("", "|", ")"):
            parts.append(self._repeated(self._atom()))
        return ("all", parts)

    def _repeated(self, atom: tuple[Any, ...]) -> tuple[Any, ...]:
        repeats = 0
        while bounds := self._bounds():
            atom = ("repeat", atom, *bounds)
            repeats += 1
            if repeats > 1:
                self._refuse("one repetition directly after another; put the first into a group")
            if self._peek() == "?":  # the shortest match instead of the longest: whether there is one is the same
                self._at += 1
        return atom

    def _bounds(self) -> tuple[int, int | None] | None:
        character = self._peek()
        simple: dict[str, tuple[int, int | None]] = {"*": (0, None), "+": (1, None), "?": (0, 1)}
        if character in simple:
            self._at += 1
            return simple[character]
        if character != "{":
            return None
        end = self._text.find("}", self._at)
        least, comma, most = self._text[self._at + 1 : end].partition(",") if end > 0 else ("", "", "")
        if not (least.isascii() and least.isdigit() and (not most or (most.isascii() and most.isdigit()))):
            self._refuse("expected {3}, {3,} or {3,5}; write \\{ for a brace")
        low = int(least[:5])
        high = (int(most[:5]) if most else None) if comma else low
        if max(low, high or 0) > _MAX_REPEAT or (high is not None and high < low):
            self._refuse(f"expected a repetition from 0 to {_MAX_REPEAT} times, the smaller number first")
        self._at = end + 1
        return low, high

    def _atom(self) -> tuple[Any, ...]:
        character = self._take()
        if character == "(":
            return self._group()
        if character == "[":
            return ("chars", self._class())
        if character == ".":
            return ("chars", _opposite([(10, 10)]))
        if character == "^":
            return ("start",)
        if character == "$":
            return ("end",)
        if character == "\\":
            return ("chars", self._escape())
        if character in "*+?{":
            self._at -= 1
            self._refuse(f"nothing to repeat before {character}")
        return ("chars", ((ord(character), ord(character)),))

    def _group(self) -> tuple[Any, ...]:
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            self._refuse(f"more than {_MAX_DEPTH} groups in groups")
        if self._peek() == "?":
            if not self._text.startswith("?:", self._at):
                self._refuse("of the groups that begin with (? only (?: is supported")
            self._at += 2
        tree = self._alternatives()
        if self._take() != ")":
            self._refuse("a ( without a )")
        self._depth -= 1
        return tree

    def _escape(self) -> _Ranges:
        character = self._take()
        if character.lower() in _SHORT:
            ranges = _SHORT[character.lower()]
            return ranges if character.islower() else _opposite(ranges)
        if character in _CONTROL:
            character = _CONTROL[character]
        elif not character or character.isalnum():
            self._refuse(f"\\{character} is not supported")
        return ((ord(character), ord(character)),)

    def _class(self) -> _Ranges:
        negated = self._peek() == "^"
        self._at += negated
        ranges: list[tuple[int, int]] = []
        first = True
        while first or self._peek() != "]":
            first = False
            low = self._class_member()
            after = self._text[self._at + 1 : self._at + 2]
            if self._peek() == "-" and after not in ("]", ""):
                self._at += 1
                high = self._class_member()
                if len(low) != 1 or len(high) != 1 or low[0][0] != low[0][1] or low[0][0] > high[0][1]:
                    self._refuse("a range in a class must lead from a character to a higher one")
                ranges.append((low[0][0], high[0][1]))
            else:
                ranges.extend(low)
        self._at += 1
        return _opposite(ranges) if negated else tuple(ranges)

    def _class_member(self) -> _Ranges:
        character = self._take()
        if not character:
            self._refuse("a [ without a ]")
        if character == "\\":
            return self._escape()
        if character == "[" and self._peek() == ":":
            self._refuse("classes like [:alpha:] are not supported")
        return ((ord(character), ord(character)),)


class _Compiler:
    """A tree to a program; its last step is that a match was found."""

    def __init__(self, tree: tuple[Any, ...]) -> None:
        self.program: list[tuple[int, Any]] = []
        self._work = 0  # a repetition of nothing costs no step, so the steps alone would bound nothing
        self._emit(tree)
        self.program.append((_FOUND, None))

    def _add(self, kind: int, operand: Any = None) -> int:
        self.program.append((kind, operand))
        return len(self.program) - 1

    def _emit(self, tree: tuple[Any, ...]) -> None:
        self._work += 1
        if self._work > 4 * _MAX_PROGRAM or len(self.program) > _MAX_PROGRAM:
            raise ValueError("the pattern is too large; repeat less")
        kind = tree[0]
        if kind == "chars":
            self._add(_CHAR, tree[1])
        elif kind == "start":
            self._add(_START)
        elif kind == "end":
            self._add(_END)
        elif kind == "all":
            for part in tree[1]:
                self._emit(part)
        elif kind == "any":
            self._emit_any(tree[1])
        else:
            self._emit_repeat(tree[1], tree[2], tree[3])

    def _emit_any(self, parts: list[tuple[Any, ...]]) -> None:
        ends = []
        for part in parts[:-1]:
            split = self._add(_SPLIT)
            self._emit(part)
            ends.append(self._add(_JUMP))
            self.program[split] = (_SPLIT, (split + 1, len(self.program)))
        self._emit(parts[-1])
        for end in ends:
            self.program[end] = (_JUMP, len(self.program))

    def _emit_repeat(self, part: tuple[Any, ...], low: int, high: int | None) -> None:
        for _ in range(low):
            self._emit(part)
        if high is None:
            split = self._add(_SPLIT)
            self._emit(part)
            self._add(_JUMP, split)
            self.program[split] = (_SPLIT, (split + 1, len(self.program)))
            return
        splits = []
        for _ in range(high - low):
            splits.append(self._add(_SPLIT))
            self._emit(part)
        for split in splits:
            self.program[split] = (_SPLIT, (split + 1, len(self.program)))
