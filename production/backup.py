"""A copy of the journal that is known to be whole, and the way back.

A backup is always a journal in one SQLite file, whatever database it came from, with a manifest beside it: the digest of the file, of the rows of every
table, and the end of the audit. So it can be looked at with every command, and restored into either database.
"""
import json
import os
import shutil
import tempfile
from datetime import UTC, datetime
from hashlib import file_digest, sha256
from pathlib import Path

from sqlalchemy import Connection, Engine, Table, func, insert, inspect, select, text
from sqlalchemy.engine import URL

from production.journal import Journal, chain, opening, tables
from trading_lib.core.errors import BadInput, Damaged, Refused
from trading_lib.core.settings import Settings

ROWS = 1000   # copied at a time


def backup(settings: Settings, to: Path | None = None) -> dict:
    "Copy the journal, also while a bot writes it, and check the copy; answers the manifest. `to`: a folder or a file that is not there yet."
    url = opening.address(settings.journal_url)
    path = _destination(settings, to)
    with Journal.reader(settings.journal_url) as journal, opening.translated(url):
        draft = path.with_name(f'.{path.name}.{os.getpid()}')
        try:
            if url.get_backend_name() == 'sqlite':
                with journal.engine.connect().execution_options(isolation_level='AUTOCOMMIT') as connection:
                    connection.connection.driver_connection.execute('VACUUM INTO ?', (str(draft),))
                expected = None
            else: expected = _dump(journal.engine, draft)
            manifest = _manifest(draft, url)
            if expected and manifest['tables'] != expected: raise Damaged(f'the copy of {opening.named(url)} is not what was read; make another')
            os.rename(draft, path)
        finally: _remove(draft)
    manifest_of(path).write_text(json.dumps(manifest, indent=1))
    for each in (path, manifest_of(path), path.parent): _sync(each)
    return dict(file=str(path)) | manifest


def restore(path: Path, into: str) -> dict:
    "Bring a backup back into an empty place; refused if it is damaged, or if the place is not empty. Answers its manifest."
    manifest = checked(path)
    url = opening.address(into)
    with opening.translated(url), tempfile.TemporaryDirectory() as folder:
        draft = Path(folder) / 'journal.db'
        shutil.copyfile(path, draft)
        with Journal.open(draft) as journal: found = _state(journal)   # brought to head, if it is an older one
        if url.get_backend_name() == 'sqlite': _place_file(draft, Path(url.database))
        else: _place_rows(draft, url)
        with Journal.reader(into) as journal: now = _state(journal)
    if now != found: raise Damaged(f'{opening.named(url)} is not what {path.name} holds; empty it and restore again')
    return dict(file=str(path), into=opening.named(url), made=manifest['made'], tables=now['tables'], audit=now['audit'])


def checked(path: Path) -> dict:
    "The manifest of a backup that is as it was made; raises `Damaged`, or `BadInput` where there is none."
    try: manifest = json.loads(manifest_of(path).read_text())
    except FileNotFoundError: raise BadInput(f'{path} has no manifest {manifest_of(path).name} beside it; name a file that `trading backup` made') from None
    except ValueError: raise Damaged(f'{manifest_of(path)} is not a manifest; use another backup') from None
    if not isinstance(manifest, dict): raise Damaged(f'{manifest_of(path)} is not a manifest; use another backup')
    if not path.is_file(): raise BadInput(f'there is no {path}')
    with path.open('rb') as file: digest = file_digest(file, 'sha256').hexdigest()
    if digest != manifest.get('sha256'): raise Damaged(f'{path} is damaged: it is not the file that its manifest describes; use another backup')
    return manifest


def manifest_of(path: Path) -> Path: return path.with_name(path.name + '.json')


# ── what a journal holds ──

def _manifest(path: Path, url: URL) -> dict:
    "Look at a copy as a reader would."
    with Journal.reader(path) as journal:
        found = _state(journal)
        with journal.engine.connect() as connection:
            said = connection.exec_driver_sql('PRAGMA integrity_check').scalar()
            if said != 'ok': raise Damaged(f'the copy is damaged ({said}); check the disk and make another')
    with path.open('rb') as file: digest = file_digest(file, 'sha256').hexdigest()
    return dict(made=f'{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}', source=opening.named(url), revision=tables.HEAD, sha256=digest, **found)


def _state(journal: Journal) -> dict:
    "Rows and digest of every table, and the end of an audit that is whole."
    with journal.engine.connect() as connection: found = fingerprints(connection)
    audit = journal.verify_audit()
    if audit['broken']: raise Damaged(f'audit row {audit["broken"]} of {opening.named(journal.url)} is broken: {audit["why"]}; see: trading audit verify')
    return dict(tables=found, audit={name: audit[name] for name in ('rows', 'last', 'digest')})


def fingerprints(connection: Connection) -> dict[str, dict]:
    "Of each table, how many rows and the SHA-256 of them all: the same in SQLite and PostgreSQL."
    found = {}
    for table in tables.Table.metadata.sorted_tables:
        digest, rows = sha256(), 0
        for row in connection.execute(_rows(table)):
            digest.update(chain.canonical(list(row)).encode() + b'\n')
            rows += 1
        found[table.name] = dict(rows=rows, sha256=digest.hexdigest())
    return found


def _rows(table: Table): return select(table).order_by(table.c.id).execution_options(yield_per=ROWS)


# ── from one database to another ──

def _copy(source: Connection, target: Connection):
    "Every row, parents first, into tables that are empty."
    target.execute(tables.AuditEnd.__table__.delete())   # which a new journal begins with
    for table in tables.Table.metadata.sorted_tables:
        for part in source.execute(_rows(table)).mappings().partitions(): target.execute(insert(table), [dict(row) for row in part])


def _dump(engine: Engine, path: Path) -> dict:
    "PostgreSQL as it is at one moment, as a new SQLite journal."
    Journal.open(path).close()
    copy = opening.writer(URL.create('sqlite', database=str(path)))
    try:
        with engine.connect().execution_options(isolation_level='REPEATABLE READ') as source, copy.begin() as target:
            _copy(source, target)
            return fingerprints(source)
    finally: copy.dispose()   # folds the write-ahead log into the file


def _place_file(draft: Path, path: Path):
    if path.exists(): raise Refused(f'{path} is there already; move it away, or restore into another place with --into')
    release = opening.lock(URL.create('sqlite', database=str(path)), path.name)   # against a bot that starts just now
    passing = path.with_name(f'.{path.name}.{os.getpid()}')
    try:
        opening.refuse_leftovers(path)
        shutil.copyfile(draft, passing)
        _sync(passing)
        os.rename(passing, path)
    finally:
        _remove(passing)
        release()
    _sync(path.parent)


def _place_rows(draft: Path, url: URL):
    source, target = opening.reader(URL.create('sqlite', database=str(draft))), opening.writer(url)
    try:
        with source.connect() as old, target.begin() as new:
            new.execute(text("select pg_advisory_xact_lock(hashtext('journal'))"))
            held = [table.name for table in tables.Table.metadata.sorted_tables if table.name != 'audit_end' and new.scalar(select(func.count()).select_from(table))]
            if held: raise Refused(f'{opening.named(url)} holds a journal already ({", ".join(held)} are not empty); restore into another place with --into')
            _copy(old, new)
            if fingerprints(new) != fingerprints(old): raise Damaged(f'{opening.named(url)} does not keep what the backup holds; nothing was restored')
            for table in inspect(new).get_table_names():
                if sequence := table != 'journal_version' and new.scalar(text(f"select pg_get_serial_sequence('{table}', 'id')")):
                    new.execute(text(f"select setval('{sequence}', (select coalesce(max(id), 1) from {table}))"))
    finally:
        source.dispose()
        target.dispose()


# ── files ──

def _destination(settings: Settings, to: Path | None) -> Path:
    name = f'journal-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.db'
    path = settings.root / 'var' / 'backups' / name if to is None else to / name if to.is_dir() else to
    if path.exists(): raise Refused(f'{path} is there already; name another file, or a folder')
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _sync(path: Path):
    handle = os.open(path, os.O_RDONLY)
    try: os.fsync(handle)
    finally: os.close(handle)


def _remove(draft: Path):
    for left in draft.parent.glob(draft.name + '*'): left.unlink()
