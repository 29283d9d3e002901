"""The report of `unetctl calibrate`, made again with PyTorch: report.py [MODEL_DIR TILE.npy...]

Asks unetserve for the labels of each tile in float32 and in int8 over HTTP, computes both anew in PyTorch (int8 from the model directory's
ranges alone, see codes.py), and prints how many labels int8 changes by either, how many of its labels the two disagree about, and the mean IoU of int8's
labels against float32's. Without arguments: the demonstration model, calibrated anew on invented scenes. Exit status 1: the two do not
agree with each other, or with quantization-report.json in the directory.
"""
import io
import json
import pathlib
import sys
import urllib.request

import numpy as np
import torch

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent / "peers")]

import forward_section  # noqa: E402
import run  # noqa: E402
import torch_unet  # noqa: E402
from codes import Simulation  # noqa: E402
from servers import OUT, Unetserve  # noqa: E402
from unet_section import npy_bytes  # noqa: E402

# Float sums have an order, and what lies between two codes falls to either side by it: shares of all labels that this may move.
MOST_F32, MOST_INT8, MOST_SHARE = 0.0005, 0.002, 0.0005


def processor_has_bf16():
    words = pathlib.Path("/proc/cpuinfo").read_text().split()
    return "avx512_bf16" in words or "amx_bf16" in words


def served(directory, precision, tiles):
    server = Unetserve(directory, section=f"precision = {precision}")
    try:
        found = []
        for tile in tiles:
            request = urllib.request.Request(server.url, npy_bytes(tile), {"Content-Type": "application/x-npy", "Accept": "application/x-npy"})
            with urllib.request.urlopen(request, timeout=300) as answer:
                found.append(np.load(io.BytesIO(answer.read())))
        return found
    finally:
        server.stop()


def preprocessed(tile, about):
    numbers = (tile.astype(np.float32) + np.float32(about.get("offset", 0))) / np.float32(about.get("scale", 1))
    low, high = about.get("clip", (-np.inf, np.inf))
    return torch.from_numpy(np.clip(numbers, low, high).astype(np.float32))


def mean_iou(labels, truth):
    kinds = np.union1d(labels, truth)
    return float(np.mean([((labels == kind) & (truth == kind)).sum() / ((labels == kind) | (truth == kind)).sum() for kind in kinds]))


def reported(directory):
    """{tile's name: share of labels that `unetctl calibrate` saw change}."""
    path = directory / "quantization-report.json"
    parts = json.loads(path.read_text()) if path.exists() else {}
    return {str(pathlib.Path(entry["tile"]).resolve()): entry["share"]
            for part in ("calibrated", "checked") for entry in parts.get(part, {}).get("tiles", [])}


def check(directory, paths):
    """Sentences about what does not agree; prints a line a tile."""
    about = json.loads((directory / "model.json").read_text())
    weights = directory / about["weights"]
    exact, coded = torch_unet.load(weights), Simulation(weights, directory / "quantization.json", processor_has_bf16())
    tiles = [np.load(path) for path in paths]
    answers = {precision: served(directory, precision, tiles) for precision in ("f32", "int8")}
    told, wrong = reported(directory), []
    print("int8 changes, of labels: by unetserve, by PyTorch, by calibrate's report | the two differ in f32, in int8 | mean IoU")
    for i, (path, tile) in enumerate(zip(paths, tiles)):
        image = preprocessed(tile, about.get("preprocess", {}))
        with torch.no_grad():
            truth, ours = exact(image[None])[0].argmax(0).numpy(), coded.logits(image).argmax(0).numpy()
        f32, int8 = answers["f32"][i], answers["int8"][i]
        by_server, by_torch, apart_f32, apart_int8 = ((a != b).mean() for a, b in ((int8, truth), (ours, truth), (f32, truth), (int8, ours)))
        share = told.get(str(pathlib.Path(path).resolve()))
        print(f"  {100 * by_server:.4f} %, {100 * by_torch:.4f} %, {'-' if share is None else f'{100 * share:.4f} %'} | "
              f"{100 * apart_f32:.4f} %, {100 * apart_int8:.4f} % | {mean_iou(int8, truth):.4f}  {path}", flush=True)
        for what, value, most in (("labels in f32", apart_f32, MOST_F32), ("labels in int8", apart_int8, MOST_INT8),
                                  ("calibrate's report", 0 if share is None else abs(share - by_server), MOST_SHARE)):
            if value > most:
                wrong.append(f"{path}: {what} differ by {value:.4%}, at most {most:.2%} was expected")
    return wrong


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    if len(sys.argv) > 2:
        directory, paths = pathlib.Path(sys.argv[1]), sys.argv[2:]
    else:
        run.networks(None)
        calibration = forward_section.calibration_tiles()
        directory, _ = forward_section.calibrated(run.DEMO, calibration, False)
        paths = [calibration[0], OUT / "tile.npy"]
    wrong = check(directory, paths)
    print("\n".join(wrong) if wrong else "unetserve, PyTorch and calibrate's report agree")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
