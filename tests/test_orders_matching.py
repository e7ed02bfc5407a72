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
from trading_lib.execution.plan import Account, Planned, Resting, Skip, Wish, as_state, in_floats, legal, plan_order, reconcile

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


def asked(kind: str, side: str, quantity: Decimal, price: Decimal, name: str, symbol: str = 'COIN/USDT', group: str | None = None) -> Order:
    return Order(name, symbol, side, kind, quantity, price if kind == 'limit' else None, price if kind in ('stop', 'take_profit') else None, group)


class AnyHistory(RuleBasedStateMachine):
    "Whatever is placed, canceled and traded: nothing is created, nothing is lost, nothing is promised twice."

    def __init__(self):
        super().__init__()
        self.venue = Exchange({'COIN/USDT': COIN, 'ALT/USDT': OTHER}, START, slippage=D('0.0005'), max_share=D('0.1'))
        self.hour = 0
        self.seen: dict[int, OrderState] = {}
        for symbol in self.venue.rules: self.venue.open_bar(symbol, 0, D(100))

    symbols = some.sampled_from(['COIN/USDT', 'ALT/USDT'])

    @rule(symbol=symbols, kind=some.sampled_from(['market', 'limit', 'stop', 'take_profit']), side=sides, quantity=quantities, price=prices,
          group=some.sampled_from([None, None, 'g', 'h']))
    def place(self, symbol, kind, side, quantity, price, group):
        step = self.venue.rules[symbol].step
        order = asked(kind, side, max(quantity // step * step, step), price, f'o{self.hour}-{len(self.venue.orders)}', symbol, group)
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
            others = [s for s in self.venue.orders.values() if order.group and s.order.group == order.group and s.order.symbol == symbol and s.id != state.id]
            assert all(s.done for s in others), 'the first of a group that trades ends the others'

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


@pytest.mark.parametrize(('side', 'price', 'bar', 'at'), [
    ('sell', '110', ('100', '110', '99', '105', '9'), '110'),              # a touch is enough, as for a stop
    ('sell', '110', ('100', '109.99', '99', '105', '9'), None),
    ('sell', '110', ('115', '116', '112', '113', '9'), '115'),             # a jump serves it better than it asked
    ('buy', '90', ('100', '101', '90', '95', '9'), '90'),
    ('buy', '90', ('85', '88', '84', '86', '9'), '85'),
])
def test_a_take_profit_wakes_where_the_market_goes_our_way(side, price, bar, at):
    state = passes(resting('take_profit', side, price), *bar)
    assert (state.fills[0].price if state.fills else None) == (at and D(at))


def bracket(stop='90', goal='110', **how) -> Exchange:
    "An exchange at 100 with all its coins guarded by a stop and a take-profit, ids 1 and 2."
    venue = Exchange({'COIN/USDT': COIN}, START, **how)
    venue.open_bar('COIN/USDT', 0, D(100))
    for kind, price in (('stop', stop), ('take_profit', goal)):
        assert venue.place(asked(kind, 'sell', D(20), D(price), kind, group='g')).status == 'OPEN'
    assert venue.free['COIN'] == 0 and venue.held('COIN') == 20, 'the coins of a group are locked once'
    return venue


@pytest.mark.parametrize(('bar', 'kind', 'at'), [
    (('100', '115', '85', '100', '9'), 'stop', '90'),            # both in one bar: the worse is assumed
    (('112', '115', '85', '100', '9'), 'take_profit', '112'),    # the opening has decided
    (('88', '115', '85', '100', '9'), 'stop', '88'),
])
def test_of_a_bracket_one_trades_and_ends_the_other(bar, kind, at):
    venue = bracket()
    passes(venue, *bar)
    states = {venue.orders[id].order.kind: venue.orders[id] for id in (1, 2)}
    other = states.pop('take_profit' if kind == 'stop' else 'stop')
    assert states[kind].fills[0].price == D(at) and (other.status, other.reason) == ('CANCELED', 'GROUP')
    assert venue.free['COIN'] == 0 and not venue.locked and not venue.resting['COIN/USDT']


def test_who_is_left_of_a_group_locks_for_itself():
    venue = bracket()
    venue.cancel(1)
    assert venue.locked == {2: ('COIN', D(20))} and venue.free['COIN'] == 0
    venue.cancel(2)
    assert venue.free['COIN'] == 20


def test_a_market_order_of_a_group_ends_its_others_too():
    venue = bracket()
    assert venue.place(asked('market', 'sell', D(20), D(1), 'leave', group='g')).status == 'FILLED'
    assert {venue.orders[id].status for id in (1, 2)} == {'CANCELED'} and venue.free['COIN'] == 0


def test_a_group_of_purchases_has_all_the_money_that_it_locked():
    venue = Exchange({'COIN/USDT': COIN}, {'USDT': D(1000)})
    venue.open_bar('COIN/USDT', 0, D(100))
    for kind, price in (('limit', '95'), ('stop', '105')): assert venue.place(asked(kind, 'buy', D(9), D(price), kind, group='g')).status == 'OPEN'
    assert venue.locked[1] == ('USDT', D(855)) and venue.locked[2] == ('USDT', D(90)), 'what the second needs beyond the first'
    passes(venue, '100', '106', '99', '105', '9')
    assert venue.find('stop').filled == 9 and venue.find('limit').reason == 'GROUP' and venue.free['USDT'] == 1000 - 945


def test_groups_of_two_symbols_are_two_groups():
    venue = Exchange({'COIN/USDT': COIN, 'ALT/USDT': OTHER}, START | {'ALT': D(100)})
    for symbol in venue.rules: venue.open_bar(symbol, 0, D(100))
    for symbol in venue.rules: venue.place(asked('stop', 'sell', D(10), D(90), symbol, symbol, 'g'))
    venue.close_bar('COIN/USDT', Bar(*map(D, ('100', '100', '80', '85', '9'))))
    assert [venue.orders[id].status for id in (1, 2)] == ['FILLED', 'OPEN']


def test_what_is_adopted_rests_with_what_it_had_and_fills_only_the_rest():
    venue = Exchange({'COIN/USDT': COIN}, START)
    venue.adopt(asked('limit', 'buy', D(10), D(95), 'a'), filled=D(4))
    assert venue.locked == {1: ('USDT', D(570))} and venue.find('a').status == 'PARTIALLY_FILLED'
    state = passes(venue, '100', '101', '94', '96', '9')
    assert (state.status, state.filled, state.fills[0].quantity) == ('FILLED', 10, 6)


def test_money_can_come_and_go_without_a_trade():
    venue = Exchange({'COIN/USDT': COIN}, START)
    venue.book('USDT', D('-1.5'))
    assert venue.held('USDT') == D('9998.5') and not venue.trades


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


# Wishes

names = some.sampled_from('abcde')
wishes = some.lists(some.builds(Wish, names, sides, decimals('0.0004', '30', '0.0001'), some.one_of(some.none(), decimals('0.001', '120', '0.001'))),
                    max_size=5, unique_by=lambda w: w.name)


@settings(max_examples=150, deadline=None)
@given(rounds=some.lists(wishes, min_size=1, max_size=4), bars=some.lists(some.tuples(prices, prices, prices), min_size=4, max_size=4))
def test_what_is_legal_is_accepted_and_what_is_wished_again_is_left_alone(rounds, bars):
    "A venue that is given legal wishes refuses none of them, but a market order that a gap made too dear or too small."
    venue, there = Exchange({'COIN/USDT': COIN}, START, max_share=D('0.01')), {}
    for t, (wished, (o, a, b)) in enumerate(zip(rounds, bars, strict=False)):
        close = venue.prices.get('COIN/USDT', D(100))
        there = {n: (w, id) for n, (w, id) in there.items() if not venue.orders[id].done}
        account = Account(venue.held('USDT'), venue.held('COIN'), D(0), tuple(Resting(w, venue.orders[id].filled) for w, id in there.values()))
        kept, skipped = legal(wished, account, close, COIN, D('0.01'))
        assert [w.name for w in wished if w.name not in skipped] == [w.name for w in kept]
        cancel, place = reconcile(kept, account.orders)
        venue.open_bar('COIN/USDT', t, o)
        for name in cancel: venue.cancel(there.pop(name)[1])
        for wish in place:
            state = venue.place(Order(f'{t}{wish.name}', 'COIN/USDT', wish.side, 'limit' if wish.price else 'market', wish.quantity, wish.price))
            assert state.status != 'REJECTED' or wish.price is None and state.reason in ('INSUFFICIENT_BALANCE', 'NOTIONAL')
            if not state.done: there[wish.name] = (wish, state.id)
        if not any(w.price is None for w in kept):   # said again at once, the same wishes are already so
            now = Account(account.cash, account.position, D(0), tuple(Resting(w, {r.wish.name: r.filled for r in account.orders if r.wish == w}.get(w.name, D(0))) for w in kept))
            assert reconcile(legal(kept, now, close, COIN)[0], now.orders) == ((), ())
        venue.close_bar('COIN/USDT', Bar(o, max(o, a, b), min(o, a, b), b, D(300)))
    assert all(amount >= 0 for amount in venue.free.values())


@given(wished=wishes, cash=decimals('0', '3000', '0.01'), position=decimals('0', '30', '0.001'))
def test_legal_wishes_are_within_the_account_and_on_the_steps(wished, cash, position):
    kept, skipped = legal(wished, Account(cash, position, D(0)), D(100), COIN)
    assert sum(w.quantity * (w.price or D(100)) for w in kept if w.side == 'buy') <= cash
    assert sum(w.quantity for w in kept if w.side == 'sell') <= position
    asked = {w.name: w for w in wished}
    for wish in kept:
        before = asked[wish.name]
        assert wish.quantity <= before.quantity and wish.quantity % COIN.step == 0 and wish.quantity * (wish.price or 100) >= COIN.min_notional
        if wish.price is not None: assert wish.price % COIN.tick == 0 and SIGN[wish.side] * (before.price - wish.price) >= 0, 'never worse than asked'
    assert {skip.reason for skip in skipped.values()} <= {'below_step', 'below_tick', 'below_min_quantity', 'below_min_notional', 'no_cash', 'no_short'}


def test_an_earlier_wish_may_take_what_a_resting_one_has():
    bid = Wish('old', 'buy', D(9), D(100))
    account = Account(D(1000), D(0), D(1000), (Resting(bid),))
    kept, _ = legal([Wish('new', 'buy', D(5), D(100)), bid], account, D(110), COIN)
    assert [(w.name, w.quantity) for w in kept] == [('new', 5), ('old', 5)]
    assert legal([bid, Wish('new', 'buy', D(5), D(100))], account, D(110), COIN)[0] == (bid, Wish('new', 'buy', D(1), D(100)))


def test_where_shorts_are_allowed_a_sale_may_go_beyond_what_is_held():
    sale = Wish('a', 'sell', 3., 120.)
    account = Account(100., 1., 200.)
    assert legal([sale], account, 100., replace(COIN, step=0, tick=0, min_notional=0, min_quantity=0), shorts=True)[0] == (sale,)
    assert legal([sale], replace(account, position=-1.), 100., replace(COIN, step=0, tick=0))[1] == {'a': Skip('no_short')}


def test_a_step_sees_floats_whatever_the_books_are_kept_in():
    exact = Account(D(10), D('0.5'), D(60), (Resting(Wish('a', 'buy', D(1), D('9.5')), D('0.25')),), ())
    assert in_floats(exact) == Account(10., .5, 60., (Resting(Wish('a', 'buy', 1., 9.5), .25),), ())
    assert type(in_floats(exact).orders[0].wish.price) is float and in_floats(in_floats(exact)) == in_floats(exact)


@given(state=some.recursive(some.none() | some.booleans() | some.integers() | some.floats(allow_nan=False, allow_infinity=False) | some.text(),
                            lambda inner: some.lists(inner) | some.dictionaries(some.text(), inner)))
def test_a_state_survives_any_number_of_restarts(state):
    once = as_state(state)
    assert as_state(once) == once == state and (once is not state or not isinstance(state, (list, dict)))
