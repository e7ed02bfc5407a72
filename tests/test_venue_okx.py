"""The local exchange in OKX's words, through unmodified ccxt: the same market, accounts and faults under another protocol."""
import contextlib
import json
from decimal import Decimal

import ccxt.pro as ccxt
import pytest
from test_faults_venue import press
from test_local_exchange import HOUR, sample, shape
from test_venue_orders import OTHERS, play

from production.local_exchange.client import OKX_HOSTS, OKX_OPTIONS, rewire
from production.local_exchange.exchange import LocalExchange
from production.local_exchange.faults import Fault
from production.local_exchange.okx import PASSPHRASE, Okx
from production.local_exchange.server import served

D = Decimal


@contextlib.asynccontextmanager
async def at(*samples, key='local-key', secret='local-secret', password=PASSPHRASE, **how):
    "A served exchange, an OKX client that is led to it and knows its time, and its address."
    exchange = LocalExchange(samples or [sample()], **dict(dict(first=10), **how))
    async with served(exchange) as url:
        client = ccxt.okx({'apiKey': key, 'secret': secret, 'password': password, **OKX_OPTIONS})
        session = rewire(client, url, OKX_HOSTS)
        client.timeout_on_exit = 0
        try:
            await client.load_time_difference()
            yield exchange, client, url
        finally:
            await client.close()
            await session.close()


async def test_the_market_its_bars_and_its_quotes():
    async with at(sample('BTC/USDT'), sample('ETH/USDT', seed=2, price=20.)) as (exchange, client, _):
        markets = await client.load_markets()
        assert set(markets) == {'BTC/USDT', 'ETH/USDT'}
        assert [markets['BTC/USDT']['precision'][name] for name in ('amount', 'price')] == [.001, .01]
        bars = sample().bars
        rows = await client.fetch_ohlcv('BTC/USDT', '1h')
        assert [row[1:] for row in rows[:-1]] == bars.iloc[:10].to_numpy().tolist() and rows[-1][5] == 0
        part = await client.fetch_ohlcv('BTC/USDT', '1h', since=rows[3][0], limit=2)
        assert [row[0] for row in part] == [rows[3][0], rows[4][0]]
        assert await client.fetch_time() - exchange.closed_at < HOUR
        ticker, book = await client.fetch_ticker('BTC/USDT'), await client.fetch_order_book('BTC/USDT', 5)
        assert book['bids'][0][0] <= ticker['last'] < book['asks'][0][0] and len(book['asks']) == 5


async def test_an_order_is_placed_filled_found_and_its_fee_is_told():
    async with at(slippage='0.0005') as (exchange, client, _):
        placed = await client.create_order('BTC/USDT', 'market', 'buy', 10, params={'clientOrderId': 'first'})
        assert (placed['id'], placed['clientOrderId']) == ('1', 'first')
        order = await client.fetch_order(None, 'BTC/USDT', {'clOrdId': 'first'})
        price = exchange.venue.trades[0].price
        assert (order['status'], order['filled'], D(str(order['average'])), order['fee']) == ('closed', 10, price, {'cost': .01, 'currency': 'BTC'})
        balance = await client.fetch_balance()
        assert (D(str(balance['BTC']['total'])), D(str(balance['USDT']['free']))) == (D('9.99'), 10_000 - 10 * price)
        trade, = await client.fetch_my_trades('BTC/USDT')
        assert (trade['order'], D(str(trade['price'])), trade['fee'], trade['takerOrMaker']) == ('1', price, {'cost': .01, 'currency': 'BTC'}, 'taker')


async def test_a_limit_rests_and_is_canceled_once():
    async with at() as (exchange, client, _):
        order = await client.create_order('BTC/USDT', 'limit', 'buy', 5, 80, {'clientOrderId': 'bid'})
        assert [o['clientOrderId'] for o in await client.fetch_open_orders('BTC/USDT')] == ['bid']
        assert (await client.fetch_balance())['USDT']['used'] == 400
        await client.cancel_order(order['id'], 'BTC/USDT')
        assert (await client.fetch_order(order['id'], 'BTC/USDT'))['status'] == 'canceled'
        with pytest.raises(ccxt.OrderNotFound, match='51401'): await client.cancel_order(order['id'], 'BTC/USDT')
        assert [o['clientOrderId'] for o in await client.fetch_canceled_orders('BTC/USDT')] == ['bid'] and await client.fetch_open_orders('BTC/USDT') == []


@pytest.mark.parametrize(('change', 'error', 'code'), [
    (dict(sz='1000'), ccxt.InsufficientFunds, '51008'), (dict(sz='0.0001'), ccxt.InvalidOrder, '51121'), (dict(sz='0.001'), ccxt.InvalidOrder, '51020'),
    (dict(ordType='limit', px='80.001'), ccxt.BadRequest, '51000'), (dict(instId='NO-USDT'), ccxt.BadSymbol, '51001'), (dict(side=''), ccxt.BadRequest, '50014'),
    (dict(ordType='post_only', px='80'), ccxt.BadRequest, '51000'), (dict(tgtCcy='quote_ccy'), ccxt.BadRequest, '51000'),
    (dict(clOrdId='a-b'), ccxt.BadRequest, '51000'),
    (dict(sz='some'), ccxt.BadRequest, '51000'),
])
async def test_refusals_become_the_exceptions_that_the_real_venue_causes(change, error, code):
    async with at() as (exchange, client, _):
        with pytest.raises(error, match=code):
            order = dict(instId='BTC-USDT', tdMode='cash', side='buy', ordType='market', sz='1', tgtCcy='base_ccy', clOrdId='a')
            await client.private_post_trade_order(order | change)
        assert not exchange.venue.orders


async def test_an_unknown_order_a_duplicate_and_a_batch_that_half_fails():
    async with at() as (exchange, client, _):
        with pytest.raises(ccxt.OrderNotFound, match='51603'): await client.fetch_order(None, 'BTC/USDT', {'clOrdId': 'none'})
        with pytest.raises(ccxt.OrderNotFound, match='51400'): await client.cancel_order('77', 'BTC/USDT')
        orders = [dict(instId='BTC-USDT', tdMode='cash', side='buy', ordType='limit', sz=size, px='80', clOrdId='twin') for size in ('1', '1')]
        answer = await client.private_post_trade_batch_orders(orders)
        assert (answer['code'], [row['sCode'] for row in answer['data']]) == ('2', ['0', '51016']) and len(exchange.venue.orders) == 1


@pytest.mark.parametrize(('how', 'code'), [(dict(key='nobody'), '50111'), (dict(password='wrong'), '50105'), (dict(secret='wrong'), '50113')])
async def test_a_wrong_key_passphrase_or_signature_is_refused(how, code):
    async with at(**how) as (_, client, _):
        with pytest.raises(ccxt.AuthenticationError, match=code): await client.private_get_account_balance()


async def test_a_request_whose_time_or_deadline_is_over_is_refused():
    async with at() as (exchange, client, _):
        await client.load_markets()
        client.headers = {'expTime': str(exchange.now() - 1)}
        with pytest.raises(ccxt.BaseError, match='51149'): await client.create_order('BTC/USDT', 'market', 'buy', 1)
        client.headers = {'expTime': str(exchange.now() + 5000)}
        await client.create_order('BTC/USDT', 'market', 'buy', 1)
        exchange.step()
        with pytest.raises(ccxt.InvalidNonce, match='50102'): await client.fetch_balance()
        assert len(exchange.venue.orders) == 1


async def test_the_same_faults_strike_and_the_venue_answers_in_its_own_words():
    async with at() as (exchange, client, url):
        await client.load_markets()
        exchange.faults.add(Fault('POST /api/v5/trade/batch-orders', 'lose_response'))
        with pytest.raises(ccxt.NetworkError): await client.create_order('BTC/USDT', 'market', 'buy', 1, params={'clientOrderId': 'lost'})
        assert (await client.fetch_order(None, 'BTC/USDT', {'clOrdId': 'lost'}))['status'] == 'closed'
        await press(url, maintenance=True)
        with pytest.raises(ccxt.ExchangeNotAvailable, match='50001|503'): await client.fetch_time()
        await press(url, maintenance=False, weight_limit=0)
        with pytest.raises(ccxt.BaseError, match='50011|429'): await client.fetch_time()


async def test_both_protocols_show_one_account():
    from production.local_exchange.client import OPTIONS
    async with play((100, 101, 98, 99), accounts=OTHERS) as (exchange, binance, url):
        okx = ccxt.okx({'apiKey': 'key-2', 'secret': 'secret-2', 'password': PASSPHRASE, **OKX_OPTIONS})
        other = ccxt.binance({'apiKey': 'key-2', 'secret': 'secret-2', **OPTIONS})
        sessions = rewire(okx, url, OKX_HOSTS), rewire(other, url)
        await okx.load_time_difference()
        await okx.create_order('BTC/USDT', 'limit', 'buy', 1, 99, {'clientOrderId': 'shared'})
        exchange.step()
        await okx.load_time_difference()
        found = await other.fetch_order(None, 'BTC/USDT', dict(timestamp=exchange.now(), origClientOrderId='shared'))
        trade, = await okx.fetch_my_trades('BTC/USDT')
        fee = await okx.fetch_trading_fee('BTC/USDT')
        assert (found['status'], trade['fee']['cost'], trade['takerOrMaker'], fee['maker'], fee['taker']) == ('closed', .0001, 'maker', .0001, .0004)
        assert exchange.venue.orders == {}
        for each in (okx, other, *sessions): await each.close()


def test_answers_have_the_keys_and_types_of_recorded_ones(shared_data):
    recorded = {path.stem: json.loads(path.read_text()) for path in (shared_data / 'exchange_fixtures/nautilus/okx').glob('http_*.json')}
    exchange = LocalExchange([sample()], first=10)
    okx, one = Okx(exchange), dict(instId='BTC-USDT')
    def full(data): return {'code': '0', 'data': data, 'msg': ''}
    placed = okx.place(one | dict(tdMode='cash', side='buy', ordType='market', sz='1', tgtCcy='base_ccy', clOrdId='a'))
    okx.place(one | dict(tdMode='cash', side='buy', ordType='limit', sz='1', px='80', clOrdId='b'))
    ours = dict(http_get_instruments_spot=full(okx.instruments(dict(instType='SPOT'))), http_get_candlesticks=full(okx.candles(one | dict(bar='1H'))),
                http_get_account_balance=full(okx.balance({})), http_place_order_response=placed['data'][0], http_get_orders_pending=full(okx.pending(one)),
                http_get_orders_history=full(okx.history(one)), http_transaction_detail=okx.fills(one)[0], http_get_trade_fee_response=full(okx.trade_fee(one)),
                http_get_order_book=full(okx.books(one | dict(sz='3'))))
    assert {name: found for name, answer in ours.items() if (found := shape(recorded[name], answer, name))} == {}
