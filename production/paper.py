"""Paper trading: the runner and the ccxt client of live, at a local exchange that plays stored bars, and replay beside it as the judge.

Nothing here decides or sends. It opens the venue, starts the runner, lets the venue's time pass when a bar is settled, and compares.
"""
import asyncio
import json
import re
import time
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import aiohttp

from production import promotion as promoted
from production.gate import limits_of
from production.gateway import connect
from production.journal import HAND, Journal
from production.journal.telling import Alerts
from production.local_exchange.child import start_child
from production.local_exchange.client import rewire
from production.runner import Mandate, Runner
from trading_lib.backtest.kernel import Simulation, simulate
from trading_lib.backtest.replay import VenueReplay, replay_venue
from trading_lib.core.errors import BadInput, Refused
from trading_lib.core.money import money
from trading_lib.core.settings import Settings
from trading_lib.core.time import timeframe_delta
from trading_lib.evidence.dossier import Dossier, check_fresh, read_dossier
from trading_lib.execution.costs import Costs
from trading_lib.execution.matching import QUOTES, MarketRules, split_symbol, spot_rules
from trading_lib.market.bars import Sample, stamp
from trading_lib.market.store import Store, load_sample, write_whole
from trading_lib.risk.limits import Limits
from trading_lib.strategies.contract import Strategy
from trading_lib.strategies.feeds import decider, with_needs

VENUE = 'binance'       # whose protocol the local exchange speaks
KEY, SECRET = 'local-key', 'local-secret'   # it checks signatures; there is nothing to protect
WEIGHT = 10_000_000     # its request weight a minute: no limit, it is ours
MOST = 20                # differences that are told one by one
HISTORY = 500           # bars that have closed when the exchange is served by itself


@dataclass(frozen=True)
class PaperBooks:
    "What the journal and the venue say at the end."
    decisions: list[dict]
    orders: list[dict]
    fills: list[dict]
    balances: dict[str, Decimal]


@dataclass(frozen=True)
class PaperRun:
    "A finished paper run beside the replay of the same bars."
    promotion: str
    account: str
    market: str
    start: str
    end: str
    bars: int
    side_by_side: list[dict]        # one row each for research, replay and paper
    differences: list[str]          # between paper and replay; empty when they agree to the last digit
    bars_per_s: float
    synthetic: bool
    folder: Path

    @property
    def agrees(self) -> bool: return not self.differences

    def json(self) -> dict: return asdict(self) | dict(agrees=self.agrees, folder=str(self.folder))

    def text(self) -> str:
        verdict = ('paper = replay: orders, fills, balances and the equity of every bar are equal to the last digit' if self.agrees
                   else 'paper and replay DIFFER: ' + '; '.join(self.differences[:5]))
        made = ' (a synthetic market)' if self.synthetic else ''
        return '\n'.join([f'{self.promotion} on paper as {self.account}: {self.market}{made}, {self.bars} bars from {self.start} to {self.end}',
                          '', table(self.side_by_side), '', verdict, f'{self.bars_per_s:.0f} bars a second through ccxt; the journal: trading orders'])


def table(rows: list[dict]) -> str:
    "Rows as aligned columns, numbers to the right."
    cells = [list(rows[0]), *([f'{v:,.2f}' if isinstance(v, float) else str(v) for v in row.values()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return '\n'.join('  '.join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))]) for row in cells)


def market_of(symbol: str) -> str:
    "The market a sample's symbol means, as ccxt writes it: a file called BTCUSDT_1h_2020 holds BTC/USDT."
    if '/' in symbol: return '/'.join(split_symbol(symbol))
    pair = re.match(rf'([A-Za-z0-9]+)[-_]({"|".join(QUOTES)})(?![A-Za-z0-9])', symbol, re.IGNORECASE)
    if pair: return f'{pair[1]}/{pair[2]}'.upper()
    word = re.match(r'[A-Za-z0-9]*', symbol)[0].upper() or 'COIN'
    try: return '/'.join(split_symbol(word))
    except BadInput: return f'{word}/USDT'


def trade_on_paper(promotion: str, settings: Settings, data: str | None = None, bars: int = 300, account: str | None = None,
                   allow_gaps: bool = False, say: Callable[[str], None] = lambda line: None, passed: Callable[[int], object] = lambda done: None) -> PaperRun:
    """Run a promotion through its last `bars` bars, from where it was left if it was interrupted, and compare with replay.

    `passed` is told how many bars are settled."""
    dossier = read_dossier(promotion, settings.folder('promotions'))
    check_fresh(dossier, datetime.now(UTC))
    strategy = promoted.strategy_of(dossier)
    sample = _sample(dossier, settings, data, allow_gaps)
    first = len(sample.bars) - bars
    if first < dossier.window_bars - 1:
        raise BadInput(f'{len(sample.bars)} bars are too few to trade {bars}: the strategy is shown {dossier.window_bars} at once; choose fewer with --bars')
    account = account or _account(settings.folder('runs') / 'paper' / dossier.id)
    times, execution = [_ms(t) for t in sample.bars.index], settings.execution
    booked_as = f'{account}-{dossier.digest[:6]}'   # each paper account is a venue of its own, and trade numbers start anew there
    mandate = Mandate(dossier.digest, booked_as, strategy, dossier.params, sample.symbol, sample.timeframe, dossier.window_bars, times[first],
                      buffer=execution.cash_buffer_bps / 10_000, order_window_ms=execution.order_window_ms, poll_s=execution.poll_s,
                      max_lateness_ms=execution.max_lateness_bars * int(timeframe_delta(sample.timeframe).total_seconds() * 1000), feeds=promoted.feeds_of(dossier),
                      limits=limits_of(settings), strategy_deadline_s=execution.strategy_deadline_s)
    rules = spot_rules(sample.symbol, float(sample.bars.close.iloc[first]), money(dossier.costs['fee_bps']) / 10_000)
    slippage, cash = money(dossier.costs['slippage_bps']) / 10_000, money(dossier.initial_equity)
    folder = settings.folder('runs') / 'paper' / dossier.id / account
    _same_request(folder / 'request.json', dict(bars=bars, data_fingerprint=sample.fingerprint), account)
    _refuse_halted(settings, booked_as)
    again = (folder / 'exchange.log').exists()
    child = start_child([sample], folder, rules={sample.symbol: rules}, first=first + 1, balances={rules.quote: str(cash)}, slippage=str(slippage))
    try:
        say(f'{sample}: trading the last {bars} bars on paper as {account}' + (', from where it was left' if again else ''))
        settled: list[float] = []
        def tell(bar: int):
            settled.append(time.monotonic())
            passed(bisect_right(times, bar) - first)
        books = asyncio.run(_trade(mandate, settings, child.url, times[-1], tell, say))
    finally: child.stop()
    replayed = replay_venue(decider(strategy, dossier.params, mandate.feeds), sample.bars, rules, dossier.window_bars, cash, mandate.buffer, first, slippage)
    done = PaperRun(dossier.id, booked_as, sample.symbol, stamp(sample.bars.index[first]), stamp(sample.bars.index[-1]), bars,
                    _side_by_side(books, replayed, _research(dossier, strategy, mandate, sample, first), rules), _compared(books, replayed),
                    (len(settled) - 1) / max(settled[-1] - settled[0], 1e-9), sample.synthetic, folder)
    write_whole(folder / 'result.json', json.dumps(done.json(), default=str, indent=1).encode())
    return done


# ── the run ──

async def _trade(mandate: Mandate, settings: Settings, url: str, last: int, venue_time_passes: Callable[[int], object], say: Callable[[str], None]) -> PaperBooks:
    "The runner of live, until the bar that opens at `last` is settled; gives the books at the end."
    sessions = []
    gateway = await connect(VENUE, KEY, SECRET, WEIGHT, redirect=lambda client: sessions.append(rewire(client, url)) or sessions[-1])
    try:
        async with aiohttp.ClientSession(url) as control:
            async def settled(bar: int):
                venue_time_passes(bar)
                async with control.post('/control/release', json=dict(through=bar)) as answer: await answer.read()
            with Journal.open(settings.journal_url, alerts=Alerts.of(settings)) as journal:
                if await Runner(mandate, gateway, journal, settled, say, settings).run(until=last) == 'signal': raise KeyboardInterrupt
                balances = {asset: free + locked for asset, (free, locked) in (await gateway.balances()).items()}
                bot = journal.bot(mandate.dossier, mandate.account, mandate.symbol, mandate.timeframe).id
                return PaperBooks(journal.equity(bot), journal.orders(bot), journal.fills(bot), balances)
    finally:
        await gateway.close()
        for session in sessions: await session.close()


def _same_request(path: Path, request: dict, account: str):
    "A run that was interrupted goes on with what it was begun with; raises `BadInput` that says what that was."
    if not path.exists(): return write_whole(path, json.dumps(request).encode())
    begun = json.loads(path.read_text())
    if begun['bars'] != request['bars']:
        raise BadInput(f'{account} was begun with --bars {begun["bars"]} and is not finished; give that again, or begin another with --account NAME')
    if begun != request: raise BadInput(f'{account} was begun on other bars and is not finished; give those again, or begin another with --account NAME')


def _refuse_halted(settings: Settings, account: str):
    "Before anything is begun: raises `Refused` while trading is halted, unless a person asked for something that is not done yet."
    try: journal = Journal.reader(settings.journal_url)
    except BadInput: return   # none yet; if it is damaged, opening it to write says so
    with journal:
        if (halted := journal.halted(VENUE, account)) and account not in [row['account'] for row in journal.waiting()]: raise Refused(halted)


def _sample(dossier: Dossier, settings: Settings, data: str | None, allow_gaps: bool) -> Sample:
    "The bars to trade: those it was promoted on, unless others are named."
    judged = dossier.more['data']
    asked = {k: judged[k] or None for k in ('exchange', 'timeframe', 'symbol', 'start', 'end')} if data is None else {}
    sample = load_sample(data or judged['data'], Store(settings.folder('store')), **asked, allow_gaps=allow_gaps or judged['allow_gaps'])
    if data is None and sample.fingerprint != dossier.data_fingerprint:
        raise Refused(f'{judged["data"]} has changed since {dossier.id} was promoted on it; promote it again, or name other bars with --data')
    if sample.timeframe != dossier.timeframe: raise BadInput(f'{data} has {sample.timeframe} bars; {dossier.id} trades {dossier.timeframe}')
    return replace(sample, symbol=market_of(sample.symbol))


def _account(folder: Path) -> str:
    "The account of the run that was interrupted, else a new one."
    number = 1
    while (folder / f'paper-{number}' / 'result.json').exists(): number += 1
    return f'paper-{number}'


def _research(dossier: Dossier, strategy: Strategy, mandate: Mandate, sample: Sample, first: int) -> Simulation:
    "What the report's engine says of the same bars: without steps, minimums and a cash buffer."
    target = strategy.exposures(with_needs(strategy, sample.bars, mandate.feeds), dossier.params)
    return simulate(sample.bars.iloc[first:], target.iloc[first:], Costs(**dossier.costs), dossier.initial_equity)


def _side_by_side(paper: PaperBooks, replayed: VenueReplay, research: Simulation, rules: MarketRules) -> list[dict]:
    "The same bars, three times."
    def row(name, equity, quantities, fees): return dict(engine=name, final_equity=equity, change=f'{float(equity) / float(replayed.decisions[0].equity) - 1:+.4%}',
                                                         fills=len(quantities), traded=sum(quantities), fees=fees)
    def in_quote(fills): return sum((fee * (price if asset == rules.base else 1) for fee, price, asset in fills), Decimal(0))
    theirs = in_quote((f.fee, f.price, f.fee_asset) for f in replayed.fills)
    ours = in_quote((f['fee'], f['price'], f['fee_asset']) for f in paper.fills)
    return [row('research', float(research.equity.iloc[-1]), research.fills.quantity.tolist(), float(research.fills.fee.sum())),
            row('replay', replayed.decisions[-1].equity.normalize(), [f.quantity for f in replayed.fills], theirs.normalize()),
            row('paper', paper.decisions[-1]['equity'].normalize(), [f['quantity'] for f in paper.fills], ours.normalize())]


def _compared(paper: PaperBooks, replayed: VenueReplay) -> list[str]:
    "Where the journal and replay differ, in words; nothing where they are the same to the last digit."
    found, by_bar = [], []
    if len(paper.decisions) != len(replayed.decisions): found.append(f'{len(paper.decisions)} decisions on paper, {len(replayed.decisions)} in replay')
    for ours, theirs in zip(paper.decisions, replayed.decisions, strict=False):
        names = ('bar', 'target', 'close', 'cash', 'position', 'equity')
        mine = tuple(ours[name] for name in names)
        other = (_ms(theirs.time), theirs.target, theirs.close, theirs.cash, theirs.position, theirs.equity)
        by_bar += [f'{stamp(theirs.time)} {n}: {a} on paper, {b} in replay' for n, a, b in zip(names, mine, other, strict=True) if a != b]
    orders = {_ms(d.time): d.order for d in replayed.decisions if d.order}
    for ours in paper.orders:
        theirs = orders.pop(ours['bar'], None)
        mine = tuple(ours[k] for k in ('side', 'quantity', 'filled', 'status'))
        other = theirs and (theirs.order.side, theirs.order.quantity, theirs.filled, theirs.status)
        if mine != other: found.append(f'order {ours["client_id"]}: {mine} on paper, {other} in replay')
    found += [f'order {o.order.client_id} is missing on paper' for o in orders.values()]
    fills = [tuple(f[k] for k in ('side', 'quantity', 'price', 'fee', 'fee_asset')) for f in paper.fills]
    if fills != [(f.side, f.quantity, f.price, f.fee, f.fee_asset) for f in replayed.fills]: found.append('the fills differ')
    found[:0] = _because(paper)
    if halt := next((o for o in paper.orders if o['status'] == 'CANCELED' and 'halted' in o['reason']), None):
        found.insert(0, f'trading was halted, and order {halt["client_id"]} was withdrawn ({halt["reason"]}); from there on the two differ')
    if {asset: paper.balances.get(asset, Decimal(0)) for asset in replayed.balances} != replayed.balances:
        found.append(f'balances: {paper.balances} on paper, {replayed.balances} in replay')
    found += by_bar
    return found if len(found) <= MOST else [*found[:MOST], f'and {len(found) - MOST} more']


def _because(paper: PaperBooks) -> list[str]:
    "What makes paper differ on purpose, a line each."
    def first(rows): return f'the first at {_time(rows[0]["bar"])}: {rows[0]["reason"]}' if rows else ''
    refused = [row for row in paper.decisions if row['outcome'] == 'skipped' and row['reason'].split(':')[0] in {each.name for each in fields(Limits)}]
    halted = [row for row in paper.decisions if row['outcome'] == 'skipped' and row['reason'].startswith('halted')]
    by_hand = [row for row in paper.orders if row['seq'] >= HAND]
    return ([f'limits refused {len(refused)} orders, so paper is not replay ({first(refused)})'] * bool(refused)
            + [f'trading was halted with {len(halted)} orders due ({first(halted)})'] * bool(halted)
            + [f'{len(by_hand)} orders were sent by hand, the first at {_time(by_hand[0]["bar"])}' for _ in by_hand[:1]])


def _time(bar: int) -> str: return f'{datetime.fromtimestamp(bar / 1000, UTC):%Y-%m-%dT%H:%MZ}'


def _ms(moment) -> int: return int(moment.value // 1_000_000)


# ── the exchange by itself ──

def serve_exchange(sample: Sample, host: str, port: int, bars_per_s: float, cash: float, costs: Costs,
                   serving: Callable[[str], None], say: Callable[[str], None]):
    "Serve the bars as a venue until it is stopped, or until they are over."
    from production.local_exchange.exchange import LocalExchange
    from production.local_exchange.server import serve
    symbol = market_of(sample.symbol)
    first = min(HISTORY, len(sample.bars) // 2 + 1)
    rules = spot_rules(symbol, float(sample.bars.close.iloc[first - 1]), money(costs.fee_bps) / 10_000)
    exchange = LocalExchange([replace(sample, symbol=symbol)], first, {rules.quote: money(cash)}, {symbol: rules}, money(costs.slippage_bps) / 10_000)
    pace = f'{bars_per_s:g} bars a second' if bars_per_s else 'a bar for each POST /control/release'

    say(f"{sample}\nBinance's spot protocol, market {symbol}, {pace}; API key {KEY}, secret {SECRET}; stop with Ctrl-C")
    def served(address: asyncio.Future):
        if address.cancelled(): return
        say(f'watch it, and press faults by hand, in a browser: {address.result()}/')
        serving(address.result())
    async def until_stopped():
        ready = asyncio.get_running_loop().create_future()
        ready.add_done_callback(served)
        await serve(exchange, host, port, bars_per_s or None, ready)
    asyncio.run(until_stopped())
