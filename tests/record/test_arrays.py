"""Binary arrays made by hand are what PostgreSQL makes of the same values."""

from collections.abc import Callable
from itertools import pairwise
from uuid import UUID, uuid4

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.record import arrays

TEXTS = [[], ["fcm"], ["", "ü", "€", "𝄞", "a\nb", '{"x"}', "NULL"], ["fcm", "apns", "fcm"]]


@pytest.mark.parametrize("texts", TEXTS)
@pytest.mark.parametrize("make", [arrays.of_texts, arrays.of_words])
def test_texts_arrive(
    connection: psycopg.Connection, make: Callable[[list[str]], arrays.Array], texts: list[str]
) -> None:
    assert connection.execute("select %b::text[]", [make(texts)]).fetchone() == (texts,)


@pytest.mark.parametrize("n", [0, 1, 3])
def test_uuids_arrive(connection: psycopg.Connection, n: int) -> None:
    uuids = [UUID(int=0), UUID(int=2**128 - 1), uuid4()][:n]
    assert connection.execute("select %b::uuid[]", [arrays.of_uuids(uuids)]).fetchone() == (uuids,)


def ids(connection: psycopg.Connection, n: int) -> list[UUID]:
    (found,) = connection.execute("select %b::uuid[]", [arrays.of_new_ids(n)]).fetchone() or ([],)
    return list(found)


def test_new_ids_are_of_version_7_and_begin_with_the_time(connection: psycopg.Connection) -> None:
    found = ids(connection, 3)
    (now,) = connection.execute("select extract(epoch from clock_timestamp())::float8").fetchone() or (0.0,)
    assert {(each.version, each.variant) for each in found} == {(7, "specified in RFC 4122")}
    assert all(abs(now - (each.int >> 80) / 1000) < 10 for each in found)


def test_new_ids_rise_and_are_nobody_else_s(connection: psycopg.Connection) -> None:
    one, other = ids(connection, 2000), ids(connection, 2000)
    assert all(before < after for before, after in pairwise(one))
    assert not {*one} & {*other}


@given(st.integers(0, 2**12 - 1), st.integers(0, 2**61 - 1))
def test_whatever_is_drawn_they_stay_of_version_7(high: int, low: int) -> None:
    drawn = {12: high, 61: low}
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("secrets.randbits", drawn.__getitem__)
        array = arrays.of_new_ids(512)
    found = [UUID(bytes=array[at : at + 16]) for at in range(24, len(array), 20)]
    assert len({*found}) == 512
    assert {each.version for each in found} == {7}
    assert {each.variant for each in found} == {"specified in RFC 4122"}
