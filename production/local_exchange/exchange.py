"""The venue without HTTP: bars that are released one by one, a clock, an account, and a log that survives a kill."""
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from decimal import Decimal
from functools import cached_property
from hashlib import sha256
from pathlib import Path

import numpy as np

from production.local_exchange.log import CommandLog
from trading_lib.core.errors import BadInput
from trading_lib.core.money import money
from trading_lib.core.time import timeframe_delta
from trading_lib.execution.matching import Bar, Exchange, MarketRules, split_symbol, spot_rules
from trading_lib.execution.orders import Order, OrderState
from trading_lib.market.bars import OHLCV, Sample

KEYS = {'local-key': 'local-secret'}   # nothing is protected by it; the signature check is the point


class Tape:
    "The bars of one symbol, by open time in epoch ms."

    def __init__(self, sample: Sample):
        self.opens = sample.bars.index.as_unit('ms').asi8
        self.values = sample.bars[OHLCV].to_numpy('float64')
        self.where = {at: row for row, at in enumerate(self.opens.tolist())}

    def bar(self, at: int) -> Bar | None:
        "The bar that opens at this time, in Decimal."
        row = self.where.get(at)
        return None if row is None else Bar(*(Decimal(repr(value)) for value in self.values[row].tolist()))

    def until(self, at: int) -> int:
        "How many bars have opened by then."
        return int(np.searchsorted(self.opens, at, side='right'))


class LocalExchange:
    """A spot venue over stored bars.

    `current` is the newest bar that has closed. The price is the open of the next one, so an order placed now fills where a decision
    made at the close of `current` fills in replay. Every accepted command is in the log before it is applied.
    """

    def __init__(self,
        samples: Sequence[Sample],                       # one a symbol, all of one bar length
        first: int = 1,                                  # bars that have closed when the venue opens
        balances: Mapping[str, object] | None = None,    # by asset; 10,000 of the first quote asset if not given
        rules: Mapping[str, MarketRules] | None = None,  # by symbol; like Binance's for a coin of that price if not given
        slippage: object = 0,                            # a fraction, against whoever takes
        max_share: object = None,                        # of a bar's volume that resting orders may fill
        keys: Mapping[str, str] = KEYS,                  # API key → secret
        log: Path | None = None,                         # a file of accepted commands; None keeps nothing
        clock: Callable[[], float] = time.monotonic,     # real seconds
    ):
        if len({sample.timeframe for sample in samples}) != 1: raise BadInput('the local exchange needs samples of one timeframe, at least one')
        self.timeframe, self.keys, self.clock = samples[0].timeframe, dict(keys), clock
        self.length = int(timeframe_delta(self.timeframe).total_seconds() * 1000)
        self.tapes, self.rules, self.ids = {}, {}, {}
        for sample in samples: self._list(sample, rules or {}, first)
        self.times = np.unique(np.concatenate([tape.opens for tape in self.tapes.values()])).tolist()
        if not 1 <= first <= len(self.times): raise BadInput(f'first was {first}; it must be between 1 and the {len(self.times)} bars there are')
        self.first, self.current = first, first - 1
        quote = next(iter(self.rules.values())).quote
        self.start = {asset: money(amount) for asset, amount in (balances or {quote: 10_000}).items()}
        self.venue = Exchange(self.rules, self.start, money(slippage), None if max_share is None else money(max_share))
        self.cancels: dict[int, str] = {}        # order id → the client id of its cancellation
        self.order_of: dict[int, int] = {}       # trade id → order id
        self.listeners: list[Callable] = []
        self._released, self._latest = clock(), 0
        self._open_next()
        self.log = CommandLog(log, self._header(samples)) if log else None
        for command in self.log.commands if self.log else (): self._apply(command)

    def _list(self, sample: Sample, rules: Mapping[str, MarketRules], first: int):
        "Admit one symbol."
        base, quote = split_symbol(sample.symbol)
        symbol = f'{base}/{quote}'
        price = sample.bars.close.iloc[min(first, len(sample.bars)) - 1]
        self.tapes[symbol] = Tape(sample)
        self.rules[symbol] = rules.get(symbol) or rules.get(sample.symbol) or spot_rules(symbol, float(price))
        venue_id = ''.join(filter(str.isalnum, symbol)).upper()
        if venue_id in self.ids: raise BadInput(f'{symbol} and {self.ids[venue_id]} would both be {venue_id} at the venue; leave one out')
        self.ids[venue_id] = symbol

    def _header(self, samples: Sequence[Sample]) -> dict:
        "What the commands of a log were given to."
        rules = json.dumps({symbol: asdict(rules) for symbol, rules in self.rules.items()}, default=str, sort_keys=True)
        return dict(version=1, bars=sha256(''.join(sample.fingerprint for sample in samples).encode()).hexdigest(), symbols=list(self.rules),
                    first=self.first, rules=sha256(rules.encode()).hexdigest(), slippage=str(self.venue.slippage),
                    max_share=str(self.venue.max_share), balances={asset: str(amount) for asset, amount in self.start.items()})

    # The clock

    @property
    def done(self) -> bool:
        "Are the bars over?"
        return self.current == len(self.times) - 1

    @property
    def closed_at(self) -> int:
        "When the newest closed bar closed, in epoch ms."
        return self.times[self.current] + self.length

    def now(self) -> int:
        """Venue time in epoch ms: the close of the current bar and the real time since its release.

        It stops a bar length (at least a minute) after that, so a runner that comes back tomorrow finds the market where it left it,
        and it never runs backwards.
        """
        waited = min(int((self.clock() - self._released) * 1000), max(self.length, 60_000) - 1)
        self._latest = max(self._latest, self.closed_at + waited)
        return self._latest

    # Commands

    def place(self, order: Order) -> OrderState:
        "Accept an order, or refuse it (REJECTED, with the venue's word for why)."
        if self.venue.refusal(order): return self.venue.place(order, self.now())   # changes nothing, so it is not written down
        facts = {name: str(value) for name, value in asdict(order).items() if value is not None}
        return self._accept(dict(do='place', at=self.now(), order=facts))

    def cancel(self, order_id: int, client_id: str = '') -> OrderState:
        "End a resting order; raises `Rejected` if it is unknown or over."
        state = self.venue.orders.get(order_id)
        if state is None or state.done: return self.venue.cancel(order_id)
        return self._accept(dict(do='cancel', at=self.now(), id=order_id, client_id=client_id))

    def release(self, through: int) -> bool:
        "The bar that opens at `through` (epoch ms) is settled: close the one after it. Calling twice does nothing. True if time moved."
        if through not in self._index: raise BadInput(f'through was {through}; it must be the open time of a bar in epoch ms')
        if self._index[through] > self.current: raise BadInput(f'through was {through}; that bar has not closed, the newest that has is {self.times[self.current]}')
        wanted = min(self._index[through] + 1, len(self.times) - 1)
        if wanted <= self.current: return False
        self._accept(dict(do='release', to=wanted), durable=False)
        return True

    def step(self) -> bool:
        "Release the next bar whoever is waiting; False when the bars are over."
        return self.release(self.times[self.current])

    @cached_property
    def _index(self) -> dict[int, int]:
        return {at: row for row, at in enumerate(self.times)}

    def _accept(self, command: dict, durable: bool = True) -> OrderState | None:
        if self.log: self.log.append(command, durable)
        return self._apply(command)

    def _apply(self, command: dict) -> OrderState | None:
        "Do what a command says; the same commands give the same state, now and after a restart."
        self._latest = max(self._latest, command.get('at', 0))
        match command:
            case {'do': 'place', 'at': at, 'order': order}:
                numbers = {name: Decimal(order[name]) for name in ('quantity', 'price', 'stop_price') if name in order}
                state = self.venue.place(Order(**(order | numbers)), at)
                return self._changed(state, 0, new=True)
            case {'do': 'cancel', 'at': at, 'id': order_id, 'client_id': client_id}:
                self.cancels[order_id] = client_id
                return self._changed(self.venue.cancel(order_id, at))
            case {'do': 'release', 'to': wanted}:
                while self.current < wanted: self._close_next()

    def _close_next(self):
        "Run the next bar through the resting orders, and open the one after it."
        self.current += 1
        self._released = self.clock()
        at = self.times[self.current]
        filled = {id: self.venue.orders[id].filled for ids in self.venue.resting.values() for id in ids}
        for symbol, tape in self.tapes.items():
            if (bar := tape.bar(at)) is None: continue
            for state in self.venue.close_bar(symbol, bar, self.closed_at - 1): self._changed(state, filled[state.id])
        self._open_next()
        for symbol, tape in self.tapes.items():
            if at in tape.where: self._tell('bar', symbol, at)

    def _open_next(self):
        if self.done:
            for symbol in self.tapes: self.venue.close_market(symbol)
            return
        at = self.times[self.current + 1]
        for symbol, tape in self.tapes.items():
            if bar := tape.bar(at): self.venue.open_bar(symbol, at, bar.open)

    # What others may know

    def _changed(self, state: OrderState, filled: Decimal | None = None, new: bool = False) -> OrderState:
        "Tell what happened to an order: each execution once, in Binance's words."
        traded = filled is not None and state.filled > filled
        if traded: self.order_of[state.fills[-1].trade_id] = state.id
        for execution in ['NEW'] * new + ['TRADE'] * traded + [state.status] * (state.status in ('CANCELED', 'EXPIRED')):
            self._tell('order', execution, state)
        return state

    def _tell(self, *what: object):
        for listener in self.listeners: listener(*what)

    def visible(self, symbol: str) -> tuple[int, bool]:
        "How many bars of a symbol can be seen, and whether the last of them is still forming."
        tape = self.tapes[symbol]
        closed, opened = tape.until(self.times[self.current]), tape.until(self.now())
        return min(opened, closed + 1), opened > closed

    def state(self) -> dict:
        "Where the market and the account stand, as plain values."
        assets = sorted({asset for rules in self.rules.values() for asset in (rules.base, rules.quote)} | set(self.venue.free))
        return dict(current=self.times[self.current], closed=self.current + 1, bars=len(self.times), done=self.done, time=self.now(),
                    timeframe=self.timeframe, orders=len(self.venue.orders), trades=len(self.venue.trades),
                    balances={a: dict(free=str(self.venue.free[a]), locked=str(self.venue.held(a) - self.venue.free[a])) for a in assets},
                    open_orders=[self.venue.orders[id].order.client_id for ids in self.venue.resting.values() for id in ids])

    def close(self):
        if self.log: self.log.close()
