"""What the doctor found: a tree of checks, as text or as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

State = Literal["ok", "wrong", "note"]  # a note does not count
TICKS: dict[State, str] = {"ok": "✓", "wrong": "✗", "note": "–"}


@dataclass(frozen=True)
class Check:
    """One thing that was looked at; `lines` say what is wrong and what to do, `parts` are what it consists of."""

    title: str
    state: State = "ok"
    lines: tuple[str, ...] = ()
    parts: tuple[Check, ...] = ()

    @property
    def passed(self) -> bool:
        """Nothing in it is wrong."""
        return self.shown != "wrong"

    @property
    def shown(self) -> State:
        """Its state, where a wrong part counts."""
        return self.state if all(part.passed for part in self.parts) else "wrong"

    def as_json(self) -> dict[str, Any]:
        """The same tree in JSON's types."""
        parts = [part.as_json() for part in self.parts]
        return {"title": self.title, "state": self.shown, "lines": list(self.lines), "parts": parts}

    def as_text(self, depth: int = 0) -> Iterator[str]:
        """Its lines, with ticks, indented."""
        margin = "    " * depth
        yield f"{margin}{TICKS[self.shown]} {self.title}"
        for line in self.lines:
            yield from (f"{margin}  {text}" for text in line.splitlines())
        for part in self.parts:
            yield from part.as_text(depth + 1)


def wrong(title: str, *lines: object) -> Check:
    """A fault, with what is said about it."""
    return Check(title, "wrong", tuple(map(str, lines)))


def as_note(check: Check) -> Check:
    """The same tree where no fault counts, for what was not asked for."""
    state: State = "note" if check.state == "wrong" else check.state
    return replace(check, state=state, parts=tuple(map(as_note, check.parts)))
