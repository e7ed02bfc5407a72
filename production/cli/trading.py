"From a promotion to orders, and hands on the wheel."
import os
from typing import Annotated

import typer

from production.cli.asking import AllowGaps, Feeds, Json, Market, Params, StrategyName, Terms, grouped, settings, words
from production.cli.speaking import answer, pairs, say, table

app = typer.Typer()


@app.command()
@grouped
def promote(strategy: StrategyName, market: Market, terms: Terms, param: Params = None, feed: Feeds = None, as_json: Json = False):
    "Run the report notebook and write its evidence down as a promotion. Ends with 1 when a check says no."
    from production.promotion import promote
    dossier = promote(strategy, market.data, pairs(param, '-p'), terms.costs, terms.cash, market.request(), pairs(feed, '--feed'), settings())
    answer(dossier.json(), as_json, lambda: f'promoted {dossier.name} as {dossier.folder}\npaper trade it with: trading paper {dossier.folder.name}')


@app.command()
def promotions(as_json: Json = False):
    "What was promoted."
    from production.promotion import listed
    rows = listed(settings())
    answer(dict(promotions=rows), as_json, lambda: table(rows, 'nothing was promoted yet; see: trading promote --help'))


@app.command()
def paper(promotion: Annotated[str, typer.Argument(help='A folder under promotions/, or the beginning of its name.')],
          data: Annotated[str | None, typer.Option('--data', metavar='D', help='Other bars than those it was promoted on.')] = None,
          bars: Annotated[int, typer.Option(help='How many bars to trade, the last ones.', min=2)] = 300,
          account: Annotated[str | None, typer.Option(help='The paper account; a new one if not given.')] = None,
          allow_gaps: AllowGaps = False, as_json: Json = False):
    "Trade a promotion on paper: unmodified ccxt, the local exchange, journalled orders. Ends with 1 if replay disagrees."
    from production.paper import trade_on_paper
    done = trade_on_paper(promotion, settings(), data=data, bars=bars, account=account, allow_gaps=allow_gaps, say=say)
    answer(done.json(), as_json, done.text)
    return 0 if done.agrees else 1


@app.command()
def status(as_json: Json = False):
    "What is running, where it stands, and whether it is halted."
    from production.control import status_report
    found = status_report(settings())
    answer(found, as_json, lambda: _status_text(found))


def _status_text(found: dict) -> str:
    halt, parts = found.get('halt'), [table(found['bots'], 'no bot has run yet; see: trading paper --help')]
    if found['waiting']: parts += ['', 'asked for by hand and not done yet:', table(found['waiting'])]
    if found['differences']: parts += ['', 'money that nobody here moved (take it into the books with: trading accept):', table(found['differences'])]
    return '\n'.join([f'HALTED by {halt["who"]} at {halt["at"]}: {halt["why"]}' if halt else 'trading is not halted', *parts])


@app.command()
def orders(limit: Annotated[int, typer.Option(help='How many to show.', min=1)] = 20, as_json: Json = False):
    "The orders in the journal, newest first."
    from production.control import order_report
    rows = order_report(settings(), limit)
    answer(dict(orders=rows), as_json, lambda: table(rows, 'no orders yet'))


Who = Annotated[str, typer.Option(help='Who decides this, for the record.', callback=words)]
Why = Annotated[str, typer.Option(help='The reason, for the record.', callback=words)]
DryRun = Annotated[bool, typer.Option('--dry-run', help='Show what would be done, and do nothing.')]


ME = os.environ.get('USER', 'operator')


def _told(done: dict, as_json: bool):
    "What was done or would be, and the lists in it as tables."
    lists = {name: rows for name, rows in done.items() if isinstance(rows, list) and rows and isinstance(rows[0], dict)}
    rest = '  '.join(f'{name}: {", ".join(value) or "none" if isinstance(value, list) else value}' for name, value in done.items() if name not in lists)
    answer(done, as_json, lambda: '\n\n'.join([rest, *(f'{name}:\n{table(rows)}' for name, rows in lists.items())]))


@app.command()
def halt(who: Who = ME, why: Why = 'by hand', flatten: Annotated[bool, typer.Option('--flatten', help='Close every position too.')] = False,
         dry_run: DryRun = False, as_json: Json = False):
    "Stop all trading: commits first, then cancels open orders, then closes positions with --flatten; survives a restart."
    from production.control import halt
    _told(halt(settings(), who, why, dry_run, flatten), as_json)


@app.command()
def flatten(symbol: Annotated[str | None, typer.Argument(metavar='[SYMBOL]', help='Only this one, such as BTC/USDT.')] = None,
            who: Who = ME, why: Why = 'by hand', dry_run: DryRun = False, as_json: Json = False):
    "Cancel open orders and close positions; a bot stays flat until its target changes."
    from production.control import EVERYTHING, flatten
    _told(flatten(settings(), who, why, symbol or EVERYTHING, dry_run), as_json)


@app.command()
def close(symbol: Annotated[str, typer.Argument(help='Such as BTC/USDT.')], who: Who = ME, why: Why = 'by hand', dry_run: DryRun = False, as_json: Json = False):
    "Close the position in one symbol; the bot stays flat until its target changes."
    from production.control import flatten
    _told(flatten(settings(), who, why, symbol, dry_run), as_json)


@app.command()
def cancel(order: Annotated[str | None, typer.Argument(metavar='[ID]', help='The client id of an order, as trading orders shows it.')] = None,
           all_: Annotated[bool, typer.Option('--all', help='Every open order.')] = False,
           who: Who = ME, why: Why = 'by hand', dry_run: DryRun = False, as_json: Json = False):
    "Cancel an open order, or all of them."
    from production.control import cancel
    from trading_lib.core.errors import BadInput
    if all_ == bool(order): raise BadInput('name an order, or say --all')
    _told(cancel(settings(), who, why, order or '', dry_run), as_json)


@app.command()
def accept(who: Who = ME, why: Annotated[str, typer.Option(help='Where the money came from or went.')] = '', dry_run: DryRun = False, as_json: Json = False):
    "Take money that moved at the venue without an order of ours into the books; --dry-run shows it."
    from production.control import accept
    _told(accept(settings(), who, why, dry_run), as_json)


@app.command()
def resume(who: Who = ME, why: Why = 'by hand', dry_run: DryRun = False, as_json: Json = False):
    "Lift the halt."
    from production.control import resume
    _told(resume(settings(), who, why, dry_run), as_json)
