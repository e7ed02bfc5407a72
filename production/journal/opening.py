"""Opening a journal: new at head or not at all, one writer, readers that cannot write, and one clear line for anything else."""
import os
import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from urllib.parse import quote

from filelock import FileLock, Timeout
from sqlalchemy import Connection, Engine, create_engine, event, inspect, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, IntegrityError, SQLAlchemyError
from sqlalchemy.pool import NullPool, QueuePool

from production.journal.tables import HEAD, OLDER
from trading_lib.core.errors import BadInput, Damaged, Refused, TradingError, Unreachable

RESTORE = 'restore it from a backup, or move it away to begin a new one'


def address(where: str | Path) -> URL:
    "A path or an SQLAlchemy URL, as a URL."
    if '://' not in str(where): return URL.create('sqlite', database=str(Path(where).expanduser()))
    try: url = make_url(str(where))
    except ArgumentError: raise BadInput(f'journal was {where!r}; write a path, sqlite:///PATH or postgresql+psycopg://USER@HOST/DATABASE') from None
    if url.get_backend_name() not in ('sqlite', 'postgresql') or not url.database:
        raise BadInput(f'journal was {url.render_as_string()}; it can be kept in SQLite or PostgreSQL')
    return url


def named(url: URL) -> str:
    "How a journal is called in a message: never with a password."
    return url.database if url.get_backend_name() == 'sqlite' else url.render_as_string(hide_password=True)


@contextmanager
def translated(url: URL) -> Iterator[None]:
    "The database's errors as ours, at this one boundary."
    try: yield
    except TradingError: raise
    except IntegrityError as error:
        raise Refused(f'journal {named(url)}: this was written down before ({_line(error)})') from error
    except (SQLAlchemyError, sqlite3.Error, OSError) as error:
        line = _line(error)
        if re.search('malformed|not a database|no such (table|column)|disk image', line):
            raise Damaged(f'journal {named(url)} is damaged ({line}); {RESTORE}') from error
        if url.get_backend_name() == 'sqlite':
            raise BadInput(f'journal {named(url)} cannot be used ({line}); check the disk, its free space and its permissions') from error
        raise Unreachable(f'journal {named(url)} cannot be reached ({line}); start the database, or keep the journal in a file') from error


def _line(error: Exception) -> str:
    return str(getattr(error, 'orig', None) or error).strip().splitlines()[0]


@dataclass(frozen=True)
class Lock:
    "A lock that ends with this process; call it to give it back."
    give_back: Callable[[], None]
    connection: Connection | None = None   # a database's lock ends with its connection too

    def __call__(self): self.give_back()

    def held(self) -> bool:
        "Is it still ours? A connection that broke took its lock along."
        if self.connection is None: return True
        try:
            self.connection.scalar(text('select 1'))
            self.connection.commit()
        except SQLAlchemyError: return False
        return True


def lock(url: URL, name: str, engine: Engine | None = None) -> Lock:
    "Take a lock on a name. Raises `Refused` where another process has it."
    if url.get_backend_name() == 'sqlite':
        path = Path(url.database).resolve()
        path.parent.mkdir(parents=True, exist_ok=True)
        held = FileLock(path.with_name(re.sub(r'[^\w.-]', '_', name) + '.lock'))
        try: held.acquire(blocking=False)
        except Timeout: raise Refused(f'{name} is in use by another process (lock {held.lock_file}); stop that one first') from None
        return Lock(held.release)
    connection = engine.connect()
    number = int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), signed=True)
    taken = connection.scalar(text('select pg_try_advisory_lock(:n)'), {'n': number})
    connection.commit()   # the lock belongs to the session; only an idle connection is kept
    if not taken:
        connection.close()
        raise Refused(f'{name} is in use by another process (advisory lock in {named(url)}); stop that one first')
    return Lock(connection.close, connection)


def schema(engine: Engine) -> str:
    "Which of the journals that a PostgreSQL database may hold."
    with engine.connect() as connection: return connection.scalar(text('select current_schema()'))


def writer(url: URL) -> Engine:
    "The engine with the one connection that writes, to a journal at head; a missing one is made first, an older one upgraded."
    with translated(url):
        if url.get_backend_name() == 'sqlite' and not Path(url.database).exists(): _make_file(Path(url.database))
        if url.get_backend_name() == 'postgresql': _make_tables(url)
        if _looked_at(url) != HEAD: _upgrade_file(url)   # looked at before it is touched
        return _engine(url, 'rw')


def reader(url: URL) -> Engine:
    "An engine that cannot write."
    if url.get_backend_name() == 'sqlite' and not Path(url.database).exists():
        raise BadInput(f'there is no journal {named(url)}; the first paper or live run makes one')
    with translated(url):
        engine = _engine(url, 'ro')
        with engine.connect() as connection: revision = _revision(connection, url)
        if revision == HEAD: return engine
        engine.dispose()
        raise Refused(f'journal {named(url)} is at revision {revision} and this program needs {HEAD}; upgrade it with: trading migrate')


def _looked_at(url: URL) -> str:
    "The revision of a journal that hangs together."
    engine = _engine(url, 'ro')
    try:
        with engine.connect() as connection: return _revision(connection, url, thorough=True)
    finally: engine.dispose()


def _engine(url: URL, mode: str, foreign_keys: str = 'ON') -> Engine:
    "Transactions begin where we say so, and a writer's take the write lock at once."
    if url.get_backend_name() == 'postgresql':
        return create_engine(url, pool_pre_ping=True).execution_options(postgresql_readonly=mode == 'ro')
    file = f'file:{quote(str(Path(url.database).resolve()))}?mode={mode}'
    # SQLite before 3.51.3 may damage a write-ahead log with two writers, hence one connection
    pool = dict(poolclass=QueuePool, pool_size=1, max_overflow=0) if mode == 'rw' else dict(poolclass=NullPool)
    engine = create_engine('sqlite://', creator=lambda: sqlite3.connect(file, uri=True, isolation_level=None, check_same_thread=False), **pool)

    @event.listens_for(engine, 'connect')
    def _(connection, _):
        wanted = [f'foreign_keys={foreign_keys}', 'mmap_size=0', 'busy_timeout=5000'] + ['journal_mode=WAL', 'synchronous=FULL'] * (mode == 'rw')
        for pragma in wanted: connection.execute(f'PRAGMA {pragma}')

    @event.listens_for(engine, 'begin')
    def _(connection): connection.exec_driver_sql('BEGIN IMMEDIATE' if mode == 'rw' else 'BEGIN')
    return engine


def _make_file(path: Path):
    "A whole journal under a passing name, then the real one: a crash leaves either none or all of it."
    path.parent.mkdir(parents=True, exist_ok=True)
    refuse_leftovers(path)
    draft = path.with_name(f'.{path.name}.{os.getpid()}')
    try:
        draft.touch()
        _upgrade_file(URL.create('sqlite', database=str(draft)))
        os.rename(draft, path)
        folder = os.open(path.parent, os.O_RDONLY)
        try: os.fsync(folder)
        finally: os.close(folder)
    finally:
        for left in path.parent.glob(draft.name + '*'): left.unlink()


def refuse_leftovers(path: Path):
    "The log of a journal that was moved away would be played into the one that takes its place."
    left = path.with_name(path.name + '-wal')
    if left.exists(): raise Damaged(f'{left} is left of a journal that was moved away; move it along')


def _upgrade_file(url: URL):
    "To head, in one transaction: a crash leaves it as it was. A table that is made anew must not take its children along, hence no foreign keys."
    engine = _engine(url, 'rw', foreign_keys='OFF')
    try:
        with engine.begin() as connection:
            upgrade(connection)
            if lost := connection.exec_driver_sql('PRAGMA foreign_key_check').all(): raise Damaged(f'journal {named(url)}: {lost[0]} has no parent; {RESTORE}')
    finally: engine.dispose()   # folds the write-ahead log into the file


def _make_tables(url: URL):
    "The tables where there are none, or at head where they are older; one process does it while others wait."
    engine = _engine(url, 'rw')
    with engine.begin() as connection:
        connection.execute(text("select pg_advisory_xact_lock(hashtext('journal'))"))
        if not inspect(connection).has_table('journal_version') or _revision(connection, url) != HEAD: upgrade(connection)
    engine.dispose()


def upgrade(connection, to: str = 'head'):
    "Bring a database to a revision, within the transaction that is open."
    from alembic import command
    from alembic.config import Config
    config = Config(attributes={'connection': connection})
    config.set_main_option('script_location', 'production.journal:migrations')
    command.upgrade(config, to)


def _revision(connection, url: URL, thorough: bool = False) -> str:
    "Head, or what can be brought there; refuses what is not a journal, is newer, or does not hang together."
    if not inspect(connection).has_table('journal_version'):
        raise Damaged(f'{named(url)} is not a journal of this program; name another file, or move it away')
    revision = connection.scalar(text('select version_num from journal_version'))
    if revision not in (HEAD, *OLDER):
        raise Damaged(f'journal {named(url)} is at revision {revision} and this program needs {HEAD}; '
                      f'use the program that wrote it, or {RESTORE}')
    if thorough and url.get_backend_name() == 'sqlite':
        found = connection.exec_driver_sql('PRAGMA integrity_check').scalar()
        if found != 'ok': raise Damaged(f'journal {named(url)} is damaged ({str(found).splitlines()[0]}); {RESTORE}')
    return revision
