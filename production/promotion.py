"""From a result to a promotion: run the report notebook, ask every gate, and write the evidence down as one dossier."""
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path

from production.jobs import RunRecord, revision, run_notebook
from trading_lib.core.errors import BadInput, Refused
from trading_lib.core.settings import Settings
from trading_lib.evidence.dossier import Dossier, check_code, read_dossier, write_dossier
from trading_lib.execution.costs import Costs
from trading_lib.strategies.contract import Strategy, code_files, find

PROJECT = Path(__file__).resolve().parents[1]
REPORT = PROJECT / 'research' / '01_strategy_report.ipynb'
VALID_DAYS = 90
BARS = ('data', 'exchange', 'timeframe', 'symbol', 'start', 'end', 'columns', 'allow_gaps')   # what chose the bars
LEAST_WINDOW = 50       # bars; averages of a handful of bars are cheap to give more


def promote(strategy: str, data: str, params: dict, costs: Costs, cash: float, request: dict, feeds: dict[str, str], settings: Settings) -> Dossier:
    "Execute the report on these bars and write the dossier; raises `Refused` with every reason when a gate says no."
    return promote_report(run_report(strategy, data, params, costs, cash, request, feeds, settings), settings)


def run_report(strategy: str, data: str, params: dict, costs: Costs, cash: float, request: dict, feeds: dict[str, str], settings: Settings) -> RunRecord:
    "The strategy report, executed; `request` holds what else chooses the bars: exchange, timeframe, symbol, start, end, columns, allow_gaps."
    named = find(strategy)
    if named.orders or named.several:
        raise Refused(f'{named.name} {"returns orders" if named.orders else "weighs several symbols"}, and paper trades the exposure of one symbol; research it with: trading backtest {strategy}')
    asked = dict(strategy=strategy, data=_absolute(data), params=named.check(params), fee_bps=costs.fee_bps, slippage_bps=costs.slippage_bps, cash=cash, feeds=feeds, **request)
    return run_notebook(REPORT, {k: v for k, v in asked.items() if v is not None}, settings.folder('runs'))


def promote_report(report: RunRecord, settings: Settings) -> Dossier:
    "The dossier of an executed report; raises `Refused` with every reason when a gate says no."
    if reasons := refusals(report.result): raise Refused(f'{report.result["summary"]["strategy"]} is not promoted: {"; ".join(reasons)}. The report: {report.page}')
    record, files = evidence(report)
    return read_dossier(write_dossier(settings.folder('promotions'), record, files))


def refusals(result: dict) -> list[str]:
    "Why this result may not be promoted to a spot venue; empty when every gate is open."
    verdict, found = result['verdict'], []
    if verdict['verdict'] != 'pass':
        first = verdict['findings'][0]
        found.append(f'verify found {len(verdict["findings"])} problem(s), the first {first["kind"]}: {first["detail"]}')
    if result['target_min'] < 0: found.append(f'it goes short (exposure {result["target_min"]:g}), and a spot account cannot; promote it with shorts off')
    if result['seen_by_models']:
        found.append(f'its model has learnt from bars until {result["seen_by_models"]}, and the report begins at {result["summary"]["start"]}; '
                     f'promote it with --start {result["seen_by_models"]}')
    if result['summary'].get('stops'): found.append('it was judged with stops, which paper trading does not place; promote it without them')
    if result['ruined']: found.append(f'its equity was gone at {result["ruined"]}')
    return found


def evidence(report: RunRecord) -> tuple[dict, dict]:
    "The record of the dossier, and the files that lie beside it."
    asked, result, now = report.parameters, report.result, datetime.now(UTC)
    spec, summary, warmup = find(asked['strategy']), result['summary'], result['verdict']['warmup_bars']
    record = dict(
        name=spec.name, strategy=spec.origin, params=summary['params'], symbol=summary['symbol'], timeframe=summary['timeframe'],
        data_fingerprint=summary['data_fingerprint'], window_bars=max(3 * warmup, LEAST_WINDOW), warmup_bars=warmup,
        costs={k: result[k] for k in ('fee_bps', 'slippage_bps')}, initial_equity=summary['initial_equity'], code=code_files(spec),
        verdict=result['verdict'], result=summary, data={k: asked[k] for k in BARS}, synthetic=result['synthetic'],
        created=now.isoformat(timespec='seconds'), expires=(now + timedelta(days=VALID_DAYS)).isoformat(timespec='seconds'),
        revision=revision(PROJECT), lock=_digest(PROJECT / 'requirements.lock'), doc=spec.doc)
    files = {'strategy.txt': spec.source.encode(), 'report.ipynb': report.folder / report.notebook, 'report.html': report.page}
    record['feeds'], more = feed_files(asked['feeds'], summary['symbol'])
    return record, files | more


def feed_files(feeds: dict[str, str], symbol: str) -> tuple[dict, dict]:
    "Each feed's description, and its files, so that paper and live read what was judged."
    from trading_lib.strategies.feeds import load_feed
    about, files = {}, {}
    for name, path in feeds.items():
        feed, path = load_feed(name, path, symbol), Path(path)
        parts = sorted(p for p in path.iterdir() if p.is_file()) if path.is_dir() else [path]
        files |= {f'feed-{name}-{p.name}': p for p in parts}
        about[name] = dict(feed.record, path=str(path), folder=path.is_dir(), files={p.name: f'feed-{name}-{p.name}' for p in parts})
    return about, files


def strategy_of(dossier: Dossier) -> Strategy:
    "The strategy that was judged; `Refused` if its code changed, and a file that changed is not even run."
    path = Path(dossier.strategy.rpartition(':')[0])
    if path.suffix == '.py' and path.is_file() and _digest(path) != dossier.code.get(path.name):
        raise Refused(f'{dossier.id}: {path.name} changed since it was promoted; promote it again')
    strategy = find(dossier.strategy)
    check_code(dossier, strategy)
    return strategy


def feeds_of(dossier: Dossier) -> dict:
    "The feeds of a promotion, loaded from the files that lie in it."
    import shutil
    import tempfile

    from trading_lib.strategies.feeds import load_feed
    found = {}
    for name, about in dossier.feeds.items():
        with tempfile.TemporaryDirectory() as folder:   # a model is a folder of its own names
            for own, kept in about['files'].items(): shutil.copy(dossier.folder / kept, Path(folder) / own)
            found[name] = load_feed(name, folder if about['folder'] else Path(folder) / next(iter(about['files'])), dossier.symbol)
        if found[name].digest != about['digest']: raise Refused(f'{dossier.id}: feed {name} is not the one that was judged; promote it again')
    return found


def listed(settings: Settings) -> list[dict]:
    "Every promotion, newest last, with what it claims."
    rows = []
    for folder in sorted(settings.folder('promotions').glob('[!.]*'), key=lambda p: p.stat().st_mtime):
        if not folder.is_dir(): continue
        try: d = read_dossier(folder)
        except BadInput as error: rows.append(dict(promotion=folder.name, state=f'damaged: {error}', symbol=None, params=None, sharpe=None, trials=None, expires=None)); continue
        state = 'expired' if datetime.fromisoformat(d.expires) <= datetime.now(UTC) else 'valid'
        rows.append(dict(promotion=folder.name, state=state, symbol=f'{d.symbol} {d.timeframe}', params=d.params, sharpe=d.result['sharpe'], trials=d.result['trials'], expires=d.expires))
    return rows


def _absolute(data: str) -> str:
    "A file named from the root, so that it is found from anywhere; a symbol as it is."
    return str(Path(data).resolve()) if Path(data).is_file() else data


def _digest(path: Path) -> str | None:
    return sha256(path.read_bytes()).hexdigest() if path.is_file() else None
