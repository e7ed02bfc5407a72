"""Export the notebooks to a scratch folder and compare with trading_lib/, byte for byte: `python tests/export_in_sync.py`."""
import filecmp
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def differences() -> list[str]:
    "Files of trading_lib that are not what the notebooks export, or exist on one side only."
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / 'copy'
        copy.mkdir()
        shutil.copytree(ROOT / 'nbs', copy / 'nbs', ignore=shutil.ignore_patterns('.ipynb_checkpoints'))
        shutil.copy(ROOT / 'pyproject.toml', copy)
        (copy / 'trading_lib').mkdir()
        shutil.copy(ROOT / 'trading_lib' / '__init__.py', copy / 'trading_lib')
        subprocess.run([str(Path(sys.executable).parent / 'nbdev-export')], cwd=copy, check=True)
        sides = [{p.relative_to(side / 'trading_lib') for p in (side / 'trading_lib').rglob('*.py')} for side in (ROOT, copy)]
        lonely = sides[0] ^ sides[1]
        changed = {p for p in sides[0] & sides[1] if not filecmp.cmp(ROOT / 'trading_lib' / p, copy / 'trading_lib' / p, shallow=False)}
        return sorted(str(p) for p in lonely | changed)


if __name__ == '__main__':
    if wrong := differences(): sys.exit(f'trading_lib is not what the notebooks export: {", ".join(wrong)}; run: make export')
