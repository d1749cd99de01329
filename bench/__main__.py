"""Every bench, one after the other; each ends with its line of JSON. `python -m bench.NAME --help` for one alone."""

import sys

from bench import market, saga

BENCHES = (saga, market)

for bench in BENCHES:
    sys.stderr.write(f"== {bench.__name__}\n")
    bench.main()
