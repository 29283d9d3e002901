"""Bugs planted in a copy of the cuDNN backend, one at a time: the tests on the double of a GPU must find each of them.

planted.py [--only WORD] [--every N]: each bug replaces a passage that must stand there exactly once, in a copy of the sources under
build/gpu/planted; then the backend's own tests (tests/gpu/test_kernels.c, test_gpu.c, tests/unit/test_gpu_layout.c) are built and run there, with streams as late as
can be and, if that finds nothing, taking turns. Fails if a bug is not found, or has no place any more.
"""
import argparse
import os
import pathlib
import shutil
import subprocess
import sys

TOP = pathlib.Path(__file__).resolve().parents[2]
COPY = TOP / "build" / "gpu" / "planted"
LIMIT_S = 900
CUDNN = "workers/backends/cudnn/"
TARGETS = ["build/gpu/test_kernels", "build/tests/test_gpu_layout", "build/gpu/test_gpu", "build/gpu/double/libcuda.so.1", "build/gpu/double/libcudnn.so.9"]

# What is wrong, in which file, the passage, and what stands there instead.
BUGS = [
    # ---- kernels
    ("shuffle: rows and columns exchanged", "gpu_kernels.cu", "(place.y % 2 * 2 + place.x % 2) * a->out.depth", "(place.x % 2 * 2 + place.y % 2) * a->out.depth"),
    ("shuffle: off by one at odd rows", "gpu_kernels.cu", "&from, place.y / 2, place.x / 2);\n    pixel_store(type, &a->out, &place, &group);",
     "&from, (place.y + (place.y > 2)) / 2 % a->in.height, place.x / 2);\n    pixel_store(type, &a->out, &place, &group);"),
    ("labels: the last of equal ones", "gpu_kernels.cu", "group.values[i] > best)", "group.values[i] >= best)"),
    ("labels: one class, 0 counts as positive", "gpu_kernels.cu", "(uint8_t)(best > 0.0f)", "(uint8_t)(best >= 0.0f)"),
    ("labels: spare classes take part", "gpu_kernels.cu", "bool counts = class_number < a->classes;", "bool counts = class_number < a->classes + 5;"),
    ("pool: a row beyond the image", "gpu_kernels.cu", "if (y < 0 || y >= (int32_t)a->in.height) {", "if (y < 0 || y > (int32_t)a->in.height) {"),
    ("pool: padding is forgotten", "gpu_kernels.cu", "(int32_t)(place.x * a->stride + kx) - (int32_t)a->padding", "(int32_t)(place.x * a->stride + kx)"),
    ("pool: the largest of 0 and the values", "gpu_kernels.cu", "group.values[i] = -INFINITY;", "group.values[i] = 0.0f;"),
    ("halve: the odd last column is not copied", "gpu_kernels.cu", "if (at.y < a->in.height && at.x < a->in.width) {", "if (at.y < a->in.height && at.x < a->in.width / 2 * 2) {"),
    ("halve: stores beyond the smaller image", "gpu_kernels.cu", "if (place.y < a->out.height && place.x < a->out.width) {", "if (place.y <= a->out.height && place.x <= a->out.width) {"),
    ("upsample: corners and centres mixed up", "gpu_kernels.cu", "(float)(in - 1) / (float)(out - 1)", "(float)in / (float)out"),
    ("upsample: fractions exchanged", "gpu_kernels.cu", "upper * (1.0f - v.fraction) + lower * v.fraction", "upper * v.fraction + lower * (1.0f - v.fraction)"),
    ("fit: a row beyond the image", "gpu_kernels.cu", "y < (int32_t)a->in.height && x >= 0", "y <= (int32_t)a->in.height && x >= 0"),
    ("add: relu even if not asked for", "gpu_kernels.cu", "a->relu && sum < 0.0f", "sum < 0.0f"),
    ("load: offset behind scale", "gpu_kernels.cu", "value = (value + a->offset) / a->scale;", "value = value / a->scale + a->offset;"),
    ("load: signed bytes as unsigned ones", "gpu_kernels.cu", "(float)((const int8_t *)tiles)[at]", "(float)((const uint8_t *)tiles)[at]"),
    ("load: no upper bound", "gpu_kernels.cu", "value = value > a->high ? a->high : value;", ""),
    ("load: bf16 cut off, not rounded", "gpu_kernels.cu", "return (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;", "return bits >> 16;"),
    ("logits: every image's where the first one's are", "gpu_kernels.cu", "uint64_t to = (uint64_t)image * a->classes * plane + (item - image * plane);", "uint64_t to = item - image * plane;"),
    ("group: the second half of 8 floats twice", "gpu_kernels.cu", "group.values[4 + i] = float_of(high.parts[i]);", "group.values[4 + i] = float_of(low.parts[i]);"),
    # ---- where things lie
    ("skip: in the wrong half", "gpu_layout.c", "return part_view(p, &p->values[value], into->root, into->first + first);", "return part_view(p, &p->values[value], into->root, into->first);"),
    ("arena: a value's place is given away while it is read", "../arena.c", "if (other->last < block->first || other->first > block->last) {", "if (other->last <= block->first || other->first > block->last) {"),
    ("arena: a skip's place is given away before its concatenation", "gpu_layout.c", "            use(p, p->extras[i].also, i + 1);\n", "            use(p, p->extras[i].also, p->extras[i].also);\n"),
    ("arena: alignment forgotten for the batch", "gpu_layout.c", "return (size_t)p->layout->count * value->height * value->width * value->depth *", "return (size_t)1 * value->height * value->width * value->depth *"),
    ("channels: spare ones in the middle not counted", "gpu_layout.c", "before += second ? gpu_layout_depth(network, layer->inputs[0]) : 0;", "before += second ? head : 0;"),
    ("a value that a convolution reads is not packed", "gpu_layout.c", "            p->values[input_of(p, i, 0)].packed = true;\n", "            p->values[input_of(p, i, 0)].packed = i % 2 == 0;\n"),
    ("fit: crops one pixel too far left", "gpu_steps.c", "-((1 - difference) / 2)", "difference / 2"),
    ("steps: only the first image of a batch", "gpu_steps.c", "return r->bound->plan->layout.count * height * width * (depth / 8);", "return height * width * (depth / 8);"),
    # ---- weights
    ("weights: the four quarters of an up convolution interleaved", "gpu_weights.c", "put(type, to, (k * depth + o) * sizes->in_depth + place, from[k]);", "put(type, to, (o * 4 + k) * sizes->in_depth + place, from[k]);"),
    ("weights: bias for one of four quarters only", "gpu_weights.c", "for (size_t first = 0; first < sizes.outputs; first += depth) {", "for (size_t first = 0; first < depth; first += depth) {"),
    ("weights: taps mirrored", "gpu_weights.c", "(o * sizes->taps + t) * sizes->in_depth + place, from[t]", "(o * sizes->taps + t) * sizes->in_depth + place, from[sizes->taps - 1 - t]"),
    # ---- cuDNN's graphs
    ("graph: bias as float", "gpu_conv.c", "tensor(m, GPU_BIAS, type, bias_dims)", "tensor(m, GPU_BIAS, CUDNN_DATA_FLOAT, bias_dims)"),
    ("graph: sums rounded before the bias", "gpu_conv.c", "tensor(m, VIRTUAL_FIRST, CUDNN_DATA_FLOAT, dims)", "tensor(m, VIRTUAL_FIRST, type, dims)"),
    ("graph: no ReLU", "gpu_conv.c", "CUDNN_TYPE_BACKEND_DESCRIPTOR, s->relu ? 3 : 2,", "CUDNN_TYPE_BACKEND_DESCRIPTOR, 2,"),
    ("graph: padding on one side only", "gpu_conv.c", "CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, CUDNN_TYPE_INT64, 2, padding", "CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, CUDNN_TYPE_INT64, 2, (const int64_t[2]){0, 0}"),
    ("pack: weights and bias exchanged", "gpu_steps.c", ".weights = pointer(held->weights),\n                .bias = pointer(held->bias),", ".weights = pointer(held->bias),\n                .bias = pointer(held->weights),"),
    ("pack: the workspace lies in the arena", "gpu_steps.c", ".workspace = pointer(arena + layout->arena_bytes),", ".workspace = pointer(arena),"),
    # ---- captures
    ("capture: convolutions go to another stream", "gpu_steps.c", "place->cudnn->cudnnSetStream(place->handle, stream)", "place->handle != NULL && stream != NULL ? CUDNN_STATUS_SUCCESS : CUDNN_STATUS_EXECUTION_FAILED"),
    ("capture: an old graph after the arena has moved", "gpu_shapes.c", "    shape->graph = NULL;\n    shape->uses = 0;\n", "    shape->uses = 0;\n"),
    ("capture: the arena moves under bound plans", "gpu_shapes.c", "        unbind(shapes, &shapes->shapes[i]);\n    }\n    CUdeviceptr old", "    }\n    CUdeviceptr old"),
    ("capture: two shapes mistaken for each other", "gpu_shapes.c", "layout->height == height && layout->width == width", "layout->height == height"),
    ("arena: no room for the workspace", "gpu_steps.c", "return plan->layout.arena_bytes + plan->workspace_bytes;", "return plan->layout.arena_bytes;"),
]
# ---- order on streams
BUGS += [
    ("stream: the forward pass does not wait for the tiles", "gpu_lane.c", "return code == 0 ? gpu_call(device, cuStreamWaitEvent, way->streams.forward, lane->loaded, 0)\n                     : code;", "return code;"),
    ("stream: answers are copied before they are there", "gpu_lane.c", "return code == 0 ? gpu_call(way->device, cuStreamWaitEvent, way->streams.out, lane->labelled, 0)\n                     : code;", "return code;"),
    ("stream: tiles count as there before they are", "gpu_lane.c", "cuEventRecord, lane->loaded, way->streams.in)", "cuEventRecord, lane->loaded, way->streams.forward)"),
    ("stream: done when computed, not when copied", "gpu_lane.c", "cuEventRecord, lane->done, way->streams.out)", "cuEventRecord, lane->done, way->streams.forward)"),
    ("stream: labels count as made before they are", "gpu_lane.c", "        code = label(lane, way, shape);\n    }\n    if (code == 0) {\n        code = gpu_call(way->device, cuEventRecord, lane->labelled, way->streams.forward);",
     "        code = gpu_call(way->device, cuEventRecord, lane->labelled, way->streams.forward);\n    }\n    if (code == 0) {\n        code = label(lane, way, shape);"),
    ("stream: nobody waits for the answers", "gpu_lane.c", "int code = gpu_call(device, cuEventSynchronize, lane->done);", "int code = gpu_check(device, CUDA_SUCCESS, \"cuEventSynchronize\");"),
    ("stream: tiles are loaded into the arena beside a forward pass", "gpu_lane.c", "gpu_launch(way->device, way->streams.forward, GPU_KERNEL_load,", "gpu_launch(way->device, way->streams.in, GPU_KERNEL_load,"),
    ("stream: labels are made on the stream of copies", "gpu_lane.c", "    CUstream stream = way->streams.forward;\n", "    CUstream stream = way->streams.out;\n"),
    ("copies: every tile to the first one's place", "gpu_lane.c", "(const char *)batch->inputs[i], bytes, i * bytes);", "(const char *)batch->inputs[i], bytes, 0);"),
    ("copies: labels that pass through are not handed over", "gpu_lane.c", "lane->straight[tile] = done;", "lane->straight[tile] = bytes;"),
    ("copies: logits over the labels", "gpu_lane.c", "code = pass_out(lane, way, lane->logits_offset,", "code = pass_out(lane, way, 0,"),
    ("lane: not waited for before it is used again", "gpu_backend.c", "int code = finish(instance, lane);", "int code = 0;"),
]


def make():
    """A bug may leave something unused: warnings are none."""
    return subprocess.run(["make", "-s", "-o", "build/gpu/kernels.fatbin", "CFLAGS=-Wno-error", *TARGETS], cwd=COPY, capture_output=True, text=True,
                          timeout=LIMIT_S, check=False)


def copy_sources():
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=TOP, capture_output=True, check=True).stdout
    for name in filter(None, listed.decode().split("\0")):
        source, to = TOP / name, COPY / name
        if not source.is_file() or name.startswith(("docs/", ".ci/")):
            continue
        if not to.is_file() or to.read_bytes() != source.read_bytes():  # older copies stay as they are, and so does what was built of them
            to.parent.mkdir(parents=True, exist_ok=True)
            to.write_bytes(source.read_bytes())
    # Devices have no part in this: the kernels for them are not built again.
    (COPY / "build" / "gpu").mkdir(parents=True, exist_ok=True)
    shutil.copy2(TOP / "build" / "gpu" / "kernels.fatbin", COPY / "build" / "gpu")


def run(program, order):
    """None if the tests pass, else what they say first."""
    device = COPY / "tests" / "gpu" / "devices" / "h100.json"
    double = COPY / "build" / "gpu" / "double"
    try:
        done = subprocess.run([COPY / "build" / program], cwd=COPY, capture_output=True, text=True, timeout=LIMIT_S, errors="replace", check=False,
                              env={**os.environ, "LD_LIBRARY_PATH": str(double), "GPUDOUBLE_DEVICE": str(device), "GPUDOUBLE_ORDER": order})
    except subprocess.TimeoutExpired:
        return "hangs"
    if done.returncode == 0:
        return None
    marks = ("gpu double", "[  ERROR", "[  FAILED")
    lines = [line for line in done.stderr.splitlines() if line.startswith(marks)] or [f"status {done.returncode}"]
    return f"{program}: {lines[0][:100]}"


def run_all():
    """The quick ones first."""
    return (run("gpu/test_kernels", "mixed") or run("tests/test_gpu_layout", "late") or run("gpu/test_gpu", "late") or
            run("gpu/test_gpu", "mixed"))


def plant(bug):
    """How it is found, or None; an exception if it has no place."""
    _, name, passage, instead = bug
    path = COPY / CUDNN / name
    text = path.read_text()
    if text.count(passage) != 1:
        raise LookupError(f"the passage stands {text.count(passage)} times in {name}")
    path.write_text(text.replace(passage, instead))
    try:
        built = make()
        if built.returncode:
            raise LookupError("it does not compile: " + built.stderr.strip()[-300:])
        return run_all()
    finally:
        path.write_text(text)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default="")
    parser.add_argument("--every", type=int, default=1, help="one of N bugs, for a quick look")
    args = parser.parse_args()
    copy_sources()
    built = make()
    healthy = built.stderr[-2000:] if built.returncode else run_all()
    if healthy:
        print("planted: without a bug the tests fail already: " + healthy, file=sys.stderr)
        return 1
    chosen = [bug for bug in BUGS if args.only in bug[0]][::args.every]
    bad = 0
    for bug in chosen:
        try:
            how = plant(bug)
        except LookupError as error:
            how, bad = f"CANNOT BE PLANTED: {error}", bad + 1
        else:
            bad += how is None
        print(f"{bug[0]}: {how or 'NOT FOUND'}", flush=True)
    print(f"planted: {len(chosen) - bad} of {len(chosen)} bugs found")
    return 1 if bad or not chosen else 0


if __name__ == "__main__":
    sys.exit(main())
