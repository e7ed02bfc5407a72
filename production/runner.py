"""One bot: look, decide, check, record, act, reconcile.

Start and recovery are the same path, so a crash needs no other care than a start. What venue it trades on is not known here: it is handed a
gateway. What a market is worth is not known here either: the strategy says how much of equity, `execution.plan` says what order that is.
"""
import asyncio
import inspect
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from hashlib import sha256

import pandas as pd

from production.alerts import sending
from production.control import listening
from production.deadline import Asked
from production.gate import DAY_MS, Gate
from production.gateway import Gateway
from production.hands import PREFIX, Hands, order_of
from production.journal import DUE, HAND, RESTING, UNRESOLVED, Intent, Journal
from trading_lib.core.errors import BadInput, Refused, Rejected, TradingError, Unknown, Unreachable
from trading_lib.core.money import money
from trading_lib.core.settings import Settings
from trading_lib.core.time import timeframe_delta
from trading_lib.execution.orders import Order, OrderState
from trading_lib.execution.plan import Skip, plan_order
from trading_lib.market.bars import fingerprint
from trading_lib.risk.limits import Breach, Limits, Prices
from trading_lib.strategies.contract import Strategy
from trading_lib.strategies.feeds import decider

PAGE = 1000       # bars a request
ROUNDING = 1000   # units of an asset: venues round what they book at their eighth decimal


@dataclass(frozen=True)
class Mandate:
    "What a bot is to do, all of it from its dossier and the settings."
    dossier: str                            # its digest
    account: str
    strategy: Strategy
    params: dict
    symbol: str                             # as the venue writes it, BTC/USDT
    timeframe: str
    window_bars: int                        # how many bars the strategy is shown
    start: int | None = None                # open time in ms of the first bar to decide; the newest closed one if not given
    buffer: Decimal = Decimal('0.0025')     # share of cash kept back by a buy
    order_window_ms: int = 5_000            # how long the venue may accept an order after it was signed
    max_lateness_ms: int | None = None      # decisions older than this are computed but not traded; a bar length if not given
    poll_s: float = 1.                      # how often bars are read when no stream says that one closed
    strikes: int = 3                        # failures of the strategy in a row before it is halted
    strategy_deadline_s: float = 10.        # one that has not answered by then has failed
    attempts: int = 5                       # sends of one order in a row before it is halted; orders that make it flat before a person must
    recheck_s: tuple[float, ...] = (.2, 1., 3.)    # books that differ are read again after so long, before that halts
    grace_s: float = 30.                    # after a signal to stop, to find out what became of an order
    feeds: Mapping = field(default_factory=dict)   # needed column → Feed
    limits: Limits = Limits()               # of the account

    @property
    def length(self) -> int: return int(timeframe_delta(self.timeframe).total_seconds() * 1000)

    @property
    def lateness(self) -> int: return self.length if self.max_lateness_ms is None else self.max_lateness_ms


def client_id(mandate: Mandate, bar: int, seq: int) -> str:
    "The name of an order, from the decision it follows from: placing it twice is placing it once."
    decision = f'{mandate.dossier}|{mandate.account}|{mandate.symbol}|{mandate.timeframe}|{bar}|{seq}'
    return PREFIX + sha256(decision.encode()).hexdigest()[:30]


class Runner(Hands):
    "One mandate on one venue, with one journal."

    def __init__(self, mandate: Mandate, gateway: Gateway, journal: Journal,
                 on_settled: Callable[[int], object] | None = None,   # is told each settled bar; again after a restart
                 say: Callable[[str], None] = lambda line: None,      # is told what a person may want to see
                 settings: Settings | None = None):                   # by which alerts are sent; without, they stay in the journal
        self.mandate, self.gateway, self.journal, self.on_settled, self.say, self.settings = mandate, gateway, journal, on_settled, say, settings
        self.bot = self.rules = None
        self.ask = Asked(decider(mandate.strategy, mandate.params, mandate.feeds), mandate.strategy.name, mandate.strategy_deadline_s)
        self.target: float | None = None   # wanted last; none where a position was inherited, so that the first decision is due
        self.bars, self.strikes, self.caught_up = pd.DataFrame(), 0, False
        self.started = 0                   # the venue's time when we came
        self.gate: Gate | None = None      # from the journal, anew whenever trading begins
        self.doubt: list[str] = []         # where its books and ours differ, while a lost tail of the journal may explain it
        self.gap = Decimal(0), Decimal(0)  # by how much its cash and position are above ours
        self.stopping, self.past, self.wake, self._deadline = False, False, asyncio.Event(), None

    async def run(self, until: int | None = None) -> str:
        "Until the bar that opens at `until` is settled ('done'), or a signal ('signal'). Raises `Refused` where a person must look first."
        m = self.mandate
        with self.journal.lock(m.account, self.gateway.venue), self._signals():
            async with listening(self.journal, self.halt, self.resume, self.hand), sending(self.journal, self.settings):
                try:
                    await self._start()
                    while not (self.stopping or self.past or until is not None and (self.bot.settled or 0) >= until):
                        await self.by_hand()
                        if not await self._catch_up(until): await (self._pause() if self.halted else self._wait())
                    if not self.halted: self.doubt = await self._compared()
                    if self.doubt: raise Refused(self._disagreement)
                except Refused as error:
                    if self.bot and not self.halted: await self.halt('runner', str(error))
                    raise
                finally: self.over = True
                self.journal.state(self.bot.id, 'STOPPED')
        return 'signal' if self.stopping else 'done'

    # start, which is recovery

    async def _start(self):
        m = self.mandate
        self.rules, self.started = await self.gateway.rules(m.symbol), await self.gateway.venue_time()
        self.bot = self.journal.bot(m.dossier, m.account, m.symbol, m.timeframe)
        if self.bot is None: self.bot = await self._enrol()
        else:
            self.journal.verify(self.bot.id)
            self.journal.state(self.bot.id, 'STARTING')
            # a power cut may have eaten the tail of the journal, with a request that is still on its way
            await asyncio.sleep(m.order_window_ms / 1000)
        await self._reconcile()
        if self.halted: raise Refused(self.halted)

    async def _enrol(self):
        m = self.mandate
        start = m.start
        if start is None: start = await self.gateway.venue_time() // m.length * m.length - m.length
        return self.journal.enrol(m.dossier, m.account, self.gateway.venue, m.symbol, m.timeframe, start, *await self._balances(), m.strategy.name)

    async def _reconcile(self):
        "Find out what became of everything we may have sent, then compare the books."
        for intent in self.journal.intents(self.bot.id, UNRESOLVED): await self._resolve(intent, look_first=True)
        for intent in self.journal.intents(self.bot.id, RESTING): await self._refresh(intent)
        if self.halted:
            await self._cancel_all()
            await self.by_hand()
            return self.journal.state(self.bot.id, 'HALTED')
        self.gate = Gate(self.mandate.limits, self.journal, self.gateway.venue, self.mandate.account)
        self.doubt = await self._compared()
        self._reread()
        self.target = self.journal.target(self.bot.id)
        if self.target is None and self.bot.position < max(self.rules.step, self.rules.min_quantity): self.target = 0.
        if self.caught_up: self._ready()
        if self.bot.cursor is not None: await self._settle(self.bot.cursor)

    def _ready(self):
        "From here on the books agree, or nothing is traded."
        if self.doubt: raise Refused(self._disagreement)
        self.caught_up = True
        self.journal.agree(self.bot.id)
        self.journal.state(self.bot.id, 'READY')
        self.say(f'{self.mandate.symbol} {self.mandate.timeframe} ready: {self.bot.cash:f} {self.rules.quote}, {self.bot.position:f} {self.rules.base}')

    async def _confirm(self):
        "The books agree after what we did."
        self.doubt = await self._compared()
        if self.doubt and self.caught_up: await self.halt('runner', self._disagreement)

    @property
    def _disagreement(self) -> str: return f'the venue and the journal disagree: {"; ".join(self.doubt)}'

    async def _compared(self) -> list[str]:
        "Where the venue's books and ours differ after a few looks; answers to reads may be old."
        for patience_s in (0, *self.mandate.recheck_s):
            await asyncio.sleep(patience_s)
            if patience_s:   # what rested may have traded between our look at it and that at the balances
                for intent in self.journal.intents(self.bot.id, RESTING): await self._refresh(intent)
            while True:
                try: differences = await self._differences()
                except Unreachable as error: await self._hold_on(error)
                else: break
            if not differences: break
        return differences

    async def _differences(self) -> list[str]:
        cash, position = await self._balances()
        at_venue = await self.gateway.open_orders(self.mandate.symbol)
        self._reread()
        here = {intent.client_id for intent in self.journal.intents(self.bot.id, RESTING)}
        pairs = (self.rules.quote, cash, self.bot.cash), (self.rules.base, position, self.bot.position)
        self.gap = tuple(there - ours if abs(there - ours) > ROUNDING * self.rules.unit else Decimal(0) for _, there, ours in pairs)
        found = [f'{asset} {there:f} there, {ours:f} here' for (asset, there, ours), gap in zip(pairs, self.gap, strict=True) if gap]
        found += [f'order {name} is open there only' for name in sorted(at_venue.keys() - here) if name.startswith(PREFIX)]
        return found + [f'order {name} is open here only' for name in sorted(here - at_venue.keys())]

    async def _balances(self) -> tuple[Decimal, Decimal]:
        "Cash and position at the venue, free and locked together."
        balances = await self.gateway.balances()
        return tuple(sum(balances.get(asset, ()), Decimal(0)) for asset in (self.rules.quote, self.rules.base))

    # look

    async def _catch_up(self, until: int | None) -> bool:
        "Decide every bar that has closed; False if there was none, or trading is halted."
        if self.halted: return False
        try: fresh = await self._look()
        except (Unreachable, BadInput) as error:   # no proper bars: nothing is decided
            self.say(str(error))
            return False
        for at in fresh:
            self.past |= until is not None and at > until
            if self.past or at > fresh[0] and (self.stopping or self.halted or self.journal.demands(self.bot.id)):
                self.bars = pd.DataFrame()   # the rest is read again from the cursor
                return True
            await self._step(at)
        if not self.caught_up and not self.halted: self._ready()
        return bool(fresh)

    async def _look(self) -> list[int]:
        "Read the bars that have closed since the last look; the open times of those to decide."
        m = self.mandate
        fresh = await (self._history() if self.bars.empty else self._pages(_ms(self.bars.index)[-1] + m.length))
        if fresh.empty: return []
        self.bars = pd.concat([self.bars.iloc[-m.window_bars:], fresh]) if len(self.bars) else fresh
        return [at for at in _ms(fresh.index) if at >= self._next]

    @property
    def _next(self) -> int:
        "The earliest bar that may be decided."
        return self.bot.start if self.bot.cursor is None else self.bot.cursor + 1

    async def _history(self) -> pd.DataFrame:
        "From a window before the next bar on, or from further back where bars are missing."
        m = self.mandate
        reach, found = m.window_bars, pd.DataFrame()
        while True:
            since, before = self._next - reach * m.length, len(found)
            found = await self._pages(max(since, 0))
            if since <= 0 or len(found) == before or sum(at < self._next for at in _ms(found.index)) >= m.window_bars: return found
            reach *= 2

    async def _pages(self, since: int) -> pd.DataFrame:
        "Every closed bar from there on."
        pages = []
        while True:
            page = await self.gateway.bars(self.mandate.symbol, self.mandate.timeframe, since, PAGE)
            pages.append(page)
            if len(page) < PAGE - 1: return pd.concat(pages) if len(pages) > 1 else page   # one may be left out, because it is still open
            since = _ms(page.index)[-1] + self.mandate.length

    async def _wait(self):
        "For a bar to close, or a word from outside."
        m = self.mandate
        tasks = [asyncio.create_task(self.gateway.wait_for_bar(m.symbol, m.timeframe, m.poll_s)), asyncio.create_task(self.wake.wait())]
        _, late = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in late: task.cancel()
        self.wake.clear()

    # decide

    async def _step(self, at: int):
        "One bar, from what was known at its close to where nothing about it is in doubt."
        for intent in self.journal.intents(self.bot.id): await self._refresh(intent)
        row = self.bars.index.get_loc(pd.Timestamp(at, unit='ms', tz='UTC'))
        shown = self.bars.iloc[max(0, row + 1 - self.mandate.window_bars):row + 1]
        close, prices = money(float(shown.close.iloc[-1])), self._prices(shown)
        self.gate.mark(self.bot.id, at, self.bot.cash + self.bot.position * close)
        if breaches := self.gate.tripped(self.mandate.symbol, close, prices): await self._trip(at, breaches)
        target, reason = await self._decide(shown)
        outcome, reason, orders = ('held', reason, []) if target is None else await self._plan(at, target, close, prices, self._variance(shown))
        self.bot, intents = self.journal.decide(self.bot.id, at, inputs=fingerprint(shown), target=target, outcome=outcome, reason=reason,
                                                close=close, orders=orders)
        if target is not None and not reason.startswith(DUE): self.target = target
        for intent in intents: await self._resolve(intent, look_first=at + self.mandate.length <= self.started)   # its row may be a second one
        if self.strikes >= self.mandate.strikes: await self.halt('runner', f'the strategy failed {self.strikes} times in a row: {reason}')
        if not intents: return await self._told(at)
        if not self.journal.intents(self.bot.id, UNRESOLVED): await self._settle(at)
        if not self.halted: await self._confirm()

    async def _decide(self, shown: pd.DataFrame) -> tuple[float | None, str]:
        "The target at the last bar, or none and why."
        try: target = await self.ask(shown)
        except TradingError as error:
            self.strikes += 1
            self.say(str(error))
            return None, str(error)
        self.strikes = 0
        return target, ''

    async def _trip(self, at: int, breaches: list[Breach]):
        self._tell(at, breaches)
        await self.halt('runner', '; '.join(map(str, breaches)))

    def _tell(self, at: int, breaches: list[Breach]):
        "People hear of each limit once a day."
        for each in breaches:
            about = f'{each.limit} on {self.mandate.symbol}, {self.mandate.account} at {self.gateway.venue}'
            self.journal.alert('limit', f'{self._scope}:{self.mandate.symbol}:{each.limit}:{at // DAY_MS}', about=about, what=each.text)

    def _prices(self, shown: pd.DataFrame) -> Prices:
        "What the newest bar says of the market."
        last = shown.iloc[-1]
        return Prices(float(last.close), volume=float(last.volume))

    def _variance(self, shown: pd.DataFrame) -> float | None:
        "Of a day's return, from the bars that the strategy is shown."
        if self.mandate.limits.max_volatility is None or len(shown) < 3: return None
        return float(shown.close.pct_change().var()) * DAY_MS / self.mandate.length

    async def _plan(self, at: int, target: float, close: Decimal, prices: Prices, variance: float | None) -> tuple[str, str, list[Order]]:
        """Outcome, reason and orders. An order is due only when the target changes; one that is skipped is not tried again until it does,
        except for an exit that came too late or while trading was halted: that one stays due."""
        m = self.mandate
        if target == self.target: return 'held', 'unchanged', []
        planned = plan_order(m.symbol, money(target), close, self.bot.cash, self.bot.position, self.rules, m.buffer)
        if isinstance(planned, Skip): return 'skipped', planned.reason, []
        due = DUE if planned.side == 'sell' else ''
        if self.halted: return 'skipped', due + self.halted, []
        order = Order(client_id(m, at, 0), m.symbol, planned.side, 'market', planned.quantity)
        if await self._too_late(at, order): return 'skipped', f'{due}late', []
        if breaches := self.gate.refusals(order, close, prices, at + m.length, variance):
            self._tell(at, breaches)
            return 'skipped', '; '.join(map(str, breaches)), []
        return 'traded', 'cut' if planned.cut else '', [order]

    async def _too_late(self, at: int, order: Order) -> bool:
        "Is the decision too old to act on? Not if it was acted on in time and only our row of it was lost."
        while True:
            try:
                if await self.gateway.venue_time() - (at + self.mandate.length) <= self.mandate.lateness: return False
                return not self.doubt or await self.gateway.lookup(order) is None
            except Unreachable as error: await self._hold_on(error)

    # act

    async def _resolve(self, intent: Intent, look_first: bool = False):
        "Send an intent, or find out what became of it, until nothing about it is in doubt. What may have been sent is looked up first."
        order, sends = order_of(intent, self.mandate.symbol), 0
        while intent.status in UNRESOLVED:
            try:
                found = await self._found(order, intent) if look_first or intent.attempts else None
                if found: self._adopt(order, found)
                elif self.doubt and intent.seq < HAND: self._ready()
                elif sends == self.mandate.attempts: raise Stuck(f'order {order.client_id} was sent {sends} times in a row and the venue does not know it')
                else:
                    await self._send(order, intent)
                    sends += 1
            except Stuck as error: return await self.halt('runner', str(error))
            except Unreachable as error: await self._hold_on(error)
            intent = self.journal.intent(order.client_id)

    async def _found(self, order: Order, intent: Intent) -> OrderState | None:
        "What the venue knows of an order. None is final: its clock was past the window the order was signed for, before each of two looks."
        looks, loop, fenced = 0, asyncio.get_running_loop(), bool(intent.attempts)
        if fenced and not self.gateway.facts.fence:
            if state := await self.gateway.lookup(order): return state
            raise Stuck(f'order {order.client_id} is not found, and {self.gateway.venue} has no window after which that is final')
        deadline = loop.time() + 60 + (intent.window or 0) / 1000
        while True:
            left_ms = intent.sent_at + intent.window - await self.gateway.venue_time() if fenced else -1
            if state := await self.gateway.lookup(order): return state
            looks += left_ms < 0
            if looks == 2: return None
            if loop.time() > deadline: raise Stuck(f'order {order.client_id} is not found, and the clock of {self.gateway.venue} does not pass its window')
            await asyncio.sleep(min(max(left_ms + 1, 50), 1000) / 1000)

    async def _send(self, order: Order, intent: Intent):
        "Fence, then the socket, then what came back."
        by_hand = intent.seq >= HAND
        sent_at, window = await (self.gateway.stamp(urgent=True) if by_hand else self.gateway.stamp()), self.mandate.order_window_ms
        if not by_hand and sent_at - (intent.bar + self.mandate.length) > self.mandate.lateness: return self.journal.withdraw(order.client_id, 'late')
        try: self.journal.fence(order.client_id, sent_at, window)
        except Refused as latched: return self.journal.withdraw(order.client_id, str(latched))
        try: self._adopt(order, await self.gateway.submit(order, sent_at, window))
        except Rejected as error:
            self.journal.reject(order.client_id, str(error))
            self.say(f'{order.client_id}: {error}')
        except Unknown as error:
            self.journal.unknown(order.client_id, str(error))
            self.say(f'{order.client_id}: {error}; looking it up')

    def _adopt(self, order: Order, state: OrderState):
        self.journal.adopt(order.client_id, state)
        if state.filled: self.say(f'{order.side} {state.filled:f} {order.symbol} for {state.cost:f} {self.rules.quote}')

    async def _refresh(self, intent: Intent):
        "What became of an order that was resting."
        order = order_of(intent, self.mandate.symbol)
        while True:
            try: state = await self.gateway.lookup(order)
            except Unreachable as error: await self._hold_on(error)
            else: break
        if state is None: raise Refused(f'order {order.client_id} was {intent.status} and the venue does not know it any more')
        self._adopt(order, state)
        self._reread()

    async def _settle(self, at: int):
        self.bot = self.journal.settle(self.bot.id, at)
        await self._told(at)

    async def _told(self, at: int):
        if self.on_settled and inspect.isawaitable(told := self.on_settled(at)): await told

    # stop

    @property
    def halted(self) -> str | None: return self.journal.halted(self.gateway.venue, self.mandate.account)

    @property
    def _scope(self) -> str: return f'{self.gateway.venue}/{self.mandate.account}'

    async def halt(self, who: str, why: str, flatten: bool = False) -> list[int]:
        "The latch first; then what is open is cancelled, and what is held is closed if that is asked, by its numbers."
        if who == 'runner' and self.doubt: self.journal.differ(self.bot.id, *self.gap, '; '.join(self.doubt))
        asked = self.journal.halt(who, why, self._scope if who == 'runner' else '*', flatten)
        self.say(f'halted by {who}: {why}')
        await self._cancel_all()
        return asked

    async def resume(self, who: str, why: str = '') -> int:
        released = self.journal.resume(who, why)
        self.wake.set()
        return released

    async def _pause(self):
        "Nothing is decided while halted; the bars of that time are caught up with afterwards."
        self.journal.state(self.bot.id, 'HALTED')
        self.say(f'waiting: {self.halted}')
        await self._cancel_all()
        while self.halted and not self.stopping:
            await self.by_hand()
            try: await asyncio.wait_for(self.wake.wait(), self.mandate.poll_s)
            except TimeoutError: pass
            self.wake.clear()
        if not self.stopping: await self._reconcile()

    async def _cancel_all(self, about: str = ''):
        "Every order that rests, or one of them."
        for intent in self._resting(about) if self.bot else ():
            self.journal.note('runner', 'cancel', client_id=intent.client_id)
            order = order_of(intent, self.mandate.symbol)
            try: state = await self.gateway.cancel(order)
            except Unreachable as error: self.say(f'{order.client_id} may still be open: {error}')
            else:
                if state: self._adopt(order, state)

    def stop(self):
        "Finish what is in doubt, then end."
        self.stopping, self._deadline = True, asyncio.get_running_loop().time() + self.mandate.grace_s
        self.wake.set()

    async def _hold_on(self, error: Unreachable):
        "The venue is away. What is unknown stays unknown; on the way out, only for so long."
        self.say(str(error))
        if self._deadline and asyncio.get_running_loop().time() > self._deadline: raise error
        await asyncio.sleep(min(self.mandate.poll_s, 1))

    @contextmanager
    def _signals(self) -> Iterator[None]:
        "SIGTERM and SIGINT end the run after the bar in hand."
        loop, kinds = asyncio.get_running_loop(), (signal.SIGTERM, signal.SIGINT)
        try:
            for kind in kinds: loop.add_signal_handler(kind, self.stop)
        except (RuntimeError, ValueError, NotImplementedError): kinds = ()   # not the main thread: somebody else stops us
        try: yield
        finally:
            for kind in kinds: loop.remove_signal_handler(kind)

    def _reread(self): self.bot = self.journal.reread(self.bot.id)


class Stuck(Exception):
    "Nothing more can be found out without a person."


def _ms(index: pd.Index) -> list[int]: return index.as_unit('ms').asi8.tolist() if len(index) else []
