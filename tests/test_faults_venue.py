"""The fault port of the local exchange: each fault as unmodified ccxt meets it, what it does to the books, and who may press it."""
import asyncio
import contextlib
import hmac
import json
import os
import shutil
import signal
from decimal import Decimal

import aiohttp
import ccxt.pro as ccxt
import pytest
from test_local_exchange import HOUR, Clock, at, books, now, raw, release, sample, state

from production.local_exchange.child import start_child
from production.local_exchange.exchange import LocalExchange
from production.local_exchange.faults import KINDS, Fault, Weather
from production.local_exchange.protocol import Binance
from trading_lib.core.errors import BadInput
from trading_lib.execution.orders import Order

D = Decimal
ORDER = 'POST /api/v3/order'
CHROMIUM = next(filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))), None)
FLAGS = ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync']


async def post(url: str, path: str, given: object, **headers) -> tuple[int, dict]:
    async with aiohttp.ClientSession() as http, http.post(url + path, json=given, headers=headers) as answer: return answer.status, await answer.json()


async def get(url: str, path: str) -> dict:
    async with aiohttp.ClientSession() as http, http.get(url + path) as answer: return await answer.json()


async def press(url: str, **fields) -> dict:
    "Set fields of the venue; what it refuses fails the test."
    status, answer = await post(url, '/control/venue', fields)
    assert status == 200, answer
    return answer


async def buy(client, exchange, name='one', amount=1, price=None):
    return await client.create_order('BTC/USDT', 'limit' if price else 'market', 'buy', amount, price, now(exchange, clientOrderId=name))


def placed(exchange) -> list[str]: return [state.order.client_id for state in exchange.venue.orders.values()]


# Faults of single requests

@pytest.mark.parametrize(('kind', 'arg', 'error', 'there'), [
    ('lose_request', None, ccxt.NetworkError, False),
    ('lose_response', None, ccxt.NetworkError, True),
    ('truncate', None, ccxt.BaseError, True),
    ('http', [400, {'code': -1015, 'msg': 'Too many new orders; current limit is 100 orders per 10 SECOND.'}], ccxt.RateLimitExceeded, False),
    ('http', 503, ccxt.ExchangeNotAvailable, False),
    ('http', [403, '<html>WAF</html>'], ccxt.BaseError, False),
    ('http_after', 502, ccxt.ExchangeNotAvailable, True),
    ('http_after', [500, {'code': -1000, 'msg': 'An unknown error occurred while processing the request.'}], ccxt.BaseError, True),
    ('delay_after', .6, ccxt.RequestTimeout, True),
    ('delay', .6, ccxt.RequestTimeout, True),
])
async def test_what_ccxt_raises_and_whether_the_order_is_there(kind, arg, error, there):
    async with at() as (exchange, client, _):
        await client.load_markets()
        client.timeout = 300
        exchange.faults.add(Fault(ORDER, kind, arg))
        with pytest.raises(error): await buy(client, exchange)
        if kind == 'delay': assert placed(exchange) == [], 'it is still on its way'
        await asyncio.sleep(.7 if kind == 'delay' else 0)
        assert placed(exchange) == ['one'] * there
        assert exchange.faults.fired[ORDER, kind] == 1
        client.timeout = 5000
        assert (await buy(client, exchange, 'two'))['status'] == 'closed', 'it fires once'


@pytest.mark.parametrize('arg', [None, '', '{}'])
async def test_garbage_arrives_with_status_200_and_ccxt_makes_an_order_without_an_id_of_it(arg):
    async with at() as (exchange, client, _):
        await client.load_markets()
        exchange.faults.add(Fault(ORDER, 'garbage', arg))
        with contextlib.suppress(ccxt.BaseError, AttributeError, TypeError): assert (await buy(client, exchange)).get('id') is None
        assert placed(exchange) == ['one']


async def test_a_request_that_comes_after_its_window_is_refused_by_the_venue():
    async with at() as (exchange, client, _):
        await client.load_markets()
        exchange.faults.add(Fault(ORDER, 'delay', .3))
        with pytest.raises(ccxt.InvalidNonce, match='-1021'):
            await client.create_order('BTC/USDT', 'market', 'buy', 1, params=now(exchange, recvWindow=100))
        assert placed(exchange) == []


async def test_a_stale_answer_is_the_one_before_and_waits_until_there_is_one():
    async with at() as (exchange, client, _):
        exchange.faults.add(Fault(ORDER, 'stale'), Fault('GET /api/v3/account', 'stale'))
        assert (await buy(client, exchange, 'one'))['clientOrderId'] == 'one'
        assert (await buy(client, exchange, 'two'))['clientOrderId'] == 'one', 'a cache on the way'
        first = await client.fetch_balance(now(exchange))
        await buy(client, exchange, 'three')
        assert await client.fetch_balance(now(exchange)) == first
        assert (await client.fetch_balance(now(exchange)))['BTC'] != first['BTC'] and placed(exchange) == ['one', 'two', 'three']


async def test_a_look_up_that_lags_says_not_found_twice_and_then_finds():
    async with at() as (exchange, client, _):
        await buy(client, exchange)
        exchange.faults.add(Fault('GET /api/v3/order', 'http', [400, {'code': -2013, 'msg': 'Order does not exist.'}], times=2))
        for _ in range(2):
            with pytest.raises(ccxt.OrderNotFound): await client.fetch_order(None, 'BTC/USDT', now(exchange, origClientOrderId='one'))
        assert (await client.fetch_order(None, 'BTC/USDT', now(exchange, origClientOrderId='one')))['status'] == 'closed'


async def test_candles_are_dropped_doubled_swapped_and_patched():
    async with at() as (exchange, client, _):
        ask = lambda: client.public_get_klines(dict(symbol='BTCUSDT', interval='1h', limit=6))
        good, klines = await ask(), 'GET /api/v3/klines'
        exchange.faults.add(Fault(klines, 'rows', [-4, -2, -1]), Fault(klines, 'rows', [-2, -2, -1]), Fault(klines, 'rows', [-2, -3, -1]),
                            Fault(klines, 'patch', {'-2.4': 'NaN', '0.1': '-5', '99.1': 'nowhere'}))
        dropped, doubled, swapped, patched = [await ask() for _ in range(4)]
        assert dropped == [*good[:3], *good[4:]] and doubled == [*good[:5], *good[4:]] and swapped == [*good[:3], good[4], good[3], good[5]]
        assert (patched[0][1], patched[-2][4]) == ('-5', 'NaN') and await ask() == good, 'and then all is well'


async def test_an_unknown_status_word_reaches_the_client():
    async with at() as (exchange, client, _):
        exchange.faults.add(Fault(ORDER, 'patch', {'status': 'PENDING_NEW_ENUM', 'fills': None}))
        assert (await buy(client, exchange))['status'] == 'PENDING_NEW_ENUM'


async def test_a_fault_on_the_websocket_api_breaks_garbles_or_refuses():
    async with at() as (exchange, client, url):
        faults = exchange.faults
        faults.add(Fault('WS time', 'http', [503, {'code': -1008, 'msg': 'overloaded'}]), Fault('WS time', 'garbage'), Fault('WS time', 'truncate'))
        async with aiohttp.ClientSession() as http, http.ws_connect(url.replace('http', 'ws') + '/ws-api/v3') as ws:
            said = []
            for number in range(4):
                await ws.send_json({'id': number, 'method': 'time'})
                said.append((await ws.receive(5)).data)
            assert json.loads(said[0])['error']['code'] == -1008 and said[1].startswith('<html') and json.loads(said[3])['status'] == 200
            with pytest.raises(ValueError): json.loads(said[2])
            faults.add(Fault('WS time', 'lose_response'))
            await ws.send_json({'id': 9, 'method': 'time'})
            assert (await ws.receive(5)).type in (aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR)


async def test_the_weather_strikes_its_share_and_the_same_seed_the_same_requests():
    async with at() as (exchange, client, url):
        async def fates(seed) -> list[str]:
            await post(url, '/control/faults', {})
            await post(url, '/control/faults', [dict(rate=.3, seed=seed, routes=['POST /api/v3/order/test'], kinds=['http', 'garbage', 'lose_response'])])
            seen = []
            async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as http:
                for _ in range(100):
                    try:
                        async with http.post(f'{url}/api/v3/order/test') as answer: seen.append(f'{answer.status} {await answer.text()}')
                    except aiohttp.ClientError: seen.append('broken')
            assert sum(exchange.faults.fired.values()) == sum('-2014' not in fate for fate in seen)
            return seen
        first, again, other = await fates(7), await fates(7), await fates(8)
        assert first == again != other and 15 <= sum('-2014' not in fate for fate in first) <= 45 and len(set(first)) == 4
        assert (await state(url))['orders'] == 0, 'what was not named is never struck'


# The venue as a whole

async def test_a_clock_that_jumps_refuses_until_the_client_asks_for_the_time():
    async with at() as (exchange, client, url):
        await client.load_markets()
        await press(url, skew=20_000)
        with pytest.raises(ccxt.InvalidNonce, match='-1021'): await client.fetch_balance(now(exchange))
        assert (await client.fetch_balance(dict(timestamp=await client.fetch_time())))['USDT']['free'] == 10_000
        await press(url, skew=-20_000)
        with pytest.raises(ccxt.InvalidNonce, match='1000ms ahead'): await client.fetch_balance(now(exchange))


async def test_too_much_weight_is_429_with_retry_after_until_the_minute_is_over():
    async with at() as (exchange, client, url):
        await client.load_markets()   # 20; what was used before does not count
        await press(url, weight_limit=5, weight_window_s=.5)
        async with aiohttp.ClientSession() as http:
            async def ask():
                async with http.get(f'{url}/api/v3/time') as answer: return answer.status, answer.headers
            said = [await ask() for _ in range(6)]
            assert [status for status, _ in said] == [200] * 5 + [429] and said[-1][1]['Retry-After'] == '1'
            assert [int(headers['X-MBX-USED-WEIGHT-1M']) for _, headers in said] == [1, 2, 3, 4, 5, 6]
            with pytest.raises(ccxt.DDoSProtection, match='-1003'): await client.fetch_time()
            await asyncio.sleep(.5)
            assert (await ask())[0] == 200


async def test_a_ban_ends_on_the_venues_clock_and_maintenance_when_it_is_called_off():
    clock = Clock()
    async with at(clock=clock) as (exchange, client, url):
        await press(url, banned_until=exchange.now() + 60_000)
        with pytest.raises(ccxt.DDoSProtection, match='banned until'): await client.fetch_time()
        clock.seconds += 60
        assert await client.fetch_time() == exchange.now()
        await press(url, maintenance=True)
        with pytest.raises(ccxt.OperationFailed, match='503|-1008'): await client.fetch_time()
        said, = await raw(url, '/ws-api/v3', {'id': 1, 'method': 'time'}, wait=1)
        assert (said['status'], said['error']['code']) == (503, -1008)
        await press(url, maintenance=False)
        await client.fetch_time()


async def test_a_key_is_revoked_and_one_that_may_withdraw_is_told():
    async with at() as (exchange, client, url):
        assert (await client.fetch_balance(now(exchange)))['info']['canWithdraw'] is False
        await press(url, can_withdraw=True)
        assert (await client.fetch_balance(now(exchange)))['info']['canWithdraw'] is True
        assert (await client.sapi_get_account_apirestrictions(now(exchange)))['enableWithdrawals'] is True
        await press(url, revoked=['local-key'])
        with pytest.raises(ccxt.BaseError, match='-2015'): await client.fetch_balance(now(exchange))


# The books, by hand

async def test_a_thin_book_fills_a_part_a_market_order_ends_and_a_limit_rests():
    async with at() as (exchange, client, url):
        await press(url, max_fill='0.4')
        order = await buy(client, exchange, amount=1)
        assert (order['status'], order['filled']) == ('expired', .4)
        limit = await buy(client, exchange, 'two', amount=1, price=120)
        assert (limit['status'], limit['filled'], limit['info']['status']) == ('open', .4, 'PARTIALLY_FILLED')
        await press(url, price={'BTC/USDT': '110'})
        await press(url, max_fill=None)
        assert (await client.fetch_order(limit['id'], 'BTC/USDT', now(exchange)))['filled'] == .8
        await release(url, exchange.times[exchange.current])
        assert (await client.fetch_order(limit['id'], 'BTC/USDT', now(exchange)))['status'] == 'closed'


async def test_a_fill_may_overtake_a_cancel_that_is_on_its_way():
    async with at() as (exchange, client, url):
        await client.load_markets()
        await buy(client, exchange, price=80)
        exchange.faults.add(Fault('DELETE /api/v3/order', 'delay', .3))
        canceling = asyncio.create_task(client.cancel_order(None, 'BTC/USDT', now(exchange, origClientOrderId='one')))
        await asyncio.sleep(.1)
        await press(url, price={'BTCUSDT': 79})
        with pytest.raises(ccxt.OrderNotFound, match='-2011'): await canceling
        assert (await client.fetch_order(None, 'BTC/USDT', now(exchange, origClientOrderId='one')))['status'] == 'closed'
        assert (await client.fetch_ticker('BTC/USDT'))['last'] == 79


async def test_a_halted_market_takes_no_orders_fills_none_and_lets_go():
    async with at() as (exchange, client, url):
        await buy(client, exchange, price=80)
        await press(url, halted=['BTCUSDT'])
        with pytest.raises(ccxt.MarketClosed): await buy(client, exchange, 'two')
        assert (await client.load_markets(True))['BTC/USDT']['active'] is False
        await press(url, price={'BTC/USDT': 70})
        assert (await client.cancel_order(None, 'BTC/USDT', now(exchange, origClientOrderId='one')))['status'] == 'canceled'
        await press(url, halted=[])
        assert (await buy(client, exchange, 'two'))['average'] == 70


async def test_filters_change_while_it_runs():
    async with at() as (exchange, client, url):
        await client.load_markets()
        await press(url, filters={'BTC/USDT': dict(step='0.5', min_notional='200', tick='1')})
        for amount, price, filter in ((1.1, 90, 'LOT_SIZE'), (1, 90, 'NOTIONAL'), (3, 90.5, 'PRICE_FILTER')):
            with pytest.raises(ccxt.BaseError, match=f'Filter failure: {filter}'):
                asked = dict(symbol='BTCUSDT', side='BUY', type='LIMIT', quantity=str(amount), price=str(price), timeInForce='GTC')
                await client.private_post_order(asked | now(exchange))
        assert (await client.load_markets(True))['BTC/USDT']['limits']['cost']['min'] == 200


async def test_money_comes_goes_and_is_set_and_the_user_stream_says_so():
    async with at() as (exchange, client, url):
        said, protocol = [], Binance(exchange)
        exchange.listeners.append(lambda what, *about: said.extend(protocol.balance_events(about[0]) if what == 'balance' else ()))
        await press(url, deposit=dict(USDT='250.5', BTC=1))
        await press(url, deposit=dict(USDT=-50))
        await press(url, free=dict(BTC=7))
        balance = await client.fetch_balance(now(exchange))
        assert (balance['USDT']['free'], balance['BTC']['free']) == (10_200.5, 7)
        assert [(event['a'], event['d']) for event in said if event['e'] == 'balanceUpdate'] == [
            ('USDT', '250.50000000'), ('BTC', '1.00000000'), ('USDT', '-50.00000000')]
        status, answer = await post(url, '/control/venue', dict(deposit=dict(USDT=-20_000)))
        assert status == 400 and answer['msg'] == '20000 USDT cannot be withdrawn: 10200.5 is free'


async def test_a_trade_by_hand_bears_another_name_and_is_heard():
    async with at() as (exchange, client, url):
        await press(url, trade=dict(symbol='BTC/USDT', side='buy', quantity='0.5'))
        await press(url, trade=dict(symbol='BTC/USDT', side='buy', quantity='0.5', price='80'))
        assert placed(exchange) == ['web_1', 'web_2'] and len(exchange.venue.trades) == 1
        status, answer = await post(url, '/control/venue', dict(trade=dict(symbol='BTC/USDT', side='sell', quantity='99')))
        assert status == 400 and answer['msg'] == 'sell 99 BTC/USDT was refused: Account has insufficient balance for requested action.'


async def test_an_order_of_ours_is_canceled_by_hand():
    async with at() as (exchange, client, url):
        order = await buy(client, exchange, 'guard', price=80)
        heard = await events(url, exchange, lambda: press(url, cancel='guard'), wait=1)
        assert (heard[0]['x'], heard[0]['C'], heard[0]['c']) == ('CANCELED', 'guard', 'web_1')
        assert (await client.fetch_order(order['id'], 'BTC/USDT', now(exchange)))['status'] == 'canceled'
        status, answer = await post(url, '/control/venue', dict(cancel='guard'))
        assert (status, answer['msg']) == (400, 'there is no open order guard')


async def test_an_empty_restart_forgets_orders_and_money_but_not_the_market():
    async with at() as (exchange, client, url):
        await buy(client, exchange)
        await release(url, exchange.times[exchange.current])
        current = exchange.current
        await press(url, restart=True)
        with pytest.raises(ccxt.OrderNotFound): await client.fetch_order(None, 'BTC/USDT', now(exchange, origClientOrderId='one'))
        assert (await client.fetch_balance(now(exchange)))['USDT']['free'] == 10_000 and exchange.current == current
        await buy(client, exchange)


def test_what_a_hand_changed_is_in_the_log_and_what_the_network_did_is_not(tmp_path):
    first = LocalExchange([sample()], first=10, log=tmp_path / 'log')
    first.place(Order('a', 'BTC/USDT', 'buy', 'limit', D(2), price=D('90')))
    for what, value in (('deposit', dict(USDT='5')), ('max_fill', '0.25'), ('price', {'BTC/USDT': '89'}), ('free', dict(ETH='3')),
                        ('filters', {'BTCUSDT': dict(step='0.01')}), ('halted', ['BTCUSDT']), ('fees', dict(maker='0.0001')), ('fee_asset', dict(BNB='300'))):
        first.change(what, value)
        if what in ('deposit', 'price', 'halted'): first.step()
    first.faults.add(Fault(ORDER, 'lose_response'))
    first.faults.ail(skew=5000)
    assert first.venue.orders[1].filled == D('0.25')
    before, lines = books(first), (tmp_path / 'log').read_text()
    first.close()
    again = LocalExchange([sample()], first=10, log=tmp_path / 'log')
    assert books(again) == before and again.venue.trades == first.venue.trades
    assert (again.venue.max_fill, again.venue.halted, again.rules) == (D('0.25'), {'BTC/USDT'}, first.rules)
    assert 'lose_response' not in lines and again.faults.venue.skew == 0
    again.change('restart', True)
    again.close()
    assert LocalExchange([sample()], first=10, log=tmp_path / 'log').venue.orders == {}


# Websockets

async def listening(client, exchange):
    "A client whose user stream is on."
    await client.load_markets()
    await client.load_time_difference()
    orders = asyncio.create_task(client.watch_orders('BTC/USDT'))
    while not any(socket for socket in client.clients.values() if socket.subscriptions): await asyncio.sleep(.02)
    await asyncio.sleep(.2)
    return orders


async def events(url: str, exchange, act, wait: int) -> list[dict]:
    "What a raw user stream hears while something is done."
    async with aiohttp.ClientSession() as http, http.ws_connect(url.replace('http', 'ws') + '/ws-api/v3') as ws:
        asked = dict(apiKey='local-key', timestamp=exchange.now())
        payload = '&'.join(f'{name}={asked[name]}' for name in sorted(asked))
        signature = hmac.new(b'local-secret', payload.encode(), 'sha256').hexdigest()
        await ws.send_json(dict(id=1, method='userDataStream.subscribe.signature', params=asked | dict(signature=signature)))
        assert (await ws.receive_json(timeout=5))['status'] == 200
        await act()
        heard = []
        for _ in range(wait):
            message = await ws.receive(1)
            if message.type != aiohttp.WSMsgType.TEXT: break
            heard.append(json.loads(message.data)['event'])
        return heard


async def test_fills_of_the_user_stream_are_dropped_doubled_and_held_back():
    async with at() as (exchange, client, url):
        await press(url, user_events=['drop', 'repeat', 'hold'])
        async def three():
            for name in 'abc': await buy(client, exchange, name)
        heard = await events(url, exchange, three, wait=12)
        assert [(event['c'], event['x']) for event in heard if event['e'] == 'executionReport'] == [
            ('a', 'NEW'), ('b', 'NEW'), ('b', 'TRADE'), ('b', 'TRADE'), ('c', 'NEW'), ('c', 'TRADE')]
        assert [event['e'] for event in heard[-2:]] == ['outboundAccountPosition', 'executionReport'], 'the last fill comes after the balance it made'
        assert {kind: times for (route, kind), times in exchange.faults.fired.items()} == dict(drop=1, repeat=1, hold=1)


async def test_a_muted_stream_is_silent_and_the_others_are_not():
    async with at() as (exchange, client, url):
        await press(url, muted=['user'])
        bars = asyncio.create_task(raw(url, '/ws/btcusdt@kline_1h', wait=1))
        with pytest.raises(TimeoutError): await events(url, exchange, lambda: buy(client, exchange), wait=1)
        exchange.step()
        assert (await bars)[0]['k']['x'] is True
        await press(url, muted=[])
        assert (await events(url, exchange, lambda: buy(client, exchange, 'two'), wait=1))[0]['c'] == 'two'


@pytest.mark.parametrize('code', [1001, 1006])
async def test_websockets_are_dropped_with_a_code_or_without_a_word_and_ccxt_pro_comes_back(code):
    async with at() as (exchange, client, url):
        waiting = await listening(client, exchange)
        await press(url, drop_ws=code)
        with pytest.raises(ccxt.NetworkError): await asyncio.wait_for(waiting, 5)
        again = asyncio.create_task(client.watch_orders('BTC/USDT'))
        await asyncio.sleep(.4)
        await buy(client, exchange, 'after')
        assert (await asyncio.wait_for(again, 5))[-1]['clientOrderId'] == 'after'


async def test_a_user_stream_that_the_venue_ends_hears_nothing_more():
    async with at() as (exchange, client, url):
        async def act():
            await press(url, end_user_stream=True)
            await buy(client, exchange)
        with pytest.raises(TimeoutError): await events(url, exchange, act, wait=2)
        heard = await events(url, exchange, lambda: press(url, end_user_stream=True), wait=1)
        assert heard[0]['e'] == 'eventStreamTerminated'


async def test_a_half_open_websocket_answers_no_ping_and_is_not_closed():
    async with at() as (exchange, client, url):
        async with aiohttp.ClientSession() as http, http.ws_connect(url.replace('http', 'ws') + '/ws/btcusdt@kline_1h', autoping=False) as ws:
            await ws.ping()
            assert (await ws.receive(2)).type is aiohttp.WSMsgType.PONG
            await press(url, freeze_ws=True)
            exchange.step()
            await ws.ping()
            with pytest.raises(TimeoutError): await ws.receive(.3)
            assert not ws.closed
        assert (await raw(url, '/ws', {'method': 'LIST_SUBSCRIPTIONS', 'id': 2}, wait=1)) == [{'result': [], 'id': 2}], 'a new one is well'


async def test_a_flood_is_sent_and_orders_are_heard_through_it():
    async with at() as (exchange, client, url):
        async with aiohttp.ClientSession() as http, http.ws_connect(url.replace('http', 'ws') + '/ws/btcusdt@kline_1h') as ws:
            heard = await events(url, exchange, lambda: asyncio.gather(press(url, flood=5000), buy(client, exchange)), wait=1)
            assert heard[0]['c'] == 'one'
            for _ in range(5000): assert json.loads((await ws.receive(5)).data)['k']['x'] is False
            with pytest.raises(TimeoutError): await ws.receive(.1)


# Who may press

async def test_another_process_presses_and_a_killed_exchange_forgets_faults_but_not_money(tmp_path):
    child = start_child([sample()], tmp_path, first=10, accounts={'second': dict(key='k', secret='s', balances=dict(USDT='7'))})
    await press(child.url, account='second', deposit=dict(USDT=3))
    await post(child.url, '/control/faults', [dict(route='GET /api/v3/time', kind='http', arg=503, times=None)])
    assert [(await post(child.url, '/control/faults', [dict(rate=0)]))[0], len((await get(child.url, '/control/faults'))['faults'])] == [200, 1]
    os.kill(child.process.pid, signal.SIGKILL)
    child.process.wait()
    child = start_child([sample()], tmp_path, first=10, accounts={'second': dict(key='k', secret='s', balances=dict(USDT='7'))})
    told = await get(child.url, '/control/overview')
    assert told['faults']['faults'] == [] and told['accounts'][1]['balances'][1] == dict(asset='USDT', free='10', locked='0')
    child.stop()


async def test_the_runner_ends_in_the_books_of_replay_in_bad_weather(tmp_path):
    from local_venue import venue
    from test_runner import agree_with_replay, agree_with_the_venue, exchange, run
    from test_runner import books as journalled
    there = exchange()
    there.faults.add(Weather(.3, 3, routes=('* /api/v3/order', 'GET /api/v3/account')), Fault(ORDER, 'lose_response', times=2), Fault(ORDER, 'garbage'))
    async with venue(there) as (gateway, _): assert await run(gateway, there, tmp_path / 'j.db') == 'done'
    found = journalled(tmp_path / 'j.db')
    agree_with_replay(found)
    agree_with_the_venue(found, there)
    assert sum(there.faults.fired.values()) >= 5



@pytest.mark.parametrize(('given', 'said'), [
    ([dict(route='POST /api/v3/oder', kind='lose_response')], 'there is no route POST /api/v3/oder; did you mean POST /api/v3/order?'),
    ([dict(route=ORDER, kind='loose_response')], 'there is no fault loose_response; did you mean lose_response?'),
    ([dict(route=ORDER, kind='delay', arg='soon')], f"fault delay on {ORDER}: arg was 'soon'; it is seconds, from 0 to 3600"),
    ([dict(route=ORDER, kind='truncate', times=0)], f'fault truncate on {ORDER}: times was 0; it is a whole number from 1, or null for until it is cleared'),
    ([dict(route=ORDER, kind='http', arg=99)], f'fault http on {ORDER}: arg was 99; it is a status from 200 to 599, or [status, body, headers]'),
    ([dict(route=ORDER, kind='http', status=500)], 'a fault has no status; known: arg, kind, route, times'),
    ([dict(route=ORDER)], 'a fault needs a route and a kind; given: {"route": "POST /api/v3/order"}'),
    ([dict(rate=2)], 'rate was 2; it is a share from 0 to 1'),
    ([dict(rate=.1, kinds=['stale'])], 'stale cannot be drawn by chance'),
    ('storm', 'faults are a list of {"route", "kind", "arg", "times"} or {"rate", "seed", "routes", "kinds"}, or {} to clear them'),
])
async def test_a_bad_fault_is_refused_in_one_clear_line_and_nothing_is_set(given, said):
    async with at() as (exchange, _, url):
        status, answer = await post(url, '/control/faults', [dict(route=ORDER, kind='delay', arg=1), *given] if isinstance(given, list) else given)
        assert status == 400 and answer['msg'].startswith(said) and '\n' not in answer['msg']
        assert exchange.faults.waiting == [] and exchange.faults.weather == []


@pytest.mark.parametrize(('given', 'said'), [
    (dict(scew=5), 'there is no field scew; did you mean skew?'),
    (dict(maintenance=1), 'maintenance was 1; it is true or false'),
    (dict(skew='1 s'), "skew was '1 s'; it is a whole number"),
    (dict(price={'BTC/USD': 1}), 'there is no market BTC/USD; did you mean BTC/USDT?'),
    (dict(price={'BTC/USDT': 0}), 'price of BTC/USDT was 0; it must be above 0'),
    (dict(free={'USDT': -1}), 'free USDT was -1; it must be at least 0'),
    (dict(filters={'BTC/USDT': dict(stap=1)}), 'BTC/USDT has no filter stap; did you mean step?'),
    (dict(halted='BTC/USDT'), "halted was 'BTC/USDT'; it is a list of symbols"),
    (dict(drop_ws=True), 'drop_ws was True; it is a close code'),
    (dict(flood=0), 'flood was 0; it is a number of messages'),
    (dict(cancel=5), 'cancel was 5; it is the client id'),
    (dict(user_events=['lose']), "user_events was ['lose']; it is a list of drop, repeat and hold"),
    (dict(trade=dict(symbol='BTC/USDT')), "trade was {'symbol': 'BTC/USDT'}; it is"),
    (dict(skew=5, account='nobody'), 'there is no account nobody; known: main'),
    (dict(), 'the venue is given an object of fields'),
])
async def test_a_bad_field_is_refused_and_nothing_of_the_request_is_done(given, said):
    async with at() as (exchange, _, url):
        status, answer = await post(url, '/control/venue', dict(weight_limit=7) | given if given else given)
        assert status == 400 and answer['msg'].startswith(said) and '\n' not in answer['msg']
        assert exchange.faults.venue.weight_limit is None


async def test_what_is_set_and_how_often_it_fired_can_be_asked_and_all_is_cleared():
    async with at() as (exchange, client, url):
        await post(url, '/control/faults', [dict(route='GET *', kind='http', arg=503, times=2), dict(rate=0)])
        with pytest.raises(ccxt.ExchangeNotAvailable): await client.fetch_time()
        told = await get(url, '/control/faults')
        assert (told['faults'][0]['left'], told['fired'], told['weather'][0]['rate']) == (1, [dict(route='GET /api/v3/time', kind='http', times=1)], 0)
        status, told = await post(url, '/control/faults', {})
        assert status == 200 and told['faults'] == told['fired'] == told['weather'] == [] and await client.fetch_time()


async def test_a_page_of_another_site_cannot_press():
    async with at() as (exchange, _, url):
        status, answer = await post(url, '/control/venue', dict(maintenance=True), Origin='https://example.com')
        assert status == 403 and not exchange.faults.venue.maintenance
        assert (await post(url, '/control/venue', dict(maintenance=True), Origin=url))[0] == 200


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason='no Chromium here; install it with: apt-get install chromium')
async def test_a_person_presses_faults_on_the_page():
    from playwright.async_api import async_playwright
    async with at() as (exchange, client, url), async_playwright() as p:
        await buy(client, exchange, 'guard', price=80)
        browser = await p.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page, broken = await browser.new_page(), []
        page.on('pageerror', lambda error: broken.append(error))
        await page.goto(url)
        await page.get_by_role('button', name='lose_response').click()
        await page.get_by_text('lose_response').nth(1).wait_for()
        with pytest.raises(ccxt.NetworkError): await buy(client, exchange, 'lost')
        await page.fill('#trade [name=quantity]', '0.5')
        await page.get_by_role('button', name='Send').click()
        await page.get_by_text('web_3').wait_for()
        await page.fill('[data-field=weight_limit] input', 'many')
        await page.locator('[data-field=weight_limit] button').click()
        await page.get_by_text("weight_limit was 'many'; it is a whole number").wait_for()
        await page.locator('#orders').get_by_role('button', name='Cancel').click()
        await page.get_by_text('none of 3 is open').wait_for()
        for name in ('Halt', 'Maintenance', 'Release a bar'): await page.get_by_role('button', name=name, exact=True).click()
        await page.get_by_text('bars 11 of 40').wait_for()
        assert exchange.venue.halted == {'BTC/USDT'} and exchange.faults.venue.maintenance
        await page.get_by_role('button', name='Clear all faults').click()
        await page.get_by_text('well', exact=True).wait_for()
        await page.get_by_role('button', name='Halt', exact=True).wait_for()
        assert not exchange.venue.halted and not exchange.faults.venue.maintenance and broken == []
        await browser.close()


async def test_the_page_shows_itself_and_asks_nobody_else():
    async with at() as (exchange, client, url):
        await buy(client, exchange, price=80)
        await buy(client, exchange, 'two')
        async with aiohttp.ClientSession() as http, http.get(url) as answer:
            page = await answer.text()
            assert answer.content_type == 'text/html' and "default-src 'none'" in answer.headers['Content-Security-Policy']
        assert 'https://' not in page and 'src=' not in page and '/control/overview' in page
        told = await get(url, '/control/overview')
        account, = told['accounts']
        assert told['markets'][0]['symbol'] == 'BTC/USDT' and account['open_orders'][0]['client_id'] == 'one' and account['trades'][0]['client_id'] == 'two'
        assert set(KINDS) <= set(told['kinds']) and ORDER in told['routes']


def test_faults_that_were_set_before_serving_are_checked_then():
    exchange = LocalExchange([sample()], first=10)
    exchange.faults.add(Fault('POST /api/v3/oder', 'lose_response'), Weather(.5))
    from production.local_exchange.server import Server
    with pytest.raises(BadInput, match='did you mean POST /api/v3/order'): Server(exchange)
    assert HOUR == exchange.length
