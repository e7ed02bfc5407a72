"""The dashboard as a person sees it: in a browser, with a picture that is really drawn."""
import io
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import numpy as np
import pytest

from trading_lib.backtest.run import backtest
from trading_lib.execution.costs import Costs
from trading_lib.market.synthetic import synthetic_market
from trading_lib.reporting.plots import BLUE

ROOT = Path(__file__).resolve().parents[1]
CHROMIUM = next(filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))), None)
FLAGS = ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update',
         '--disable-sync']
NO_CHROMIUM = pytest.mark.skipif(CHROMIUM is None, reason='no Chromium here; install it with: apt-get install chromium')
pytestmark = [pytest.mark.browser, pytest.mark.slow, NO_CHROMIUM]


@pytest.fixture(scope='module')
def address(tmp_path_factory):
    "A Voila server with an empty store and a ledger of its own."
    with closing(socket.socket()) as probe:
        probe.bind(('127.0.0.1', 0))
        port = probe.getsockname()[1]
    home = tmp_path_factory.mktemp('home')
    env = dict(os.environ, PYTHONPATH=str(ROOT), TRADING__PATHS__STORE=str(home / 'store'), TRADING__PATHS__RUNS=str(home / 'runs'),
               TRADING__COSTS__FEE_BPS='10', TRADING__COSTS__SLIPPAGE_BPS='5')
    with open(home / 'voila.log', 'w') as log:
        command = [sys.executable, '-m', 'voila', str(ROOT / 'research/dashboards'), '--no-browser', '--Voila.ip=127.0.0.1', f'--port={port}']
        server = subprocess.Popen(command, env=env, stdout=log, stderr=log)
    try:
        for _ in range(120):
            try: urlopen(f'http://127.0.0.1:{port}/voila/static/', timeout=1); break
            except URLError as error:
                if hasattr(error, 'code'): break    # it answered
                time.sleep(.5)
        yield f'http://127.0.0.1:{port}/voila/render/backtest_explorer.ipynb'
    finally:
        server.terminate()
        server.wait(20)


@pytest.fixture(scope='module')
def browser():
    from playwright.sync_api import sync_playwright
    with sync_playwright() as p:
        opened = p.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield opened
        opened.close()


def title_of(page) -> str: return page.locator('.js-plotly-plot .gtitle').first.text_content()


def blue_pixels(page) -> int:
    "Pixels of the strategy's colour in what is really on the screen."
    from PIL import Image
    shot = Image.open(io.BytesIO(page.locator('.js-plotly-plot').first.screenshot())).convert('RGB')
    wanted = np.array([int(BLUE[i:i + 2], 16) for i in (1, 3, 5)])
    return int((np.abs(np.asarray(shot).astype(int) - wanted).max(axis=2) < 40).sum())


def expected(**params) -> str:
    done = backtest('sma_cross', synthetic_market().samples['BTC/USDT'], params, Costs(10, 5))
    return f'Equity {done.equity.iloc[-1]:,.0f} against '


def test_it_opens_with_a_picture_that_follows_a_slider_and_shows_the_numbers_of_backtest(address, browser):
    page = browser.new_page(viewport=dict(width=1280, height=1400))
    page.goto(address)
    page.locator('.js-plotly-plot .gtitle').first.wait_for(timeout=120_000)
    page.wait_for_timeout(1500)
    assert title_of(page).startswith(expected())
    assert blue_pixels(page) > 1500
    handle = page.locator('.widget-slider:has-text("fast") .noUi-handle').first
    handle.focus()
    for _ in range(2): handle.press('ArrowRight')
    shows = 'start => document.querySelector(".js-plotly-plot .gtitle").textContent.startsWith(start)'
    page.wait_for_function(shows, arg=expected(fast=12), timeout=30_000)
    assert blue_pixels(page) > 1500
    done = backtest('sma_cross', synthetic_market().samples['BTC/USDT'], dict(fast=12), Costs(10, 5))
    numbers = page.locator('table.report').inner_text()
    assert re.search(rf'final equity\s+{done.metrics["final_equity"]:,.0f}', numbers)
    assert re.search(rf'trades\s+{done.metrics["trades"]}\b', numbers)
    page.close()


def test_what_a_strategy_refuses_is_one_line_and_no_traceback(address, browser):
    page = browser.new_page(viewport=dict(width=390, height=1400))
    page.goto(address)
    page.locator('.js-plotly-plot .gtitle').first.wait_for(timeout=120_000)
    readout = page.locator('.widget-slider:has-text("fast") .widget-readout').first
    readout.click()
    readout.fill('120')
    readout.press('Enter')
    page.locator('.refused').wait_for(timeout=30_000)
    assert 'fast was 120 and slow 50; fast must be the smaller' in page.locator('.refused').inner_text()
    assert 'Traceback' not in page.content()
    assert page.evaluate('document.documentElement.scrollWidth') <= 390, 'nothing may stick out on a phone'
    assert page.locator('.js-plotly-plot').first.bounding_box()['width'] <= 390
    page.close()
