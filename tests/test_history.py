"""Bars from an exchange: only closed ones, all of them, whatever the exchange does, and however often the pull is killed."""
import asyncio
import json
from dataclasses import dataclass, field

import ccxt
import pandas as pd
import pytest
import stamina

from trading_lib.core.errors import BadInput, Refused, Unreachable
from trading_lib.market.bars import OHLCV, Sample
from trading_lib.market.history import closed_bars, missing_spans, patient, pull
from trading_lib.market.store import Store
from trading_lib.market.synthetic import synthetic_market

HOUR = 3_600_000
TRUTH = synthetic_market(seed=9, bars=400, symbols=('BTC/USDT',)).samples['BTC/USDT'].bars
FIRST = int(TRUTH.index[0].timestamp() * 1000)


@pytest.fixture(autouse=True)
def no_pauses():
    with stamina.set_testing(True, attempts=4): yield


@dataclass
class Venue:
    "A small exchange: pages of `most` bars, the last of them still open, and faults on request."
    bars: pd.DataFrame = field(default_factory=lambda: TRUTH)
    most: int = 50
    now: int = FIRST + 400 * HOUR - HOUR // 2
    faults: dict = field(default_factory=dict)   # number of the request → what happens instead
    manner: str = 'binance'
    id: str = 'venue'
    rateLimit: float = 0
    asked: list = field(default_factory=list)
    timeframes: dict = field(default_factory=lambda: {'1h': '1h', '4h': '4h'})
    symbols: list = field(default_factory=lambda: ['BTC/USDT', 'ETH/USDT'])

    async def fetch_time(self): return self.now

    async def fetch_ohlcv(self, symbol, timeframe, since=None, limit=50):
        self.asked.append(since)
        fault = self.faults.get(len(self.asked))
        if isinstance(fault, BaseException): raise fault
        if fault is not None: return fault
        if symbol not in self.symbols: raise ccxt.BadSymbol(f'venue does not have market symbol {symbol}')
        opens = self.bars.index.as_unit('ms').asi8
        inside = (opens <= self.now) & ((opens >= since) | (self.manner == 'kraken'))
        if self.manner == 'coinbase': inside &= opens < since + min(limit, self.most) * HOUR   # a window, empty if nothing happened in it
        rows = [[int(t), *row] for t, row in zip(opens[inside], self.bars[OHLCV].to_numpy()[inside].tolist(), strict=True)]
        return rows[-self.most:] if self.manner == 'kraken' else rows[:min(limit, self.most)]


def run(venue, store, since='2023-01-01', until=None, **how): return asyncio.run(pull(venue, 'BTC/USDT', '1h', since, until, store, 'venue', **how))


@pytest.fixture
def store(tmp_path): return Store(tmp_path)


def stored(store): return store.read('BTC/USDT').bars


# one page

@pytest.mark.parametrize('minutes,closed', [(0, 3), (1, 3), (59, 3), (60, 4)])
def test_a_bar_is_taken_once_the_venue_clock_has_passed_its_close(minutes, closed):
    venue = Venue(now=FIRST + 3 * HOUR + minutes * 60_000)
    assert len(asyncio.run(closed_bars(venue, 'BTC/USDT', '1h', FIRST, 10))) == closed


def test_the_clock_is_read_before_the_bars_so_that_none_is_taken_too_early():
    class Slow(Venue):
        async def fetch_ohlcv(self, *a, **k):
            rows = await super().fetch_ohlcv(*a, **k)
            self.now += HOUR   # an hour closes while the answer is under way
            return rows
    venue = Slow(now=FIRST + 3 * HOUR + 1)
    assert len(asyncio.run(closed_bars(venue, 'BTC/USDT', '1h', FIRST, 10))) == 3


def test_rows_out_of_order_twice_or_older_than_asked_do_no_harm():
    rows = [[FIRST + i * HOUR, *TRUTH.iloc[i].tolist()] for i in (2, 0, 1, 1, 3)]
    venue = Venue(faults={1: rows})
    assert asyncio.run(closed_bars(venue, 'BTC/USDT', '1h', FIRST + HOUR, 10)).equals(TRUTH[1:4])


@pytest.mark.parametrize('place,value', [(1, float('nan')), (2, 0.), (3, -1.), (2, 1.), (5, None)])
def test_a_bar_that_breaks_a_rule_is_bad_input_and_not_a_bar(place, value):
    rows = [[FIRST + i * HOUR, *TRUTH.iloc[i].tolist()] for i in range(4)]
    rows[2][place] = value
    with pytest.raises(BadInput, match='venue BTC/USDT 1h: .* at 2023-01-01T02:00Z'): asyncio.run(closed_bars(Venue(faults={1: rows}), 'BTC/USDT', '1h', FIRST, 9))


def test_no_bar_is_an_empty_table_with_times():
    bars = asyncio.run(closed_bars(Venue(), 'BTC/USDT', '1h', FIRST + 500 * HOUR, 10))
    assert bars.empty and str(bars.index.tz) == 'UTC' and list(bars) == OHLCV


def test_decimal_numbers_become_floats():
    from decimal import Decimal
    rows = [[FIRST + i * HOUR, *(Decimal(repr(v)) for v in TRUTH.iloc[i].tolist())] for i in range(3)]
    assert asyncio.run(closed_bars(Venue(faults={1: rows}), 'BTC/USDT', '1h', FIRST, 9)).equals(TRUTH[:3])


# a pull

@pytest.mark.parametrize('manner', ['binance', 'coinbase'])
@pytest.mark.parametrize('most', [3, 50, 1000])
def test_pages_of_any_size_make_the_same_bars(store, most, manner):
    done = run(Venue(most=most, manner=manner), store, page=most)
    assert stored(store).equals(TRUTH[:399]) and (done.added, done.bars, done.missing) == (399, 399, 0)


def test_a_venue_that_ignores_since_gives_what_it_has(store):
    done = run(Venue(manner='kraken', most=100), store)
    assert stored(store).equals(TRUTH[300:399]) and done.added == 99


def test_a_venue_without_bars_for_a_while_is_stepped_over(store):
    late = Venue(bars=TRUTH[350:], manner='coinbase', most=10)
    run(late, store, page=10)
    assert stored(store).equals(TRUTH[350:399])


def test_until_is_not_included_and_the_open_bar_never_comes(store):
    run(Venue(), store, until='2023-01-02')
    assert stored(store).equals(TRUTH[:24])
    run(Venue(), store, until='2030-01-01')
    assert stored(store).equals(TRUTH[:399])


def test_a_second_pull_asks_for_the_last_bar_only_and_sees_that_it_was_restated(store):
    run(Venue(), store)
    restated = TRUTH.copy(); restated.iloc[398, 4] += 1
    venue = Venue(bars=restated)
    done = run(venue, store)
    assert venue.asked == [FIRST + 398 * HOUR] and (done.added, done.restated) == (0, 1)


def test_holes_are_refilled_and_nothing_else_is_asked(store):
    store.write(Sample(TRUTH[:399].drop(TRUTH.index[[10, 11, 200]]), 'BTC/USDT', '1h', 'x'), 'venue')
    venue = Venue()
    assert run(venue, store).added == 3 and stored(store).equals(TRUTH[:399])
    assert venue.asked == [FIRST + h * HOUR for h in (10, 200, 398)]


def test_a_hole_that_the_venue_has_too_ends_and_is_reported(store):
    venue = Venue(bars=TRUTH.drop(TRUTH.index[100:103]))
    assert run(venue, store).missing == 3
    again = Venue(bars=venue.bars)
    assert run(again, store).missing == 3 and len(again.asked) == 2


def test_an_earlier_since_fills_the_front(store):
    run(Venue(), store, since='2023-01-05')
    venue = Venue()
    run(venue, store)
    assert stored(store).equals(TRUTH[:399]) and venue.asked[0] == FIRST


@pytest.mark.parametrize('killed_at', range(1, 10))
def test_a_pull_killed_at_any_request_and_run_again_equals_an_uninterrupted_one(tmp_path, killed_at):
    whole, broken = Store(tmp_path / 'whole'), Store(tmp_path / 'broken')
    run(Venue(), whole)
    with pytest.raises((KeyboardInterrupt, asyncio.CancelledError)): run(Venue(faults={min(killed_at, 8): KeyboardInterrupt()}), broken)
    run(Venue(), broken)
    assert stored(broken).equals(stored(whole)) and broken.read('BTC/USDT').fingerprint == whole.read('BTC/USDT').fingerprint


def test_progress_rises_to_the_whole(store):
    seen = []
    run(Venue(), store, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (399, 399) and [d for d, _ in seen] == sorted(d for d, _ in seen)


def test_the_store_knows_the_venue_time_of_the_fetch(store):
    venue = Venue()
    run(venue, store)
    row = store.catalog().iloc[0]
    assert row.fetched == pd.Timestamp(venue.now, unit='ms', tz='UTC').floor('min') and row.source == 'venue, by ccxt' and not row.synthetic


# what goes wrong

@pytest.mark.parametrize('fault', [ccxt.RateLimitExceeded('429'), ccxt.DDoSProtection('418'), ccxt.RequestTimeout('slow'), ccxt.ExchangeNotAvailable('503'),
                                   ccxt.ExchangeError('cut'), ['garbage'], 'html', [[None, 1]], TypeError('parse'), OSError('reset')])
def test_what_may_pass_is_asked_again(store, fault):
    venue = Venue(faults={2: fault, 3: fault, 6: fault})
    run(venue, store)
    assert stored(store).equals(TRUTH[:399])


def test_a_venue_that_stays_away_is_unreachable_and_keeps_what_was_written(store):
    venue = Venue(faults={n: ccxt.ExchangeNotAvailable('503 maintenance') for n in range(3, 99)})
    with pytest.raises(Unreachable, match='venue did not answer about BTC/USDT .*503 maintenance.*try again later') as error: run(venue, store)
    assert '\n' not in str(error.value) and stored(store).equals(TRUTH[:100]) and len(venue.asked) == 6


@pytest.mark.parametrize('fault,reaction', [(ccxt.BadSymbol('x'), BadInput), (ccxt.AuthenticationError('key'), Refused), (ccxt.PermissionDenied('ip'), Refused),
                                            (ccxt.BadRequest('interval'), BadInput), (ccxt.NotSupported('ohlcv'), BadInput)])
def test_what_will_not_pass_is_asked_once(store, fault, reaction):
    venue = Venue(faults={n: fault for n in range(1, 9)})
    with pytest.raises(reaction): run(venue, store)
    assert len(venue.asked) == 1


def test_bad_questions_are_answered_before_any_is_asked(store):
    venue = Venue()
    for how, says in ((dict(timeframe='2h'), 'known: 1h, 4h'), (dict(since='2040-01-01'), 'no 1h bar has closed'), (dict(since='soon'), 'write it as'),
                      (dict(since='2023-01-05', until='2023-01-02'), 'no 1h bar has closed')):
        given = dict(timeframe='1h', since='2023-01-01', until=None) | how
        with pytest.raises(BadInput, match=says): asyncio.run(pull(venue, 'BTC/USDT', given['timeframe'], given['since'], given['until'], store, 'venue'))
    assert not venue.asked
    with pytest.raises(BadInput, match='has no market BTC/USTD; did you mean BTC/USDT'): asyncio.run(pull(venue, 'BTC/USTD', '1h', '2023-01-01', None, store, 'venue'))
    with pytest.raises(BadInput, match='has no BTC/USDT 1h bars from'): run(Venue(bars=TRUTH[390:]), store, until='2023-01-05')


def test_requests_keep_the_pace_the_venue_asks_for():
    async def three():
        ask, loop = patient(Venue(rateLimit=100)), asyncio.get_running_loop()
        start = loop.time()
        async def question(): return loop.time() - start
        return [await ask('it', question) for _ in range(3)]
    at = asyncio.run(three())
    assert at[1] - at[0] > .09 and at[2] - at[1] > .09


def test_spans_cover_what_is_missing_and_only_that():
    assert missing_spans([], 0, 10, 1) == [(0, 10)]
    assert missing_spans([0, 1, 2], 0, 3, 1) == [(2, 3)]
    assert missing_spans([5, 6], 0, 7, 1) == [(0, 5), (6, 7)]
    assert missing_spans([1, 9], 3, 5, 1) == [(3, 5)]


# the real client against the local exchange

def test_ccxt_pulls_the_bars_of_the_local_exchange_and_leaves_the_open_one(tmp_path):
    server = pytest.importorskip('production.local_exchange.server')
    import ccxt.async_support
    from aiohttp.test_utils import TestServer

    from production.local_exchange.client import OPTIONS, rewire
    from production.local_exchange.exchange import LocalExchange

    sample = Sample(TRUTH, 'BTC/USDT', '1h', 'a test', synthetic=True)
    exchange = LocalExchange([sample], first=250)

    async def story():
        async with TestServer(server.Server(exchange).app()) as http:
            client = ccxt.async_support.binance(OPTIONS)
            session = rewire(client, str(http.make_url('')))
            store = Store(tmp_path)
            try:
                raw = await client.fetch_ohlcv('BTC/USDT', '1h', FIRST, 1000)
                first = await pull(client, 'BTC/USDT', '1h', '2023-01-01', None, store, 'binance', page=70)
                for row in range(249, 260): exchange.release(FIRST + row * HOUR)
                second = await pull(client, 'BTC/USDT', '1h', '2023-01-01', None, store, 'binance', page=70)
                with pytest.raises(BadInput, match='has no market BTC/USTD; did you mean BTC/USDT'):
                    await pull(client, 'BTC/USTD', '1h', '2023-01-01', None, store, 'binance')
            finally:
                await session.close()
                await client.close()
            return raw, first, second, store
    raw, first, second, store = asyncio.run(story())
    assert len(raw) == 251 and first.added == 250 and (second.added, second.restated) == (11, 0)
    assert store.read('BTC/USDT').bars.equals(TRUTH[:261])
    assert json.loads(json.dumps(vars(second)))['end'] == '2023-01-11T20:00Z'
