"""The journal: each step of trading safely is one method, and each method is one transaction.

    DECIDE   decision + intents NEW + cursor
    FENCE    timestamp and window, before the socket; from here the order may exist, so it is UNKNOWN
    ADOPT    what the venue says: its id, status, fills, and the cash and position they move
    SETTLE   a bar whose intents are all resolved

Nothing is sent that is not fenced, nothing is fenced while the latch holds, and whoever only looks opens `Journal.reader`.
"""
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path

from sqlalchemy import Engine, func, select, text
from sqlalchemy.engine import URL
from sqlalchemy.orm import Session

from production.journal import chain, opening
from production.journal.account import Account
from production.journal.hands import EVERYTHING, Hands, busy, reduces
from production.journal.outbox import Outbox
from production.journal.positions import Holding, exact, fees_by_asset
from production.journal.tables import HAND, HEAD, Audit, Bot, Decision, Halt, Intent, Trade
from production.journal.telling import Alerts
from trading_lib.core.errors import Damaged, Refused
from trading_lib.execution.matching import split_symbol
from trading_lib.execution.orders import NEXT, SIGN, TERMINAL, Fill, Order, OrderState

DUE = 'due: '   # how the reason of a skipped decision begins that is to be acted on as soon as may be
UNRESOLVED = ('NEW', 'UNKNOWN')   # not known to be at the venue, not known not to be
RESTING = ('OPEN', 'PARTIALLY_FILLED')


def utc_ms() -> int: return time.time_ns() // 1_000_000


def moved(symbol: str, fill: Fill | Trade) -> tuple[Decimal, Decimal]:
    "What one fill does to cash and position. A fee in a third asset moves neither."
    base, quote = split_symbol(symbol)
    sign = SIGN[fill.side]
    cash = -sign * fill.quantity * fill.price - (fill.fee if fill.fee_asset == quote else 0)
    return cash, sign * fill.quantity - (fill.fee if fill.fee_asset == base else 0)


class Journal(Outbox, Account, Hands):
    "What was decided, sent and heard, on a disk."

    def __init__(self, engine: Engine, url: URL, release: Callable[[], None] = lambda: None, now: Callable[[], int] = utc_ms, alerts: Alerts | None = None):
        self.engine, self.url, self.now, self._release, self.alerts = engine, url, now, release, alerts or Alerts()

    @classmethod
    def open(cls, where: str | Path, now: Callable[[], int] = utc_ms, alerts: Alerts | None = None) -> 'Journal':
        "To write: made at head if missing; refused if damaged, foreign, at another revision, or open elsewhere."
        url = opening.address(where)
        with opening.translated(url):
            release = opening.lock(url, Path(url.database).name) if url.get_backend_name() == 'sqlite' else lambda: None
        try: return cls(opening.writer(url), url, release, now, alerts)
        except BaseException:
            release()
            raise

    @classmethod
    def reader(cls, where: str | Path) -> 'Journal':
        "To look: also while another process writes."
        url = opening.address(where)
        return cls(opening.reader(url), url)

    def close(self):
        self.engine.dispose()
        self._release()

    def __enter__(self): return self
    def __exit__(self, *_): self.close()

    @contextmanager
    def lock(self, account: str, venue: str) -> Iterator[None]:
        "One runner per account and venue, on every journal in this place."
        with opening.translated(self.url): release = opening.lock(self.url, f'{venue}-{account}', self.engine)
        try: yield
        finally: release()

    @contextmanager
    def _session(self) -> Iterator[Session]:
        "One transaction, whole or not at all."
        with opening.translated(self.url), Session(self.engine, expire_on_commit=False) as session, session.begin():
            yield session
            if notes := session.info.get('notes'):
                session.flush()
                chain.append(session, notes)   # last: other writers wait for it

    # what happens

    def enrol(self, dossier: str, account: str, venue: str, symbol: str, timeframe: str, start: int, cash: Decimal, position: Decimal,
              strategy: str = '') -> Bot:
        "A bot's first row: what it found in the account before its first bar."
        bot = Bot(dossier=dossier, account=account, venue=venue, symbol=symbol, timeframe=timeframe, strategy=strategy, start=start,
                  state='STARTING', opening_cash=cash, opening_position=position, cash=cash, position=position)
        with self._session() as s:
            s.add(bot)
            self._note(s, 'runner', 'enrol', dossier=dossier, account=account, venue=venue, symbol=symbol, timeframe=timeframe)
        return bot

    def state(self, bot: int, state: str, actor: str = 'runner', **detail):
        "STARTING, READY, HALTED or STOPPED."
        with self._session() as s:
            row = s.get_one(Bot, bot)
            before, row.state = row.state, state
            self._tell_state(s, row, before)
            self._note(s, actor, state.lower(), bot=bot, **detail)

    def decide(self, bot: int, bar: int, *, inputs: str, target: float | None, outcome: str, reason: str, close: Decimal,
               orders: Sequence[Order] = ()) -> tuple[Bot, list[Intent]]:
        "A decision, the orders it means to send, and the cursor: all of it or none. A bar without orders is settled with it."
        with self._session() as s:
            row = s.get_one(Bot, bot)
            if row.cursor is not None and bar <= row.cursor: raise Refused(f'bar {bar} was decided before (cursor {row.cursor})')
            row.cursor, row.settled = bar, row.settled if orders else bar
            decision = Decision(bot_id=bot, bar=bar, inputs=inputs, target=target, outcome=outcome, reason=reason, close=close,
                                cash=row.cash, position=row.position, at=self.now())
            self._tell_decision(s, row, decision)
            s.add(decision)
            intents = [Intent(client_id=o.client_id, bot_id=bot, bar=bar, seq=seq, side=o.side, kind=o.kind, quantity=o.quantity, price=o.price,
                              stop_price=o.stop_price, group=o.group, status='NEW', filled=Decimal(0), reason='', attempts=0, at=self.now())
                       for seq, o in enumerate(orders)]
            s.add_all(intents)
            self._note(s, 'runner', 'decide', bot=bot, bar=bar, inputs=inputs, target=target, outcome=outcome, reason=reason, close=close,
                       orders=[_asked(intent) for intent in intents])
        return row, intents

    def fence(self, client_id: str, sent_at: int, window: int) -> Intent:
        "Before the socket: what the request is signed with. Raises `Refused` while the latch holds; what a person asked for passes it, if it only reduces."
        with self._session() as s:
            self._gate(s, 'pg_advisory_xact_lock_shared')
            intent = self._intent(s, client_id)
            if intent.status not in UNRESOLVED: raise Refused(f'order {client_id} is {intent.status}; it is not sent again')
            bot = s.get_one(Bot, intent.bot_id)
            if intent.seq >= HAND:
                if not reduces(intent, bot): raise Refused(f'order {client_id} by hand would not only reduce a position of {bot.position}')
            elif halt := self._latched(s, bot.venue, bot.account): raise Refused(halt)
            intent.status, intent.sent_at, intent.window, intent.attempts = 'UNKNOWN', sent_at, window, intent.attempts + 1
            self._note(s, 'runner', 'fence', client_id=client_id, sent_at=sent_at, window=window, attempt=intent.attempts)
        return intent

    def adopt(self, client_id: str, state: OrderState) -> Intent:
        "What the venue says of an order; fills already counted are not counted again."
        with self._session() as s:
            intent = self._intent(s, client_id)
            bot = s.get_one(Bot, intent.bot_id, with_for_update=True)
            if state.order.client_id != client_id: raise Refused(f'order {client_id} was answered with {state.order.client_id}')
            if state.status != intent.status and state.status not in NEXT[intent.status] or state.filled < intent.filled:
                raise Refused(f'order {client_id}: {intent.status} with {intent.filled} filled cannot become {state.status} with {state.filled}')
            counted = set(s.scalars(select(Trade.trade_id).where(Trade.intent_id == intent.id)))
            fresh = [fill for fill in state.fills if str(fill.trade_id) not in counted]
            for fill in fresh:
                s.add(Trade(intent_id=intent.id, venue=bot.venue, account=bot.account, symbol=bot.symbol, trade_id=str(fill.trade_id), side=fill.side,
                            quantity=fill.quantity, price=fill.price, fee=fill.fee, fee_asset=fill.fee_asset, time=fill.time))
                cash, position = moved(bot.symbol, fill)
                bot.cash, bot.position = bot.cash + cash, bot.position + position
                intent.filled += fill.quantity
            if intent.filled != state.filled: raise Refused(f'order {client_id}: its fills sum to {intent.filled}, the venue says {state.filled}')
            if fresh or intent.status != state.status:
                self._note(s, 'runner', 'adopt', client_id=client_id, status=state.status, filled=state.filled, id=str(state.id),
                           fills=[[str(f.trade_id), f.quantity, f.price, f.fee, f.fee_asset] for f in fresh])
                if state.status == 'REJECTED': self._tell_order(s, 'rejected', bot, intent, state.reason)
            self._tell_fills(s, bot, intent, fresh)
            intent.status, intent.venue_order_id, intent.reason = state.status, str(state.id), state.reason
        return intent

    def unknown(self, client_id: str, why: str):
        "No proper answer came: the order may exist."
        with self._session() as s:
            intent = self._intent(s, client_id)
            intent.reason = why
            self._note(s, 'runner', 'unknown', client_id=client_id, why=why)

    def reject(self, client_id: str, why: str): self._end(client_id, 'REJECTED', why)

    def withdraw(self, client_id: str, why: str):
        "An intent that is known not to be at the venue and will not be sent."
        self._end(client_id, 'CANCELED', why)

    def _end(self, client_id: str, status: str, why: str):
        with self._session() as s:
            intent = self._intent(s, client_id)
            if intent.status not in UNRESOLVED: raise Refused(f'order {client_id}: {intent.status} cannot become {status}')
            intent.status, intent.reason = status, why
            if status == 'REJECTED': self._tell_order(s, 'rejected', s.get_one(Bot, intent.bot_id), intent, why)
            self._note(s, 'runner', status.lower(), client_id=client_id, why=why)

    def settle(self, bot: int, bar: int) -> Bot:
        "A bar is done with: no intent of it, or before it, is in doubt. Answers the bot as it stands now."
        with self._session() as s:
            doubtful = s.scalars(select(Intent.client_id).where(Intent.bot_id == bot, Intent.bar <= bar, Intent.status.in_(UNRESOLVED))).all()
            if doubtful: raise Refused(f'bar {bar} cannot be settled: {", ".join(doubtful)} unresolved')
            row = s.get_one(Bot, bot)
            row.settled = bar if row.settled is None else max(row.settled, bar)
        return row

    def halt(self, who: str, why: str, scope: str = EVERYTHING, flatten: bool = False) -> list[int]:
        "Close the latch: from this commit on nothing is fenced but what closes positions, if that is asked too; the numbers of what is asked."
        with self._session() as s:
            self._gate(s, 'pg_advisory_xact_lock')
            halt = Halt(scope=scope, at=self.now(), who=who, why=why)
            s.add(halt)
            s.flush()
            self._alert(s, 'halt', halt.id, scope='everything' if scope == EVERYTHING else scope, who=who, why=why)
            self._note(s, who, 'halt', scope=scope, why=why)
            return self._demand(s, 'flatten', who, why, busy(s, scope=scope)) if flatten else []

    def resume(self, who: str, why: str = '') -> int:
        "Open every latch; how many there were."
        with self._session() as s:
            halts = s.scalars(select(Halt).where(Halt.released_at.is_(None))).all()
            for halt in halts: halt.released_at, halt.released_by = self.now(), who
            if halts: self._alert(s, 'resume', max(halt.id for halt in halts), who=who, why=why, released=len(halts))
            self._note(s, who, 'resume', released=len(halts), why=why)
        return len(halts)

    def note(self, actor: str, event: str, **detail):
        "A row for people."
        with self._session() as s: self._note(s, actor, event, **detail)

    # what others read

    def bot(self, dossier: str, account: str, symbol: str, timeframe: str) -> Bot | None:
        with self._session() as s:
            return s.scalar(select(Bot).filter_by(dossier=dossier, account=account, symbol=symbol, timeframe=timeframe))

    def reread(self, bot: int) -> Bot:
        with self._session() as s: return s.get_one(Bot, bot)

    def intents(self, bot: int, statuses: Sequence[str] = ('NEW', 'UNKNOWN', 'OPEN', 'PARTIALLY_FILLED')) -> list[Intent]:
        "A bot's intents of these statuses, oldest first."
        with self._session() as s:
            return list(s.scalars(select(Intent).where(Intent.bot_id == bot, Intent.status.in_(statuses)).order_by(Intent.id)))

    def intent(self, client_id: str) -> Intent | None:
        with self._session() as s: return s.scalar(select(Intent).filter_by(client_id=client_id))

    def target(self, bot: int) -> float | None:
        "The last target that was a number and is not still due."
        with self._session() as s:
            known = select(Decision.target).where(Decision.bot_id == bot, Decision.target.is_not(None), ~Decision.reason.startswith(DUE))
            return s.scalar(known.order_by(Decision.bar.desc()).limit(1))

    def halted(self, venue: str = '', account: str = '') -> str | None:
        "Who halted this account and why, in one line; none if nobody did."
        with self._session() as s: return self._latched(s, venue, account)

    def status(self) -> dict:
        "Every bot at a glance, and the latch."
        with self._session() as s:
            halts = [dict(scope=h.scope, at=h.at, who=h.who, why=h.why) for h in s.scalars(select(Halt).where(Halt.released_at.is_(None)))]
            bots = []
            for bot in s.scalars(select(Bot).order_by(Bot.id)):
                last = s.scalar(select(Decision).where(Decision.bot_id == bot.id).order_by(Decision.bar.desc()).limit(1))
                outcomes = dict(s.execute(select(Decision.outcome, func.count()).where(Decision.bot_id == bot.id).group_by(Decision.outcome)).all())
                orders = dict(s.execute(select(Intent.status, func.count()).where(Intent.bot_id == bot.id).group_by(Intent.status)).all())
                bots.append(_columns(bot) | dict(target=last and last.target, close=last and last.close,
                                                 equity=bot.cash + bot.position * last.close if last else bot.cash,
                                                 decisions=outcomes, orders=orders))
            return dict(journal=opening.named(self.url), revision=HEAD, halted=halts, bots=bots)

    def orders(self, bot: int | None = None, open_only: bool = False) -> list[dict]:
        "Every intent with what became of it, oldest first."
        rows = select(Intent, Bot.account, Bot.venue, Bot.symbol).join(Bot).order_by(Intent.id)
        if bot is not None: rows = rows.where(Intent.bot_id == bot)
        if open_only: rows = rows.where(Intent.status.not_in(TERMINAL))
        with self._session() as s:
            return [_columns(intent) | dict(account=account, venue=venue, symbol=symbol) for intent, account, venue, symbol in s.execute(rows)]

    def fills(self, bot: int | None = None) -> list[dict]:
        "Every fill with the client id of its order, in the order they were heard of."
        rows = select(Trade, Intent.client_id, Intent.bot_id).join(Intent).order_by(Trade.id)
        if bot is not None: rows = rows.where(Intent.bot_id == bot)
        with self._session() as s:
            return [_columns(fill) | dict(client_id=client_id, bot_id=owner) for fill, client_id, owner in s.execute(rows)]

    def equity(self, bot: int) -> list[dict]:
        "Bar by bar: the books at its close, before its own orders, and what was decided."
        with self._session() as s:
            marks = s.scalars(select(Decision).where(Decision.bot_id == bot).order_by(Decision.bar))
            return [_columns(mark) | dict(equity=mark.equity) for mark in marks]

    def positions(self) -> list[dict]:
        "What each bot holds, its average cost, what it has earned at its last close (realised and not), and its fees by asset."
        return [self._position(bot) for bot in self.status()['bots']]

    def _position(self, bot: dict) -> dict:
        fills = self.fills(bot['id'])
        with self._session() as s: first = s.scalar(select(Decision.close).where(Decision.bot_id == bot['id']).order_by(Decision.bar).limit(1))
        held = Holding().moved(-bot['opening_position'] * (first or 0), bot['opening_position'])
        moves = [(fill['id'], moved(bot['symbol'], Trade(**{k: fill[k] for k in ('side', 'quantity', 'price', 'fee', 'fee_asset')}))) for fill in fills]
        moves += [(each.after + .5, (-each.position * (bot['close'] or 0), each.position)) for each in self.adjustments(bot['id'])]   # no profit: at the last close
        for _, (cash, quantity) in sorted(moves, key=lambda move: move[0]): held = held.moved(cash, quantity)
        wanted = ('account', 'venue', 'symbol', 'timeframe', 'strategy', 'position', 'cash', 'close', 'equity')
        return {name: bot[name] for name in wanted} | dict(
            average_cost=exact(held.average), realised=exact(held.realised), unrealised=exact(held.unrealised(bot['close'])) if bot['close'] is not None else None,
            fees=fees_by_asset(fills))

    def audit(self, event: str | None = None, limit: int | None = None) -> list[dict]:
        "Who did what, oldest first; the newest so many."
        rows = select(Audit).order_by(Audit.id.desc()).limit(limit)
        with self._session() as s: return [_columns(row) for row in s.scalars(rows if event is None else rows.filter_by(event=event))][::-1]

    def verify_audit(self, known: tuple[int, str] | None = None) -> dict:
        "Is the audit whole? Its rows, its end, and the first broken row with why; `known` is an end (row, digest) written down elsewhere."
        with self._session() as s: return chain.broken(s, known)

    def verify(self, bot: int):
        "Cash and position are the opening, every adjustment and every fill since, and each intent is filled by its fills; raises `Damaged`."
        row, fills, moves = self.reread(bot), self.fills(bot), self.adjustments(bot)
        cash, position, filled = row.opening_cash + sum(m.cash for m in moves), row.opening_position + sum(m.position for m in moves), {}
        for fill in fills:
            d_cash, d_position = moved(row.symbol, Trade(**{k: fill[k] for k in ('side', 'quantity', 'price', 'fee', 'fee_asset')}))
            cash, position = cash + d_cash, position + d_position
            filled[fill['client_id']] = filled.get(fill['client_id'], Decimal(0)) + fill['quantity']
        wrong = [o['client_id'] for o in self.orders(bot) if o['filled'] != filled.get(o['client_id'], 0)]
        if (cash, position) != (row.cash, row.position) or wrong:
            raise Damaged(f'journal {opening.named(self.url)}: bot {bot} holds {row.cash} and {row.position}, its fills and adjustments make {cash} and {position}'
                          f'{", orders differ: " + ", ".join(wrong) if wrong else ""}; {opening.RESTORE}')

    # small parts

    def _intent(self, s: Session, client_id: str) -> Intent:
        found = s.scalar(select(Intent).filter_by(client_id=client_id))
        if found is None: raise Refused(f'order {client_id} is not in the journal')
        return found

    def _gate(self, s: Session, lock: str):
        "A fence is before a halt or after it, never beside it. SQLite's one writer sees to that by itself."
        if self.engine.dialect.name == 'postgresql': s.execute(text(f"select {lock}(hashtext('journal halt'))"))

    def _latched(self, s: Session, venue: str, account: str) -> str | None:
        halt = s.scalar(select(Halt).where(Halt.released_at.is_(None), Halt.scope.in_([EVERYTHING, f'{venue}/{account}'])).limit(1))
        return f'halted by {halt.who}: {halt.why}; when that is understood: trading resume' if halt else None

    def _note(self, s: Session, actor: str, event: str, **detail):
        "A row for the audit, written at the end of this transaction."
        s.info.setdefault('notes', []).append((self.now(), actor, event, detail))


def _asked(intent: Intent) -> dict:
    "What an intent asks for, leaving out what it does not."
    asked = {name: getattr(intent, name) for name in ('client_id', 'side', 'kind', 'quantity', 'price', 'stop_price', 'group')}
    return {name: value for name, value in asked.items() if value is not None}


def _columns(row) -> dict: return {c.name: getattr(row, c.name) for c in row.__table__.columns}
