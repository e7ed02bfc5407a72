"""What must be known of a venue before an order may be sent there, and the small differences that ccxt leaves.

A table says which answers mean *the order does not exist*. That list is short on purpose: whatever is not in it is unknown and gets looked up.
"""
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal

from trading_lib.core.errors import BadInput

Codes = frozenset[str]

# codes: what went wrong, out of the body of an answer, as the venue writes it


def numbered(*names: str) -> Callable[[object], Codes]:
    "A code that stands under one of these names at the top of the body; 0 is none."
    def codes(body):
        found = next((body[name] for name in names if body.get(name) is not None), None) if isinstance(body, dict) else None
        return frozenset() if found is None or str(found) in ('0', '200000') else frozenset({str(found)})
    return codes


def okx_codes(body: object) -> Codes:
    "Of each order in the answer (`sCode`), or else of the whole: '1' alone says only that all of it failed."
    if not isinstance(body, dict): return frozenset()
    rows = [row for row in body.get('data') or () if isinstance(row, dict)]
    inner = {str(row['sCode']) for row in rows if str(row.get('sCode') or '0') != '0'}
    return frozenset(inner or {str(body.get('code', '0'))} - {'0'})


def kraken_codes(body: object) -> Codes:
    "The errors, without what they append after the second colon: EGeneral:Invalid arguments:volume."
    said = body.get('error') if isinstance(body, dict) else None
    return frozenset(':'.join(str(error).split(':')[:2]) for error in said or () if str(error).startswith('E'))


def coinbase_codes(body: object) -> Codes:
    "The reason of the failure; where that is unknown, the reason for which the preview failed."
    if not isinstance(body, dict): return frozenset()
    inner = body.get('error_response') if isinstance(body.get('error_response'), dict) else body
    said = [inner.get('error'), inner.get('preview_failure_reason'), *(row.get('id') for row in body.get('errors') or () if isinstance(row, dict))]
    return frozenset([next((str(word) for word in said if word and word != 'UNKNOWN_FAILURE_REASON'), '')]) - {''}


def kucoin_codes(body: object) -> Codes:
    "One code stands for many things, also for an order that is not there; its words tell them apart."
    codes, words = numbered('code')(body), str(body.get('msg')).lower() if isinstance(body, dict) else ''
    return frozenset({'order not exist'}) if codes and 'order' in words and re.search(r'not[ _]exist', words) else codes


# client ids: ours are 'tw-' and 30 hex digits; a venue may want another form, which is read back

OURS = re.compile(r'tw-([0-9a-f]{30})')


@dataclass(frozen=True)
class Name:
    "How a client id is written on the wire, and read back from it."
    write: Callable[[str], str]
    read: Callable[[str], str]


def _plain(limit: int, alphabet: str) -> Name:
    def write(name):
        if len(name) > limit or not re.fullmatch(f'[{alphabet}]+', name):
            raise BadInput(f'client id {name}: at most {limit} characters of [{alphabet}] here')
        return name
    return Name(write, lambda wire: wire)


def _write_joined(name: str) -> str:
    if not re.fullmatch(r'tw-[0-9A-Za-z]{1,30}', name): raise BadInput(f'client id {name}: tw- and at most 30 letters and digits here')
    return name.replace('-', '')


def _write_uuid(name: str) -> str:
    if not (ours := OURS.fullmatch(name)): raise BadInput(f'client id {name}: a UUID is made of tw- and 30 hex digits only')
    digits = f'7e{ours[1]}'   # 7e marks ours
    return '-'.join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


def _read_uuid(wire: str) -> str:
    digits = wire.replace('-', '').lower()
    return f'tw-{digits[2:]}' if re.fullmatch('7e[0-9a-f]{30}', digits) else wire


def _read_joined(wire: str) -> str: return f'tw-{wire[2:]}' if re.fullmatch('tw[0-9A-Za-z]{1,30}', wire) else wire


plain36, plain40, plain128 = (_plain(limit, '0-9A-Za-z_-') for limit in (36, 40, 128))
joined = Name(_write_joined, _read_joined)   # OKX: letters and digits, 32 at most
uuid = Name(_write_uuid, _read_uuid)


def told(order: dict) -> str:
    "The client id that the venue tells of an order, in ccxt's form of it."
    return order['clientOrderId'] or ''

def told_by_kraken(order: dict) -> str:
    "ccxt puts the `userref` where there is none, 0 for most."
    return order['info'].get('cl_ord_id') or ''


# looking up an order, by its client id on the wire: ccxt's form of it, or None where the venue itself says that there is none


def rows(body: object, *path: str) -> list | dict:
    "What lies under a path; ccxt reads a body without it as an empty list, so that is refused here."
    for name in path: body = body[name]
    if not isinstance(body, list | dict): raise ValueError(f'no list under {".".join(path)}')
    return body


async def find_by_id(client, wire: str, symbol: str, heard) -> dict | None:
    return await client.fetch_order(None, symbol, {'clientOrderId': wire})


async def find_at_bybit(client, wire: str, symbol: str, heard) -> dict | None:
    "Among the open and just closed ones, then in the history, which comes some seconds late."
    for ask in (client.fetch_open_orders, client.fetch_canceled_and_closed_orders):
        found = await ask(symbol, None, None, {'orderLinkId': wire})
        rows(heard.json, 'result', 'list')
        for order in found:
            if order['clientOrderId'] == wire: return order


async def find_at_kraken(client, wire: str, symbol: str, heard) -> dict | None:
    "ccxt asks by `userref`, which Kraken does not keep unique; the lists take the client id."
    for ask, where in ((client.fetch_open_orders, 'open'), (client.fetch_closed_orders, 'closed')):
        found = await ask(symbol, None, None, {'clientOrderId': wire, 'trades': 'true'})
        rows(heard.json, 'result', where)
        for order in found:
            if told_by_kraken(order) == wire: return order


async def find_at_coinbase(client, wire: str, symbol: str, heard) -> dict | None:
    "There is no question by client id: the newest orders of the market are read, page by page."
    cursor = {}
    for _ in range(10):
        found = await client.fetch_orders(symbol, None, 250, cursor)
        rows(heard.json, 'orders')
        for order in found:
            if order['clientOrderId'] == wire: return order
        if not heard.json.get('has_next'): return None
        cursor = {'cursor': heard.json['cursor']}
    raise ValueError('it is not among the newest 2,500 orders')


async def find_at_onetrading(client, wire: str, symbol: str, heard) -> dict | None:
    return client.parse_order(await client.privateGetAccountOrdersClientClientId({'client_id': wire}), client.market(symbol))


# the trades of one order

async def trades_of(client, answer: dict, symbol: str) -> list[dict]:
    return await client.fetch_order_trades(answer['id'], symbol)


async def trades_at_kraken(client, answer: dict, symbol: str) -> list[dict]:
    ids = [trade['id'] for trade in answer['trades']]
    return await client.fetch_order_trades(answer['id'], symbol, None, None, {'trades': ids}) if ids else []


def trades_under(name: str, many: bool = False) -> Callable:
    "Asked for with the order's number under this name."
    async def trades(client, answer, symbol):
        found = await client.fetch_my_trades(symbol, None, None, {name: [answer['id']] if many else answer['id']})
        return [trade for trade in found if trade['order'] == answer['id']]
    return trades


# cancelling

def cancel_by(name: str) -> Callable:
    async def cancel(client, wire, symbol, heard): await client.cancel_order(None, symbol, {name: wire})
    return cancel


async def cancel_at_coinbase(client, wire: str, symbol: str, heard):
    found = await find_at_coinbase(client, wire, symbol, heard)
    if found: await client.cancel_order(found['id'], symbol)


# the validity window: what a request carries so that the venue refuses it for ever once its clock is past `sent_at + window`

def binance_window(sent_at: int, window: int) -> dict: return {'timestamp': sent_at, 'recvWindow': window}

def kraken_window(sent_at: int, window: int) -> dict:
    until = datetime.fromtimestamp((sent_at + window) / 1000, UTC)
    return {'deadline': f'{until:%Y-%m-%dT%H:%M:%S}.{until.microsecond // 1000:03}Z'}


@dataclass(frozen=True)
class Pin:
    "Where the window is no parameter of the order: an option of the client while it signs, or a header."
    option: str = ''
    header: str = ''


# rights of a key: may it withdraw?

def _flag(said: object) -> bool: return str(said).lower() == 'true'

async def binance_rights(client) -> bool: return _flag((await client.sapiGetAccountApiRestrictions())['enableWithdrawals'])
async def bybit_rights(client) -> bool: return 'Withdraw' in (await client.privateGetV5UserQueryApi())['result']['permissions']['Wallet']
async def okx_rights(client) -> bool: return 'withdraw' in (await client.privateGetAccountConfig())['data'][0]['perm'].split(',')
async def kucoin_rights(client) -> bool: return 'withdraw' in (await client.privateGetUserApiKey())['data']['permission'].lower()
async def kraken_rights(client) -> bool: return any('withdraw' in name for name in (await client.privatePostGetApiKeyInfo())['result']['permissions'])
async def coinbase_rights(client) -> bool: return _flag((await client.v3PrivateGetBrokerageKeyPermissions())['can_transfer'])


def coinbase_market(client, order, quantity: str) -> dict:
    "ccxt turns a market buy into an amount to spend; this asks for the quantity. `cost` only silences its check."
    if order.kind != 'market' or order.side != 'buy': return {}
    return {'cost': '1', 'order_configuration': {'market_market_ioc': {'base_size': quantity}}}


@dataclass(frozen=True)
class Facts:
    "What is known of a venue. Codes are written as the venue writes them."
    rejections: frozenset[tuple[int, str]]       # (HTTP status, code): the order does not exist, for certain
    not_found: Codes                             # the answer that means there is no such order
    account_key: str                             # what a proper answer about the account contains
    weights: dict[str, float]                    # request weight by what is asked
    per_minute: int                              # weight a minute, where nothing else is said
    codes: Callable[[object], Codes]             # the codes in a body
    name: Name                                   # how client ids are written there
    open_at: tuple[str, ...]                     # the path to the list in an answer about open orders
    open_page: int | None = None                 # how many of them one answer holds, where it is bounded
    trades_at: tuple[str, ...] = ()              # the same for trades
    trades_page: int = 1000
    trades_from: str = ''                        # the parameter that asks for trades from a number on; without it pages go back from the newest
    duplicate: str = ''                          # in the text of a rejection: the first order under this client id is there
    expired: Codes = frozenset()                 # a request outside its validity window
    malformed: Codes = frozenset()               # questions that are wrong however often they are asked
    no_entry: Codes = frozenset()                # keys that are wrong or lack a right
    slow: Codes = frozenset()                    # too many requests, where the status does not say so
    pause_s: float = 1                           # how long to be quiet then, if the venue does not say
    fence: bool = False                          # does it honour a timestamp and a validity window?
    window: Callable[[int, int], dict] | None = None   # as parameters of the order
    pin: Pin | None = None                             # or beside it
    window_ms: tuple[int, int] = (1, 60_000)     # shortest and longest
    kinds: frozenset[str] = frozenset({'market', 'limit'})   # of orders it takes, stops apart
    stops: Mapping[str, str] = field(default_factory=dict)   # kind → ccxt's parameter; a kind that is missing is guarded locally
    receipt: bool = False                        # is a new order answered with its number only?
    id_param: str = 'clientOrderId'
    told: Callable[[dict], str] = told           # the client id in ccxt's form of an order
    extra: Mapping = field(default_factory=dict)             # parameters of every order
    shape: Callable | None = None                            # (client, order, quantity) → more of them
    find: Callable[..., Awaitable] = find_by_id
    trades: Callable[..., Awaitable] = trades_of
    cancel: Callable[..., Awaitable] = cancel_by('clientOrderId')
    withdraws: Callable[..., Awaitable] | None = None        # may this key withdraw?
    fee_in: str = 'received'                     # or 'quote'
    unit: Decimal = Decimal('1e-8')              # the smallest amount of an asset
    margin: bool = False                         # contracts on margin: positions instead of balances
    test_hosts: tuple[str, ...] = ()             # ends of the host names of its test network
    test_header: tuple[str, str] | None = None   # or what marks a request as simulated
    credentials: tuple[str, ...] = ('apiKey', 'secret')
    serial: bool = False                         # its nonce must rise: one signed request at a time, and no clock but ours
    currencies: bool = False                     # does ccxt need them to read the venue's asset names?
    options: dict = field(default_factory=dict)  # of the ccxt client
