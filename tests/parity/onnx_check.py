#!/usr/bin/env python3
"""Check the ONNX graph of bundles with onnx's checker and ONNX Runtime.

    pip install numpy onnx onnxruntime safetensors
    python tests/parity/onnx_check.py BUNDLE.sslb...

Bundles made with `export --quantize int8 --onnx dynamic,qdq,f16` hold more graphs, which are checked as well; what they may
be off by is in FORMS.

The golden inputs go through ONNX Runtime one at a time and as one batch. The largest absolute
difference of the L2-normalised CLS token and mean patch token to the golden outputs, and their least
cosine, are printed as JSON, one line a graph; the exit status is 1 if the difference is above the tolerance.
Checked with onnx 1.23.2 and onnxruntime 1.32.0; the Rust tests do not need this script.
"""

import json
import sys
import zipfile

import numpy as np
import onnx
import onnxruntime
from safetensors.numpy import load


def normalise(rows):
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def run(session, images, golden):
    """Pairs of normalised tokens: found and expected."""
    cls, patches = session.run(["cls", "patches"], {"image": images})
    pairs = [(cls, golden["cls"]), (patches.mean(axis=1), golden["patch_mean"])]
    return [(normalise(found), normalise(expected)) for found, expected in pairs]


def difference(pairs):
    return max(float(np.abs(found - expected).max()) for found, expected in pairs)


def cosine(pairs):
    return min(float((found * expected).sum(axis=-1).min()) for found, expected in pairs)


# Member, and what a normalised embedding may be off by: None for the manifest's tolerance.
FORMS = {"encoder.onnx": None, "encoder.int8.onnx": 2e-2, "encoder.qdq.onnx": 2e-2, "encoder.f16.onnx": 2e-3}


def check_graph(path, member, graph, manifest, golden):
    model = onnx.load_from_string(graph)
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    rows = [{name: tensor[i : i + 1] for name, tensor in golden.items()} for i in range(len(golden["cls"]))]
    single = max(difference(run(session, row["input"], row)) for row in rows)
    pairs = run(session, golden["input"], golden)
    batch = difference(pairs)
    tolerance = FORMS[member] or manifest["golden"]["tolerance"]
    result = {
        "bundle": path,
        "graph": member,
        "bytes": len(graph),
        "arch": manifest["arch"]["name"],
        "opset": model.opset_import[0].version,
        "single": single,
        "batch": batch,
        "cosine": cosine(pairs),
        "tolerance": tolerance,
    }
    print(json.dumps(result))
    return single <= tolerance and batch <= tolerance


def check(path):
    with zipfile.ZipFile(path) as bundle:
        manifest = json.loads(bundle.read("manifest.json"))
        golden = load(bundle.read("golden.safetensors"))
        graphs = {member: bundle.read(member) for member in FORMS if member in bundle.namelist()}
    return all([check_graph(path, member, graph, manifest, golden) for member, graph in graphs.items()])


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    sys.exit(0 if all([check(path) for path in sys.argv[1:]]) else 1)
