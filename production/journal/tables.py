"""The tables: what is written down before and after we act.

Money is exact (`Money`), moments are integers in UTC milliseconds, and a bar is named by its open time. A target exposure is research's
number and stays a float. Nothing here is derived from something else here, except a bot's cash and position, which change in the same
transaction as the fill that moved them.
"""
from decimal import Decimal

import sqlalchemy as sa
from sqlalchemy import BigInteger, ForeignKey, Numeric, String, Text, UniqueConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

HEAD = '0003'               # the revision this program reads and writes
OLDER = ('0001', '0002')    # those it brings there
HAND = 1_000_000            # sequence numbers from here on belong to orders that a person asked for


class Money(sa.TypeDecorator):
    "An exact amount: text where the database has no decimals (SQLite), NUMERIC(38,18) where it has (PostgreSQL)."
    impl = Numeric
    cache_ok = True

    def load_dialect_impl(self, dialect):
        return dialect.type_descriptor(Text() if dialect.name == 'sqlite' else Numeric(38, 18))

    def process_bind_param(self, value, dialect):
        if value is None: return None
        if not isinstance(value, Decimal): raise TypeError(f'money must be Decimal, not {type(value).__name__}: {value!r}')
        return plain(value) if dialect.name == 'sqlite' else value

    def process_result_value(self, value, dialect):
        return None if value is None else Decimal(plain(Decimal(value)))


def plain(value: Decimal) -> str:
    "Digits as a person writes them: no exponent, no zeros at the end."
    text = format(value, 'f')
    text = text.rstrip('0').rstrip('.') if '.' in text else text
    return '0' if text in ('-0', '') else text


class Table(DeclarativeBase):
    type_annotation_map = {Decimal: Money, int: BigInteger, float: sa.Double, dict: sa.JSON}


def key(): return mapped_column(BigInteger().with_variant(sa.Integer, 'sqlite'), primary_key=True)


class Bot(Table):
    "One promoted strategy on one market of one account: what it was given and how far it is."
    __tablename__ = 'bot'
    id: Mapped[int] = key()
    dossier: Mapped[str] = mapped_column(String(64))
    account: Mapped[str] = mapped_column(String(64))
    venue: Mapped[str] = mapped_column(String(32))
    symbol: Mapped[str] = mapped_column(String(32))
    timeframe: Mapped[str] = mapped_column(String(8))
    strategy: Mapped[str] = mapped_column(String(200))   # how it is called in an explanation; empty in a row from before 0002
    start: Mapped[int]                       # the first bar it may decide
    cursor: Mapped[int | None]               # the last bar decided
    settled: Mapped[int | None]              # the last bar whose intents are all resolved
    state: Mapped[str] = mapped_column(String(16))   # STARTING READY HALTED STOPPED
    opening_cash: Mapped[Decimal]
    opening_position: Mapped[Decimal]
    cash: Mapped[Decimal]                    # opening, every fill and every adjustment since
    position: Mapped[Decimal]
    __table_args__ = (UniqueConstraint('dossier', 'account', 'symbol', 'timeframe', name='one_bot'),)


class Decision(Table):
    "What a bot wanted at the close of a bar, and the books at that moment. With `one_bot`: one for (dossier, account, symbol, timeframe, bar)."
    __tablename__ = 'decision'
    id: Mapped[int] = key()
    bot_id: Mapped[int] = mapped_column(ForeignKey('bot.id'))
    bar: Mapped[int]
    inputs: Mapped[str] = mapped_column(String(64))   # fingerprint of the window it was shown
    target: Mapped[float | None]                      # none where the strategy failed: as before
    outcome: Mapped[str] = mapped_column(String(8))
    reason: Mapped[str] = mapped_column(Text)
    close: Mapped[Decimal]
    cash: Mapped[Decimal]
    position: Mapped[Decimal]
    at: Mapped[int]
    __table_args__ = (UniqueConstraint('bot_id', 'bar', name='one_decision'),
                      sa.CheckConstraint("outcome in ('traded', 'held', 'skipped')", name='known_outcome'))

    @property
    def equity(self) -> Decimal: return self.cash + self.position * self.close


class Intent(Table):
    "An order we mean to send. It is here before it is anywhere else."
    __tablename__ = 'intent'
    id: Mapped[int] = key()
    client_id: Mapped[str] = mapped_column(String(36), unique=True)
    bot_id: Mapped[int] = mapped_column(ForeignKey('bot.id'))
    bar: Mapped[int]
    seq: Mapped[int]
    side: Mapped[str] = mapped_column(String(4))
    kind: Mapped[str] = mapped_column(String(16))
    group: Mapped[str | None] = mapped_column(Text)   # of several in one group the first that trades cancels the others
    quantity: Mapped[Decimal]
    price: Mapped[Decimal | None]
    stop_price: Mapped[Decimal | None]
    status: Mapped[str] = mapped_column(String(16), index=True)
    filled: Mapped[Decimal]
    reason: Mapped[str] = mapped_column(Text)
    venue_order_id: Mapped[str | None] = mapped_column(String(64))
    sent_at: Mapped[int | None]              # the timestamp it was signed with
    window: Mapped[int | None]               # how long after that the venue may still accept it
    attempts: Mapped[int]
    at: Mapped[int]
    __table_args__ = (UniqueConstraint('bot_id', 'bar', 'seq', name='one_intent'),)


class Trade(Table):
    "One fill, counted once however often and by whatever channel it was heard of."
    __tablename__ = 'fill'
    id: Mapped[int] = key()
    intent_id: Mapped[int] = mapped_column(ForeignKey('intent.id'), index=True)
    venue: Mapped[str] = mapped_column(String(32))
    account: Mapped[str] = mapped_column(String(64))
    symbol: Mapped[str] = mapped_column(String(32))
    trade_id: Mapped[str] = mapped_column(String(64))
    side: Mapped[str] = mapped_column(String(4))
    quantity: Mapped[Decimal]
    price: Mapped[Decimal]
    fee: Mapped[Decimal]
    fee_asset: Mapped[str] = mapped_column(String(16))
    time: Mapped[int]
    __table_args__ = (UniqueConstraint('venue', 'account', 'symbol', 'trade_id', name='one_fill'),)


class Halt(Table):
    "The latch. It holds until a named person releases it."
    __tablename__ = 'halt'
    id: Mapped[int] = key()
    scope: Mapped[str] = mapped_column(String(100))   # '*' or venue/account
    at: Mapped[int]
    who: Mapped[str] = mapped_column(String(64))
    why: Mapped[str] = mapped_column(Text)
    released_at: Mapped[int | None]
    released_by: Mapped[str | None] = mapped_column(String(64))


class Hand(Table):
    "What a person asked a bot to do: it stands until it is done. Also a difference to the venue's books that waits for a person."
    __tablename__ = 'hand'
    id: Mapped[int] = key()
    bot_id: Mapped[int] = mapped_column(ForeignKey('bot.id'))
    at: Mapped[int]
    who: Mapped[str] = mapped_column(String(64))
    why: Mapped[str] = mapped_column(Text)
    what: Mapped[str] = mapped_column(String(16))    # flatten cancel difference
    about: Mapped[str] = mapped_column(String(36))   # of a cancel the order; empty: all of them
    cash: Mapped[Decimal | None]                     # of a difference: there less here
    position: Mapped[Decimal | None]
    done_at: Mapped[int | None] = mapped_column(BigInteger, index=True)
    said: Mapped[str] = mapped_column(Text)          # what came of it


class Adjustment(Table):
    "Money that moved without an order of ours, and who took it into the books. Rows are only ever added."
    __tablename__ = 'adjustment'
    id: Mapped[int] = key()
    bot_id: Mapped[int] = mapped_column(ForeignKey('bot.id'))
    at: Mapped[int]
    who: Mapped[str] = mapped_column(String(64))
    why: Mapped[str] = mapped_column(Text)
    cash: Mapped[Decimal]
    position: Mapped[Decimal]
    after: Mapped[int]                               # the last fill before it


class Audit(Table):
    "Who did what, when. Rows are only ever added: the database itself refuses anything else."
    __tablename__ = 'audit'
    id: Mapped[int] = key()
    at: Mapped[int]
    actor: Mapped[str] = mapped_column(String(64))
    event: Mapped[str] = mapped_column(String(32), index=True)
    detail: Mapped[dict]
    digest: Mapped[str] = mapped_column(String(64))   # of the digest of the row before and this row


class AuditEnd(Table):
    "Where the audit ends: one row, so that rows cut off its end are missed too. Whoever adds to the audit holds it."
    __tablename__ = 'audit_end'
    id: Mapped[int] = key()
    last: Mapped[int]
    digest: Mapped[str] = mapped_column(String(64))


class Alert(Table):
    "Something a person should hear of: written with what it tells of, sent afterwards."
    __tablename__ = 'alert'
    id: Mapped[int] = key()
    at: Mapped[int]
    dedupe: Mapped[str] = mapped_column(String(200), unique=True)   # what it is about: told once however often it is noticed
    rule: Mapped[str] = mapped_column(String(32))
    severity: Mapped[str] = mapped_column(String(8))
    title: Mapped[str] = mapped_column(Text)
    text: Mapped[str] = mapped_column(Text)
    state: Mapped[str] = mapped_column(String(16))                  # pending sent failed acknowledged
    level: Mapped[int]                                              # how far it was escalated, from 0
    attempts: Mapped[int]
    next_try: Mapped[int | None] = mapped_column(BigInteger, index=True)   # none: nothing more is to be done
    results: Mapped[dict]                                           # channel → done, attempts, next, said
    acknowledged_at: Mapped[int | None]
    acknowledged_by: Mapped[str | None] = mapped_column(String(64))
