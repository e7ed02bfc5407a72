"""What a person may change at the venue while it runs. Each change is checked, written down like an order, and then done.

    free        {asset: amount}         what is free from now on
    deposit     {asset: amount}         money that comes, or goes where it is below zero
    price       {symbol: price}         the market jumps there, through everything that rests in between
    filters     {symbol: {step, tick, min_quantity, min_notional}}   any of them
    halted      [symbol, …]             these and no others
    max_fill    quantity or null        the largest quantity filled at once
    fee_asset   {asset: price or null} or null     pays the fees of the account; the price where it has no market here
    fees        {maker, taker}          fractions, of the account
    restart     true                    empty: no orders, no trades, the first balances; the market stays where it is
"""
from dataclasses import replace
from decimal import Decimal

from trading_lib.core.errors import BadInput, did_you_mean
from trading_lib.core.money import money
from trading_lib.execution.matching import Bar

CHANGES = ('free', 'deposit', 'price', 'filters', 'halted', 'max_fill', 'fee_asset', 'fees', 'restart')
FILTERS = ('step', 'tick', 'min_quantity', 'min_notional')


def checked(exchange, account, what: str, value: object) -> object:
    "The value as the log keeps it: text for numbers, our names for symbols; raises `BadInput`."
    if what not in CHANGES: raise BadInput(f'there is no change {what}{did_you_mean(str(what), CHANGES)}')
    match what:
        case 'free': return {asset: _number(f'free {asset}', amount) for asset, amount in _mapping(what, value).items()}
        case 'deposit': return {asset: _deposit(account, asset, amount) for asset, amount in _mapping(what, value).items()}
        case 'price':
            return {_traded(exchange, symbol): _number(f'price of {symbol}', price, positive=True) for symbol, price in _mapping(what, value).items()}
        case 'filters': return {market(exchange, symbol): _filters(symbol, given) for symbol, given in _mapping(what, value).items()}
        case 'halted':
            if not isinstance(value, list): raise BadInput(f'halted was {value!r}; it is a list of symbols, empty to end all halts')
            return sorted(market(exchange, symbol) for symbol in value)
        case 'max_fill': return None if value is None else _number(what, value, positive=True)
        case 'fee_asset': return _fee_asset(value)
        case 'fees':
            if not isinstance(value, dict) or not value or value.keys() - {'maker', 'taker'}:
                raise BadInput(f'fees was {value!r}; it is {{"maker": fraction, "taker": fraction}}')
            return {name: _number(name, rate) for name, rate in value.items()}
    if value is not True: raise BadInput(f'restart was {value!r}; it is true')
    return True


def apply(exchange, account, what: str, value: object, at: int):
    "Do what was checked."
    match what:
        case 'free':
            account.venue.free.update({asset: Decimal(amount) for asset, amount in value.items()})
            exchange.tell('balance', {}, account.name)
        case 'deposit':
            for asset, amount in value.items(): account.venue.book(asset, Decimal(amount))
            exchange.tell('balance', {asset: Decimal(amount) for asset, amount in value.items()}, account.name)
        case 'price':
            for symbol, price in value.items():
                price = Decimal(price)
                exchange.run_bar(symbol, Bar(price, price, price, price, Decimal('Infinity')), at)
        case 'filters':
            for symbol, given in value.items():
                numbers = {name: Decimal(number) for name, number in given.items()}
                for rules in (exchange.rules, *(each.venue.rules for each in exchange.accounts.values())): rules[symbol] = replace(rules[symbol], **numbers)
        case 'halted':
            for each in exchange.accounts.values(): each.venue.halted = set(value)
        case 'max_fill':
            for each in exchange.accounts.values(): each.venue.max_fill = None if value is None else Decimal(value)
        case 'fee_asset':
            account.venue.fee_asset = next(((asset, price and Decimal(price)) for asset, price in value.items()), None) if value else None
        case 'fees':
            rules, rates = account.venue.rules, {name: Decimal(rate) for name, rate in value.items()}
            if 'maker' in rates: account.venue.maker = rates['maker']
            if 'taker' in rates: rules.update({symbol: replace(rule, fee=rates['taker']) for symbol, rule in rules.items()})
        case 'restart': exchange.empty()


def market(exchange, name: object) -> str:
    "Our name of a market that is called BTC/USDT or BTCUSDT."
    known = exchange.ids | {symbol: symbol for symbol in exchange.rules}
    if name not in known: raise BadInput(f'there is no market {name}{did_you_mean(str(name), exchange.rules)}')
    return known[name]


def _traded(exchange, name: str) -> str:
    symbol = market(exchange, name)
    if symbol not in exchange.venue.prices: raise BadInput(f'{symbol} has no price to change: its market is closed')
    return symbol


def _mapping(what: str, value: object) -> dict:
    if not isinstance(value, dict) or not value:
        raise BadInput(f'{what} was {value!r}; it is an object by {"market" if what in ("price", "filters") else "asset"}')
    return value


def _number(what: str, value: object, positive: bool = False) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float | Decimal): raise BadInput(f'{what} was {value!r}; it is a number')
    amount = money(value)
    if amount < 0 or positive and not amount: raise BadInput(f'{what} was {amount}; it must be {"above" if positive else "at least"} 0')
    return str(amount)


def _deposit(account, asset: str, amount: object) -> str:
    if isinstance(amount, bool) or not isinstance(amount, str | int | float | Decimal):
        raise BadInput(f'deposit {asset} was {amount!r}; it is a number')
    there = account.venue.free[asset]
    if there + money(amount) < 0: raise BadInput(f'{-money(amount)} {asset} cannot be withdrawn: {there} is free')
    return str(money(amount))


def _filters(symbol: str, given: object) -> dict:
    if not isinstance(given, dict) or not given: raise BadInput(f'filters of {symbol} were {given!r}; they are an object of {", ".join(FILTERS)}')
    for name in given:
        if name not in FILTERS: raise BadInput(f'{symbol} has no filter {name}{did_you_mean(name, FILTERS)}')
    return {name: _number(f'{name} of {symbol}', value) for name, value in given.items()}


def _fee_asset(value: object) -> dict | None:
    if value is None: return None
    if not isinstance(value, dict) or len(value) != 1:
        raise BadInput(f'fee_asset was {value!r}; it is {{"BNB": its price, or null where it has a market here}}, or null')
    return {asset: None if price is None else _number(f'price of {asset}', price, positive=True) for asset, price in value.items()}
