#!/usr/bin/env python3
"""Writes docs/encoders.md: every encoder in f32 and int8, by the native engine, tract and ONNX Runtime, in turns on this machine.

    pip install onnxruntime==1.31.0 numpy
    cargo build --release -p ssl-edge-cli
    encode_table.py --ssl-edge target/release/ssl-edge --out docs/encoders.md [--rounds 5] [--threads 1,2] [--archs vit_n16,...]

Keep the machine quiet meanwhile. Each round runs every program once, one after the other, each in a process of its own, batch 1, and without tract a
batch of `--batch` as well; a figure is the median over rounds. `--peer` names another Python that has onnxruntime. With `--soak MINUTES` the native engine then runs for so long in f32 and in
int8, and must keep its memory flat. The JSON behind the tables is written beside the document with `--json FILE`.
"""
import argparse, datetime, json, os, platform, shutil, statistics, struct, subprocess, sys, tempfile, time, zipfile

HERE = os.path.dirname(os.path.abspath(__file__))
ARCHS = ["vit_n16", "vit_t16", "vit_s16", "vit_b16"]
ENGINES = ["native", "tract", "ONNX Runtime"]
MIB = 2**20


def measured(command):
    """The last line of what a program prints, as JSON, and the most memory that its process had, in MiB."""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        process = subprocess.Popen(command, stdout=out, stderr=err, text=True)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0), err.seek(0)
        if process.returncode:
            sys.exit(f"{' '.join(command)} failed:\n{err.read()}")
        # Linux counts in KiB, macOS in bytes.
        peak = usage.ru_maxrss / (MIB if sys.platform == "darwin" else 1024)
        return json.loads(out.read().strip().splitlines()[-1]) | {"peak_mib": peak}


def prepare(a, arch, folder):
    """A bundle with both precisions, its graphs as files, and the int8 graph as a bundle of its own, for tract."""
    base = os.path.join(folder, arch + ".sslb")
    measured([a.ssl_edge, "bench", "bundle", "--json", "--arch", arch, "--size", str(a.size), "--out", base])
    graphs = {}
    with zipfile.ZipFile(base) as bundle:
        for precision, member in (("f32", "encoder.onnx"), ("int8", "encoder.int8.onnx")):
            graphs[precision] = os.path.join(folder, f"{arch}.{precision}.onnx")
            # In pieces: a process counts as its own the most that this one had when it was started.
            with open(graphs[precision], "wb") as file, bundle.open(member) as graph:
                shutil.copyfileobj(graph, file)
    int8 = os.path.join(folder, arch + ".int8.sslb")
    measured([a.ssl_edge, "import", graphs["int8"], "--json", "--size", str(a.size), "--name", arch, "--out", int8])
    return base, graphs, int8


def command(a, files, engine, precision, threads, batch):
    base, graphs, int8 = files
    runs = ["--threads", str(threads), "--runs", str(a.runs), "--batch", str(batch)]
    if engine == "ONNX Runtime":
        return [a.peer, os.path.abspath(__file__), "--peer-graph", graphs[precision], "--reference", base, *runs]
    ours = [a.ssl_edge, "bench", "encode", "--json", *runs]
    if engine == "native":
        return [*ours, "--bundle", base, "--engine", "native", "--precision", precision]
    return [*ours, "--bundle", base if precision == "f32" else int8, "--engine", "onnx", "--reference", base]


def measure(a):
    results = []
    with tempfile.TemporaryDirectory() as folder:
        for arch in a.archs:
            files = prepare(a, arch, folder)
            cases = [(e, p, t, 1) for t in a.threads for p in ("f32", "int8") for e in ENGINES]
            cases += [(e, p, max(a.threads), a.batch) for p in ("f32", "int8") for e in ("native", "ONNX Runtime")]
            rounds = {case: [] for case in cases}
            for _ in range(a.rounds):
                for case in cases:
                    rounds[case].append(measured(command(a, files, *case)))
            for (engine, precision, threads, batch), runs in rounds.items():
                middle = lambda key: statistics.median(run[key] for run in runs)
                result = {"arch": arch, "engine": engine, "precision": precision, "threads": threads, "batch": batch, "rounds": [run["ms"] for run in runs],
                          **{key: middle(key) for key in ("ms", "peak_mib", "cosine", "bytes", "start_ms")}}
                peers = rounds["ONNX Runtime", precision, threads, batch]
                result["faster_by"] = statistics.median(peer["ms"] / run["ms"] for peer, run in zip(peers, runs))
                results.append(result)
                print(json.dumps(result), file=sys.stderr, flush=True)
        soaks = []
        for precision in ("f32", "int8") if a.soak else ():
            soaks.append(measured([a.ssl_edge, "bench", "soak", "--json", "--bundle", files[0], "--precision", precision, "--minutes", str(a.soak),
                                   "--threads", str(max(a.threads))]))
            print(json.dumps(soaks[-1]), file=sys.stderr, flush=True)
    return results, soaks


def table(head, rows):
    line = lambda cells: "| " + " | ".join(str(c) for c in cells) + " |"
    return "\n".join([line(head), line(["---"] * len(head)), *map(line, rows)])


def times(results, threads):
    results, rows = [r for r in results if r["batch"] == 1], []
    for arch, precision in dict.fromkeys((r["arch"], r["precision"]) for r in results):
        found = {r["engine"]: r for r in results if (r["arch"], r["precision"], r["threads"]) == (arch, precision, threads)}
        ms = [f"{found[engine]['ms']:.1f}" for engine in ENGINES]
        rows.append([arch, precision, *ms, *(f"{found[engine]['faster_by']:.2f}" for engine in ENGINES[:2])])
    return table(["encoder", "precision", *(f"{engine} ms" for engine in ENGINES), "native is faster by", "tract is faster by"], rows)


def batches(results, batch):
    rows = []
    for r in results:
        if (r["engine"], r["batch"]) == ("native", batch):
            peer = next(p for p in results if p["engine"] != "native" and all(p[key] == r[key] for key in ("arch", "precision", "threads", "batch")))
            rows.append([r["arch"], r["precision"], f"{r['ms']:.1f}", f"{peer['ms']:.1f}", f"{r['faster_by']:.2f}"])
    return table(["encoder", "precision", "native ms", "ONNX Runtime ms", "native is faster by"], rows)


def costs(results, threads):
    rows = [[r["arch"], r["precision"], r["engine"], f"{r['peak_mib']:.0f}", f"{r['bytes'] / 1e6:.1f}", f"{r['start_ms']:.0f}", f"{r['cosine']:.6f}"]
            for r in results if (r["threads"], r["batch"]) == (threads, 1)]
    return table(["encoder", "precision", "engine", "peak MiB", "MB on disk", "start-up ms", "cosine to f32"], rows)


def soaked(soaks):
    if not soaks:
        return "Not run for this document; `ssl-edge bench soak --bundle B --minutes 10`."
    rows = [[s["name"], s["precision"], f"{s['minutes']:.1f}", s["frames"], s["given_up"], f"{s['early_mib']:.1f}", f"{s['late_mib']:.1f}",
             f"{s['growth_mib']:+.1f}", "yes" if s["flat"] else "no"] for s in soaks]
    return table(["encoder", "precision", "minutes", "frames", "given up", "early MiB", "late MiB", "growth", "flat"], rows)


def cpu():
    info = open("/proc/cpuinfo").read() if os.path.exists("/proc/cpuinfo") else ""
    model = next((line.split(":")[1].strip() for line in info.splitlines() if line.startswith("model name")), platform.processor())
    wide = "AVX-512 VNNI" if " avx512_vnni " in info else "AVX-512" if " avx512f " in info else "AVX2" if " avx2 " in info else platform.machine()
    gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{os.cpu_count()} cores of {model} ({wide}), {gib:.0f} GiB, {platform.system()} {platform.machine()}"


def golden(bundle):
    """Inputs and f32 class tokens of a bundle's golden vectors, as numpy arrays."""
    import numpy as np

    with zipfile.ZipFile(bundle) as file:
        data = file.read("golden.safetensors")
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8:8 + length])

    def tensor(name):
        start, end = header[name]["data_offsets"]
        return np.frombuffer(data[8 + length + start:8 + length + end], "<f4").reshape(header[name]["shape"])

    return tensor("input"), tensor("cls")


def peer(a):
    """One graph in ONNX Runtime, in this process; prints what `ssl-edge bench encode` prints."""
    import numpy as np
    import onnxruntime

    images, expected = golden(a.reference)
    start = time.perf_counter()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = int(a.threads[0]), 1
    session = onnxruntime.InferenceSession(a.peer_graph, options, providers=["CPUExecutionProvider"])
    run = lambda image: session.run(["cls", "patches"], {"image": image})[0]
    run(images[:1])
    start_ms = 1e3 * (time.perf_counter() - start)
    cosines = []
    for image, want in zip(images, expected):
        found = run(image[None])[0]
        cosines.append(float(found @ want / (np.linalg.norm(found) * np.linalg.norm(want))))
    image = np.random.default_rng(1).uniform(-2, 2, (a.batch, *images.shape[1:])).astype(np.float32)
    taken = []
    for i in range(3 + a.runs):
        begin = time.perf_counter()
        run(image)
        taken.append(time.perf_counter() - begin)
    print(json.dumps({"ms": 1e3 * statistics.median(taken[3:]), "start_ms": start_ms, "cosine": statistics.mean(cosines),
                      "bytes": os.path.getsize(a.peer_graph), "version": onnxruntime.__version__}))


def document(a, results, soaks):
    version = subprocess.run([a.peer, "-c", "import onnxruntime; print(onnxruntime.__version__)"], capture_output=True, text=True).stdout.strip()
    fill = {"machine": cpu(), "date": datetime.date.today().isoformat(), "onnxruntime": version, "rounds": a.rounds, "runs": a.runs, "size": a.size,
            "archs": ",".join(a.archs), "threads": ",".join(map(str, a.threads)), "soak": a.soak or 10,
            "times": "\n\n".join(f"{t} thread{'s' if t > 1 else ''}:\n\n{times(results, t)}" for t in a.threads),
            "batch": a.batch, "batches": batches(results, a.batch), "most_threads": max(a.threads), "costs": costs(results, a.threads[-1]), "costs_threads": a.threads[-1], "soaked": soaked(soaks)}
    text = open(os.path.join(HERE, "encode_table.template.md")).read()
    for key, value in fill.items():
        text = text.replace("{{" + key + "}}", str(value))
    return text


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--ssl-edge")
    p.add_argument("--out")
    p.add_argument("--json")
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--runs", type=int, default=21)
    p.add_argument("--threads", default="1,2", type=lambda text: [int(n) for n in text.split(",")])
    p.add_argument("--archs", default=",".join(ARCHS), type=lambda text: text.split(","))
    p.add_argument("--size", type=int, default=224)
    p.add_argument("--batch", type=int, default=8)
    p.add_argument("--soak", type=float, default=0, metavar="MINUTES")
    p.add_argument("--peer", default=sys.executable, metavar="PYTHON")
    p.add_argument("--peer-graph", help=argparse.SUPPRESS)
    p.add_argument("--reference", help=argparse.SUPPRESS)
    a = p.parse_args()
    if a.peer_graph:
        return peer(a)
    if not a.ssl_edge or not a.out:
        p.error("--ssl-edge and --out are needed")
    results, soaks = measure(a)
    if a.json:
        with open(a.json, "w") as file:
            json.dump({"results": results, "soaks": soaks}, file, indent=1)
    with open(a.out, "w") as file:
        file.write(document(a, results, soaks))


main()
