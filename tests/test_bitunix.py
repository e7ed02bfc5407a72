"""Bitunix's client: recorded answers where there are any, documented ones (unverified) elsewhere."""
import asyncio
import hashlib
import json
from pathlib import Path

import pytest
from aiohttp import WSMsgType, web
from spoken import Script

from production.venues.bitunix import bitunix

FIXTURES = Path(__file__).parents[2] / 'shared/data/exchange_fixtures/ccxt_static_excerpts/bitunix_http_responses.json'
recorded = pytest.mark.skipif(not FIXTURES.is_file(), reason=f'no recorded answers at {FIXTURES}')
SYMBOL = 'BTC/USDT:USDT'
PAIRS = {'code': 0, 'data': [{'symbol': 'BTCUSDT', 'base': 'BTC', 'quote': 'USDT', 'minTradeVolume': '0.0001', 'basePrecision': 4,
                              'quotePrecision': 1, 'symbolStatus': 'OPEN'}]}


def ok(data: object) -> dict: return {'code': 0, 'data': data, 'msg': 'Success'}
def said() -> dict: return json.loads(FIXTURES.read_text())


@pytest.fixture
async def desk():
    client = bitunix({'apiKey': 'key', 'secret': 'secret', 'enableRateLimit': False})
    client.number, client.session, client.own_session = str, Script(), False
    client.session.says.append(('/trading_pairs', 200, PAIRS))
    yield client, client.session


@recorded
async def test_the_recorded_market_is_read(desk):
    client, wire = desk
    wire.says[:] = [('/trading_pairs', 200, said()['fetchMarkets'])]
    market = (await client.load_markets())[SYMBOL]
    assert (market['id'], market['type'], market['linear'], market['settle'], market['active']) == ('BTCUSDT', 'swap', True, 'USDT', True)
    assert (market['precision'], market['limits']['amount']['min'], market['limits']['leverage']['max']) == ({'amount': '0.0001', 'price': '0.1'},
            '0.0001', '125')


@recorded
async def test_recorded_bars_come_newest_first_and_are_read_oldest_first(desk):
    client, wire = desk
    wire.says.append(('/kline', 200, said()['fetchOHLCV_newest_first']))
    bars = await client.fetch_ohlcv(SYMBOL, '1m', 1_700_000_000_000, 1000)
    assert bars == [[1_700_000_000_000, '60000', '60100', '59990', '60100', '3'], [1_700_000_060_000, '60100', '60120', '60090', '60110', '2.5']]
    for part in ('startTime=1700000000000', 'limit=200', f'endTime={1_700_000_000_000 + 200 * 60_000 - 1}'): assert part in wire.sent[-1][1]


@recorded
async def test_a_recorded_order_and_trade_are_read(desk):
    client, wire = desk
    wire.says += [('/get_order_detail', 200, ok(said()['order'])), ('/get_history_trades', 200, ok({'tradeList': [said()['trade']], 'total': 1})),
                  ('/get_pending_orders', 200, ok({'orderList': [said()['order']], 'total': 1}))]
    order = await client.fetch_order(None, SYMBOL, {'clientOrderId': '22222'})
    assert (order['id'], order['clientOrderId'], order['symbol'], order['status'], order['side'], order['type']) == ('11111', '22222', SYMBOL,
            'open', 'buy', 'limit')
    assert (order['amount'], order['filled'], order['price'], order['timestamp'], order['fee']) == ('1', '0.5', '60000', 1597026383085,
            {'cost': '0.01', 'currency': 'USDT'})
    assert 'clientId=22222' in wire.sent[-1][1] and 'orderId' not in wire.sent[-1][1]
    assert (await client.fetch_open_orders(SYMBOL))[0]['id'] == '11111'
    [trade] = await client.fetch_order_trades('11111', SYMBOL)
    assert (trade['id'], trade['order'], trade['amount'], trade['price'], trade['fee'], trade['takerOrMaker']) == ('123', '11111', '1', '60000',
            {'cost': '0.01',
            'currency': 'USDT'}, 'taker')
    assert await client.fetch_order_trades('another', SYMBOL) == []


@recorded
async def test_the_other_recorded_answers_are_read(desk):
    client, wire = desk
    wire.says += [('/tickers', 200, said()['fetchTicker']), ('/depth', 200, said()['fetchOrderBook']), ('/funding_rate', 200,
            said()['fetchFundingRate']),
                  ('/get_pending_positions', 200, ok([said()['position']]))]
    ticker, book, funding = await client.fetch_ticker(SYMBOL), await client.fetch_order_book(SYMBOL), await client.fetch_funding_rate(SYMBOL)
    assert (ticker['last'], ticker['high'], ticker['baseVolume']) == ('60250', '61000', '12')
    assert (book['bids'][0], book['asks'][0]) == ([60100.0, 3.0], [60100.5, 2.5])
    assert (funding['fundingRate'], funding['fundingTimestamp']) == ('0.0005', 1_700_028_800_000)
    [position] = await client.fetch_positions()
    assert (position['symbol'], position['side'], position['contracts'], position['entryPrice'], position['marginMode'],
            position['hedged']) == (SYMBOL, 'long', '0.5', '60000', 'isolated', True)


def sha(text: str) -> str: return hashlib.sha256(text.encode()).hexdigest()


async def test_a_request_is_signed_as_documented(desk):
    client, wire = desk
    wire.says.append(('', 200, ok({'orderId': '1', 'clientId': 'tw-1'})))
    order = await client.create_order(SYMBOL, 'limit', 'buy', '0.5', '60000', {'clientOrderId': 'tw-1', 'postOnly': True})
    assert (order['id'], order['clientOrderId']) == ('1', 'tw-1')
    method, url, body, headers = wire.sent[-1]
    assert (method, url) == ('POST', 'https://fapi.bitunix.com/api/v1/futures/trade/place_order')
    assert json.loads(body) == dict(symbol='BTCUSDT', side='BUY', orderType='LIMIT', qty='0.5', price='60000', effect='POST_ONLY', clientId='tw-1',
                                    reduceOnly=False) and ' ' not in body
    assert headers['sign'] == sha(sha(f'{headers["nonce"]}{headers["timestamp"]}key{body}') + 'secret') and len(headers['nonce']) == 32
    await client.cancel_order(None, SYMBOL, {'clientOrderId': 'tw-1'})
    assert json.loads(wire.sent[-1][2]) == {'symbol': 'BTCUSDT', 'orderList': [{'clientId': 'tw-1'}]}
    wire.says.insert(0, ('get_pending_orders', 200, ok({'orderList': []})))
    await client.fetch_open_orders(SYMBOL)
    *_, headers = wire.sent[-1]
    assert 'limit=100&symbol=BTCUSDT' in wire.sent[-1][1] and headers['sign'] == sha(sha(f'{headers["nonce"]}{headers["timestamp"]}keylimit100symbolBTCUSDT') + 'secret')


async def test_a_market_order_has_no_price_and_other_kinds_are_not_taken(desk):
    from ccxt.base.errors import InvalidOrder
    client, wire = desk
    wire.says.append(('', 200, ok({'orderId': '1', 'clientId': 'tw-1'})))
    await client.create_order(SYMBOL, 'market', 'sell', '0.5', None, {'clientOrderId': 'tw-1', 'reduceOnly': True})
    assert json.loads(wire.sent[-1][2]) == dict(symbol='BTCUSDT', side='SELL', orderType='MARKET', qty='0.5', clientId='tw-1', reduceOnly=True)
    with pytest.raises(InvalidOrder): await client.create_order(SYMBOL, 'stop', 'sell', '0.5')


async def test_codes_become_the_errors_of_ccxt(desk):
    from ccxt.base import errors
    client, wire = desk
    await client.load_markets()
    for code, kind in ((20003, errors.InsufficientFunds), (20007, errors.OrderNotFound), (10007, errors.AuthenticationError), (10005,
            errors.RateLimitExceeded),
                       (30042, errors.InvalidOrder), (99999, errors.ExchangeError)):
        wire.says[:] = [('', 200, {'code': code, 'data': None, 'msg': 'no'})]
        with pytest.raises(kind): await client.fetch_balance()
    wire.says[:] = [('/cancel_orders', 200, ok({'successList': [], 'failureList': [{'clientId': 'x', 'errorMsg': 'Order status error',
            'errorCode': 10013}]}))]
    with pytest.raises(errors.ExchangeError, match='Order status error'): await client.cancel_order(None, SYMBOL, {'clientOrderId': 'x'})


async def test_the_balance_counts_what_orders_and_positions_hold(desk):
    client, wire = desk
    wire.says.append(('/account', 200, ok({'marginCoin': 'USDT', 'available': '10', 'frozen': '1', 'margin': '2.5'})))
    assert (await client.fetch_balance())['USDT'] == {'free': '10', 'used': '3.5', 'total': '13.5'}


async def test_the_streams_log_in_subscribe_and_are_read(desk):
    "Documented messages over a real socket."
    client, _ = desk
    heard = []

    async def serve(request):
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for message in socket:
            if message.type != WSMsgType.TEXT: break
            asked = json.loads(message.data)
            heard.append(asked)
            if asked['op'] == 'login': await socket.send_json({'op': 'login', 'data': {'result': True}})
            elif asked['args'][0]['ch'] == 'order':
                await socket.send_json({'ch': 'order', 'ts': 1, 'data': dict(event='UPDATE', orderId='1', symbol='BTCUSDT', side='BUY', type='LIMIT',
                        qty='1', price='60000', dealAmount='0.5',
                                        averagePrice='60000', orderStatus='PART_FILLED', fee='0.01', clientId='tw-1',
                                        ctime='2024-05-16T08:13:09.123456789Z', mtime='2024-05-16T08:13:09.123456789Z')})
            else: await socket.send_json({'ch': 'market_kline_60min', 'symbol': 'BTCUSDT', 'ts': 1_700_003_600_123, 'data': dict(o='1', h='3', l='1',
                    c='2', b='9',
                    q='20')})
        return socket

    app = web.Application()
    app.router.add_get('/{where}/', serve)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, '127.0.0.1', 0)
    await site.start()
    port = runner.addresses[0][1]
    await client.load_markets()
    client.session, client.own_session = None, True
    client.urls['api']['ws'] = {name: f'ws://127.0.0.1:{port}/{name}/' for name in ('public', 'private')}
    [bar] = await asyncio.wait_for(client.watch_ohlcv(SYMBOL, '1h'), 5)
    [order] = await asyncio.wait_for(client.watch_orders(SYMBOL), 5)
    assert bar == [1_700_002_800_000, '1', '3', '1', '2', '9']   # the hour that the message falls into
    assert (order['clientOrderId'], order['status'], order['filled'], order['timestamp']) == ('tw-1', 'open', '0.5', 1_715_847_189_123)
    assert [one['op'] for one in heard] == ['subscribe', 'login', 'subscribe'] and heard[0]['args'] == [{'symbol': 'BTCUSDT',
            'ch': 'market_kline_60min'}]
    login = heard[1]['args'][0]
    assert login['sign'] == sha(sha(f'{login["nonce"]}{login["timestamp"]}key') + 'secret')
    await client.close()
    await runner.cleanup()
