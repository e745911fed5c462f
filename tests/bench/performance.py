#!/usr/bin/env python3
"""Writes docs/performance.md (on a CPU without AVX-512 docs/performance-avx2.md): training steps of ssl-edge beside PyTorch, in turns on
this machine, with their breakdown and scaling.

    pip install torch==2.11.0 timm numpy
    cargo build --release -p ssl-edge-cli
    cargo build --release -p ssl-edge-vision --example augment
    performance.py --ssl-edge target/release/ssl-edge --augment target/release/examples/augment --out docs/performance.md [--threads 2] [--rounds 2]

Two processes beside one are timed where there is an `mpirun` (Debian: libopenmpi-dev openmpi-bin libclang-dev) and the program was built
with `--features mpi`; else the document says that they were not.

Steps in bf16 beside PyTorch's autocast are timed where the CPU has instructions for such products (`ssl-edge doctor`).

Keep the machine quiet meanwhile: it takes about half an hour on two cores. Each round runs both programs once, one after the other;
a figure is the median over rounds, a ratio the median of the rounds' ratios. A ratio above 1 means that ssl-edge is faster.
"""
import argparse, datetime, json, os, platform, shutil, statistics, subprocess, sys, time

HERE = os.path.dirname(os.path.abspath(__file__))
ARCHS = {"vit_t16": "vit_ti16", "vit_s16": "vit_s16", "vit_b16": "vit_b16"}
BATCH = {"mae": 16, "dino": 4}


def last_json(command):
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def bench_step(a, method, arch, batch, threads, size=224, precision="f32"):
    return [a.ssl_edge, "bench", "step", "--json", "--method", method, "--arch", arch, "--batch", str(batch),
            "--threads", str(threads), "--size", str(size), "--precision", precision]


def ours(a, method, arch, batch, threads=None, size=224, precision="f32"):
    return last_json(bench_step(a, method, arch, batch, threads or a.threads, size, precision))


def peer(a, method, arch, batch, precision="f32"):
    return last_json([sys.executable, os.path.join(HERE, "reference.py"), method, "--arch", ARCHS[arch], "--batch", str(batch),
                      "--runs", "3", "--threads", str(a.threads), *(["--amp"] if precision == "bf16" else [])])


def table(head, rows):
    line = lambda cells: "| " + " | ".join(str(c) for c in cells) + " |"
    return "\n".join([line(head), line(["---"] * len(head)), *map(line, rows)])


def in_turns(a, method, arch, precision):
    """A row of steps beside PyTorch's, and one of where our time goes."""
    batch = BATCH[method]
    rounds = [(ours(a, method, arch, batch, precision=precision), peer(a, method, arch, batch, precision)) for _ in range(a.rounds)]
    print(json.dumps({"method": method, "arch": arch, "precision": precision, "rounds": rounds}), file=sys.stderr, flush=True)
    middle = lambda of: statistics.median(map(of, rounds))
    ratios = [theirs["ms"] / own["ms"] for own, theirs in rounds]
    own = sorted((o for o, _ in rounds), key=lambda o: o["ms"])[len(rounds) // 2]
    step = [method.upper(), arch, batch, f"{middle(lambda r: r[0]['ms']):,.0f}", f"{middle(lambda r: r[0]['img_per_s']):.2f}",
            f"{middle(lambda r: r[1]['ms']):,.0f}", f"{statistics.median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f})",
            f"{own['peak_mib']:,.0f}", f"{rounds[0][1]['peak_mib']:,.0f}"]
    part = [method.upper(), arch, precision, f"{own['forward_ms']:,.0f}", f"{own['backward_ms']:,.0f}", f"{own['update_ms']:,.0f}",
            f"{own['gflops']:.0f}", f"{100 * own['gflops'] / own['product_gflops']:.0f} %"]
    return step, part, middle(lambda r: r[0]["product_gflops"])


def beside(a, precision):
    rows = [in_turns(a, method, arch, precision) for method in ("mae", "dino") for arch in ARCHS]
    steps, parts, products = zip(*rows)
    head = ["step", "encoder", "batch", "ssl-edge ms", "img/s", "PyTorch ms", "ratio", "ssl-edge MiB", "PyTorch MiB"]
    return table(head, steps), list(parts), statistics.median(products)


def multiplies_bf16(a):
    features = last_json([a.ssl_edge, "doctor", "--json"])["cpu"]["features"]
    return any(f["name"] == "avx512bf16" and f["found"] for f in features)


def scaling(a):
    by_batch = [(b, ours(a, "mae", "vit_s16", b)) for b in (2, 4, 8, 16, 32)]
    by_size = [(s, ours(a, "mae", "vit_s16", 8, size=s)) for s in (96, 160, 224, 320)]
    by_threads = [(t, ours(a, "mae", "vit_s16", 8, threads=t)) for t in range(1, (os.cpu_count() or 1) + 1)]
    row = lambda x, o: [x, f"{o['ms']:,.0f}", f"{o['img_per_s']:.2f}", f"{o['gflops']:.0f}", f"{o['peak_mib']:,.0f}"]
    head = lambda x: [x, "ms", "img/s", "GFLOP/s", "MiB"]
    return [table(head("batch"), [row(*x) for x in by_batch]),
            table(head("image side (batch 8)"), [row(f"{s} ({(s // 16) ** 2} patches)", o) for s, o in by_size]),
            table(head("threads (batch 8)"), [row(*x) for x in by_threads])]


def over_processes(processes):
    as_root = ["--allow-run-as-root"] if os.geteuid() == 0 else []
    return ["mpirun", *as_root, "--oversubscribe", "--bind-to", "none", "-n", str(processes)]


def processes(a):
    """The same batch by one process on all threads and by two that share them, in turns; or why that was not timed."""
    if a.threads < 2:
        return "Not timed: that needs two threads."
    if not shutil.which("mpirun"):
        return "Not timed: there is no `mpirun` on this machine."
    trial = subprocess.run(over_processes(2) + bench_step(a, "mae", "vit_n16", 2, 1, 32), capture_output=True, text=True)
    if trial.returncode:
        if "built without MPI" in trial.stdout + trial.stderr:
            return "Not timed: this program was built without feature `mpi`."
        sys.exit(f"mpirun failed:\n{trial.stdout}{trial.stderr}")
    rows = []
    for method in ("mae", "dino"):
        batch, half = BATCH[method], a.threads // 2
        rounds = [(ours(a, method, "vit_s16", batch, 2 * half), last_json(over_processes(2) + bench_step(a, method, "vit_s16", batch, half)))
                  for _ in range(a.rounds)]
        assert all(two["ranks"] == 2 for _, two in rounds), rounds
        middle = lambda of: statistics.median(map(of, rounds))
        rows.append([method.upper(), "vit_s16", batch, f"{middle(lambda r: r[0]['ms']):,.0f}", f"{middle(lambda r: r[1]['ms']):,.0f}",
                     f"{middle(lambda r: r[0]['ms'] / r[1]['ms']):.2f}", f"{rounds[0][0]['peak_mib']:,.0f}",
                     f"{rounds[0][1]['peak_mib']:,.0f}"])
        print(json.dumps({"method": method, "processes": rounds}), file=sys.stderr, flush=True)
    return table(["step", "encoder", "batch", f"one process × {2 * half} threads, ms", f"two × {half}, ms", "ratio", "MiB", "MiB of each of two"],
                 rows)


def augmentation(a):
    """What the example of the augmentation prints."""
    if not a.augment:
        return "Not timed."
    lines = subprocess.run([a.augment, str(a.threads)], capture_output=True, text=True, check=True).stdout.strip().splitlines()
    cells = [line.replace(",", ":").split(":") for line in lines[1:]]
    return table(["source", "rate", "cost"], [[cell.strip() for cell in row] for row in cells])


def machine():
    model = next((l.split(":")[1].strip() for l in open("/proc/cpuinfo") if l.startswith("model name")), platform.processor())
    wide = "AVX-512" if " avx512f " in open("/proc/cpuinfo").read() else "AVX2"
    gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{os.cpu_count()} cores of {model} ({wide}), {gib:.0f} GiB, {platform.system()} {platform.machine()}"


def torch_product(threads, precision):
    """GFLOP/s of one product of two 2048 x 2048 matrices by PyTorch, median of nine."""
    import torch

    torch.set_num_threads(threads)
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    x, y = torch.randn(2048, 2048, dtype=dtype), torch.randn(2048, 2048, dtype=dtype)
    seconds = []
    for _ in range(12):
        start = time.perf_counter()
        x @ y
        seconds.append(time.perf_counter() - start)
    return 2 * 2048**3 / statistics.median(seconds[3:]) / 1e9


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--ssl-edge", required=True)
    p.add_argument("--augment", help="the example of ssl-edge-vision")
    p.add_argument("--out", required=True)
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--rounds", type=int, default=2)
    a = p.parse_args()
    import torch

    steps, parts, product = beside(a, "f32")
    bf16 = ("This CPU has no instructions for products in bf16: not timed.", [], 0.0)
    products = f"{product:.0f} GFLOP/s by our code, {torch_product(a.threads, 'f32'):.0f} by PyTorch (MKL)"
    if multiplies_bf16(a):
        bf16 = beside(a, "bf16")
        products += f"; in bf16 {bf16[2]:.0f} and {torch_product(a.threads, 'bf16'):.0f} (oneDNN)"
    head = ["step", "encoder", "precision", "forward ms", "backward ms", "update ms", "GFLOP/s", "of a product"]
    batch, size, threads = scaling(a)
    text = open(os.path.join(HERE, "performance.template.md")).read()
    fill = {"machine": machine(), "date": datetime.date.today().isoformat(), "torch": torch.__version__.split("+")[0], "threads": a.threads,
            "rounds": a.rounds, "out": a.out, "products": products, "steps": steps, "bf16": bf16[0],
            "parts": table(head, parts + bf16[1]), "processes": processes(a), "input": augmentation(a), "by_batch": batch, "by_size": size, "by_threads": threads}
    for key, value in fill.items():
        text = text.replace("{{" + key + "}}", str(value))
    with open(a.out, "w") as f:
        f.write(text)


main()
