"""Orders, the simulated exchange and the plan: what must hold for every sequence of events, not only for the lesson's."""
from dataclasses import replace
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as some
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from trading_lib.core.errors import BadInput, Rejected
from trading_lib.execution.costs import affordable, fee_of, fill_price
from trading_lib.execution.matching import Bar, Exchange, MarketRules, split_symbol, spot_rules
from trading_lib.execution.orders import SIGN, TERMINAL, Fill, Order, OrderState, advance
from trading_lib.execution.plan import Planned, plan_order

D = Decimal
COIN = MarketRules('COIN/USDT', 'COIN', 'USDT', D('0.001'), D('0.01'), D('0.001'), D(5), D('0.001'), 'received', D('1e-8'))
OTHER = MarketRules('ALT/USDT', 'ALT', 'USDT', D('0.1'), D('0.0001'), D('0.1'), D(5), D('0.00075'), 'quote', D('1e-8'))
START = {'USDT': D(10_000), 'COIN': D(20)}


def decimals(low: str, high: str, step: str):
    "Multiples of a step between two bounds."
    whole = lambda bound: int(D(bound) / D(step))
    return some.integers(whole(low), whole(high)).map(lambda n: n * D(step))


prices = decimals('50', '150', '0.01')
quantities = decimals('0.001', '60', '0.001')
sides = some.sampled_from(['buy', 'sell'])


def asked(kind: str, side: str, quantity: Decimal, price: Decimal, name: str, symbol: str = 'COIN/USDT') -> Order:
    return Order(name, symbol, side, kind, quantity, price if kind == 'limit' else None, price if kind == 'stop' else None)


class AnyHistory(RuleBasedStateMachine):
    "Whatever is placed, canceled and traded: nothing is created, nothing is lost, nothing is promised twice."

    def __init__(self):
        super().__init__()
        self.venue = Exchange({'COIN/USDT': COIN, 'ALT/USDT': OTHER}, START, slippage=D('0.0005'), max_share=D('0.1'))
        self.hour = 0
        self.seen: dict[int, OrderState] = {}
        for symbol in self.venue.rules: self.venue.open_bar(symbol, 0, D(100))

    symbols = some.sampled_from(['COIN/USDT', 'ALT/USDT'])

    @rule(symbol=symbols, kind=some.sampled_from(['market', 'limit', 'stop']), side=sides, quantity=quantities, price=prices)
    def place(self, symbol, kind, side, quantity, price):
        step = self.venue.rules[symbol].step
        order = asked(kind, side, max(quantity // step * step, step), price, f'o{self.hour}-{len(self.venue.orders)}', symbol)
        before = {asset: self.venue.held(asset) for asset in ('USDT', 'COIN', 'ALT')}
        state = self.venue.place(order)
        if state.status == 'REJECTED':
            assert state.reason in {'NOTIONAL', 'INSUFFICIENT_BALANCE', 'WOULD_TRIGGER'}
            assert before == {asset: self.venue.held(asset) for asset in before}
        if kind == 'market': assert state.status in TERMINAL

    @rule(symbol=symbols, o=prices, a=prices, b=prices, c=prices, volume=decimals('0', '400', '0.001'))
    def bar(self, symbol, o, a, b, c, volume):
        self.hour += 1
        self.venue.open_bar(symbol, self.hour, o)
        awake = set(self.venue.awake)
        changed = self.venue.close_bar(symbol, Bar(o, max(o, a, b, c), min(o, a, b, c), c, volume))
        traded = sum(state.filled - self.seen[state.id].filled for state in changed)
        assert traded <= volume * D('0.1')
        for state in changed:
            fill, order = state.fills[-1], state.order
            if order.kind == 'limit': assert fill.price == order.price
            if order.kind == 'stop' and state.id not in awake:
                assert SIGN[order.side] * (fill.price - order.stop_price) >= 0, 'a stop never fills better than its trigger'

    @precondition(lambda self: any(self.venue.resting.values()))
    @rule(pick=some.randoms(use_true_random=False))
    def cancel(self, pick):
        id = pick.choice([id for ids in self.venue.resting.values() for id in ids])
        assert self.venue.cancel(id).status == 'CANCELED'
        with pytest.raises(Rejected): self.venue.cancel(id)

    @invariant()
    def books_balance_to_the_last_digit(self):
        expected = dict(START, ALT=D(0))
        for fill in self.venue.trades:
            rules = self.venue.rules[fill.symbol]
            expected[rules.base] += SIGN[fill.side] * fill.quantity
            expected[rules.quote] -= SIGN[fill.side] * fill.quantity * fill.price
            expected[fill.fee_asset] -= fill.fee
        assert expected == {asset: self.venue.held(asset) for asset in expected}

    @invariant()
    def nothing_is_negative_and_what_is_locked_belongs_to_open_orders(self):
        assert all(amount >= 0 for amount in self.venue.free.values())
        assert set(self.venue.locked) == {id for ids in self.venue.resting.values() for id in ids}
        assert set(self.venue.locked) == {id for id, state in self.venue.orders.items() if not state.done}

    @invariant()
    def filled_never_falls_and_the_end_is_the_end(self):
        for id, before in self.seen.items():
            now = self.venue.orders[id]
            assert now.filled >= before.filled and now.fills[:len(before.fills)] == before.fills
            if before.done: assert now == before
        self.seen = dict(self.venue.orders)

    @invariant()
    def every_fill_is_on_the_filters(self):
        for fill in self.venue.trades:
            assert fill.quantity % self.venue.rules[fill.symbol].step == 0
            assert fill.price % self.venue.rules[fill.symbol].tick == 0
        assert [fill.trade_id for fill in self.venue.trades] == list(range(1, len(self.venue.trades) + 1))


AnyHistory.TestCase.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
TestAnyHistory = AnyHistory.TestCase


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(seed=some.integers(0, 10_000), fee=some.sampled_from([0., .001, .01]), slippage=some.sampled_from([0., .0005, .01]))
def test_without_friction_the_exchange_does_the_arithmetic_of_the_book(seed, fee, slippage):
    rng = np.random.default_rng(seed)
    close = 100 * np.exp(rng.normal(0, .03, 60).cumsum())
    open_ = np.r_[100., close[:-1]] * np.exp(rng.normal(0, .005, 60))
    target = rng.choice([-1., -.5, 0., .3, 1.], 60)

    cash, position, plain = 10_000., 0., []
    venue = Exchange({'C/U': MarketRules('C/U', 'C', 'U', fee=fee, margin=True)}, {'U': 10_000.}, slippage)
    wanted = None
    for t in range(60):
        venue.open_bar('C/U', t, open_[t])
        if wanted:
            side = 1 if wanted > 0 else -1
            price = fill_price(open_[t], side, slippage)
            quantity = min(abs(wanted), affordable(cash, price, fee)) if side > 0 else abs(wanted)
            if quantity > 0:
                cash -= side * quantity * price + fee_of(quantity, price, fee)
                position += side * quantity
            venue.place(Order(f'o{t}', 'C/U', 'buy' if side > 0 else 'sell', 'market', abs(wanted)))
        venue.close_bar('C/U', Bar(open_[t], max(open_[t], close[t]), min(open_[t], close[t]), close[t]))
        equity = cash + position * close[t]
        plain.append(equity)
        assert venue.held('U') + venue.held('C') * close[t] == pytest.approx(equity, rel=1e-12)
        wanted = target[t] * equity / close[t] - position if equity > 0 else None


@given(side=sides, price=prices, slippage=decimals('0', '0.01', '0.0001'))
def test_slippage_and_rounding_both_go_against_the_taker(side, price, slippage):
    venue = Exchange({'COIN/USDT': COIN}, {'USDT': D(10**6), 'COIN': D(100)}, slippage)
    venue.open_bar('COIN/USDT', 0, price)
    fill = venue.place(asked('market', side, D(1), price, 'a')).fills[0]
    assert SIGN[side] * (fill.price - fill_price(price, SIGN[side], slippage)) >= 0
    assert fill.price % COIN.tick == 0


def resting(kind: str, side: str, price: str, quantity: str = '1', **how) -> Exchange:
    "An exchange at 100 with one resting order, which has id 1."
    venue = Exchange({'COIN/USDT': COIN}, START, **how)
    venue.open_bar('COIN/USDT', 0, D(100))
    assert venue.place(asked(kind, side, D(quantity), D(price), 'a')).status == 'OPEN'
    return venue


def passes(venue: Exchange, *ohlcv: str) -> OrderState:
    bar = Bar(*map(D, ohlcv))
    venue.open_bar('COIN/USDT', 1, bar.open)
    venue.close_bar('COIN/USDT', bar)
    return venue.orders[1]


@pytest.mark.parametrize(('kind', 'side', 'price', 'bar', 'at'), [
    ('limit', 'buy', '95', ('100', '101', '95', '96', '9'), None),          # touched only
    ('limit', 'buy', '95', ('100', '101', '94.99', '96', '9'), '95'),
    ('limit', 'buy', '95', ('90', '91', '89', '90', '9'), '95'),            # a gap through it improves nothing
    ('limit', 'sell', '105', ('100', '105', '99', '100', '9'), None),
    ('limit', 'sell', '105', ('110', '111', '104', '106', '9'), '105'),
    ('stop', 'sell', '90', ('100', '101', '90', '96', '9'), '90'),
    ('stop', 'sell', '90', ('80', '85', '79', '84', '9'), '80'),            # a gap fills at the open
    ('stop', 'buy', '110', ('100', '110', '99', '101', '9'), '110'),
    ('stop', 'buy', '110', ('120', '121', '119', '120', '9'), '120'),
])
def test_a_bar_reaches_resting_orders_by_the_rules(kind, side, price, bar, at):
    state = passes(resting(kind, side, price), *bar)
    assert (state.fills[0].price if state.fills else None) == (at and D(at))


def test_a_touch_is_enough_where_that_is_asked_for():
    assert passes(resting('limit', 'buy', '95', touch=True), '100', '101', '95', '96', '9').status == 'FILLED'


def test_of_a_stop_and_a_limit_in_one_bar_the_stop_comes_first():
    venue = resting('limit', 'sell', '110', '20')
    venue.cancel(1)
    venue.place(asked('limit', 'sell', D(10), D(110), 'take'))
    venue.place(asked('stop', 'sell', D(10), D(90), 'protect'))
    venue.open_bar('COIN/USDT', 1, D(100))
    assert [s.order.client_id for s in venue.close_bar('COIN/USDT', Bar(*map(D, ('100', '120', '80', '100', '9'))))] == ['protect', 'take']


def test_a_stop_that_woke_in_a_thin_bar_goes_on_at_the_next_open():
    venue = resting('stop', 'sell', '90', '10', max_share=D('0.1'))
    assert passes(venue, '100', '101', '89', '95', '40').filled == 4
    state = passes(venue, '97', '99', '96', '98', '1000')
    assert (state.status, state.fills[-1].price) == ('FILLED', D(97))


def test_a_buy_stop_that_slipped_beyond_its_cash_is_cut_and_says_so():
    venue = resting('stop', 'buy', '101', '98')
    state = passes(venue, '110', '112', '109', '111', '1000')
    assert (state.status, state.reason) == ('EXPIRED', 'INSUFFICIENT_BALANCE')
    assert state.filled == D('90.909') and 0 <= venue.free['USDT'] < D('0.11')


def test_a_limit_that_crosses_trades_at_once_and_not_beyond_its_price():
    venue = Exchange({'COIN/USDT': COIN}, START, slippage=D('0.01'))
    venue.open_bar('COIN/USDT', 0, D(100))
    assert venue.place(asked('limit', 'buy', D(1), D('100.50'), 'a')).fills[0].price == D('100.50')
    assert venue.place(asked('limit', 'buy', D(1), D('105'), 'b')).fills[0].price == D('101.00')


def test_a_client_id_may_return_only_after_its_first_order_is_over():
    venue = resting('limit', 'buy', '95')
    again = asked('limit', 'buy', D(1), D(95), 'a')
    assert venue.place(again).reason == 'DUPLICATE'
    venue.cancel(1)
    assert venue.place(again).id == 2 and venue.find('a').id == 2


def test_an_unknown_symbol_is_bad_input_with_the_nearest_name():
    venue = resting('limit', 'buy', '95')
    with pytest.raises(BadInput, match='did you mean COIN/USDT'): venue.place(asked('market', 'buy', D(1), D(1), 'x', 'COIN/USD'))


# Orders

events = some.lists(some.one_of(some.sampled_from(sorted(TERMINAL | {'OPEN', 'UNKNOWN', 'NEW', 'PARTIALLY_FILLED'})),
                                some.tuples(some.integers(1, 5), decimals('0.1', '1', '0.1'))), max_size=12)


@given(events=events)
def test_no_sequence_of_news_makes_an_order_forget_or_come_back(events):
    state = OrderState(asked('limit', 'buy', D(2), D(10), 'a'))
    for heard in events:
        fills = () if isinstance(heard, str) else [Fill('a', heard[0], 'COIN/USDT', 'buy', heard[1], D(10), D(0), 'USDT', 0)]
        try: after = advance(state, heard if isinstance(heard, str) else None, fills)
        except BadInput: continue
        assert after.filled >= state.filled and after.filled <= 2
        assert after.filled == sum(fill.quantity for fill in after.fills) and after.cost == 10 * after.filled
        assert len({fill.trade_id for fill in after.fills}) == len(after.fills)
        assert (after.status == 'FILLED') == (after.filled == 2)
        if state.done: assert after == state
        state = after


def test_news_about_a_finished_order_that_is_no_news_is_ignored():
    fill = Fill('a', 1, 'COIN/USDT', 'buy', D(2), D(10), D(0), 'USDT', 0)
    done = advance(OrderState(asked('limit', 'buy', D(2), D(10), 'a')), fills=[fill])
    assert advance(done, fills=[fill]) is done and advance(done, 'FILLED', [fill]) is done


@pytest.mark.parametrize('wrong', [dict(side='long'), dict(kind='iceberg'), dict(quantity=D(0)), dict(price=D(1)), dict(kind='limit'),
                                   dict(kind='stop', price=D(1)), dict(kind='limit', price=D(-1)), dict(quantity=float('nan'))])
def test_an_order_that_makes_no_sense_cannot_be_made(wrong):
    with pytest.raises(BadInput, match='order a: '): replace(Order('a', 'COIN/USDT', 'buy', 'market', D(1)), **wrong)


# The plan

@given(target=decimals('-1', '1', '0.01'), cash=decimals('0', '20000', '0.00000001'), position=decimals('0', '200', '0.00000001'), price=prices,
       moved=decimals('-0.004', '0.004', '0.001'))
@example(target=D(1), cash=D(10_000), position=D(0), price=D(100), moved=D('0.004'))
def test_what_is_planned_is_accepted_unless_the_market_leaves_the_buffer(target, cash, position, price, moved):
    plan = plan_order('COIN/USDT', target, price, cash, position, COIN, buffer=D('0.005'))
    if not isinstance(plan, Planned): return
    rules = replace(COIN, min_notional=D(0))   # a minimum may be missed by the move, and is then refused for that
    venue = Exchange({'COIN/USDT': rules}, {'USDT': cash, 'COIN': position})
    venue.open_bar('COIN/USDT', 0, price * (1 + moved) // D('0.01') * D('0.01'))
    state = venue.place(Order('a', 'COIN/USDT', plan.side, 'market', plan.quantity))
    assert state.status == 'FILLED'
    equity = cash + position * price
    before, after = abs(target * equity / price - position), abs(target * equity / price - (position + SIGN[plan.side] * plan.quantity))
    assert after < before, 'a plan never leads away from its target'


@given(price=decimals('0.00001', '90000', '0.00001'))
def test_the_filters_that_follow_from_a_price_suit_it(price):
    rules = spot_rules('BTC/USDT', price)
    assert rules.step * price < 1, 'a step is worth less than a dollar'
    assert rules.tick <= D('0.01'), 'a tick is at most a cent'
    assert rules.tick / price <= D('0.0001') or rules.tick == D('1e-8'), 'five digits, as far as eight decimals go'
    assert rules.step * rules.tick % D('1e-8') == 0 or price < D('0.001'), 'money stays within eight decimals'


@pytest.mark.parametrize(('symbol', 'parts'), [('BTC/USDT', ('BTC', 'USDT')), ('eth-btc', ('ETH', 'BTC')), ('SOL_USDC', ('SOL', 'USDC')),
                                              ('BTCUSDT', ('BTC', 'USDT')), ('1000SHIBUSDT', ('1000SHIB', 'USDT')), ('ETH/USDT:USDT', ('ETH', 'USDT'))])
def test_symbols_are_read_in_every_form(symbol, parts):
    assert split_symbol(symbol) == parts


def test_a_symbol_without_a_known_quote_is_refused():
    with pytest.raises(BadInput, match='write it as BASE/QUOTE'): split_symbol('USDT')
