"""Run every benchmark, one after the other, and rewrite the page: `make bench`."""

import subprocess
import sys
from time import perf_counter

import torch

from benchmarks.page import TABLES, main

for name in TABLES:
    if name == "search_real" or (name == "gpu" and not torch.cuda.is_available()):
        continue
    start = perf_counter()
    words = [sys.executable, "-m", f"benchmarks.{name}"]
    code = subprocess.run(words, check=False, stdout=subprocess.DEVNULL).returncode
    print(f"{name:8} {perf_counter() - start:5.0f} s", flush=True)
    if code:
        sys.exit(f"benchmarks.{name} ended with exit code {code}")
main()
