"""The local exchange's kinds of orders, lists of orders, accounts and fees, through unmodified ccxt where it has words for them."""
import json
from decimal import Decimal

import ccxt.pro as ccxt
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_faults_venue import events, press
from test_local_exchange import at, books, now, sample, shape

from production.local_exchange.exchange import LocalExchange
from production.local_exchange.protocol import Binance
from production.local_exchange.venue import SpotOrder, Venue
from trading_lib.core.errors import BadInput, Damaged, Rejected
from trading_lib.execution.matching import Bar, Exchange, spot_rules
from trading_lib.execution.orders import Order
from trading_lib.market.bars import Sample

D = Decimal


def market(*rows, symbol='BTC/USDT') -> Sample:
    "Hourly bars as they are written: open, high, low, close; the first is closed when the venue opens."
    index = pd.date_range('2024-03-10', periods=len(rows), freq='h', tz='UTC', name='time')
    frame = pd.DataFrame(np.array(rows, float), index, ['open', 'high', 'low', 'close']).assign(volume=50.)
    return Sample(frame, symbol, '1h', 'test', synthetic=True)


FLAT = (100, 101, 99, 100)


def play(*rows, **how):
    "A venue at 100, with ten coins to sell, and bars to come."
    return at(market(FLAT, *rows, FLAT), **dict(dict(first=1, balances={'USDT': 10_000, 'BTC': 10}), **how))


async def place(client, exchange, type, side, price=None, amount=1, **more):
    return await client.create_order('BTC/USDT', type, side, amount, price, now(exchange, **more))


async def look(client, exchange, order): return await client.fetch_order(order['id'], 'BTC/USDT', now(exchange))


# Limits that may not rest, or may not take

async def test_a_limit_maker_rests_as_a_maker_and_is_refused_where_it_would_take():
    async with play((100, 101, 94, 95), accounts={'main': dict(maker='0.0002')}) as (exchange, client, _):
        with pytest.raises(ccxt.InvalidOrder, match='would immediately match and take'): await place(client, exchange, 'limit', 'buy', 100, postOnly=True)
        order = await place(client, exchange, 'limit', 'buy', 95, postOnly=True)
        assert (order['status'], order['info']['type']) == ('open', 'LIMIT_MAKER')
        exchange.step()
        trade, = await client.fetch_my_trades('BTC/USDT', params=now(exchange))
        assert (trade['takerOrMaker'], trade['fee']) == ('maker', {'cost': .0002, 'currency': 'BTC'})


async def test_immediate_or_cancel_takes_what_there_is_and_fill_or_kill_all_or_nothing():
    async with play() as (exchange, client, url):
        missed = await place(client, exchange, 'limit', 'buy', 95, timeInForce='IOC')
        assert (missed['status'], missed['filled'], missed['info']['timeInForce']) == ('expired', 0, 'IOC')
        await press(url, max_fill='0.4')
        part = await place(client, exchange, 'limit', 'buy', 105, timeInForce='IOC')
        killed = await place(client, exchange, 'limit', 'buy', 105, timeInForce='FOK')
        whole = await place(client, exchange, 'limit', 'buy', 105, amount=.4, timeInForce='FOK')
        assert [(order['status'], order['filled']) for order in (part, killed, whole)] == [('expired', .4), ('expired', 0), ('closed', .4)]
        assert await client.fetch_open_orders('BTC/USDT', params=now(exchange)) == []
        assert (await client.fetch_balance(now(exchange)))['USDT']['used'] == 0


# Stops, take-profits, and those that trail

@pytest.mark.parametrize(('type', 'stop', 'bar', 'average'), [
    ('TAKE_PROFIT', 105, (100, 106, 99, 104), 105), ('TAKE_PROFIT', 105, (107, 108, 106, 107), 107), ('STOP_LOSS', 95, (100, 101, 94, 96), 95),
    ('STOP_LOSS', 95, (93, 94, 92, 93), 93), ('TAKE_PROFIT', 105, (100, 104, 94, 96), None), ('STOP_LOSS', 95, (100, 106, 96, 104), None),
])
async def test_a_sell_wakes_where_the_price_rises_or_falls_to(type, stop, bar, average):
    async with play(FLAT, bar) as (exchange, client, _):
        order = await place(client, exchange, type, 'sell', stopPrice=stop)
        assert (await look(client, exchange, order))['info']['isWorking'] is False
        for _ in range(2): exchange.step()
        after = await look(client, exchange, order)
        assert (after['status'], after['average'], after['info']['type']) == ('closed' if average else 'open', average, type)


@pytest.mark.parametrize(('type', 'stop', 'price', 'bars', 'found'), [
    ('STOP_LOSS_LIMIT', 95, 94, [(100, 101, 93, 93.5)], ('closed', 95)),          # crosses as it wakes: a taker, not below its limit
    ('STOP_LOSS_LIMIT', 95, 96, [(100, 101, 94, 94.5)], ('open', None)),          # wakes and rests above the price
    ('STOP_LOSS_LIMIT', 95, 96, [(100, 101, 94, 94.5), (95, 97, 95, 95)], ('closed', 96)),
    ('STOP_LOSS_LIMIT', 95, 94, [FLAT, (90, 91, 89, 90)], ('open', None)),        # a gap below the limit
    ('TAKE_PROFIT_LIMIT', 105, 104, [(100, 106, 99, 103)], ('closed', 105)),
    ('TAKE_PROFIT_LIMIT', 105, 106, [(100, 105.5, 99, 103), (103, 107, 103, 104)], ('closed', 106)),
    ('TAKE_PROFIT_LIMIT', 105, 106, [(100, 104, 99, 103), (103, 104.5, 103, 104)], ('open', None)),
])
async def test_a_stop_limit_wakes_as_a_limit(type, stop, price, bars, found):
    async with play(*bars) as (exchange, client, _):
        order = await place(client, exchange, type, 'sell', price, stopPrice=stop, timeInForce='GTC')
        for _ in bars: exchange.step()
        after = await look(client, exchange, order)
        assert ((after['status'], after['average']), after['price'], after['triggerPrice']) == (found, price, stop)


async def test_a_stop_limit_that_may_not_rest_expires_as_it_wakes():
    async with play((100, 101, 94, 94.5)) as (exchange, client, _):
        order = await place(client, exchange, 'STOP_LOSS_LIMIT', 'sell', 96, stopPrice=95, timeInForce='IOC')
        exchange.step()
        assert (await look(client, exchange, order))['status'] == 'expired' and exchange.venue.locked == {}


@pytest.mark.parametrize(('side', 'bars', 'average'), [
    ('sell', [(100, 110, 100, 110), (110, 111, 99, 100)], 99),         # 10 % below 110
    ('sell', [(100, 110, 97, 98)], 99),                                # up to 110 and back within one bar: the close says so
    ('sell', [(100, 110, 100, 109), (109, 110, 100, 101)], None),
    ('sell', [(100, 120, 100, 120), (90, 91, 89, 90)], 90),            # opened below it
    ('buy', [(100, 100, 80, 80), (80, 89, 80, 85)], 88),               # 10 % above 80
    ('buy', [(100, 109, 90, 95)], None),
])
async def test_a_trailing_order_follows_the_best_price_and_wakes_behind_it(side, bars, average):
    async with play(*bars) as (exchange, client, _):
        order = await place(client, exchange, 'STOP_LOSS', side, trailingDelta=1000)
        row = (await look(client, exchange, order))['info']
        assert (int(row['trailingDelta']), D(row['stopPrice']), row['type']) == (1000, 0, 'STOP_LOSS')
        for _ in bars: exchange.step()
        after = await look(client, exchange, order)
        assert (after['status'], after['average']) == ('closed' if average else 'open', average)


async def test_a_trail_with_a_stop_price_begins_only_there():
    async with play((100, 109, 98, 99), (99, 111, 99, 111), (111, 112, 100, 101), FLAT) as (exchange, client, _):
        sent = dict(symbol='BTCUSDT', side='SELL', type='TAKE_PROFIT', quantity='1', stopPrice='110', trailingDelta='500')   # ccxt drops a stop price here
        order = dict(id=(await client.private_post_order(sent | now(exchange)))['orderId'])
        exchange.step()
        assert (await look(client, exchange, order))['status'] == 'open', 'ten percent down, and it does not trail yet'
        for _ in range(2): exchange.step()
        assert (await look(client, exchange, order))['average'] == 105.45, '5 % below 111, which it closed at'


@given(st.lists(st.integers(80, 125), min_size=1, max_size=12), st.integers(10, 2000))
@settings(max_examples=150, deadline=None)
def test_a_trailing_sell_never_fills_above_its_level_and_never_below_the_bar(closes, points):
    rules = spot_rules('BTC/USDT', 100)
    venue, best, opened = Venue({'BTC/USDT': rules}, {'USDT': D(0), 'BTC': D(10)}), D(100), D(100)
    venue.open_bar('BTC/USDT', 0, opened)
    trail = D(points) / 10_000
    first = (100 * (1 - trail)).quantize(D('0.01'), 'ROUND_CEILING')
    state = venue.place(SpotOrder('t', 'BTC/USDT', 'sell', 'stop', D(1), None, first, word='STOP_LOSS', trail=trail), 0)
    for time, close in enumerate(map(D, closes), 1):
        bar = Bar(opened, max(opened, close) + 1, min(opened, close) - 1, close)
        best = max(best, bar.high)
        if venue.close_bar('BTC/USDT', bar, time): break
        opened = close
    state = venue.orders[state.id]
    if state.filled: assert bar.low <= state.fills[0].price <= (best * (1 - trail)).quantize(D('0.01'), 'ROUND_CEILING')
    else: assert close > best * (1 - trail)
    assert venue.held('BTC') + state.filled == 10


@pytest.mark.parametrize(('change', 'code'), [
    (dict(type='STOP_LOSS'), -1102), (dict(type='LIMIT_MAKER'), -1102), (dict(type='LIMIT_MAKER', price='80', timeInForce='GTC'), -1106),
    (dict(type='TAKE_PROFIT', trailingDelta='5'), -1013), (dict(type='TAKE_PROFIT', trailingDelta='1.5'), -1100), (dict(trailingDelta='100'), -1106),
    (dict(type='STOP_LOSS_LIMIT', price='80', stopPrice='90'), -1102),
    (dict(type='STOP_LOSS_LIMIT', timeInForce='GTC', price='80.001', stopPrice='90', side='SELL'), -1013),
])
async def test_each_malformed_order_gets_its_code(change, code):
    async with play() as (exchange, client, _):
        with pytest.raises(ccxt.BaseError, match=f'"code":{code},'):
            await client.private_post_order(dict(symbol='BTCUSDT', side='BUY', type='MARKET', quantity='1', **now(exchange)) | change)
        assert not exchange.venue.orders


@pytest.mark.parametrize(('type', 'stop'), [('STOP_LOSS', 110), ('TAKE_PROFIT', 90)])
async def test_a_stop_on_the_wrong_side_would_trigger_at_once(type, stop):
    async with play() as (exchange, client, _):
        with pytest.raises(ccxt.OrderImmediatelyFillable, match='would trigger immediately'): await place(client, exchange, type, 'sell', stopPrice=stop)


# One cancels the other

OCO = dict(symbol='BTCUSDT', side='SELL', quantity='4', aboveType='LIMIT_MAKER', abovePrice='105', belowType='STOP_LOSS', belowStopPrice='95',
           listClientOrderId='pair', aboveClientOrderId='above', belowClientOrderId='below')


async def oco(client, exchange, **change): return await client.private_post_orderlist_oco(OCO | now(exchange) | change)


@pytest.mark.parametrize(('bar', 'filled', 'price'), [((100, 106, 99, 100), 'above', '105'), ((100, 101, 94, 100), 'below', '95'),
                                                      ((100, 106, 94, 100), 'below', '95')])
async def test_of_a_pair_one_trades_and_the_other_expires(bar, filled, price):
    async with play(bar) as (exchange, client, url):
        async def act():
            listed = await oco(client, exchange)
            assert (listed['contingencyType'], listed['listOrderStatus']) == ('OCO', 'EXECUTING')
            assert [str(row['orderListId']) for row in listed['orderReports']] == ['1', '1']
            assert (await client.fetch_balance(now(exchange)))['BTC']['used'] == 4, 'locked once, not twice'
            exchange.step()
        heard = await events(url, exchange, act, wait=10)
        found = {order['clientOrderId']: order for order in await client.fetch_orders('BTC/USDT', params=now(exchange))}
        other = ({'above', 'below'} - {filled}).pop()
        assert (found[filled]['status'], D(str(found[filled]['average'])), found[other]['status']) == ('closed', D(price), 'expired')
        lists = [event for event in heard if event['e'] == 'listStatus']
        assert [event['L'] for event in lists] == ['EXECUTING', 'ALL_DONE'] and [row['c'] for row in lists[0]['O']] == ['above', 'below']
        assert [(event['c'], event['x']) for event in heard if event['e'] == 'executionReport'] == [
            ('above', 'NEW'), ('below', 'NEW'), (filled, 'TRADE'), (other, 'EXPIRED')]
        assert (await client.private_get_orderlist(now(exchange, origClientOrderId='pair')))['listOrderStatus'] == 'ALL_DONE'
        assert exchange.venue.locked == {}


async def test_a_pair_is_canceled_as_one_whichever_way_it_is_asked():
    async with play() as (exchange, client, _):
        for cancel in (lambda: client.private_delete_orderlist(now(exchange, symbol='BTCUSDT', listClientOrderId='pair')),
                       lambda: client.cancel_order(None, 'BTC/USDT', now(exchange, origClientOrderId='below')),
                       lambda: client.cancel_all_orders('BTC/USDT', now(exchange))):
            await oco(client, exchange)
            assert len(await client.private_get_openorderlist(now(exchange))) == 1
            await cancel()
            assert await client.fetch_open_orders('BTC/USDT', params=now(exchange)) == [] == await client.private_get_openorderlist(now(exchange))
            assert exchange.venue.free['BTC'] == 10
        assert len(await client.private_get_allorderlist(now(exchange))) == 3
        with pytest.raises(ccxt.OrderNotFound, match='-2011'): await client.private_delete_orderlist(now(exchange, symbol='BTCUSDT', orderListId=9))


@pytest.mark.parametrize(('change', 'said'), [
    (dict(abovePrice='99'), 'relationship of the prices'), (dict(belowStopPrice='101'), 'relationship of the prices'), (dict(quantity='11'), 'insufficient balance'),
    (dict(belowClientOrderId='above'), 'Duplicate'), (dict(belowType='TAKE_PROFIT'), 'Invalid combination'),
    (dict(aboveType=''), 'aboveType'), (dict(quantity='0.0001'), 'LOT_SIZE'),
])
async def test_a_pair_is_taken_whole_or_not_at_all(change, said):
    async with play() as (exchange, client, _):
        with pytest.raises(ccxt.BaseError, match=said): await oco(client, exchange, **change)
        assert not exchange.venue.orders and not exchange.venue.locked


async def test_a_buying_pair_locks_the_dearer_of_the_two():
    async with play((100, 101, 96, 97)) as (exchange, client, _):
        await oco(client, exchange, side='BUY', quantity='10', aboveType='STOP_LOSS_LIMIT', aboveStopPrice='105', abovePrice='106', aboveTimeInForce='GTC',
                  belowType='LIMIT_MAKER', belowPrice='97', belowStopPrice='')
        assert (await client.fetch_balance(now(exchange)))['USDT']['used'] == 1060
        exchange.step()
        assert [state.status for state in exchange.venue.orders.values()] == ['CANCELED', 'FILLED'] and exchange.venue.free['USDT'] == 10_000 - 970


# Cancel and replace

async def test_ccxt_edits_an_order_by_replacing_it():
    async with play() as (exchange, client, _):
        order = await place(client, exchange, 'limit', 'buy', 95, clientOrderId='one')
        edited = await client.edit_order(order['id'], 'BTC/USDT', 'limit', 'buy', 2, 96, now(exchange, newClientOrderId='two'))
        assert edited['status'] == 'open'
        assert [(o['clientOrderId'], o['amount']) for o in await client.fetch_open_orders('BTC/USDT', params=now(exchange))] == [('two', 2)]
        assert (await look(client, exchange, order))['status'] == 'canceled'


@pytest.mark.parametrize(('mode', 'known', 'quantity', 'code', 'results', 'left'), [
    ('STOP_ON_FAILURE', False, '1', -2022, ('FAILURE', 'NOT_ATTEMPTED'), ['one']), ('ALLOW_FAILURE', False, '1', -2021, ('FAILURE', 'SUCCESS'), ['one', 'two']),
    ('STOP_ON_FAILURE', True, '900', -2021, ('SUCCESS', 'FAILURE'), []), ('ALLOW_FAILURE', False, '900', -2022, ('FAILURE', 'FAILURE'), ['one']),
])
async def test_what_fails_of_a_replacement_is_told_apart(mode, known, quantity, code, results, left):
    async with play() as (exchange, client, _):
        await place(client, exchange, 'limit', 'buy', 95, clientOrderId='one')
        with pytest.raises(ccxt.BaseError) as caught:
            await client.private_post_order_cancelreplace(dict(
                symbol='BTCUSDT', side='BUY', type='LIMIT', timeInForce='GTC', quantity=quantity, price='96', cancelReplaceMode=mode,
                cancelOrigClientOrderId='one' if known else 'nobody', newClientOrderId='two', **now(exchange)))
        answer = json.loads(client.last_http_response)
        assert (answer['code'], (answer['data']['cancelResult'], answer['data']['newOrderResult'])) == (code, results) and str(code) in str(caught.value)
        assert [exchange.venue.orders[id].order.client_id for id in exchange.venue.resting['BTC/USDT']] == left


async def test_a_replacement_that_breaks_a_filter_cancels_nothing():
    async with play() as (exchange, client, _):
        await place(client, exchange, 'limit', 'buy', 95, clientOrderId='one')
        with pytest.raises(ccxt.BaseError, match='PRICE_FILTER'):
            await client.private_post_order_cancelreplace(dict(symbol='BTCUSDT', side='BUY', type='LIMIT', timeInForce='GTC', quantity='1', price='96.001',
                cancelReplaceMode='STOP_ON_FAILURE', cancelOrigClientOrderId='one', **now(exchange)))
        assert len(exchange.venue.locked) == 1


# Accounts and fees

OTHERS = {'second': dict(key='key-2', secret='secret-2', balances={'USDT': 500}, maker='0.0001', taker='0.0004')}


async def test_two_accounts_trade_one_market_and_do_not_see_each_other():
    async with play((100, 101, 98, 99), accounts=OTHERS) as (exchange, first, url):
        from production.local_exchange.client import OPTIONS, rewire
        second = ccxt.binance({'apiKey': 'key-2', 'secret': 'secret-2', **OPTIONS})
        session = rewire(second, url)
        one, two = await place(first, exchange, 'limit', 'buy', 99, clientOrderId='same'), await place(second, exchange, 'limit', 'buy', 99, clientOrderId='same')
        with pytest.raises(ccxt.InsufficientFunds): await place(second, exchange, 'market', 'buy', amount=10)
        await press(url, account='second', deposit=dict(USDT=500))
        exchange.step()
        for client, order, fee in ((first, one, .001), (second, two, .0001)):
            trade, = await client.fetch_my_trades('BTC/USDT', params=now(exchange))
            assert (trade['order'], trade['price'], trade['fee']['cost']) == (order['id'], 99, fee)
        mine, theirs = [await client.fetch_balance(now(exchange)) for client in (first, second)]
        assert (mine['USDT']['free'], theirs['USDT']['free'], str(mine['info']['uid']), str(theirs['info']['uid'])) == (9901, 901, '1', '2')
        assert theirs['info']['commissionRates'] == dict(maker='0.00010000', taker='0.00040000', buyer='0.00000000', seller='0.00000000')
        assert (await second.fetch_trading_fee('BTC/USDT', now(exchange)))['taker'] == .0004
        await second.close()
        await session.close()


async def test_an_account_hears_only_its_own_events():
    async with play(accounts=OTHERS) as (exchange, client, url):
        async def both():
            exchange.place(Order('theirs', 'BTC/USDT', 'buy', 'market', D(1)), 'second')
            exchange.place(Order('ours', 'BTC/USDT', 'buy', 'market', D(1)))
        heard = await events(url, exchange, both, wait=4)
        assert {event['c'] for event in heard if event['e'] == 'executionReport'} == {'ours'}


async def test_fees_are_paid_in_a_third_asset_while_there_is_some():
    async with play(balances={'USDT': 10_000, 'BNB': '0.0004'}) as (exchange, client, url):
        await press(url, fee_asset={'BNB': '250'})
        for _ in range(2): await place(client, exchange, 'market', 'buy')
        await press(url, fee_asset=None, free=dict(BNB=1))
        await place(client, exchange, 'market', 'buy')
        fees = [(trade['fee']['currency'], trade['fee']['cost']) for trade in await client.fetch_my_trades('BTC/USDT', params=now(exchange))]
        assert fees == [('BNB', .0003), ('BTC', .001), ('BTC', .001)], '100 USDT at 0.1 %, a quarter off, at 250 a BNB; then there was too little of it'
        assert (await client.fetch_balance(now(exchange)))['BNB']['free'] == 1


async def test_the_third_asset_is_priced_at_its_own_market():
    bnb = market(*[(200, 200, 200, 200)] * 3, symbol='BNB/USDT')
    async with at(market(FLAT, FLAT, FLAT), bnb, first=1, balances={'USDT': 1000, 'BNB': 1}) as (exchange, client, url):
        await press(url, fee_asset={'BNB': None})
        order = await place(client, exchange, 'market', 'buy')
        assert order['fees'] == [{'currency': 'BNB', 'cost': .000375}]


def test_everything_new_survives_a_restart(tmp_path):
    how = dict(first=10, accounts=OTHERS, balances={'USDT': 10_000, 'BTC': 10})
    first = LocalExchange([sample()], **how, log=tmp_path / 'log')
    protocol = Binance(first)
    protocol.new_oco(OCO | dict(abovePrice='140', belowStopPrice='60'))
    protocol.of('second').new_order(dict(symbol='BTCUSDT', side='BUY', type='STOP_LOSS', quantity='1', trailingDelta='20'))
    protocol.new_order(dict(symbol='BTCUSDT', side='SELL', type='TAKE_PROFIT_LIMIT', quantity='1', price='101', stopPrice='103.5', trailingDelta='100',
                            timeInForce='GTC'))
    for _ in range(8): first.step()
    protocol.cancel_order(dict(symbol='BTCUSDT', origClientOrderId='above'))
    def all_of(exchange):
        of = lambda account, venue: (venue.orders, venue.trades, venue.best, venue.awake, account.lists, dict(venue.free))
        return [books(exchange)] + [of(account, account.venue) for account in exchange.accounts.values()]
    before = all_of(first)
    first.close()
    again = LocalExchange([sample()], **how, log=tmp_path / 'log')
    assert all_of(again) == before and len(again.accounts['second'].venue.trades) == 1
    again.close()
    with pytest.raises(Damaged, match='accounts'): LocalExchange([sample()], **how | dict(accounts={'third': OTHERS['second']}), log=tmp_path / 'log')


@pytest.mark.parametrize(('accounts', 'said'), [
    ({'second': dict(key='a')}, 'account second: it needs a key, a secret and balances'), ({'second': OTHERS['second'] | dict(fee=1)}, 'there is no setting fee'),
    ({'second': OTHERS['second'] | dict(key='local-key')}, 'its key local-key is taken'),
])
def test_accounts_that_cannot_be_are_refused(accounts, said):
    with pytest.raises(BadInput, match=said): LocalExchange([sample()], accounts=accounts)
    with pytest.raises(BadInput, match='no account nobody; known: main'): LocalExchange([sample()]).place(Order('a', 'BTC/USDT', 'buy', 'market', D(1)), 'nobody')


@given(st.lists(st.tuples(st.sampled_from(['market', 'limit', 'stop', 'take_profit']), st.sampled_from(['buy', 'sell']), st.integers(1, 30),
                          st.integers(85, 115)), max_size=12),
       st.integers(0, 50))
@settings(max_examples=60, deadline=None)
def test_with_nothing_switched_on_the_venue_is_the_simulated_exchange(orders, seed):
    "The same orders and bars give the same books as `execution.matching` alone."
    rules, start = {'BTC/USDT': spot_rules('BTC/USDT', 100)}, {'USDT': D(2000), 'BTC': D(20)}
    plain, ours = Exchange(rules, start, D('0.0005'), D('0.1')), Venue(rules, start, D('0.0005'), D('0.1'))
    rng, price = np.random.default_rng(seed), 100.
    for time, (kind, side, quantity, at_price) in enumerate(orders):
        price_of = {'price' if kind == 'limit' else 'stop_price': D(at_price)} if kind != 'market' else {}
        given = Order(f'o{time}', 'BTC/USDT', side, kind, D(quantity) / 4, **price_of)
        close = price * (1 + rng.normal(0, .03))
        bar = Bar(*(D(f'{value:.2f}') for value in (price, max(price, close) + 1, min(price, close) - 1, close)), D(40))
        for venue in (plain, ours):
            venue.open_bar('BTC/USDT', time, bar.open)
            venue.place(given)
            venue.close_bar('BTC/USDT', bar)
        price = close
    assert plain.trades == ours.trades and dict(plain.free) == dict(ours.free) and plain.locked == ours.locked
    assert [(s.status, s.filled, s.reason) for s in plain.orders.values()] == [(s.status, s.filled, s.reason) for s in ours.orders.values()]


WORDS = ['MARKET', 'LIMIT', 'LIMIT_MAKER', 'STOP_LOSS', 'STOP_LOSS_LIMIT', 'TAKE_PROFIT', 'TAKE_PROFIT_LIMIT', 'TRAIL', 'OCO', 'REPLACE', 'CANCEL', 'STEP', 'CHANGE']
CHANGES = [('deposit', dict(USDT='25')), ('max_fill', '0.7'), ('max_fill', None), ('price', {'BTC/USDT': '97'}), ('price', {'BTC/USDT': '104'}),
           ('halted', ['BTC/USDT']), ('halted', []), ('fee_asset', dict(BNB='300')), ('fee_asset', None), ('fees', dict(maker='0', taker='0.002')), ('restart', True)]


def attempt(exchange, word, side, size, near, force, number):
    "One move of a random walk through the protocol."
    protocol, now = Binance(exchange), exchange.venue.prices.get('BTC/USDT')
    if word == 'STEP' or now is None: return exchange.step()
    if word == 'CHANGE': return exchange.change(*CHANGES[number % len(CHANGES)])
    ids = [id for id, state in exchange.venue.orders.items() if not state.done]
    if word == 'CANCEL': return protocol.cancel_order(dict(symbol='BTCUSDT', orderId=str(ids[number % len(ids)]))) if ids else None
    at = lambda share: str((now * (1 + D(share) / 100)).quantize(D('0.01')))
    asked = dict(symbol='BTCUSDT', side=side, quantity=str(D(size) / 10), type=word)
    if word == 'OCO':
        stops = dict(belowType='STOP_LOSS', belowStopPrice=at(-near), aboveType='LIMIT_MAKER', abovePrice=at(near + 1)) if side == 'SELL' else dict(
            aboveType='STOP_LOSS_LIMIT', aboveStopPrice=at(near), abovePrice=at(near + 1), aboveTimeInForce=force, belowType='LIMIT_MAKER', belowPrice=at(-near - 1))
        return protocol.new_oco(asked | stops)
    if word == 'TRAIL': return protocol.new_order(asked | dict(type='STOP_LOSS', trailingDelta=str(50 + 10 * near)))
    up = near if (side == 'BUY') == word.startswith('STOP') else -near
    if 'STOP' in word or 'PROFIT' in word: asked |= dict(stopPrice=at(up))
    if 'LIMIT' in word or word == 'REPLACE': asked |= dict(price=at(near - 3 if side == 'BUY' else 3 - near))
    if 'LIMIT' in word and word != 'LIMIT_MAKER' or word == 'REPLACE': asked |= dict(timeInForce=force)
    if word == 'REPLACE': return protocol.cancel_replace(asked | dict(type='LIMIT', cancelReplaceMode='ALLOW_FAILURE', cancelOrderId=str(ids[0] if ids else 99)))
    return protocol.new_order(asked)


@given(st.lists(st.tuples(st.sampled_from(WORDS), st.sampled_from(['BUY', 'SELL']), st.integers(1, 40), st.integers(0, 5), st.sampled_from(['GTC', 'IOC', 'FOK']),
                          st.integers(0, 20)), min_size=5, max_size=40), st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_whatever_is_asked_the_venue_conserves_and_its_log_tells_it_again(tmp_path_factory, moves, seed):
    log = tmp_path_factory.mktemp('walk') / 'log'
    how = dict(first=10, balances={'USDT': 500, 'BTC': 5, 'BNB': '0.001'}, log=log, clock=lambda: 0.)
    exchange = LocalExchange([sample(seed=seed)], **how)
    deposits = D(0)
    for word, side, size, near, force, number in moves:
        try: attempt(exchange, word, side, size, near, force, number)
        except (Rejected, BadInput): continue
        changed = CHANGES[number % len(CHANGES)][0] if word == 'CHANGE' and exchange.venue.prices else ''
        deposits = D(0) if changed == 'restart' else deposits + 25 * (changed == 'deposit')
        venue = exchange.venue
        assert min(venue.free.values()) >= 0 and all(amount >= 0 for _, amount in venue.locked.values())
        assert set(venue.locked) == {id for id, state in venue.orders.items() if not state.done} == set(venue.resting['BTC/USDT'])
        start = {'USDT': 500 + deposits, 'BTC': D(5), 'BNB': D('0.001')}
        for fill in venue.trades:
            sign = 1 if fill.side == 'buy' else -1
            start['BTC'] += sign * fill.quantity
            start['USDT'] -= sign * fill.quantity * fill.price
            start[fill.fee_asset] -= fill.fee
        assert {asset: venue.held(asset) for asset in start} == start
    before = books(exchange), exchange.venue.trades, exchange.venue.orders
    exchange.close()
    again = LocalExchange([sample(seed=seed)], **how)
    assert (books(again), again.venue.trades, again.venue.orders) == before
    again.close()


# Recorded answers

async def test_new_answers_have_the_keys_and_types_of_recorded_ones(shared_data):
    recorded = {path.stem: json.loads(path.read_text()) for path in (shared_data / 'exchange_fixtures/nautilus/binance/spot').glob('*_json/*.json')}
    exchange, said = LocalExchange([sample()], first=10, balances={'USDT': 10_000, 'BTC': 10}), []
    protocol = Binance(exchange)
    def hear(what, *about): said.extend(dict(balance=lambda: protocol.balance_events(about[0]), order=lambda: protocol.order_events(*about)).get(what, tuple)())
    exchange.listeners.append(hear)
    exchange.change('deposit', dict(USDT='1'))
    for price in '80', '81': protocol.new_order(dict(symbol='BTCUSDT', side='BUY', type='LIMIT_MAKER', quantity='1', price=price))
    protocol.new_oco(OCO | dict(side='BUY', aboveType='STOP_LOSS_LIMIT', aboveStopPrice='140', abovePrice='141', aboveTimeInForce='GTC', belowType='LIMIT_MAKER',
                                belowPrice='60', belowStopPrice=''))
    protocol.new_order(dict(symbol='BTCUSDT', side='SELL', type='STOP_LOSS', quantity='1', stopPrice='50'))
    ours = dict(balance_update=next(event for event in said if event['e'] == 'balanceUpdate'), all_orders_response=protocol.all_orders(dict(symbol='BTCUSDT')),
                open_orders_response=protocol.open_orders(dict(symbol='BTCUSDT'))[::-1],
                account_position=next(event for event in said if event['e'] == 'outboundAccountPosition'),
                execution_report_stop_loss=next(event for event in said if event.get('o') == 'STOP_LOSS'),
                cancel_open_orders_response=protocol.cancel_open_orders(dict(symbol='BTCUSDT')))
    assert {name: found for name, answer in ours.items() if (found := shape(recorded[name], answer, name))} == {}


def test_a_refused_list_says_why():
    exchange = LocalExchange([sample()], first=10)
    with pytest.raises(Rejected, match='INSUFFICIENT_BALANCE'):
        exchange.place_list([SpotOrder('a', 'BTC/USDT', 'sell', 'limit', D(1), D(140)), SpotOrder('b', 'BTC/USDT', 'sell', 'stop', D(1), None, D(60))], 'pair')
