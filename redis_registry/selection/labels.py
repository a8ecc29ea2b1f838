"""Labels: which instances will do, by what they say of themselves."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Self, cast

from redis_registry.errors import ConfigurationError
from redis_registry.model import ModelInstance

__all__ = ["Labels", "Requirement"]

Scalar = str | int | float | bool

_SYNTAX = (
    "expected name=value, name!=value, name in (a,b) or name not in (a,b), separated by "
    'commas; a name or value with other characters than letters, digits, "_./@:+-" stands in '
    "double quotes"
)
_WORD = r'"(?:[^"\\]|\\.)*"|[\w./@:+-]+'
_ITEM = re.compile(
    rf"\s*(?P<name>{_WORD})\s*"
    rf"(?:(?P<sign>!=|==?)\s*(?P<value>{_WORD})"
    rf"|(?<=[\s\"])(?P<no>not\s+)?in\s*\(\s*(?P<values>(?:{_WORD})(?:\s*,\s*(?:{_WORD}))*)\s*\))"
    r"\s*(?P<end>,|$)"
)
_PLAIN = re.compile(r"[\w./@:+-]+")


@dataclass(frozen=True, slots=True)
class Requirement:
    """What one label must, or must not, be.

    Attributes:
        name: Of the label: ``zone``, ``host`` and ``model`` are the instance's fields, any
            other is looked up in its ``metadata``.
        values: Accepted, or with ``negated`` refused, as text.
        negated: Any other value will do, and no value too.
    """

    name: str
    values: frozenset[str]
    negated: bool = False

    def match(self, instance: ModelInstance) -> bool:
        """Whether an instance meets it."""
        return (_value(instance, self.name) in self.values) is not self.negated

    def __str__(self) -> str:
        name = _quoted(self.name)
        values = [_quoted(value) for value in sorted(self.values)]
        if len(values) == 1:
            return f"{name}{'!=' if self.negated else '='}{values[0]}"
        return f"{name} {'not in' if self.negated else 'in'} ({','.join(values)})"


@dataclass(frozen=True, slots=True)
class Labels:
    """A selector of instances: all requirements must be met. Hashable; ``str()`` parses back.

    Attributes:
        requirements: In any order.
    """

    requirements: frozenset[Requirement] = frozenset()

    @classmethod
    def of(
        cls, given: Labels | Mapping[str, Scalar | Iterable[Scalar]] | str | None
    ) -> Labels:
        """Labels from whatever says them.

        Args:
            given: Labels, their text form (see :meth:`parse`), a mapping from name to the
                accepted value or several of them, or ``None`` for anybody.

        Raises:
            ConfigurationError: A text that can't be parsed, or no value given for a name.
        """
        if isinstance(given, Labels):
            return given
        if isinstance(given, str):
            return cls.parse(given)
        return cls(frozenset(_require(*item) for item in (given or {}).items()))

    @classmethod
    def parse(cls, text: str) -> Self:
        """Labels from their text form: ``gpu=a100,version!=1,zone in (a,b)``.

        ``name!=value`` and ``name not in (a,b)`` are also met by those without this label. A name
        or a value with special characters stands in double quotes.

        Raises:
            ConfigurationError: It says where parsing stopped, and what may stand there.
        """
        found: list[Requirement] = []
        at, more = 0, bool(text.strip())
        while more:
            item = _ITEM.match(text, at)
            if item is None:
                raise ConfigurationError(
                    f"labels: {text[at:]!r} of {text!r}: {_SYNTAX}"
                )
            found.append(_parsed(item))
            at, more = item.end(), item["end"] == ","
        return cls(frozenset(found))

    def match(self, instance: ModelInstance) -> bool:
        """Whether an instance meets all of them."""
        return all(requirement.match(instance) for requirement in self.requirements)

    def __str__(self) -> str:
        return ",".join(sorted(map(str, self.requirements)))


def _text(value: object) -> str | None:
    """A scalar as text, as JSON writes it; anything else equals nothing."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, (str, int, float)) else None


def _value(instance: ModelInstance, name: str) -> str | None:
    match name:
        case "zone":
            return instance.zone
        case "host":
            return instance.host
        case "model":
            return instance.model_name
        case _:
            return _text(instance.metadata.get(name))


def _require(name: str, value: object) -> Requirement:
    """That a label has this value, or one of these."""
    several = list(cast("Iterable[object]", value)) if _is_several(value) else [value]
    texts = frozenset(map(_text, several))
    if not texts or None in texts:
        raise ConfigurationError(
            f"labels: {name}={value!r}: expected a text, a number or a boolean, or several"
        )
    return Requirement(name, cast("frozenset[str]", texts))


def _is_several(value: object) -> bool:
    return isinstance(value, Iterable) and not isinstance(value, str)


def _parsed(item: re.Match[str]) -> Requirement:
    name = _unquoted(item["name"])
    if item["sign"]:
        values = [item["value"]]
        negated = item["sign"] == "!="
    else:
        values = re.findall(_WORD, item["values"])
        negated = item["no"] is not None
    return Requirement(name, frozenset(map(_unquoted, values)), negated)


def _quoted(word: str) -> str:
    if _PLAIN.fullmatch(word):
        return word
    escaped = word.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _unquoted(word: str) -> str:
    return (
        re.sub(r"\\(.)", r"\1", word[1:-1], flags=re.DOTALL) if word[0] == '"' else word
    )
