"""Paper trading: the runner and the ccxt client of live, at a local exchange that plays stored bars, and replay beside it as the judge.

Nothing here decides or sends. It opens the venue, starts the runner, lets the venue's time pass when a bar is settled, and compares.
"""
import asyncio
import json
import re
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import aiohttp

from production import promotion as promoted
from production.journal import Journal
from production.local_exchange.child import start_child
from production.runner import Mandate, Runner
from trading_lib.core.errors import BadInput, Refused
from trading_lib.core.money import money
from trading_lib.core.settings import Settings
from trading_lib.evidence.dossier import Dossier, check_code, check_fresh, read_dossier
from trading_lib.execution.matching import QUOTES, split_symbol, spot_rules
from trading_lib.market.bars import Sample
from trading_lib.strategies.contract import Strategy, find

VENUE = 'binance'       # whose protocol the local exchange speaks
KEY, SECRET = 'local-key', 'local-secret'   # it checks signatures; there is nothing to protect


@dataclass(frozen=True)
class PaperRun:
    "A finished paper run beside the replay of the same bars."
    promotion: str
    account: str
    market: str
    start: str
    end: str
    bars: int
    orders: int
    fills: int
    final_equity: Decimal
    replay_equity: Decimal
    research_equity: float          # the kernel on the same bars, without the venue's filters
    differences: list[str]          # between paper and replay; empty when they agree to the last digit
    bars_per_s: float
    folder: Path

    @property
    def agrees(self) -> bool: return not self.differences

    def json(self) -> dict: return asdict(self) | dict(agrees=self.agrees, folder=str(self.folder))

    def text(self) -> str:
        verdict = ('orders, fills, balances and equity of every bar equal replay exactly' if self.agrees
                   else 'paper and replay DIFFER: ' + '; '.join(self.differences[:5]))
        return '\n'.join([f'{self.promotion} on paper, {self.market}, {self.bars} bars {self.start} to {self.end}',
                          f'  orders {self.orders}, fills {self.fills}, {self.bars_per_s:.0f} bars a second through ccxt',
                          f'  final equity  paper {self.final_equity:f}  replay {self.replay_equity:f}  research {self.research_equity:.2f}',
                          f'  {verdict}'])


def market_of(symbol: str) -> str:
    "The market a sample's symbol means, as ccxt writes it: a file called BTCUSDT_1h_2020 holds BTC/USDT."
    if '/' in symbol: return '/'.join(split_symbol(symbol))
    pair = re.match(rf'([A-Za-z0-9]+)[-_]({"|".join(QUOTES)})(?![A-Za-z0-9])', symbol, re.IGNORECASE)
    if pair: return f'{pair[1]}/{pair[2]}'.upper()
    word = re.match(r'[A-Za-z0-9]*', symbol)[0].upper() or 'COIN'
    try: return '/'.join(split_symbol(word))
    except BadInput: return f'{word}/USDT'


def trade_on_paper(promotion: str, settings: Settings, data: str | None = None, bars: int = 300, account: str | None = None,
                   allow_gaps: bool = False, say: Callable[[str], None] = print, progress: Callable[[int, int], None] | None = None) -> PaperRun:
    "Run a promotion through its last `bars` bars, from where it was left if it was interrupted, and compare with replay."
    dossier = read_dossier(promotion, settings.folder('promotions'))
    strategy = find(dossier.strategy)
    check_fresh(dossier, datetime.now(UTC))
    check_code(dossier, strategy)
    sample = _sample(dossier, settings, data, allow_gaps)
    first = len(sample.bars) - bars
    if first < dossier.window_bars: raise BadInput(f'{len(sample.bars)} bars are too few to trade {bars}: the strategy is shown {dossier.window_bars} before the first; choose fewer with --bars')
    account = account or _account(settings.folder('runs') / 'paper' / dossier.id)
    folder = settings.folder('runs') / 'paper' / dossier.id / account
    mandate = Mandate(dossier.digest, account, strategy, dossier.params, sample.symbol, sample.timeframe, dossier.window_bars, _ms(sample, first),
                      buffer=settings.execution.cash_buffer_bps / 10_000, order_window_ms=settings.execution.order_window_ms, poll_s=settings.execution.poll_s,
                      feeds=promoted.feeds_of(dossier))
    price = float(sample.bars.close.iloc[first])
    rules = spot_rules(sample.symbol, price, money(dossier.costs['fee_bps']) / 10_000)
    venue = dict(first=first + 1, balances={rules.quote: str(money(dossier.initial_equity))}, slippage=str(money(dossier.costs['slippage_bps']) / 10_000))
    say(f'{sample}: trading the last {bars} on paper as {account}' + (', from where it was left' if (folder / 'exchange.log').exists() else ''))
    child = start_child([sample], folder, rules={sample.symbol: rules}, **venue)
    try:
        with Journal.open(settings.journal_url) as journal:
            began = time.monotonic()
            asyncio.run(_trade(mandate, journal, child.url, sample, settings, say, progress))
            speed = bars / max(time.monotonic() - began, 1e-9)
            done = _compared(dossier, strategy, mandate, journal, sample, rules, first, folder, speed)
    finally: child.stop()
    (folder / 'result.json').write_text(json.dumps(done.json(), default=str, indent=1))
    return done
