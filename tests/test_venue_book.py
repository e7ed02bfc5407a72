"""The local exchange over a recorded order book: what is seen, what an order takes level by level, and what is heard."""
import asyncio
import gzip
import json
from decimal import Decimal

import pytest
from test_faults_venue import events, press
from test_local_exchange import at, books, now

from production.local_exchange.book import RecordedBook
from production.local_exchange.exchange import LocalExchange
from production.local_exchange.protocol import Binance
from trading_lib.core.errors import BadInput, Damaged

D = Decimal
START = 1_710_028_800_000   # 2024-03-10


def recording(folder, seconds=300):
    "A snapshot, a change every second that lifts the book by a dollar, and trades at its best bid."
    lines = [dict(lastUpdateId=100, bids=[[str(99 - n), str(n + 1)] for n in range(3)], asks=[[str(101 + n), str(n + 1)] for n in range(3)])]
    for second in range(1, seconds + 1):
        lines.append(dict(stream='btcusdt@depth@100ms', data=dict(e='depthUpdate', E=START + second * 1000, s='BTCUSDT', U=100 + second, u=100 + second,
            b=[[str(99 + second), '1'], [str(98 + second), '2'], [str(97 + second), '3'], [str(96 + second), '0']],
            a=[[str(100 + second), '0'], [str(101 + second), '1'], [str(102 + second), '2'], [str(103 + second), '3']])))
        lines.append(dict(stream='btcusdt@trade', data=dict(e='trade', T=START + second * 1000, s='BTCUSDT', t=second, p=str(99 + second), q='0.5')))
    path = folder / 'book.gz'
    with gzip.open(path, 'wt') as file: file.writelines(f'{START + row} {json.dumps(line)}\n' for row, line in enumerate(lines))
    return path


@pytest.fixture
def book(tmp_path) -> RecordedBook: return RecordedBook(recording(tmp_path))


def served(book, **how):
    return at(book.bars('BTC/USDT', '1m'), **dict(dict(first=1, books={'BTC/USDT': book}, balances={'USDT': 100_000, 'BTC': 50}), **how))


def test_the_book_is_that_of_the_moment_forwards_and_back(book):
    assert book.at(START) == (100, [(D(99), D(1)), (D(98), D(2)), (D(97), D(3))], [(D(101), D(1)), (D(102), D(2)), (D(103), D(3))])
    later = book.at(START + 10_500)
    assert later[0] == 110 and (later[1][0], later[2][0]) == ((D(109), D(1)), (D(111), D(1)))
    assert book.at(START + 999)[0] == 100 and book.at(START + 10_500) == later and book.at(10**14)[0] == 400


def test_its_trades_make_bars(book):
    bars = book.bars('BTC/USDT', '1m').bars
    assert bars.index[0].value // 10**6 == START + 60_000 and len(bars) == 4, 'only whole minutes'
    assert bars.iloc[0].tolist() == [159, 218, 159, 218, 30]


async def test_ccxt_sees_it(book):
    async with served(book) as (exchange, client, _):
        seen, number = await client.fetch_order_book('BTC/USDT', 2), book.upto(exchange.now())
        assert seen['bids'] == [[99 + number, 1], [98 + number, 2]] and seen['nonce'] == 100 + number
        ticker = await client.fetch_ticker('BTC/USDT')
        assert (ticker['bid'], ticker['ask']) == (99 + number, 101 + number)


async def test_a_market_order_walks_the_levels_and_ends_where_the_book_does(book):
    async with served(book) as (exchange, client, _):
        best = 101 + book.upto(exchange.now())
        order = await client.create_order('BTC/USDT', 'market', 'buy', 5, params=now(exchange))
        assert [(fill['price'], fill['amount']) for fill in order['trades']] == [(best, 1), (best + 1, 2), (best + 2, 2)]
        assert (order['status'], order['cost']) == ('closed', best * 5 + 2 + 4)
        swept = await client.create_order('BTC/USDT', 'market', 'sell', 20, params=now(exchange))
        assert (swept['status'], swept['filled']) == ('expired', 6)
        assert len(await client.fetch_my_trades('BTC/USDT', params=now(exchange))) == 6
        assert exchange.venue.locked == {}


async def test_a_limit_takes_what_is_within_its_price_and_rests_with_the_remainder(book):
    async with served(book) as (exchange, client, _):
        best = 101 + book.upto(exchange.now())
        order = await client.create_order('BTC/USDT', 'limit', 'buy', 5, best + 1, now(exchange))
        assert (order['status'], order['filled']) == ('open', 3)
        killed = await client.create_order('BTC/USDT', 'limit', 'buy', 5, best + 1, now(exchange, timeInForce='FOK'))
        part = await client.create_order('BTC/USDT', 'limit', 'buy', 5, best, now(exchange, timeInForce='IOC'))
        assert [(each['status'], each['filled']) for each in (killed, part)] == [('expired', 0), ('expired', 1)]
        maker = await client.create_order('BTC/USDT', 'limit', 'buy', 1, best - 1, now(exchange, postOnly=True))
        assert maker['status'] == 'open', 'between the quotes nothing is taken'


async def test_each_level_taken_is_an_event_of_its_own(book):
    async with served(book) as (exchange, client, url):
        heard = await events(url, exchange, lambda: client.create_order('BTC/USDT', 'market', 'buy', 5, params=now(exchange)), wait=8)
        reports = [(event['x'], event['X'], event['l'][:1], event['z'][:1]) for event in heard if event['e'] == 'executionReport']
        assert reports == [('NEW', 'NEW', '0', '0'), ('TRADE', 'PARTIALLY_FILLED', '1', '1'), ('TRADE', 'PARTIALLY_FILLED', '2', '3'), ('TRADE', 'FILLED', '2', '5')]


async def test_ccxt_pro_keeps_the_book_from_the_stream_of_changes(book):
    async with served(book) as (exchange, client, url):
        await client.load_markets()
        before = book.upto(exchange.now())
        kept = await asyncio.wait_for(client.watch_order_book('BTC/USDT'), 8)
        while kept['nonce'] < 100 + before + 2: kept = await asyncio.wait_for(client.watch_order_book('BTC/USDT'), 8)
        number = kept['nonce'] - 100
        assert kept['bids'][0] == [99 + number, 1] and kept['asks'][0] == [101 + number, 1]
        await press(url, muted=['btcusdt@depth', 'btcusdt@depth@100ms'])
        await asyncio.sleep(.15)
        with pytest.raises(TimeoutError): await asyncio.wait_for(client.watch_order_book('BTC/USDT'), 1.3)


def test_a_restart_takes_the_same_levels_again_and_another_book_is_damage(book, tmp_path):
    how = dict(first=1, balances={'USDT': 100_000}, log=tmp_path / 'log')
    first = LocalExchange([book.bars('BTC/USDT', '1m')], books={'BTC/USDT': tmp_path / 'book.gz'}, **how)
    for _ in range(2):
        Binance(first).new_order(dict(symbol='BTCUSDT', side='BUY', type='MARKET', quantity='5'))
        first.step()
    before = books(first)
    first.close()
    again = LocalExchange([book.bars('BTC/USDT', '1m')], books={'BTC/USDT': book}, **how)
    assert books(again) == before and len(again.venue.trades) == 6
    again.close()
    with pytest.raises(Damaged, match='books'): LocalExchange([book.bars('BTC/USDT', '1m')], **how)


@pytest.mark.parametrize(('content', 'said'), [('no book\n', 'is no recorded order book'), ('1 {"lastUpdateId":1,"bids":[],"asks":[]}\n', 'no changes after it')])
def test_what_is_no_recording_is_refused(tmp_path, content, said):
    (tmp_path / 'book.txt').write_text(content)
    with pytest.raises(BadInput, match=said): RecordedBook(tmp_path / 'book.txt')
    with pytest.raises(BadInput, match='is no recorded order book'): RecordedBook(tmp_path / 'none.gz')


def test_a_real_recording_is_never_crossed_and_its_best_quotes_are_those_recorded(shared_data):
    path = shared_data / 'orderbook/hftbacktest/spot/btcusdt_20240808.gz'
    book, quotes = RecordedBook(path), {}
    for line in gzip.open(path, 'rt'):
        said = json.loads(line.partition(' ')[2]).get('data', {})
        if said.keys() == {'u', 's', 'b', 'B', 'a', 'A'}: quotes[said['u']] = [(D(said['b']), D(said['B'])), (D(said['a']), D(said['A']))]
    agreed = 0
    for change in book.changes[::10]:
        number, (bid, *_), (ask, *_) = book.at(change['E'], 2)
        assert bid[0] < ask[0]
        if number in quotes: agreed += [bid, ask] == quotes[number]
    assert agreed > 20, agreed
    exchange = LocalExchange([book.bars('BTC/USDT', '1m')], first=2, books={'BTC/USDT': book})
    order = Binance(exchange).new_order(dict(symbol='BTCUSDT', side='BUY', type='MARKET', quantity='0.01'))
    assert order['status'] == 'FILLED' and D(order['fills'][0]['price']) == book.at(exchange.now(), 1)[2][0][0]
