"""The local exchange through unmodified ccxt: REST, streams, refusals, the two clocks, and what is left after a kill."""
import asyncio
import contextlib
import dataclasses
import errno
import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from decimal import Decimal

import aiohttp
import ccxt.pro as ccxt
import numpy as np
import pandas as pd
import pytest

from production.local_exchange.child import start_child
from production.local_exchange.client import OPTIONS, rewire
from production.local_exchange.exchange import LocalExchange
from production.local_exchange.protocol import Binance
from production.local_exchange.server import served
from trading_lib.core.errors import BadInput, Damaged, Refused, Rejected
from trading_lib.execution.orders import Order
from trading_lib.market.bars import Sample

D = Decimal
HOUR = 3_600_000


def sample(symbol='BTC/USDT', bars=40, seed=1, price=100., drop=()) -> Sample:
    "A seeded random walk of hourly bars; `drop` makes gaps."
    rng = np.random.default_rng(seed)
    close = price * np.exp(rng.normal(0, .01, bars).cumsum())
    open_ = np.r_[price, close[:-1] * 1.001]
    frame = pd.DataFrame(dict(open=open_, high=np.maximum(open_, close) * 1.002, low=np.minimum(open_, close) * .998, close=close, volume=50.),
                         index=pd.date_range('2024-03-10', periods=bars, freq='h', tz='UTC', name='time'))
    return Sample(frame.drop(frame.index[list(drop)]), symbol, '1h', 'test', synthetic=True)


class Clock:
    "Real time, when we say so."
    def __init__(self): self.seconds = 1000.
    def __call__(self): return self.seconds


@contextlib.asynccontextmanager
async def at(*samples, key='local-key', secret='local-secret', **how):
    "A served exchange, a ccxt.pro client that is led to it, and its address."
    exchange = LocalExchange(samples or [sample()], **dict(dict(first=10), **how))
    async with served(exchange) as url:
        client = ccxt.binance({'apiKey': key, 'secret': secret, **OPTIONS})
        session = rewire(client, url)
        client.timeout_on_exit = 0   # ccxt sleeps a quarter of a second after each close
        try: yield exchange, client, url
        finally:
            await client.close()
            await session.close()


async def release(url: str, through: object) -> dict:
    async with aiohttp.ClientSession() as http, http.post(f'{url}/control/release', json={'through': through}) as answer: return await answer.json()


async def state(url: str) -> dict:
    async with aiohttp.ClientSession() as http, http.get(f'{url}/control/state') as answer: return await answer.json()


def now(exchange: LocalExchange, **more) -> dict: return dict(timestamp=exchange.now(), **more)


# What is served

async def test_ccxt_sees_the_market_and_its_filters():
    async with at(sample('SYN-A/USDT'), sample('DOGEUSDT', price=.08, seed=2)) as (exchange, client, _):
        markets = await client.load_markets()
        assert set(markets) == {'SYN-A/USDT', 'DOGE/USDT'} and markets['SYN-A/USDT']['id'] == 'SYNAUSDT'
        assert [markets['DOGE/USDT']['precision'][name] for name in ('amount', 'price')] == [1., 1e-6]
        assert markets['DOGE/USDT']['limits']['cost']['min'] == 5
        assert 0 <= await client.fetch_time() - exchange.closed_at < 60_000
        ticker, book = await client.fetch_ticker('SYN-A/USDT'), await client.fetch_order_book('SYN-A/USDT', 5)
        assert book['bids'][0][0] <= ticker['last'] < book['asks'][0][0] and len(book['asks']) == 5


async def test_bars_arrive_bit_for_bit_and_the_last_is_still_forming():
    bars = sample().bars
    async with at() as (exchange, client, _):
        rows = await client.fetch_ohlcv('BTC/USDT', '1h')
        assert [row[1:] for row in rows[:-1]] == bars.iloc[:10].to_numpy().tolist()
        opened = bars.open.iloc[10]
        assert rows[-1][0] == exchange.closed_at and rows[-1][1:] == [opened, opened, opened, opened, 0.]
        since = await client.fetch_ohlcv('BTC/USDT', '1h', since=rows[3][0], limit=2)
        assert [row[0] for row in since] == [rows[3][0], rows[4][0]]
        assert await client.fetch_ohlcv('BTC/USDT', '1h', since=rows[-1][0] + HOUR) == []
        with pytest.raises(ccxt.BadRequest, match='Invalid interval'): await client.fetch_ohlcv('BTC/USDT', '4h')


async def test_a_market_order_fills_at_the_next_open_and_the_fee_comes_off_what_is_received():
    async with at(slippage='0.0005') as (exchange, client, _):
        order = await client.create_order('BTC/USDT', 'market', 'buy', 10, params=now(exchange, clientOrderId='first'))
        price = (D(repr(float(sample().bars.open.iloc[10]))) * D('1.0005')).quantize(D('0.01'), 'ROUND_CEILING')
        assert (order['status'], order['clientOrderId'], D(str(order['average']))) == ('closed', 'first', price)
        assert order['trades'][0]['fee'] == {'cost': .01, 'currency': 'BTC'}
        balance = await client.fetch_balance(now(exchange))
        assert D(str(balance['BTC']['total'])) == D('9.99') and D(str(balance['USDT']['total'])) == 10_000 - 10 * price
        trade, = await client.fetch_my_trades('BTC/USDT', params=now(exchange))
        assert (trade['order'], D(str(trade['price'])), trade['takerOrMaker']) == (order['id'], price, 'taker')
        again = await client.fetch_order(None, 'BTC/USDT', now(exchange, origClientOrderId='first'))
        assert (again['id'], again['status'], again['filled']) == (order['id'], 'closed', 10)


async def test_a_limit_rests_locks_its_money_and_is_canceled_once():
    async with at() as (exchange, client, _):
        order = await client.create_order('BTC/USDT', 'limit', 'buy', 5, 80, now(exchange, clientOrderId='bid'))
        assert order['status'] == 'open' and (await client.fetch_balance(now(exchange)))['USDT']['used'] == 400
        assert [o['clientOrderId'] for o in await client.fetch_open_orders('BTC/USDT', params=now(exchange))] == ['bid']
        assert (await client.cancel_order(None, 'BTC/USDT', now(exchange, origClientOrderId='bid')))['status'] == 'canceled'
        with pytest.raises(ccxt.OrderNotFound, match='-2011'): await client.cancel_order(order['id'], 'BTC/USDT', now(exchange))
        assert (await client.fetch_balance(now(exchange)))['USDT']['used'] == 0
        assert [o['status'] for o in await client.fetch_orders('BTC/USDT', params=now(exchange))] == ['canceled']


async def test_a_stop_rests_until_a_bar_reaches_it():
    async with at() as (exchange, client, _):
        await client.create_order('BTC/USDT', 'market', 'buy', 10, params=now(exchange))
        stop = await client.create_order('BTC/USDT', 'STOP_LOSS', 'sell', 9, params=now(exchange, stopPrice=80))
        row = await client.fetch_order(stop['id'], 'BTC/USDT', now(exchange))
        assert (row['status'], row['triggerPrice']) == ('open', 80)


# What is refused, in Binance's words

@pytest.mark.parametrize(('kind', 'side', 'quantity', 'price', 'error', 'said'), [
    ('limit', 'buy', 1, '80.001', ccxt.InvalidOrder, 'Filter failure: PRICE_FILTER'),
    ('limit', 'buy', '0.00123456', '80', ccxt.InvalidOrder, 'Filter failure: LOT_SIZE'),
    ('market', 'buy', '0.001', None, ccxt.BadRequest, 'Filter failure: NOTIONAL'),
    ('market', 'buy', '1000', None, ccxt.InsufficientFunds, 'insufficient balance'),
    ('market', 'sell', '1', None, ccxt.InsufficientFunds, 'insufficient balance'),
])
async def test_refusals_become_the_exceptions_that_the_real_venue_causes(kind, side, quantity, price, error, said):
    async with at() as (exchange, client, _):
        await client.load_markets()
        request = dict(symbol='BTCUSDT', side=side.upper(), type=kind.upper(), quantity=str(quantity), **now(exchange))
        if price: request |= dict(price=price, timeInForce='GTC')
        with pytest.raises(error, match=said): await client.private_post_order(request)
        assert not exchange.venue.orders and exchange.state()['balances']['USDT']['free'] == '10000'


@pytest.mark.parametrize(('change', 'code'), [
    (dict(symbol='NOPE'), -1121), (dict(symbol=''), -1102), (dict(quantity=''), -1102), (dict(quantity='1e3'), -1100), (dict(quantity='0'), -1013),
    (dict(quantity='0.123456789'), -1111), (dict(side='HOLD'), -1117), (dict(type='MAGIC'), -1116), (dict(price='1'), -1106),
    (dict(quoteOrderQty='50'), -2010), (dict(newClientOrderId='has space'), -1100), (dict(type='LIMIT'), -1102),
    (dict(type='LIMIT', price='80', timeInForce='GTX'), -1115), (dict(timestamp='soon'), -1100), (dict(recvWindow='60001'), -1131),
])
async def test_each_malformed_order_gets_its_code(change, code):
    async with at() as (exchange, client, _):
        request = dict(symbol='BTCUSDT', side='BUY', type='MARKET', quantity='1', **now(exchange)) | change
        with pytest.raises(ccxt.BaseError, match=f'"code":{code},'): await client.private_post_order(request)


async def test_an_unknown_order_is_not_found_and_a_living_client_id_is_a_duplicate():
    async with at() as (exchange, client, _):
        with pytest.raises(ccxt.OrderNotFound, match='-2013'): await client.fetch_order(None, 'BTC/USDT', now(exchange, origClientOrderId='none'))
        await client.create_order('BTC/USDT', 'limit', 'buy', 1, 80, now(exchange, clientOrderId='one'))
        with pytest.raises(ccxt.InvalidOrder, match='Duplicate order sent'):
            await client.create_order('BTC/USDT', 'limit', 'buy', 1, 80, now(exchange, clientOrderId='one'))


@pytest.mark.parametrize(('key', 'secret', 'code'), [('someone', 'local-secret', -2015), ('local-key', 'wrong', -1022)])
async def test_a_wrong_key_or_signature_is_refused(key, secret, code):
    async with at(key=key, secret=secret) as (exchange, client, _):
        with pytest.raises(ccxt.AuthenticationError, match=str(code)): await client.fetch_balance(now(exchange))


async def test_the_window_is_a_fence_on_the_venues_clock():
    clock = Clock()
    async with at(clock=clock) as (exchange, client, _):
        order = dict(symbol='BTC/USDT', type='limit', side='buy', amount=1, price=80)
        sent = exchange.now()
        for early in (1000, HOUR):
            with pytest.raises(ccxt.InvalidNonce, match='-1021'): await client.create_order(**order, params=dict(timestamp=sent + early))
        clock.seconds += 3
        await client.create_order(**order, params=dict(timestamp=sent, recvWindow=3000))
        clock.seconds += .01
        for _ in range(2):
            with pytest.raises(ccxt.InvalidNonce, match='-1021'): await client.create_order(**order, params=dict(timestamp=sent, recvWindow=3000))
        assert len(exchange.venue.orders) == 1


# The clock

async def test_release_closes_exactly_the_next_bar_however_often_it_is_asked():
    async with at() as (exchange, client, url):
        settled = exchange.times[exchange.current]
        first, second = await release(url, settled), await release(url, settled)
        assert (first['moved'], second['moved']) == (True, False) and first['current'] == second['current'] == settled + HOUR
        assert exchange.now() - (settled + 2 * HOUR) < 1000
        with_error = await release(url, settled + 5 * HOUR)
        assert 'has not closed' in with_error['msg'] and exchange.times[exchange.current] == settled + HOUR
        for nonsense in (settled + 1, 'soon', None): assert 'epoch ms' in (await release(url, nonsense))['msg']


def test_venue_time_is_the_close_plus_real_time_and_waits_for_a_runner_that_is_away():
    clock = Clock()
    exchange = LocalExchange([sample()], first=10, clock=clock)
    close = exchange.times[9] + HOUR
    assert exchange.now() == close
    clock.seconds += 2.5
    assert exchange.now() == close + 2500
    clock.seconds += 86_400
    assert exchange.now() == close + HOUR - 1
    exchange.step()
    assert exchange.now() == close + HOUR


def test_what_is_told_during_a_release_carries_the_new_time():
    clock = Clock()
    exchange = LocalExchange([sample()], first=10, clock=clock)
    heard = []
    exchange.listeners.append(lambda *what: heard.append(exchange.now()))
    exchange.place(Order('a', 'BTC/USDT', 'buy', 'limit', D(1), price=D('99.9')))
    clock.seconds += 50
    exchange.step()
    assert set(heard[1:]) == {exchange.closed_at} == {exchange.now()}


async def test_after_the_last_bar_the_market_is_closed():
    async with at(sample(bars=12)) as (exchange, client, url):
        for _ in range(2): await release(url, exchange.times[exchange.current])
        assert (await state(url))['done'] and not exchange.step()
        with pytest.raises(ccxt.MarketClosed, match='Market is closed'):
            await client.create_order('BTC/USDT', 'market', 'buy', 1, params=now(exchange))
        assert len(await client.fetch_ohlcv('BTC/USDT', '1h')) == 12
        assert (await client.load_markets(True))['BTC/USDT']['active'] is False


async def test_across_a_gap_an_order_fills_at_the_first_bar_after_it():
    async with at(sample(drop=(10, 11))) as (exchange, client, _):
        rows = await client.fetch_ohlcv('BTC/USDT', '1h')
        assert len(rows) == 10 and rows[-1][0] == exchange.closed_at - HOUR, 'in a gap nothing is forming'
        order = await client.create_order('BTC/USDT', 'market', 'buy', 1, params=now(exchange))
        assert order['average'] == pytest.approx(sample().bars.open.iloc[12], abs=.01)


async def test_several_symbols_share_one_clock():
    async with at(sample('BTC/USDT'), sample('ETH/USDT', seed=3, drop=(12,))) as (exchange, client, url):
        for _ in range(3): await release(url, exchange.times[exchange.current])
        one, two = [await client.fetch_ohlcv(symbol, '1h') for symbol in ('BTC/USDT', 'ETH/USDT')]
        assert one[-1][0] == two[-1][0] and len(one) == len(two) + 1


async def test_left_to_itself_it_plays_the_bars_at_a_pace():
    from production.local_exchange.server import serve
    exchange, ready = LocalExchange([sample(bars=30)], first=10), asyncio.get_running_loop().create_future()
    task = asyncio.create_task(serve(exchange, port=0, bars_per_s=1000, ready=ready))
    url = await ready
    while not (await state(url))['done']: await asyncio.sleep(.01)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert exchange.current == 29


# Streams

async def test_ccxt_pro_hears_bars_as_they_close():
    async with at() as (exchange, client, url):
        await client.load_markets()
        first = asyncio.create_task(client.watch_ohlcv('BTC/USDT', '1h'))
        for _ in range(3):
            await asyncio.sleep(.1)
            await release(url, exchange.times[exchange.current])
        await asyncio.wait_for(first, 5)
        await asyncio.sleep(.1)
        heard = {row[0]: row[1:] for row in client.ohlcvs['BTC/USDT']['1h']}
        bars = sample().bars
        for row in range(10, 13): assert heard[exchange.times[row]] == bars.iloc[row].tolist()


async def test_ccxt_pro_hears_its_orders_and_balances():
    async with at() as (exchange, client, url):
        await client.load_markets()
        await client.load_time_difference()
        orders, balance = asyncio.create_task(client.watch_orders('BTC/USDT')), asyncio.create_task(client.watch_balance())
        await asyncio.sleep(.3)
        await client.create_order('BTC/USDT', 'market', 'buy', 2, params=now(exchange, clientOrderId='heard'))
        order = (await asyncio.wait_for(orders, 5))[-1]
        assert order['clientOrderId'] == 'heard'
        while client.orders[0]['status'] != 'closed': await asyncio.wait_for(client.watch_orders('BTC/USDT'), 5)
        assert client.orders[0]['filled'] == 2 and (await asyncio.wait_for(balance, 5))['BTC']['free'] == 1.998


async def raw(url: str, path: str, *messages: dict, wait: int) -> list[dict]:
    "Send, and hear that many answers."
    async with aiohttp.ClientSession() as http, http.ws_connect(url.replace('http', 'ws') + path) as ws:
        for message in messages: await ws.send_json(message)
        return [json.loads((await ws.receive(5)).data) for _ in range(wait)]


async def test_streams_can_be_named_in_the_address_and_combined():
    async with at() as (exchange, client, url):
        heard = asyncio.create_task(raw(url, '/stream?streams=btcusdt@kline_1h', wait=2))
        deaf = asyncio.create_task(raw(url, '/ws/ethusdt@kline_1h', wait=1))
        await asyncio.sleep(.2)
        exchange.step()
        closed, forming = await heard
        assert not deaf.done(), 'a stream that was not asked for is not sent'
        deaf.cancel()
        assert closed['stream'] == 'btcusdt@kline_1h' and (closed['data']['k']['x'], forming['data']['k']['x']) == (True, False)
        listed = await raw(url, '/ws', {'method': 'SUBSCRIBE', 'params': ['a@kline_1h'], 'id': 1}, {'method': 'LIST_SUBSCRIPTIONS', 'id': 2}, wait=2)
        assert listed == [{'result': None, 'id': 1}, {'result': ['a@kline_1h'], 'id': 2}]


async def test_the_websocket_api_answers_like_rest_and_refuses_bad_signatures():
    async with at() as (exchange, client, url):
        good, bad = await raw(url, '/ws-api/v3', {'id': 1, 'method': 'time'}, {'id': 2, 'method': 'userDataStream.subscribe.signature',
            'params': dict(apiKey='local-key', timestamp=exchange.now(), signature='0')}, wait=2)
        assert good['status'] == 200 and good['result']['serverTime'] <= exchange.now()
        assert (bad['id'], bad['status'], bad['error']['code']) == (2, 400, -1022)


# What survives

def busy(exchange: LocalExchange):
    "A little of everything."
    for row in range(5):
        exchange.place(Order(f'm{row}', 'BTC/USDT', 'buy', 'market', D('0.5')))
        exchange.place(Order(f'l{row}', 'BTC/USDT', 'buy', 'limit', D(1), price=D('99.50') + row / D(10)))
        exchange.place(Order(f'r{row}', 'BTC/USDT', 'sell', 'market', D(10_000)))
        exchange.step()
    with contextlib.suppress(Rejected): exchange.cancel(next(iter(exchange.venue.locked), 0), 'bye')


def books(exchange: LocalExchange) -> tuple:
    "Everything the account can see, times and numbers included."
    protocol = Binance(exchange)
    return (exchange.state() | dict(time=0), protocol.all_orders(dict(symbol='BTCUSDT', limit='1000')),
            protocol.my_trades(dict(symbol='BTCUSDT', limit='1000')), protocol.open_orders({}), exchange.cancels)


def test_the_log_gives_back_the_same_exchange(tmp_path):
    clock = Clock()
    first = LocalExchange([sample()], first=10, log=tmp_path / 'log', clock=clock)
    busy(first)
    clock.seconds += 30
    latest = first.place(Order('late', 'BTC/USDT', 'buy', 'market', D(1))).opened
    before = books(first)
    first.close()
    again = LocalExchange([sample()], first=10, log=tmp_path / 'log', clock=clock)
    assert books(again) == before and again.venue.trades == first.venue.trades
    assert again.now() == latest == again.closed_at + 30_000, 'its clock does not run backwards'


def test_a_torn_last_line_is_dropped_and_a_torn_middle_is_damage(tmp_path):
    log = tmp_path / 'log'
    first = LocalExchange([sample()], first=10, log=log)
    busy(first)
    first.close()
    whole = log.read_bytes()
    log.write_bytes(whole[:-7])
    shorter = LocalExchange([sample()], first=10, log=log)
    assert len(shorter.log.commands) == len(whole.splitlines()) - 2
    shorter.step()
    shorter.close()
    assert len(LocalExchange([sample()], first=10, log=log).log.commands) == len(whole.splitlines()) - 1
    lines = whole.splitlines(keepends=True)
    (tmp_path / 'bad').write_bytes(b''.join([lines[0], lines[1][:20] + b'\n', *lines[2:]]))
    with pytest.raises(Damaged, match='not JSON'): LocalExchange([sample()], first=10, log=tmp_path / 'bad')


@pytest.mark.parametrize(('how', 'differs'), [(dict(first=11), 'first'), (dict(balances={'USDT': 5}), 'balances'), (dict(slippage='.01'), 'slippage')])
def test_a_log_of_another_market_is_damage(tmp_path, how, differs):
    LocalExchange([sample()], first=10, log=tmp_path / 'log').close()
    with pytest.raises(Damaged, match=differs): LocalExchange([sample()], **dict(dict(first=10), **how), log=tmp_path / 'log')
    with pytest.raises(Damaged, match='bars'): LocalExchange([sample(seed=9)], first=10, log=tmp_path / 'log')


def test_orders_survive_a_power_cut_and_releases_only_need_to_survive_a_kill(tmp_path, monkeypatch):
    exchange, synced = LocalExchange([sample()], first=10, log=tmp_path / 'log'), []
    monkeypatch.setattr(os, 'fsync', synced.append)
    exchange.step()
    assert not synced
    order = exchange.place(Order('a', 'BTC/USDT', 'buy', 'limit', D(1), price=D(80)))
    exchange.cancel(order.id)
    exchange.place(Order('b', 'BTC/USDT', 'sell', 'market', D(1)))
    assert len(synced) == 2, 'a refused order changes nothing and is not written'
    exchange.close()


def test_two_exchanges_cannot_write_one_log(tmp_path):
    first = LocalExchange([sample()], first=10, log=tmp_path / 'log')
    with pytest.raises(BadInput, match='another local exchange'): LocalExchange([sample()], first=10, log=tmp_path / 'log')
    first.close()


def test_a_full_disk_refuses_the_command_and_leaves_no_half_line(tmp_path):
    exchange = LocalExchange([sample()], first=10, log=tmp_path / 'log')
    size = (tmp_path / 'log').stat().st_size
    class Full:
        def __init__(self, file): self.file = file
        def write(self, line): return self.file.write(line[:9])
        def __getattr__(self, name): return getattr(self.file, name)
    exchange.log.file = Full(exchange.log.file)
    with pytest.raises(BadInput, match='no space left'): exchange.place(Order('a', 'BTC/USDT', 'buy', 'market', D(1)))
    assert (tmp_path / 'log').stat().st_size == size and not exchange.venue.orders


def read(url: str) -> dict: return json.load(urllib.request.urlopen(f'{url}/control/state', timeout=5))


async def test_a_killed_child_comes_back_where_it_was(tmp_path):
    child = start_child([sample()], tmp_path, first=10)
    client = ccxt.binance({'apiKey': 'local-key', 'secret': 'local-secret', **OPTIONS})
    session = rewire(client, child.url)
    venue_now = lambda: {'timestamp': read(child.url)['time']}
    for row in range(4):
        await client.create_order('BTC/USDT', 'market', 'buy', 1, params={**venue_now(), 'clientOrderId': f'k{row}'})
        await client.create_order('BTC/USDT', 'limit', 'buy', 1, 90 + row, {**venue_now(), 'clientOrderId': f'l{row}'})
        await release(child.url, read(child.url)['current'])
    orders, trades = [await ask('BTC/USDT', params=venue_now()) for ask in (client.fetch_orders, client.fetch_my_trades)]
    before = read(child.url)
    os.kill(child.process.pid, signal.SIGKILL)
    child.process.wait()
    child = start_child([sample()], tmp_path, first=10)
    await session.close()
    session = rewire(client, child.url)
    assert read(child.url) | dict(time=0) == before | dict(time=0)
    assert [await ask('BTC/USDT', params=venue_now()) for ask in (client.fetch_orders, client.fetch_my_trades)] == [orders, trades]
    await client.close()
    await session.close()
    child.stop()
    assert child.process.returncode == 0, 'it ends by itself when its stdin ends'


def test_a_port_in_use_is_one_clear_line(tmp_path):
    with socket.socket() as taken:
        taken.bind(('127.0.0.1', 0))
        taken.listen()
        with pytest.raises(BadInput, match='choose another with --port') as caught:
            start_child([sample()], tmp_path, first=10, port=taken.getsockname()[1])
        assert '\n' not in str(caught.value)


def test_a_child_whose_parent_is_gone_before_it_can_refuse_says_nothing(tmp_path):
    start_child([sample()], tmp_path, first=10).stop()
    bars, = tmp_path.glob('*.parquet')
    (tmp_path / 'exchange.log').write_text('{}\n' * 3)
    ask = dict(markets=[dict(symbol='BTC/USDT', timeframe='1h', path=str(bars))], log=str(tmp_path / 'exchange.log'), port=0, bars_per_s=None,
               settings=dict(first=10), rules={})
    child = subprocess.Popen([sys.executable, '-m', 'production.local_exchange'], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                             text=True)
    child.stdout.close()   # as a parent that was interrupted
    child.stdin.write(json.dumps(ask) + '\n')
    child.stdin.flush()
    assert (child.stderr.read(), child.wait(30)) == ('', 2)
    child.stdin.close()
    child.stderr.close()


def test_an_interrupted_child_ends_without_a_word(tmp_path, capfd):
    child = start_child([sample()], tmp_path, first=10)
    child.process.send_signal(signal.SIGINT)
    assert child.process.wait(30) == 130
    child.stop()
    assert capfd.readouterr() == ('', '')


def test_a_full_disk_under_the_bars_of_a_child_is_one_line_with_the_path(tmp_path, monkeypatch):
    def full(descriptor): raise OSError(errno.ENOSPC, 'No space left on device')
    monkeypatch.setattr(os, 'fsync', full)
    with pytest.raises(BadInput, match=r'\.parquet: cannot be written \(No space left on device\)') as caught:
        start_child([sample()], tmp_path / 'paper', first=10)
    assert str(tmp_path / 'paper') in str(caught.value) and list((tmp_path / 'paper').iterdir()) == []


# What cannot be served

@pytest.mark.parametrize(('samples', 'how', 'said'), [
    ([], {}, 'at least one'),
    ([sample(), dataclasses.replace(sample('ETH/USDT'), timeframe='4h')], {}, 'one timeframe'),
    ([sample('A-B/USDT'), sample('AB/USDT')], {}, 'would both be ABUSDT'),
    ([sample()], dict(first=0), 'first was 0'),
    ([sample()], dict(first=41), 'first was 41'),
])
def test_a_market_that_cannot_be_is_refused(samples, how, said):
    with pytest.raises(BadInput, match=said): LocalExchange(samples, **how)


async def test_a_rewired_client_reaches_no_other_host():
    async with at() as (_, client, _):
        with pytest.raises(Refused, match='fapi.binance.com was asked for'): await client.fapiPublicGetTime()
        with pytest.raises(Refused, match='tied to the local exchange'): client.session.get('https://example.com/')


# Recorded answers say which keys and types an answer has

def shape(recorded: object, ours: object, where: str = '') -> list[str]:
    "Where our answer lacks a key of the recorded one, or has another type in it."
    if isinstance(recorded, dict):
        if not isinstance(ours, dict): return [f'{where}: {type(ours).__name__}']
        return [found for key in recorded for found in (shape(recorded[key], ours[key], f'{where}.{key}') if key in ours else [f'{where}.{key} is missing'])]
    if isinstance(recorded, list):
        if not isinstance(ours, list) or recorded and not ours: return [f'{where}: {ours!r}']
        return [found for a, b in zip(recorded, ours, strict=False) for found in shape(a, b, f'{where}[]')]
    return [] if type(recorded) is type(ours) else [f'{where}: {type(ours).__name__} for {type(recorded).__name__}']


async def test_answers_have_the_keys_and_types_of_recorded_ones(shared_data):
    folder = shared_data / 'exchange_fixtures/nautilus/binance/spot'
    recorded = {path.stem: json.loads(path.read_text()) for path in folder.glob('*_json/*.json')}
    exchange = LocalExchange([sample()], first=10)
    said, protocol = [], Binance(exchange)
    exchange.listeners.append(lambda what, *about: said.extend(protocol.order_events(*about) if what == 'order' else ()))
    one = dict(symbol='BTCUSDT')
    limit = dict(one, side='BUY', type='LIMIT', quantity='1', price='80', timeInForce='GTC')
    ours = dict(new_order_full_response=protocol.new_order(dict(one, side='BUY', type='MARKET', quantity='2')))
    protocol.new_order(limit)
    ours |= dict(open_orders_response=protocol.open_orders(one), cancel_order_response=protocol.cancel_order(dict(one, orderId='2')),
                 all_orders_response=protocol.all_orders(one), account_trades_response=protocol.my_trades(one))
    canceled = next(event for event in said if event.get('x') == 'CANCELED')
    protocol.new_order(dict(one, side='SELL', type='STOP_LOSS', quantity='1', stopPrice='80'))
    stop = next(event for event in said if event.get('o') == 'STOP_LOSS')
    protocol.new_order(limit)
    ours |= dict(cancel_open_orders_response=protocol.cancel_open_orders(one)[:1], klines_response=json.loads(protocol.klines(dict(one, interval='1h'))),
                 avg_price_response=protocol.average_price(one), book_ticker_response=protocol.book_ticker(one), depth_response=protocol.depth(one),
                 ping_response=protocol.ping({}), server_time_response=protocol.time({}), ticker_24hr_response=protocol.ticker_day(one),
                 ticker_price_response=protocol.ticker_price(one), execution_report_canceled=canceled, execution_report_stop_loss=stop,
                 account_position=next(event for event in said if event['e'] == 'outboundAccountPosition'))
    wrong = {name: found for name, answer in ours.items() if (found := shape(recorded[name], answer, name))}
    assert wrong == {} and len(ours) >= 17
