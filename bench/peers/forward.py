"""A peer's bare forward pass, in turns with others': forward.py ENGINE WEIGHTS TILE.npy LABELS.npy [CALIBRATION.npy...]

ENGINE: torch-f32, torch-bf16, torch-tuned, openvino-bf16, openvino-f32, openvino-int8 (NNCF quantises it on the calibration tiles), onnxruntime-f32.
It loads, runs twice to warm up, writes the labels of the
tile, prints a line of JSON about itself, and then runs as often as each line that it reads says, and prints the milliseconds of
each run as JSON. In each case a float32 array goes in, and labels come out.
"""
import json
import os
import sys
import time

import numpy as np
from weights import preprocess, read_safetensors

THREADS = len(os.sched_getaffinity(0))


def torch_engine(kind, weights, image, _calibration):
    import torch
    import torch_unet
    torch.set_num_threads(THREADS)
    example = torch.from_numpy(image)
    about = {"torch-f32": "eager, as the tutorial", "torch-bf16": "eager, bf16, channels last"}.get(kind)
    if kind == "torch-tuned":
        model, about = torch_unet.tuned(weights, example.contiguous(memory_format=torch.channels_last))
    else:
        model = torch_unet.load(weights)
    if kind == "torch-bf16":
        model = model.to(memory_format=torch.channels_last)

    def run():
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=kind != "torch-f32"):
            x = torch.from_numpy(image)
            if kind != "torch-f32":
                x = x.contiguous(memory_format=torch.channels_last)
            return torch.argmax(model(x), dim=1).numpy()

    return run, torch.__version__, about


def quantised_by_nncf(model, calibration):
    """As NNCF does it by itself: static ranges, 8 bits for activations and for each output channel's weights, biases corrected."""
    import nncf
    tiles = [preprocess(np.load(path))[None] for path in calibration]
    return nncf.quantize(model, nncf.Dataset(tiles), subset_size=len(tiles)), f", quantised by NNCF {nncf.__version__} on {len(tiles)} tiles"


def openvino_engine(kind, weights, image, calibration):
    import onnx_unet
    import openvino
    core = openvino.Core()
    model, more = core.read_model(onnx_unet.build(read_safetensors(weights)).SerializeToString()), ""
    if kind.endswith("int8"):
        model, more = quantised_by_nncf(model, calibration)
    compiled = core.compile_model(model, "CPU", {
        "INFERENCE_PRECISION_HINT": "f32" if kind.endswith("f32") else "bf16", "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": str(THREADS)})
    request = compiled.create_infer_request()

    def run():
        return request.infer({0: image})[compiled.output(0)]

    return run, openvino.__version__, f"{compiled.get_property('INFERENCE_PRECISION_HINT')}{more}"


def onnxruntime_engine(_kind, weights, image, _calibration):
    import onnx_unet
    import onnxruntime
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS
    session = onnxruntime.InferenceSession(onnx_unet.build(read_safetensors(weights)).SerializeToString(), options,
                                           providers=["CPUExecutionProvider"])
    return lambda: session.run(None, {"image": image})[0], onnxruntime.__version__, "f32"


def main():
    kind, weights, tile, labels, *calibration = sys.argv[1:]
    image = preprocess(np.load(tile))[None]
    engine = {"torch": torch_engine, "openvino": openvino_engine, "onnxruntime": onnxruntime_engine}[kind.split("-")[0]]
    begin = time.perf_counter()
    run, version, about = engine(kind, weights, image, calibration)
    for _ in range(2):
        answer = run()
    np.save(labels, np.asarray(answer)[0].astype(np.uint8))
    print(json.dumps({"version": version, "about": about, "load_s": time.perf_counter() - begin}), flush=True)
    for line in sys.stdin:
        samples = []
        for _ in range(int(line)):
            begin = time.perf_counter()
            run()
            samples.append((time.perf_counter() - begin) * 1e3)
        print(json.dumps(samples), flush=True)


if __name__ == "__main__":
    main()
