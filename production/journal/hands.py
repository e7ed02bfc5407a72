"What people ask for, and money that moved without an order of ours."
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from decimal import Decimal

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from production.journal.tables import HAND, Adjustment, Bot, Hand, Intent, Trade
from trading_lib.core.errors import BadInput, Refused
from trading_lib.execution.orders import SIGN, TERMINAL, Order

EVERYTHING = '*'


class Hands:
    "The journal's part that people steer by. What they ask for stands until a runner has done it."
    _session: Callable[[], AbstractContextManager[Session]]

    def demand(self, what: str, who: str, why: str, symbol: str = EVERYTHING, about: str = '') -> list[int]:
        "Ask every bot that it concerns to `flatten` or to `cancel`; the numbers of what was asked."
        with self._session() as s:
            bots = [s.get_one(Bot, self._living(s, about).bot_id)] if about else busy(s, symbol)
            return self._demand(s, what, who, why, bots, about)

    def _demand(self, s: Session, what: str, who: str, why: str, bots: Iterable[Bot], about: str = '') -> list[int]:
        asked = []
        for bot in bots:
            self._note(s, who, what, bot=bot.id, about=about, why=why)
            hand = s.scalar(_open().where(Hand.bot_id == bot.id, Hand.what == what, Hand.about == about).limit(1))   # once is enough
            if hand is None: s.add(hand := Hand(bot_id=bot.id, at=self.now(), who=who, why=why, what=what, about=about, said=''))
            asked.append(hand)
        s.flush()
        return [hand.id for hand in asked]

    def _living(self, s: Session, client_id: str) -> Intent:
        found = s.scalar(select(Intent).filter_by(client_id=client_id))
        if found is None: raise BadInput(f'order {client_id} is not in the journal; see: trading orders')
        if found.status in TERMINAL: raise Refused(f'order {client_id} is {found.status}; there is nothing to cancel')
        return found

    def demands(self, bot: int) -> list[Hand]:
        "What a bot was asked and has not done yet, oldest first."
        with self._session() as s: return list(s.scalars(_open().where(Hand.bot_id == bot, Hand.what != 'difference').order_by(Hand.id)))

    def demanded(self, numbers: Iterable[int]) -> list[dict]:
        "What became of what was asked; `said` is none while it is not done."
        rows = select(Hand, Bot).join(Bot).where(Hand.id.in_(list(numbers))).order_by(Hand.id)
        with self._session() as s:
            return [dict(id=hand.id, bot=bot.id, account=bot.account, symbol=bot.symbol, what=hand.what, position=bot.position,
                         said=hand.said if hand.done_at else None) for hand, bot in s.execute(rows)]

    def waiting(self) -> list[dict]:
        "Everything that was asked and is not done."
        with self._session() as s: numbers = s.scalars(select(Hand.id).where(Hand.done_at.is_(None), Hand.what != 'difference')).all()
        return self.demanded(numbers)

    def done(self, number: int, said: str):
        "A bot has done what it was asked, or cannot."
        with self._session() as s:
            hand = s.get_one(Hand, number)
            hand.done_at, hand.said = self.now(), said
            self._note(s, 'runner', 'done', hand=number, what=hand.what, said=said)

    def by_hand(self, bot: int, since: int = 0) -> int:
        "How many orders people have asked of a bot."
        with self._session() as s: return s.scalar(select(func.count()).where(Intent.bot_id == bot, Intent.seq >= HAND, Intent.at >= since))

    def intend(self, bot: int, order: Order) -> Intent:
        "An order that a person asked for: written down before it is sent, like any other, and after no decision."
        with self._session() as s:
            row = s.get_one(Bot, bot)
            seq = HAND + s.scalar(select(func.count()).where(Intent.bot_id == bot, Intent.seq >= HAND))
            intent = Intent(client_id=order.client_id, bot_id=bot, bar=row.start if row.cursor is None else row.cursor, seq=seq, side=order.side, kind=order.kind,
                            quantity=order.quantity, price=order.price, stop_price=order.stop_price, group=None, status='NEW', filled=Decimal(0), reason='',
                            attempts=0, at=self.now())
            s.add(intent)
            self._note(s, 'runner', 'intend', bot=bot, client_id=order.client_id, side=order.side, kind=order.kind, quantity=order.quantity)
        return intent

    # money that moved by itself

    def differ(self, bot: int, cash: Decimal, position: Decimal, why: str):
        "The venue has so much more than the journal; it waits for a person. One at a time: the newest is the one that counts."
        with self._session() as s:
            self._close_differences(s, bot, 'overtaken')
            if cash or position: s.add(Hand(bot_id=bot, at=self.now(), who='runner', why=why, what='difference', about='', cash=cash, position=position, said=''))

    def agree(self, bot: int):
        "The venue and the journal agree: there is nothing to accept any more."
        with self._session() as s: self._close_differences(s, bot, 'gone')

    def _close_differences(self, s: Session, bot: int, said: str):
        for hand in s.scalars(_open().where(Hand.bot_id == bot, Hand.what == 'difference')): hand.done_at, hand.said = self.now(), said

    def differences(self) -> list[dict]:
        "What waits for a person: by how much the venue's books are above ours."
        with self._session() as s: return [_difference(hand, bot) for hand, bot in s.execute(_differences())]

    def accept(self, who: str, why: str) -> list[dict]:
        "Take every difference into the books, all or none. The next comparison with the venue shows whether they agree now."
        with self._session() as s:
            taken = []
            for hand, bot in s.execute(_differences()).all():
                s.refresh(bot, with_for_update=True)
                last = s.scalar(select(func.coalesce(func.max(Trade.id), 0)).join(Intent).where(Intent.bot_id == bot.id))
                s.add(Adjustment(bot_id=bot.id, at=self.now(), who=who, why=why, cash=hand.cash, position=hand.position, after=last))
                bot.cash, bot.position = bot.cash + hand.cash, bot.position + hand.position
                hand.done_at, hand.said = self.now(), f'accepted by {who}'
                self._note(s, who, 'accept', bot=bot.id, cash=hand.cash, position=hand.position, why=why)
                taken.append(_difference(hand, bot))
        return taken

    def adjustments(self, bot: int) -> list[Adjustment]:
        "Every adjustment of a bot's books, oldest first."
        with self._session() as s: return list(s.scalars(select(Adjustment).where(Adjustment.bot_id == bot).order_by(Adjustment.id)))


def reduces(intent: Intent, bot: Bot) -> bool:
    "Does an order only bring its bot nearer to flat?"
    return intent.kind == 'market' and SIGN[intent.side] * bot.position < 0 and intent.quantity <= abs(bot.position)


def busy(s: Session, symbol: str = EVERYTHING, scope: str = EVERYTHING) -> list[Bot]:
    "The bots that hold something, or have orders that may still trade."
    found = s.scalars(select(Bot).order_by(Bot.id)).all()
    out = set(s.scalars(select(Intent.bot_id).where(Intent.status.not_in(TERMINAL))))
    return [bot for bot in found if (bot.position or bot.id in out) and symbol in (EVERYTHING, bot.symbol) and scope in (EVERYTHING, f'{bot.venue}/{bot.account}')]


def _open(): return select(Hand).where(Hand.done_at.is_(None))


def _differences(): return select(Hand, Bot).join(Bot).where(Hand.done_at.is_(None), Hand.what == 'difference').order_by(Hand.id)


def _difference(hand: Hand, bot: Bot) -> dict:
    return dict(bot=bot.id, account=bot.account, venue=bot.venue, symbol=bot.symbol, cash=hand.cash, position=hand.position, why=hand.why)
