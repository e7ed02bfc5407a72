"What the journal says, as people and programs read it."
import asyncio
from pathlib import Path

from production.alerts import send_now
from production.backup import checked
from production.control import missing, moment
from production.journal import Journal, opening
from production.journal.tables import HEAD
from trading_lib.core.errors import BadInput, did_you_mean
from trading_lib.core.settings import Settings

STATES = ('pending', 'sent', 'failed', 'acknowledged')


def alert_report(settings: Settings, limit: int, state: str | None = None) -> list[dict]:
    "The newest alerts first."
    if state is not None and state not in STATES: raise BadInput(f'there is no state {state}{did_you_mean(state, STATES)}')
    if missing(settings): return []
    with _read(settings) as journal: rows = journal.history(limit, state)
    return [dict(id=row['id'], time=moment(row['at']), severity=row['severity'], rule=row['rule'], state=row['state'], attempts=row['attempts'], title=row['title'],
                 text=row['text'], acknowledged_by=row['acknowledged_by'], channels=row['results']) for row in rows]


def audit_report(settings: Settings, event: str | None, limit: int) -> list[dict]:
    if missing(settings): return []
    with _read(settings) as journal: rows = journal.audit(event, limit)
    return [dict(id=row['id'], time=moment(row['at']), actor=row['actor'], event=row['event'], detail=row['detail'], digest=row['digest']) for row in rows]


def verified(settings: Settings, end: str | None = None, backup: Path | None = None) -> dict:
    "Is the audit whole, and does it go on from an end that is known?"
    known = None
    if backup:
        audit = checked(backup)['audit']
        known = audit['last'], audit['digest']
    if end:
        row, _, digest = end.partition(':')
        if not (row.isascii() and row.isdigit() and len(digest) == 64): raise BadInput(f'--end was {end!r}; write it as ROW:DIGEST, as trading audit verify shows it')
        known = int(row), digest
    with _read(settings) as journal: return journal.verify_audit(known)


def position_report(settings: Settings) -> list[dict]:
    if missing(settings): return []
    with _read(settings) as journal: return journal.positions()


def send_waiting(settings: Settings) -> dict:
    "Send without a runner; one that lives does it by itself, and then the journal is its own."
    if missing(settings): return dict(left=0)
    with Journal.open(settings.journal_url) as journal: return dict(left=asyncio.run(send_now(journal, settings)))


def migrated(settings: Settings) -> dict:
    url = opening.address(settings.journal_url)
    if missing(settings): raise BadInput(f'there is no journal {opening.named(url)} to bring to {HEAD}; the first paper or live run makes one')
    Journal.open(settings.journal_url).close()
    return dict(journal=opening.named(url), revision=HEAD)


def _read(settings: Settings) -> Journal: return Journal.reader(settings.journal_url)
