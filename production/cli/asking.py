"What the commands ask, said once, and what those answers mean."
import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from functools import wraps
from pathlib import Path
from typing import Annotated

import typer

from production.cli.speaking import pairs
from trading_lib.core.errors import BadInput

Json = Annotated[bool, typer.Option('--json', help='One JSON object on stdout, nothing else there.')]
StrategyName = Annotated[str, typer.Argument(metavar='STRATEGY', help='A name (see: trading strategies), or path/to/file.py:function.')]
Data = Annotated[str, typer.Option('--data', metavar='D', help='A symbol in the store, or a Parquet, Feather or CSV file.')]
Params = Annotated[list[str] | None, typer.Option('-p', '--param', metavar='NAME=VALUE', help='A parameter; repeat for more.')]
Ranges = Annotated[list[str] | None, typer.Option('-p', '--param', metavar='NAME=RANGE',
                                                  help='START:STOP:STEP (STOP included), a comma list or one value; repeat for more. Stops too: stop_loss=0.01:0.1:0.01.')]
Exchange = Annotated[str | None, typer.Option(help='Which exchange, where the store has several.')]
Timeframe = Annotated[str | None, typer.Option(help='Which bar length, where the store has several.')]
Symbol = Annotated[str | None, typer.Option(help='Which symbol, where a file has several.')]
Start = Annotated[str | None, typer.Option(help='First open time, included, such as 2023-01-01.')]
End = Annotated[str | None, typer.Option(help='The first open time left out, such as 2024-01-01.')]
AllowGaps = Annotated[bool, typer.Option('--allow-gaps', help='Accept missing bars.')]
Port = Annotated[int, typer.Option(min=1, max=65535, help='Port to listen on.')]
Feeds = Annotated[list[str] | None, typer.Option('--feed', metavar='NAME=PATH', help='What a strategy needs beside prices: a table of facts or a model folder; repeat for more.')]
By = Annotated[str, typer.Option(metavar='METRIC', help='Metric to choose by: sharpe, sortino, calmar, total_return, max_drawdown, …')]
Seed = Annotated[int, typer.Option(min=0, help='Seed of the random numbers; the same seed gives the same answer.')]
Host = Annotated[str, typer.Option(help='Address to listen on.')]


def words(text: str) -> str:
    "A name or a reason as it can be written down: no halt is refused for how it was put."
    return text.encode('utf-8', 'replace').decode()[:1000]


def _cash(value: float) -> float:
    if not 0 < value < math.inf: raise BadInput(f'cash was {value}; it must be a finite amount above 0')
    return value


# ── questions that come in groups ──

@dataclass(frozen=True)
class Market:
    "Which bars."
    data: Data
    exchange: Exchange = None
    timeframe: Timeframe = None
    symbol: Symbol = None
    start: Start = None
    end: End = None
    columns: Annotated[str | None, typer.Option(help='Columns to read beside OHLCV, separated by commas.')] = None
    allow_gaps: AllowGaps = False

    def sample(self): return self._loaded(self.data)

    def request(self) -> dict:
        "All but the data itself, by name."
        return {f.name: getattr(self, f.name) for f in fields(Market) if f.name != 'data'}

    def _loaded(self, data: str):
        from trading_lib.market.store import load_sample
        named = tuple(c.strip() for c in self.columns.split(',')) if self.columns else ()
        return load_sample(data, store(), **self.request() | dict(columns=named))


@dataclass(frozen=True)
class Markets(Market):
    "Which bars, of one symbol or of several, and what holding them cost."
    data: Annotated[list[str], typer.Option('--data', metavar='D', help='A symbol in the store, or a Parquet, Feather or CSV file; repeat for several symbols.')]
    funding: Annotated[list[str] | None, typer.Option('--funding', metavar='FILE', help='Funding rates of a perpetual future (time, rate); for several symbols SYMBOL=FILE, repeated.')] = None

    def sample(self):
        from dataclasses import replace

        from trading_lib.market.bars import symbols_of, together, with_funding
        from trading_lib.market.funding import load_funding
        sample = together([self._loaded(data) for data in self.data], self.allow_gaps)
        if not self.funding: return sample
        if several := symbols_of(sample.bars): rates = {s: load_funding(path, s) for s, path in pairs(self.funding, '--funding').items()}
        elif len(self.funding) == 1: rates = load_funding(self.funding[0].removeprefix(f'{sample.symbol}='), sample.symbol)
        else: raise BadInput(f'--funding was given {len(self.funding)} times for one symbol; give it once')
        if several and (unknown := rates.keys() - set(several)): raise BadInput(f'--funding names {min(unknown)}; the symbols are {", ".join(several)}')
        return replace(sample, bars=with_funding(sample.bars, rates, self.allow_gaps))


@dataclass(frozen=True)
class Terms:
    "What trading costs, and with how much."
    fee_bps: Annotated[float | None, typer.Option('--fee-bps', help='Taker fee on notional, in basis points; from settings.ini if not given.')] = None
    slippage_bps: Annotated[float | None, typer.Option('--slippage-bps', help='Half the spread and the impact of an order, in basis points; from settings.ini if not given.')] = None
    cash: Annotated[float, typer.Option(help='Initial equity, in the quote asset.', callback=_cash)] = 10_000.

    @property
    def costs(self):
        from trading_lib.execution.costs import Costs
        default = settings().costs
        return Costs(default.fee_bps if self.fee_bps is None else self.fee_bps, default.slippage_bps if self.slippage_bps is None else self.slippage_bps)


@dataclass(frozen=True)
class Exits:
    "When a position ends without the strategy saying so."
    stop_loss: Annotated[float | None, typer.Option(help='Loss from the average entry price that ends a position, a fraction such as 0.05.')] = None
    take_profit: Annotated[float | None, typer.Option(help='Gain from the average entry price that ends it, a fraction such as 0.1.')] = None
    trailing_stop: Annotated[float | None, typer.Option(help='Distance from the best price since entry that ends it, a fraction such as 0.08.')] = None
    time_stop: Annotated[int | None, typer.Option(help='Bars after entry at whose open it ends.')] = None

    @property
    def stops(self):
        from trading_lib.risk.stops import Stops
        return Stops(**vars(self))


def grouped(command: Callable) -> Callable:
    "A command whose parameters annotated with one of the groups above become that group's options."
    asked = inspect.signature(command, eval_str=True).parameters.values()
    groups = {p.name: p.annotation for p in asked if is_dataclass(p.annotation)}

    @wraps(command)
    def flat(**given):
        for name, group in groups.items(): given[name] = group(**{f.name: given.pop(f.name) for f in fields(group)})
        return command(**given)

    expanded = (inspect.signature(groups[p.name], eval_str=True).parameters.values() if p.name in groups else [p] for p in asked)
    flat.__signature__ = inspect.Signature([p.replace(kind=p.KEYWORD_ONLY) for each in expanded for p in each])
    flat.__annotations__ = {name: p.annotation for name, p in flat.__signature__.parameters.items()}
    del flat.__wrapped__
    return flat


# ── what the commands work on ──

def feeds_of(items: list[str] | None, symbol: str) -> dict:
    if not items: return {}
    from trading_lib.strategies.feeds import load_feed
    return {name: load_feed(name, path, symbol) for name, path in pairs(items, '--feed').items()}


def settings():
    from trading_lib.core.settings import Settings
    return Settings.load()


def store():
    from trading_lib.market.store import Store
    return Store(settings().folder('store'))


def ledger():
    from trading_lib.backtest.ledger import Ledger
    return Ledger(settings().folder('runs') / 'ledger')


def writable_parquet(path: Path | None):
    "Refuse what no table can be written to, before the work and not after it."
    if path and (path.suffix != '.parquet' or path.is_dir()): raise BadInput(f'--out was {path}; name a file that ends with .parquet')
