"Questions about a strategy."
import json
import os
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from production.cli.asking import (
    By,
    Exits,
    Feeds,
    Json,
    Market,
    Markets,
    Params,
    Ranges,
    Seed,
    StrategyName,
    Terms,
    feeds_of,
    grouped,
    ledger,
    settings,
    store,
    writable_parquet,
)
from production.cli.speaking import answer, moment, pairs, progress_of, say, stages_of, table
from trading_lib.core.errors import BadInput

app = typer.Typer()


@app.command()
def strategies(as_json: Json = False):
    "The strategies there are, with parameters and bounds."
    from trading_lib.strategies.contract import catalogue
    found = [dict(name=s.name, doc=s.doc.splitlines()[0] if s.doc else '', needs=list(s.needs), several=s.several, orders=s.orders,
                  parameters=[dict(name=p.name, default=p.default, low=p.low, high=p.high, bounds=p.bounds) for p in s.parameters.values()])
             for s in catalogue()]
    def notes(s):
        said = [f'needs {", ".join(s["needs"])}' if s['needs'] else '', 'several symbols' if s['several'] else '', 'returns orders' if s['orders'] else '']
        return f'  ({"; ".join(filter(None, said))})' if any(said) else ''
    def text():
        return '\n\n'.join('\n'.join([f'{s["name"]}  {s["doc"]}{notes(s)}', *(f'    {p["name"]} = {p["default"]}  {p["bounds"]}' for p in s['parameters'])])
                           for s in found)
    answer(dict(strategies=found), as_json, text)


@app.command()
@grouped
def backtest(strategy: StrategyName, markets: Markets, terms: Terms, exits: Exits, param: Params = None,
             engine: Annotated[str, typer.Option(help='kernel, vectorbt or replay; they give the same numbers, and a strategy that returns orders is always replayed.')] = 'kernel',
             out: Annotated[Path | None, typer.Option(help='A folder for equity.parquet, fills.parquet, trades.parquet and summary.json.')] = None,
             feed: Feeds = None, as_json: Json = False):
    "What following a strategy would have given."
    from trading_lib.backtest.run import backtest
    from trading_lib.backtest.run import engine as named
    from trading_lib.strategies.contract import find
    named(engine)
    chosen = find(strategy)
    chosen.check(pairs(param, '-p'))
    stops, sample = exits.stops, markets.sample()
    done = backtest(chosen, sample, pairs(param, '-p'), terms.costs, terms.cash, engine, ledger(), feeds_of(feed, sample.symbol), stops)
    if done.simulation.ruined is not None: say(f'equity was gone at {done.simulation.ruined}; the run ends there')
    if out: save_backtest(done, out)
    answer(done.summary(), as_json)


def save_backtest(done, folder: Path):
    "The series and tables behind the numbers; all of the files are written before the first is put in place."
    if folder.exists() and not folder.is_dir(): raise BadInput(f'--out was {folder}, which is a file; name a folder')
    tables = dict(equity=done.table(), fills=done.simulation.fills, trades=done.trades)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix='.') as beside:
            for name, frame in tables.items(): frame.to_parquet(Path(beside) / f'{name}.parquet')
            (Path(beside) / 'summary.json').write_text(json.dumps(done.summary(), indent=1, default=str))
            for file in Path(beside).iterdir(): os.replace(file, folder / file.name)
    except OSError as error: raise BadInput(f'--out {folder} cannot be written ({error.strerror or error}); nothing was changed there') from None


@app.command()
@grouped
def sweep(strategy: StrategyName, markets: Markets, terms: Terms, exits: Exits, param: Ranges = None,
          out: Annotated[Path | None, typer.Option(help='A Parquet file for the table: one row a set, parameters first.')] = None,
          pictures: Annotated[Path | None, typer.Option(help='A folder for heatmap.png and stability.png.')] = None, by: By = 'sharpe',
          limit: Annotated[int, typer.Option(help='More sets than this are refused.', min=1)] = 1_000_000,
          dask: Annotated[str | None, typer.Option(metavar='ADDRESS', help='A Dask cluster to run on, such as tcp://10.0.0.5:8786.')] = None,
          no_cache: Annotated[bool, typer.Option('--no-cache', help='Compute every row, also those that are known.')] = False,
          feed: Feeds = None, as_json: Json = False):
    "A backtest of every set of parameters; interrupted, the same call goes on."
    from trading_lib.backtest.numbers import check_metric
    from trading_lib.backtest.surface import stability
    from trading_lib.backtest.sweep import count_sets
    from trading_lib.backtest.sweep import sweep as swept
    from trading_lib.strategies.contract import find
    writable_parquet(out)
    check_metric(by)
    chosen, ranges, stops = find(strategy), pairs(param, '-p'), exits.stops
    count = count_sets(chosen, ranges, limit)
    sample = markets.sample()
    say(f'{chosen.name} on {sample}: {count:,} sets')
    with progress_of('sets') as progress:
        done = swept(chosen, sample, ranges, terms.costs, terms.cash, ledger(), feeds_of(feed, sample.symbol), progress,
                     None if no_cache else settings().folder('runs') / 'sweeps', stops=stops, limit=limit, client=dask)
    if out: save_table(done.table, out)
    if pictures: save_pictures(_maps(done, by), pictures)
    found = done.summary(by)
    answer(found | dict(out=str(out) if out else None), as_json, lambda: '\n'.join([_swept(found, out), stability(done.table, by).verdict]))


def _maps(done, by: str) -> dict:
    "What a sweep can be shown as: a map where two parameters vary, and how stable its best region is."
    from trading_lib.backtest.surface import heatmap, stability
    varied = [name for name in done.names if done.table[name].nunique() > 1]
    maps = dict(heatmap=lambda: heatmap(done.table, *varied[:2], by)) if len(varied) > 1 else {}
    return maps | (dict(stability=stability(done.table, by).draw) if varied else {})


def save_table(frame, path: Path):
    "Parquet, whole or not at all."
    import io

    from trading_lib.market.store import write_whole
    buffer = io.BytesIO()
    frame.to_parquet(buffer, index=False)
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
@grouped
def search(strategy: StrategyName, markets: Markets, terms: Terms, exits: Exits,
           param: Annotated[list[str] | None, typer.Option('-p', '--param', metavar='NAME=RANGE',
                                                           help='LOW:HIGH, LOW:HIGH:STEP or a comma list; repeat for more; the whole signature if none is given. Stops too.')] = None,
           trials: Annotated[int, typer.Option(help='How many the study shall have in all, those of earlier calls included.', min=1)] = 200,
           objective: Annotated[list[str], typer.Option(metavar='METRIC', help='Metric(s) to optimise: sharpe, calmar, max_drawdown, …; repeat for several.')] = ['sharpe'],   # noqa: B006
           sampler: Annotated[str, typer.Option(help='tpe, nsga2 (genetic) or random.')] = 'tpe',
           folds: Annotated[int, typer.Option(help='Stretches of time on which a set is measured, one after the other.', min=1)] = 4,
           drop: Annotated[float, typer.Option(help='Share of sets given up after each stretch, from 0 to below 1.')] = .25,
           seed: Seed = 0, workers: Annotated[int, typer.Option(help='Processes on this machine.', min=1)] = 1,
           storage: Annotated[str | None, typer.Option(help='A folder, or postgresql://… for many machines; runs/studies if not given.')] = None,
           name: Annotated[str | None, typer.Option(help='Name of the study; made from the question if not given.')] = None,
           out: Annotated[Path | None, typer.Option(help='A Parquet file for the table: one row a trial.')] = None, feed: Feeds = None, as_json: Json = False):
    "Look for good parameters; interrupted, the same call goes on, and ends as if it had not been."
    from trading_lib.backtest.search import search
    from trading_lib.strategies.contract import find
    writable_parquet(out)
    chosen, stops, sample = find(strategy), exits.stops, markets.sample()
    with progress_of('trials') as progress:
        done = search(chosen, sample, trials, pairs(param, '-p') or None, objective, sampler, folds, drop, terms.costs, terms.cash, stops,
                      feeds_of(feed, sample.symbol), ledger(), _studies(storage), name, seed, workers, progress=progress)
    if out: save_table(done.table, out)
    found = done.summary()
    answer(found | dict(out=str(out) if out else None), as_json, lambda: _searched(found))


@app.command()
def queue(file: Annotated[Path, typer.Argument(help='A TOML file with a [[search]] table for each study.')],
          storage: Annotated[str | None, typer.Option(help='A folder, or postgresql://… for many machines; runs/studies if not given.')] = None,
          workers: Annotated[int, typer.Option(help='Processes on this machine.', min=1)] = 1, as_json: Json = False):
    "Work off a queue of searches, together with whoever else is at it; what is finished stays finished."
    from trading_lib.backtest.search import read_queue, work_off
    from trading_lib.market.store import load_sample
    requests = read_queue(file)
    with progress_of('trials') as progress:
        done = work_off(requests, lambda data: load_sample(data, store()), _studies(storage), ledger(), workers, lambda study, *far: progress(*far),
                        Terms().costs)
    found = [each.summary() for each in done]
    answer(dict(searches=found), as_json, lambda: '\n\n'.join(map(_searched, found)))


def _studies(storage: str | None) -> str: return storage or str(settings().folder('runs') / 'studies')


def _searched(found: dict) -> str:
    "The closing lines of a search."
    number = lambda value: '-' if value is None else f'{value:.3f}'
    told = lambda each: (', '.join(f'{k}={v}' for k, v in (each['params'] | each['stops']).items()) + ': ' +
                         ', '.join(f'{name} {number(value)} over the folds (worst {number(each["worst"][name])}), {number(each["whole"][name])} on the whole'
                                   for name, value in each['folds'].items()))
    lines = [f'study {found["study"]}: {found["complete"]:,} complete, {found["pruned"]:,} pruned, {found["refused"]:,} refused, {found["computed"]:,} computed now; '
             f'{found["trials"]:,} trials of {found["strategy"]} so far']
    if found['best']: lines.append(f'steadiest: {told(found["best"])}')
    if len(found['objective']) > 1: lines += [f'on the front: {told(each)}' for each in found['pareto'][:10]]
    return '\n'.join(lines)


@app.command()
@grouped
def evolve(market: Market, terms: Terms,
           generations: Annotated[int, typer.Option(help='Generations to breed after the first, which is random.', min=0)] = 30,
           population: Annotated[int, typer.Option(help='Strategies in each generation, at most 100,000.', min=10, max=100_000)] = 100, objective: By = 'sharpe',
           folds: Annotated[int, typer.Option(help='Stretches of time on which each strategy is measured.', min=1)] = 4,
           holdout: Annotated[float, typer.Option(help='Share of the bars, the last ones, kept out of sample; above 0 and below 1.')] = .25,
           shorts: Annotated[bool, typer.Option(help='Whether strategies may go short.')] = True, seed: Seed = 0,
           out: Annotated[Path | None, typer.Option(help='A file, such as evolved.py, for the best as an ordinary strategy.')] = None,
           pictures: Annotated[Path | None, typer.Option(help='A folder for climb.png and lineage.png.')] = None, feed: Feeds = None, as_json: Json = False):
    "Breed strategies from a grammar of signals and rules; interrupted, the same call goes on."
    from trading_lib.backtest.evolution import climb, evolve, family
    if out and (out.suffix != '.py' or out.is_dir()): raise BadInput(f'--out was {out}; name a file that ends with .py')
    sample = market.sample()
    with progress_of('generations') as progress:
        done = evolve(sample, generations, population, objective, folds, holdout, shorts, costs=terms.costs, cash=terms.cash,
                      feeds=feeds_of(feed, sample.symbol), ledger=ledger(), storage=settings().folder('runs') / 'evolutions', seed=seed, progress=progress)
    if pictures: save_pictures(dict(climb=lambda: climb(done), lineage=lambda: family(done)), pictures)
    found = done.summary() | dict(written=done.write(out) if out else None)
    hall = [dict(training=row.training, out_of_sample=None if row.out_of_sample != row.out_of_sample else row.out_of_sample, rule=row.rule) for row in done.hall.itertuples()]
    answer(found, as_json, lambda: '\n'.join([
        f'{found["sentences"]:,} strategies in {found["generations"]} generations after the first; {found["trials"]:,} trials of {done.name} so far', table(hall),
        *([f'the best was written; run it with: trading backtest {found["written"]} --data {market.data}'] if out else [])]))


@app.command()
@grouped
def validate(strategy: StrategyName, markets: Markets, terms: Terms, exits: Exits, param: Ranges = None,
             folds: Annotated[int, typer.Option(help='Walk-forward steps.', min=2)] = 6,
             paths: Annotated[int, typer.Option(help='Monte Carlo paths.', min=100)] = 10_000,
             ahead: Annotated[int | None, typer.Option(help='Bars that Monte Carlo looks ahead, at most ten years of them; a year if not given.', min=2)] = None,
             seed: Seed = 0, pictures: Annotated[Path | None, typer.Option(help='A folder for a picture of each answer.')] = None,
             feed: Feeds = None, as_json: Json = False):
    "Would it last? Walk-forward, cross-validation, Monte Carlo and stress; -p takes ranges to choose from, or one set. Ends with 1 where the strategy failed."
    from trading_lib.backtest.examination import validate
    from trading_lib.strategies.contract import find
    chosen, stops, sample = find(strategy), exits.stops, markets.sample()
    with stages_of('steps') as progress:
        done = validate(chosen, sample, pairs(param, '-p') or None, None, terms.costs, terms.cash, stops, ledger(), feeds_of(feed, sample.symbol), folds, paths,
                        ahead, seed, progress)
    if pictures: save_pictures({name: part.draw for name, part in done.parts.items()}, pictures)
    found = done.summary()
    answer(found | dict(sentences=done.sentences), as_json, lambda: '\n\n'.join([
        f'{chosen.name} on {sample}, with {", ".join(f"{k}={v}" for k, v in done.run.params.items())}; {done.trials:,} trials so far',
        *(f'{name.replace("_", " ")}: {text}' for name, text in done.sentences.items())]))
    return 1 if done.failed else 0


def save_pictures(drawn: dict, folder: Path):
    "Each picture as NAME.png."
    import matplotlib
    matplotlib.use('agg')
    import matplotlib.pyplot as plt
    if folder.exists() and not folder.is_dir(): raise BadInput(f'--pictures was {folder}, which is a file; name a folder')
    folder.mkdir(parents=True, exist_ok=True)
    for name, draw in drawn.items():
        draw()
        plt.gcf().savefig(folder / f'{name}.png', dpi=160, bbox_inches='tight')
        plt.close('all')


@app.command()
@grouped
def verify(strategy: StrategyName, markets: Markets, terms: Terms, exits: Exits, param: Params = None, feed: Feeds = None, as_json: Json = False):
    "Does it look ahead, and do the engines agree? Ends with 1 when something was found."
    from trading_lib.evidence.verdict import verify
    from trading_lib.strategies.contract import find
    chosen = find(strategy)
    chosen.check(pairs(param, '-p'))
    stops, sample = exits.stops, markets.sample()
    verdict = verify(chosen, sample, pairs(param, '-p'), terms.costs, terms.cash, feeds_of(feed, sample.symbol), stops)
    found = verdict.json()
    def text():
        rows = [f'{f["kind"]:<10} {f["bar"]}  {f["column"] or ""}  {f["detail"]}' for f in found['findings']]
        agreed = found['agreement']
        apart = 'nothing that could be measured' if agreed['max_rel_diff'] is None else f'{agreed["max_rel_diff"]:.1e}'
        return '\n'.join([f'{found["verdict"]}: {chosen.name} on {sample}', *rows, f'warm-up {found["warmup_bars"]} bars; '
                          f'{", ".join(agreed["engines"])} differ by at most {apart}',
                          *(f'{name} was left out: {why}' for name, why in agreed.get('left_out', {}).items())])
    answer(found, as_json, text)
    return 0 if verdict.passed else 1


@app.command()
def trials(strategy: Annotated[str | None, typer.Argument(help='Only this strategy.')] = None,
           latest: Annotated[int | None, typer.Option(help='Also list this many of the latest, one by one.', min=1)] = None, as_json: Json = False):
    "The ledger: every distinct trial that was made, by strategy, code and data."
    book = ledger()
    rows = [{name: moment(value) for name, value in row.items()} for row in book.by_kind(strategy).to_dict('records')]
    counts = {strategy: 0} if strategy else {}
    for row in rows: counts[row['strategy']] = counts.get(row['strategy'], 0) + row['trials']
    last = book.trials(strategy, limit=latest)[['recorded', 'kind', 'strategy', 'params', 'stops', 'total_return', 'sharpe']] if latest else None
    newest = [{name: moment(value) for name, value in row.items()} for row in last.to_dict('records')] if latest else []
    found = dict(trials=counts, total=sum(counts.values()), groups=rows) | (dict(latest=newest) if latest else {})
    answer(found, as_json, lambda: '\n\n'.join([table(rows, 'no trial yet; see: trading backtest --help'), *([table(newest)] if newest else [])]))


@app.command()
def run(notebook: Annotated[Path, typer.Argument(help='A notebook with a cell tagged `parameters`.')], param: Params = None, as_json: Json = False):
    "Run a notebook with parameters; the page and the record go to runs/."
    from production.jobs import run_notebook
    done = run_notebook(notebook, pairs(param, '-p'), settings().folder('runs'))
    answer(done.json(), as_json, lambda: f'{done.answer}\n{done.folder / "report.html"}')
