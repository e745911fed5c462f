#!/usr/bin/env python3
"""Check imported graphs: encoders of timm and PyTorch with random weights, through `ssl-edge import`, beside ONNX Runtime.

    pip install torch timm onnx onnxruntime onnxscript numpy safetensors
    cargo build --release -p ssl-edge-cli
    python tests/parity/import_check.py --ssl-edge target/release/ssl-edge [--keep DIR] [CASE...]

Each case is exported by torch.onnx (the exporter that traces, and the newer one through torch.export), imported, and its golden inputs go
through ONNX Runtime, read by the bundle's own mapping; the largest absolute difference of a class token and a mean patch token to the golden
outputs, L2-normalised, is printed as JSON, one line a case. The exit status is 1 if one is above 1e-4, if the mapping is not the one that the
case expects, or if a graph that must be refused is not. Written for torch 2.15, timm 1.0, onnx 1.23 and onnxruntime 1.32; the Rust tests do not need it.
"""
import argparse, json, os, subprocess, sys, tempfile, zipfile

import numpy as np
import onnx
import onnxruntime
import timm
import torch
from safetensors.numpy import load

TOLERANCE = 1e-4


class Features(torch.nn.Module):
    """A timm model's features: all tokens, or the map before pooling."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, image):
        return self.model.forward_features(image)


class Hidden(Features):
    """What transformers gives: all tokens, and the normalised first one again."""

    def forward(self, image):
        tokens = self.model.forward_features(image)
        return tokens, tokens[:, 0]


class Split(Features):
    """DINOv2's own names."""

    def forward(self, image):
        tokens = self.model.forward_features(image)
        prefix = self.model.num_prefix_tokens
        return tokens[:, 0], tokens[:, prefix:]


def vit(name, size=224, **options):
    return timm.create_model(name, pretrained=False, num_classes=0, img_size=size, **options)


def cnn(name):
    return timm.create_model(name, pretrained=False, num_classes=0)


# Model, its side in pixels, output names, and (class token's source, patches' source, tokens before the patches or None, grid).
CASES = {
    "vit_small_patch16_224": (lambda: Features(vit("vit_small_patch16_224")), 224, ["tokens"], ("first", "tokens", 1, [14, 14])),
    "vit_small_patch14_reg4_dinov2": (
        lambda: Hidden(vit("vit_small_patch14_reg4_dinov2")), 224, ["last_hidden_state", "pooler_output"], ("first", "tokens", 5, [16, 16])),
    "vit_tiny_patch16_224 split": (
        lambda: Split(vit("vit_tiny_patch16_224", 192)), 192, ["x_norm_clstoken", "x_norm_patchtokens"], ("vector", "tokens", 0, [12, 12])),
    "resnet18 map": (lambda: Features(cnn("resnet18")), 224, ["features"], ("mean", "map", None, [7, 7])),
    "resnet18 pooled": (lambda: cnn("resnet18"), 160, ["embedding"], ("vector", "cls", None, [1, 1])),
    "convnext_atto map": (lambda: Features(cnn("convnext_atto")), 224, ["features"], ("mean", "map", None, [7, 7])),
    "swin_tiny_patch4_window7_224": (
        lambda: Features(vit("swin_tiny_patch4_window7_224")), 224, ["features"], ("mean", "map_last", None, [7, 7])),
    "deit_tiny_distilled_patch16_224": (
        lambda: Features(vit("deit_tiny_distilled_patch16_224")), 224, ["tokens"], ("first", "tokens", 2, [14, 14])),
}


def shake(model):
    """Random weights all over: fresh ones have zeros, and running statistics that hide a mistake."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point():
                noise = torch.randn(tensor.shape, generator=generator) * 0.02
                tensor.add_(noise.abs() if "running_var" in name else noise)
    return model.eval()


def export(model, size, names, path, dynamo, batch):
    image = torch.randn(2 if batch else 1, 3, size, size)
    if dynamo:
        shapes = ({0: torch.export.Dim("batch")},) if batch else None
        torch.onnx.export(model, (image,), path, input_names=["pixel_values"], output_names=names, opset_version=18, dynamo=True,
                          external_data=False, dynamic_shapes=shapes, verbose=False)
    else:
        axes = {name: {0: "batch"} for name in ["pixel_values", *names]} if batch else None
        torch.onnx.export(model, (image,), path, input_names=["pixel_values"], output_names=names, opset_version=17, dynamo=False,
                          dynamic_axes=axes)


def normalise(rows):
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def read(graph, outputs):
    """Class tokens [G, D] and patch tokens [G, N, D], by the manifest."""
    source = graph["patches"]
    value = outputs.get(source.get("output"))
    kind, dim = source["from"], graph["dim"]
    patches = {
        "tokens": lambda: value[:, source["skip"]:],
        "map": lambda: value.reshape(len(value), dim, -1).transpose(0, 2, 1),
        "map_last": lambda: value.reshape(len(value), -1, dim),
        "cls": lambda: None,
    }[kind]()
    source = graph["cls"]
    value = outputs.get(source.get("output"))
    cls = {
        "vector": lambda: value.reshape(len(value), dim),
        "first": lambda: value[:, 0],
        "mean": lambda: patches.mean(axis=1),
    }[source["from"]]()
    return cls, cls[:, None] if patches is None else patches


def difference(graph, path, golden):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    rows = [session.run(names, {graph["input"]: golden["input"][i:i + 1]}) for i in range(len(golden["cls"]))]
    outputs = {name: np.concatenate([row[i] for row in rows]) for i, name in enumerate(names)}
    cls, patches = read(graph, outputs)
    pairs = [(cls, golden["cls"]), (patches.mean(axis=1), golden["patch_mean"])]
    return max(float(np.abs(normalise(found) - normalise(expected)).max()) for found, expected in pairs)


def ssl_edge(program, *arguments):
    return subprocess.run([program, *arguments, "--json"], capture_output=True, text=True)


def check(program, folder, name, dynamo, batch):
    make, size, names, expected = CASES[name]
    torch.manual_seed(1)
    path = os.path.join(folder, f"{name} {'dynamo' if dynamo else 'traced'} {'batch' if batch else 'one'}.onnx".replace(" ", "_"))
    export(shake(make()), size, names, path, dynamo, batch)
    bundle = path.replace(".onnx", ".sslb")
    done = ssl_edge(program, "import", path, "--out", bundle)
    result = {"case": name, "exporter": "dynamo" if dynamo else "traced", "batch": "any" if batch else 1}
    if done.returncode:
        print(json.dumps({**result, "error": done.stderr.strip()}), flush=True)
        return False
    with zipfile.ZipFile(bundle) as file:
        manifest = json.loads(file.read("manifest.json"))
        golden = load(file.read("golden.safetensors"))
    graph = manifest["graph"]
    found = (graph["cls"]["from"], graph["patches"]["from"], graph["patches"].get("skip"), graph["grid"])
    off = difference(graph, path, golden)
    report = ssl_edge(program, "report", "--bundle", bundle, "--frames", "1")
    passed = off <= TOLERANCE and found == expected and report.returncode == 0
    print(json.dumps({**result, "difference": off, "mapping": found, "passed": passed, "stderr": report.stderr.strip()}), flush=True)
    return passed


def refused(program, folder):
    """Graphs that a user may well have, and what is said of them."""
    path = os.path.join(folder, "refused.onnx")
    out = os.path.join(folder, "refused.sslb")
    model = shake(Features(cnn("resnet18")))
    passed = True

    def must_fail(what, word):
        nonlocal passed
        done = ssl_edge(program, "import", path, "--out", out)
        found = done.returncode == 1 and word in done.stderr and not os.path.exists(out)
        print(json.dumps({"case": what, "passed": found, "stderr": done.stderr.strip()}), flush=True)
        passed = passed and found

    export(model, 224, ["features"], path, dynamo=False, batch=False)
    whole = open(path, "rb").read()
    proto = onnx.load(path)
    onnx.save(proto, path, save_as_external_data=True, location="weights.bin")
    must_fail("weights in another file", "another file")
    open(path, "wb").write(whole[:len(whole) // 2])
    must_fail("cut short", "cut short")
    axes = {"pixel_values": {0: "batch", 2: "height", 3: "width"}}
    torch.onnx.export(model, (torch.randn(1, 3, 224, 224),), path, input_names=["pixel_values"], output_names=["features"], opset_version=17,
                      dynamo=False, dynamic_axes=axes)
    must_fail("any size", "--size")
    proto = onnx.load_from_string(whole)
    proto.graph.node[0].domain = "com.example"
    proto.graph.node[0].op_type = "Special"
    open(path, "wb").write(proto.SerializeToString())
    must_fail("an operator of somebody's", "com.example.Special")
    return passed


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--ssl-edge", required=True)
    p.add_argument("--keep", help="folder for graphs and bundles; a temporary one by default")
    p.add_argument("cases", nargs="*", metavar="CASE", help=", ".join(CASES))
    a = p.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = a.keep or scratch
        os.makedirs(folder, exist_ok=True)
        results = [check(a.ssl_edge, folder, name, dynamo, batch)
                   for name in a.cases or CASES for dynamo, batch in ((False, False), (False, True), (True, True))]
        if not a.cases:
            results.append(refused(a.ssl_edge, folder))
    sys.exit(0 if all(results) else 1)


main()
