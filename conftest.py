"""Environment of every test and benchmark, and the plugins that both need."""

import os

# Workers of pytest-xdist share the cores. OpenMP threads that outnumber them wait for one another
# and make everything ten times slower, in the processes that tests start as well.
if workers := os.environ.get("PYTEST_XDIST_WORKER_COUNT"):
    threads = max(1, (os.cpu_count() or 1) // int(workers))
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("MPLBACKEND", "Agg")

pytest_plugins = ["pytester", "tests.ledger_plugin"]
