"""Columns of a bulk statement as arrays in PostgreSQL's binary form: one join a column, where psycopg would
dump value by value, which costs more than the server's whole work on them."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import Any

import psycopg
from psycopg import postgres
from psycopg.adapt import Dumper
from psycopg.pq import Format

from actors.database import Kind

_HEAD = struct.Struct("!iiIii").pack  # dimensions, whether there are NULLs, type; size, first index
_LENGTH = struct.Struct("!i").pack
_INT8 = struct.Struct("!iq").pack
_NULL = _LENGTH(-1)


class Column(list[Any]):
    """Of one kind; None is NULL."""


class Ints(Column):
    pass


class Texts(Column):
    pass


class Blobs(Column):
    pass


class _ArrayDumper(Dumper):
    format = Format.BINARY
    element = 0

    def dump(self, obj: Column) -> bytes:
        head = _HEAD(1, int(None in obj), self.element, len(obj), 1)
        return head + b"".join(self.parts(obj))

    def parts(self, column: Column) -> Iterator[bytes]:
        """Each element with its length before it."""
        for value in column:
            if value is None:
                yield _NULL
            else:
                yield _LENGTH(len(value))
                yield value


class _Ints(_ArrayDumper):
    element = postgres.types["int8"].oid
    oid = postgres.types["int8"].array_oid

    def parts(self, column: Column) -> Iterator[bytes]:
        return (_NULL if value is None else _INT8(8, value) for value in column)


class _Texts(_ArrayDumper):
    element = postgres.types["text"].oid
    oid = postgres.types["text"].array_oid

    def parts(self, column: Column) -> Iterator[bytes]:
        return super().parts(Column(None if value is None else value.encode() for value in column))


class _Blobs(_ArrayDumper):
    element = postgres.types["bytea"].oid
    oid = postgres.types["bytea"].array_oid


_COLUMNS: dict[Kind, type[Column]] = {"int": Ints, "text": Texts, "bytes": Blobs}


def register(connection: psycopg.Connection[Any]) -> None:
    for column, dumper in ((Ints, _Ints), (Texts, _Texts), (Blobs, _Blobs)):
        connection.adapters.register_dumper(column, dumper)


def columns_of(kinds: Sequence[Kind], rows: Sequence[Sequence[Any]]) -> list[Column]:
    return [_COLUMNS[kind](values) for kind, values in zip(kinds, zip(*rows, strict=True), strict=True)]
