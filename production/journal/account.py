"An account as a whole: what all its bots hold, have sent and have traded."
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from decimal import Decimal

from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session

from production.journal.tables import Bot, Decision, Halt, Intent, Trade
from trading_lib.execution.matching import split_symbol
from trading_lib.execution.orders import TERMINAL

RECENT = 1000   # sendings of a bot that are told, the newest


class Account:
    "The queries of a journal that take in several bots."
    _session: Callable[[], AbstractContextManager[Session]]

    def marks(self, venue: str, account: str) -> Iterator[tuple[int, int, Decimal, int]]:
        "Bot, bar, equity and moment of every decision, by bar."
        rows = _bots(select(Decision).join(Bot), venue, account).order_by(Decision.bar, Decision.id)
        with self._session() as s: yield from [(mark.bot_id, mark.bar, mark.equity, mark.at) for mark in s.scalars(rows)]

    def holdings(self, venue: str, account: str) -> list[dict]:
        """Of each bot: symbol, position, its last close, what is still out (side, what is left of it), and when orders were sent.

        An order whose fate is unknown is out."""
        with self._session() as s: return [self._holding(s, bot) for bot in s.scalars(_bots(select(Bot), venue, account))]

    def _holding(self, s: Session, bot: Bot) -> dict:
        own = select(Intent).where(Intent.bot_id == bot.id)
        out = [(each.side, each.quantity - each.filled) for each in s.scalars(own.where(Intent.status.not_in(TERMINAL)))]
        sent = s.scalars(select(Intent.sent_at).where(Intent.bot_id == bot.id, Intent.sent_at.is_not(None)).order_by(Intent.id.desc()).limit(RECENT))
        close = s.scalar(select(Decision.close).where(Decision.bot_id == bot.id).order_by(Decision.bar.desc()).limit(1))
        return dict(bot=bot.id, symbol=bot.symbol, position=bot.position, close=close, open=out, sent=sorted(sent))

    def fills_of(self, venue: str, account: str) -> list[dict]:
        "Every fill of the account, oldest first, and when its order was asked for; fees in the quote asset, those in a third asset left out."
        rows = _bots(select(Trade, Bot.symbol, Intent.at).join(Intent, Trade.intent_id == Intent.id).join(Bot), venue, account).order_by(Trade.time, Trade.id)
        with self._session() as s:
            return [dict(time=fill.time, at=at, symbol=symbol, side=fill.side, quantity=fill.quantity, price=fill.price, fee=_in_quote(fill, symbol))
                    for fill, symbol, at in s.execute(rows)]

    def released(self, venue: str, account: str) -> int:
        "When a person last resumed trading; 0 if nobody had to."
        latest = select(func.max(Halt.released_at)).where(Halt.scope.in_(['*', f'{venue}/{account}']))
        with self._session() as s: return s.scalar(latest) or 0


def _bots(rows: Select, venue: str, account: str) -> Select: return rows.where(Bot.venue == venue, Bot.account == account)


def _in_quote(fill: Trade, symbol: str) -> Decimal:
    base, quote = split_symbol(symbol)
    return fill.fee * {base: fill.price, quote: Decimal(1)}.get(fill.fee_asset, Decimal(0))
