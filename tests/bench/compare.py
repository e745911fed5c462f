#!/usr/bin/env python3
"""Times ssl-edge and what a user would pick instead on one machine, in turns, and prints a table.

    pip install torch==2.11.0 timm onnx onnxruntime==1.31.0 numpy
    cargo build --release -p ssl-edge-cli
    compare.py --ssl-edge target/release/ssl-edge [--rounds 3] [--threads 2] [--only mae,dino,encode]

Each round runs every program once, one after the other; the figure is the median over rounds, the ratio the median of the rounds'
ratios. A ratio above 1 means that ssl-edge is faster.
"""
import argparse, json, os, statistics, subprocess, sys, tempfile

HERE = os.path.dirname(os.path.abspath(__file__))


def last_json(command):
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def onnx_of(ssl_edge, arch, folder):
    import zipfile

    bundle = os.path.join(folder, arch + ".sslb")
    subprocess.run([ssl_edge, "export", "--random", arch, "--seed", "1", "--size", "224", "--out", bundle], check=True, capture_output=True)
    with zipfile.ZipFile(bundle) as z:
        return z.extract("encoder.onnx", folder)


def cases(a, folder):
    reference = [sys.executable, os.path.join(HERE, "reference.py")]
    threads = ["--threads", str(a.threads)]
    step = lambda m, b: [a.ssl_edge, "bench", "step", "--json", "--method", m, "--arch", "vit_s16", "--batch", b, *threads]
    peer = lambda m, b: [*reference, m, "--arch", "vit_s16", "--batch", b, "--runs", "3", *threads]
    encode = lambda e: [a.ssl_edge, "bench", "encode", "--json", "--arch", "vit_s16", "--size", "224", "--engine", e, *threads]
    if "mae" in a.only:
        yield "MAE step, ViT-S/16, batch 16", {"ssl-edge": step("mae", "16"), "PyTorch": peer("mae", "16")}
    if "dino" in a.only:
        yield "DINO step, ViT-S/16, batch 4", {"ssl-edge": step("dino", "4"), "PyTorch": peer("dino", "4")}
    if "encode" in a.only:
        model = onnx_of(a.ssl_edge, "vit_s16", folder)
        yield "ViT-S/16 at 224, batch 1", {
            "ssl-edge": encode("native"),
            "ONNX Runtime": [*reference, "onnx", model, "--runs", "30", "--warm", "5", *threads],
            "ssl-edge through tract": encode("onnx"),
        }


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--ssl-edge", required=True)
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--only", default="mae,dino,encode", type=lambda s: s.split(","))
    a = p.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for name, programs in cases(a, folder):
            ms = {who: [] for who in programs}
            for _ in range(a.rounds):
                for who, command in programs.items():
                    ms[who].append(last_json(command)["ms"])
            for who, times in ms.items():
                ratio = statistics.median(t / o for t, o in zip(times, ms["ssl-edge"]))
                row = {"case": name, "program": who, "ms": round(statistics.median(times), 1), "min": min(times), "max": max(times)}
                print(json.dumps(row | {"ssl_edge_is_faster_by": round(ratio, 2)}), flush=True)


main()
