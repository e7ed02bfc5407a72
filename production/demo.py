"""The whole story in one command, offline: a market, its quality, a report, its proof, a promotion, and paper trading beside replay."""
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from production.jobs import RunRecord
from production.paper import PaperRun, trade_on_paper
from production.promotion import promote_report, run_report
from trading_lib.core.errors import BadInput
from trading_lib.core.settings import Settings
from trading_lib.execution.costs import Costs
from trading_lib.market.quality import Quality, check_data
from trading_lib.market.store import Store, load_sample

STRATEGY, PARAMS, COSTS = 'sma_cross', dict(fast=10, slow=50), Costs(fee_bps=10, slippage_bps=5)
EXCHANGE, SYMBOL = 'synthetic', 'BTC/USDT'
PAPER_BARS = 400


@dataclass(frozen=True)
class Demo:
    "What the demo made, and where it lies."
    quality: Quality
    report: RunRecord
    paper: PaperRun
    promotion: Path
    duration_s: float

    @property
    def agrees(self) -> bool: return self.paper.agrees

    def json(self) -> dict:
        return dict(quality=self.quality.verdict, answer=self.report.answer, report=str(self.report.page), promotion=str(self.promotion),
                    paper=self.paper.json(), agrees=self.agrees, duration_s=self.duration_s)

    def text(self) -> str:
        return '\n'.join(['', self.report.answer, '', self.paper.text(), '', 'Open next',
                          f'  the report      {self.report.page}',
                          f'  the promotion   {self.promotion}',
                          '  the notebooks   .venv/bin/trading lab          http://127.0.0.1:8888/lab',
                          '  the dashboard   .venv/bin/trading dashboards   http://127.0.0.1:8866/voila/render/backtest_explorer.ipynb',
                          '  the journal     .venv/bin/trading status       .venv/bin/trading orders',
                          f'All of it took {self.duration_s:.0f} s.'])


def run_demo(settings: Settings, data: str | None = None, allow_gaps: bool = False) -> Demo:
    "Tell the story on the synthetic market, or on the bars of a file."
    began, store = time.monotonic(), Store(settings.folder('store'))
    mine = None if data is None else load_sample(data, store, allow_gaps=allow_gaps)   # what is wrong with it is said before the story begins
    if data is None:
        with _step(1, 'a synthetic market goes into the store') as say: say(_fill(store))
    else:
        with _step(1, f'your bars: {data}') as say: say(str(mine))
    with _step(2, 'can the bars be trusted?') as say:
        quality = check_data(data or SYMBOL, store, None if data else EXCHANGE)
        say(str(quality))
        if quality.verdict == 'broken' and not (allow_gaps and set(quality.counts) <= {'gap', 'outlier', 'frozen', 'zero_volume', 'off_grid'}):
            raise BadInput(f'{quality}; see: trading data check {data or SYMBOL}')
    with _step(3, 'papermill runs the report: research/01_strategy_report.ipynb') as say:
        request = dict(allow_gaps=allow_gaps) | (dict(exchange=EXCHANGE) if data is None else {})
        report = run_report(STRATEGY, data or SYMBOL, PARAMS, COSTS, 10_000., request, {}, settings)
        say(report.answer)
    with _step(4, 'does it peek, do the engines agree?') as say: say(_verdict(report.result['verdict']))
    with _step(5, 'promotion') as say:
        dossier = promote_report(report, settings)
        say(f'{dossier.folder}: {len(dossier.files)} files, {len(dossier.code)} modules pinned, shown {dossier.window_bars} bars at once')
    with _step(6, f'paper: the last {PAPER_BARS} bars through ccxt, at the local exchange') as say:
        bars = min(PAPER_BARS, report.result['summary']['bars'] - dossier.window_bars)
        with _counter(bars) as passed: paper = trade_on_paper(dossier.id, settings, bars=bars, passed=passed)
        say(f'{paper.bars_per_s:.0f} bars a second; ' + ('equal to replay' if paper.agrees else 'NOT equal to replay'))
    return Demo(quality, report, paper, dossier.folder, time.monotonic() - began)


def _fill(store: Store) -> str:
    "The synthetic market and its headlines, into the store; again changes nothing."
    from trading_lib.market.synthetic import synthetic_market
    market = synthetic_market()
    for symbol, sample in market.samples.items():
        store.write(sample, EXCHANGE)
        store.write_facts('headlines', symbol, market.headlines[market.headlines.symbol == symbol], EXCHANGE)
    return f'{", ".join(market.samples)}: {len(market.samples[SYMBOL].bars):,} hourly bars each, {len(market.headlines):,} headlines; made up, from a seed'


def _verdict(verdict: dict) -> str:
    agreed = verdict['agreement']
    apart = 'nothing that could be measured' if agreed['max_rel_diff'] is None else f'{agreed["max_rel_diff"]:.0e}'
    return (f'{verdict["verdict"]}: {len(verdict["findings"])} findings, warm-up {verdict["warmup_bars"]} bars; '
            f'{", ".join(agreed["engines"])} differ by at most {apart}')


@contextmanager
def _step(number: int, title: str):
    "A line before, a line with what came of it after, on stderr."
    began = time.monotonic()
    print(f'\n[{number}/6] {title}', file=sys.stderr, flush=True)
    def say(line: str): print(f'      {line}  ({time.monotonic() - began:.1f} s)', file=sys.stderr, flush=True)
    yield say


@contextmanager
def _counter(total: int):
    "A bar that grows, on a terminal; a few lines elsewhere."
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn
        with Progress('     ', BarColumn(40), MofNCompleteColumn(), TimeRemainingColumn(), console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task('', total=total)
            yield lambda done: bar.update(task, completed=done)
    else:
        def passed(done: int):
            if done % max(total // 4, 1) == 0: print(f'      {done} of {total} bars', file=sys.stderr, flush=True)
        yield passed
