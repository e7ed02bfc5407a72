"""The house keeps its shape: who may import whom, and what stays cheap."""
import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
CHAPTERS = ['core', 'market', 'execution', 'signals', 'models', 'risk', 'strategies', 'backtest', 'evidence', 'reporting']
MODULES = sorted((ROOT / 'trading_lib').rglob('*.py'))


def imported(path: Path) -> set[str]:
    "Absolute names of everything a module imports, at the top or inside a function."
    package = '.'.join(path.relative_to(ROOT).parts[:-1])
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import): names |= {a.name for a in node.names}
        if isinstance(node, ast.ImportFrom):
            base = package.rsplit('.', node.level - 1)[0] if node.level > 1 else package
            names.add('.'.join(filter(None, [base, node.module])) if node.level else node.module)
    return names


@pytest.mark.parametrize('path', MODULES, ids=lambda p: str(p.relative_to(ROOT / 'trading_lib')))
def test_a_chapter_imports_only_chapters_above_it(path):
    parts = path.relative_to(ROOT / 'trading_lib').parts
    if len(parts) < 2: return
    allowed = set(CHAPTERS[:CHAPTERS.index(parts[0]) + 1])
    for name in imported(path):
        assert not name.startswith(('production', 'research')), f'{path} imports {name}'
        if name.startswith('trading_lib.'): assert name.split('.')[1] in allowed, f'{path} imports {name}'


def test_only_the_gateway_and_history_speak_to_venues():
    speakers = {str(p.relative_to(ROOT)) for p in [*MODULES, *(ROOT / 'production').rglob('*.py')] if any(n.split('.')[0] == 'ccxt' for n in imported(p))}
    allowed = ('trading_lib/market/history.py', 'production/gateway.py', 'production/pull.py', 'production/local_exchange/client.py',
               'production/venues/bitunix.py')
    assert speakers <= set(allowed), f'these import ccxt as well: {sorted(speakers - set(allowed))}'


def fresh(code: str) -> str:
    "What a new interpreter prints for this code."
    return subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True, cwd=ROOT).stdout


def test_importing_the_library_imports_nothing_heavy():
    loaded = fresh('import sys, trading_lib, trading_lib.core, trading_lib.backtest; print(*sys.modules)').split()
    assert not {'pandas', 'numpy', 'numba', 'vectorbt', 'sklearn', 'ccxt', 'onnxruntime'} & set(loaded)


def test_help_imports_nothing_heavy():
    loaded = fresh('import sys; from production.cli import main\ntry: main(["--help"])\nfinally: print(*sys.modules)').split()
    assert not {'pandas', 'numpy', 'pydantic', 'rich', 'ccxt', 'sqlalchemy'} & set(loaded)


def test_every_name_on_a_face_exists():
    for chapter in CHAPTERS:
        if not (ROOT / 'trading_lib' / chapter).is_dir(): continue
        module = __import__(f'trading_lib.{chapter}', fromlist=['*'])
        for name in module.__all__: assert getattr(module, name) is not None, f'{chapter}.{name}'


def test_the_code_of_this_project_names_no_package_host_and_no_absolute_path():
    import re
    files = subprocess.run(['git', 'ls-files'], capture_output=True, text=True, cwd=ROOT).stdout.split()
    bad = re.compile(r'files\.pythonhosted|https?://py' + r'pi\.|registry\.npm|/home/\w+/|/root/')
    found = [f for f in files if not f.endswith(('.png', '.ico')) and bad.search((ROOT / f).read_text(errors='ignore')) and 'test_architecture' not in f]
    assert not found
