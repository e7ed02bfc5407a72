"""Sentiment: charged words, a tiny transformer folder, and moods that never look ahead."""
import json
import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from onnx import TensorProto, helper
from sklearn.metrics import f1_score
from tokenizers import Tokenizer, models, pre_tokenizers

from trading_lib.core.errors import BadInput, Damaged, Unreachable
from trading_lib.signals.sentiment import CRYPTO_WORDS, Lexicon, Mood, OnnxText, download, score_headlines

WORDS = {'[PAD]': 0, '[UNK]': 1, 'surge': 2, 'hack': 3, 'report': 4}
CHARGE = np.array([[9, 9, 9], [0, .5, 0], [0, 0, 3], [4, 0, 0], [0, 1, 0]], 'float32')   # padding would be loud if it counted


def model_folder(folder, network='onnx/model.onnx', labels=('negative', 'neutral', 'positive'), config=True, extra_input=False):
    "A classifier in the hub's layout that adds up one row of class scores a word."
    tokenizer = Tokenizer(models.WordLevel(WORDS, unk_token='[UNK]'))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    (folder / network).parent.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / 'tokenizer.json'))
    (folder / 'config.json').write_text(json.dumps({'id2label': dict(enumerate(labels))}))
    if config: (folder / 'tokenizer_config.json').write_text(json.dumps(
        {'tokenizer_class': 'PreTrainedTokenizerFast', 'pad_token': '[PAD]', 'unk_token': '[UNK]', 'model_max_length': 16}))
    names = ['input_ids', 'attention_mask'] + ['token_type_ids'] * extra_input
    node = helper.make_node
    nodes = [node('Gather', ['rows', 'input_ids'], ['each']), node('Cast', ['attention_mask'], ['mask'], to=1),
             node('Unsqueeze', ['mask', 'last'], ['wide']), node('Mul', ['each', 'wide'], ['kept']),
             node('ReduceSum', ['kept', 'words'], ['logits'], keepdims=0)]
    weights = [helper.make_tensor('rows', TensorProto.FLOAT, CHARGE.shape, CHARGE.ravel()),
               helper.make_tensor('last', TensorProto.INT64, [1], [2]), helper.make_tensor('words', TensorProto.INT64, [1], [1])]
    graph = helper.make_graph(nodes, 'tiny', [helper.make_tensor_value_info(n, TensorProto.INT64, ['n', 't']) for n in names],
                              [helper.make_tensor_value_info('logits', TensorProto.FLOAT, ['n', 3])], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 17)], ir_version=10)
    (folder / network).write_bytes(model.SerializeToString())
    return folder


def expected(text):
    logits = CHARGE[[WORDS.get(w, 1) for w in text.split()]].sum(axis=0)
    p = np.exp(logits) / np.exp(logits).sum()
    return p[2] - p[0]


@pytest.mark.parametrize('network', ['onnx/model_quantized.onnx', 'onnx/model.onnx', 'model.onnx'])
@pytest.mark.parametrize('config', [True, False])
def test_a_model_folder_scores_as_its_network_says(tmp_path, network, config):
    texts = ['surge', 'a hack', 'surge surge and no hack', 'report']
    scores = OnnxText(model_folder(tmp_path, network, config=config))(texts)
    assert scores == pytest.approx([expected(t) for t in texts], abs=1e-6)


def test_a_score_does_not_depend_on_the_texts_it_is_scored_with(tmp_path):
    texts = ['surge'] + ['a hack and a report ' * k for k in range(1, 4)] * 20
    together, alone = OnnxText(model_folder(tmp_path)), OnnxText(tmp_path, batch=1)
    assert together(texts) == pytest.approx(alone(texts), abs=1e-6)
    assert together(texts)[0] == pytest.approx(together('surge'), abs=1e-6)
    assert len(together([])) == 0


def test_a_network_that_asks_for_token_types_gets_them(tmp_path):
    assert OnnxText(model_folder(tmp_path, extra_input=True))('surge') == pytest.approx(expected('surge'), abs=1e-6)


def test_texts_longer_than_the_model_reads_are_cut(tmp_path):
    assert OnnxText(model_folder(tmp_path))('surge ' + 'report ' * 500) == pytest.approx(expected('surge ' + 'report ' * 15), abs=1e-6)


def test_a_folder_that_is_no_classifier_is_refused_in_one_line(tmp_path):
    model_folder(tmp_path)
    broken = {'no network': lambda f: (f/'onnx/model.onnx').unlink(), 'no tokenizer': lambda f: (f/'tokenizer.json').unlink(),
              'no labels': lambda f: (f/'config.json').write_text('{}'), 'garbage labels': lambda f: (f/'config.json').write_text('{'),
              'nameless labels': lambda f: (f/'config.json').write_text('{"id2label": {"0": "LABEL_0"}}')}
    for name, harm in broken.items():
        folder = model_folder(tmp_path / name)
        harm(folder)
        with pytest.raises(BadInput) as told: OnnxText(folder)
        assert '\n' not in str(told.value), name
    (tmp_path / 'onnx/model.onnx').write_bytes(b'garbage')
    with pytest.raises(Damaged, match='no usable ONNX model'): OnnxText(tmp_path)('surge')


def test_reading_a_model_needs_no_torch(tmp_path):
    model_folder(tmp_path)
    code = f'''import sys; sys.modules["torch"] = None
from trading_lib.signals.sentiment import OnnxText
print(OnnxText({str(tmp_path)!r})("surge"))'''
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout.split()[-1]) == pytest.approx(expected('surge'), abs=1e-6)


def test_a_hub_that_cannot_be_reached_is_unreachable_and_a_wrong_name_is_bad_input(tmp_path, monkeypatch):
    import huggingface_hub
    def raising(error):
        def snapshot_download(*args, **kwargs): raise error
        return snapshot_download
    monkeypatch.setattr(huggingface_hub, 'snapshot_download', raising(huggingface_hub.errors.LocalEntryNotFoundError('no network')))
    with pytest.raises(Unreachable, match='try again later'): download('someone/model', tmp_path)
    monkeypatch.setattr(huggingface_hub, 'snapshot_download', raising(ConnectionError('refused')))
    with pytest.raises(Unreachable): download('someone/model', tmp_path)
    monkeypatch.undo()
    with pytest.raises(BadInput, match='check its name'): download('this is no name', tmp_path)


def test_only_the_needed_files_are_fetched_and_a_model_without_onnx_is_refused(tmp_path, monkeypatch):
    import huggingface_hub
    asked = {}
    def hub(model_id, local_dir, **kwargs):
        asked.update(kwargs)
        if model_id == 'good/model': model_folder(local_dir, 'onnx/model_quantized.onnx')
    monkeypatch.setattr(huggingface_hub, 'snapshot_download', hub)
    assert OnnxText(download('good/model', tmp_path / 'good', revision='abc'))('surge') > .5
    assert asked['revision'] == 'abc' and not any('torch' in p or p == '*' for p in asked['allow_patterns'])
    with pytest.raises(BadInput, match='offers no onnx'): download('torch/only', tmp_path / 'torch')


def test_phrases_and_negations_change_the_score():
    score = Lexicon()
    assert score('the ETF approved today') > score('approved today') >= 0
    assert score('not bullish') < 0 < score('bullish')
    assert score('RUG PULL') < -.5 and score('nothing here') == 0 == score('')
    assert Lexicon({'wombat': 4})('wombat') > .5 > abs(score('wombat'))
    assert score('wombat') == 0, 'one lexicon must not leak into another'
    assert all(-4 <= v <= 4 for v in CRYPTO_WORDS.values())


def test_our_words_read_financial_headlines_better_than_the_plain_list(shared_data):
    tweets = pd.read_csv(shared_data / 'sentiment/twitter_financial_news/sent_train.csv')
    titles = pd.read_csv(shared_data / 'sentiment/sentfin/SEntFiN_open70.csv')
    named = titles.Decisions.map(lambda s: set(re.findall('positive|negative|neutral', s)))
    titles, named = titles[named.map(len) == 1], named[named.map(len) == 1]
    sets = {'tweets': (tweets.text, tweets.label.map({0: -1, 1: 1, 2: 0})),
            'titles': (titles.Title, named.map(lambda s: {'positive': 1, 'negative': -1, 'neutral': 0}[next(iter(s))]))}
    for name, (texts, truth) in sets.items():
        f1 = [f1_score(truth, np.sign(np.where(abs(s := lexicon(texts)) > .05, s, 0)), average='macro') for lexicon in (Lexicon({}), Lexicon())]
        assert f1[1] > f1[0] + .08, (name, f1)


def test_scores_keep_their_times_and_are_put_in_order():
    at = pd.to_datetime(['2024-01-02', '2024-01-01', '2024-01-03'], utc=True)
    facts = score_headlines(pd.DataFrame(dict(text=['surges', None, 'plunges'], source='x'), index=at), Lexicon())
    assert facts.index.is_monotonic_increasing and facts.sentiment.iloc[0] == 0 < facts.sentiment.iloc[1]
    for bad in (pd.DataFrame(dict(text=['a'])), pd.DataFrame(dict(title=['a']), index=at[:1]), pd.DataFrame(dict(text=['a']), index=at[:1].tz_localize(None))):
        with pytest.raises(BadInput): score_headlines(bad, Lexicon())


def random_scores(n=300, seed=1):
    rng = np.random.default_rng(seed)
    at = pd.Timestamp('2024-01-01', tz='UTC') + pd.to_timedelta(np.sort(rng.integers(0, 30*86400, n)), unit='s')
    return pd.Series(rng.uniform(-1, 1, n), pd.DatetimeIndex(at))


def test_mood_is_the_weighted_average_of_its_definition():
    scores, at = random_scores(), pd.date_range('2023-12-31', '2024-02-02', freq='3h', tz='UTC')
    felt = Mood(scores, '6h')(at)
    for t in at:
        w = .5 ** ((t - scores.index[scores.index <= t]) / pd.Timedelta('6h')).to_numpy()
        assert felt[t] == pytest.approx((w * scores[scores.index <= t]).sum() / (1 + w.sum()), abs=1e-12)
    assert felt.abs().max() < 1


def test_mood_does_not_know_what_comes_later_nor_how_it_is_asked():
    scores, at = random_scores(), pd.date_range('2024-01-01', '2024-01-31', freq='1h', tz='UTC')
    felt = Mood(scores)(at)
    cut = at[400]
    assert Mood(scores[:cut])(at[:401]).equals(felt[:401])
    assert Mood(scores)(at[380:]).equals(felt[380:])
    assert Mood(scores.sample(frac=1, random_state=0))(at).equals(felt)
    assert (Mood(scores[:0])(at) == 0).all()
