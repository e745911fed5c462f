//! C and C++ programs over libssl_edge, shared and static: what works, what must be refused, what must not happen.

mod common;

use common::{
    Function, Linkage, bundle, compile, functions, int8_bundle, package, program, read, succeed,
};
use sdk::encoder::{Bundle, Encoder, Limit, Options, SecretKey};
use sdk::feature::features_of_copies;
use sdk::job::{DeviceInput, DeviceOptions, FitOptions, IgnoreMask, Job, migrate};
use sdk::vision::{Image, Pixels};
use std::fmt::Write;

#[test]
fn the_examples_teach_inspect_save_and_load() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let bundle = bundle(folder.path(), 0);
    let mut outputs = Vec::new();
    for source in ["examples/inspect.c", "examples/inspect.cpp"] {
        for linkage in Linkage::ALL {
            let path = compile(&package().join(source), linkage, folder.path());
            outputs.push(succeed(
                program(&path)
                    .arg(&bundle)
                    .arg(folder.path().join("station.sslj")),
            ));
        }
    }
    let lines: Vec<&str> = outputs[0].lines().collect();
    assert_eq!(lines.len(), 7, "{lines:?}");
    assert_eq!(lines[0], "encoder: vit_n16, 192 values");
    assert_eq!(
        lines[1],
        "taught: 10 samples, 2 classes, leave-one-out accuracy 1.00"
    );
    assert!(lines[2].starts_with("verdict: good, score "), "{lines:?}");
    assert!(lines[3].starts_with("verdict: bad, score "), "{lines:?}");
    assert_eq!(
        lines[2..4],
        lines[5..7],
        "the loaded job judges as the saved one"
    );
    assert!(
        outputs.iter().all(|output| *output == outputs[0]),
        "the examples print different lines: {outputs:#?}"
    );
}

#[test]
fn the_heat_example_shows_the_spot_and_writes_the_head() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let bundle = bundle(folder.path(), 0);
    let [job, head] = ["station.sslj", "head.bin"].map(|name| folder.path().join(name));
    for linkage in Linkage::ALL {
        let path = compile(&package().join("examples/heat.c"), linkage, folder.path());
        let output = succeed(program(&path).arg(&bundle).arg(&job).arg(&head));
        let lines: Vec<&str> = output.lines().collect();
        assert_eq!(lines.len(), 2 * 11 + 1, "{output}");
        assert!(lines[0].starts_with("verdict: good, "), "{output}");
        assert_eq!(
            lines[11], "verdict: spot, surface unlike good parts",
            "{output}"
        );
        // The spot's centre is at 120 of 160 columns and 60 of 120 rows.
        assert_eq!(&lines[12 + 5][15..16], "#", "{output}");
        assert_eq!(&lines[12 + 1][..8], "........", "{output}");
        assert!(lines[22].ends_with("12 of 12 samples get the same class in integers"));
        let options = DeviceOptions {
            job_number: 7,
            max_bytes: None,
            input: DeviceInput::Fitted,
        };
        let expected = Job::load(&job)
            .expect("the job loads")
            .device_head(&options);
        let written = std::fs::read(&head).expect("the head was written");
        assert_eq!(written, expected.expect("a head").image);
    }
}

#[test]
fn the_deadline_example_rejects_what_is_late_and_stops() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let path = compile(
        &package().join("examples/deadline.c"),
        Linkage::Shared,
        folder.path(),
    );
    let output = succeed(program(&path).arg(bundle(folder.path(), 0)));
    let lines = [
        "a part with a minute: OK",
        "a part with a microsecond: no verdict in time",
        "the same with no limit: OK",
        "the line was stopped",
        "a part after the stop: OK",
    ];
    assert_eq!(output.lines().collect::<Vec<_>>(), lines);
}

#[test]
fn an_example_without_its_bundle_says_what_to_do() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    for source in ["examples/inspect.c", "examples/inspect.cpp"] {
        let path = compile(&package().join(source), Linkage::Shared, folder.path());
        let output = program(&path)
            .args(["missing.sslb", "station.sslj"])
            .output()
            .expect("the example starts");
        assert_eq!(output.status.code(), Some(1));
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(
            text.contains("missing.sslb") && text.contains("check the path"),
            "{text}"
        );
    }
}

#[test]
fn misuse_is_refused_and_leaves_outputs_alone() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let bundles = [bundle(folder.path(), 0), bundle(folder.path(), 1)];
    let bytes = std::fs::read(&bundles[0]).expect("the bundle can be read");
    std::fs::write(folder.path().join("cut.sslb"), &bytes[..bytes.len() / 2])
        .expect("a file can be written");
    std::fs::write(folder.path().join("text.sslj"), "no job").expect("a file can be written");
    let key = SecretKey::from_seed(&[5; 32]);
    let public = folder.path().join("other.pub.pem");
    key.public().write(&public).expect("a key can be written");
    let signed = Bundle::open(&bundles[0])
        .expect("the bundle opens")
        .signed(&key)
        .expect("the bundle is whole");
    std::fs::write(folder.path().join("signed.sslb"), signed).expect("a file can be written");
    for linkage in Linkage::ALL {
        let path = compile(&package().join("tests/c/misuse.c"), linkage, folder.path());
        assert_eq!(
            succeed(
                program(&path)
                    .args(&bundles)
                    .arg(folder.path())
                    .env("SSL_EDGE_PLUGIN_PATH", folder.path().join("text.sslj"))
            ),
            "ok\n"
        );
    }
}

#[test]
fn an_encoder_runs_in_the_precision_that_was_asked_for() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let bundles = [bundle(folder.path(), 0), int8_bundle(folder.path(), 0)];
    let path = compile(
        &package().join("tests/c/precision.c"),
        Linkage::Shared,
        folder.path(),
    );
    assert_eq!(succeed(program(&path).args(&bundles)), "ok\n");
}

#[test]
fn heat_and_device_heads_are_given_and_misuse_is_refused() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let bundles = [bundle(folder.path(), 0), bundle(folder.path(), 1)];
    let path = compile(
        &package().join("tests/c/heat.c"),
        Linkage::Shared,
        folder.path(),
    );
    assert_eq!(succeed(program(&path).args(&bundles)), "ok\n");
}

#[test]
fn calls_are_given_up_by_a_time_or_from_another_thread() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let path = compile(
        &package().join("tests/c/limits.c"),
        Linkage::Shared,
        folder.path(),
    );
    let bundle = bundle(folder.path(), 0);
    for engine in ["1", "2"] {
        assert_eq!(succeed(program(&path).arg(&bundle).arg(engine)), "ok\n");
    }
}

#[test]
fn masks_and_copies_are_those_of_the_program() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let (bundle, job) = (bundle(folder.path(), 0), folder.path().join("station.sslj"));
    let path = compile(
        &package().join("tests/c/teach.c"),
        Linkage::Shared,
        folder.path(),
    );
    assert_eq!(succeed(program(&path).arg(&bundle).arg(&job)), "ok\n");

    let job = Job::load(&job).expect("the job loads");
    let covered = |at: usize| {
        let (x, y) = (at % 36, at / 36);
        (21..33).contains(&x) && (3..15).contains(&y)
    };
    let ignored: Vec<bool> = (0..36 * 24).map(covered).collect();
    let mask = IgnoreMask::new(&ignored, [24, 36]).expect("a mask");
    assert_eq!(job.ignore(), Some(&mask));
    // The first of the samples that are left, as the program drew it.
    let mut random = 5u32;
    let pixels = (0..36 * 24u32).map(|at| {
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (90 + at % 36 / 2 + at / 36 / 4 + (random >> 28)) as u8
    });
    let image = Image::new(36, 24, Pixels::Gray8(pixels.collect())).expect("an image");
    let options = Options {
        threads: 1,
        ..Options::default()
    };
    let encoder = Encoder::open(&bundle, &options).expect("the bundle opens");
    let copies = features_of_copies(&encoder, &image, job.layout().parts());
    assert_eq!(job.samples()[0].copies, copies.expect("features"));
}

#[test]
fn a_job_with_pictures_moves_to_another_encoder() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let bundles = [bundle(folder.path(), 0), bundle(folder.path(), 1)];
    let jobs = ["old.sslj", "new.sslj"].map(|name| folder.path().join(name));
    let path = compile(
        &package().join("tests/c/migrate.c"),
        Linkage::Shared,
        folder.path(),
    );
    let output = succeed(program(&path).args(&bundles).args(&jobs));
    assert_eq!(output, "ok\n");

    // What the program saved is what the façade makes of the old job.
    let options = Options {
        threads: 1,
        ..Options::default()
    };
    let encoder = Encoder::open(&bundles[1], &options).expect("the bundle opens");
    let [old, new] = jobs.map(|path| Job::load(&path).expect("the job loads"));
    let moved = migrate(&encoder, &old, &FitOptions::default(), &Limit::default());
    let expected = moved.expect("it moves").migration.job;
    assert_eq!(new.encoder(), expected.encoder());
    assert_eq!(new.samples(), expected.samples());
    assert!(new.samples().iter().all(|sample| sample.copies.len() == 9));
}

#[test]
fn golden_parts_are_learned_compared_and_kept() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let bundles = [bundle(folder.path(), 0), bundle(folder.path(), 1)];
    let path = compile(
        &package().join("tests/c/golden.c"),
        Linkage::Shared,
        folder.path(),
    );
    let output = succeed(program(&path).args(&bundles).arg(folder.path()));
    assert_eq!(output, "ok\n");
}

#[test]
fn a_line_is_watched() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let bundles = [bundle(folder.path(), 0), bundle(folder.path(), 1)];
    let path = compile(
        &package().join("tests/c/monitor.c"),
        Linkage::Shared,
        folder.path(),
    );
    assert_eq!(succeed(program(&path).args(&bundles)), "ok\n");
}

#[test]
fn threads_may_share_an_encoder_and_a_job() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let bundle = bundle(folder.path(), 0);
    let path = compile(
        &package().join("tests/c/threads.c"),
        Linkage::Shared,
        folder.path(),
    );
    for engine in ["1", "2"] {
        assert_eq!(succeed(program(&path).arg(&bundle).arg(engine)), "ok\n");
    }
}

#[test]
fn the_cpp_wrapper_owns_and_reports() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let path = compile(
        &package().join("tests/c/wrapper.cpp"),
        Linkage::Shared,
        folder.path(),
    );
    let output = succeed(
        program(&path)
            .arg(bundle(folder.path(), 0))
            .arg(folder.path().join("job.sslj")),
    );
    assert_eq!(output, "ok\n");
}

#[test]
fn every_pointer_of_every_function_may_be_null() {
    let functions = functions(&read("include/ssl_edge.h"));
    let folder = tempfile::tempdir().expect("a folder can be made");
    let (text, n_calls) = null_program(&functions);
    assert!(n_calls > 50, "only {n_calls} pointers were found");
    let source = folder.path().join("null.c");
    std::fs::write(&source, text).expect("a source can be written");
    let path = compile(&source, Linkage::Shared, folder.path());
    let output = succeed(
        program(&path)
            .arg(bundle(folder.path(), 0))
            .arg(folder.path().join("null.sslj")),
    );
    assert_eq!(output, format!("{n_calls} calls\n"));
}

/// A C program that calls each function once for each of its pointers, that one NULL and all others valid; and the number of calls.
fn null_program(functions: &[Function]) -> (String, usize) {
    let mut calls = String::new();
    let mut n_calls = 0;
    for function in functions
        .iter()
        .filter(|function| !function.parameters.is_empty())
    {
        for (null_idx, (kind, null_name)) in function.parameters.iter().enumerate() {
            if !kind.ends_with('*') {
                continue;
            }
            let arguments: Vec<String> = (0..function.parameters.len())
                .map(|idx| {
                    if idx == null_idx {
                        "NULL".into()
                    } else {
                        valid_argument(function, idx)
                    }
                })
                .collect();
            let call = format!("{}({})", function.name, arguments.join(", "));
            if function.returns == "void" {
                writeln!(calls, "    {call}; ++n_calls;")
            } else {
                writeln!(
                    calls,
                    "    expect_null({call}, \"{}\", \"{null_name}\");",
                    function.name
                )
            }
            .expect("a string takes text");
            n_calls += 1;
        }
    }
    (
        format!(
            "{}{calls}{}",
            include_str!("c/null_head.c"),
            include_str!("c/null_tail.c")
        ),
        n_calls,
    )
}

fn valid_argument(function: &Function, idx: usize) -> String {
    let (kind, name) = &function.parameters[idx];
    let first_type = function.parameters[0].0.trim_end_matches(" *");
    let text = match (kind.as_str(), name.as_str()) {
        (_, "struct_size") => return format!("sizeof({first_type})"),
        ("const ssl_edge_encoder *" | "ssl_edge_encoder *", _) => "encoder",
        ("const ssl_edge_job *" | "ssl_edge_job *", _) => "job",
        ("ssl_edge_encoder **", _) => "&new_encoder",
        ("ssl_edge_job **", _) => "&new_job",
        ("const ssl_edge_encoder_options *" | "ssl_edge_encoder_options *", _) => "&options",
        ("ssl_edge_encoder_info *", _) => "&info",
        ("const ssl_edge_frame *" | "ssl_edge_frame *", _) => "&frame",
        ("const ssl_edge_cancel *" | "ssl_edge_cancel *", _) => "cancel",
        ("ssl_edge_cancel **", _) => "&new_cancel",
        ("const ssl_edge_call_options *" | "ssl_edge_call_options *", _) => "&call_options",
        ("const ssl_edge_teach_options *" | "ssl_edge_teach_options *", _) => "&teach_options",
        ("ssl_edge_verdict *", _) => "&verdict",
        ("ssl_edge_fit_report *", _) => "&report",
        ("ssl_edge_migration *", _) => "&migration",
        ("const ssl_edge_fit_options *" | "ssl_edge_fit_options *", _) => "&fit_options",
        ("const ssl_edge_heat_options *" | "ssl_edge_heat_options *", _) => "&heat_options",
        ("const ssl_edge_device_options *" | "ssl_edge_device_options *", _) => "&device_options",
        ("ssl_edge_device_report *", _) => "&device_report",
        ("uint8_t *", _) => "bytes",
        ("const ssl_edge_golden *" | "ssl_edge_golden *", _) => "golden",
        ("ssl_edge_golden **", _) => "&new_golden",
        ("const ssl_edge_golden_options *" | "ssl_edge_golden_options *", _) => "&golden_options",
        ("ssl_edge_golden_info *", _) => "&golden_info",
        ("ssl_edge_golden_verdict *", _) => "&golden_verdict",
        ("ssl_edge_monitor *", _) => "monitor",
        ("ssl_edge_monitor **", _) => "&new_monitor",
        ("const ssl_edge_monitor_options *" | "ssl_edge_monitor_options *", _) => {
            "&monitor_options"
        }
        ("ssl_edge_drift *", _) => "&drift",
        ("const ssl_edge_frame *const *", _) => "frames",
        ("size_t", "count") => "5",
        ("const char *", "path") => "path",
        ("const char *", "name") => "\"another class\"",
        ("const char *", "source") => "\"\"",
        ("char *", _) => "name",
        ("float *" | "const float *", _) => "embedding",
        ("size_t", "capacity" | "length") => "dim",
        ("size_t *", _) => "&size",
        ("uint32_t *", _) => "&number",
        ("uint64_t *", _) => "&sample_id",
        ("size_t", "index") => "0",
        ("uint32_t", "class_id" | "into") => "class_id",
        ("uint32_t", "good" | "surface") => "1",
        ("double", "cost") => "1.0",
        ("int64_t", "unix_time") => "0",
        ("uint64_t", "sample_id") => "sample_id",
        ("uint64_t", "timeout_us") => "UINT64_MAX",
        _ => panic!(
            "{}: say here what a valid `{kind} {name}` is",
            function.name
        ),
    };
    text.to_owned()
}
