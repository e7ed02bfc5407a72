"""What the tests of the 72 faults share: a bot that trades every other bar at the local exchange, and what must hold of it whatever broke.

Each test is named by its number in the list of faults, and its docstring is a line of docs/faults.md: what breaks → what the bot does.
"""
import asyncio
import inspect
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import aiohttp
import numpy as np
from local_venue import Wire, venue
from test_runner import TIMES, D, agree_with_the_venue, books, exchange, mandate

from production.gateway import Gateway
from production.journal import Journal
from production.local_exchange.exchange import LocalExchange
from production.local_exchange.faults import Fault, Weather
from production.runner import Mandate, Runner, client_id
from trading_lib.core.errors import Refused
from trading_lib.execution.orders import Order
from trading_lib.strategies.contract import describe, strategy

SEND, ASK, CANCEL, ACCOUNT, BARS_OF = (f'{method} /api/v3/{what}' for method, what in (
    ('POST', 'order'), ('GET', 'order'), ('DELETE', 'order'), ('GET', 'account'), ('GET', 'klines')))
UNTIL = TIMES[36]   # eight bars, five orders


@strategy
def turning(bars):
    "In for two hours, out for two."
    return np.where(bars.index.hour // 2 % 2, 0., 1.)


def bot(**changes) -> Mandate: return mandate(**dict(strategy=describe(turning), params={}) | changes)


@dataclass
class Desk:
    "A bot, its journal, its venue and the wire between them."
    there: LocalExchange
    gateway: Gateway
    wire: Wire
    path: Path
    pace_s: float = 0.   # so long after a bar was settled the market moves on; a bot that has to wait listens to streams

    @property
    def url(self) -> str: return str(self.wire.session.base).rstrip('/')

    def runner(self, journal: Journal, given: Mandate | None = None, each: Callable[[int], object] | None = None) -> Runner:
        "`each` is called with the number of every settled bar, before the market moves on."
        async def settled(bar):
            if each and inspect.isawaitable(told := each(TIMES.index(bar))): await told
            if not self.pace_s: return self.there.release(bar)
            later(self.pace_s, lambda: self.there.release(bar))
        return Runner(given or bot(), self.gateway, journal, settled)

    async def run(self, given: Mandate | None = None, each=None, until: int = UNTIL) -> str:
        with Journal.open(self.path) as journal: return await self.runner(journal, given, each).run(until)

    async def halts(self, given: Mandate | None = None, each=None, until: int = UNTIL) -> str:
        "Run until it halts by itself, then stop it; why it halted."
        with Journal.open(self.path) as journal:
            runner = self.runner(journal, given, each)
            task = asyncio.create_task(runner.run(until))
            while not task.done():
                if runner.bot and runner.halted: runner.stop()
                await asyncio.sleep(.01)
            with suppress(Refused): await task
            assert runner.halted, 'it did not halt'
            return runner.halted

    async def press(self, **what: object):
        "As a person does at the venue."
        async with aiohttp.ClientSession() as http, http.post(f'{self.url}/control/venue', json=what) as answer: assert answer.status == 200, await answer.text()

    # what is looked at

    def read(self, what: Callable[[Journal], object]):
        with Journal.reader(self.path) as journal: return what(journal)

    @property
    def books(self) -> dict: return books(self.path)

    @property
    def alerts(self) -> list[str]: return [alert['rule'] for alert in self.read(Journal.history)]

    @property
    def doubts(self) -> list[str]: return [row['detail']['why'] for row in self.read(lambda journal: journal.audit('unknown'))]

    @property
    def sent(self) -> list[str]:
        "The client id of every order that left us, whether or not it arrived."
        return [row['detail']['client_id'] for row in self.read(lambda journal: journal.audit('fence'))]

    def placed(self) -> list[str]: return [state.order.client_id for state in self.there.venue.orders.values()]

    def nothing_is_doubled(self):
        "Each order is at the venue once, and was not sent again before its window had passed."
        assert len(set(self.placed())) == len(self.placed())
        last: dict[str, dict] = {}
        for row in self.read(lambda journal: journal.audit('fence')):
            sent = row['detail']
            if before := last.get(sent['client_id']): assert sent['sent_at'] > before['sent_at'] + before['window']
            last[sent['client_id']] = sent

    def as_if_nothing_had_happened(self):
        "Every fault has struck, and the books are those of the undisturbed run, to the last digit."
        assert not [fault for fault, left in self.there.faults.waiting if left is not None], 'a fault did not strike'
        found = self.books
        assert found == undisturbed()
        agree_with_the_venue(found, self.there)
        self.nothing_is_doubled()


@asynccontextmanager
async def desk(folder: Path, *faults: Fault | Weather, settings: dict | None = None, there: LocalExchange | None = None, pace_s: float = 0.,
               **how) -> AsyncIterator[Desk]:
    "A venue with these faults; `settings` are the venue's, `how` is how we connect to it."
    there = there or exchange(**settings or {})
    async with venue(there, **how) as (gateway, wire):
        there.faults.add(*faults)
        yield Desk(there, gateway, wire, folder / 'journal.db', pace_s)


async def survives(folder: Path, *faults: Fault | Weather, given: Mandate | None = None, each=None, **how) -> Desk:
    "A run with faults ends as if nothing had happened."
    async with desk(folder, *faults, **how) as d:
        assert await d.run(given, each and (lambda row: each(d, row))) == 'done'
        d.as_if_nothing_had_happened()
        return d


def later(seconds: float, do: Callable[[], object]): asyncio.get_running_loop().call_later(seconds, do)


@cache
def undisturbed() -> dict:
    "The books of a run in which nothing breaks."
    async def whole(folder):
        async with desk(folder) as d:
            assert await d.run() == 'done'
            return d.books
    with TemporaryDirectory() as folder, ThreadPoolExecutor(1) as thread: found = thread.submit(asyncio.run, whole(Path(folder))).result()
    assert len(found['orders']) == 5 and {order[5] for order in found['orders']} == {'FILLED'}
    return found


def resting(journal: Journal, row: int, side: str = 'buy', kind: str = 'limit', quantity: str = '0.02', price: str = '10000', seq: int = 7, **more) -> Order:
    "A decision with an order that rests, as a strategy with limit orders would make it; the bot must have traded before."
    runner = journal.bot('d' * 64, 'main', 'BTC/USDT', '1h')
    order = Order(client_id(bot(), TIMES[row], seq), 'BTC/USDT', side, kind, D(quantity), price and D(price), **more)
    target = 1. if journal.target(runner.id) is None else journal.target(runner.id)
    journal.decide(runner.id, TIMES[row], inputs='', target=target, outcome='traded', reason='', close=D(30_000), orders=[order])
    return order
