"""`tf.distribute.MirroredStrategy` on logical CPUs: bit-identical with and without the audit, one set of logs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "distributed_training.py"
CASES = [("even", 2), ("uneven_last_batch", 2), ("no_jit", 2), ("dictionaries", 2), ("even", 4)]


@pytest.mark.parametrize(("case", "replicas"), CASES)
def test_bit_identical_under_mirrored_strategy(case, replicas):
    done = subprocess.run(
        [sys.executable, SCRIPT, case, str(replicas)],
        env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "2"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stdout.splitlines()[-1] == "identical"
