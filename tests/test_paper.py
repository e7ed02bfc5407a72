"""From a notebook to an order: promotion, and paper trading through unmodified ccxt that equals replay to the last digit."""
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from production.cli import main
from production.journal import Journal
from production.paper import market_of, trade_on_paper
from production.promotion import promote
from trading_lib.core.errors import BadInput, Damaged, Refused
from trading_lib.core.settings import Risk, Settings
from trading_lib.evidence.dossier import Dossier, read_dossier
from trading_lib.execution.costs import Costs
from trading_lib.market.store import Store
from trading_lib.market.synthetic import synthetic_market
from trading_lib.models.training import train

BARS, COSTS, LEARNT = 2500, Costs(fee_bps=10, slippage_bps=5), '2023-03-01'   # of bars from 2023-01-01 on


@pytest.fixture(scope='module')
def desk(tmp_path_factory) -> Settings:
    "A project folder with a synthetic market, its headlines and a model in it; everything runs from there."
    root, back = tmp_path_factory.mktemp('desk'), Path.cwd()
    (root / 'settings.ini').write_text('[execution]\norder_window_ms = 1000\n')
    market = synthetic_market(seed=11, bars=BARS)
    store = Store(root / 'data')
    for sample in market.samples.values(): store.write(sample, 'synthetic')
    sample = market.samples['BTC/USDT']
    market.headlines[market.headlines.symbol == 'BTC/USDT'].to_parquet(root / 'headlines.parquet')
    train(sample, root / 'model', before=LEARNT)
    os.chdir(root)
    yield Settings.load(root)
    os.chdir(back)


def promoted(desk: Settings, strategy: str, params: dict | None = None, feeds: dict | None = None, **request: str) -> Dossier:
    return promote(strategy, 'BTC/USDT', params or {}, COSTS, 10_000., dict(exchange='synthetic') | request, feeds or {}, desk)


def trading(desk: Settings, *argv: str) -> subprocess.CompletedProcess:
    "The command, as a process of its own."
    environ = dict(os.environ, PYTHONPATH=str(Path(__file__).resolve().parents[1]))
    return subprocess.run([sys.executable, '-m', 'production.cli', *argv], capture_output=True, text=True, cwd=desk.root, env=environ)


@pytest.fixture(scope='module')
def cross(desk) -> Dossier:
    "A plain strategy, promoted by the command."
    done = trading(desk, 'promote', 'sma_cross', '--data', 'BTC/USDT', '--exchange', 'synthetic', '-p', 'fast=5', '-p', 'slow=20',
                   '--fee-bps', '10', '--slippage-bps', '5', '--json')
    assert done.returncode == 0, done.stderr
    return read_dossier(json.loads(done.stdout)['folder'])


@pytest.mark.parametrize('argv, key', [(['strategies'], 'strategies'), (['data', 'list'], 'store'), (['data', 'check', 'BTC/USDT'], 'defects'), (['trials'], 'total'),
                                       (['promotions'], 'promotions'), (['status'], 'bots'), (['orders'], 'orders'), (['halt', '--dry-run'], 'would'),
                                       (['resume', '--dry-run'], 'would'), (['halt', '--flatten', '--dry-run'], 'would'), (['run', 'tiny.ipynb', '-p', 'n=2'], 'status')])
def test_every_command_answers_in_text_and_in_json(desk, cross, capsys, argv, key):
    cells = [dict(cell_type='code', metadata=dict(tags=['parameters']), source='n: int = 1   # how many', outputs=[], execution_count=None),
             dict(cell_type='code', metadata={}, source='n * 21', outputs=[], execution_count=None)]
    (desk.root / 'tiny.ipynb').write_text(json.dumps(dict(cells=cells, metadata={}, nbformat=4, nbformat_minor=4)))
    assert main(argv) == 0 and capsys.readouterr().out.strip()
    assert main([*argv, '--json']) == 0
    assert key in json.loads(capsys.readouterr().out)


def test_a_promotion_holds_its_evidence(cross):
    assert {'report.html', 'report.ipynb', 'strategy.txt'} <= set(cross.files)
    assert cross.verdict['verdict'] == 'pass' and cross.window_bars >= 3 * cross.more['warmup_bars']
    assert cross.result['strategy'] == 'sma_cross' and cross.params == dict(fast=5, slow=20)
    assert {'trading_lib.strategies.trend', 'trading_lib.signals.indicators'} <= set(cross.code)
    assert '<svg' in (page := (cross.folder / 'report.html').read_text()) or 'plotly' in page


def test_paper_equals_replay_to_the_last_digit(desk, cross):
    done = trade_on_paper(cross.id, desk, bars=150)
    assert done.agrees, done.differences
    research, replayed, paper = done.side_by_side
    assert paper['fills'] > 5 and paper['final_equity'] == replayed['final_equity']
    assert float(paper['final_equity']) == pytest.approx(research['final_equity'], rel=.01)   # a cash buffer and steps apart


@pytest.mark.parametrize('argv', [['flatten', '--dry-run'], ['close', 'btc/usdt', '--dry-run'], ['cancel', '--all', '--dry-run']])
def test_every_hand_on_the_wheel_answers_in_text_and_in_json(desk, cross, capsys, argv):
    if not (desk.root / 'var' / 'journal.db').exists(): trade_on_paper(cross.id, desk, bars=40, account='first')
    for more in ([], ['--json']): assert main([*argv, *more]) == 0
    said = capsys.readouterr().out.split('{', 1)
    assert f'would: {argv[0].replace("close", "flatten")}' in said[0] and 'open_orders' in json.loads('{' + said[1])
    assert main(['cancel', '--dry-run']) == 2 and main(['accept', '--why', 'none']) == 1
    assert 'nothing to accept' in capsys.readouterr().err


def test_the_comparison_notices_a_fill_that_differs(desk, cross, monkeypatch):
    import production.paper as paper
    real = paper.replay_venue
    monkeypatch.setattr(paper, 'replay_venue', lambda *a: real(*a[:-1], a[-1] * 2))   # twice the slippage in replay
    done = trade_on_paper(cross.id, desk, bars=60, account='tampered')
    assert not done.agrees and any('fills differ' in d for d in done.differences)


def test_where_limits_refuse_orders_the_comparison_says_so_first(desk, cross, capsys):
    done = trade_on_paper(cross.id, desk.model_copy(update=dict(risk=Risk(max_exposure='0.5'))), bars=60, account='limited')
    assert not done.agrees and re.match(r'limits refused \d+ orders, so paper is not replay \(the first at 20.*: max_exposure: BTC/USDT as a share of equity would be', done.differences[0])
    assert done.side_by_side[2]['fills'] == 0 and 'limits refused' in done.text().split('\n\n')[-1]
    with Journal.reader(desk.journal_url) as journal: assert any(alert['title'].startswith('Limit: max_exposure on BTC/USDT, limited') for alert in journal.history())


def test_joined_columns_and_a_model_travel_to_paper(desk):
    feeds = dict(sentiment='headlines.parquet', forecast='model')
    with pytest.raises(Refused, match='its model has learnt from bars until'): promoted(desk, 'hybrid_trend', dict(fast=5, slow=20), feeds)
    dossier = promoted(desk, 'hybrid_trend', dict(fast=5, slow=20), feeds, start=LEARNT)
    for name in feeds.values():   # what was judged lies in the promotion; the originals are not needed any more
        path = desk.root / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    done = trade_on_paper(dossier.id, desk, bars=120)
    assert done.agrees, done.differences
    assert done.side_by_side[2]['fills'] > 0


def test_a_paper_run_killed_twice_ends_like_an_uninterrupted_one(desk, cross):
    whole = trade_on_paper(cross.id, desk, bars=200, account='whole')
    command = [sys.executable, '-m', 'production.cli', 'paper', cross.id, '--bars', '200', '--account', 'killed', '--json']
    environ = dict(os.environ, PYTHONPATH=str(Path(__file__).resolve().parents[1]))
    for share in (.3, .7):
        child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=desk.root, env=environ)
        while decided(desk, 'killed') < 200 * share: assert child.poll() is None, child.stderr.read().decode(); time.sleep(.02)
        child.send_signal(signal.SIGKILL)
        child.communicate()
        assert 0 < decided(desk, 'killed') < 200
    last = subprocess.run(command, capture_output=True, text=True, cwd=desk.root, env=environ)
    done = json.loads(last.stdout)
    assert last.returncode == 0 and done['agrees'], last.stderr
    assert done['side_by_side'] == json.loads(json.dumps(whole.json()['side_by_side'], default=str))
    with Journal.reader(desk.journal_url) as journal:
        books = {b['account'].split('-')[0]: b for b in journal.status()['bots']}
        orders = [o['client_id'] for o in journal.orders()]
    assert books['killed']['cash'] == books['whole']['cash'] and books['killed']['position'] == books['whole']['position']
    assert len(orders) == len(set(orders))


def decided(desk: Settings, account: str) -> int:
    "How many bars an account has decided."
    try:
        with Journal.reader(desk.journal_url) as journal:
            return next((sum(b['decisions'].values()) for b in journal.status()['bots'] if b['account'].startswith(f'{account}-')), 0)
    except BadInput: return 0


def test_a_halted_account_trades_nothing_until_it_is_resumed(desk, cross, capsys):
    assert main(['halt', '--who', 'test', '--why', 'to see']) == 0
    with pytest.raises(Refused, match='halted by test: to see'): trade_on_paper(cross.id, desk, bars=60, account='halted')
    assert main(['resume', '--who', 'test']) == 0
    assert trade_on_paper(cross.id, desk, bars=60, account='halted').agrees


def test_a_halt_while_a_bot_starts_is_committed_and_holds(desk, cross):
    child = subprocess.Popen([sys.executable, '-m', 'production.cli', 'paper', cross.id, '--bars', '400', '--account', 'starting'], stdout=subprocess.DEVNULL,
                             stderr=subprocess.PIPE, text=True, cwd=desk.root, env=dict(os.environ, PYTHONPATH=str(Path(__file__).resolve().parents[1])))
    try:
        for wait in (.3, .6): time.sleep(wait); assert main(['halt', '--who', 'test', '--why', 'early']) == 0
        time.sleep(3)
        before = decided(desk, 'starting')
        time.sleep(1)
        assert decided(desk, 'starting') == before < 400
    finally:
        child.kill()
        child.communicate()
        assert main(['resume', '--who', 'test']) == 0


def test_what_was_asked_of_a_dead_bot_is_done_by_its_next_start_which_then_refuses_to_trade(desk, cross, capsys):
    command = [sys.executable, '-m', 'production.cli', 'paper', cross.id, '--bars', '400', '--account', 'dead', '--json']
    environ = dict(os.environ, PYTHONPATH=str(Path(__file__).resolve().parents[1]))
    def bot():
        try:
            with Journal.reader(desk.journal_url) as journal: return next((b for b in journal.status()['bots'] if b['account'].startswith('dead-')), dict(position=0))
        except BadInput: return dict(position=0)
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=desk.root, env=environ)
    while bot()['position'] < .01: assert child.poll() is None, child.stderr.read().decode(); time.sleep(.01)
    child.kill()
    child.communicate()
    try:
        assert main(['halt', '--flatten', '--who', 'test', '--why', 'pulled']) == 0 and 'the next start does it before anything else' in capsys.readouterr().out
        last = subprocess.run(command, capture_output=True, text=True, cwd=desk.root, env=environ)
        assert last.returncode == 1 and 'halted by test: pulled' in last.stderr
        assert bot()['position'] < .001
        with Journal.reader(desk.journal_url) as journal: assert not any(row['account'].startswith('dead-') for row in journal.waiting())
    finally: assert main(['resume', '--who', 'test']) == 0


def test_an_unfinished_run_says_with_what_it_was_begun(desk, cross):
    folder = desk.folder('runs') / 'paper' / cross.id / 'short'
    folder.mkdir(parents=True)
    (folder / 'request.json').write_text(json.dumps(dict(bars=40, data_fingerprint=cross.data_fingerprint)))
    with pytest.raises(BadInput, match='begun with --bars 40'): trade_on_paper(cross.id, desk, bars=60, account='short')
    assert trade_on_paper(cross.id, desk, bars=40, account='short').agrees


def test_a_damaged_dossier_is_refused_with_one_line(desk, cross, tmp_path, capsys):
    copy = shutil.copytree(cross.folder, tmp_path / cross.folder.name)
    page = copy / 'report.html'
    page.write_bytes(page.read_bytes().replace(b'10,000', b'10,001', 1))
    with pytest.raises(Damaged, match='not what was promoted'): read_dossier(copy)
    assert main(['paper', str(copy)]) == 2 and capsys.readouterr().err.count('\n') == 1


def test_a_strategy_changed_after_promotion_is_refused(desk, tmp_path):
    idea = tmp_path / 'idea.py'
    idea.write_text('from trading_lib.signals import sma\nfrom trading_lib.strategies import strategy\n\n@strategy\ndef above(bars):\n    "Long above the average."\n'
                    '    return bars.close > sma(bars.close, 20)\n')
    dossier = promoted(desk, f'{idea}:above')
    assert trade_on_paper(dossier.id, desk, bars=40).agrees
    idea.write_text(idea.read_text().replace('20', '21'))
    with pytest.raises(Refused, match='changed since it was promoted'): trade_on_paper(dossier.id, desk, bars=40)


@pytest.mark.parametrize('body, why', [('return bars.close.shift(-1) > bars.close', 'lookahead'), ('return (bars.close > bars.close.rolling(9).mean()) * 2. - 1', 'short')])
def test_what_peeks_or_goes_short_is_not_promoted(desk, tmp_path, body, why):
    (tmp_path / 'bad.py').write_text(f'from trading_lib.strategies import strategy\n\n@strategy\ndef bad(bars):\n    "No."\n    {body}\n')
    before = set(desk.folder('promotions').glob('*'))
    with pytest.raises(Refused, match=why): promoted(desk, f'{tmp_path}/bad.py:bad')
    assert set(desk.folder('promotions').glob('*')) == before


def test_bars_that_changed_since_the_promotion_are_refused(desk, cross):
    store = Store(desk.folder('store'))
    sample = store.read('BTC/USDT', 'synthetic')
    path = store.path('synthetic', 'BTC/USDT', '1h')
    kept = path.read_bytes()
    bars = sample.bars.copy()
    bars.iloc[-1, bars.columns.get_loc('volume')] += 1
    store.write(type(sample)(bars, sample.symbol, sample.timeframe, sample.source, True), 'synthetic')
    try:
        with pytest.raises(Refused, match='has changed since'): trade_on_paper(cross.id, desk, bars=40)
    finally: path.write_bytes(kept)


def test_paper_trades_other_bars_when_they_are_named(desk, cross, shared_data):
    file = shared_data / 'ohlcv/binance_usdm_1h/ETHUSDT_1h_2020-10_2023-12.parquet'
    done = trade_on_paper(cross.id, desk, data=str(file), bars=80)
    assert done.agrees and done.market == 'ETH/USDT', done.differences


@pytest.mark.parametrize('symbol, market', [('BTC/USDT', 'BTC/USDT'), ('BTCUSDT_1h_2020-10_2023-12', 'BTC/USDT'), ('ADA_BTC-5m', 'ADA/BTC'), ('coin', 'COIN/USDT'),
                                            ('btc-perp_1m_20211231', 'BTC/USDT'), ('ETH-USDT', 'ETH/USDT'), ('1000SHIBUSDT', '1000SHIB/USDT'), ('_', 'COIN/USDT')])
def test_a_file_name_says_which_market_it_holds(symbol, market): assert market_of(symbol) == market


def test_the_demo_runs_on_a_file_of_ones_own(desk, tmp_path, capsys, monkeypatch):
    (tmp_path / 'settings.ini').write_text('')
    monkeypatch.chdir(tmp_path)
    bars = synthetic_market(seed=5, bars=1200, symbols=('ETH/USDT',)).samples['ETH/USDT'].bars
    bars.reset_index().to_csv('mine.csv', index=False)
    assert main(['demo', '--data', 'mine.csv', '--json']) == 0
    done = json.loads(capsys.readouterr().out)
    assert done['agrees'] and Path(done['report']).is_file() and Path(done['promotion']).is_dir()
    assert pd.read_parquet(next((tmp_path / 'runs' / 'paper').rglob('*.parquet'))).shape[0] == 1200
