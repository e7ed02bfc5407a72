"What a digest watches: everything that the answer of a strategy depends on."
import importlib
import os
import sys

import pytest
from IPython.core.interactiveshell import InteractiveShell

from trading_lib.core.errors import BadInput
from trading_lib.strategies.contract import code_files, describe, find

HEAD = 'from trading_lib.strategies.contract import strategy, describe\n'
MINE = '@strategy\ndef mine(bars): return bars.close * 0 + {answer}\n'


@pytest.fixture
def told():
    "Run cells; the digest after each."
    shell = InteractiveShell()
    def run(*cells):
        for cell in cells: shell.run_cell(HEAD + cell).raise_error()
        return describe(shell.user_ns['mine']).digest
    return run


@pytest.mark.parametrize('before, after, answer', [
    ('LEVEL = 1.', 'LEVEL = -1.', 'LEVEL'),
    ('class Cfg: level = 1.', 'class Cfg: level = -1.', 'Cfg.level'),
    ('class Cfg:\n    def __init__(self): self.level = 1.\ncfg = Cfg()', 'cfg.level = -1.', 'cfg.level'),
    ('class Cfg:\n    def level(self): return 1.\ncfg = Cfg()', 'class Cfg:\n    def level(self): return -1.\ncfg = Cfg()', 'cfg.level()'),
    ('plus = lambda: 1.', 'plus = lambda: -1.', 'plus()'),
    ('one = lambda: 1.\ntwo = lambda: 2.', 'two = lambda: 3.', '(one() + two())'),
    ('from functools import partial\ndef f(x): return x\ng = partial(f, 1.)', 'g = partial(f, -1.)', 'g()'),
    ('import numpy as np\nweights = np.array([1., 2.])', 'weights[0] = -1.', 'weights.sum()'),
    ('table = {"a": [1., 2.]}', 'table["a"][0] = -1.', 'table["a"][0]'),
    ('def make(level):\n    @strategy\n    def mine(bars): return bars.close * 0 + level\n    return mine\nmine = make(1.)', 'mine = make(-1.)', None)])
def test_a_cell_is_known_by_all_it_looks_up(told, before, after, answer):
    own = [] if answer is None else [MINE.format(answer=answer)]
    first = told(before, *own)
    assert told() == first, 'the same is the same'
    assert told('unused = 3') == first, 'what it does not look up is nothing to it'
    assert told(after) != first


def test_a_global_that_is_called_like_a_column_is_nothing_to_it(told):
    first = told('close = 1.', '@strategy\ndef mine(bars): return bars.close > 0')
    assert told('close = 2.') == first


def test_what_cannot_be_written_down_is_refused_by_name(told):
    with pytest.raises(BadInput, match='door is TextIOWrapper, whose value cannot be written down.*write the strategy to a file'):
        told('door = open("/dev/null")', MINE.format(answer='bool(door)'))


def module(folder, name, text, age):
    "Write a file, as old as said in seconds."
    file = folder / f'{name}.py'
    file.write_text(text)
    at = file.stat().st_mtime - age
    os.utime(file, (at, at))
    importlib.invalidate_caches()


@pytest.fixture
def beside(tmp_path, monkeypatch):
    "A folder on the path, whose modules are forgotten afterwards."
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, 'dont_write_bytecode', False)
    known = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - known: del sys.modules[name]


def test_a_module_that_a_cell_uses_is_watched_and_must_be_the_one_that_runs(told, beside):
    module(beside, 'my_levels', 'LEVEL = 1.', 100)
    first = told('import my_levels', MINE.format(answer='my_levels.LEVEL'))
    module(beside, 'my_levels', 'LEVEL = -1.', 50)
    with pytest.raises(BadInput, match=r'my_levels.py was edited after it was imported'): told()
    assert told('import importlib\nimportlib.reload(my_levels)') != first


def test_an_imported_strategy_is_the_one_that_was_imported(beside):
    module(beside, 'my_idea', f'LEVEL = 1.\n{HEAD}{MINE.format(answer="LEVEL")}', 100)
    idea = importlib.import_module('my_idea')
    first = describe(idea.mine).digest
    module(beside, 'my_idea', f'LEVEL = -1.\n{HEAD}{MINE.format(answer="LEVEL")}', -5)
    with pytest.raises(BadInput, match=r'my_idea.py was edited after it was imported'): assert describe(idea.mine).digest
    module(beside, 'my_idea', f'LEVEL = -1.\n{HEAD}{MINE.format(answer="LEVEL")}', 50)
    assert describe(importlib.reload(idea).mine).digest != first


@pytest.mark.parametrize('line', ['texts = {}', 'def texts(): pass', '__file__ = "elsewhere"'])
def test_no_name_in_a_file_hides_the_file(tmp_path, line):
    def digest(level):
        (tmp_path / 'a.py').write_text(f'{HEAD}{line}\nLEVEL = {level}\n{MINE.format(answer="LEVEL")}')
        found = find(f'{tmp_path}/a.py:mine')
        assert 'a.py' in code_files(found)
        return found.digest
    assert digest(1.) != digest(-1.)


@pytest.mark.parametrize('name', ['stop_loss', 'sharpe', 'sharpe_folds', 'fee_bps', 'train_start', 'region_mean'])
def test_a_parameter_may_not_be_called_like_a_column_of_the_results(tmp_path, name):
    (tmp_path / 'a.py').write_text(f'{HEAD}@strategy\ndef mine(bars, {name}: float = .5): return bars.close * 0 + {name}\n')
    with pytest.raises(BadInput, match=f'mine: parameter {name} has the name of a column'): find(f'{tmp_path}/a.py:mine').check()
