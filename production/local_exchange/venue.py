"""The simulated exchange of `execution.matching`, with what a real spot venue has on top: more kinds of orders, tiers of fees, halts, thin books."""
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from decimal import Decimal

from production.local_exchange.book import Levels
from trading_lib.core.errors import BadInput
from trading_lib.core.money import floor_to, price_to
from trading_lib.execution.costs import fee_of
from trading_lib.execution.matching import Bar, Exchange, MarketRules
from trading_lib.execution.orders import SIGN, Order, OrderState, advance

TIMES_IN_FORCE = ('GTC', 'IOC', 'FOK', 'POST_ONLY')
THIRD_ASSET_SHARE = Decimal('0.75')   # of the usual fee, where it is paid in a third asset; binance.com/en/fee


@dataclass(frozen=True, slots=True)
class SpotOrder(Order):
    "An order with what a spot venue knows beyond ours."
    word: str = ''                     # the venue's name for its type
    time_in_force: str = 'GTC'         # one of `TIMES_IN_FORCE`; POST_ONLY is refused where it would take
    limit: Decimal | None = None       # of a stop or take-profit: it wakes as a limit order at this price
    trail: Decimal | None = None       # a fraction: it wakes that far behind the best price so far; `stop_price` is where that is at first
    delayed: bool = False              # the trail begins only when `stop_price` is reached

    def __post_init__(self):
        Order.__post_init__(self)
        if self.time_in_force not in TIMES_IN_FORCE:
            raise BadInput(f'order {self.client_id}: time in force was {self.time_in_force!r}; known: {", ".join(TIMES_IN_FORCE)}')
        if self.limit is not None and (not self.stop_price or not self.limit > 0):
            raise BadInput(f'order {self.client_id}: limit was {self.limit}; it needs a stop price')


def spot(order: Order) -> SpotOrder:
    "The same order, as a spot venue sees it."
    return order if isinstance(order, SpotOrder) else SpotOrder(**asdict(order))


def trail_start(price: Decimal, side: str, trail: Decimal, tick: Decimal) -> Decimal:
    "Where a trailing order wakes: below the best price for a sell, above it for a buy; on the tick that wakes first."
    return price_to(price * (1 + SIGN[side] * trail), tick, side)


class Venue(Exchange):
    "One account at a spot market."

    def __init__(self, rules: Mapping[str, MarketRules], balances: Mapping[str, Decimal], slippage: Decimal = Decimal(0),
                 max_share: Decimal | None = None, maker: Decimal | None = None):
        super().__init__(rules, balances, slippage, max_share)
        self.maker = maker                             # a fraction; None is the taker's, which is in the rules
        self.fee_asset: tuple[str, Decimal | None] | None = None   # a third asset that pays the fees, and its price where it has no market here
        self.max_fill: Decimal | None = None           # the largest quantity filled at once
        self.halted: set[str] = set()                  # symbols
        self.best: dict[int, Decimal] = {}             # of each trailing order, the best price since it began
        self.makers: set[int] = set()                  # trade ids
        self.levels: Levels | None = None              # what an order that is placed now may take, where the market has a recorded book
        self._making, self._taking, self._now = False, set(), None

    def refusal(self, order: Order) -> str:
        order = spot(order)
        if order.symbol in self.halted: return 'MARKET_CLOSED'
        if reason := super().refusal(order): return reason
        tick = self.rules[order.symbol].tick
        if order.limit is not None and tick and order.limit % tick: return 'PRICE_FILTER'
        takes = order.kind == 'limit' and SIGN[order.side] * (order.price - self.prices[order.symbol]) >= 0
        return 'WOULD_TAKE' if takes and order.time_in_force == 'POST_ONLY' else ''

    def _needs(self, order: Order, quantity: Decimal) -> tuple[str, Decimal]:
        if order.limit is not None: order = Order(order.client_id, order.symbol, order.side, 'limit', order.quantity, order.limit, group=order.group)
        return super()._needs(order, quantity)

    def place(self, order: Order, time: object = None) -> OrderState:
        order = spot(order)
        state = super().place(order, time)
        if state.done: return state
        if order.trail and not order.delayed: self.best[state.id] = self.prices[order.symbol]
        return self._expire(state, state.updated) if order.time_in_force in ('IOC', 'FOK') else state

    def close_bar(self, symbol: str, bar: Bar, time: object = None) -> list[OrderState]:
        self._now = time
        if symbol not in self.halted: return super().close_bar(symbol, bar, time)
        self.prices[symbol] = bar.close
        return []

    def _expire(self, state: OrderState, time: object) -> OrderState: return self._keep(advance(state, 'EXPIRED', reason='LIQUIDITY', updated=time))

    def _take(self, state: OrderState, price: Decimal, quantity: Decimal, time: object) -> OrderState:
        "Fill, but no more at once than the book holds; what cannot rest expires."
        order, some = state.order, quantity if self.max_fill is None else min(quantity, self.max_fill)
        if some < quantity and order.time_in_force == 'FOK': return self._expire(state, time)
        if self.levels is not None and state.id not in self.resting[order.symbol]: return self._walk(state, some, time)
        self._making = state.id in self.resting[order.symbol] and (order.price or order.limit) is not None and state.id not in self._taking
        state = super()._take(state, price, some, time)
        ends = order.price is None and (order.limit is None or order.time_in_force != 'GTC')   # limits placed as such are ended by `place`
        return self._expire(state, time) if ends and some < quantity and not state.done else state

    def _walk(self, state: OrderState, quantity: Decimal, time: object) -> OrderState:
        "Take one level of the recorded book after the other, up to the order's price."
        order, step = state.order, self.rules[state.order.symbol].step
        within = [(price, some) for price, size in self.levels
                  if (some := floor_to(size, step)) and (order.price is None or SIGN[order.side] * (price - order.price) <= 0)]
        if order.time_in_force == 'FOK' and sum(size for _, size in within) < order.quantity: return self._expire(state, time)
        self._making = False
        for price, size in within:
            some = min(size, quantity - state.filled)
            if state.done or some <= 0: break
            state = super()._take(state, price, some, time)
        return self._expire(state, time) if order.price is None and not state.done else self._keep(state)

    def _trade(self, state: OrderState, quantity: Decimal, price: Decimal, time: object) -> OrderState:
        state = super()._trade(state, quantity, price, time)
        if self._making: self.makers.add(state.fills[-1].trade_id)
        return state

    def _fee(self, order: Order, quantity: Decimal, price: Decimal) -> tuple[str, Decimal]:
        "A maker's where we waited; in the third asset while that is switched on and there is enough of it."
        rules = self.rules[order.symbol]
        rate = self.maker if self._making and self.maker is not None else rules.fee
        if self.fee_asset:
            asset, worth = self.fee_asset
            worth = self.prices.get(f'{asset}/{rules.quote}', worth)
            fee = floor_to(fee_of(quantity, price, rate) * THIRD_ASSET_SHARE / worth, rules.unit) if worth else None
            if fee is not None and asset not in (rules.base, rules.quote) and self.free[asset] >= fee: return asset, fee
        if order.side == 'buy' and rules.fee_in == 'received': return rules.base, floor_to(quantity * rate, rules.unit)
        return rules.quote, floor_to(fee_of(quantity, price, rate), rules.unit)

    def _reached(self, state: OrderState, bar: Bar) -> Decimal | None:
        "The price at which this bar fills a resting order, if it does."
        order, id = state.order, state.id
        if order.kind == 'limit' or order.limit is None and order.trail is None: return super()._reached(state, bar)
        better = min if order.side == 'buy' else max
        if id not in self.awake:
            if (at := self._wakes(state, bar)) is None: return None
            self.awake.add(id)
            if order.limit is None: return self._taken(order, at)
            for other in self._others(order): self._keep(advance(self.orders[other], 'CANCELED', reason='GROUP', updated=self._now))
            self._keep(state)
            if SIGN[order.side] * (order.limit - at) < 0:   # it rests; how the bar went on is not known
                if order.time_in_force != 'GTC': self._expire(state, self._now)
                return None
            self._taking.add(id)
            return better(self._taken(order, at), order.limit)
        self._taking.discard(id)
        if order.limit is None: return self._taken(order, bar.open)
        beyond = order.limit - bar.low if order.side == 'buy' else bar.high - order.limit
        return order.limit if beyond > 0 else None

    def _wakes(self, state: OrderState, bar: Bar) -> Decimal | None:
        "The price at which this bar wakes a stop, a take-profit or a trailing order."
        order, id, tick = state.order, state.id, self.rules[state.order.symbol].tick
        furthest = max if order.rises else min
        if order.trail is None or id not in self.best:
            if (bar.high < order.stop_price) if order.rises else (bar.low > order.stop_price): return None
            if order.trail is None: return furthest(order.stop_price, bar.open)
            self.best[id] = bar.close   # where in the bar it was is not known: the trail begins at the close
            return None
        buys = order.side == 'buy'
        best, worst, extreme = (min, bar.high, bar.low) if buys else (max, bar.low, bar.high)
        def level(): return trail_start(self.best[id], order.side, order.trail, tick)
        def behind(price): return price >= level() if buys else price <= level()
        self.best[id] = best(self.best[id], bar.open)
        if behind(worst): return max(level(), bar.open) if buys else min(level(), bar.open)
        self.best[id] = best(self.best[id], extreme)
        return level() if behind(bar.close) else None
