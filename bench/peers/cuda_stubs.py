"""Let the CUDA build of torch, the only one that PyPI has for Linux on x86-64, run on the CPU without 2.5 GB of CUDA libraries: cuda_stubs.py SITE_PACKAGES

For each CUDA library that torch's own libraries name and that is not there, a library of that name which has the symbols that
they want of it, and nothing in them. torch.cuda.is_available() is false without a driver, so none of them is ever called;
who called one all the same would stop at an illegal instruction, which no wrong figure can come from.
"""
import pathlib
import re
import subprocess
import sys
import tempfile

OURS = re.compile(r"lib(cu|nccl|nv)\w*\.so\.\d+$")


def readelf(option, path):
    return subprocess.run(["readelf", "--wide", option, path], check=True, capture_output=True, text=True).stdout


def needed(path):
    return re.findall(r"\(NEEDED\).*\[(.*)\]", readelf("--dynamic", path))


def versions(path):
    """{version: the library that it is wanted of}."""
    found, library = {}, None
    for line in readelf("--version-info", path).partition("Version needs")[2].splitlines():
        if match := re.search(r"File: (\S+)", line):
            library = match[1]
        elif match := re.search(r"Name: (\S+)", line):
            found[match[1]] = library
    return found


def symbols(path):
    """(undefined {name: (type, version or None)}, defined names)."""
    undefined, defined = {}, set()
    for line in readelf("--dyn-syms", path).splitlines():
        words = line.split()
        if len(words) < 8 or not words[0].endswith(":") or not words[0][:-1].isdigit():
            continue
        name, _, version = words[7].partition("@")
        if words[6] != "UND":
            defined.add(name)
        elif words[4] == "GLOBAL":
            undefined[name] = (words[3], version.strip("@") or None)
    return undefined, defined


def system_names():
    """What the C and C++ libraries define: those that this interpreter and a C++ program load."""
    names = set()
    for library in ("libc.so.6", "libm.so.6", "libstdc++.so.6", "libgcc_s.so.1", "libdl.so.2", "libpthread.so.0", "librt.so.1"):
        path = subprocess.run(["gcc", f"-print-file-name={library}"], capture_output=True, text=True, check=True).stdout.strip()
        if pathlib.Path(path).is_absolute():
            names |= symbols(path)[1]
    return names


def assembly(wanted):
    text = [".text"]
    for name, kind in sorted(wanted.items()):
        section = ".data" if kind == "OBJECT" else ".text"
        text += [section, f".globl {name}", f".type {name}, {'@object' if kind == 'OBJECT' else '@function'}", f"{name}:",
                 ".zero 4096" if kind == "OBJECT" else "ud2"]
    return "\n".join(text) + '\n.section .note.GNU-stack,"",@progbits\n'


def link(path, version, wanted):
    """A library of that name whose symbols all have this version, or none."""
    with tempfile.TemporaryDirectory() as scratch:
        source, script = pathlib.Path(scratch) / "stub.s", pathlib.Path(scratch) / "stub.map"
        source.write_text(assembly(wanted))
        script.write_text(f"{version} {{ global: *; }};\n" if version else "{ global: *; };\n")
        subprocess.run(["gcc", "-shared", "-nostdlib", f"-Wl,-soname,{path.name}", f"-Wl,--version-script={script}", "-o", path,
                        source], check=True)


def main():
    site = pathlib.Path(sys.argv[1])
    real = sorted((site / "nvidia").glob("*/lib/*.so*"))
    wanted, defined, libraries, library_of = {}, system_names(), set(), {}
    for path in sorted((site / "torch/lib").glob("*.so*")):
        libraries |= {name for name in needed(path) if OURS.match(name)}
        library_of |= versions(path)
        undefined, own = symbols(path)
        wanted |= undefined
        defined |= own
    for path in real:
        defined |= symbols(path)[1]
    wanted = {name: entry for name, entry in wanted.items() if name not in defined and re.match(r"(cu|nccl|nv)", name)}
    missing = sorted(libraries - {path.name for path in real} - {"libcuda.so.1"})
    version_of = {library: version for version, library in library_of.items()}
    plain = [name for name in missing if name not in version_of]
    target = site / "nvidia/cu13/lib"
    target.mkdir(parents=True, exist_ok=True)
    for name in missing:
        version = version_of.get(name)
        link(target / name, version, {symbol: kind for symbol, (kind, its) in wanted.items()
                                      if (its == version if version else its is None and name == plain[0])})
    print(f"{len(missing)} CUDA libraries that are not needed on a CPU replaced by empty ones ({len(wanted)} symbols)")


if __name__ == "__main__":
    main()
