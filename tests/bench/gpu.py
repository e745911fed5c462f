#!/usr/bin/env python3
"""On a machine with an NVIDIA GPU: runs the tests that need one, trains for a moment, times training steps and encoders beside PyTorch (AMP
or f16, torch.compile), and writes docs/performance-cuda.md. Needs python3 with torch (CUDA) and timm, a C++ compiler for the tests of the
plug-in, and no Rust: tests/bench/gpu-pack.sh builds and packs the programs on a machine with the CUDA toolkit.

    gpu.py --packed FOLDER --out docs/performance-cuda.md [--seconds 560]

Both programs run in turns, each in a process of its own. A ratio above 1 means that ssl-edge is faster. What --seconds leaves no time
for is listed in the document as not measured. A test that fails ends the program with status 1, after the document is written.
"""
import argparse, datetime, glob, json, lzma, os, shutil, site, stat, subprocess, sys, sysconfig, tempfile, time

HERE = os.path.dirname(os.path.abspath(__file__))
# method, encoder, images in a batch; DINO sees 10 views of each
CASES = [("mae", "vit_s16", 256), ("dino", "vit_s16", 64), ("mae", "vit_b16", 256), ("dino", "vit_b16", 64)]
# encoder, images in a batch
ENCODERS = [("vit_s16", 1), ("vit_s16", 8), ("vit_b16", 1), ("vit_b16", 8)]
# test program, filter of its names: the CPU's tests of the same program are run where it is built
TESTS = [("nn-cuda", []), ("cuda-plugin", []), ("train-suite", ["cuda::"])]
START = time.monotonic()


def libraries():
    """Folders of the CUDA libraries that the program is linked to: those that came with torch, then the system's."""
    roots = {sysconfig.get_paths()["purelib"], *site.getsitepackages(), *[p for p in sys.path if p.endswith("site-packages")]}
    found = [d for r in sorted(roots) for d in sorted(glob.glob(os.path.join(r, "nvidia", "*", "lib")))]
    return [*found, "/usr/local/nvidia/lib64", "/usr/local/cuda/lib64", *os.environ.get("LD_LIBRARY_PATH", "").split(":")]


ENV = {**os.environ, "LD_LIBRARY_PATH": ":".join(filter(None, libraries())), "SSL_EDGE_REQUIRE_CUDA": "1",
       "SSL_EDGE_KERNELS": os.path.join(HERE, "..", "..", "sdk", "gpu", "kernels")}


def unpack(packed, folder):
    """Every file of the folder that the packing made, ready to run."""
    for path in glob.glob(os.path.join(packed, "*.xz")):
        out = os.path.join(folder, os.path.basename(path)[:-3])
        with lzma.open(path) as source, open(out, "wb") as f:
            shutil.copyfileobj(source, f)
        os.chmod(out, os.stat(out).st_mode | stat.S_IXUSR)
    return os.path.join(folder, "ssl-edge")


def left(a):
    return a.seconds - (time.monotonic() - START)


def run(a, command, least=20.0):
    """The finished process, or None where there is no time for it."""
    if left(a) < least:
        return None
    print("+", " ".join(map(str, command)), flush=True)
    try:
        return subprocess.run(list(map(str, command)), capture_output=True, text=True, env=ENV, timeout=left(a))
    except subprocess.TimeoutExpired:
        return None


def tests(a, folder):
    lines, failed = [], False
    for name, filters in TESTS:
        done = run(a, [os.path.join(folder, name), *filters, "--test-threads=1"])
        if done is None:
            lines.append(f"| {name} | not run: no time |")
            continue
        print(done.stdout, done.stderr, flush=True)
        summary = next((l for l in done.stdout.splitlines() if l.startswith("test result")), f"ended with status {done.returncode}")
        failed |= done.returncode != 0
        lines.append(f"| {name} | {summary} |")
    return "\n".join(["| tests | result |", "|---|---|", *lines]), failed


def last_json(done):
    if done is None:
        return None, "no time"
    if done.returncode:
        message = (done.stderr.strip().splitlines() or ["?"])[-1][:200]
        print(done.stderr, flush=True)
        return None, message
    return json.loads(done.stdout.strip().splitlines()[-1]), None


def steps(a, program):
    rows, parts, missing = [], [], []
    for method, arch, batch in CASES:
        ours, why = last_json(run(a, [program, "bench", "step", "--json", "--device", "cuda", "--method", method, "--arch", arch, "--batch", batch]))
        name = f"{method.upper()} {arch}, batch {batch}"
        if ours is None:
            missing.append(f"{name}: ssl-edge: {why}")
            continue
        command = [sys.executable, os.path.join(HERE, "reference.py"), method, "--arch", arch, "--batch", batch, "--device", "cuda",
                   "--amp", "--compile", "--warm", "5", "--runs", "20", "--threads", "8"]
        peer, why = last_json(run(a, command, least=60.0))
        if peer is None:
            missing.append(f"{name}: PyTorch: {why}")
        cell = lambda d, key, form: form.format(d[key]) if d else "-"
        rows.append([name, f"{ours['ms']:.1f}", f"{ours['img_per_s']:.0f}", cell(peer, "ms", "{:.1f}"), cell(peer, "img_per_s", "{:.0f}"),
                     f"{peer['ms'] / ours['ms']:.2f}" if peer else "-", f"{ours['peak_mib']:,.0f}", cell(peer, "peak_mib", "{:,.0f}")])
        parts.append([name, f"{ours['forward_ms']:.1f}", f"{ours['backward_ms']:.1f}", f"{ours['update_ms']:.1f}", f"{ours['gflops'] / 1e3:.1f}",
                      f"{100 * ours['gflops'] / ours['product_gflops']:.0f} % of {ours['product_gflops'] / 1e3:.0f}"])
        print(json.dumps({"ours": ours, "peer": peer}), flush=True)
    return (table(["step", "ssl-edge ms", "img/s", "PyTorch ms", "img/s", "ratio", "ssl-edge MiB", "PyTorch MiB"], rows),
            table(["step", "forward ms", "backward ms", "update ms", "TFLOP/s", "of a product's TFLOP/s"], parts), missing)


def table(head, body):
    return "\n".join("| " + " | ".join(r) + " |" for r in [head, ["---"] * len(head), *body])


def encoders(a, program):
    rows, missing = [], []
    for arch, batch in ENCODERS:
        shape = ["--arch", arch, "--batch", batch]
        ours, why = last_json(run(a, [program, "bench", "encode", "--json", "--engine", "cuda", "--precision", "f16", "--runs", "100", *shape]))
        if ours is None:
            missing.append(f"{arch}, batch {batch}: ssl-edge: {why}")
            continue
        peer, why = last_json(run(a, [sys.executable, os.path.join(HERE, "reference.py"), "encode", *shape, "--device", "cuda", "--amp", "--compile",
                                      "--warm", "10", "--runs", "100"], least=45.0))
        if peer is None:
            missing.append(f"{arch}, batch {batch}: PyTorch: {why}")
        rows.append([arch, str(batch), f"{ours['ms']:.2f}", f"{peer['ms']:.2f}" if peer else "-", f"{peer['ms'] / ours['ms']:.2f}" if peer else "-",
                     f"{ours['start_ms']:.0f}", f"{ours['cosine']:.6f}"])
        print(json.dumps({"ours": ours, "peer": peer}), flush=True)
    return table(["encoder", "batch", "ssl-edge ms", "PyTorch ms", "ratio", "to the first embedding, ms", "cosine to f32"], rows), missing


def pictures(folder, n=512, side=160):
    """Stripes of many directions and widths, so that there is something to learn and nothing to download."""
    import math

    os.makedirs(folder)
    for i in range(n):
        dx, dy, phase = math.cos(i * 0.7) * (0.1 + i % 7 * 0.1), math.sin(i * 0.7) * (0.1 + i % 5 * 0.1), i * 0.3
        pixels = bytes(int(128 + 100 * math.sin(x * dx + y * dy + phase)) for y in range(side) for x in range(side))
        with open(os.path.join(folder, f"{i:04}.pgm"), "wb") as f:
            f.write(f"P5\n{side} {side}\n255\n".encode() + pixels)


def training(a, program, folder):
    images = os.path.join(folder, "images")
    pictures(images)
    rows, missing = [], []
    for method in ("mae", "dino"):
        out = os.path.join(folder, method)
        done = run(a, [program, "pretrain", "--json", "--device", "cuda", "--method", method, "--arch", "vit_s16", "--data", images, "--out", out,
                       "--set", "schedule.images=6400", "--set", "schedule.batch=64"])
        result, why = last_json(done)
        if result is None:
            missing.append(f"training with {method}: {why}")
            continue
        lines = [json.loads(l) for l in open(os.path.join(out, "metrics.jsonl"))]
        losses = [l for l in lines if "loss" in l]
        last = losses[-1]
        rows.append(f"| {method.upper()} | {result['step']} | {losses[0]['loss']:.4f} | {last['loss']:.4f} | {last['img_per_s']:.0f} | "
                    f"{100 * last['data_wait']:.0f} % |")
    head = ["| method | steps of 64 | first loss | last loss | img/s | of the time waiting for images |", "|---|---|---|---|---|---|"]
    return "\n".join([*head, *rows]), missing


def machine(torch):
    p = torch.cuda.get_device_properties(0)
    model = next((l.split(":")[1].strip() for l in open("/proc/cpuinfo") if l.startswith("model name")), "unknown CPU")
    return f"{p.name}, {p.total_memory / 2**30:.0f} GiB, {p.multi_processor_count} multiprocessors; {os.cpu_count()} cores of {model}"


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--packed", required=True, metavar="FOLDER", help="what gpu-pack.sh made")
    p.add_argument("--out", required=True)
    p.add_argument("--seconds", type=float, default=3600.0)
    a = p.parse_args()
    import torch

    if not torch.cuda.is_available():
        sys.exit("torch sees no GPU here: this is for a machine that has one")
    with tempfile.TemporaryDirectory() as folder:
        program = unpack(a.packed, folder)
        results, failed = tests(a, folder)
        trained, untrained = training(a, program, folder)
        beside, parts, untimed = steps(a, program)
        encoded, rest = encoders(a, program)
    missing = untrained + untimed + rest
    fill = {"date": datetime.date.today().isoformat(), "machine": machine(torch), "torch": torch.__version__, "tests": results, "steps": beside,
            "parts": parts, "encoders": encoded, "training": trained, "missing": "\n".join(f"- {m}" for m in missing) or "Nothing of the above."}
    with open(os.path.join(HERE, "performance-cuda.template.md")) as f:
        text = f.read()
    for key, value in fill.items():
        text = text.replace("{{" + key + "}}", value)
    os.makedirs(os.path.dirname(os.path.abspath(a.out)), exist_ok=True)
    with open(a.out, "w") as f:
        f.write(text)
    print(text)
    sys.exit(1 if failed else 0)


main()
