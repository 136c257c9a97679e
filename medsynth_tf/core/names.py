"""Names that are looked up in a table: the error for an unknown one names the nearest."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import TypeVar

from medsynth_tf.core.errors import UnknownNameError

T = TypeVar("T")


def suggestion(name: str, valid: Iterable[str]) -> str:
    """`; did you mean 'x'?` for the nearest valid name, or the list of them when none is near."""
    valid = sorted(valid)
    near = difflib.get_close_matches(name, valid, n=1)
    if near:
        return f"; did you mean '{near[0]}'?"
    return f"; valid: {', '.join(valid) or '(none)'}"


def look_up(table: Mapping[str, T], name: str, kind: str) -> T:
    """`table[name]`.

    Raises:
        UnknownNameError: the table has no such name; `kind` says what it is a table of.
    """
    if name not in table:
        raise UnknownNameError(f"unknown {kind} '{name}'" + suggestion(name, table))
    return table[name]
