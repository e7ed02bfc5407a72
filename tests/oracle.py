"""The arithmetic of a backtest, told with lists, floats and loops. The engines are held against this, and it shares nothing with them.

One bar after the other: funding at the open, orders at the open, stops within the bar, the books at the close."""
from dataclasses import dataclass

import pandas as pd

from trading_lib.execution.costs import Costs


@dataclass
class Fill:
    bar: int            # row
    symbol: object      # None where there is only one
    quantity: float     # above 0 bought, below 0 sold
    price: float
    fee: float
    reason: str


@dataclass
class Story:
    "What happened, a list entry a bar."
    equity: list        # at the close
    position: list      # at the close, a dict by symbol
    cash: list          # at the close
    funding: list       # at the open, received less paid
    fills: list         # in the order they happened
    ruin: int | None = None


@dataclass
class Holding:
    "One symbol in the account, and the trade that is running in it."
    position: float = 0.
    entry: float = 0.     # average price of the fills that built it
    best: float = 0.      # the best price since it began, as it is known at an open
    since: int = 0        # the bar of the fill that began it
    wanted: float = 0.    # the exposure last asked for


def tell(bars, target, costs=Costs(), cash=10_000., stops=None) -> Story:
    "Follow the target through the bars: a Series and a bar table, or a DataFrame and (symbol, field) columns."
    symbols = list(target.columns) if isinstance(target, pd.DataFrame) else [None]
    column = lambda symbol, field: bars[field if symbol is None else (symbol, field)].tolist()
    markets = {s: {field: column(s, field) for field in ('open', 'high', 'low', 'close')} for s in symbols}
    rates = {s: column(s, 'funding') for s in symbols if ('funding' if s is None else (s, 'funding')) in bars.columns}
    targets = {s: (target if s is None else target[s]).tolist() for s in symbols}
    account = Account(symbols, costs, cash)
    story = Story([], [], [], [], account.fills)
    for t in range(len(bars)):
        story.funding.append(pay_funding(account, markets, rates, t))
        if t > 0: trade_at_the_open(account, markets, targets, story.equity[-1], stops, t)
        if stops: stop_within_the_bar(account, markets, stops, t)
        remember_the_best(account, markets, t)
        story.equity.append(account.cash + sum(h.position * markets[s]['close'][t] for s, h in account.holdings.items()))
        if story.equity[-1] <= 0: return end_in_ruin(story, symbols, len(bars), t)
        story.cash.append(account.cash)
        story.position.append({s: h.position for s, h in account.holdings.items()})
    return story


def pay_funding(account, markets, rates, t):
    "Longs pay a positive rate on the value at the open, shorts receive it; a rate that is not known is none."
    flow = 0.
    for symbol, rate in rates.items():
        position = account.holdings[symbol].position
        if position and rate[t] == rate[t]: flow -= position * markets[symbol]['open'][t] * rate[t]
    account.cash += flow
    return flow


def trade_at_the_open(account, markets, targets, equity, stops, t):
    "What the last close decided: a target that changed, or a trade that has lasted long enough. Sales come first."
    orders = []
    for symbol, holding in account.holdings.items():
        close = markets[symbol]['close'][t - 1]
        held = holding.position * close
        if targets[symbol][t - 1] != holding.wanted:
            holding.wanted = targets[symbol][t - 1]
            orders.append((holding.wanted * equity - held, holding.wanted * equity / close - holding.position, symbol, 'target'))
        elif stops and stops.time_stop and holding.position and t >= holding.since + stops.time_stop:
            orders.append((-held, -holding.position, symbol, 'time_stop'))
    for _, quantity, symbol, reason in sorted(orders, key=lambda order: order[0]):   # by value; equals stay in the order of the columns
        account.trade(t, symbol, quantity, markets[symbol]['open'][t], reason)


def stop_within_the_bar(account, markets, stops, t):
    "A held symbol that reaches its stop or its target is sold, or covered, whole."
    for symbol, holding in account.holdings.items():
        if not holding.position: continue
        touched = touch(holding, stops, *(markets[symbol][field][t] for field in ('open', 'high', 'low')))
        if touched: account.trade(t, symbol, -holding.position, *touched)


def touch(holding, stops, open_, high, low):
    "The price that the bar touches, and what it is; None if it touches nothing. Where both are within the bar, the worse."
    side = 1 if holding.position > 0 else -1
    levels = []
    if stops.stop_loss: levels.append((holding.entry * (1 - side * stops.stop_loss), 'stop_loss'))
    if stops.trailing_stop: levels.append((holding.best * (1 - side * stops.trailing_stop), 'trailing_stop'))
    stop = max(levels, key=lambda level: side * level[0]) if levels else None       # the nearer; of equals the first
    goal = (holding.entry * (1 + side * stops.take_profit), 'take_profit') if stops.take_profit else None
    worst, best = (low, high) if side > 0 else (high, low)
    beyond_stop = lambda price: stop and side * price <= side * stop[0]
    beyond_goal = lambda price: goal and side * price >= side * goal[0]
    if beyond_stop(open_): return open_, stop[1]
    if beyond_goal(open_): return open_, goal[1]
    if beyond_stop(worst): return stop
    if beyond_goal(best): return goal
    return None


def remember_the_best(account, markets, t):
    "From the next bar on, this bar's extreme counts."
    for symbol, holding in account.holdings.items():
        if holding.position > 0: holding.best = max(holding.best, markets[symbol]['high'][t])
        if holding.position < 0: holding.best = min(holding.best, markets[symbol]['low'][t])


def end_in_ruin(story, symbols, bars, t):
    "Whatever is owed stays owed, and nothing is held any more."
    rest = bars - t
    story.ruin = t
    story.equity += [story.equity[-1]] * (rest - 1)
    story.cash += [story.equity[-1]] * rest
    story.position += [dict.fromkeys(symbols, 0.)] * rest
    story.funding += [0.] * (rest - 1)
    return story


class Account:
    "Cash, and what is held of every symbol."
    def __init__(self, symbols, costs, cash):
        self.cash, self.costs = cash, costs
        self.holdings = {symbol: Holding() for symbol in symbols}
        self.fills = []

    def trade(self, t, symbol, quantity, base, reason):
        "A market order: slippage against us, a fee on the value, and a buy takes no more than cash pays."
        side = 1 if quantity > 0 else -1
        price = base * (1 + side * self.costs.slippage_bps / 1e4)
        fee_rate = self.costs.fee_bps / 1e4
        cash = self.cash - quantity * price - abs(quantity) * price * fee_rate
        if side > 0 and cash < 0:
            quantity = max(self.cash / (price * (1 + fee_rate)), 0.)
            cash = min(self.cash, 0.)
        if quantity == 0: return
        self.cash = cash
        self.fills.append(Fill(t, symbol, quantity, price, abs(quantity) * price * fee_rate, reason))
        self.book(self.holdings[symbol], t, quantity, price)

    def book(self, holding, t, quantity, price):
        "A fill begins a trade, adds to it, takes from it, ends it, or ends it and begins the opposite one."
        held, position = holding.position, holding.position + quantity
        if held * position <= 0: holding.entry, holding.best, holding.since = price, price, t          # from flat, to flat, or a flip
        elif abs(position) > abs(held): holding.entry = (holding.entry * held + price * quantity) / position
        holding.position = position
