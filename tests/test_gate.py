"Limits: judged from the books of the whole account, before every order, and breakers that stay tripped."
import asyncio
import random
import re
from dataclasses import fields
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from local_venue import venue
from test_runner import TIMES, exchange, mandate, run

from production.gate import UNMEASURED, Gate, limits_of
from production.journal import Journal
from production.runner import Runner
from trading_lib.core.errors import BadInput, Refused
from trading_lib.core.settings import Settings
from trading_lib.execution.orders import Fill, Order, OrderState, advance
from trading_lib.risk.limits import Books, Limits, Prices, refusals

D = Decimal
MARKET = Prices(100., volume=1e9)


# the rule book

symbols = st.sampled_from(['A', 'B', 'C'])
intents = st.lists(st.tuples(symbols, st.floats(-8_000, 8_000)), min_size=1, max_size=60)

@settings(deadline=None)
@given(intents, st.integers(0, 2**32 - 1))
def test_no_sequence_of_intents_passes_a_limit(wanted, seed):
    "Whatever is asked for, and whichever of it is filled, wholly or not: nothing ever exceeds its limit but what was refused to grow."
    limits, chance = Limits(max_exposure=.4, max_leverage=.9), random.Random(seed)
    held: dict[str, float] = {}
    for symbol, change in wanted:
        if refusals(symbol, change, Books(10_000., held, 10_000., 10_000.), MARKET, limits, 0): continue
        held[symbol] = held.get(symbol, 0.) + change * chance.choice((0., .5, 1.))
        assert abs(held[symbol]) <= 4_000 * (1 + 1e-9) and sum(map(abs, held.values())) <= 9_000 * (1 + 1e-9)


@settings(deadline=None)
@given(st.floats(-9_000, 9_000), st.floats(0, 1))
def test_what_brings_a_position_nearer_to_zero_is_never_refused(held, share):
    tight = Limits(max_exposure=.01, max_leverage=.01, max_volume_share=1e-9, max_orders_per_minute=1, restricted=('A',), hours='mon 00:00-00:01')
    assert refusals('A', -held * share, Books(10_000., dict(A=held), 1e6, 1e6, orders=(86_400_000 * 3,) * 9), MARKET, tight, 86_400_000 * 3) == []


# the books

def enrolled(journal, symbol='BTC/USDT', cash='10000'):
    return journal.enrol('d' * 64, 'main', 'binance', symbol, '1h', 0, D(cash), D(0))


def decided(journal, bot, bar, close, *orders, target=1.):
    return journal.decide(bot.id, bar, inputs='x', target=target, outcome='traded' if orders else 'held', reason='', close=D(close), orders=orders)


def buy(name, quantity, symbol='BTC/USDT', side='buy'): return Order(name, symbol, side, 'market', D(quantity))


def test_an_order_whose_fate_is_unknown_counts_as_filled(tmp_path):
    with Journal.open(tmp_path / 'journal.db') as journal:
        bot = enrolled(journal)
        decided(journal, bot, 1, '100', buy('tw-1', '30'))
        journal.fence('tw-1', 1_000, 500)
        gate = Gate(Limits(max_exposure=.4), journal, 'binance', 'main')
        assert gate.books({'BTC/USDT': D(100)}).exposures == {'BTC/USDT': 3_000.}
        [breach] = gate.refusals(buy('tw-2', '20'), D(100), MARKET, 2_000)
        assert str(breach) == 'max_exposure: BTC/USDT as a share of equity would be 50%, the limit is 40%; order less'
        journal.adopt('tw-1', OrderState(buy('tw-1', '30'), 'CANCELED', id=1))
        assert gate.refusals(buy('tw-2', '20'), D(100), MARKET, 2_000) == []


def test_of_orders_both_ways_the_worse_end_counts(tmp_path):
    with Journal.open(tmp_path / 'journal.db') as journal:
        decided(journal, enrolled(journal), 1, '100', buy('tw-1', '30'), buy('tw-2', '50', side='sell'))
        assert Gate(Limits(), journal, 'binance', 'main').books({}).exposures == {'BTC/USDT': -5_000.}


def test_bots_of_one_account_share_its_limits_and_those_of_another_do_not(tmp_path):
    with Journal.open(tmp_path / 'journal.db') as journal:
        decided(journal, enrolled(journal), 1, '100', buy('tw-1', '60'))
        decided(journal, enrolled(journal, 'ETH/USDT'), 1, '10', buy('tw-2', '500', 'ETH/USDT'))
        other = journal.enrol('d' * 64, 'other', 'binance', 'BTC/USDT', '1h', 0, D(10_000), D(0))
        decided(journal, other, 1, '100', buy('tw-3', '99'))
        books = Gate(Limits(), journal, 'binance', 'main').books({})
        assert books.exposures == {'BTC/USDT': 6_000., 'ETH/USDT': 5_000.} and books.equity == 20_000


def test_the_day_and_the_peak_are_found_again_after_a_restart(tmp_path):
    day = 86_400_000
    with Journal.open(tmp_path / 'journal.db') as journal:
        bot = enrolled(journal)
        decided(journal, bot, 1, '100', buy('tw-1', '100'))
        journal.adopt('tw-1', OrderState(buy('tw-1', '100'), 'OPEN', id=1))
        with journal._session() as s: s.get_one(type(bot), bot.id).cash, s.get_one(type(bot), bot.id).position = D(0), D(100)   # as filled at 100
        for bar, close in ((2, '120'), (day - 1, '110'), (day + 1, '105'), (day + 2, '99')): decided(journal, bot, bar, close)
        gate = Gate(Limits(max_daily_loss=.08, max_drawdown=.5), journal, 'binance', 'main')
        books = gate.books({})
        assert (books.highest, books.morning, books.equity) == (11_000, 11_000, 9_900)   # nothing but one close was at 120
        assert gate.tripped('BTC/USDT', D(99), MARKET) == []                               # nor under 101.2
        gate.mark(bot.id, day + 3, D(9_950))
        assert [each.limit for each in gate.tripped('BTC/USDT', D(99), MARKET)] == ['max_daily_loss']


def held_a_hundred(journal, *closes, begin=0):
    "A bot that holds a hundred coins and nothing else, at these closes."
    bot = enrolled(journal)
    with journal._session() as s: s.get_one(type(bot), bot.id).cash, s.get_one(type(bot), bot.id).position = D(0), D(100)
    for bar, close in enumerate(closes, begin): decided(journal, bot, bar, close)
    return bot


@pytest.mark.parametrize('closes, limits', [(('100', '80'), Limits(max_daily_loss=.1)), (('100', '80'), Limits(max_drawdown=.1)), (('100', '150', '101'), Limits(max_drawdown=.1))])
def test_fault_67_a_spike_of_one_close_trips_no_breaker_and_a_second_close_does(tmp_path, closes, limits):
    "One close is far off → daily loss and drawdown count a price once two closes confirm it."
    with Journal.open(tmp_path / 'journal.db') as journal:
        bot, gate = held_a_hundred(journal, *closes), Gate(limits, journal, 'binance', 'main')
        assert gate.tripped('BTC/USDT', D(closes[-1]), MARKET) == []
        gate.mark(bot.id, 5, D(10_100))
        assert gate.tripped('BTC/USDT', D(101), MARKET) == []      # it went as it came
        for bar in (6, 7): gate.mark(bot.id, bar, D(8_500))
        assert [each.latches for each in gate.tripped('BTC/USDT', D(85), MARKET)] == [True]


def test_fault_67_a_price_that_jumps_away_from_a_second_source_must_do_so_twice(tmp_path):
    "A price jumps away from a second source → it must do so at two closes in a row."
    far, near = Prices(100., elsewhere=110.), Prices(100., elsewhere=100.5)
    with Journal.open(tmp_path / 'journal.db') as journal:
        gate = Gate(Limits(max_jump=.05), journal, 'binance', 'main')
        assert [[each.limit for each in gate.tripped('BTC/USDT', D(100), each)] for each in (far, near, far, far)] == [[], [], [], ['max_jump']]


def test_what_was_lost_before_a_person_resumed_trips_nothing_again(tmp_path):
    clock = [1_000]
    with Journal.open(tmp_path / 'journal.db', now=lambda: clock[0]) as journal:
        bot, limits = held_a_hundred(journal, '100', '70', '69'), Limits(max_drawdown=.2, max_daily_loss=.2)
        assert len(Gate(limits, journal, 'binance', 'main').tripped('BTC/USDT', D(69), MARKET)) == 2
        journal.halt('runner', 'a breaker', 'binance/main')
        clock[0] += 10
        journal.resume('ann', 'seen')
        clock[0] += 10
        for bar, close in ((3, '68'), (4, '67')): decided(journal, bot, bar, close)   # of these two 68 counts at once
        gate = Gate(limits, journal, 'binance', 'main')
        assert gate.tripped('BTC/USDT', D(67), MARKET) == [] and gate.books({}).highest == 6_800
        for bar in (5, 6): gate.mark(bot.id, bar, D(5_000))
        assert len(gate.tripped('BTC/USDT', D(50), MARKET)) == 2


def test_losing_trades_before_a_person_resumed_are_not_counted_again(tmp_path):
    clock = [1_000]
    with Journal.open(tmp_path / 'journal.db', now=lambda: clock[0]) as journal:
        bot = enrolled(journal)
        def lose(bar):
            clock[0] += 10
            decided(journal, bot, bar, '100', buy(f'tw-{bar}a', '1'), buy(f'tw-{bar}b', '1', side='sell'))
            for k, (name, side, price) in enumerate(((f'tw-{bar}a', 'buy', 100), (f'tw-{bar}b', 'sell', 90))):
                order = buy(name, '1', side=side)
                journal.adopt(name, advance(OrderState(order), fills=[Fill(name, f'{bar}{k}', order.symbol, side, D(1), D(price), D(0), 'USDT', bar * 100 + k)], id=name))
        def losses(): return Gate(Limits(max_losses=2), journal, 'binance', 'main').books({'BTC/USDT': D(100)}).losses
        for bar in (1, 2): lose(bar)
        assert losses() == 2
        journal.halt('runner', 'a breaker', 'binance/main')
        clock[0] += 10
        journal.resume('ann', 'seen')
        assert losses() == 0
        lose(3)
        assert losses() == 1


def test_money_paid_out_while_halted_is_no_drawdown(tmp_path):
    clock = [1_000]
    with Journal.open(tmp_path / 'journal.db', now=lambda: clock[0]) as journal:
        bot = enrolled(journal)
        for bar in (0, 1): decided(journal, bot, bar, '100')
        journal.differ(bot.id, D(-6_000), D(0), 'USDT 4000 there, 10000 here')
        journal.halt('runner', 'the venue and the journal disagree', 'binance/main')
        journal.accept('ann', 'paid out')
        clock[0] += 10
        journal.resume('ann')
        clock[0] += 10
        for bar in (2, 3): decided(journal, bot, bar, '100')
        gate = Gate(Limits(max_drawdown=.01, max_daily_loss=.01), journal, 'binance', 'main')
        assert gate.tripped('BTC/USDT', D(100), MARKET) == [] and gate.books({}).highest == 4_000


def test_the_limits_that_settings_show_as_examples_can_be_set_as_they_are(tmp_path):
    shown = (Path(__file__).parents[1] / 'settings.ini').read_text()
    (tmp_path / 'settings.ini').write_text(re.sub(r'^; (?=(max|price|hours|restricted)\w* = )', '', shown, flags=re.M))
    limits = limits_of(Settings.load(tmp_path))
    assert set(limits.json()) == {each.name for each in fields(Limits)} - set(UNMEASURED) and limits.restricted == ('DOGE/USDT', 'SHIB/USDT')
    assert limits_of(Settings(root=tmp_path)) == Limits()
    with pytest.raises(BadInput, match='risk.max_jump would never bind: no second source of prices is read; leave it out'): limits_of(Settings(root=tmp_path, risk=dict(max_jump='0.1')))


# a bot

async def test_an_order_beyond_its_limit_is_skipped_with_the_reason_and_nothing_is_sent(tmp_path):
    there = exchange()
    async with venue(there) as (gateway, _): assert await run(gateway, there, tmp_path / 'journal.db', mandate(limits=Limits(max_exposure=.5))) == 'done'
    with Journal.reader(tmp_path / 'journal.db') as journal:
        reasons = [row['reason'] for row in journal.equity(1) if row['outcome'] == 'skipped' and row['target'] == 1]
        assert reasons and all(reason.startswith('max_exposure: BTC/USDT as a share of equity would be ') for reason in reasons)
        assert journal.orders() == [] and not there.venue.orders


@pytest.mark.parametrize('most, traded', [(.01, False), (1., True)])
async def test_a_position_that_moves_too_much_in_a_day_is_refused(tmp_path, most, traded):
    there = exchange()
    async with venue(there) as (gateway, _): await run(gateway, there, tmp_path / 'journal.db', mandate(limits=Limits(max_volatility=most)))
    with Journal.reader(tmp_path / 'journal.db') as journal:
        assert bool(journal.orders()) == traded
        assert traded or any(row['reason'].startswith("max_volatility: the deviation of a day's return would be") for row in journal.equity(1))


async def test_a_breaker_halts_and_holds_over_a_restart_until_a_person_resumes(tmp_path):
    there, path, tight = exchange(), tmp_path / 'journal.db', mandate(limits=Limits(max_drawdown=.001))
    async with venue(there) as (gateway, _):
        for _ in range(2):
            with pytest.raises(Refused, match='max_drawdown: the drawdown is .* the limit is 0.1%; look what happened'):
                await run_until_halted(gateway, there, path, tight)
        sent = len(there.venue.orders)
        with Journal.open(path) as journal: assert journal.resume('ann', 'seen') == 1
        assert await run(gateway, there, path, mandate()) == 'done' and len(there.venue.orders) > sent


async def run_until_halted(gateway, there, path, given):
    "A bot that a breaker halts waits for a person; here nobody comes, and the latch is what a second start finds."
    with Journal.open(path) as journal:
        bot = Runner(given, gateway, journal, there.release)
        task = asyncio.create_task(bot.run(TIMES[-2]))
        while not task.done():
            if bot.bot and bot.halted: bot.stop()
            await asyncio.sleep(.01)
        await task
        raise Refused(bot.halted or 'not halted')
