"Bars into the store and out of it."
from pathlib import Path
from typing import Annotated

import typer

from production.cli.asking import End, Exchange, Json, Start, Symbol, Timeframe, store
from production.cli.speaking import answer, moment, table

app = typer.Typer(rich_markup_mode=None, no_args_is_help=True, help='Bars into the store and out of it.')


@app.command('import')
def data_import(file: Annotated[Path, typer.Argument(help='Parquet, Feather or CSV.')],
                exchange: Annotated[str, typer.Option(help='The exchange the bars are from, such as binance.')], symbol: Symbol = None, as_json: Json = False):
    "Bars from a file into the store."
    from trading_lib.market.store import read_file
    sample = read_file(file, symbol=symbol)
    written = store().write(sample, exchange)
    answer(vars(written), as_json, f'{sample}: {written}')


@app.command('list')
def data_list(as_json: Json = False):
    "What the store has."
    rows = [{k: moment(v) for k, v in row.items()} for row in store().catalog().to_dict('records')]
    answer(dict(store=rows), as_json, lambda: table(rows, 'the store is empty; fill it with: trading data import FILE --exchange NAME, or trading demo'))


@app.command('check')
def data_check(data: Annotated[str, typer.Argument(metavar='D', help='A symbol in the store, or a file.')], exchange: Exchange = None,
               timeframe: Timeframe = None, symbol: Symbol = None, as_json: Json = False):
    "Every defect, with its bar. Ends with 1 when the bars are broken."
    from trading_lib.market.quality import check_data
    found = check_data(data, store(), exchange, timeframe, symbol)
    shown = found.json()
    answer(shown, as_json, lambda: '\n'.join([str(found), *([table(shown['defects'][:40])] if shown['defects'] else [])]))
    return 1 if found.verdict == 'broken' else 0


@app.command('export')
def data_export(symbol: Annotated[str, typer.Argument(help='A symbol in the store.')],
                out: Annotated[Path, typer.Option(help='The file to write: .parquet, .feather or .csv.')],
                exchange: Exchange = None, timeframe: Timeframe = None, start: Start = None, end: End = None, as_json: Json = False):
    "Bars out of the store."
    from trading_lib.market.store import write_file
    sample = store().read(symbol, exchange, timeframe, start, end)
    write_file(sample, out)
    answer(dict(file=str(out), bars=len(sample.bars), fingerprint=sample.fingerprint), as_json, f'{out}: {sample}')


@app.command('pull')
def data_pull(symbol: Annotated[str, typer.Argument(help='As the exchange writes it, such as BTC/USDT.')],
              exchange: Annotated[str, typer.Option(help='A ccxt exchange id, such as binance.')],
              timeframe: Annotated[str, typer.Option(help='Bar length, such as 1m, 1h or 1d.')] = '1h', since: Annotated[str, typer.Option(help='First open time, included.')] = '2023-01-01',
              until: Annotated[str | None, typer.Option(help='The first open time left out; now if not given.')] = None, as_json: Json = False):
    "Bars from an exchange into the store; what is there already is not pulled again."
    from production.pull import pull_bars
    done = pull_bars(exchange, symbol, timeframe, since, until, store())
    answer(vars(done), as_json, str(done))
