"""The plan of a step against a real one."""

from __future__ import annotations

import os
import subprocess
import sys
from textwrap import dedent

MEASURE = """
    from sartor.tools.fold.config import make_config
    from sartor.tools.fold.estimate import empty_sample, make_estimate
    from sartor.tools.fold.features import expand
    from sartor.tools.fold.losses.total import loss
    from sartor.tools.fold.model.alphafold import AlphaFold
    from dataclasses import replace

    def resident():
        return int(open("/proc/self/statm").read().split()[1]) * 4096

    def features(size):
        return expand(empty_sample(replace(config.data, crop_size=size), 1), config.model)

    config = make_config("tiny", None, {"data": {"crop_size": 80}})
    model = AlphaFold(config.model)
    # What is loaded at the first use is no part of a step.
    small = features(16)
    loss(model(small), small, config.loss)[0].backward()
    batch, before = features(80), resident()
    total = loss(model(batch), batch, config.loss)[0]
    print(resident() - before, make_estimate(config, "cpu").activation_bytes)
"""


def test_what_a_backward_pass_needs_is_what_is_resident_after_a_forward_pass() -> None:
    """With an allocator that gives back at once what is free."""
    environment = {
        **os.environ,
        "MALLOC_TRIM_THRESHOLD_": "0",
        "MALLOC_MMAP_THRESHOLD_": "65536",
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-c", dedent(MEASURE)]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    resident, estimated = map(int, done.stdout.split())
    assert 0.9 < resident / estimated < 1.1
