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
        return z.extract("encoder.onnx", os.path.join(folder, arch))


def cases(a, folder):
    reference = [sys.executable, os.path.join(HERE, "reference.py")]
    threads = ["--threads", str(a.threads)]
    step = lambda m, b: [a.ssl_edge, "bench", "step", "--json", "--method", m, "--arch", "vit_s16", "--batch", b, *threads]
    peer = lambda m, b: [*reference, m, "--arch", "vit_s16", "--batch", b, "--runs", "3", *threads]
    encode = lambda arch, b, p, e="native": [a.ssl_edge, "bench", "encode", "--json", "--arch", arch, "--batch", b, "--precision", p, "--engine", e, *threads]
    if "mae" in a.only:
        yield "MAE step, ViT-S/16, batch 16", {"ssl-edge": step("mae", "16"), "PyTorch": peer("mae", "16")}
    if "dino" in a.only:
        yield "DINO step, ViT-S/16, batch 4", {"ssl-edge": step("dino", "4"), "PyTorch": peer("dino", "4")}
    if "encode" in a.only:
        for arch, name in (("vit_s16", "ViT-S/16"), ("vit_t16", "ViT-T/16")):
            model = onnx_of(a.ssl_edge, arch, folder)
            for batch in ("1", "8"):
                peer = [*reference, "onnx", model, "--batch", batch, "--runs", "30", "--warm", "5", *threads]
                programs = {"ssl-edge": encode(arch, batch, "f32"), "ONNX Runtime": peer}
                if (arch, batch) == ("vit_s16", "1"):
                    programs["ssl-edge through tract"] = encode(arch, batch, "f32", "onnx")
                yield f"{name} at 224, batch {batch}, f32", programs
                int8 = {"ssl-edge": encode(arch, batch, "int8"), "ONNX Runtime, dynamic int8 per channel": [*peer, "--int8"]}
                yield f"{name} at 224, batch {batch}, int8", int8


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
