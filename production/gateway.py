"""The only place that sends orders.

A venue is reached through its ccxt client, and ccxt's exception classes do not say whether an order exists. So this module listens to the HTTP
answer itself: a short list of (status, code) per venue means *rejected*, an answer whose id, status, client id, side and quantity all fit
means *accepted*, and everything else is `Unknown`, to be looked up by client id. Writes are never repeated here; reads are. What differs from
venue to venue is in the tables of `production.venues`.
"""
import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from urllib.parse import urlsplit

import pandas as pd
import stamina

from production.venues import VENUES, Facts
from production.venues.facts import rows
from production.venues.pace import Breaker, Limiter, Shut
from trading_lib.core.errors import BadInput, Refused, Rejected, TradingError, Unknown, Unreachable, did_you_mean
from trading_lib.core.money import money
from trading_lib.core.time import timeframe_delta
from trading_lib.execution.matching import MarketRules
from trading_lib.execution.orders import Fill, Order, OrderState, advance

stamina.instrumentation.set_on_retry_hooks([])   # its default prints to stdout, which belongs to --json


@dataclass
class Heard:
    "The HTTP answer behind a call, if there was one."
    facts: Facts
    status: int | None = None
    body: str = ''
    sent: bool = False   # was a request that may change something signed?

    @property
    def json(self) -> object:
        try: return json.loads(self.body)
        except ValueError: return None

    @property
    def codes(self) -> frozenset[str]: return self.facts.codes(self.json)

    @property
    def text(self) -> str:
        "What the venue said, in one line."
        said = next(_words(self.json), '') or ', '.join(sorted(self.codes)) or (f'HTTP {self.status}' if self.status else 'no answer')
        return ' '.join(said.split())[:200]

    @property
    def rejected(self) -> bool:
        "Does the order not exist, for certain?"
        codes, facts = self.codes, self.facts
        return bool(codes) and all((self.status, code) in facts.rejections for code in codes) and not (facts.duplicate and facts.duplicate in self.text)

    @property
    def proper(self) -> bool: return self.status is not None and self.status < 500 and self.json is not None


def _words(body: object) -> Iterator[str]:
    "The sentences in an answer, the most particular first."
    if isinstance(body, list): body = {'data': body}
    if not isinstance(body, dict): return
    inner = [body.get('error_response'), *(body.get('data') if isinstance(body.get('data'), list) else ()), *(body.get('errors') or ())]
    for part in (*inner, body):
        if not isinstance(part, dict): continue
        for name in ('sMsg', 'msg', 'retMsg', 'message', 'preview_failure_reason', 'error'):
            said = part.get(name)
            if said and isinstance(said, str | list): yield said if isinstance(said, str) else ', '.join(map(str, said))


_heard: ContextVar[Heard] = ContextVar('heard')   # of the call in progress, so that calls side by side do not mix
_window: ContextVar[tuple[int, int] | None] = ContextVar('window', default=None)   # (sent at, how long) of the order being signed
_urgent: ContextVar[bool] = ContextVar('urgent', default=False)   # may this task use the reserve?


@contextmanager
def _set(variable: ContextVar, value: object) -> Iterator[None]:
    token = variable.set(value)
    try: yield
    finally: variable.reset(token)


def exits():
    "Everything asked within serves to get out of a position, or of an order: it may use the reserve of the request limit."
    return _set(_urgent, True)


async def connect(
    venue: str = 'binance',                               # a name in `VENUES`
    key: str = '', secret: str = '',
    weight_per_minute: int | None = None,                 # request weight we allow ourselves; the table's if not given
    timeout_s: float = 10,
    attempts: int = 5,                                    # of a read
    redirect: Callable[[object], object] | None = None,   # is handed the client before it is used; what it gives back is closed with it
    password: str = '',                                   # the third part of a key, where a venue has one
    sandbox: bool = False,                                # its test network, or nothing
    live: bool = False,                                   # real money: keys that may withdraw are refused
    on_ban: Callable[[int, str], object] | None = None,   # is told until when (epoch ms) we are banned, and what was said
    banned_until: int | None = None,                      # what it was told before a restart
) -> 'Gateway':
    "A gateway with its market table loaded: one a venue, shared by all who trade there. Raises `Refused` where it must not be used."
    if venue not in VENUES: raise BadInput(f'there is no venue {venue}{did_you_mean(venue, VENUES)}')
    facts, given = VENUES[venue], dict(apiKey=key, secret=secret, password=password)
    missing = [name for name in facts.credentials if not given[name]]
    if key and missing: raise BadInput(f'{venue} also needs the {", ".join(missing)} of the key')
    if sandbox and live: raise BadInput('real money and a test network exclude each other; give one of live and sandbox')
    client = _client(venue)(given | {'timeout': int(timeout_s * 1000), 'options': facts.options})
    if sandbox: use_test_network(client, facts)
    gateway = Gateway(client, facts, weight_per_minute, attempts, session=redirect(client) if redirect else None, on_ban=on_ban)
    if banned_until:
        gateway.banned_until = banned_until
        gateway.limiter.pause((banned_until - client.milliseconds()) / 1000)
    try:
        await gateway.open()
        if live: await gateway.refuse_withdrawals()
    except BaseException:
        await gateway.close()
        raise
    return gateway


def _client(venue: str) -> type:
    if venue == 'bitunix':   # not in ccxt's release
        from production.venues.bitunix import bitunix
        return bitunix
    import ccxt.pro
    return getattr(ccxt.pro, venue)


def use_test_network(client, facts: Facts):
    "Switch a client to the venue's test network and see that it did, or raise `Refused`: ccxt may fail and leave the real addresses in place."
    def refuse(why, url): raise Refused(f'{client.id} is not on a test network: {why}, its address is {url}')
    def addresses(part):
        if isinstance(part, str): yield client.implode_hostname(part)
        elif isinstance(part, dict):
            for inner in part.values(): yield from addresses(inner)
    if not facts.test_hosts and not facts.test_header: refuse('there is none in ccxt', next(addresses(client.urls['api'])))
    from ccxt.base.errors import BaseError
    try: client.set_sandbox_mode(True)
    except (BaseError, TypeError, KeyError) as error: refuse(f'ccxt cannot switch ({type(error).__name__})', next(addresses(client.urls['api'])))
    if facts.test_header:
        name, value = facts.test_header
        if client.headers.get(name) != value: refuse(f'{name} is not set', next(addresses(client.urls['api'])))
        return
    for url in addresses(client.urls['api']):
        if not (urlsplit(url).hostname or '').endswith(facts.test_hosts): refuse('ccxt has not switched all of it', url)


class Gateway:
    "One venue: reads, and the orders we send."

    def __init__(self, client, facts: Facts, weight_per_minute: int | None = None, attempts: int = 5, session=None,
                 on_ban: Callable[[int, str], object] | None = None):
        self.client, self.facts, self.venue, self.attempts, self.session, self.on_ban = client, facts, client.id, attempts, session, on_ban
        client.number, client.enableRateLimit = str, False   # exact; as Decimal ccxt 4.5.90 loses the fees of trades
        client.options['maxRetriesOnFailure'] = 0   # a repeated market order is a second order
        if not facts.currencies: client.has['fetchCurrencies'] = False
        client.on_rest_response = self._listen
        client.sign = self._signing(client.sign)
        if facts.serial: _take_turns(client)
        self.limiter, self.breaker = Limiter(weight_per_minute or facts.per_minute), Breaker(self.venue)
        self.banned_until: int | None = None
        self._streams: dict[tuple[str, str], tuple[asyncio.Task, asyncio.Event]] = {}

    async def open(self):
        await self._read('markets', lambda heard: self.client.load_markets())
        await self.venue_time()

    async def close(self):
        for task, _ in self._streams.values(): task.cancel()
        await asyncio.gather(*(task for task, _ in self._streams.values()), return_exceptions=True)
        await self.client.close()
        if self.session: await self.session.close()

    def status(self) -> dict:
        "How we stand with the venue: the breaker, since when it does not answer, and until when it wants to be left alone."
        since = self.breaker.since and f'{self.breaker.since:%Y-%m-%dT%H:%M:%SZ}'
        return dict(venue=self.venue, breaker=self.breaker.state, failures=self.breaker.failures, since=since,
                    paused_s=round(self.limiter.paused_s, 1), banned_until=self.banned_until if self.limiter.paused_s else None)

    # what a venue says

    def _listen(self, status, reason, url, method, headers, body, *_):
        "ccxt's own hook for every HTTP answer."
        heard = _heard.get(None) or Heard(self.facts)
        heard.status, heard.body = status, body
        if status in (418, 429) or heard.codes & self.facts.slow:
            said = next((v for k, v in headers.items() if k.lower() == 'retry-after'), '')
            wait = float(said) if said.replace('.', '', 1).isdigit() else self.facts.pause_s
            self.limiter.pause(wait)
            if status == 418: self._banned(wait, heard.text)
        return body.strip()

    def _banned(self, seconds: float, why: str):
        self.banned_until = int(self.client.milliseconds() + seconds * 1000)
        if self.on_ban: self.on_ban(self.banned_until, f'{self.venue}: {why}')

    def _signing(self, sign: Callable) -> Callable:
        "The client's own signature, with the order's time and window where the venue wants them beside the order."
        def signed(path, api, method, params):
            window, pin = _window.get(), self.facts.pin
            with _pinned(self.client, pin, window) if window and pin else nullcontext(): request = sign(path, api, method, params)
            if window and pin and pin.header: request['headers'] = (request['headers'] or {}) | {pin.header: str(sum(window))}
            if method != 'GET' and (heard := _heard.get(None)): heard.sent = True
            return request
        return signed

    async def _take(self, what: str):
        "Wait for our share of the venue's patience."
        try: await self.limiter.take(self.facts.weights[what], _urgent.get())
        except Shut as error: raise Shut(f'{self.venue} is not asked about {what}: {error}') from None

    async def _read(self, what: str, call: Callable[[Heard], Awaitable]):
        "Ask, and ask again while there is no proper answer."
        again = lambda error: isinstance(error, Unreachable) and not isinstance(error, Shut)
        retries = stamina.retry_context(on=again, attempts=self.attempts, timeout=60, wait_initial=.05, wait_max=5, wait_jitter=.2)
        async for attempt in retries:
            with attempt: return await self._ask(what, call)

    async def _ask(self, what: str, call: Callable[[Heard], Awaitable]):
        if not _urgent.get(): self.breaker.check()   # an exit is tried all the same
        await self._take(what)
        heard = Heard(self.facts)
        _heard.set(heard)
        from ccxt.base.errors import BaseError
        # ccxt parses whatever arrives, so a garbled answer shows as any of these
        try: answer = await call(heard)
        except TradingError: raise
        except (BaseError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            self.breaker.good() if heard.proper else self.breaker.bad()
            codes, facts = heard.codes, self.facts
            if codes & facts.expired and what != 'time': await self.venue_time()
            elif codes & facts.no_entry or heard.status in (401, 403, 451):
                raise Refused(f'{self.venue} does not let us in ({heard.text}); check the API key, its rights and its IP list') from error
            elif codes & facts.malformed: raise Refused(f'{self.venue} refused to tell {what}: {heard.text}') from error
            raise Unreachable(f'{self.venue} did not answer about {what} ({heard.text}, {type(error).__name__}); try again later') from error
        self.breaker.good()
        return answer

    # the key

    async def rights(self) -> dict:
        "May this key withdraw? None where the venue does not tell."
        if self.facts.withdraws is None:
            return dict(withdraw=None, said=f'{self.venue} does not tell what a key may do; see there that it cannot withdraw')
        may = await self._read('account', lambda heard: self.facts.withdraws(self.client))
        return dict(withdraw=may, said=f'this key of {self.venue} may {"" if may else "not "}withdraw')

    async def refuse_withdrawals(self):
        rights = await self.rights()
        if rights['withdraw']: raise Refused(f'{rights["said"]}: make one that may only read and trade')

    # reads

    async def venue_time(self) -> int:
        "The venue's clock in ms, as it stood while we asked; signed reads follow it from then on."
        async def ask(heard): return int(await self.client.fetch_time())
        if not self.client.has['fetchTime']: return self.client.milliseconds()   # Bitunix tells no time
        now = await self._read('time', ask)
        if not self.facts.serial: self.client.options['timeDifference'] = self.client.milliseconds() - now
        return now

    async def stamp(self, urgent: bool = False) -> int:
        """A timestamp to sign an order with; urgent if the order gets out of a position.

        Takes the order's share of the limit too, so that nothing waits between the fence and the socket."""
        if urgent:
            with exits(): return await self.stamp()
        loop = asyncio.get_running_loop()
        await self._take('order')
        asked = loop.time()
        now = await self.venue_time()
        took = loop.time() - asked
        if took > 1: raise Unreachable(f'{self.venue} took {took:.1f} s to tell the time; nothing is sent while it is uncertain')
        return now

    async def bars(self, symbol: str, timeframe: str, since_ms: int, limit: int):
        "Closed bars from `since_ms` on: `limit` of them, or all up to now where there are fewer; venues give 200 to 1,000 an answer."
        from trading_lib.market.history import closed_bars, venue_now
        length, pages, have = timeframe_delta(timeframe) // timedelta(milliseconds=1), [], 0
        while True:
            async def ask(heard, since=since_ms, wanted=limit - have):
                now = await venue_now(self.client)
                return await closed_bars(self.client, symbol, timeframe, since, wanted, now), now
            page, now = await self._read('bars', ask)
            if _holes(page, since_ms, length): page = max(page, (await self._read('bars', ask))[0], key=len)   # a bar may come late
            pages.append(page)
            have += len(page)
            if not len(page): break
            since_ms = int(page.index[-1].value // 10**6) + length
            if have >= limit or since_ms + length > now: break
        return pages[0] if len(pages) == 1 else pd.concat([page for page in pages if len(page)] or pages[:1])

    async def balances(self) -> dict[str, tuple[Decimal, Decimal]]:
        "Free and locked, by asset."
        account = await self._account()
        return {asset: (money(account['free'][asset]), money(account['used'][asset])) for asset in account['total']}

    async def _account(self) -> dict:
        async def ask(heard):
            account = await self.client.fetch_balance()
            heard.json[self.facts.account_key]   # an empty answer parses as an empty account
            return account
        return await self._read('account', ask)

    async def rules(self, symbol: str) -> MarketRules:
        "What this market accepts, and what it charges this account."
        if symbol not in self.client.markets: raise BadInput(f'{self.venue} has no market {symbol}{did_you_mean(symbol, self.client.markets)}')
        market, facts = self.client.markets[symbol], self.facts
        step, tick = (money(market['precision'][what] or 0) for what in ('amount', 'price'))
        least = lambda what: money((market['limits'].get(what) or {}).get('min') or 0)
        return MarketRules(symbol, market['base'], market['quote'], step=step, tick=tick, min_quantity=least('amount'), min_notional=least('cost'),
                           fee=money(await self._taker_fee(symbol)), fee_in=facts.fee_in, unit=facts.unit, margin=facts.margin)

    async def _taker_fee(self, symbol: str) -> object:
        "As a fraction, of this account; the one published for the market where the venue tells no other."
        market, has = self.client.markets[symbol], self.client.has
        async def one(heard): return (await self.client.fetch_trading_fee(symbol))['taker']
        async def every(heard): return (await self.client.fetch_trading_fees())[symbol]['taker']
        if self.venue == 'binance':   # along with the account, which saves a request
            return (await self._account())['info'].get('commissionRates', {}).get('taker', market['taker'])
        ask = one if has.get('fetchTradingFee') else every if has.get('fetchTradingFees') else None
        found = await self._read('account', ask) if ask else None
        return market['taker'] if found is None else found

    async def lookup(self, order: Order) -> OrderState | None:
        "What became of an order, by its client id. None only where the venue itself says that there is none."
        async def ask(heard):
            try: found = await self.facts.find(self.client, self.facts.name.write(order.client_id), order.symbol, heard)
            except Exception:
                if heard.proper and heard.codes & self.facts.not_found: return None
                raise
            if found is None: return None
            try: return await self._state(order, found)
            except Unknown as error: raise Unreachable(str(error)) from error
        return await self._read('lookup', ask)

    async def open_orders(self, symbol: str) -> dict[str, dict]:
        "Orders resting at the venue, ours and others', by client id."
        async def ask(heard):
            found = await self.client.fetch_open_orders(symbol, None, self.facts.open_page)
            if len(rows(heard.json, *self.facts.open_at)) >= (self.facts.open_page or 10**6):
                raise Refused(f'{self.venue} has {self.facts.open_page} or more open orders of {symbol}, more than are read here; cancel some')
            return {self.facts.name.read(self.facts.told(order)) or order['id']: order for order in found}
        return await self._read('open', ask)

    async def trades(self, symbol: str, since: int | None = None, order_id: str | None = None) -> list[dict]:
        "Trades of this account, oldest first, each once."
        if order_id is not None: return await self._trades_of({'id': order_id, 'trades': []}, symbol)
        found, size, number, more = {}, self.facts.trades_page, self.facts.trades_from, {}
        while True:
            async def ask(heard, since=since, more=more):
                page = await self.client.fetch_my_trades(symbol, since, size, more)
                rows(heard.json, *self.facts.trades_at)
                return page
            page = await self._read('trades', ask)
            news = {trade['id']: trade for trade in page if trade['id'] not in found}
            found |= news
            if len(page) < size or not news: return sorted(found.values(), key=lambda trade: trade['timestamp'])
            if number: since, more = None, {number: max(int(trade['id']) for trade in page) + 1}
            else: more = {'until': page[0]['timestamp']}

    async def _trades_of(self, answer: dict, symbol: str) -> list[dict]:
        "The trades of one order, as it was answered."
        async def ask(heard): return await self.facts.trades(self.client, answer, symbol)
        return await self._read('trades', ask)

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
        kind, quantity, price, params = self._request(order, sent_at, window)
        heard = Heard(self.facts)
        _heard.set(heard)
        try:
            with _set(_window, (sent_at, window) if self.facts.fence else None):
                # a price would resize a market order; `Order` has none then
                answer = await self.client.create_order(order.symbol, kind, order.side, quantity, price, params)
            return await (self._received(order, answer) if self.facts.receipt else self._state(order, answer))
        except Unknown: raise
        except Exception as error:   # whatever went wrong, the order may be there
            if heard.rejected: raise Rejected(f'{self.venue}: {heard.text}') from error
            if not heard.sent: raise Rejected(f'{self.venue}: not sent, {type(error).__name__} {error}'[:300]) from error
            raise Unknown(f'{self.venue}: {heard.text} ({type(error).__name__})') from error

    def _request(self, order: Order, sent_at: int, window: int) -> tuple[str, str, str | None, dict]:
        "What ccxt is handed: kind, quantity, price and parameters. Raises `Rejected` for what the venue does not take; nothing was sent then."
        facts, kind = self.facts, order.kind
        quantity, price = self._exact(order, 'amount', order.quantity), self._exact(order, 'price', order.price)
        try: params = {facts.id_param: facts.name.write(order.client_id), **facts.extra}
        except BadInput as error: raise Rejected(f'{self.venue}: {error}') from error
        if order.stop_price is not None:
            if kind not in facts.stops: raise Rejected(f'{self.venue} keeps no {kind} orders that can be looked up; guard it here')
            params[facts.stops[kind]], kind = self._exact(order, 'price', order.stop_price), 'market'
        if kind not in facts.kinds: raise Rejected(f'{self.venue} takes no {kind} orders; it takes {", ".join(sorted(facts.kinds))}')
        if facts.shape: params |= facts.shape(self.client, order, quantity)
        if facts.fence:
            shortest, longest = facts.window_ms
            if not shortest <= window <= longest:
                raise Rejected(f'{self.venue}: the order window was {window} ms; it is {shortest} to {longest} here')
            if facts.window: params |= facts.window(sent_at, window)
        return kind, quantity, price, params

    async def _received(self, order: Order, answer: dict) -> OrderState:
        "The order behind a receipt, which says a number and no more."
        if not answer.get('id'): raise Unknown(f'{self.venue} answered without the number of {order.client_id}')
        if not (state := await self.lookup(order)): raise Unknown(f'{self.venue} took {order.client_id} as {answer["id"]} and does not show it yet')
        if state.id != answer['id']: raise Unknown(f'{self.venue} took {order.client_id} as {answer["id"]} and shows {state.id}')
        return state

    def _exact(self, order: Order, what: str, value: Decimal | None) -> str | None:
        "Digits as ccxt will send them; it rounds to the market's step without a word, so that is refused here."
        if value is None: return None
        from ccxt.base.errors import InvalidOrder
        try: rounded = getattr(self.client, f'{what}_to_precision')(order.symbol, f'{value:f}')
        except InvalidOrder: rounded = '0'   # less than one step
        if Decimal(rounded) != value:
            raise Rejected(f'{self.venue}: {what} {value:f} of {order.client_id} is no multiple of the step; ccxt would send {rounded}')
        return rounded

    async def cancel(self, order: Order) -> OrderState | None:
        "Ask for a cancel, then look what became of the order: the answer to a cancel proves nothing."
        with exits():
            await self._take('order')
            heard = Heard(self.facts)
            _heard.set(heard)
            from ccxt.base.errors import BaseError
            try: await self.facts.cancel(self.client, self.facts.name.write(order.client_id), order.symbol, heard)
            except (BaseError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError): pass   # the look-up tells
            return await self.lookup(order)

    async def _state(self, order: Order, answer: dict) -> OrderState:
        "A venue's answer about an order, if all of it fits; else `Unknown`."
        said = {'open': 'OPEN', 'closed': 'FILLED', 'canceled': 'CANCELED', 'expired': 'EXPIRED', 'rejected': 'REJECTED'}
        status, id = said.get(answer.get('status')), answer.get('id')
        asked = (order.client_id, order.side, order.quantity)
        got = self.facts.name.read(self.facts.told(answer)), answer.get('side'), money(answer.get('amount') or 0)
        if status is None or not id or got != asked: raise Unknown(f'{self.venue} answered {id} {answer.get("status")} {got} for {asked}')
        filled = money(answer.get('filled') or 0)
        fills = _fills_within(order, answer['info'])
        if sum(f.quantity for f in fills) != filled: fills = [_fill(order, trade) for trade in await self._trades_of(answer, order.symbol)]
        if status == 'OPEN' and filled: status = 'PARTIALLY_FILLED'
        try: state = advance(OrderState(order), status, fills, id=id, opened=answer.get('timestamp'), updated=answer.get('lastUpdateTimestamp'))
        except BadInput as error: raise Unknown(f'{self.venue}: {error}') from error
        if state.filled != filled: raise Unknown(f'{self.venue}: order {order.client_id} filled {filled}, its trades sum to {state.filled}')
        return state


def _holes(bars: pd.DataFrame, since_ms: int, length: int) -> bool:
    "Is a bar missing before the last of them?"
    opened = bars.index.as_unit('ms').asi8 if len(bars) else ()
    return len(opened) > 0 and opened[-1] - since_ms >= len(opened) * length


def _fills_within(order: Order, info: dict) -> list[Fill]:
    "The fills that Binance sends along with a new order."
    return [Fill(order.client_id, str(f['tradeId']), order.symbol, order.side, money(f['qty']), money(f['price']), money(f['commission']),
                 f['commissionAsset'], int(info['transactTime'])) for f in info.get('fills') or ()]


def _fill(order: Order, trade: dict) -> Fill:
    "A fill from ccxt's own form of a trade."
    return Fill(order.client_id, str(trade['id']), order.symbol, order.side, money(trade['amount']), money(trade['price']), money(trade['fee']['cost']),
                trade['fee']['currency'], int(trade['timestamp']))


@contextmanager
def _pinned(client, pin, window: tuple[int, int]) -> Iterator[None]:
    "While an order is signed, which waits for nothing: the client's clock stands where the journal says, and its window is the order's."
    sent_at, length = window
    nonce, client.nonce = client.nonce, lambda: sent_at
    before = client.options.get(pin.option)
    if pin.option: client.options[pin.option] = length
    try: yield
    finally:
        client.nonce = nonce
        if pin.option: client.options[pin.option] = before


def _take_turns(client):
    "One request at a time, each with a higher nonce than the one before: two on their way at once may arrive in the other order."
    turn, ask, last = asyncio.Lock(), client.fetch2, 0
    def nonce():
        nonlocal last
        last = max(last + 1, client.milliseconds())
        return last
    async def in_turn(*args, **how):
        async with turn: return await ask(*args, **how)
    client.nonce, client.fetch2 = nonce, in_turn
