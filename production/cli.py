"""The `trading` command: arguments in, one answer out. What it does lives elsewhere; this file only asks.

Every command takes `--json` (one JSON object on stdout, everything else on stderr) and ends with 0 done, 1 the answer is no,
2 the input was bad, 3 something broke, 130 interrupted. Nothing heavy is imported before a command needs it.
"""
import errno
import json
import math
import os
import sys
import tempfile
from collections.abc import Callable
from contextlib import contextmanager, nullcontext, redirect_stdout
from contextvars import ContextVar
from pathlib import Path
from typing import Annotated, Any

import typer

from trading_lib.core.errors import BadInput, TradingError

app = typer.Typer(name='trading', rich_markup_mode=None, pretty_exceptions_enable=False, add_completion=False, no_args_is_help=True,
                  help='Research crypto strategies, and trade what you found. The number in the notebook is the number you get.')
data_app = typer.Typer(rich_markup_mode=None, no_args_is_help=True, help='Bars into the store and out of it.')
app.add_typer(data_app, name='data')

# What several commands ask, said once
Json = Annotated[bool, typer.Option('--json', help='One JSON object on stdout, nothing else there.')]
StrategyName = Annotated[str, typer.Argument(metavar='STRATEGY', help='A name (see: trading strategies), or path/to/file.py:function.')]
Data = Annotated[str, typer.Option('--data', metavar='D', help='A symbol in the store, or a Parquet, Feather or CSV file.')]
Params = Annotated[list[str] | None, typer.Option('-p', '--param', metavar='NAME=VALUE', help='A parameter; repeat for more.')]
Feeds = Annotated[list[str] | None, typer.Option('--feed', metavar='NAME=PATH', help='What a strategy needs beside prices: a table of facts or a model folder.')]
Exchange = Annotated[str | None, typer.Option(help='Which exchange, where the store has several.')]
Timeframe = Annotated[str | None, typer.Option(help='Which bar length, where the store has several.')]
Symbol = Annotated[str | None, typer.Option(help='Which symbol, where a file has several.')]
Start = Annotated[str | None, typer.Option(help='First open time, included, such as 2023-01-01.')]
End = Annotated[str | None, typer.Option(help='Where it ends: the first open time left out.')]
Columns = Annotated[str | None, typer.Option(help='Columns to read beside OHLCV, separated by commas.')]
AllowGaps = Annotated[bool, typer.Option('--allow-gaps', help='Accept missing bars.')]
Fee = Annotated[float | None, typer.Option('--fee-bps', help='Fee on notional, in basis points; settings.ini if not given.')]
Slippage = Annotated[float | None, typer.Option('--slippage-bps', help='Slippage against you, in basis points; settings.ini if not given.')]
def _cash(value: float) -> float:
    if not 0 < value < math.inf: raise BadInput(f'cash was {value}; it must be a finite amount above 0')
    return value


Cash = Annotated[float, typer.Option(help='Initial equity, in the quote asset.', callback=_cash)]
Port = Annotated[int, typer.Option(min=1, max=65535)]


# ── how the command speaks ──

_stdout: ContextVar = ContextVar('stdout')   # for answers; what a strategy prints goes to stderr, or it would spoil them

def say(text: str):
    "Something a person may want to know; never part of the answer."
    print(text, file=sys.stderr, flush=True)


def answer(data: dict, as_json: bool, text: str | Callable[[], str] = ''):
    "The answer, on stdout: JSON for programs, text for people."
    print(json.dumps(data, default=str, allow_nan=False) if as_json else text() if callable(text) else text or _lines(data), file=_stdout.get(sys.stdout), flush=True)


def _lines(data: dict) -> str:
    "A flat dictionary as aligned lines."
    width = max(map(len, data), default=0)
    return '\n'.join(f'{name:<{width}}  {_plain(value)}' for name, value in data.items())


def _plain(value: Any) -> str:
    if isinstance(value, float): return f'{value:,.4f}'
    if isinstance(value, dict): return ', '.join(f'{k}={v}' for k, v in value.items())
    return '-' if value is None else str(value)


def table(rows: list[dict], empty: str = 'nothing yet') -> str:
    "Rows as an aligned table."
    if not rows: return empty
    cells = [list(rows[0]), *([_plain(v) for v in row.values()] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
    return '\n'.join('  '.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells)


def pairs(items: list[str] | None, what: str) -> dict[str, str]:
    "`name=value` items as a dictionary."
    found = {}
    for item in items or []:
        name, equals, value = item.partition('=')
        if not equals or not name: raise BadInput(f'{what} was {item!r}; write it as name=value')
        found[name.strip()] = value.strip()
    return found


def _moment(value: Any) -> Any:
    "Times as ISO text; a time that is not known is None."
    return value if not hasattr(value, 'isoformat') else None if value != value else value.isoformat()


# ── what the commands work on ──

def settings():
    from trading_lib.core.settings import Settings
    return Settings.load()


def store():
    from trading_lib.market.store import Store
    return Store(settings().folder('store'))


def ledger():
    from trading_lib.backtest.ledger import Ledger
    return Ledger(settings().folder('runs') / 'ledger')


def costs_of(fee_bps: float | None, slippage_bps: float | None):
    from trading_lib.execution.costs import Costs
    default = settings().costs
    return Costs(default.fee_bps if fee_bps is None else fee_bps, default.slippage_bps if slippage_bps is None else slippage_bps)


def feeds_of(items: list[str] | None, symbol: str) -> dict:
    if not items: return {}
    from trading_lib.strategies.feeds import load_feed
    return {name: load_feed(name, path, symbol) for name, path in pairs(items, '--feed').items()}


def sample_of(data: str, exchange=None, timeframe=None, symbol=None, start=None, end=None, columns=None, allow_gaps=False):
    from trading_lib.market.store import load_sample
    return load_sample(data, store(), exchange=exchange, timeframe=timeframe, symbol=symbol, start=start, end=end,
                       columns=tuple(c.strip() for c in columns.split(',')) if columns else (), allow_gaps=allow_gaps)


# ── research ──

@app.command()
def strategies(as_json: Json = False):
    "What there is, with parameters and bounds."
    from trading_lib.strategies.contract import catalogue
    found = [dict(name=s.name, doc=s.doc.splitlines()[0] if s.doc else '', needs=list(s.needs),
                  parameters=[dict(name=p.name, default=p.default, low=p.low, high=p.high, bounds=p.bounds) for p in s.parameters.values()])
             for s in catalogue()]
    def text():
        return '\n\n'.join('\n'.join([f'{s["name"]}  {s["doc"]}' + (f'  (needs {", ".join(s["needs"])})' if s['needs'] else ''),
                                      *(f'    {p["name"]} = {p["default"]}  {p["bounds"]}' for p in s['parameters'])]) for s in found)
    answer(dict(strategies=found), as_json, text)


@app.command()
def backtest(strategy: StrategyName, data: Data, param: Params = None, fee_bps: Fee = None, slippage_bps: Slippage = None,
             cash: Cash = 10_000., engine: Annotated[str, typer.Option(help='kernel, vectorbt or replay.')] = 'kernel',
             out: Annotated[Path | None, typer.Option(help='A folder for equity.parquet, fills.parquet, trades.parquet and summary.json.')] = None,
             exchange: Exchange = None, timeframe: Timeframe = None, symbol: Symbol = None, start: Start = None, end: End = None,
             columns: Columns = None, allow_gaps: AllowGaps = False, feed: Feeds = None, as_json: Json = False):
    "What following a strategy would have given."
    from trading_lib.backtest.run import backtest
    from trading_lib.backtest.run import engine as named
    from trading_lib.strategies.contract import find
    named(engine)
    chosen = find(strategy)
    chosen.check(pairs(param, '-p'))
    sample = sample_of(data, exchange, timeframe, symbol, start, end, columns, allow_gaps)
    done = backtest(chosen, sample, pairs(param, '-p'), costs_of(fee_bps, slippage_bps), cash, engine, ledger(), feeds_of(feed, sample.symbol))
    if done.simulation.ruined is not None: say(f'equity was gone at {done.simulation.ruined}; the run ends there')
    if out: save_backtest(done, out)
    answer(done.summary(), as_json)


def save_backtest(done, folder: Path):
    "The series and tables behind the numbers; all of the files are written before the first is put in place."
    if folder.exists() and not folder.is_dir(): raise BadInput(f'--out was {folder}, which is a file; name a folder')
    run = done.simulation
    tables = dict(equity=run.equity.to_frame().assign(position=run.position, cash=run.cash, target=done.target, close=done.bars.close),
                  fills=run.fills, trades=done.trades)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix='.') as beside:
            for name, frame in tables.items(): frame.to_parquet(Path(beside) / f'{name}.parquet')
            (Path(beside) / 'summary.json').write_text(json.dumps(done.summary(), indent=1, default=str))
            for file in Path(beside).iterdir(): os.replace(file, folder / file.name)
    except OSError as error: raise BadInput(f'--out {folder} cannot be written ({error.strerror or error}); nothing was changed there') from None


@app.command()
def sweep(strategy: StrategyName, data: Data,
          param: Annotated[list[str] | None, typer.Option('-p', '--param', metavar='NAME=RANGE', help='START:STOP:STEP (STOP included), a comma list or one value; repeat for more.')] = None,
          out: Annotated[Path | None, typer.Option(help='A Parquet file for the table: one row a set, parameters first.')] = None,
          by: Annotated[str, typer.Option(help='The number that is best when it is largest.')] = 'sharpe',
          no_cache: Annotated[bool, typer.Option('--no-cache', help='Compute every row, also those that are known.')] = False,
          fee_bps: Fee = None, slippage_bps: Slippage = None, cash: Cash = 10_000.,
          exchange: Exchange = None, timeframe: Timeframe = None, symbol: Symbol = None, start: Start = None, end: End = None,
          columns: Columns = None, allow_gaps: AllowGaps = False, feed: Feeds = None, as_json: Json = False):
    "A backtest of every set of parameters; interrupted, the same call goes on."
    from trading_lib.backtest.sweep import check_metric, grid
    from trading_lib.backtest.sweep import sweep as swept
    from trading_lib.strategies.contract import find
    if out and (out.suffix != '.parquet' or out.is_dir()): raise BadInput(f'--out was {out}; name a file that ends with .parquet')
    check_metric(by)
    chosen, ranges = find(strategy), pairs(param, '-p')
    count = len(grid(chosen, ranges))
    sample = sample_of(data, exchange, timeframe, symbol, start, end, columns, allow_gaps)
    say(f'{chosen.name} on {sample}: {count:,} sets')
    with sweep_progress(count) as progress:
        done = swept(chosen, sample, ranges, costs_of(fee_bps, slippage_bps), cash, ledger(), feeds_of(feed, sample.symbol), progress,
                     None if no_cache else settings().folder('runs') / 'sweeps')
    if out: save_table(done.table, out)
    found = done.summary(by)
    answer(found | dict(out=str(out) if out else None), as_json, lambda: _swept(found, out))


@contextmanager
def sweep_progress(total: int):
    "A bar with rate and time left on a terminal; elsewhere silence."
    if not sys.stderr.isatty(): yield lambda done, total: None; return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
    parts = BarColumn(40), MofNCompleteColumn(), TextColumn('{task.fields[rate]}'), TimeRemainingColumn()
    with Progress(*parts, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task('', total=total, rate='')
        yield lambda done, total: bar.update(task, completed=done, rate=f'{bar.tasks[0].speed or 0:,.0f} sets/s')


def save_table(table, path: Path):
    "Parquet, whole or not at all."
    import io

    from trading_lib.market.store import write_whole
    buffer = io.BytesIO()
    table.to_parquet(buffer, index=False)
    write_whole(path, buffer.getvalue())


def _swept(found: dict, out: Path | None) -> str:
    "The closing line of a sweep."
    params = lambda what: ', '.join(f'{name}={value}' for name, value in what['params'].items())
    lines = [f'{found["sets"]:,} sets, {found["refused"]:,} refused, {found["computed"]:,} computed now; {found["trials"]:,} trials of {found["strategy"]} so far' +
             (f'; table in {out}' if out else '')]
    if found['best']:
        best, region = found['best'], found['region']
        lines += [f'best {found["by"]} {best["value"]:.3f} at {params(best)}; best region {region["mean"]:.3f} around {params(region)} (mean of {region["sets"]} sets)']
    return '\n'.join(lines)


@app.command()
def verify(strategy: StrategyName, data: Data, param: Params = None, fee_bps: Fee = None, slippage_bps: Slippage = None, cash: Cash = 10_000.,
           exchange: Exchange = None, timeframe: Timeframe = None, symbol: Symbol = None, start: Start = None, end: End = None,
           columns: Columns = None, allow_gaps: AllowGaps = False, feed: Feeds = None, as_json: Json = False):
    "Does it peek, and do the engines agree? Ends with 1 when something was found."
    from trading_lib.evidence.verdict import verify
    from trading_lib.strategies.contract import find
    chosen = find(strategy)
    chosen.check(pairs(param, '-p'))
    sample = sample_of(data, exchange, timeframe, symbol, start, end, columns, allow_gaps)
    verdict = verify(chosen, sample, pairs(param, '-p'), costs_of(fee_bps, slippage_bps), cash, feeds_of(feed, sample.symbol))
    found = verdict.json()
    def text():
        rows = [f'{f["kind"]:<10} {f["bar"]}  {f["column"] or ""}  {f["detail"]}' for f in found['findings']]
        agreed = found['agreement']
        return '\n'.join([f'{found["verdict"]}: {chosen.name} on {sample}', *rows, f'warm-up {found["warmup_bars"]} bars; '
                          f'{", ".join(agreed["engines"])} differ by at most {_rel(agreed["max_rel_diff"])}'])
    answer(found, as_json, text)
    return 0 if verdict.passed else 1


def _rel(value: float | None) -> str: return 'nothing that could be measured' if value is None else f'{value:.1e}'


@app.command()
def trials(strategy: Annotated[str | None, typer.Argument(help='Only this strategy.')] = None, as_json: Json = False):
    "The ledger: every distinct trial that was made."
    counts = ledger().trials().strategy.value_counts().to_dict()
    if strategy: counts = {strategy: counts.get(strategy, 0)}
    answer(dict(trials=counts, total=sum(counts.values())), as_json, lambda: table([dict(strategy=k, trials=v) for k, v in counts.items()]))


@app.command()
def run(notebook: Annotated[Path, typer.Argument(help='A notebook with a cell tagged `parameters`.')], param: Params = None, as_json: Json = False):
    "Run a notebook with parameters; the page and the record go to runs/."
    from production.jobs import run_notebook
    done = run_notebook(notebook, pairs(param, '-p'), settings().folder('runs'))
    answer(done.json(), as_json, lambda: f'{done.answer}\n{done.folder / "report.html"}')


# ── data ──

@data_app.command('import')
def data_import(file: Annotated[Path, typer.Argument(help='Parquet, Feather or CSV.')],
                exchange: Annotated[str, typer.Option(help='Where the bars are from.')], symbol: Symbol = None, as_json: Json = False):
    "Bars from a file into the store."
    from trading_lib.market.store import read_file
    sample = read_file(file, symbol=symbol)
    written = store().write(sample, exchange)
    answer(vars(written), as_json, f'{sample}: {written}')


@data_app.command('list')
def data_list(as_json: Json = False):
    "What the store has."
    rows = [{k: _moment(v) for k, v in row.items()} for row in store().catalog().to_dict('records')]
    answer(dict(store=rows), as_json, lambda: table(rows, 'the store is empty; fill it with: trading data import FILE --exchange NAME, or trading demo'))


@data_app.command('check')
def data_check(data: Annotated[str, typer.Argument(metavar='D', help='A symbol in the store, or a file.')], exchange: Exchange = None,
               timeframe: Timeframe = None, symbol: Symbol = None, as_json: Json = False):
    "Every defect, with its bar. Ends with 1 when the bars are broken."
    from trading_lib.market.quality import check_data
    found = check_data(data, store(), exchange, timeframe, symbol)
    shown = found.json()
    answer(shown, as_json, lambda: '\n'.join([str(found), *([table(shown['defects'][:40])] if shown['defects'] else [])]))
    return 1 if found.verdict == 'broken' else 0


@data_app.command('export')
def data_export(symbol: Annotated[str, typer.Argument(help='A symbol in the store.')],
                out: Annotated[Path, typer.Option(help='The file to write: .parquet, .feather or .csv.')],
                exchange: Exchange = None, timeframe: Timeframe = None, start: Start = None, end: End = None, as_json: Json = False):
    "Bars out of the store."
    from trading_lib.market.store import write_file
    sample = store().read(symbol, exchange, timeframe, start, end)
    write_file(sample, out)
    answer(dict(file=str(out), bars=len(sample.bars), fingerprint=sample.fingerprint), as_json, f'{out}: {sample}')


@data_app.command('pull')
def data_pull(symbol: Annotated[str, typer.Argument(help='As the exchange writes it, such as BTC/USDT.')],
              exchange: Annotated[str, typer.Option(help='A ccxt exchange id, such as binance.')],
              timeframe: Annotated[str, typer.Option(help='Bar length.')] = '1h', since: Annotated[str, typer.Option(help='First open time, included.')] = '2023-01-01',
              until: Annotated[str | None, typer.Option(help='Where it ends: bars that open before it; now if not given.')] = None, as_json: Json = False):
    "Bars from an exchange into the store; what is there already is not pulled again."
    from production.pull import pull_bars
    done = pull_bars(exchange, symbol, timeframe, since, until, store())
    answer(vars(done), as_json, str(done))


# ── promotion and trading ──

@app.command()
def promote(strategy: StrategyName, data: Data, param: Params = None, fee_bps: Fee = None, slippage_bps: Slippage = None, cash: Cash = 10_000.,
            exchange: Exchange = None, timeframe: Timeframe = None, symbol: Symbol = None, start: Start = None, end: End = None,
            columns: Columns = None, allow_gaps: AllowGaps = False, feed: Feeds = None, as_json: Json = False):
    "Run the report notebook and write its evidence down as a promotion. Ends with 1 when a check says no."
    from production.promotion import promote
    request = dict(exchange=exchange, timeframe=timeframe, symbol=symbol, start=start, end=end, columns=columns, allow_gaps=allow_gaps)
    dossier = promote(strategy, data, pairs(param, '-p'), costs_of(fee_bps, slippage_bps), cash, request, pairs(feed, '--feed'), settings())
    answer(dossier.json(), as_json, lambda: f'promoted {dossier.name} as {dossier.folder}\npaper trade it with: trading paper {dossier.folder.name}')


@app.command()
def promotions(as_json: Json = False):
    "What was promoted."
    from production.promotion import listed
    rows = listed(settings())
    answer(dict(promotions=rows), as_json, lambda: table(rows, 'nothing was promoted yet; see: trading promote --help'))


@app.command()
def paper(promotion: Annotated[str, typer.Argument(help='A folder of promotions/, or its name.')],
          data: Annotated[str | None, typer.Option('--data', metavar='D', help='Other bars than those it was promoted on.')] = None,
          bars: Annotated[int, typer.Option(help='How many of the last bars to trade through.', min=2)] = 300,
          account: Annotated[str | None, typer.Option(help='The paper account; a new one if not given.')] = None,
          allow_gaps: AllowGaps = False, as_json: Json = False):
    "Trade a promotion on paper: unmodified ccxt, the local exchange, journalled orders. Ends with 1 if replay disagrees."
    from production.paper import trade_on_paper
    done = trade_on_paper(promotion, settings(), data=data, bars=bars, account=account, allow_gaps=allow_gaps, say=say)
    answer(done.json(), as_json, done.text)
    return 0 if done.agrees else 1


Expose = Annotated[bool, typer.Option('--expose', help='Allow a --host that other machines reach; there is no password.')]


@app.command()
def exchange(data: Data, host: str = '127.0.0.1', port: Annotated[int, typer.Option(min=0, max=65535)] = 8585,
             speed: Annotated[float, typer.Option(help='Bars a second; 0 waits for POST /control/release.', min=0)] = 1.,
             cash: Cash = 10_000., fee_bps: Fee = None, slippage_bps: Slippage = None, exchange: Exchange = None, timeframe: Timeframe = None,
             symbol: Symbol = None, start: Start = None, end: End = None, allow_gaps: AllowGaps = False, expose: Expose = False, as_json: Json = False):
    "Serve the local exchange: Binance's spot protocol over stored bars."
    from production.paper import serve_exchange
    from production.places import loopback
    loopback(host, expose)
    sample = sample_of(data, exchange, timeframe, symbol, start, end, allow_gaps=allow_gaps)
    serve_exchange(sample, host, port, speed, cash, costs_of(fee_bps, slippage_bps), lambda url: answer(dict(url=url), as_json), say)


@app.command()
def status(as_json: Json = False):
    "What is running, where it stands, and whether it is halted."
    from production.control import status_report
    found = status_report(settings())
    answer(found, as_json, lambda: _status_text(found))


def _status_text(found: dict) -> str:
    halt = found.get('halt')
    return '\n'.join([f'HALTED by {halt["who"]} at {halt["at"]}: {halt["why"]}' if halt else 'trading is not halted',
                      table(found['bots'], 'no bot has run yet; see: trading paper --help')])


@app.command()
def orders(limit: Annotated[int, typer.Option(help='The newest so many.', min=1)] = 20, as_json: Json = False):
    "The orders in the journal, newest first."
    from production.control import order_report
    rows = order_report(settings(), limit)
    answer(dict(orders=rows), as_json, lambda: table(rows, 'no orders yet'))


Who = Annotated[str, typer.Option(help='Who says so.')]
Why = Annotated[str, typer.Option(help='Why.')]
DryRun = Annotated[bool, typer.Option('--dry-run', help='Show what would be done, and do nothing.')]


@app.command()
def halt(who: Who = os.environ.get('USER', 'operator'), why: Why = 'by hand', dry_run: DryRun = False, as_json: Json = False):
    "Stop all trading: commits first, then cancels open orders; survives a restart."
    from production.control import halt
    answer(halt(settings(), who, why, dry_run), as_json)


@app.command()
def resume(who: Who = os.environ.get('USER', 'operator'), why: Why = 'by hand', dry_run: DryRun = False, as_json: Json = False):
    "Lift the halt."
    from production.control import resume
    answer(resume(settings(), who, why, dry_run), as_json)


# ── places to work ──

@app.command()
def demo(data: Annotated[str | None, typer.Option('--data', metavar='FILE', help='Your own bars instead of the synthetic market.')] = None,
         allow_gaps: AllowGaps = False, as_json: Json = False):
    "The whole story, offline: data, report, proof, promotion, paper."
    from production.demo import run_demo
    done = run_demo(settings(), data=data, allow_gaps=allow_gaps)
    answer(done.json(), as_json, done.text)
    return 0 if done.agrees else 1


@app.command()
def lab(port: Port = 8888, host: str = '127.0.0.1', as_json: Json = False):
    "JupyterLab on the book and the research notebooks."
    from production.places import open_lab
    return open_lab(settings().root, host, port, lambda url: answer(dict(url=url), as_json))


@app.command()
def dashboards(port: Port = 8866, host: str = '127.0.0.1', expose: Expose = False, as_json: Json = False):
    "The Voila dashboards, for people who do not code."
    from production.places import open_dashboards
    return open_dashboards(settings().root, host, port, expose, lambda pages: answer(pages, as_json))


# ── how it ends ──

def failure(error: BaseException) -> tuple[int, str]:
    "Exit code and the one line for whatever was raised."
    if isinstance(error, TradingError): return error.exit_code, str(error)
    if isinstance(error, typer.TyperException): return 2, 'name a command; they are listed by --help' if 'NoArgs' in type(error).__name__ else error.format_message()
    if isinstance(error, (KeyboardInterrupt, typer.Abort)): return 130, 'interrupted'
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT): return 2, f'the disk is full ({error.filename or "no file named"}); free some space and run it again'
    if isinstance(error, PermissionError): return 2, f'{error.filename} may not be written or read by this user; change its permissions or the paths in settings.ini'
    return 3, f'{type(error).__name__}: {error}; for the whole trace set TRADING_TRACE=1'


def main(argv: list[str] | None = None) -> int:
    "Run the command line; never prints a traceback unless TRADING_TRACE is set."
    argv = sys.argv[1:] if argv is None else argv
    _stdout.set(sys.stdout)
    try:
        with nullcontext() if '--help' in argv else redirect_stdout(sys.stderr): code = app(argv, standalone_mode=False, prog_name='trading') or 0
        if code == 130: raise KeyboardInterrupt   # typer swallows it
    except BrokenPipeError: os._exit(0)   # the reader went away, as `| head` does
    except BaseException as error:  # the last place that can turn it into a sentence
        if isinstance(error, SystemExit): raise
        if os.environ.get('TRADING_TRACE'): raise
        code, text = failure(error)
        text = ' '.join(str(text).split())
        if '--json' in argv: print(json.dumps(dict(error=text, exit_code=code)))
        say(f'error: {text}')
    return int(code)


if __name__ == '__main__': sys.exit(main())
