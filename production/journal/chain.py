"""The audit as a chain: each row carries the SHA-256 of the row before and its own content, so whatever is edited, taken out, moved or cut off shows.

What it cannot show is a chain that somebody has forged whole. For that, write its end down elsewhere (every backup does) and compare.
"""
import json
from collections.abc import Iterable
from decimal import Decimal
from hashlib import sha256

from sqlalchemy import Text, cast, insert, select, type_coerce, update
from sqlalchemy.orm import Session

from production.journal.tables import Audit, AuditEnd, plain

END = select(AuditEnd.last, AuditEnd.digest).with_for_update()
ADD, MOVE = insert(Audit.__table__), update(AuditEnd.__table__)


def _text(value) -> str:
    if isinstance(value, Decimal): return plain(value)
    raise TypeError(f'{type(value).__name__} cannot be written down: {value!r}')


def canonical(value) -> str:
    "JSON that is the same for the same content."
    return json.dumps(value, sort_keys=True, separators=(',', ':'), allow_nan=False, default=_text)


def digest_of(before: str, id: int, at: int, actor: str, event: str, detail: dict) -> str:
    "The link between a row and the one before it."
    return sha256(f'{before}{canonical([id, at, actor, event, detail])}'.encode()).hexdigest()


def append(session: Session, notes: Iterable[tuple[int, str, str, dict]]):
    "Add rows (at, actor, event, detail). Writers wait for each other at the end of the chain until they commit, so call it last."
    connection = session.connection()
    last, digest = connection.execute(END).one()
    rows = []
    for at, actor, event, detail in notes:
        detail = json.loads(canonical(detail))
        last, digest = last + 1, digest_of(digest, last + 1, at, actor, event, detail)
        rows.append(dict(id=last, at=at, actor=actor, event=event, detail=detail, digest=digest))
    connection.execute(ADD, rows)
    connection.execute(MOVE, dict(last=last, digest=digest))


def broken(session: Session, known: tuple[int, str] | None = None) -> dict:
    "The chain from its beginning: rows, its end, and the first broken row with why; `known` is an end that was written down elsewhere."
    rows, last, digest, wrong, met = 0, 0, '', None, known is None
    text = type_coerce(cast(Audit.detail, Text), Text)   # as it lies there: what was spoilt may not be JSON any more
    for row in session.execute(select(Audit.id, Audit.at, Audit.actor, Audit.event, text, Audit.digest).order_by(Audit.id).execution_options(yield_per=1000)):
        try: held = digest_of(digest, *row[:4], json.loads(row[4])) == row.digest
        except ValueError: held = False
        if not held:
            wrong = row.id, 'it does not follow from the row before it: one of them was edited, moved or taken out'
            break
        rows, last, digest = rows + 1, row.id, row.digest
        met |= (last, digest) == known
    end = session.scalars(select(AuditEnd)).one_or_none()
    if wrong is None and (end is None or (end.last, end.digest) != (last, digest)):
        wrong = last + 1, f'rows are missing: the audit ends with row {last}, and {end.last if end else "an end that is missing"} was written'
    if wrong is None and not met: wrong = known[0], 'it is not the row that was written down elsewhere'
    return dict(rows=rows, last=last, digest=digest, broken=wrong and wrong[0], why=wrong and wrong[1])
