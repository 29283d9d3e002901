"""Whole servers on the double of a GPU, through HTTP, against servers on the reference backend: every family of UNets, every type of tile, odd
sizes, batches of any size. In f32, where both must agree: but for pixels whose two best classes are equal within rounding."""
import json
import shutil

import numpy
import pytest
from test_gpu_double import GOLDENS, environment, labels_of, predict

# A model, how many channels it takes, and what its sizes are multiples of (None: any size from 8 on).
FAMILIES = {"milesial_bilinear": (4, None), "aladdinpersson": (3, 8), "mateuszbuda": (3, 8), "zhoudaxia233": (1, 8), "plain": (5, 4), "cbr": (3, 4),
            "fepegar": (3, 4), "smp": (4, 32)}
CLIPPED = {"offset": 3, "scale": 100, "clip": [-2, 2]}
ALIKE = 0.999  # of the pixels


def model_directory(tmp_path, name, preprocess):
    """The golden network of that name, with a preprocessing that does not make its tiles all but zero."""
    directory = tmp_path / name
    directory.mkdir()
    shutil.copy(GOLDENS / f"{name}.safetensors", directory)
    (directory / "model.json").write_text(json.dumps({"preprocess": preprocess}))
    return directory


def config(directories, **keys):
    models = "".join(f"[model {directory.name}]\npath = {directory}\nroute = /{directory.name}\ntile = 32\nmax_batch_size = 8\nworkers = 1\nprecision = f32\n" +
                     "".join(f"{key} = {value}\n" for key, value in keys.items()) for directory in directories)
    return f"[server]\nlisten = 127.0.0.1:0\n{models}"


@pytest.fixture
def both(start_server, tmp_path):
    """Factory: both(names, preprocess) -> a server on the double and one on the reference backend, of the same models."""

    def start(names, preprocess):
        directories = [model_directory(tmp_path, name, preprocess) for name in names]
        gpu = start_server(config=config(directories, devices="cuda", engine_timing="off"), listen=None, env=environment())
        cpu = start_server(config=config(directories, devices="cpu", backend="reference"), listen=None)
        assert gpu.log_text().count("on cudnn in f32") == len(names)
        servers.extend((gpu, cpu))
        return gpu, cpu

    servers = []
    yield start
    for server in servers:
        server.stop()
        assert "gpu double: " not in server.log_text()  # no rule was broken on the way, nothing left at the end


def agree(gpu, cpu, model, tiles):
    """Ask both; how many labels there are of each class."""
    got, want = (labels_of(predict(server, tiles, "/" + model)) for server in (gpu, cpu))
    assert got.size == want.size == tiles.size // tiles.shape[-3]
    assert (got == want).mean() >= ALIKE, (model, tiles.shape, tiles.dtype, (got == want).mean())
    return numpy.bincount(want)


def expect_several_classes(found):
    """Whoever answers always the same would agree with nobody."""
    assert len(found) > 1 and max(found) < 0.98 * sum(found), found


def sizes_of(multiple):
    """Three that differ in height and width: odd ones, or odd multiples of what the family takes."""
    return [(33, 24), (15, 41), (17, 9)] if multiple is None else [(multiple, 3 * multiple), (3 * multiple, multiple), (multiple, multiple)]


def test_every_family_answers_as_the_reference_does(both):
    gpu, cpu = both(list(FAMILIES), {"scale": 1, "clip": None})
    random = numpy.random.default_rng(11)
    for model, (channels, multiple) in FAMILIES.items():
        found = numpy.zeros(256, int)
        # The last one's shape comes three times: step by step, captured, launched.
        first, second, last = sizes_of(multiple)
        for count, size in [(1, first), (2, second), (5, last), (8, first), (5, last), (5, last)]:
            labels = agree(gpu, cpu, model, random.uniform(-2, 2, (count, channels, *size)).astype(numpy.float32))
            found[:len(labels)] += labels
        expect_several_classes(found)


def random_tiles(random, dtype, shape):
    """Mostly what the clip lets through, and numbers from end to end of the type."""
    kind = numpy.dtype(dtype)
    if kind.kind == "f":
        return random.uniform(-300, 300, shape).astype(kind)
    limits = numpy.iinfo(kind)
    middle = random.integers(max(limits.min, -300), min(limits.max, 300), shape, endpoint=True)
    anything = random.integers(limits.min, limits.max, shape, endpoint=True)
    return numpy.where(random.random(shape) < 0.2, anything, middle).astype(kind)


def test_every_type_of_tile_is_read_as_the_reference_reads_it(both):
    model = "milesial_transposed"
    channels = numpy.load(GOLDENS / f"{model}.input.npy").shape[-3]
    gpu, cpu = both([model], CLIPPED)
    random = numpy.random.default_rng(12)
    for dtype in ("uint8", "int8", "uint16", "int16", "float16", "float32"):
        found = numpy.zeros(256, int)
        # All types in the same shapes: a plan that one of them has captured serves the next.
        for shape in [(channels, 33, 40), (1, channels, 24, 31), (2, channels, 19, 35), (5, channels, 24, 31), (8, channels, 17, 23)]:
            labels = agree(gpu, cpu, model, random_tiles(random, dtype, shape))
            found[:len(labels)] += labels
        expect_several_classes(found)
