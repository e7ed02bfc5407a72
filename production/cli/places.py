"Places to work: the demo, JupyterLab, the dashboards, the local exchange."
from typing import Annotated

import typer

from production.cli.asking import AllowGaps, Host, Json, Market, Port, Terms, grouped, settings
from production.cli.speaking import answer, say

app = typer.Typer()

Expose = Annotated[bool, typer.Option('--expose', help='Allow a --host that other machines reach; there is no password.')]


@app.command()
@grouped
def exchange(market: Market, terms: Terms, host: Host = '127.0.0.1',
             port: Annotated[int, typer.Option(help='Port to listen on; 0 takes a free one.', min=0, max=65535)] = 8585,
             speed: Annotated[float, typer.Option(help='Bars a second; 0 waits for POST /control/release.', min=0)] = 1.,
             expose: Expose = False, as_json: Json = False):
    "Serve the local exchange: Binance's spot protocol over stored bars."
    from production.paper import serve_exchange
    from production.places import loopback
    loopback(host, expose)
    serve_exchange(market.sample(), host, port, speed, terms.cash, terms.costs, lambda url: answer(dict(url=url), as_json), say)


@app.command()
def demo(data: Annotated[str | None, typer.Option('--data', metavar='FILE', help='Your own bars instead of the synthetic market.')] = None,
         allow_gaps: AllowGaps = False, as_json: Json = False):
    "The whole story, offline: data, report, proof, promotion, paper."
    from production.demo import run_demo
    done = run_demo(settings(), data=data, allow_gaps=allow_gaps)
    answer(done.json(), as_json, done.text)
    return 0 if done.agrees else 1


@app.command()
def lab(port: Port = 8888, host: Host = '127.0.0.1', as_json: Json = False):
    "JupyterLab on the book and the research notebooks."
    from production.places import open_lab
    return open_lab(settings().root, host, port, lambda url: answer(dict(url=url), as_json))


@app.command()
def dashboards(port: Port = 8866, host: Host = '127.0.0.1', expose: Expose = False, as_json: Json = False):
    "The Voila dashboards, for people who do not code."
    from production.places import open_dashboards
    return open_dashboards(settings().root, host, port, expose, lambda pages: answer(pages, as_json))
