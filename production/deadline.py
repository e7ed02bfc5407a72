"""A strategy is asked in a thread of its own, and only for so long: one that hangs must not take the runner with it.

Whoever is late is interrupted at its next step in Python and forgotten. What hangs outside Python cannot be interrupted; it is left alone, and is not
asked again while it is still busy. The answer is the one that it would give without a thread, to the last bit.
"""
import asyncio
import ctypes
from collections.abc import Callable
from contextlib import suppress
from contextvars import copy_context
from threading import Thread

import pandas as pd

from trading_lib.core.errors import BadInput


class Forgotten(BaseException):
    "Nobody waits for this thread any more."


class Asked:
    "A strategy that answers in time or not at all."

    def __init__(self, ask: Callable[[pd.DataFrame], float], name: str, deadline_s: float):
        self.ask, self.name, self.deadline_s, self.thread = ask, name, deadline_s, None

    async def __call__(self, shown: pd.DataFrame) -> float:
        "The target at the last bar; raises `BadInput` where there is none in time, and whatever the strategy raises."
        if self.thread and self.thread.is_alive(): raise BadInput(f'{self.name} is still busy with an earlier bar')
        loop = asyncio.get_running_loop()
        answered, own = loop.create_future(), shown.copy()   # whoever is late may still write into it
        def settle(answer):
            if not answered.done(): answered.set_result(answer)
        def work():
            with suppress(Forgotten, RuntimeError):   # the loop may be closed by then
                try: answer = self.ask(own), None
                except Exception as error: answer = None, error
                loop.call_soon_threadsafe(settle, answer)
        self.thread = Thread(target=copy_context().run, args=(work,), daemon=True, name=f'strategy {self.name}')
        self.thread.start()
        await asyncio.wait({answered}, timeout=self.deadline_s)
        if not answered.done():
            answered.cancel()
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(self.thread.ident), ctypes.py_object(Forgotten))
            raise BadInput(f'{self.name} did not answer within {self.deadline_s:g} s')
        target, error = answered.result()
        self.thread = None   # it may take a moment to end
        if error: raise error
        return target
