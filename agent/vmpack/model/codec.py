"""Records to JSON and back, strictly: an unknown key, a missing key or a wrong type is an error.

Only a field that is marked `ADDED` may be missing, in what an older vmpack wrote; it then has its default.

Used for the journal, the state file, the socket and the test vectors. `dumps` is canonical (sorted
keys, no spaces), so equal records give equal bytes.

A field whose annotation is a union of records is told apart by their `kind` field.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import math
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from vmpack.errors import BadDataError

T = TypeVar("T")
Decoder = Callable[[Any, str], Any]

ADDED: Mapping[str, bool] = types.MappingProxyType({"added": True})
"""Metadata of a dataclass field that came after journals were written that are still to be read.

In a named tuple it is the annotation's: `Annotated[int, ADDED] = 0`.
"""


def encode(value: Any) -> Any:
    """Turn a record (dataclass or named tuple), tuple, mapping or plain value into JSON-ready values."""
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, Mapping):
        return {key: encode(item) for key, item in value.items()}
    kind: Any = type(value)
    names = _field_names(kind)
    if names is None:
        return [encode(item) for item in value]
    return {name: encode(getattr(value, name)) for name in names}


def dumps(value: Any) -> str:
    """Canonical JSON text of a record; equal records give equal text. NaN and infinity are refused."""
    return _text(encode(value))


def digest(value: Any) -> str:
    """Short SHA-256 of the canonical text: 16 hex digits, enough to see that two records differ.

    An `ADDED` field that has its default is left out of that text: a vmpack without it gave the same digest.
    """
    return hashlib.sha256(_text(_lean(value)).encode()).hexdigest()[:16]


def _text(encoded: Any) -> str:
    return json.dumps(encoded, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _lean(value: Any) -> Any:
    """As `encode`, without the added fields that say nothing new."""
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, Mapping):
        return {key: _lean(item) for key, item in value.items()}
    kind: Any = type(value)
    names = _field_names(kind)
    if names is None:
        return [_lean(item) for item in value]
    told = {name: getattr(value, name) for name in names}
    for name, default in _added_fields(kind).items():
        if told[name] == default:
            del told[name]
    return {name: _lean(item) for name, item in told.items()}


def loads(cls: type[T], text: str | bytes) -> T:
    """Read a record from JSON text. Raises BadDataError that names the place of the first fault."""
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadDataError(f"not valid JSON: {error}") from error
    return decode(cls, data)


def decode(cls: type[T], data: Any) -> T:
    """Read a record from JSON-ready values. Raises BadDataError that names the place of the first fault."""
    wanted: Any = cls
    return typing.cast(T, _decoder(wanted)(data, cls.__name__))


@functools.cache
def _field_names(cls: Any) -> tuple[str, ...] | None:
    """Names of a record's fields (a dataclass or a named tuple), None for anything else."""
    if dataclasses.is_dataclass(cls):
        return tuple(field.name for field in dataclasses.fields(cls))
    return getattr(cls, "_fields", None)


@functools.cache
def _decoder(annotation: Any) -> Decoder:
    origin = typing.get_origin(annotation)
    arguments = typing.get_args(annotation)
    if origin is typing.Literal:
        return _literal(arguments)
    if origin in (typing.Union, types.UnionType):
        return _union(arguments)
    if origin is tuple:
        return _tuple(arguments[0])
    if origin is not None and isinstance(origin, type) and issubclass(origin, Mapping):
        return _mapping(arguments[1])
    if origin is None and _field_names(annotation) is not None:
        return _record(annotation)
    return _plain(annotation)


def _plain(wanted: type) -> Decoder:
    def read(data: Any, place: str) -> Any:
        if wanted is float and type(data) is int:
            return float(data)
        if type(data) is not wanted or (isinstance(data, float) and not math.isfinite(data)):
            raise BadDataError(f"{place}: expected {wanted.__name__}, found {_shown(data)}")
        return data

    return read


def _literal(allowed: tuple[Any, ...]) -> Decoder:
    def read(data: Any, place: str) -> Any:
        if not any(data == value and type(data) is type(value) for value in allowed):
            raise BadDataError(
                f"{place}: expected one of {', '.join(map(str, allowed))}, found {_shown(data)}"
            )
        return data

    return read


def _union(members: tuple[Any, ...]) -> Decoder:
    optional = type(None) in members
    others = [member for member in members if member is not type(None)]
    if len(others) == 1:
        inner = _decoder(others[0])
        return lambda data, place: None if data is None and optional else inner(data, place)
    if all(dataclasses.is_dataclass(member) for member in others):
        by_kind = {_kind_of(member): _decoder(member) for member in others}
        return lambda data, place: _by_kind(by_kind, data, place)
    if set(others) == {int, float}:
        return _number

    raise TypeError(f"no decoder for a union of {members}")


def _number(data: Any, place: str) -> Any:
    if type(data) not in (int, float) or not math.isfinite(data):
        raise BadDataError(f"{place}: expected a number, found {_shown(data)}")
    return data


def _kind_of(cls: Any) -> str:
    return typing.cast(str, typing.get_args(typing.get_type_hints(cls)["kind"])[0])


def _by_kind(by_kind: Mapping[str, Decoder], data: Any, place: str) -> Any:
    kind = data.get("kind") if isinstance(data, dict) else None
    read = by_kind.get(kind) if isinstance(kind, str) else None
    if read is None:
        raise BadDataError(f"{place}.kind: expected one of {', '.join(by_kind)}, found {_shown(kind)}")
    return read(data, place)


def _tuple(item: Any) -> Decoder:
    inner = _decoder(item)

    def read(data: Any, place: str) -> Any:
        if not isinstance(data, list):
            raise BadDataError(f"{place}: expected a list, found {_shown(data)}")
        return tuple(inner(entry, f"{place}[{index}]") for index, entry in enumerate(data))

    return read


def _mapping(item: Any) -> Decoder:
    inner = _decoder(item)

    def read(data: Any, place: str) -> Any:
        if not isinstance(data, dict):
            raise BadDataError(f"{place}: expected an object, found {_shown(data)}")
        return {key: inner(entry, f"{place}.{key}") for key, entry in data.items()}

    return read


def _record(cls: Any) -> Decoder:
    hints = typing.get_type_hints(cls)
    fields = {name: _decoder(hints[name]) for name in _field_names(cls) or ()}
    added = _added_fields(cls)

    def read(data: Any, place: str) -> Any:
        if not isinstance(data, dict):
            raise BadDataError(f"{place}: expected an object, found {_shown(data)}")
        unknown = sorted(data.keys() - fields.keys())
        missing = sorted(fields.keys() - data.keys() - added.keys())
        if unknown or missing:
            fault = f"unknown key {unknown[0]!r}" if unknown else f"key {missing[0]!r} is missing"
            raise BadDataError(f"{place}: {fault}")
        present = ((name, inner) for name, inner in fields.items() if name in data)
        return cls(**{name: inner(data[name], f"{place}.{name}") for name, inner in present})

    return read


@functools.cache
def _added_fields(cls: Any) -> Mapping[str, Any]:
    """The fields that are marked, with their defaults."""
    if dataclasses.is_dataclass(cls):
        return {
            field.name: _default(field) for field in dataclasses.fields(cls) if field.metadata.get("added")
        }
    hints = typing.get_type_hints(cls, include_extras=True)
    marked = [name for name, hint in hints.items() if ADDED in getattr(hint, "__metadata__", ())]
    return {name: cls._field_defaults[name] for name in marked}


def _default(field: dataclasses.Field[Any]) -> Any:
    made = field.default_factory
    return field.default if made is dataclasses.MISSING else made()


def _shown(data: Any) -> str:
    text = repr(data)
    return text if len(text) <= 60 else text[:57] + "..."
