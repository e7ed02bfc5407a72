"""A local exchange over live public data: the bars of a real venue, as they close, through its ccxt client."""
import asyncio
from collections.abc import Callable

from production.local_exchange.exchange import LocalExchange
from trading_lib.core.errors import BadInput, Unreachable
from trading_lib.market.bars import OHLCV
from trading_lib.market.history import closed_bars, venue_errors

PAGE = 500   # bars asked for at once


async def follow(
    exchange: LocalExchange,                             # made with `live=True`
    client,                                              # an async ccxt client; no keys are needed
    poll_s: float = 2.,
    say: Callable[[str], None] = lambda line: None,      # is told once when the data stop and once when they are back
):
    "Feed an exchange until cancelled; a venue that does not answer, or sends bars that cannot be, is asked again."
    well = True
    while True:
        try:
            while await _feed(exchange, client): pass
            if not well: say(f'{client.id} answers again')
            well = True
        except (Unreachable, BadInput) as error:
            if well: say(f'no new bars for now: {error}')
            well = False
        await asyncio.sleep(poll_s)


async def _feed(exchange: LocalExchange, client) -> bool:
    "Feed one page of what all markets have; True if there may be more."
    pages = {}
    for symbol in exchange.tapes:
        with venue_errors(client, symbol):
            pages[symbol] = await closed_bars(client, symbol, exchange.timeframe, exchange.times[-1] + exchange.length, PAGE)
    if not all(map(len, pages.values())): return False
    through = min(page.index[-1] for page in pages.values())
    rows: dict[int, dict] = {}
    for symbol, page in pages.items():
        for at, row in zip(page.index[page.index <= through].as_unit('ms').asi8.tolist(), page[OHLCV].to_numpy().tolist(), strict=False):
            rows.setdefault(at, {})[symbol] = row
    return any([exchange.feed(at, rows[at]) for at in sorted(rows)])
