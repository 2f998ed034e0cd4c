"""`dqa bench peers` names a peer that cannot be measured and why."""

import runpy
import sys
from pathlib import Path

import pytest

PEERS = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks" / "peers.py"))


def test_a_peer_that_does_not_install_is_named_with_the_last_line_of_pip(tmp_path):
    with pytest.raises(PEERS["Unusable"], match=r"^does not install: .*no-such-wheel"):
        PEERS["environment"]("peer", (str(tmp_path / "no-such-wheel"),), tmp_path)


def test_dqa_needs_no_environment_of_its_own(tmp_path):
    assert PEERS["environment"](None, (), tmp_path) == sys.executable
    assert not list(tmp_path.iterdir())


def test_a_peer_that_does_not_run_is_named_with_the_last_line_it_said(tmp_path):
    with pytest.raises(PEERS["Unusable"], match=r"^does not run: ValueError: negative"):
        PEERS["Peer"]("DQA predict", -1, tmp_path / "float.tflite")


def test_rows_are_compared_by_cpu_time_and_errors_are_shown():
    def row(*pairs):
        return {"seconds": [[[1, 9], [cpu, 9]] for cpu in pairs]}

    rows = {
        "DQA calibrate": row(1, 2, 6),
        "ai-edge-quantizer calibrate": row(2, 2, 2),
        "ai-edge-quantizer calibrate, profiler": {"error": "does not run: no"},
    }
    assert PEERS["calibrations"](rows) == {"ai-edge-quantizer calibrate": 1}
    rows["DQA calibrate"] |= {"ratio": 2, "peak_mib": 10}
    rows["ai-edge-quantizer calibrate"] |= {"ratio": 2, "peak_mib": 10}
    shown = PEERS["overview"]({"rows": rows})
    assert "| DQA calibrate | 2.00x | 10 MiB |" in shown
    assert "| ai-edge-quantizer calibrate, profiler | does not run: no | |" in shown
