"""Profiles over time: a SQLite file of one's own, or a PostgreSQL database that a team shares; the same tables in both.

A profile is kept whole, so that a report can be made of it again, and its values once more in rows that are searched.
"""

from __future__ import annotations

import hashlib
import json
import math
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from ..documents import parse_json
from ..errors import EdgeError, MissingExtraError
from ..schema import dump, load
from .report.words import CASE_SECTIONS, RUN_SECTIONS, clean, emulated, section
from .schema import Profile, ProfileError, Value

if TYPE_CHECKING:
    from sqlalchemy import URL, Connection, Engine, Select

SCHEMA = 1
_BUSY = 30  # seconds that a writer waits for another
_LOCK = 0x65646765  # of PostgreSQL, while tables are made


class HistoryError(EdgeError):
    """The history cannot be opened, read or written."""


@dataclass(frozen=True)
class Filter:
    """Which profiles.

    Attributes:
        bundle: beginning of the bundle's digest, with or without ``sha256:``.
        model: part of the model's name, whatever its case.
        device: part of the device's name, identity or model, whatever its case.
        commit: beginning of the commit.
        since: the earliest start.
    """

    bundle: str | None = None
    model: str | None = None
    device: str | None = None
    commit: str | None = None
    since: datetime | None = None


@dataclass(frozen=True)
class Entry:
    """One profile of the history; ``fingerprint`` is of its content, the rest as in the profile."""

    fingerprint: str
    started: str
    bundle: str
    model: str
    recipe: str
    device: str
    identity: str
    regime: str
    energy_scope: str
    commit: str | None
    validity: str
    throttling: str
    emulated: bool


@dataclass(frozen=True)
class Point:
    """One value of one profile; ``case`` is empty where it is of the whole run."""

    entry: Entry
    section: str
    case: str
    metric: str
    unit: str
    value: float | None
    low: float | None
    high: float | None
    reason: str | None


class History:
    """A history that is open.

    Args:
        where: a file, ``sqlite:///file`` or ``postgresql://...``; None is a file in the user's data folder.

    Raises:
        HistoryError: it cannot be had, is damaged, or was made by a newer edgesdk.
        MissingExtraError: SQLAlchemy, or psycopg for PostgreSQL, is not installed.
    """

    def __init__(self, where: str | Path | None = None) -> None:
        self._url = _url(where)
        self.name = self._url.database if self._url.drivername == "sqlite" else self._url.render_as_string()
        self._engine = _engine(self._url)
        self._ready = False

    def __enter__(self) -> History:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of it."""
        self._engine.dispose()

    def add(self, profile: Profile) -> bool:
        """Keep a profile; True where it was not there yet."""
        tables, row, values = _tables(), _row(profile), _value_rows(profile)
        with self._failures("written"):
            self._make()
            with self._engine.begin() as connection:
                insert = _insert(connection, tables.profile)
                statement = insert.values(row).on_conflict_do_nothing(index_elements=["fingerprint"])
                number = connection.execute(statement.returning(tables.profile.c.id)).scalar()
                if number is None:
                    return False
                if values:
                    connection.execute(tables.value.insert(), [{"profile": number, **each} for each in values])
                return True

    def entries(self, only: Filter | None = None) -> list[Entry]:
        """What is kept, the oldest first."""
        return [_entry(row) for row in self._read(_select(_tables().entry, only))]

    def profiles(self, only: Filter | None = None) -> Iterator[Profile]:
        """Profiles whole, the oldest first."""
        for row in self._read(_select((_tables().profile.c.document,), only)):
            try:
                text = zlib.decompress(row.document)
            except zlib.error as failure:
                raise self._damaged(failure) from None
            data = parse_json(text, str(self.name), ProfileError)
            yield load(Profile, data, f"{self.name}", ProfileError)

    def metrics(self) -> list[str]:
        """Names of values that any profile has."""
        from sqlalchemy import select

        column = _tables().value.c.metric
        return sorted(row.metric for row in self._read(select(column).distinct()))

    def trend(self, metric: str, case: str | None = None, only: Filter | None = None) -> list[Point]:
        """One value in every profile, the oldest first; ``case`` is a case's title."""
        tables = _tables()
        value = tables.value
        columns = (*tables.entry, value.c.section, value.c.case_title, value.c.metric, value.c.unit, value.c.value,
                   value.c.low, value.c.high, value.c.reason)  # fmt: skip
        query = _select(columns, only).join(value, value.c.profile == tables.profile.c.id)
        query = query.where(value.c.metric == metric).order_by(value.c.id)
        if case is not None:
            query = query.where(value.c.case_title == case)
        return [Point(_entry(row), row.section, row.case_title, row.metric, row.unit, row.value, row.low, row.high,
                      row.reason) for row in self._read(query)]  # fmt: skip

    def _read(self, query: Select[Any]) -> list[Any]:
        if not self._ready and self._url.drivername == "sqlite" and not Path(self._url.database or "").exists():
            return []  # a look makes no file
        with self._failures("read"), self._engine.connect() as connection:
            return list(connection.execute(query)) if self._checked(connection) else []

    def _make(self) -> None:
        """Make the tables where there are none; several writers at once make them once."""
        if self._ready:
            return
        from sqlalchemy import inspect, text
        from sqlalchemy.schema import CreateIndex, CreateTable

        tables = _tables()
        if self._url.drivername == "sqlite":
            Path(self._url.database or "").absolute().parent.mkdir(parents=True, exist_ok=True)
        with self._engine.connect() as connection:
            there = inspect(connection).has_table(tables.version.name) and self._checked(connection)
        if there:
            self._ready = True
            return
        with self._engine.begin() as connection:
            if connection.dialect.name == "postgresql":
                connection.execute(text(f"SELECT pg_advisory_xact_lock({_LOCK})"))
            else:
                connection.execute(text("BEGIN IMMEDIATE"))
            for table in (tables.version, tables.profile, tables.value):
                connection.execute(CreateTable(table, if_not_exists=True))
                for index in sorted(table.indexes, key=lambda each: str(each.name)):
                    connection.execute(CreateIndex(index, if_not_exists=True))
            first = _insert(connection, tables.version).values(id=1, version=SCHEMA)
            connection.execute(first.on_conflict_do_nothing())
            self._checked(connection)
        self._ready = True

    def _checked(self, connection: Connection) -> bool:
        """Whether the tables are there; those of a newer edgesdk are refused."""
        if self._ready:
            return True
        from sqlalchemy import inspect, select

        version = _tables().version
        if not inspect(connection).has_table(version.name):
            return False
        found = connection.execute(select(version.c.version)).scalar()
        if found is not None and found != SCHEMA:
            hint = "use the edgesdk that made it, or a newer one; --db names another"
            raise HistoryError(f"{self.name}: schema {found} of the history, this edgesdk knows {SCHEMA}", hint=hint)
        self._ready = found is not None
        return self._ready

    @contextmanager
    def _failures(self, what: str) -> Iterator[None]:
        from sqlalchemy.exc import DBAPIError, SQLAlchemyError

        try:
            yield
        except DBAPIError as failure:
            raise self._told(failure.orig or failure, what) from None
        except SQLAlchemyError as failure:
            raise HistoryError(f"{self.name}: the history cannot be {what} ({failure})") from None
        except OSError as failure:
            text = failure.strerror or str(failure)
            raise HistoryError(f"{self.name}: the history cannot be {what} ({text})", hint=_ELSEWHERE) from None

    def _told(self, failure: BaseException, what: str) -> HistoryError:
        text = " ".join(str(failure).split())
        if any(word in text for word in ("not a database", "malformed", "no such column")):
            return self._damaged(failure)
        hint = _ELSEWHERE
        if "locked" in text:
            hint = "another program writes it without end; stop that, or name another history with --db"
        elif self._url.drivername != "sqlite":
            hint = "check the URL, that the server runs, and that this user may create tables there"
        return HistoryError(f"{self.name}: the history cannot be {what} ({text})", hint=hint)

    def _damaged(self, failure: BaseException) -> HistoryError:
        hint = "move it away: a new one is made, and 'edgesdk history add PROFILE...' fills it again"
        return HistoryError(f"{self.name}: no history, or a damaged one ({failure})", hint=hint)


_ELSEWHERE = "make it writable, or name another history with --db"


def default_path() -> Path:
    """The user's own history."""
    import platformdirs

    return platformdirs.user_data_path("edgesdk", appauthor=False) / "history.sqlite"


def since(text: str) -> datetime:
    """A moment from ISO 8601; a day begins at midnight, UTC where no zone is given.

    Raises:
        EdgeError: it is none.
    """
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise EdgeError(f"'{text}' is no date", hint="as in 2026-11-20 or 2026-11-20T09:00+01:00") from None
    return found if found.tzinfo else found.replace(tzinfo=timezone.utc)


def _url(where: str | Path | None) -> URL:
    try:
        from sqlalchemy import URL, make_url
        from sqlalchemy.exc import ArgumentError
    except ModuleNotFoundError:
        raise MissingExtraError("sqlalchemy", "profile") from None

    if where is None or isinstance(where, Path) or "://" not in where:
        return URL.create("sqlite", database=str(default_path() if where is None else where))
    try:
        url = make_url(where)
    except (ArgumentError, ValueError):
        raise HistoryError("--db is no URL", hint=_URLS) from None
    kind = url.drivername.partition("+")[0]
    if kind in ("postgresql", "postgres"):
        try:
            import psycopg  # noqa: F401
        except ModuleNotFoundError:
            raise MissingExtraError("psycopg", "profile") from None
        return url.set(drivername="postgresql+psycopg")
    if kind == "sqlite" and url.database:
        return url.set(drivername="sqlite")
    raise HistoryError(f"a history is not kept in {url.drivername}", hint=_URLS)


_URLS = "a file, sqlite:///FILE or postgresql://USER@HOST/DATABASE"


def _engine(url: URL) -> Engine:
    from sqlalchemy import create_engine
    from sqlalchemy.pool import NullPool

    # No write-ahead log: with one, a file in a folder that may only be read cannot be read either.
    options: dict[str, Any] = {"timeout": _BUSY} if url.drivername == "sqlite" else {"connect_timeout": _BUSY}
    return create_engine(url, poolclass=NullPool, connect_args=options)


@cache
def _tables() -> SimpleNamespace:
    from sqlalchemy import (
        BigInteger,
        Boolean,
        Column,
        Double,
        ForeignKey,
        Index,
        Integer,
        LargeBinary,
        MetaData,
        Table,
        Text,
    )

    data = MetaData()
    number = BigInteger().with_variant(Integer, "sqlite")  # SQLite counts up only what is called INTEGER
    version = Table("edgesdk_history", data, Column("id", Integer, primary_key=True),
                    Column("version", Integer, nullable=False))  # fmt: skip
    names = ("started_text", "bundle", "model", "recipe", "device", "identity", "regime", "energy_scope",
             "validity", "throttling")  # fmt: skip
    profile = Table(
        "edgesdk_profile",
        data,
        Column("id", number, primary_key=True),
        Column("fingerprint", Text, nullable=False, unique=True),
        Column("started", Double, nullable=False),  # seconds since 1970
        *(Column(name, Text, nullable=False) for name in names),
        Column("device_words", Text, nullable=False),  # lower case, to be searched
        Column("model_words", Text, nullable=False),
        Column("commit_id", Text),
        Column("emulated", Boolean, nullable=False),
        Column("document", LargeBinary, nullable=False),  # JSON, deflated
        Index("edgesdk_profile_started", "started"),
        Index("edgesdk_profile_bundle", "bundle"),
    )
    value = Table(
        "edgesdk_value",
        data,
        Column("id", number, primary_key=True),
        Column("profile", number, ForeignKey("edgesdk_profile.id", ondelete="CASCADE"), nullable=False),
        *(Column(name, Text, nullable=False) for name in ("section", "case_title", "metric", "unit")),
        *(Column(name, Double) for name in ("value", "low", "high")),
        Column("reason", Text),
        Index("edgesdk_value_metric", "metric", "profile"),
    )
    c = profile.c
    entry = (c.fingerprint, *(c[name] for name in names), c.commit_id, c.emulated)
    return SimpleNamespace(version=version, profile=profile, value=value, entry=entry)


def _insert(connection: Connection, table: Any) -> Any:
    """An insert that can pass over what is there; the databases agree on it, SQLAlchemy has one for each."""
    if connection.dialect.name == "postgresql":
        from sqlalchemy.dialects import postgresql

        return postgresql.insert(table)
    from sqlalchemy.dialects import sqlite

    return sqlite.insert(table)


def _select(columns: tuple[Any, ...], only: Filter | None) -> Select[Any]:
    from sqlalchemy import or_, select

    c, only = _tables().profile.c, only or Filter()
    query = select(*columns).order_by(c.started, c.fingerprint)
    if only.bundle:
        starts = (only.bundle, f"sha256:{only.bundle}")
        query = query.where(or_(*(c.bundle.startswith(each, autoescape=True) for each in starts)))
    if only.model:
        query = query.where(c.model_words.contains(only.model.lower(), autoescape=True))
    if only.device:
        query = query.where(c.device_words.contains(only.device.lower(), autoescape=True))
    if only.commit:
        query = query.where(c.commit_id.startswith(only.commit, autoescape=True))
    return query if only.since is None else query.where(c.started >= only.since.timestamp())


def _row(profile: Profile) -> dict[str, Any]:
    # by way of load: 600 and 600.0 are one number, in memory or from a file
    same = load(Profile, json.loads(json.dumps(dump(profile))), "profile", ProfileError)
    text = json.dumps(dump(same), sort_keys=True, separators=(",", ":"))
    bundle, device = profile.bundle, profile.device
    words = " ".join(filter(None, (device.name, device.identity, device.model)))
    return {
        "fingerprint": hashlib.sha256(text.encode()).hexdigest(),
        "started": _moment(profile.started).timestamp(),
        "started_text": clean(profile.started),
        "bundle": clean(bundle.digest),
        "model": clean(bundle.model),
        "recipe": clean(bundle.recipe),
        "device": clean(device.name),
        "identity": clean(device.identity),
        "energy_scope": clean(profile.energy_scope or ""),
        "regime": clean("; ".join(f"{key}: {value}" for key, value in sorted(profile.regime.items()))),
        "validity": profile.validity,
        "throttling": profile.throttling.verdict,
        "device_words": clean(words).lower(),
        "model_words": clean(bundle.model).lower(),
        "commit_id": clean(profile.commit) if profile.commit else None,
        "emulated": emulated(profile) is not None,
        "document": zlib.compress(text.encode(), 6),
    }


def _moment(text: str) -> datetime:
    try:
        return since(text)
    except EdgeError:
        raise ProfileError(f"a profile that started at '{clean(text)}': no date") from None


def _value_rows(profile: Profile) -> list[dict[str, Any]]:
    parts = [("", name, section(profile, name)) for name in RUN_SECTIONS]
    parts += [(case.title, name, section(case, name)) for case in profile.cases for name in CASE_SECTIONS]
    return [_value_row(case, name, key, value) for case, name, part in parts for key, value in part.values.items()]


def _value_row(case: str, name: str, metric: str, value: Value) -> dict[str, Any]:
    return {
        "section": name,
        "case_title": case,
        "metric": clean(metric),
        "unit": clean(value.unit),
        "value": _finite(value.value),
        "low": _finite(value.low),
        "high": _finite(value.high),
        "reason": clean(value.reason) if value.reason else None,
    }


def _finite(value: float | None) -> float | None:
    """A figure that both databases keep alike."""
    return value if value is not None and math.isfinite(value) else None


def _entry(row: Any) -> Entry:
    found: Mapping[str, Any] = row._mapping
    names = ("fingerprint", "bundle", "model", "recipe", "device", "identity", "regime", "energy_scope", "validity",
             "throttling")  # fmt: skip
    texts = {name: found[name] for name in names}
    return Entry(started=found["started_text"], commit=found["commit_id"], emulated=bool(found["emulated"]), **texts)
