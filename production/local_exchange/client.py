"""An unmodified ccxt client at the local exchange: its socket is rewired, its addresses are not.

ccxt hangs error tables and websocket parsing on the production address, so a client whose `urls` were changed would behave unlike the
live one. What is swapped instead is the thing that opens connections.

The venue's clock is not ours, and it jumps when a bar is released: give signed requests its time (`params={'timestamp': …}`), and call
`load_time_difference()` before the user streams of ccxt.pro, which sign themselves.
"""
import aiohttp
import yarl

from trading_lib.core.errors import Refused

HOSTS = frozenset({'api.binance.com', 'stream.binance.com', 'ws-api.binance.com'})
OKX_HOSTS = frozenset({'www.okx.com'})   # its client needs `password=okx.PASSPHRASE`, and `load_time_difference()` before it signs
OKX_OPTIONS = {'options': {'fetchMarkets': {'types': ['spot']}}, 'enableRateLimit': False}
OPTIONS = {
    'options': {'fetchMarkets': {'types': ['spot']}, 'fetchCurrencies': False, 'fetchMargins': False, 'warnOnFetchOpenOrdersWithoutSymbol': False},
    'enableRateLimit': False,   # ccxt's throttle runs on wall time and is shared by nobody; the caller has a better one
}


class LocalSession:
    "What ccxt needs of an aiohttp session, with the venue's hosts led to one local port and every other host refused."

    def __init__(self, base_url: str, hosts: frozenset[str] = HOSTS):
        self.base, self.hosts = yarl.URL(base_url), hosts
        self._session: aiohttp.ClientSession | None = None

    def local(self, url: object) -> yarl.URL:
        "The local address for an address of the venue; raises `Refused` for any other."
        url = url if isinstance(url, yarl.URL) else yarl.URL(url, encoded=True)
        if url.host not in self.hosts:
            raise Refused(f'{url.host} was asked for, but this client is tied to the local exchange at {self.base}; known hosts: {", ".join(sorted(self.hosts))}')
        return yarl.URL(f'{str(self.base).rstrip("/")}{url.raw_path_qs}', encoded=True)

    @property
    def session(self) -> aiohttp.ClientSession:
        if self._session is None or self._session.closed:
            self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=False, limit=32), trust_env=False)
        return self._session

    @property
    def cookie_jar(self): return self.session.cookie_jar

    @property
    def headers(self): return self.session.headers

    def get(self, url, **how): return self.session.get(self.local(url), **how)
    def post(self, url, **how): return self.session.post(self.local(url), **how)
    def put(self, url, **how): return self.session.put(self.local(url), **how)
    def delete(self, url, **how): return self.session.delete(self.local(url), **how)
    def ws_connect(self, url, **how): return self.session.ws_connect(self.local(url), **how)

    async def close(self):
        if self._session: await self._session.close()


def rewire(client, base_url: str, hosts: frozenset[str] = HOSTS) -> LocalSession:
    "Lead an async ccxt client (also ccxt.pro) to a local exchange. ccxt does not close a session it was given: close what this returns."
    client.session = LocalSession(base_url, hosts)
    client.own_session = False   # or ccxt would open a real one when it misses its own
    return client.session
