"""A table per venue. Sources: the venue's own error lists, and the tables of ccxt 4.5.90 where they agree.

| venue | validity window | look-up by client id | stops kept there | test network |
|---|---|---|---|---|
| binance | timestamp + recvWindow | yes | stop, take-profit | testnet |
| bybit | timestamp + recv-window header | open orders, then history | stop, take-profit (unverified) | testnet |
| okx | expTime header | yes | guarded locally: they live under another number | a header on the production host |
| kraken | deadline of the order | open and closed orders by cl_ord_id | stop, take-profit | none |
| coinbase | none, but a repeated client id gives back the first order | lists only | guarded locally (stop-limit only) | none in ccxt |
| kucoin | none to choose (it refuses what is older than 5 s) | yes | guarded locally: they live in another book | none in ccxt |
| onetrading | none | yes | guarded locally (stop-limit only) | none in ccxt |
| bitunix | none documented | yes | guarded locally: they belong to a position | none |
"""
from production.venues import facts as f
from production.venues.facts import Facts, Pin


def _codes(text: str) -> frozenset[str]: return frozenset(text.split(' | ') if ' | ' in text else text.split())
def _all(status: int, text: str) -> frozenset[tuple[int, str]]: return frozenset((status, code) for code in _codes(text))


STOPS = {'stop': 'stopLossPrice', 'take_profit': 'takeProfitPrice'}
ONE_EACH = dict(time=1, order=1, lookup=1, account=1, open=1, trades=1, bars=1, markets=1)

BINANCE = Facts(
    # filter failure, malformed, new order rejected; Binance's errors.md
    rejections=_all(400, '-1013 -1100 -1101 -1102 -1104 -1106 -1111 -1115 -1116 -1117 -1121 -2010'), duplicate='Duplicate order',
    not_found=_codes('-2013'), expired=_codes('-1021'), malformed=frozenset(map(str, range(-1199, -1099))), no_entry=_codes('-1002 -1022 -2014 -2015'),
    codes=f.numbered('code'), name=f.plain36, fence=True, window=f.binance_window, stops=STOPS,
    account_key='balances', open_at=(), trades_at=(), trades_from='fromId', trades=f.trades_under('orderId'), withdraws=f.binance_rights,
    test_hosts=('testnet.binance.vision', 'binancefuture.com'),
    weights=dict(time=1, order=1, lookup=4, account=20, open=6, trades=20, bars=2, markets=20), per_minute=6_000,
    options=dict(defaultType='spot', fetchMarkets={'types': ['spot']}, fetchCurrencies=False, fetchMargins=False))

BYBIT = Facts(
    # balance, sizes, prices, symbol, side, type; not 170007 and 170146 (time-outs), 170141 (duplicate), 170210 (rejected, it does not say why)
    rejections=_all(200, """170033 170115 170116 170117 170121 170124 170130 170131 170132 170133 170134 170135 170136 170137 170140 170148
                            170151 170157 170159 170192 170193 170194 110003 110004 110007 110012 110094"""),
    not_found=_codes('170213 110001'), expired=_codes('10002'), malformed=_codes('10001 170121'), slow=_codes('10006 10018'),
    no_entry=_codes('10003 10004 10005 10007 10008 10009 10010 10024 10027 10028 10029'),
    codes=f.numbered('retCode', 'ret_code'), name=f.plain36, fence=True, pin=Pin(option='recvWindow'), stops=STOPS, receipt=True,
    account_key='result', open_at=('result', 'list'), open_page=50, trades_at=('result', 'list'), trades_page=100,
    find=f.find_at_bybit, cancel=f.cancel_by('orderLinkId'), withdraws=f.bybit_rights,
    test_hosts=('-testnet.bybit.com',), weights=ONE_EACH, per_minute=600,
    # that the account is a unified one is said here, so that no order waits for that question; classic ones are closed to new users
    options=dict(defaultType='spot', fetchMarkets={'types': ['spot']}, enableUnifiedMargin=False, enableUnifiedAccount=True, unifiedMarginStatus=6))

OKX = Facts(
    # under `sCode`; not 51016 (duplicate), 50004 (time-out), 50026 (system error)
    rejections=_all(200, """51000 51001 51004 51005 51006 51008 51015 51020 51025 51031 51100 51116 51118 51119 51120 51121 51122 51127 51131
                            51137 51138 51201 51202 51203 51204"""),
    not_found=_codes('51603'), expired=_codes('50102 50036'), malformed=_codes('50014 51000 51001 51003 51015'), slow=_codes('50011 50061'),
    no_entry=_codes('50030 50100 50101 50103 50104 50105 50110 50111 50113 50114 50119 50120'),
    codes=f.okx_codes, name=f.joined, fence=True, pin=Pin(header='expTime'), receipt=True,
    account_key='data', open_at=('data',), open_page=100, trades_at=('data',), trades_page=100, withdraws=f.okx_rights,
    test_header=('x-simulated-trading', '1'), credentials=('apiKey', 'secret', 'password'), weights=ONE_EACH, per_minute=600,
    # an order, not a batch of one: a batch answers 2 where part of it failed. Quantities are of the base asset.
    options=dict(defaultType='spot', fetchMarkets={'types': ['spot']}, createOrder='privatePostTradeOrder', tgtCcy='base_ccy'))

KRAKEN = Facts(
    # not EService:* and EGeneral:Internal error, where the order may be there
    rejections=_all(200, 'EOrder:Insufficient funds | EOrder:Order minimum not met | EOrder:Cost minimum not met | EOrder:Tick size check failed | '
                         'EOrder:Invalid price | EOrder:Orders limit exceeded | EGeneral:Invalid arguments | EQuery:Unknown asset pair | '
                         'EQuery:Invalid asset pair'),
    not_found=frozenset(), malformed=_codes('EGeneral:Invalid arguments | EQuery:Unknown asset pair | EQuery:Invalid asset pair'),
    no_entry=_codes('EAPI:Invalid key | EAPI:Invalid signature | EGeneral:Permission denied | EAuth:Account temporary disabled'),
    slow=_codes('EAPI:Rate limit exceeded | EOrder:Rate limit exceeded | EGeneral:Temporary lockout | EGeneral:Too many requests'), pause_s=15,
    codes=f.kraken_codes, name=f.uuid, told=f.told_by_kraken, fence=True, window=f.kraken_window, window_ms=(3_000, 60_000), stops=STOPS, receipt=True,
    account_key='result', open_at=('result', 'open'), trades_at=('result', 'trades'), trades_page=50,
    find=f.find_at_kraken, trades=f.trades_at_kraken, withdraws=f.kraken_rights, serial=True, currencies=True,
    fee_in='quote', extra=dict(oflags='fciq'),   # fciq: the fee is taken in the quote asset, whichever side
    # the counter of an intermediate account: 20 at most, and half a point back each second; public requests and orders are counted elsewhere
    weights=dict(time=.2, order=.2, lookup=2, account=1, open=1, trades=2, bars=.2, markets=.2), per_minute=35)

COINBASE = Facts(
    # success false: in error_response.error, or in preview_failure_reason
    rejections=_all(200, """INSUFFICIENT_FUND UNSUPPORTED_ORDER_CONFIGURATION INVALID_PRODUCT_ID INVALID_SIDE INVALID_LIMIT_PRICE INVALID_SIZE_PRECISION
                            INVALID_PRICE_PRECISION PREVIEW_INSUFFICIENT_FUND PREVIEW_INVALID_BASE_SIZE_TOO_SMALL PREVIEW_INVALID_BASE_SIZE_TOO_LARGE
                            PREVIEW_INVALID_QUOTE_SIZE_TOO_SMALL PREVIEW_INVALID_QUOTE_SIZE_TOO_LARGE PREVIEW_INVALID_SIZE_PRECISION
                            PREVIEW_INVALID_PRICE_PRECISION PREVIEW_INVALID_LIMIT_PRICE PREVIEW_INVALID_PRODUCT_ID"""),
    not_found=frozenset(), malformed=_codes('INVALID_ARGUMENT invalid_request validation_error'), slow=_codes('rate_limit_exceeded resource_exhausted'),
    no_entry=_codes('PERMISSION_DENIED authentication_error unauthorized invalid_token revoked_token expired_token invalid_scope'),
    codes=f.coinbase_codes, name=f.plain128, receipt=True, id_param='client_order_id', shape=f.coinbase_market,
    account_key='accounts', open_at=('orders',), open_page=250, trades_at=('fills',), trades_page=250,
    find=f.find_at_coinbase, cancel=f.cancel_at_coinbase, trades=f.trades_under('order_ids', many=True), withdraws=f.coinbase_rights,
    fee_in='quote', weights=dict(ONE_EACH, lookup=2), per_minute=600,
    # ccxt would ask the old wallets, and leave out accounts whose kind is written short, as the recorded ones are
    options=dict(defaultType='spot', fetchBalance='v3PrivateGetBrokerageAccounts',
                 v3Accounts=['ACCOUNT_TYPE_CRYPTO', 'ACCOUNT_TYPE_FIAT', 'CRYPTO', 'FIAT']))

KUCOIN = Facts(
    # not 400100, one code for many things, nor 126033 and 126044 (duplicates)
    rejections=_all(200, '200004 210021 230003 260100 600100 600101 400200 400350 400370 400500 400600 400760'),
    not_found=_codes('order not exist | 126043'), expired=_codes('400002'), malformed=_codes('400000 400600'), slow=_codes('429000'),
    no_entry=_codes('400001 400003 400004 400005 400006 400007 411100'),
    codes=f.kucoin_codes, name=f.plain40, receipt=True, id_param='clientOid', cancel=f.cancel_by('clientOid'), withdraws=f.kucoin_rights,
    account_key='data', open_at=('data',), trades_at=('data', 'items'), trades_page=100,
    fee_in='quote', credentials=('apiKey', 'secret', 'password'), weights=ONE_EACH, per_minute=600,
    options=dict(defaultType='spot', fetchMarkets={'types': ['spot']}, hf=True, uta=False))

ONETRADING = Facts(
    # the words are documented, their status is not: 400 is what the venue's other refusals carry
    rejections=_all(400, """INVALID_INSTRUMENT_CODE INVALID_ORDER_TYPE INVALID_AMOUNT INVALID_PRICE INVALID_SIDE NEGATIVE_AMOUNT NEGATIVE_PRICE
                            MIN_SIZE_NOT_SATISFIED MIN_NOTIONAL_ERROR BAD_AMOUNT_PRECISION BAD_PRICE_PRECISION MISSING_PRICE MISSING_ORDER_TYPE
                            MISSING_SIDE INVALID_CLIENT_UUID INSUFFICIENT_FUNDS MAX_OPEN_ORDERS_EXCEEDED"""),
    not_found=_codes('ORDER_NOT_FOUND'), malformed=_codes('INVALID_INSTRUMENT_CODE INVALID_QUERY INVALID_CLIENT_UUID INVALID_ORDER_ID'),
    no_entry=_codes("""INVALID_CREDENTIALS MISSING_CREDENTIALS INVALID_APIKEY INVALID_SCOPES INVALID_IP_RESTRICTION APIKEY_REVOKED APIKEY_EXPIRED
                       CLIENT_IP_BLOCKED MISSING_PERMISSION"""), slow=_codes('RATELIMIT CF_RATELIMIT'),
    codes=f.numbered('error'), name=f.uuid, receipt=True, kinds=frozenset({'limit'}),   # its REST takes limit orders only
    account_key='balances', open_at=('order_history',), open_page=100, trades_at=('trade_history',), trades_page=100,
    find=f.find_at_onetrading, credentials=('apiKey',), currencies=True, weights=ONE_EACH, per_minute=200)

BITUNIX = Facts(
    # not 10001 (network), 10005 and 10006 (too fast), 30042 (duplicate client id)
    rejections=_all(200, """20001 20002 20003 20008 20011 20012 20015 30001 30002 30003 30013 30014 30015 30016 30017 30018 30019 30039 30040"""),
    not_found=_codes('20007'), malformed=_codes('10002 10008 20001'), no_entry=_codes('10003 10004 10007 403 20011 30040'), slow=_codes('10005 10006'),
    codes=f.numbered('code'), name=f.plain36, receipt=True,
    account_key='data', open_at=('data', 'orderList'), open_page=100, trades_at=('data', 'tradeList'), trades_page=100,
    fee_in='quote', margin=True, weights=ONE_EACH, per_minute=300)

VENUES = {'binance': BINANCE, 'bybit': BYBIT, 'okx': OKX, 'kraken': KRAKEN, 'coinbase': COINBASE, 'kucoin': KUCOIN, 'onetrading': ONETRADING,
          'bitunix': BITUNIX}
