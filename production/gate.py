"""What stands between a decision and an order: the account's limits, looked at by every bot in the same way.

`risk.limits` judges; this module gathers what is judged from the journal, which knows of every order of the account, also of those whose fate
is unknown. Those count as filled. What has grown since the day began, and the highest equity, are read once and kept up to date afterwards; both
begin anew when a person resumes trading, who has seen the loss and accepts it.
"""
from collections import deque
from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal

import pandas as pd

from production.journal import Journal
from trading_lib.core.errors import BadInput
from trading_lib.core.metrics import round_trips
from trading_lib.core.settings import Settings
from trading_lib.execution.orders import SIGN, Order
from trading_lib.risk.limits import Books, Breach, Limits, Prices, as_limits, confirmed, refusals, tripped

DAY_MS = 86_400_000
UNMEASURED = dict(max_age_s='no price is read between two bars', max_spread='no order book is read', max_jump='no second source of prices is read')


def limits_of(settings: Settings) -> Limits:
    "What the section `[risk]` says; raises `BadInput` for a limit that nothing here could notice."
    given = settings.risk.given()
    for name, why in UNMEASURED.items():
        if name in given: raise BadInput(f'settings: risk.{name} would never bind: {why}; leave it out')
    return as_limits(given)


class Gate:
    "The limits of one account at one venue."

    def __init__(self, limits: Limits, journal: Journal, venue: str, account: str):
        self.limits, self.journal, self.venue, self.account = limits, journal, venue, account
        self.equities: dict[int, tuple[float, float]] = {}   # of each bot at its last two closes
        self.highest, self.morning, self.day = 0., 0., -1
        self.known: set[int] = set()                         # bots that have closed a bar since trading was resumed
        self.jumped: set[str] = set()                        # markets whose price was far from the one elsewhere, at the last close
        self.since, anew = journal.released(venue, account), False
        for bot, bar, equity, at in journal.marks(venue, account):
            if at > self.since and not anew: anew = self._begin_anew()
            self.mark(bot, bar, equity)
        if not anew: self._begin_anew()

    def mark(self, bot: int, bar: int, equity: Decimal):
        "Equity of one bot at a close; a day begins with what there was before it."
        if bar // DAY_MS != self.day: self.day, self.morning = bar // DAY_MS, self._confirmed[0]
        now, before = float(equity), self.equities.get(bot, (0., 0.))[1]
        if bot not in self.known:   # it brings its money along, and what was paid in or out while it was halted; that is no profit
            self.known.add(bot)
            self.morning, self.highest, before = self.morning + now - before, self.highest + now - before, now
        self.equities[bot] = before, now
        self.highest = max(self.highest, self._confirmed[0])

    def _begin_anew(self) -> bool:
        "From here on: what was lost before is known."
        self.equities, self.known = {bot: (now, now) for bot, (_, now) in self.equities.items()}, set()
        self.highest = self.morning = self._confirmed[0]
        return True

    @property
    def _confirmed(self) -> tuple[float, float]:
        "Equity of the account as far as one wrong price cannot have moved it: at least, at most."
        low, high = zip(*(confirmed(*pair) for pair in self.equities.values()), strict=True) if self.equities else ((), ())
        return sum(low), sum(high)

    def books(self, closes: Mapping[str, Decimal]) -> Books:
        "Where the account stands, at these closes where they are known."
        exposures, sent = {}, deque(maxlen=1000)
        for row in self.journal.holdings(self.venue, self.account):
            price = closes.get(row['symbol'], row['close'])
            if price is None: continue
            most = _worst(row['position'], row['open'])
            exposures[row['symbol']] = exposures.get(row['symbol'], 0.) + float(most * price)
            sent.extend(row['sent'])
        losses = self._losses(closes) if self.limits.max_losses else 0
        return Books(sum(now for _, now in self.equities.values()), exposures, self.highest, self.morning, losses, tuple(sorted(sent)))

    def _losses(self, closes: Mapping[str, Decimal]) -> int:
        "How many of the newest trades of the account lost, one after the other."
        fills = pd.DataFrame(self.journal.fills_of(self.venue, self.account))
        if fills.empty: return 0
        fills['side'] = fills.side.map(SIGN)
        for name in ('quantity', 'price', 'fee'): fills[name] = fills[name].astype(float)
        done = round_trips(fills, {symbol: float(closes.get(symbol, 0)) for symbol in fills.symbol.unique()})
        seen = fills.time[fills['at'] <= self.since].max()   # none: not a number, and nothing is before that
        done = done[~done.is_open.astype(bool) & ~(done.exit_time <= seen)]
        pnl = done.sort_values('exit_time').pnl.tolist()
        return next((k for k, gain in enumerate(reversed(pnl)) if gain >= 0), len(pnl))

    def refusals(self, order: Order, close: Decimal, prices: Prices, now_ms: int, variance: float | None = None) -> list[Breach]:
        "Every limit that the order would break, were it filled; `variance` is that of a day's return of its symbol."
        if not self.limits: return []
        change = float(SIGN[order.side] * order.quantity * close)
        covariances = {} if variance is None else {(order.symbol, order.symbol): variance}
        return refusals(order.symbol, change, self.books({order.symbol: close}), prices, self.limits, now_ms, order.price and float(order.price), covariances)

    def tripped(self, symbol: str, close: Decimal, prices: Prices) -> list[Breach]:
        "Every breaker that trips. Asked once a close, because a jump counts when it is there at two in a row."
        if not self.limits: return []
        found = tripped(replace(self.books({symbol: close}), equity=self._confirmed[1]), [prices], self.limits)
        before, jumped = symbol in self.jumped, any(each.limit == 'max_jump' for each in found)
        self.jumped = self.jumped | {symbol} if jumped else self.jumped - {symbol}
        return [each for each in found if before or each.limit != 'max_jump']


def _worst(position: Decimal, open_orders: list[tuple[str, Decimal]]) -> Decimal:
    "The largest position that the orders still out can lead to: all buys filled and no sell, or the other way round."
    ends = [position + sum((SIGN[side] * left for side, left in open_orders if side == way), Decimal(0)) for way in ('buy', 'sell')]
    return max(ends, key=abs)
