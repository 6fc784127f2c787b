"""What a training process has freed of large tensors is the system's again."""

import subprocess
import sys
from pathlib import Path

import pytest

CODE = """
from pathlib import Path
from pylm.allocator import map_large_tensors
map_large_tensors()
import torch

def resident():
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) * 1024

torch.ones(9 << 18)  # freed, it teaches glibc that 9 MiB are not large
before = resident()
# Each followed by a small one that stays, so that the heap could not shrink from its end.
pairs = [(torch.ones(9 << 18), torch.ones(1 << 16)) for _ in range(20)]
kept = [small for _, small in pairs]
del pairs
print((resident() - before) >> 20)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
def test_freed_large_tensors_go_back_to_the_system() -> None:
    result = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    assert int(result.stdout) < 40  # MiB; 181 without, and 5 of them the small ones
