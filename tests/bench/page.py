"docs/benchmarks.md, and the machine it was made on."
import os
import platform
import re
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path


def machine() -> str:
    "Processor, memory, interpreter, versions."
    said = Path('/proc/cpuinfo').read_text() if Path('/proc/cpuinfo').exists() else ''
    model = next((line.split(':')[1].strip() for line in said.splitlines() if line.startswith('model name')), platform.processor() or platform.machine())
    memory = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30
    names = ('numpy', 'numba', 'pandas', 'TA-Lib', 'vectorbt', 'vectorbt-rust')
    return (f'{os.cpu_count()} cores of {model}, {memory:.0f} GB, {platform.system()}; Python {sys.version.split()[0]}, '
            + ', '.join(f'{name} {version(name)}' for name in names))


def page(written: dict[str, str], lab, before: str = '') -> str:
    "The whole page: the sections just written, and those of the page before that were not."
    sections = {title(text): text for text in re.split(r'(?m)^(?=## )', before)[1:]}
    order = list(sections)
    today = f'{datetime.now(UTC):%d %B %Y}'
    for text in (f'{text.rstrip()}\n\n*{today}*\n' for text in written.values()):
        old = next((name for name in order if name.split(':')[0] == title(text).split(':')[0]), None)
        if old is None: order.append(title(text))
        else:
            order[order.index(old)] = title(text)
            del sections[old]
        sections[title(text)] = text
    short = [f'- {name}: {bold}' for name in order for bold in re.findall(r'(?m)^\*\*(.*)\*\*$', sections[name])[:1]]
    return '\n'.join(['# Benchmarks', '', INTRODUCTION.format(machine=machine()), *short, '',
                      *(sections[name].rstrip('\n') + '\n' for name in order)])


def title(text: str) -> str: return text.split('\n')[0].removeprefix('## ')


INTRODUCTION = '''> Written by `make bench`; nothing here is typed in by hand.

Same work, equal results asserted first. Every candidate runs in a fresh process, they take turns, and what is shown is the median; ratios are medians of the
ratios of each turn, in CPU time. Compiling, imports and garbage collection are outside the clock, except where they are the question. Peaks of memory are those of
the whole process, imports included.

vectorbt appears twice: through its Portfolio, as its documentation teaches, and with the engine functions underneath called bare, without pandas, which few people
would do. In both it gets averages from TA-Lib, arrays instead of frames, order memory to measure, and whichever engine and size of chunk is fastest here.

The machine: {machine}.
'''
