use std::fs;

use ssl_edge_train::{MethodName, Request, TrainError};

use crate::common::Workbench;

fn request(bench: &Workbench, set: &[&str]) -> Request {
    Request {
        method: MethodName::Dino,
        arch: "vit_n16".into(),
        data: vec![bench.images()],
        config: None,
        set: set.iter().map(ToString::to_string).collect(),
        probe: None,
    }
}

#[test]
fn overrides_lie_over_the_file_and_the_file_over_the_preset() {
    let bench = Workbench::new(2);
    let file = bench.path("recipe.toml");
    let text = "seed = 9\n[schedule]\nimages = 6400\nbatch = 32\n[dino.head]\nout_dim = 512\n";
    fs::write(&file, text).unwrap();
    let set = [
        "schedule.batch=16",
        "dino.crops.globals.1.solarize=0",
        "optimizer.clip={ kind = \"global\", max = 1.5 }",
        "image_size=96",
        "local_size = 48",
        "encoder.gelu=erf",
    ];
    let mut request = request(&bench, &set);
    request.config = Some(file);
    request.probe = Some(bench.images());
    let config = request.resolve().unwrap();
    assert_eq!(
        (config.seed, config.schedule.images, config.schedule.batch),
        (9, 6400, 16)
    );
    let dino = config.dino().unwrap();
    assert_eq!(dino.head.out_dim, 512);
    assert_eq!(dino.head.hidden, 2048);
    assert_eq!(dino.crops.globals[1].solarize, 0.0);
    assert_eq!(
        (dino.crops.globals[0].height, dino.crops.local.width),
        (96, 48)
    );
    assert_eq!(
        (config.encoder.image_size, config.preprocess.width),
        ([96, 96], 96)
    );
    assert_eq!(config.encoder.gelu, ssl_edge_nn::Gelu::Erf);
    assert_eq!(config.optimizer.clip, ssl_edge_nn::optim::Clip::Global(1.5));
    assert_eq!(config.probe.unwrap().folder, bench.images());
    assert_eq!(config.data.folders, [bench.images()]);
}

#[test]
fn a_wrong_override_is_quoted_with_what_is_known() {
    let bench = Workbench::new(2);
    for (set, part) in [
        ("schedule.bach=16", "batch"),
        ("schedule.batch=many", "batch"),
        ("dino.crops.globals.2.solarize=0", "`2`"),
        ("scheduler.batch=1", "`scheduler`"),
        ("nonsense", "key=value"),
        ("image_size=0", "4096"),
        ("mae.mask_ratio=0.5", "`mae`"),
    ] {
        let error = request(&bench, &[set]).resolve().unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, TrainError::Config { .. }), "{text}");
        assert!(text.contains(set) && text.contains(part), "{text}");
    }
}

#[test]
fn settings_that_do_not_fit_each_other_are_refused() {
    let bench = Workbench::new(2);
    for (set, part) in [
        ("image_size=100", "16"),
        ("dino.crops.local.height=40", "16"),
        ("encoder.image_size=[64, 64]", "image_size"),
        ("schedule.images=1", "schedule.images"),
        ("schedule.warmup=2", "warmup"),
        ("optimizer.base_lr=-1", "base_lr"),
        ("dino.teacher_temperature=0", "teacher_temperature"),
        ("dino.drop_path=1", "drop_path"),
        ("dino.head.out_dim=1", "out_dim"),
        ("encoder.heads=5", "heads"),
        ("preprocess.std=[0, 1, 1]", "std"),
        ("method=mae", "--method"),
        ("arch=vit_s16", "--arch"),
        ("checkpoint.keep=0", "keep"),
        ("seed=-1", "seed"),
    ] {
        let text = request(&bench, &[set]).resolve().unwrap_err().to_string();
        assert!(text.contains(part), "{set}: {text}");
    }
}

#[test]
fn a_wrong_file_is_named() {
    let bench = Workbench::new(2);
    let file = bench.path("recipe.toml");
    for text in ["[schedule]\nbach = 16\n", "not toml at all = = ="] {
        fs::write(&file, text).unwrap();
        let mut request = request(&bench, &[]);
        request.config = Some(file.clone());
        let error = request.resolve().unwrap_err().to_string();
        assert!(error.contains("recipe.toml"), "{error}");
    }
    let mut missing = request(&bench, &[]);
    missing.config = Some(bench.path("none.toml"));
    assert!(
        missing
            .resolve()
            .unwrap_err()
            .to_string()
            .contains("none.toml")
    );
    let mut unknown = request(&bench, &[]);
    unknown.arch = "vit_x16".into();
    assert!(
        unknown
            .resolve()
            .unwrap_err()
            .to_string()
            .contains("vit_n16")
    );
    assert!(
        "byol"
            .parse::<MethodName>()
            .unwrap_err()
            .to_string()
            .contains("mae, dino")
    );
}
