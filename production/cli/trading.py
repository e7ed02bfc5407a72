"From a promotion to orders, and hands on the wheel."
import os
from typing import Annotated

import typer

from production.cli.asking import AllowGaps, Feeds, Json, Market, Params, StrategyName, Terms, grouped, settings
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
    halt = found.get('halt')
    return '\n'.join([f'HALTED by {halt["who"]} at {halt["at"]}: {halt["why"]}' if halt else 'trading is not halted',
                      table(found['bots'], 'no bot has run yet; see: trading paper --help')])


@app.command()
def orders(limit: Annotated[int, typer.Option(help='How many to show.', min=1)] = 20, as_json: Json = False):
    "The orders in the journal, newest first."
    from production.control import order_report
    rows = order_report(settings(), limit)
    answer(dict(orders=rows), as_json, lambda: table(rows, 'no orders yet'))


Who = Annotated[str, typer.Option(help='Who decides this, for the record.')]
Why = Annotated[str, typer.Option(help='The reason, for the record.')]
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
