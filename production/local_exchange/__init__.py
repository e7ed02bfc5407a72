"""A local exchange: Binance's spot protocol, REST and websocket, and OKX's, over `execution.matching` and bars that are handed in.

Import from the modules: `exchange` (the venue without HTTP), `server` (HTTP and websocket), `child` (the venue in a process of its own),
`client` (points an unmodified ccxt client here), `faults` (what goes wrong on the way), `book` (a recorded order book).
"""
