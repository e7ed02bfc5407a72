"""Models: answers in time or not at all, splits that do not leak, files that equal their source."""
import json
import multiprocessing
import pickle
import subprocess
import sys
import threading
import time

import numpy as np
import pandas as pd
import pytest
from onnx import TensorProto, helper

from trading_lib.core.errors import BadInput, Damaged, Refused, Unreachable
from trading_lib.core.inference import OnnxModel
from trading_lib.market.bars import Sample
from trading_lib.models.splits import purged_folds, walk_forward
from trading_lib.models.training import forward_returns, load_forecast, to_onnx_checked, train, training_rows, untrained
from trading_lib.signals.features import price_features


def onnx_file(path, nodes, weights, out=1):
    shape = lambda name, w: helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, w])
    model = helper.make_model(helper.make_graph(nodes, 'g', [shape('x', 2)], [shape('y', out)], weights),
                              opset_imports=[helper.make_opsetid('', 17)], ir_version=10)
    path.write_bytes(model.SerializeToString())
    return path


@pytest.fixture(scope='session')
def linear(tmp_path_factory):
    "y = 2 x0 + 3 x1"
    return onnx_file(tmp_path_factory.mktemp('linear') / 'linear.onnx', [helper.make_node('MatMul', ['x', 'w'], ['y'])],
                     [helper.make_tensor('w', TensorProto.FLOAT, [2, 1], [2., 3.])])


@pytest.fixture(scope='session')
def slow(tmp_path_factory):
    "A model that computes for seconds."
    node = helper.make_node
    links = [node('MatMul', [f'h{k}', 'h0'], [f'h{k+1}']) for k in range(100)]
    return onnx_file(tmp_path_factory.mktemp('slow') / 'slow.onnx', [node('ReduceMean', ['x'], ['m']), node('Expand', ['m', 'size'], ['h0']),
                     *links, node('ReduceMean', ['h100'], ['y'])], [helper.make_tensor('size', TensorProto.INT64, [2], [1000, 1000])])


def market(n=3000, seed=4):
    rng = np.random.default_rng(seed)
    noise, change = rng.normal(0, .006, n), np.zeros(n)
    for t in range(24, n): change[t] = .6*change[t-24:t].mean() + noise[t]
    index = pd.date_range('2024-01-01', periods=n, freq='h', tz='UTC', name='time')
    close = pd.Series(100*np.exp(change.cumsum()), index)
    bars = pd.DataFrame(dict(open=close.shift(1, fill_value=100.)))
    bars['high'], bars['low'] = np.maximum(bars.open, close)*1.001, np.minimum(bars.open, close)*.999
    return Sample(bars.assign(close=close, volume=rng.lognormal(3, .5, n)), 'COIN/USDT', '1h', 'test', synthetic=True)


SAMPLE = market()


# ---- inference

def test_a_slow_model_falls_back_within_its_deadline_under_load_and_says_so(slow):
    model = OnnxModel(slow, timeout_s=.05, fallback=.5).load()
    waits, answers = [], []
    def ask():
        for _ in range(5):
            began = time.monotonic(); answers.append(model(np.ones((1, 2)))); waits.append(time.monotonic() - began)
    threads = [threading.Thread(target=ask) for _ in range(4)]
    for t in threads: t.start()
    for t in threads: t.join()
    assert answers == [.5]*20 and model.fallbacks == 20 and 'did not answer within 50 ms' in model.last_fallback
    assert np.median(waits) < .2
    with pytest.raises(Unreachable): OnnxModel(slow, timeout_s=.01)(np.ones((1, 2)))


def test_every_failure_before_an_answer_falls_back_or_is_named(linear, tmp_path):
    (tmp_path / 'empty.onnx').write_bytes(b''); (tmp_path / 'garbage.onnx').write_bytes(b'garbage'); (tmp_path / 'cut.onnx').write_bytes(linear.read_bytes()[:60])
    ok = np.ones((1, 2))
    cases = [(dict(path=tmp_path / 'no.onnx'), ok, BadInput, 'there is no model'), (dict(path=tmp_path), ok, BadInput, 'there is no model'),
             *[(dict(path=tmp_path / f'{n}.onnx'), ok, Damaged, 'no usable') for n in ('empty', 'garbage', 'cut')],
             (dict(path=linear, sha256='ab'*32), ok, Damaged, 'was changed'),
             (dict(path=linear), np.ones((1, 3)), BadInput, 'refused inputs'), (dict(path=linear), np.ones(2), BadInput, 'refused inputs'),
             (dict(path=linear), [['a', 'b']], BadInput, 'arrays of numbers'), (dict(path=linear, output='z'), ok, BadInput, 'refused')]
    for how, x, error, text in cases:
        with pytest.raises(error, match=text) as told: OnnxModel(**how)(x)
        assert '\n' not in str(told.value)
        safe = OnnxModel(**how, fallback=lambda x: 'instead')
        assert safe(x) == 'instead' and text in safe.last_fallback and safe.fallbacks == 1
    for wrong in (lambda m: m(), lambda m: m(ok, ok), lambda m: m(z=ok)):
        with pytest.raises(BadInput, match='takes x'): wrong(OnnxModel(linear))


def test_a_good_answer_clears_the_reason(linear):
    model = OnnxModel(linear, fallback=0)
    model(np.ones((1, 9)))
    assert model.last_fallback and model(np.ones((1, 2)))[0, 0] == 5 and model.last_fallback is None


def test_threads_share_a_model_and_processes_get_their_own(linear):
    model, wrong = OnnxModel(linear, timeout_s=5), []
    def ask(k):
        for i in range(200):
            if model([[k, i]])[0, 0] != 2*k + 3*i: wrong.append((k, i))
    threads = [threading.Thread(target=ask, args=(k,)) for k in range(8)]
    for t in threads: t.start()
    for t in threads: t.join()
    assert not wrong
    assert pickle.loads(pickle.dumps(model))([[1, 1]])[0, 0] == 5
    with multiprocessing.get_context('fork').Pool(1) as pool: assert pool.apply(model, ([[1, 2]],))[0, 0] == 8


def test_importing_the_module_loads_no_runtime():
    code = 'import sys, trading_lib.core.inference, trading_lib.models.training, trading_lib.models.splits; ' \
           'print([m for m in ("onnxruntime", "sklearn", "skl2onnx", "skfolio", "transformers") if m in sys.modules])'
    assert subprocess.run([sys.executable, '-c', code], capture_output=True, text=True).stdout.strip() == '[]'


# ---- splits

@pytest.mark.parametrize('n, folds, tested, purge, embargo', [(200, 4, 2, 0, 0), (601, 6, 2, 12, 24), (333, 5, 3, 7, 0), (500, 10, 2, 1, 5)])
def test_no_training_row_comes_close_to_a_test(n, folds, tested, purge, embargo):
    seen = np.zeros(n)
    for s in purged_folds(range(n), folds, tested, purge, embargo):
        for row in s.test[np.flatnonzero(np.diff(s.test, prepend=-9) > 1)]: assert not ((s.train < row) & (s.train >= row - purge)).any()
        for row in s.test[np.flatnonzero(np.diff(s.test, append=n + 9) > 1)]: assert not ((s.train > row) & (s.train <= row + purge + embargo)).any()
        assert not set(s.train) & set(s.test)
        seen[s.test] += 1
    assert (seen == seen[0]).all() and seen[0] > 0


@pytest.mark.parametrize('expanding', [False, True])
def test_walking_forward_never_learns_from_the_future(expanding):
    end = 0
    for s in walk_forward(range(1000), train=300, test=70, purge=12, expanding=expanding):
        assert s.test[0] - s.train[-1] == 13 and len(s.test) == 70 and s.test[0] >= end
        assert len(s.train) == 300 or expanding and s.train[0] == 0
        end = s.test[-1] + 1
    assert end > 900


def test_impossible_splits_are_refused():
    for call in (lambda: purged_folds(range(100), 3, 3), lambda: purged_folds(range(4), 6, 2), lambda: purged_folds(range(100), 5, 2, purge=-1),
                 lambda: purged_folds(range(60), 6, 2, purge=60), lambda: walk_forward(range(10), 20, 5), lambda: walk_forward(range(100), 0, 5)):
        with pytest.raises(BadInput): call()


# ---- training

def test_a_label_is_not_learnt_before_it_is_known():
    noon = pd.Timestamp('2024-03-01T12:00Z')
    x, y = training_rows(SAMPLE, horizon=12, before=noon)
    assert x.index[-1] + pd.Timedelta('13h') == noon
    crash = Sample(SAMPLE.bars.assign(**{name: SAMPLE.bars[name].where(SAMPLE.bars.index < noon, 1.) for name in ('open', 'high', 'low', 'close')}), 'X', '1h', 'test')
    again = training_rows(crash, horizon=12, before=noon)
    assert again[0].equals(x) and again[1].equals(y)


def test_forward_returns_say_what_holding_brings():
    close = pd.Series([1., 2, 4, 2])
    assert forward_returns(close, 2)[:2].tolist() == [3, 0] and forward_returns(close, 2)[2:].isna().all()
    with pytest.raises(BadInput): forward_returns(close, 0)


@pytest.mark.parametrize('kind', ['logistic', 'trees'])
def test_the_file_equals_the_model_that_made_it_also_on_rows_never_seen(tmp_path, kind):
    train(SAMPLE, tmp_path / 'm', before='2024-03-01', model=kind)
    x, y = training_rows(SAMPLE, before='2024-03-01')
    source = untrained(kind).fit(x.to_numpy('float32').astype(float), y)
    rows = price_features(SAMPLE.bars).dropna()
    p = load_forecast(tmp_path / 'm')(SAMPLE.bars)
    np.testing.assert_allclose(p[rows.index], source.predict_proba(rows.to_numpy('float32').astype(float))[:, 1], atol=1e-6)
    assert p.drop(rows.index).isna().all() and p.dropna().between(0, 1).all()


def test_a_real_market_trains_the_same_way(tmp_path, btc_hourly):
    from trading_lib.market.bars import tidy
    sample = Sample(tidy(pd.read_parquet(btc_hourly))[:6_000], 'BTCUSDT', '1h', str(btc_hourly))
    for kind in ('logistic', 'trees'): train(sample, tmp_path / kind, before='2021-05-01', model=kind)
    for kind in ('logistic', 'trees'):
        forecast = load_forecast(tmp_path / kind)
        whole, window = forecast(sample.bars), forecast(sample.bars[-400:-100])
        assert window[72:].equals(whole[-328:-100])
        assert forecast(sample.bars[:3000]).equals(whole[:3000])


def test_training_twice_gives_the_same_file(tmp_path):
    assert train(SAMPLE, tmp_path / 'a', model='trees') == train(SAMPLE, tmp_path / 'b', model='trees')
    assert (tmp_path / 'a/model.onnx').read_bytes() == (tmp_path / 'b/model.onnx').read_bytes()


def test_a_training_that_fails_leaves_nothing_behind(tmp_path):
    for bad in (dict(before='2024-01-05'), dict(features='prce_features'), dict(model='forest'), dict(horizon=0), dict(before='soon')):
        with pytest.raises(BadInput): train(SAMPLE, tmp_path / 'm', **bad)
    assert list(tmp_path.iterdir()) == []


def test_a_model_folder_that_was_touched_is_not_loaded(tmp_path):
    train(SAMPLE, tmp_path / 'm')
    card = json.loads((tmp_path / 'm/model.json').read_text())
    for text, error in (('{', Damaged), ('[]', Damaged), ('{}', Damaged), (json.dumps(card | {'features': 'nope'}), BadInput),
                        (json.dumps(card | {'sha256': '0'*64}), Damaged)):
        (tmp_path / 'm/model.json').write_text(text)
        with pytest.raises(error) as told: load_forecast(tmp_path / 'm')
        assert '\n' not in str(told.value)
    (tmp_path / 'm/model.json').write_text(json.dumps(card))
    (tmp_path / 'm/model.onnx').write_bytes((tmp_path / 'm/model.onnx').read_bytes()[:-1])
    with pytest.raises(Damaged, match='was changed'): load_forecast(tmp_path / 'm')
    (tmp_path / 'm/model.onnx').unlink()
    with pytest.raises(BadInput, match='there is no model'): load_forecast(tmp_path / 'm')


def test_a_forecast_needs_none_of_what_trained_it(tmp_path):
    train(SAMPLE, tmp_path / 'm')
    SAMPLE.bars.to_parquet(tmp_path / 'bars.parquet')
    code = f'''import sys
for name in ('sklearn', 'skl2onnx', 'skfolio', 'scipy', 'torch', 'vectorbt', 'matplotlib'): sys.modules[name] = None
import pandas as pd
from trading_lib.models.training import load_forecast
print(load_forecast({str(tmp_path / 'm')!r})(pd.read_parquet({str(tmp_path / 'bars.parquet')!r})).iloc[-1])'''
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) == load_forecast(tmp_path / 'm')(SAMPLE.bars).iloc[-1]


def test_a_model_that_onnx_would_answer_differently_is_refused():
    one = np.float32(1)
    low = np.nextafter(one, 2); high = np.nextafter(low, 2)   # neighbours: what lies between them is rounded to the higher
    x = np.repeat([low, high], 200)[:, None].astype('float32')
    with pytest.raises(Refused, match='1e-6 is allowed'): to_onnx_checked(untrained('trees').fit(x.astype(float), x[:, 0] > low), x)


def test_a_forecast_remembers_rows_and_says_the_same_of_them(tmp_path):
    train(SAMPLE, tmp_path / 'm')
    asked, fresh = load_forecast(tmp_path / 'm'), load_forecast(tmp_path / 'm')
    first = asked(SAMPLE.bars[:600])
    assert asked(SAMPLE.bars[:600]).equals(first)
    assert asked(SAMPLE.bars).equals(fresh(SAMPLE.bars))


def test_a_trained_folder_can_be_read_by_others(tmp_path):
    train(SAMPLE, tmp_path / 'm')
    assert (tmp_path / 'm').stat().st_mode & 0o777 == 0o755
