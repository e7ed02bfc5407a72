"""The local exchange over live public data; the public venue is another local exchange, through unmodified ccxt."""
import asyncio
from dataclasses import replace

import pytest
from test_local_exchange import HOUR, Clock, at, books, now, release, sample

from production.local_exchange.exchange import LocalExchange
from production.local_exchange.faults import Fault
from production.local_exchange.feed import follow
from production.local_exchange.protocol import Binance
from trading_lib.core.errors import BadInput, Damaged


def before(whole, bars=10): return replace(whole, bars=whole.bars.iloc[:bars])


async def until(condition, seconds=5.):
    for _ in range(int(seconds / .02)):
        if condition(): return
        await asyncio.sleep(.02)
    raise AssertionError('it did not happen')


async def test_bars_of_the_world_fill_orders_here():
    btc, eth = sample(), sample('ETH/USDT', seed=2, price=20.)
    async with at(btc, eth, first=12) as (world, public, _), at(before(btc), before(eth), live=True) as (exchange, client, url):
        assert exchange.current == 9 and not exchange.done
        said = []
        feeding = asyncio.create_task(follow(exchange, public, .02, said.append))
        await until(lambda: exchange.current == 11)
        order = await client.create_order('BTC/USDT', 'market', 'buy', 1, params=now(exchange))
        assert order['average'] == pytest.approx(btc.bars.close.iloc[11], abs=.01), 'the last price there is'
        resting = await client.create_order('ETH/USDT', 'limit', 'buy', 1, round(eth.bars.low.iloc[12] + .01, 3), now(exchange))
        assert (await release(url, exchange.times[exchange.current]))['moved'] is False, 'only the world moves time'
        world.step()
        await until(lambda: exchange.current == 12)
        assert (await client.fetch_order(resting['id'], 'ETH/USDT', now(exchange)))['status'] == 'closed'
        assert [row[1:] for row in await client.fetch_ohlcv('ETH/USDT', '1h')] == eth.bars.iloc[:13].to_numpy().tolist()
        world.faults.add(Fault('GET /api/v3/klines', 'http', 503, times=3), Fault('GET /api/v3/klines', 'patch', {'0.2': '0.001'}))
        world.step()
        await until(lambda: exchange.current == 13)
        await until(lambda: len(said) == 2)
        assert said[0].startswith('no new bars for now: binance') and said[1] == 'binance answers again'
        feeding.cancel()


def test_the_same_bar_twice_does_nothing_and_the_log_has_them_all(tmp_path):
    whole, clock = sample(), Clock()
    how = dict(live=True, log=tmp_path / 'log', clock=clock)
    exchange = LocalExchange([before(whole)], **how)
    rows, opened = whole.bars.to_numpy().tolist(), exchange.times[-1]
    Binance(exchange).new_order(dict(symbol='BTCUSDT', side='BUY', type='LIMIT', quantity='1', price=f'{rows[10][2] + .01:.2f}', timeInForce='GTC'))
    assert [exchange.feed(opened + HOUR, {'BTC/USDT': rows[10]}) for _ in range(2)] == [True, False]
    exchange.feed(opened + 3 * HOUR, {'BTCUSDT': rows[12]})
    assert exchange.now() == opened + 4 * HOUR and exchange.venue.orders[1].status == 'FILLED'
    assert exchange.venue.prices['BTC/USDT'] == exchange.tapes['BTC/USDT'].bar(opened + 3 * HOUR).close
    found = books(exchange)
    exchange.close()
    again = LocalExchange([before(whole)], **how)
    assert books(again) == found and again.times == exchange.times
    again.close()
    with pytest.raises(Damaged, match='live'): LocalExchange([before(whole)], first=10, log=tmp_path / 'log')


@pytest.mark.parametrize(('late', 'row', 'said'), [(HOUR // 2, [1, 1, 1, 1, 1], 'does not fit 1h bars'), (HOUR, [1, 2, 1, float('nan'), 1], 'is no bar'),
                                                   (HOUR, [1, 2, 1.5, 1, 1], 'is no bar'), (HOUR, [1, 2, 1, 1, -1], 'is no bar')])
def test_what_is_no_bar_is_refused(late, row, said):
    exchange = LocalExchange([sample()], live=True)
    with pytest.raises(BadInput, match=said): exchange.feed(exchange.times[-1] + late, {'BTC/USDT': row})
    with pytest.raises(BadInput, match='plays stored bars'): LocalExchange([sample()]).feed(exchange.times[-1] + HOUR, {})
    assert exchange.current == 39
