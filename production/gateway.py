"""The only place that sends orders.

A venue is reached through its ccxt client, and ccxt's exception classes do not say whether an order exists. So this module listens to the HTTP
answer itself: a short list of (status, code) per venue means *rejected*, an answer whose id, status, client id, side and quantity all fit
means *accepted*, and everything else is `Unknown`, to be looked up by client id. Writes are never repeated here; reads are.
"""
import asyncio
import json
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from decimal import Decimal

import stamina
from aiolimiter import AsyncLimiter

from trading_lib.core.errors import BadInput, Refused, Rejected, TradingError, Unknown, Unreachable, did_you_mean
from trading_lib.core.money import money
from trading_lib.execution.matching import MarketRules
from trading_lib.execution.orders import Fill, Order, OrderState, advance

stamina.instrumentation.set_on_retry_hooks([])   # its default prints to stdout, which belongs to --json


@dataclass(frozen=True)
class Facts:
    "What must be known of a venue before an order may be sent there."
    rejections: frozenset[tuple[int, int]]   # (HTTP status, code): the order does not exist, for certain
    duplicate: str                           # in the text of a rejection: the first order under this client id is there
    not_found: int                           # the code of the one answer that means there is no such order
    expired: int                             # the code of a request outside its validity window
    malformed: range                         # codes of questions that are wrong however often they are asked
    no_entry: frozenset[int]                 # codes of keys that are wrong or lack a right
    fence: bool                              # does it honour a timestamp and a validity window?
    account_key: str                         # what a proper answer about the account contains
    fee_in: str                              # 'received' or 'quote'
    unit: Decimal                            # the smallest amount of an asset
    weights: dict[str, int]                  # request weight by what is asked
    options: dict = field(default_factory=dict)   # of the ccxt client


VENUES = {
    'binance': Facts(
        # -1013 filter failure, -11xx malformed, -2010 new order rejected; Binance's errors.md
        rejections=frozenset((400, code) for code in (-1013, -1100, -1101, -1102, -1104, -1106, -1111, -1115, -1116, -1117, -1121, -2010)),
        duplicate='Duplicate order', not_found=-2013, expired=-1021, malformed=range(-1199, -1099), no_entry=frozenset((-1002, -1022, -2014, -2015)), fence=True,
        account_key='balances', fee_in='received', unit=Decimal('1e-8'),
        weights=dict(time=1, order=1, lookup=4, account=20, open=6, trades=20, bars=2, markets=20),
        options=dict(defaultType='spot', fetchMarkets={'types': ['spot']}, fetchCurrencies=False, fetchMargins=False)),
}


@dataclass
class Heard:
    "The HTTP answer behind a call, if there was one."
    status: int | None = None
    body: str = ''

    @property
    def json(self) -> object:
        try: return json.loads(self.body)
        except ValueError: return None

    @property
    def code(self) -> int | None:
        found = self.json
        return found.get('code') if isinstance(found, dict) and isinstance(found.get('code'), int) else None

    @property
    def text(self) -> str:
        "What the venue said, in one line."
        found = self.json
        said = str(found['msg']) if isinstance(found, dict) and found.get('msg') else f'HTTP {self.status}' if self.status else 'no answer'
        return ' '.join(said.split())[:200]


_heard: ContextVar[Heard] = ContextVar('heard')   # of the call in progress, so that calls side by side do not mix


async def connect(
    venue: str = 'binance',                               # a name in `VENUES`
    key: str = '', secret: str = '',
    weight_per_minute: int = 6_000,                       # request weight we allow ourselves
    timeout_s: float = 10,
    attempts: int = 5,                                    # of a read
    redirect: Callable[[object], object] | None = None,   # is handed the client before it is used; what it gives back is closed with it
) -> 'Gateway':
    "A gateway with its market table loaded: one a venue, shared by all who trade there."
    if venue not in VENUES: raise BadInput(f'there is no venue {venue}{did_you_mean(venue, VENUES)}')
    import ccxt.pro
    client = getattr(ccxt.pro, venue)({'apiKey': key, 'secret': secret, 'timeout': int(timeout_s * 1000), 'options': VENUES[venue].options})
    gateway = Gateway(client, VENUES[venue], weight_per_minute, attempts, session=redirect(client) if redirect else None)
    try: await gateway.open()
    except BaseException:
        await gateway.close()
        raise
    return gateway


class Gateway:
    "One venue: reads, and the orders we send."

    def __init__(self, client, facts: Facts, weight_per_minute: int = 6_000, attempts: int = 5, session=None):
        self.client, self.facts, self.venue, self.attempts, self.session = client, facts, client.id, attempts, session
        client.number, client.enableRateLimit = str, False   # exact; as Decimal ccxt 4.5.90 loses the fees of trades
        client.options['maxRetriesOnFailure'] = 0   # a repeated market order is a second order
        client.on_rest_response = self._listen
        # a full bucket and its refill together stay within the minute
        self.limiter = AsyncLimiter(weight_per_minute / 7, 60 / 6)
        self._pause_until = 0.
        self._streams: dict[tuple[str, str], tuple[asyncio.Task, asyncio.Event]] = {}

    async def open(self):
        await self._read('markets', lambda heard: self.client.load_markets())
        await self.venue_time()

    async def close(self):
        for task, _ in self._streams.values(): task.cancel()
        await asyncio.gather(*(task for task, _ in self._streams.values()), return_exceptions=True)
        await self.client.close()
        if self.session: await self.session.close()

    # what a venue says

    def _listen(self, status, reason, url, method, headers, body, *_):
        "ccxt's own hook for every HTTP answer."
        heard = _heard.get(None)
        if heard: heard.status, heard.body = status, body
        if status in (418, 429):
            wait = next((v for k, v in headers.items() if k.lower() == 'retry-after'), '1')
            self._pause_until = asyncio.get_running_loop().time() + (float(wait) if wait.replace('.', '').isdigit() else 1.)
        return body.strip()

    async def _take(self, what: str):
        "Wait for our share of the venue's patience; monotonic, so that a clock set back stalls nothing."
        loop = asyncio.get_running_loop()
        while (pause := self._pause_until - loop.time()) > 0: await asyncio.sleep(pause)
        await self.limiter.acquire(min(self.facts.weights[what], self.limiter.max_rate))

    async def _read(self, what: str, call: Callable[[Heard], Awaitable]):
        "Ask, and ask again while there is no proper answer."
        retries = stamina.retry_context(on=Unreachable, attempts=self.attempts, timeout=60, wait_initial=.05, wait_max=5, wait_jitter=.2)
        async for attempt in retries:
            with attempt: return await self._ask(what, call)

    async def _ask(self, what: str, call: Callable[[Heard], Awaitable]):
        await self._take(what)
        heard = Heard()
        _heard.set(heard)
        from ccxt.base.errors import BaseError
        # ccxt parses whatever arrives, so a garbled answer shows as any of these
        try: return await call(heard)
        except TradingError: raise
        except (BaseError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            if heard.code == self.facts.expired and what != 'time': await self.venue_time()
            elif heard.code in self.facts.no_entry or heard.status in (401, 403, 451):
                raise Refused(f'{self.venue} does not let us in ({heard.text}); check the API key, its rights and its IP list') from error
            elif heard.code in self.facts.malformed: raise Refused(f'{self.venue} refused to tell {what}: {heard.text}') from error
            raise Unreachable(f'{self.venue} did not answer about {what} ({heard.text}, {type(error).__name__}); try again later') from error

    # reads

    async def venue_time(self) -> int:
        "The venue's clock in ms, as it stood while we asked; signed reads follow it from then on."
        async def ask(heard): return int(await self.client.fetch_time())
        now = await self._read('time', ask)
        self.client.options['timeDifference'] = self.client.milliseconds() - now
        return now

    async def stamp(self) -> int:
        "A timestamp to sign an order with. Takes the order's share of the limit too, so that nothing waits between the fence and the socket."
        loop = asyncio.get_running_loop()
        await self._take('order')
        asked = loop.time()
        now = await self.venue_time()
        if loop.time() - asked > 1: raise Unreachable(f'{self.venue} took {loop.time() - asked:.1f} s to tell the time; nothing is sent while it is uncertain')
        return now

    async def bars(self, symbol: str, timeframe: str, since_ms: int, limit: int):
        "Closed bars from `since_ms` on."
        from trading_lib.market.history import closed_bars
        return await self._read('bars', lambda heard: closed_bars(self.client, symbol, timeframe, since_ms, limit))

    async def balances(self) -> dict[str, tuple[Decimal, Decimal]]:
        "Free and locked, by asset."
        account = await self._account()
        return {asset: (money(account['free'][asset]), money(account['used'][asset])) for asset in account['total']}

    async def _account(self) -> dict:
        async def ask(heard):
            account = await self.client.fetch_balance()
            account['info'][self.facts.account_key]   # an empty answer parses as an empty account
            return account
        return await self._read('account', ask)

    async def rules(self, symbol: str) -> MarketRules:
        "What this market accepts, and what it charges this account."
        if symbol not in self.client.markets: raise BadInput(f'{self.venue} has no market {symbol}{did_you_mean(symbol, self.client.markets)}')
        market, account = self.client.markets[symbol], (await self._account())['info']
        fee = account.get('commissionRates', {}).get('taker', market['taker'])
        least = lambda what: money(market['limits'][what]['min'] or 0)
        return MarketRules(symbol, market['base'], market['quote'], step=money(market['precision']['amount']), tick=money(market['precision']['price']),
                           min_quantity=least('amount'), min_notional=least('cost'), fee=money(fee), fee_in=self.facts.fee_in, unit=self.facts.unit)

    async def lookup(self, order: Order) -> OrderState | None:
        "What became of an order, by its client id. None only where the venue itself says that there is none."
        async def ask(heard):
            try: found = await self.client.fetch_order(None, order.symbol, {'clientOrderId': order.client_id})
            except Exception:
                if heard.code == self.facts.not_found: return None
                raise
            try: return await self._state(order, found)
            except Unknown as error: raise Unreachable(str(error)) from error
        return await self._read('lookup', ask)

    async def open_orders(self, symbol: str) -> dict[str, dict]:
        "Orders resting at the venue, ours and others', by client id."
        async def ask(heard):
            found = await self.client.fetch_open_orders(symbol)
            if not isinstance(heard.json, list): raise ValueError('not a list')
            return {order['clientOrderId']: order for order in found}
        return await self._read('open', ask)

    async def trades(self, symbol: str, since: int | None = None, order_id: str | None = None) -> list[dict]:
        "Trades of this account, oldest first, each once."
        found: dict[str, dict] = {}
        while True:
            async def ask(heard, since=since):
                page = await self.client.fetch_my_trades(symbol, since, 1000, {} if order_id is None else {'orderId': order_id})
                if not isinstance(heard.json, list): raise ValueError('not a list')
                return page
            page = await self._read('trades', ask)
            news = {trade['id']: trade for trade in page if trade['id'] not in found}
            found |= news
            if len(page) < 1000 or not news or order_id is not None: return list(found.values())
            since = page[-1]['timestamp']

    async def wait_for_bar(self, symbol: str, timeframe: str, timeout_s: float):
        "Until the stream hints that a bar has closed, or for so long. A hint only: whoever waits reads the bars afterwards."
        if not self.client.has.get('watchOHLCV'): return await asyncio.sleep(timeout_s)
        if (symbol, timeframe) not in self._streams:
            closed = asyncio.Event()
            self._streams[symbol, timeframe] = asyncio.create_task(self._watch(symbol, timeframe, closed)), closed
        closed = self._streams[symbol, timeframe][1]
        try: await asyncio.wait_for(closed.wait(), timeout_s)
        except TimeoutError: pass
        closed.clear()

    async def _watch(self, symbol: str, timeframe: str, closed: asyncio.Event):
        from ccxt.base.errors import BaseError
        newest, patience = None, 1.
        while True:
            try:
                opened = (await self.client.watch_ohlcv(symbol, timeframe))[-1][0]
                if opened != newest: closed.set()
                newest, patience = opened, 1.
            except (BaseError, OSError, LookupError, TypeError, ValueError):   # the poll goes on without hints
                await asyncio.sleep(patience)
                patience = min(patience * 2, 60.)

    # writes

    async def submit(self, order: Order, sent_at: int, window: int) -> OrderState:
        "Send an order once. Raises `Rejected` if it certainly does not exist and `Unknown` if it may."
        kind, quantity, price = order.kind, self._exact(order, 'amount', order.quantity), self._exact(order, 'price', order.price)
        params = {'clientOrderId': order.client_id}
        if kind == 'stop': kind, params['stopLossPrice'] = 'market', self._exact(order, 'price', order.stop_price)
        if self.facts.fence: params |= {'timestamp': sent_at, 'recvWindow': window}
        heard = Heard()
        _heard.set(heard)
        try:
            answer = await self.client.create_order(order.symbol, kind, order.side, quantity, price, params)   # a price would resize a market order; `Order` has none then
            return await self._state(order, answer)
        except Unknown: raise
        except Exception as error:   # whatever went wrong, the order may be there
            if (heard.status, heard.code) in self.facts.rejections and self.facts.duplicate not in heard.text:
                raise Rejected(f'{self.venue}: {heard.text}') from error
            raise Unknown(f'{self.venue}: {heard.text} ({type(error).__name__})') from error

    def _exact(self, order: Order, what: str, value: Decimal | None) -> str | None:
        "Digits as ccxt will send them; it rounds to the market's step without a word, so that is refused here."
        if value is None: return None
        from ccxt.base.errors import InvalidOrder
        try: rounded = getattr(self.client, f'{what}_to_precision')(order.symbol, f'{value:f}')
        except InvalidOrder: rounded = '0'   # less than one step
        if Decimal(rounded) != value: raise Rejected(f'{self.venue}: {what} {value:f} of {order.client_id} is no multiple of the step; ccxt would send {rounded}')
        return rounded

    async def cancel(self, order: Order) -> OrderState | None:
        "Ask for a cancel, then look what became of the order: the answer to a cancel proves nothing."
        await self._take('order')
        from ccxt.base.errors import BaseError
        try: await self.client.cancel_order(None, order.symbol, {'clientOrderId': order.client_id})
        except (BaseError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError): pass   # the look-up tells
        return await self.lookup(order)

    async def _state(self, order: Order, answer: dict) -> OrderState:
        "A venue's answer about an order, if all of it fits; else `Unknown`."
        said = {'open': 'OPEN', 'closed': 'FILLED', 'canceled': 'CANCELED', 'expired': 'EXPIRED', 'rejected': 'REJECTED'}
        status, id = said.get(answer.get('status')), answer.get('id')
        asked = (order.client_id, order.side, order.quantity)
        got = answer.get('clientOrderId'), answer.get('side'), money(answer.get('amount') or 0)
        if status is None or not id or got != asked: raise Unknown(f'{self.venue} answered {id} {answer.get("status")} {got} for {asked}')
        filled = money(answer.get('filled') or 0)
        fills = _fills_within(order, answer['info'])
        if sum(f.quantity for f in fills) != filled: fills = [_fill(order, trade) for trade in await self.trades(order.symbol, order_id=id)]
        if status == 'OPEN' and filled: status = 'PARTIALLY_FILLED'
        try: state = advance(OrderState(order), status, fills, id=id, opened=answer.get('timestamp'), updated=answer.get('lastUpdateTimestamp'))
        except BadInput as error: raise Unknown(f'{self.venue}: {error}') from error
        if state.filled != filled: raise Unknown(f'{self.venue}: order {order.client_id} filled {filled}, its trades sum to {state.filled}')
        return state


def _fills_within(order: Order, info: dict) -> list[Fill]:
    "The fills that Binance sends along with a new order."
    return [Fill(order.client_id, str(f['tradeId']), order.symbol, order.side, money(f['qty']), money(f['price']), money(f['commission']),
                 f['commissionAsset'], int(info['transactTime'])) for f in info.get('fills') or ()]


def _fill(order: Order, trade: dict) -> Fill:
    "A fill from ccxt's own form of a trade."
    return Fill(order.client_id, str(trade['id']), order.symbol, order.side, money(trade['amount']), money(trade['price']), money(trade['fee']['cost']),
                trade['fee']['currency'], int(trade['timestamp']))
