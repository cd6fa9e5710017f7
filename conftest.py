"""Environment and hypothesis profiles; the rest lives in `squeeze.pytest_plugin`."""

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

import torch
from hypothesis import HealthCheck, Phase, settings

torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", torch.get_num_threads())))

# Deadlines would measure the machine's load. Derandomized: a red run must stay red when repeated.
settings.register_profile(
    "ci",
    derandomize=True,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
# For hunting: HYPOTHESIS_PROFILE=search draws anew on every run, and ten times as much.
settings.register_profile(
    "search", settings.get_profile("ci"), derandomize=False, max_examples=1000
)
# For mutation testing: few examples (`tests.examples`), and no time spent on a smaller or a second
# counterexample where one is enough.
settings.register_profile(
    "mutation",
    settings.get_profile("ci"),
    max_examples=15,
    phases=[Phase.explicit, Phase.generate],
    report_multiple_bugs=False,
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))

pytest_plugins = ["pytester"]
