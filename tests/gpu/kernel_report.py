"""The table of our GPU kernels in docs/gpu.md: registers and occupancy by architecture, and the bytes that they move for a network.

kernel_report.py LOG [--plan PLAN.json] [--write docs/gpu.md]: LOG is what ptxas said at the build (build/gpu/kernels.log), PLAN what
`unetctl plan --json` says of the 31M-parameter network. Fails if a kernel spills a register, uses memory it should not, or leaves more
of a processor idle than FLOOR allows.
"""
import argparse
import json
import re
import sys

BLOCK_WARPS = 8  # GPU_BLOCK_THREADS / 32
FLOOR = 0.5      # of the warps that a processor holds
# Warps and blocks that a processor holds; all have 65,536 registers in four parts, dealt out to warps by 256.
LIMITS = {75: (32, 16), 80: (64, 32), 86: (48, 16), 89: (48, 24), 90: (64, 32), 100: (64, 32), 120: (48, 24)}
PART_REGISTERS = 16384
BEGIN, END = "<!-- kernels: begin -->", "<!-- kernels: end -->"


def read_log(text):
    """{(kernel, type, arch): (registers, spilled bytes, stack bytes, shared bytes)}"""
    found = {}
    for part in text.split("Compiling entry function ")[1:]:
        name, arch = re.match(r"'gpu_(\w+)' for 'sm_(\d+)'", part).groups()
        kernel, kind = name.rsplit("_", 1)
        stack, stores, loads = re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", part).groups()
        shared = re.search(r"(\d+) bytes smem", part)
        found[kernel, kind, int(arch)] = (int(re.search(r"Used (\d+) registers", part)[1]), int(stores) + int(loads), int(stack),
                                          int(shared[1]) if shared else 0)
    return found


def occupancy(registers, arch):
    """The share of the warps of a processor that can be there at once."""
    warps, blocks = LIMITS[arch]
    a_warp = -(-registers * 32 // 256) * 256
    by_registers = PART_REGISTERS // a_warp * 4
    return min(blocks, warps // BLOCK_WARPS, by_registers // BLOCK_WARPS) * BLOCK_WARPS / warps


def faults(found):
    kernels, kinds = {k for k, _, _ in found}, {"f32", "f16", "bf16"}
    for key in [(k, t, a) for k in sorted(kernels) for t in sorted(kinds) for a in sorted(LIMITS)]:
        if key not in found:
            yield f"{key}: not in the log"
            continue
        registers, spilled, stack, shared = found[key]
        if spilled or stack or shared:
            yield f"{key}: {spilled} bytes spilled, {stack} of stack, {shared} shared"
        if occupancy(registers, key[2]) < FLOOR:
            yield f"{key}: {registers} registers leave {1 - occupancy(registers, key[2]):.0%} of the warps out"


def register_table(found):
    arches = sorted(LIMITS)
    yield "| kernel | " + " | ".join(f"sm_{a}" for a in arches) + " |"
    yield "|---|" + "---|" * len(arches)
    for kernel in sorted({k for k, _, _ in found}):
        cells = []
        for arch in arches:
            registers = max(found[kernel, kind, arch][0] for kind in ("f32", "f16", "bf16"))
            cells.append(f"{registers}, {occupancy(registers, arch):.0%}")
        yield f"| `{kernel}` | " + " | ".join(cells) + " |"


def traffic(plan, in_channels=12, classes=11, input_bytes=2):
    """[(kernel, launches, bytes moved, bytes that must be)] for a batch; both ends of the network are not in the plan."""
    element = 4 if plan["type"] == "f32" else 2
    pixels = plan["batch"] * plan["height"] * plan["width"]
    deep = -(-in_channels // 16) * 16, -(-classes // 16) * 16
    rows = {"load": [1, pixels * (in_channels * input_bytes + deep[0] * element), pixels * in_channels * (input_bytes + element)],
            "labels": [1, pixels * (deep[1] * element + 1), pixels * (classes * element + 1)]}
    names = {"pool": "halve"}  # with the copy for the skip
    for step in plan["kernels"]:
        row = rows.setdefault(names.get(step["op"], step["op"]), [0, 0, 0])
        row[0] += 1
        row[1] += step["bytes"]
        row[2] += step["bytes"]  # this network's inner channels are multiples of 16: nothing is moved for padding
    return [(name, *row) for name, row in rows.items()]


def traffic_table(plan):
    yield "| kernel | launches | MB moved | MB at the least |"
    yield "|---|---|---|---|"
    rows = traffic(plan)
    for name, launches, moved, least in [*rows, ("all", *(sum(row[i] for row in rows) for i in (1, 2, 3)))]:
        yield f"| {'all' if name == 'all' else f'`{name}`'} | {launches} | {moved / 1e6:.2f} | {least / 1e6:.2f} |"


def section(found, plan):
    yield BEGIN
    yield from register_table(found)
    if plan:
        yield ""
        yield (f"Bytes moved by them in one forward pass of the 31M-parameter network ({plan['batch']} tile of {plan['height']} x {plan['width']}, "
               f"uint16 in, {plan['type']}): every value is read once and written once; what is above the least is padding to 16 channels.")
        yield ""
        yield from traffic_table(plan)
    yield END


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("log")
    parser.add_argument("--plan")
    parser.add_argument("--write")
    args = parser.parse_args()
    with open(args.log) as file:
        found = read_log(file.read())
    wrong = list(faults(found)) if found else ["no kernel in " + args.log]
    for line in wrong:
        print("kernel_report: " + line, file=sys.stderr)
    if wrong:
        return 1
    plan = None
    if args.plan:
        with open(args.plan) as file:
            plan = json.load(file)
    lines = list(section(found, plan))
    if not args.write:
        print("\n".join(lines[1:-1]))
        return 0
    with open(args.write) as file:
        text = file.read()
    before, rest = text.split(BEGIN)
    with open(args.write, "w") as file:
        file.write(before + "\n".join(lines) + rest.split(END)[1])
    return 0


if __name__ == "__main__":
    sys.exit(main())
