"""`python -m production.local_exchange`: settings as one JSON line on stdin (see `child.start_child`), the address as one on stdout."""
import sys

from production.local_exchange.child import main

sys.exit(main())
