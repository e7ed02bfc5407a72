"""Shared fixtures. Real market data lives outside the repository; tests that want it skip where it is missing."""
import os
import signal
from pathlib import Path

import pytest

# A shell that starts the tests in the background has Ctrl-C ignored; the programs that they interrupt would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

SHARED = Path(os.environ.get('TRADING_TEST_DATA') or Path(__file__).resolve().parents[2] / 'shared' / 'data')


@pytest.fixture(scope='session')
def shared_data() -> Path:
    "The folder of real market data."
    if not SHARED.is_dir(): pytest.skip(f'real market data is not here: {SHARED}; name its folder in TRADING_TEST_DATA')
    return SHARED


@pytest.fixture(scope='session')
def btc_hourly(shared_data) -> Path:
    "27,952 hourly bars of BTCUSDT perpetual futures, without gaps."
    return shared_data / 'ohlcv/binance_usdm_1h/BTCUSDT_1h_2020-10_2023-12.parquet'
