"""The command line as its users meet it: the JSON of the architecture, exit codes, and one clear line for bad input."""
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import typer

from production.cli import app, main
from production.demo import _verdict
from production.promotion import refusals
from trading_lib.market.synthetic import synthetic_market

BACKTEST_KEYS = ('strategy params symbol timeframe bars start end data_fingerprint engine initial_equity final_equity total_return benchmark_return '
                 'sharpe sortino calmar max_drawdown trades win_rate profit_factor fees_paid turnover exposure expectancy longest_drawdown funding_paid trials').split()


@pytest.fixture(scope='module')
def bars() -> pd.DataFrame:
    return next(iter(synthetic_market(seed=3, bars=1500).samples.values())).bars


@pytest.fixture
def place(tmp_path, monkeypatch, bars) -> Path:
    "An empty project folder with one good file in it."
    (tmp_path / 'settings.ini').write_text('[costs]\nfee_bps = 10\n')
    bars.reset_index().to_parquet(tmp_path / 'coin.parquet')
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def three(place) -> list[str]:
    "The options that name three coins of one market."
    for name, sample in synthetic_market(seed=3, bars=1500).samples.items(): sample.bars.reset_index().to_parquet(place / f'{name[:3]}.parquet')
    return [word for name in ('BTC', 'ETH', 'SOL') for word in ('--data', f'{name}.parquet')]


@pytest.fixture
def trading(capsys):
    "Run a command; gives exit code, stdout and stderr."
    def run(*argv):
        code = main([str(a) for a in argv])
        done = capsys.readouterr()
        return code, done.out, done.err
    return run


def test_backtest_prints_the_json_of_the_architecture(place, trading):
    code, out, _ = trading('backtest', 'sma_cross', '--data', 'coin.parquet', '-p', 'fast=5', '-p', 'slow=20', '--json')
    found = json.loads(out)
    assert code == 0 and list(found) == BACKTEST_KEYS
    assert found['params'] == {'fast': 5, 'slow': 20} and found['symbol'] == 'coin' and found['timeframe'] == '1h'
    assert found['max_drawdown'] <= 0 and found['trials'] == 1


def test_all_engines_give_the_same_numbers_on_real_bars(place, trading, btc_hourly):
    answers = [json.loads(trading('backtest', 'sma_cross', '--data', btc_hourly, '-p', 'fast=10', '-p', 'slow=50', '--fee-bps', 10, '--slippage-bps', 5,
                                  '--engine', engine, '--json')[1]) for engine in ('kernel', 'vectorbt', 'replay')]
    for other in answers[1:]:
        for name in BACKTEST_KEYS:
            if name == 'engine': continue
            assert other[name] == pytest.approx(answers[0][name], rel=1e-9) if isinstance(other[name], float) else other[name] == answers[0][name], name


def test_the_same_trial_counts_once_whatever_the_engine(place, trading):
    counts = [json.loads(trading('backtest', 'sma_cross', '--data', 'coin.parquet', *extra, '--json')[1])['trials']
              for extra in ((), (), ('--engine', 'replay'), ('-p', 'fast=11'), ('--fee-bps', 20))]
    assert counts == [1, 1, 1, 2, 3]


def test_out_keeps_the_series_behind_the_numbers(place, trading):
    code, out, _ = trading('backtest', 'sma_cross', '--data', 'coin.parquet', '--out', 'kept', '--json')
    assert code == 0
    assert pd.read_parquet('kept/equity.parquet').equity.iloc[-1] == json.loads(out)['final_equity']


def test_a_spot_file_with_outages_is_refused_until_gaps_are_allowed(place, trading, shared_data):
    spot = shared_data / 'ohlcv/binance_spot_1h/BTCUSDT_1h_2021-04_2023-12.parquet'
    code, _, err = trading('backtest', 'sma_cross', '--data', spot)
    assert code == 2 and 'missing' in err and '--allow-gaps' in err
    assert trading('backtest', 'sma_cross', '--data', spot, '--allow-gaps', '--json')[0] == 0


def spoilt(bars: pd.DataFrame, how: str) -> pd.DataFrame:
    "Good bars with one thing wrong."
    bad = bars.reset_index()
    match how:
        case 'no close': return bad.drop(columns='close')
        case 'no time': return bad.drop(columns='time')
        case 'unsorted': return bad.iloc[::-1]
        case 'duplicate': return pd.concat([bad[:10], bad[9:]])
        case 'gap': return bad.drop(index=range(20, 30))
        case 'negative': bad.loc[7, 'close'] = -1.
        case 'high below low': bad.loc[7, ['high', 'low']] = bad.loc[7, 'low'] * .9, bad.loc[7, 'high'] * 1.1
        case 'nan': bad.loc[7, 'open'] = np.nan
        case 'infinite': bad.loc[7, 'high'] = np.inf
        case 'text': bad['close'] = bad.close.astype(object); bad.loc[7, 'close'] = 'n/a'
        case 'empty': return bad[:0]
        case 'one bar': return bad[:1]
    return bad


@pytest.mark.parametrize('how', ['no close', 'no time', 'unsorted', 'duplicate', 'gap', 'negative', 'high below low', 'nan', 'infinite', 'text', 'empty', 'one bar'])
@pytest.mark.parametrize('kind', ['csv', 'parquet'])
def test_bad_bars_get_one_clear_line(place, trading, bars, how, kind):
    file = place / f'bad.{kind}'
    bad = spoilt(bars, how)
    if kind == 'csv': bad.to_csv(file, index=False)
    else: bad.astype({'close': str} if how == 'text' else {}).to_parquet(file)
    code, out, err = trading('backtest', 'sma_cross', '--data', file)
    assert code == 2 and out == '' and err.startswith('error: ') and err.count('\n') == 1, err
    assert 'Traceback' not in err and not (place / 'runs').exists()


@pytest.mark.parametrize('name, content', [('nothing.csv', b''), ('garbage.parquet', b'\x00\x01garbage'), ('garbage.csv', b'\xff\xfe\x00\x81'), ('words.csv', b'hello\nworld\n'),
                                           ('garbage.feather', b'no'), ('file.xyz', b'time,open')])
def test_garbage_gets_one_clear_line(place, trading, name, content):
    (place / name).write_bytes(content)
    code, out, err = trading('backtest', 'sma_cross', '--data', place / name)
    assert code == 2 and out == '' and err.startswith('error: ') and err.count('\n') == 1, err


@pytest.mark.parametrize('argv, words', [
    (['backtest', 'sma_corss', '--data', 'coin.parquet'], ['sma_corss', 'did you mean sma_cross?']),
    (['backtest', 'sma_cross', '--data', 'coin.parquet', '-p', 'fats=3'], ['fats', 'did you mean fast?']),
    (['backtest', 'sma_cross', '--data', 'coin.parquet', '-p', 'fast=999'], ['999', 'from 2 to 200']),
    (['backtest', 'sma_cross', '--data', 'coin.parquet', '-p', 'fast=ten'], ['ten', 'an int']),
    (['backtest', 'sma_cross', '--data', 'coin.parquet', '-p', 'fast=2.5'], ['2.5', 'an int']),
    (['backtest', 'sma_cross', '--data', 'coin.parquet', '-p', 'fast'], ['name=value']),
    (['backtest', 'sma_cross', '--data', 'coin.parquet', '-p', 'fast=50', '-p', 'slow=20'], ['50', '20', 'smaller']),
    (['backtest', 'sma_cross', '--data', 'missing.parquet'], ['missing.parquet']),
    (['backtest', 'sma_cross', '--data', 'coin.parquet', '--engine', 'kernal'], ['did you mean kernel?']),
    (['backtest', 'sma_cross', '--data', 'coin.parquet', '--fee-bps', '-3'], ['-3']),
    (['backtest', 'sma_cross', '--data', 'coin.parquet', '--cash', '0'], ['cash']), (['backtest', 'sma_cross', '--data', 'coin.parquet', '--cash', 'inf'], ['cash']),
    (['backtest', 'sma_cross', '--data', 'coin.parquet', '--out', 'coin.parquet/x'], ['--out']), (['lab', '--port', '99999'], ['--port', '65535']), ([], ['--help']),
    (['backtest', 'sma_cross', '--data', 'coin.parquet', '--start', '2090-01-01'], ['2090']),
    (['backtest', 'sma_cross', '--data', 'coin.parquet', '--start', 'soon'], ['soon']),
    (['backtest', 'nowhere.py:f', '--data', 'coin.parquet'], ['nowhere.py']),
    (['backtest', 'sma_cross', '--data', 'coin.parquet', '--columns', 'mood'], ['mood']),
    (['backtest', 'sma_cross', '--data', 'NOSUCH'], ['NOSUCH']),
    (['backtest', 'sma_cross', '--data', 'coin.parquet', '--stop-loss', '5'], ['stop_loss', 'between 0 and 1']),
    (['backtest', 'sma_cross', '--data', 'coin.parquet', '--data', 'coin.parquet'], ['twice']),
    (['backtest', 'sma_cross', '--data', 'coin.parquet', '--funding', 'coin.parquet'], ['funding', 'rate']),
    (['backtest', 'momentum_rotation', '--data', 'coin.parquet'], ['several symbols']),
    (['backtest', 'grid', '--data', 'coin.parquet', '--stop-loss', '.1'], ['stop_loss']),
    (['backtest', 'grid', '--data', 'coin.parquet', '--engine', 'vectorbt'], ['replay']),
    (['sweep', 'sma_cross', '--data', 'coin.parquet', '-p', 'fast=2:200:1', '-p', 'slow=5:400:1', '--limit', '1000'], ['78,', '1,000']),
    (['sweep', 'sma_cross', '--data', 'coin.parquet', '-p', 'fast=5:10:5', '--by', 'shrape'], ['did you mean sharpe?']),
    (['search', 'sma_cross', '--data', 'coin.parquet', '--objective', 'shrape'], ['did you mean sharpe?']),
    (['search', 'sma_cross', '--data', 'coin.parquet', '--sampler', 'tep'], ['tep']),
    (['search', 'sma_cross', '--data', 'coin.parquet', '--drop', '1'], ['drop was 1.0', 'below 1']),
    (['evolve', '--data', 'coin.parquet', '--holdout', '0'], ['holdout was 0.0', 'above 0']),
    (['sweep', 'sma_cross', '--data', 'coin.parquet', '-p', 'fast=5', '-p', 'fast=7'], ['given twice for fast', 'once']),
    (['backtest', 'sma_cross', '--data', 'coin.parquet', '--time-stop', '99999999999999999999'], ['time_stop', 'at most']),
    (['backtest', 'sma_cross', '--data', 'coin.parquet', '--start', '01/11/2020'], ['01/11/2020', '2024-03-10']),
    (['validate', 'sma_cross', '--data', 'coin.parquet', '--seed', '-1'], ['--seed', 'greater than or equal to 0']),
    (['queue', 'nothing.toml'], ['nothing.toml']), (['evolve', '--data', 'coin.parquet', '--out', 'best.txt'], ['.py']),
    (['validate', 'sma_cross', '--data', 'coin.parquet', '-p', 'fats=5:10:5'], ['did you mean fast?']),
    (['bakctest'], ['bakctest']), (['backtest', 'sma_cross'], ['--data']), (['paper', 'nothing-here'], ['nothing-here'])])
def test_bad_requests_get_one_clear_line(place, trading, argv, words):
    code, out, err = trading(*argv)
    assert code == 2 and out == '' and err.startswith('error: ') and err.count('\n') == 1, err
    for word in words: assert word in err


@pytest.mark.parametrize('text, word', [('def broken(:', 'SyntaxError'), ('import nothing_of_that_name', 'ModuleNotFoundError'), ('x = 1', 'no strategy'), ('', 'no strategy')])
def test_a_strategy_file_that_cannot_be_used_gets_one_clear_line(place, trading, text, word):
    (place / 'idea.py').write_text(text)
    code, out, err = trading('backtest', 'idea.py:broken', '--data', 'coin.parquet')
    assert code == 2 and out == '' and word in err and err.count('\n') == 1


def test_failure_with_json_is_one_json_object(place, trading):
    code, out, err = trading('backtest', 'sma_corss', '--data', 'coin.parquet', '--json')
    assert code == 2 and json.loads(out)['exit_code'] == 2 and 'sma_cross' in json.loads(out)['error']


def test_an_unknown_setting_is_refused_with_the_nearest_name(place, trading):
    (place / 'settings.ini').write_text('[costs]\nfee_bsp = 10\n')
    code, _, err = trading('data', 'list')
    assert code == 2 and 'did you mean fee_bps?' in err


def test_a_sweep_writes_a_row_a_set_and_counts_what_was_refused(place, trading):
    argv = ('sweep', 'sma_cross', '--data', 'coin.parquet', '-p', 'fast=5:20:5', '-p', 'slow=10:40:10', '--out', 'table.parquet', '--json')
    code, out, _ = trading(*argv)
    found, table = json.loads(out), pd.read_parquet('table.parquet')
    assert code == 0 and len(table) == found['sets'] == 16 and found['refused'] == 4   # 10/10, 15/10, 20/10, 20/20
    assert list(table.columns[:2]) == ['fast', 'slow']
    row = table[(table.fast == 5) & (table.slow == 20)].iloc[0]
    one = json.loads(trading('backtest', 'sma_cross', '--data', 'coin.parquet', '-p', 'fast=5', '-p', 'slow=20', '--json')[1])
    for name in ('final_equity', 'sharpe', 'max_drawdown', 'fees_paid', 'exposure', 'trades'): assert row[name] == pytest.approx(one[name], rel=1e-9)
    assert json.loads(trading(*argv)[1])['computed'] == 0


def test_stops_end_positions_and_are_said_and_counted(place, trading):
    plain, stopped = (json.loads(trading('backtest', 'sma_cross', '--data', 'coin.parquet', *extra, '--json')[1]) for extra in ((), ('--stop-loss', '.02', '--time-stop', '48')))
    assert stopped['stops'] == dict(stop_loss=.02, time_stop=48) and 'stops' not in plain
    assert (stopped['trials'], plain['trials']) == (2, 1) and stopped['final_equity'] != plain['final_equity']


def test_several_symbols_share_one_account_and_all_engines_agree(place, trading, three):
    for strategy in ('sma_cross', 'momentum_rotation'):
        ends = [json.loads(trading('backtest', strategy, *three, '--engine', engine, '--json')[1])['final_equity'] for engine in ('kernel', 'vectorbt', 'replay')]
        assert ends == pytest.approx([ends[0]] * 3, rel=1e-9)
    code, out, _ = trading('backtest', 'sma_cross', *three, '--out', 'kept', '--json')
    assert code == 0 and pd.read_parquet('kept/fills.parquet').symbol.nunique() == 3


def test_funding_is_charged_and_is_part_of_the_trial(place, trading, bars):
    pd.DataFrame(dict(time=bars.index[::8], rate=.0005)).to_csv('funding.csv', index=False)
    free, charged = (json.loads(trading('backtest', 'sma_cross', '--data', 'coin.parquet', *extra, '--json')[1]) for extra in ((), ('--funding', 'funding.csv')))
    assert charged['funding_paid'] > 0 == free['funding_paid'] and charged['final_equity'] < free['final_equity'] and charged['trials'] == 2


def test_a_ladder_is_replayed(place, trading):
    found = json.loads(trading('backtest', 'grid', '--data', 'coin.parquet', '-p', 'levels=3', '--json')[1])
    assert found['engine'] == 'replay' and found['fees_paid'] > 0


def test_a_sweep_of_stops_shares_the_table_and_draws_its_pictures(place, trading):
    code, out, _ = trading('sweep', 'sma_cross', '--data', 'coin.parquet', '-p', 'fast=5:15:5', '-p', 'trailing_stop=none,0.02,0.04', '--out', 'table.parquet', '--pictures', 'maps', '--json')
    table = pd.read_parquet('table.parquet')
    assert code == 0 and len(table) == 9 and table.trailing_stop.isna().sum() == 3
    assert {each.name for each in (place / 'maps').iterdir()} == {'heatmap.png', 'stability.png'}


def test_a_search_goes_on_where_it_was_and_its_queue_too(place, trading):
    argv = ('search', 'sma_cross', '--data', 'coin.parquet', '-p', 'fast=5:60', '-p', 'slow=70:200', '--folds', '2', '--json')
    first, second, third = (json.loads(trading(*argv, '--trials', trials)[1]) for trials in (6, 10, 10))
    assert [first['computed'], second['computed'], third['computed']] == [6, 4, 0] and third['best'] == second['best']
    (place / 'queue.toml').write_text("[[search]]\nstrategy = 'sma_cross'\ndata = 'coin.parquet'\nranges = {fast = '5:60', slow = '70:200'}\nfolds = 2\ntrials = 10\n")
    assert json.loads(trading('queue', 'queue.toml', '--json')[1])['searches'][0]['computed'] == 0


def test_what_evolves_is_written_out_and_runs(place, trading):
    code, out, _ = trading('evolve', '--data', 'coin.parquet', '--generations', '2', '--population', '12', '--folds', '2', '--out', 'best.py', '--json')
    found = json.loads(out)
    assert code == 0 and found['sentences'] > 20
    assert trading('backtest', found['written'], '--data', 'coin.parquet')[0] == 0


def test_validate_says_a_sentence_for_every_question(place, trading):
    code, out, _ = trading('validate', 'sma_cross', '--data', 'coin.parquet', '-p', 'fast=5:15:5', '-p', 'slow=40:60:10', '--folds', '3', '--paths', '200', '--pictures', 'maps', '--json')
    found = json.loads(out)
    assert code == 0 and {'walk_forward', 'cross_validation', 'returns', 'prices', 'stress'} <= set(found) and found['trials'] > 9
    assert (place / 'maps/walk_forward.png').is_file()


def test_the_ledger_tells_trials_by_kind_and_the_latest(place, trading):
    for argv in (('backtest',), ('sweep', '-p', 'fast=5:15:5')): trading(argv[0], 'sma_cross', '--data', 'coin.parquet', *argv[1:])
    found = json.loads(trading('trials', 'sma_cross', '--latest', '2', '--json')[1])
    assert found['total'] == found['trials']['sma_cross'] == 3 and len(found['latest']) == 2   # fast=10 is the default, and was tried twice
    assert sum(found['groups'][0]['kinds'].values()) == 3


def test_a_sweep_refuses_a_bad_range_in_one_line(place, trading):
    for bad in ('fast=5:20', 'fast=5:20:0', 'fast=5:999:5', 'fats=5:20:5'):
        code, out, err = trading('sweep', 'sma_cross', '--data', 'coin.parquet', '-p', bad)
        assert code == 2 and out == '' and err.count('\n') == 1, err


def test_what_a_strategy_prints_does_not_spoil_the_answer(place, trading):
    (place / 'loud.py').write_text('from trading_lib.strategies import strategy\n\n@strategy\ndef loud(bars):\n    "Talks."\n    print("hello")\n    return bars.close > 0\n')
    code, out, err = trading('backtest', 'loud.py:loud', '--data', 'coin.parquet', '--json')
    assert code == 0 and json.loads(out)['strategy'] == 'loud' and 'hello' in err


def test_verify_says_no_with_exit_code_1_to_a_strategy_that_peeks(place, trading):
    (place / 'peek.py').write_text('from trading_lib.strategies import strategy\n\n@strategy\ndef peek(bars):\n    "Knows tomorrow."\n'
                                   '    return bars.close.shift(-1) > bars.close\n')
    code, out, _ = trading('verify', 'peek.py:peek', '--data', 'coin.parquet', '--json')
    found = json.loads(out)
    assert code == 1 and found['verdict'] == 'fail' and {f['kind'] for f in found['findings']} >= {'lookahead'}


def test_verify_passes_an_honest_strategy(place, trading):
    code, out, _ = trading('verify', 'sma_cross', '--data', 'coin.parquet', '--json')
    found = json.loads(out)
    assert code == 0 and found['verdict'] == 'pass' and found['findings'] == []
    assert set(found) == {'verdict', 'findings', 'warmup_bars', 'agreement'} and set(found['agreement']) == {'engines', 'max_rel_diff', 'first_bar', 'left_out'}
    assert 45 <= found['warmup_bars'] <= 60


@pytest.mark.parametrize('name, why', [('grid', 'returns orders'), ('dca', 'returns orders'), ('momentum_rotation', 'weighs several symbols')])
def test_what_paper_cannot_trade_is_not_promoted(place, trading, name, why):
    code, out, err = trading('promote', name, '--data', 'coin.parquet')
    assert code == 1 and out == '' and why in err and not (place / 'promotions').exists()


def test_a_report_made_with_stops_is_not_promoted():
    result = dict(verdict=dict(verdict='pass', findings=[]), target_min=0., seen_by_models=None, ruined=None, summary={})
    assert refusals(result) == []
    assert ['judged with stops' in why for why in refusals(result | dict(summary=dict(stops=dict(stop_loss=.05))))] == [True]


def test_the_demo_speaks_of_a_verdict_that_compared_nothing():
    verdict = dict(verdict='pass', findings=[], warmup_bars=None, agreement=dict(engines=['replay'], max_rel_diff=None))
    assert 'replay differ by at most nothing that could be measured' in _verdict(verdict)


def test_every_option_says_what_it_is():
    command = typer.main.get_command(app)
    found = {f'{name} {sub}'.strip(): each for name, one in command.commands.items() for sub, each in getattr(one, 'commands', {'': one}).items()}
    assert [f'{name} {p.name}' for name, each in found.items() for p in each.params if p.param_type_name == 'option' and not p.help] == []
    assert len(found) > 20 and all(each.help for each in found.values())


def test_the_store_takes_bars_in_and_gives_them_back(place, trading):
    assert trading('data', 'import', 'coin.parquet', '--exchange', 'somewhere')[0] == 0
    code, out, _ = trading('backtest', 'sma_cross', '--data', 'coin', '--json')
    assert code == 0
    assert trading('data', 'export', 'coin', '--out', 'again.csv')[0] == 0
    again = json.loads(trading('backtest', 'sma_cross', '--data', 'again.csv', '--json')[1])
    assert again['data_fingerprint'] == json.loads(out)['data_fingerprint'] and again['final_equity'] == json.loads(out)['final_equity']


def test_the_installed_command_interrupted_ends_with_130(place):
    code = 'import production.cli as cli, sys\n@cli.app.command()\ndef wait():\n    raise KeyboardInterrupt\nsys.exit(cli.main(["wait"]))'
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert done.returncode == 130 and done.stderr == 'error: interrupted\n'
