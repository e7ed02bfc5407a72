"""The venue without HTTP: bars that are released one by one, a clock, accounts, and a log that survives a kill."""
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from decimal import Decimal
from functools import cached_property
from hashlib import sha256
from pathlib import Path

import numpy as np

from production.local_exchange import changes
from production.local_exchange.book import RecordedBook
from production.local_exchange.faults import Faults
from production.local_exchange.log import CommandLog
from production.local_exchange.venue import SpotOrder, Venue, spot
from trading_lib.core.errors import BadInput, Rejected, did_you_mean
from trading_lib.core.money import money
from trading_lib.core.time import timeframe_delta
from trading_lib.execution.matching import Bar, MarketRules, split_symbol, spot_rules
from trading_lib.execution.orders import Order, OrderState
from trading_lib.market.bars import OHLCV, Sample

KEYS = {'local-key': 'local-secret'}   # nothing is protected by it; the signature check is the point
MAIN = 'main'                          # the account that is always there
NUMBERS = ('quantity', 'price', 'stop_price', 'limit', 'trail')


class Tape:
    "The bars of one symbol, by open time in epoch ms."

    def __init__(self, sample: Sample):
        self.opens = sample.bars.index.as_unit('ms').asi8
        self.values = sample.bars[OHLCV].to_numpy('float64')
        self.where = {at: row for row, at in enumerate(self.opens.tolist())}

    def append(self, at: int, values: Sequence[float]):
        "One more bar, after all others."
        self.opens, self.values = np.append(self.opens, at), np.vstack([self.values, values])
        self.where[at] = len(self.opens) - 1

    def bar(self, at: int) -> Bar | None:
        "The bar that opens at this time, in Decimal."
        row = self.where.get(at)
        return None if row is None else Bar(*(Decimal(repr(value)) for value in self.values[row].tolist()))

    def until(self, at: int) -> int:
        "How many bars have opened by then."
        return int(np.searchsorted(self.opens, at, side='right'))


@dataclass
class OrderList:
    "Several orders of which the first that trades ends the others (OCO)."
    id: int
    client_id: str
    symbol: str
    orders: tuple[int, ...]
    opened: int


@dataclass
class Account:
    "One holder at the venue, and what its orders do not say themselves."
    name: str
    venue: Venue
    cancels: dict[int, str] = field(default_factory=dict)       # order id → the client id of its cancellation
    order_of: dict[int, int] = field(default_factory=dict)      # trade id → order id
    lists: dict[int, OrderList] = field(default_factory=dict)
    listed: dict[int, OrderList] = field(default_factory=dict)  # by order id

    def add(self, found: OrderList):
        self.lists[found.id] = found
        self.listed.update(dict.fromkeys(found.orders, found))


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
        accounts: Mapping[str, Mapping[str, object]] | None = None,   # more holders: `key secret balances maker taker`; 'main' may be given fees
        live: bool = False,                              # bars come from the world, by `feed`; the samples are what was before
        books: Mapping[str, object] | None = None,       # by symbol: a recorded order book, or its path; without one a book is made up
    ):
        if len({sample.timeframe for sample in samples}) != 1: raise BadInput('the local exchange needs samples of one timeframe, at least one')
        self.timeframe, self.keys, self.clock = samples[0].timeframe, dict(keys), clock
        self.length = int(timeframe_delta(self.timeframe).total_seconds() * 1000)
        self.tapes, self.rules, self.ids = {}, {}, {}
        for sample in samples: self._list(sample, rules or {}, first)
        self.times = np.unique(np.concatenate([tape.opens for tape in self.tapes.values()])).tolist()
        self.live = live
        if live: first = len(self.times)
        if not 1 <= first <= len(self.times): raise BadInput(f'first was {first}; it must be between 1 and the {len(self.times)} bars there are')
        self.first, self.current = first, first - 1
        quote = next(iter(self.rules.values())).quote
        self.start = {asset: money(amount) for asset, amount in (balances or {quote: 10_000}).items()}
        self.slippage, self.max_share = money(slippage), None if max_share is None else money(max_share)
        self.holders = self._admitted(accounts or {})
        self.accounts = {name: self._opened(name) for name in self.holders}
        self.books = {symbol: book if isinstance(book, RecordedBook) else RecordedBook(book) for symbol, book in (books or {}).items()}
        if unknown := self.books.keys() - self.rules.keys(): raise BadInput(f'there is a book of {min(unknown)}, but no bars')
        self.faults = Faults()                   # of the network in front; they never touch the books
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

    def _admitted(self, accounts: Mapping[str, Mapping[str, object]]) -> dict[str, dict]:
        "Who trades here, with start balances and fees; their keys are added to ours."
        holders, self.owners = {MAIN: dict(balances=self.start)}, dict.fromkeys(self.keys, MAIN)
        for name, asked in accounts.items():
            if unknown := asked.keys() - {'key', 'secret', 'balances', 'maker', 'taker'}:
                raise BadInput(f'account {name}: there is no setting {min(unknown)}')
            if name != MAIN and not {'key', 'secret', 'balances'} <= asked.keys():
                raise BadInput(f'account {name}: it needs a key, a secret and balances')
            if asked.get('key') in self.keys: raise BadInput(f'account {name}: its key {asked["key"]} is taken')
            if 'key' in asked: self.keys[asked['key']], self.owners[asked['key']] = asked['secret'], name
            given = {asset: money(amount) for asset, amount in asked['balances'].items()} if 'balances' in asked else self.start
            holders[name] = dict(balances=given) | {rate: money(asked[rate]) for rate in ('maker', 'taker') if rate in asked}
        return holders

    def _opened(self, name: str) -> Account:
        "An account as it starts."
        holder = self.holders[name]
        rules = {symbol: replace(rule, fee=holder.get('taker', rule.fee)) for symbol, rule in self.rules.items()}
        return Account(name, Venue(rules, holder['balances'], self.slippage, self.max_share, holder.get('maker')))

    @property
    def venue(self) -> Venue: return self.accounts[MAIN].venue

    @property
    def cancels(self) -> dict[int, str]: return self.accounts[MAIN].cancels

    def account(self, name: str) -> Account:
        "The account of that name."
        if name not in self.accounts: raise BadInput(f'there is no account {name}{did_you_mean(name, self.accounts)}')
        return self.accounts[name]

    def _header(self, samples: Sequence[Sample]) -> dict:
        "What the commands of a log were given to."
        more = {} if self.holders == {MAIN: dict(balances=self.start)} else dict(accounts=json.loads(json.dumps(self.holders, default=str)))
        if self.live: more['live'] = True
        if self.books: more['books'] = {symbol: book.fingerprint for symbol, book in self.books.items()}
        rules = json.dumps({symbol: asdict(rules) for symbol, rules in self.rules.items()}, default=str, sort_keys=True)
        return dict(version=1, bars=sha256(''.join(sample.fingerprint for sample in samples).encode()).hexdigest(), symbols=list(self.rules),
                    first=self.first, rules=sha256(rules.encode()).hexdigest(), slippage=str(self.slippage),
                    max_share=str(self.max_share), balances={asset: str(amount) for asset, amount in self.start.items()}) | more

    # The clock

    @property
    def done(self) -> bool:
        "Are the bars over?"
        return not self.live and self.current == len(self.times) - 1

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

    def place(self, order: Order, account: str = MAIN) -> OrderState:
        "Accept an order, or refuse it (REJECTED, with the venue's word for why)."
        order, venue = spot(order), self.account(account).venue
        self._quote(venue, order, self.now())
        if venue.refusal(order): return venue.place(order, self.now())   # changes nothing, so it is not written down
        return self._accept(dict(do='place', at=self.now(), order=_facts(order)), account)

    def place_list(self, orders: Sequence[Order], client_id: str, account: str = MAIN) -> OrderList:
        "Accept orders of which the first that trades ends the others; raises `Rejected` with the reason if one of them is refused."
        venue = self.account(account).venue
        if reason := next(filter(None, map(venue.refusal, orders)), None): raise Rejected(reason)
        return self._accept(dict(do='list', at=self.now(), client_id=client_id, orders=[_facts(order) for order in orders]), account)

    def cancel(self, order_id: int, client_id: str = '', account: str = MAIN) -> OrderState:
        "End a resting order, and those it is listed with; raises `Rejected` if it is unknown or over."
        venue = self.account(account).venue
        state = venue.orders.get(order_id)
        if state is None or state.done: return venue.cancel(order_id)
        return self._accept(dict(do='cancel', at=self.now(), id=order_id, client_id=client_id), account)

    def _quote(self, venue: Venue, order: Order, at: int):
        "What an order may take, and so the price it meets, where the market has a recorded book."
        book = self.books.get(order.symbol)
        venue.levels = book.at(at)[1 + (order.side == 'buy')] if book else None
        if venue.levels and order.symbol in venue.prices: venue.prices[order.symbol] = venue.levels[0][0]

    def change(self, what: str, value: object, account: str = MAIN):
        "Change the market or an account by hand; see `changes.CHANGES` for what there is. Raises `BadInput`."
        checked = changes.checked(self, self.account(account), what, value)
        self._accept(dict(do='change', at=self.now(), what=what, value=checked), account)

    def release(self, through: int) -> bool:
        "The bar that opens at `through` (epoch ms) is settled: close the one after it. Calling twice does nothing. True if time moved."
        if through not in self._index: raise BadInput(f'through was {through}; it must be the open time of a bar in epoch ms')
        if self._index[through] > self.current:
            raise BadInput(f'through was {through}; that bar has not closed, the newest that has is {self.times[self.current]}')
        wanted = min(self._index[through] + 1, len(self.times) - 1)
        if wanted <= self.current: return False
        self._accept(dict(do='release', to=wanted), durable=False)
        return True

    def step(self) -> bool:
        "Release the next bar whoever is waiting; False when the bars are over."
        return self.release(self.times[self.current])

    def feed(self, opened: int, bars: Mapping[str, Sequence[float]]) -> bool:
        """A bar has closed in the world: when it opened, in epoch ms, and by symbol its open, high, low, close and volume.

        Feeding twice does nothing; True if time moved. Raises `BadInput` for what is no bar.
        """
        if not self.live: raise BadInput('this exchange plays stored bars; make it with live=True to feed it')
        if not bars or (opened - self.times[-1]) % self.length:
            raise BadInput(f'bar {opened}: it does not fit {self.timeframe} bars, of which the last opened at {self.times[-1]}')
        if opened <= self.times[-1]: return False
        rows = {changes.market(self, symbol): [float(value) for value in row] for symbol, row in bars.items()}
        for symbol, (o, h, l, c, v) in rows.items():
            sound = np.isfinite(rows[symbol]).all() and 0 < l <= min(o, c) <= max(o, c) <= h and v >= 0
            if not sound: raise BadInput(f'bar {opened} of {symbol}: {rows[symbol]} is no bar')
        self._accept(dict(do='bar', open=opened, bars=rows), durable=False)
        return True

    @cached_property
    def _index(self) -> dict[int, int]:
        return {at: row for row, at in enumerate(self.times)}

    def _accept(self, command: dict, account: str = MAIN, durable: bool = True) -> object:
        if account != MAIN: command['account'] = account
        if self.log: self.log.append(command, durable)
        return self._apply(command)

    def _apply(self, command: dict) -> object:
        "Do what a command says; the same commands give the same state, now and after a restart."
        self._latest = max(self._latest, command.get('at', 0))
        account = self.accounts[command.get('account', MAIN)]
        match command:
            case {'do': 'place', 'at': at, 'order': order}:
                order = _order(order)
                self._quote(account.venue, order, at)
                return self._changed(account, account.venue.place(order, at), 0, new=True)
            case {'do': 'list', 'at': at, 'client_id': client_id, 'orders': orders}:
                account.venue.levels = None
                states = [account.venue.place(_order(order), at) for order in orders]
                number = len(account.lists) + 1
                account.add(OrderList(number, client_id, states[0].order.symbol, tuple(state.id for state in states), at))
                self.tell('list', account.lists[number], account.name)
                for state in states: self._changed(account, state, 0, new=True)
                return account.lists[number]
            case {'do': 'cancel', 'at': at, 'id': order_id, 'client_id': client_id}: return self._cancel(account, order_id, client_id, at)
            case {'do': 'release', 'to': wanted}:
                while self.current < wanted: self._close_next()
            case {'do': 'bar', 'open': opened, 'bars': bars}:
                for symbol, row in bars.items(): self.tapes[symbol].append(opened, row)
                self.times.append(opened)
                self._index[opened] = len(self.times) - 1
                self._close_next()
            case {'do': 'change', 'at': at, 'what': what, 'value': value}: changes.apply(self, account, what, value, at)

    def _cancel(self, account: Account, order_id: int, client_id: str, at: int) -> OrderState:
        listed = account.listed.get(order_id)
        for id in (order_id, *(listed.orders if listed else ())):
            if id in account.cancels or account.venue.orders[id].done: continue
            account.cancels[id] = client_id
            self._changed(account, account.venue.cancel(id, at))
        if listed: self.tell('list', listed, account.name)
        return account.venue.orders[order_id]

    def _close_next(self):
        "Run the next bar through the resting orders, and open the one after it."
        self.current += 1
        self._released = self.clock()
        at = self.times[self.current]
        for symbol, tape in self.tapes.items():
            if bar := tape.bar(at): self.run_bar(symbol, bar, self.closed_at - 1)
        self._open_next()
        for symbol, tape in self.tapes.items():
            if at in tape.where: self.tell('bar', symbol, at)

    def run_bar(self, symbol: str, bar: Bar, time: int):
        "Run a bar through the resting orders of everyone."
        for account in self.accounts.values():
            venue = account.venue
            before = {id: venue.orders[id] for id in venue.resting[symbol]}
            traded = {state.id: state for state in venue.close_bar(symbol, bar, time)}
            for state in traded.values(): self._changed(account, state, before[state.id].filled)
            for id in before:
                if id not in traded and venue.orders[id].done: self._changed(account, venue.orders[id])
            for listed in {listed.id: listed for id in traded if (listed := account.listed.get(id))}.values(): self.tell('list', listed, account.name)

    def empty(self):
        "As after a reset of a test network: nobody has traded, and the market is where it was."
        halted, max_fill = self.venue.halted, self.venue.max_fill
        self.accounts = {name: self._opened(name) for name in self.holders}
        for account in self.accounts.values(): account.venue.halted, account.venue.max_fill = halted, max_fill
        self._open_next()

    def _open_next(self):
        if self.done:
            for account in self.accounts.values():
                for symbol in self.tapes: account.venue.close_market(symbol)
            return
        if self.current == len(self.times) - 1:   # the next bar is still to come: until then its last close is the price
            for symbol, tape in self.tapes.items():
                for account in self.accounts.values(): account.venue.open_bar(symbol, self.closed_at, Decimal(repr(float(tape.values[-1, 3]))))
            return
        at = self.times[self.current + 1]
        for symbol, tape in self.tapes.items():
            if bar := tape.bar(at):
                for account in self.accounts.values(): account.venue.open_bar(symbol, at, bar.open)

    # What others may know

    def _changed(self, account: Account, state: OrderState, filled: Decimal | None = None, new: bool = False) -> OrderState:
        "Tell what happened to an order: each execution once, in Binance's words."
        if new: self.tell('order', 'NEW', state, account.name)
        for step in _steps(state, filled) if filled is not None else ():
            account.order_of[step.fills[-1].trade_id] = state.id
            self.tell('order', 'TRADE', step, account.name)
        if state.status in ('CANCELED', 'EXPIRED'): self.tell('order', state.status, state, account.name)
        return state

    def tell(self, *what: object):
        "Say what happened to whoever listens."
        for listener in self.listeners: listener(*what)

    def visible(self, symbol: str) -> tuple[int, bool]:
        "How many bars of a symbol can be seen, and whether the last of them is still forming."
        tape = self.tapes[symbol]
        closed, opened = tape.until(self.times[self.current]), tape.until(self.now())
        return min(opened, closed + 1), opened > closed

    def balances(self, account: str = MAIN) -> dict[str, tuple[Decimal, Decimal]]:
        "Free and locked, by asset."
        venue = self.account(account).venue
        assets = sorted({asset for rules in self.rules.values() for asset in (rules.base, rules.quote)} | set(venue.free))
        return {asset: (venue.free[asset], venue.held(asset) - venue.free[asset]) for asset in assets}

    def state(self) -> dict:
        "Where the market and the first account stand, as plain values."
        return dict(current=self.times[self.current], closed=self.current + 1, bars=len(self.times), done=self.done, time=self.now(),
                    timeframe=self.timeframe, orders=len(self.venue.orders), trades=len(self.venue.trades),
                    balances={asset: dict(free=str(free), locked=str(locked)) for asset, (free, locked) in self.balances().items()},
                    open_orders=[self.venue.orders[id].order.client_id for ids in self.venue.resting.values() for id in ids])

    def close(self):
        if self.log: self.log.close()


def _steps(state: OrderState, filled: Decimal) -> Iterator[OrderState]:
    "The order after each of its fills beyond so much."
    so_far, cost = Decimal(0), Decimal(0)
    for number, fill in enumerate(state.fills, 1):
        so_far, cost = so_far + fill.quantity, cost + fill.quantity * fill.price
        if so_far <= filled: continue
        yield state if so_far == state.filled else replace(state, status='PARTIALLY_FILLED', filled=so_far, cost=cost, fills=state.fills[:number])


_PLAIN = {each.name: None if each.default is MISSING else each.default for each in fields(SpotOrder)}


def _facts(order: SpotOrder) -> dict:
    "An order as one of the log's lines has it: text, and only what was said."
    return {name: value if isinstance(value, bool) else str(value) for name, value in asdict(order).items() if value != _PLAIN[name]}


def _order(facts: dict) -> SpotOrder: return SpotOrder(**{name: Decimal(value) if name in NUMBERS else value for name, value in facts.items()})
