//! Engine `cuda` where its plug-in is missing, is none, refuses, or computes something else. The plug-ins are made by the C compiler.
#![cfg(all(unix, feature = "train"))]

use std::path::{Path, PathBuf};
use std::process::Command;

use ssl_edge::encoder::{
    Encoder, EngineKind, Options, Place, PluginError, Pooling, Processor, Products, Refusal,
    RuntimeError, inspect_plugin,
};
use ssl_edge::export::random_bundle;

/// A plug-in for one GPU whose tokens are all 1. `open` gives `STATUS` with `REASON`.
const PLUGIN: &str = r#"
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct text { unsigned char *data; size_t capacity, len; };
struct model {
    size_t struct_size; const void *tensors; size_t n_tensors;
    uint32_t dim, depth, heads, patch, registers, hidden, height, width, gelu; float eps;
};
struct device { size_t struct_size; uint64_t memory; uint32_t major, minor; };
struct options { size_t struct_size; uint32_t device, precision, images, reserved; };
struct api {
    size_t struct_size; uint32_t version, reserved;
    uint32_t (*about)(struct text *);
    uint32_t (*device_count)(uint32_t *, struct text *);
    uint32_t (*device)(uint32_t, struct device *, struct text *, struct text *);
    uint32_t (*open)(const struct model *, const struct options *, void **, struct text *);
    uint32_t (*run)(void *, const float *, size_t, float *, float *, struct text *);
    uint32_t (*memory)(const void *, uint64_t *);
    void (*close)(void *);
};

static uint32_t say(struct text *to, const char *words, uint32_t status) {
    if (to) memcpy(to->data, words, to->len = strlen(words));
    return status;
}
static uint32_t about(struct text *to) { return say(to, "ones", 0); }
static uint32_t device_count(uint32_t *n, struct text *error) { return *n = 1, 0; }
static uint32_t device(uint32_t i, struct device *d, struct text *name, struct text *error) {
    d->memory = 1 << 30, d->major = 8, d->minor = 7;
    return say(name, "chalk", 0);
}
static size_t dim, patches;
static uint32_t open_(const struct model *m, const struct options *o, void **encoder, struct text *error) {
    if (STATUS) return say(error, REASON, STATUS);
    if (o->device || o->precision != 2 || !m->n_tensors) return say(error, "not what was asked for", 1);
    dim = m->dim, patches = m->height / m->patch * (m->width / m->patch);
    return *encoder = &dim, 0;
}
static uint32_t run(void *e, const float *images, size_t batch, float *cls, float *tokens, struct text *error) {
    for (size_t i = 0; i < batch * dim; i++) cls[i] = 1.0f;
    for (size_t i = 0; i < batch * dim * patches; i++) tokens[i] = 1.0f;
    return 0;
}
static uint32_t memory(const void *e, uint64_t *bytes) { return *bytes = 1, 0; }
static void close_(void *e) {}

void ssl_edge_engine_versions(uint32_t *oldest, uint32_t *newest) { *oldest = *newest = 1; }
const struct api *ssl_edge_engine_get_api(uint32_t version) {
    static const struct api table = {sizeof table, 1, 0, about, device_count, device, open_, run, memory, close_};
    return version == 1 ? &table : 0;
}
"#;

fn bundle(folder: &Path) -> PathBuf {
    let bundle = folder.join("random.sslb");
    random_bundle("vit_n16", 0, 32, Pooling::Cls, &bundle).unwrap();
    bundle
}

/// A plug-in of its own name, as each is loaded once in a process.
fn plugin(folder: &Path, name: &str, status: u32, reason: &str) -> PathBuf {
    let (source, library) = (folder.join("plugin.c"), folder.join(name));
    std::fs::write(&source, PLUGIN).unwrap();
    let done = Command::new("cc")
        .args(["-shared", "-fPIC", "-w"])
        .arg(format!("-DSTATUS={status}"))
        .arg(format!("-DREASON=\"{reason}\""))
        .arg("-o")
        .args([&library, &source])
        .status()
        .expect("a C compiler is installed");
    assert!(done.success());
    library
}

fn open(bundle: &Path, plugin: &Path) -> RuntimeError {
    let options = Options {
        engine: EngineKind::Cuda,
        threads: 1,
        plugin: Some(plugin.to_owned()),
        ..Options::default()
    };
    let opened = Encoder::open(bundle, &options);
    opened.map(|_| ()).unwrap_err()
}

#[test]
fn a_plug_in_that_is_not_there_is_an_error_and_no_other_engine_is_taken() {
    let folder = tempfile::tempdir().unwrap();
    let bundle = bundle(folder.path());
    let error = open(&bundle, folder.path());
    let RuntimeError::Plugin {
        source: PluginError::NotFound { looked, .. },
        ..
    } = &error
    else {
        panic!("{error}")
    };
    assert!(looked[0].starts_with(folder.path()), "{looked:?}");
    let text = error.to_string();
    assert!(
        text.contains("engine cuda") && text.contains("SSL_EDGE_PLUGIN_PATH"),
        "{text}"
    );

    let none = folder.path().join("none.so");
    std::fs::write(&none, "no library").unwrap();
    let error = open(&bundle, &none);
    assert!(
        error.to_string().contains("none.so cannot be loaded"),
        "{error}"
    );
}

#[test]
fn what_the_plug_in_refuses_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let bundle = bundle(folder.path());
    for (status, refusal) in [
        (2, Refusal::NoDriver),
        (3, Refusal::OldDriver),
        (4, Refusal::NoDevice),
        (5, Refusal::OldDevice),
        (7, Refusal::OutOfMemory),
    ] {
        let reason = format!("because of {status}");
        let library = plugin(
            folder.path(),
            &format!("refuses{status}.so"),
            status,
            &reason,
        );
        let error = open(&bundle, &library);
        let RuntimeError::Plugin {
            source: PluginError::Refused { refusal: found, .. },
            ..
        } = &error
        else {
            panic!("{error}")
        };
        assert_eq!(*found, refusal);
        let text = error.to_string();
        assert!(
            text.contains("engine cuda") && text.contains(&reason),
            "{text}"
        );
    }
}

#[test]
fn tokens_that_are_not_the_encoders_fail_the_self_test() {
    let folder = tempfile::tempdir().unwrap();
    let bundle = bundle(folder.path());
    let library = plugin(folder.path(), "ones.so", 0, "");
    let error = open(&bundle, &library);
    let RuntimeError::SelfTest { tolerance, .. } = error else {
        panic!("{error}")
    };
    // f16
    assert_eq!(tolerance, 0.005);

    let report = inspect_plugin(EngineKind::Cuda, Some(&library)).unwrap();
    assert_eq!((report.path, report.about.as_str()), (library, "ones"));
    let devices = report.devices.unwrap();
    assert_eq!(
        (devices[0].name.as_str(), devices[0].version),
        ("chalk", [8, 7])
    );
    assert!(inspect_plugin(EngineKind::Native, None).is_err());
}

#[test]
fn places_that_the_engine_does_not_run_on_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let bundle = bundle(folder.path());
    let options = Options {
        engine: EngineKind::Cuda,
        plugin: Some(folder.path().to_owned()),
        ..Options::default()
    };
    for (processor, precision) in [
        (Processor::Cpu, Products::F16),
        (Processor::Cuda(0), Products::Bf16),
    ] {
        let place = Place {
            processor,
            precision,
        };
        let opened = Encoder::open_on(&bundle, &options, place);
        let error = opened.map(|_| ()).unwrap_err();
        assert!(matches!(error, RuntimeError::Device { .. }), "{error}");
    }
}
