"""The benchmark's own parts: a few seconds of it without peers, what its guard tells, and what it writes into README. None of them looks
at how fast anything was."""

import importlib
import io
import json
import os
import subprocess
import sys

import pytest

from conftest import BUILD, CHECKOUT

WAIT_S = 600


def report(p50, rate):
    return {"latency_ms": {"p50": p50, "p99": 2 * p50}, "right_per_s": rate}


def made_up(share=0.9, npy=110.0, tiny=20000.0, ready=0.2):
    """Results as a run leaves them, with round numbers: forward 100, 200 and 50 ms, OpenVINO 120 and 160 ms, bare libmicrohttpd 40,000 a second."""
    forward = {"unetserve-bf16": {"rounds": [[100, 101], [102, 100]], "share_of_peak": [share, share - 0.1], "peak_isa": "avx512"},
               "openvino-bf16": {"rounds": [[120], [120]], "labels_equal": 0.999, "version": "1"},
               "unetserve-f32": {"rounds": [[200], [200]], "share_of_peak": [0.9], "peak_isa": "avx512"},
               "unetserve-int8": {"rounds": [[50], [50]], "share_of_peak": [0.9], "peak_isa": "avx512"},
               "openvino-int8": {"rounds": [[55], [55]], "labels_equal": 0.99, "version": "1"},
               "openvino-f32": {"rounds": [[160], [160]], "labels_equal": 1.0, "version": "1"}}
    closed = {"unetserve, npy": [report(npy, 9), report(npy + 1, 9)], "unetserve, JSON": [report(120, 8), report(120, 8)],
              "LitServe as the tutorial, JSON": [report(600, 2), report(660, 2)], "mosec tuned, npy": [report(115, 9.9), report(115, 9.9)],
              "LitServe tuned, JSON": [report(118, 6), report(118, 6)]}
    offered = {server: [dict(report(p50, 4), offered_per_s=4.5, unanswered=0), dict(report(9 * p50, 8), offered_per_s=8.0, unanswered=lost)]
               for server, p50, lost in (("unetserve, npy", 100, 0), ("mosec tuned, npy", 80, 3))}
    requests = {"closed": closed, "several": closed, "open": offered, "breakdown": {"unetserve, npy": {"forward": [100.0]}}, "ready_s": {"unetserve, npy": 1.0, "unetserve, JSON": 1.0, "mosec tuned, npy": 9.0}}
    tiny_closed = {"bare libmicrohttpd": {count: [report(0.05, 40000)] * 2 for count in ("1", "64")},
                   "unetserve": {count: [report(0.06, tiny)] * 2 for count in ("1", "64")}}
    memory = {"worker": {"uss": 70.0, "rss": 130.0, "pss": 80.0}}
    cold = {"first": [{"ready_s": 0.4, "memory_mib": memory}], "next": [{"ready_s": ready, "memory_mib": memory}]}
    machine = {"isa": "avx512_bf16", "cpu": "a processor", "cores": 2, "when": "2026-01-01", "commit": "abc", "load_before": 0.1}
    batch = [{"network": "31M parameters", "precision": "int8", "threads": 1, "ms_a_tile": {"1": [100, 101], "2": [80, 80], "4": [79, 80]}}]
    return {"machine": machine, "quick": False, "batch": batch, "trouble": {}, "forward": {"31M parameters": forward},
            "requests": {"31M parameters": requests}, "tiny": {"closed": tiny_closed, "open": {}}, "cold": cold}


@pytest.fixture(scope="module")
def ratios():
    sys.path.insert(0, str(CHECKOUT / "bench"))
    try:
        yield importlib.import_module("ratios")
    finally:
        sys.path.remove(str(CHECKOUT / "bench"))


def test_ratios_are_of_what_they_say(ratios):
    found = {name: value for name, (value, _) in ratios.ratios(made_up()).items()}
    assert found["forward: 31M parameters, bf16, share of the measured peak"] == 0.9
    assert found["forward: 31M parameters, openvino-bf16 / unetserve-bf16"] == pytest.approx(1.2)
    assert found["forward: 31M parameters, openvino-f32 / unetserve-f32"] == pytest.approx(0.8)
    assert found["forward: 31M parameters, unetserve-int8 / unetserve-bf16"] == pytest.approx(0.5)
    assert found["forward: 31M parameters, openvino-int8 / unetserve-int8"] == pytest.approx(1.1)
    assert found["request: 31M parameters, unetserve, npy / bare forward"] == pytest.approx(1.1)
    assert found["request: 31M parameters, LitServe as the tutorial, JSON / unetserve, JSON"] == pytest.approx(5.25)
    assert found["tiny: unetserve, 64 clients, rate / bare libmicrohttpd"] == pytest.approx(0.5)
    assert found["tiny: unetserve, one client, p50 / bare libmicrohttpd"] == pytest.approx(1.2)
    assert found["cold: next worker / first worker, ready"] == pytest.approx(0.5)


@pytest.mark.parametrize("change, words", [({"share": 0.7}, "share of the measured peak"), ({"npy": 150.0}, "npy / bare forward"),
                                           ({"tiny": 9000.0}, "64 clients, rate"), ({"ready": 0.9}, "next worker")])
def test_the_guard_tells_what_became_worse(ratios, change, words):
    baseline = {name: value for name, (value, _) in ratios.ratios(made_up()).items()}
    assert not ratios.compare(ratios.ratios(made_up()), baseline)
    moved = ratios.compare(ratios.ratios(made_up(**change)), baseline)
    assert [worse for worse, sentence in moved if words in sentence] == [True], moved
    back = ratios.compare(ratios.ratios(made_up()), {name: value for name, (value, _) in ratios.ratios(made_up(**change)).items()})
    assert back and not any(worse for worse, _ in back)


@pytest.mark.parametrize("isa, status", [("avx512_bf16", 1), ("avx2", 0)])
def test_a_baseline_of_other_instructions_judges_no_kernels(ratios, tmp_path, monkeypatch, isa, status):
    """A processor without bf16 is not a regression; a slower server is one anywhere."""
    monkeypatch.setattr(ratios, "BASELINE", tmp_path / "baseline.json")
    kept = {name: value for name, (value, _) in ratios.ratios(made_up()).items()}
    ratios.BASELINE.write_text(json.dumps({"isa": "avx512_bf16", "load": 0.1, "ratios": kept}))
    slow_kernels = made_up(share=0.5, npy=150.0, ready=0.9)
    slow_kernels["machine"]["isa"] = isa
    told = io.StringIO()
    assert min(ratios.report(slow_kernels, told), 1) == status
    assert "share of the measured peak" in told.getvalue() and ("another processor" in told.getvalue()) == (isa == "avx2")
    slow_server = made_up(tiny=9000.0)
    slow_server["machine"]["isa"] = isa
    assert ratios.report(slow_server, io.StringIO()) > 0


def test_the_committed_baseline_has_ratios_only(ratios):
    baseline = json.loads(ratios.BASELINE.read_text())
    assert baseline["isa"] and baseline["ratios"]
    for name, value in baseline["ratios"].items():
        assert name.split(":")[0] in ratios.TOLERANCES and isinstance(value, float) and value > 0
        assert " / " in name or "share of" in name, f"{name}: not a ratio"


def write_figures(tmp_path, results, text):
    (tmp_path / "results.json").write_text(json.dumps(results))
    (tmp_path / "README.md").write_text(text)
    return subprocess.run([sys.executable, CHECKOUT / "bench/readme.py", tmp_path / "results.json", tmp_path / "README.md"],
                          capture_output=True, text=True, timeout=WAIT_S, check=False)


def test_figures_go_between_the_markers_and_name_losses(tmp_path):
    text = "before\n<!-- figures: made by make bench-figures -->\nold\n<!-- end of figures -->\nafter\n"
    done = write_figures(tmp_path, made_up(), text)
    assert done.returncode == 0, done.stderr
    written = (tmp_path / "README.md").read_text()
    assert written.startswith("before\n<!-- figures") and written.endswith("<!-- end of figures -->\nafter\n") and "old" not in written
    assert "OpenVINO, f32 runs the 31M parameters in 0.80 of our time in f32" in written
    assert "bare libmicrohttpd answers 2.00 times as many tiny requests with 64 clients" in written
    for words in ("mosec tuned, npy answers 1.10 times as many requests for the 31M parameters, four clients",
                  "LitServe tuned, JSON answers for the 31M parameters in 0.98 of our time, one client",
                  "mosec tuned, npy answers for the 31M parameters with a p50 of 0.80 of ours when 4.50 a second are offered",
                  "| 31M parameters, int8, 1 thread | 9.95 | 12.5 | 12.6 | 2 |"):
        assert words in written, words
    lost = written.partition("Where others are ahead")[2]
    for words in ("OpenVINO, bf16 runs", "OpenVINO, int8 by NNCF runs", "LitServe as the tutorial", "in 1.0", "8.00 a second are offered", "mosec tuned, npy answers for the 31M parameters in"):
        assert words not in lost, words
    again = write_figures(tmp_path, made_up(), written)
    assert again.returncode == 0 and (tmp_path / "README.md").read_text() == written


def test_figures_say_what_they_are_not(tmp_path):
    """A short run, a machine that others use, a peer that is missing: README says so."""
    text = "<!-- figures: made by make bench-figures -->\n<!-- end of figures -->\n"
    assert write_figures(tmp_path, made_up(), "no markers\n").returncode != 0
    assert write_figures(tmp_path, made_up(), text).returncode == 0
    plain = (tmp_path / "README.md").read_text()
    results = dict(made_up(), quick=True, trouble={"mosec": "did not start"})
    results["machine"]["load_before"] = 14.0
    assert write_figures(tmp_path, results, text).returncode == 0
    told = (tmp_path / "README.md").read_text()
    for words in ("make bench-quick", "Others used the machine", "mosec (did not start)"):
        assert words in told and words not in plain


def test_readme_has_the_markers_once():
    readme = (CHECKOUT / "README.md").read_text()
    for marker in ("<!-- figures: made by make bench-figures -->", "<!-- end of figures -->"):
        assert readme.count(marker) == 1


def test_a_few_seconds_of_it(tmp_path):
    """Tiny requests, bare libmicrohttpd and unetserve: every answer is right, and every sample is kept. Its exit status is the guard's."""
    environment = dict(os.environ, BUILD=str(BUILD), BENCH_OUT=str(tmp_path))
    done = subprocess.run([sys.executable, CHECKOUT / "bench/run.py", "--quick", "--no-peers", "--only", "tiny"], env=environment,
                          capture_output=True, text=True, timeout=WAIT_S, check=False)
    assert done.returncode in (0, 1), done.stderr
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["trouble"] == {}, done.stdout
    for server in ("bare libmicrohttpd", "unetserve"):
        for clients in ("1", "8", "64"):
            reports = results["tiny"]["closed"][server][clients]
            assert len(reports) == 3
            for each in reports:
                assert each["right"] == each["sent"] > 0
    assert "tiny: unetserve, 64 clients, rate / bare libmicrohttpd" in results["ratios"]
