//! The rule on outputs of encoders that people export.

use super::*;

fn vector(output: &str) -> ClsSource {
    let output = output.to_owned();
    ClsSource::Vector { output }
}

fn first(output: &str) -> ClsSource {
    let output = output.to_owned();
    ClsSource::First { output }
}

fn tokens(output: &str, skip: usize) -> PatchSource {
    let output = output.to_owned();
    PatchSource::Tokens { output, skip }
}

fn map(output: &str) -> PatchSource {
    let output = output.to_owned();
    PatchSource::Map { output }
}

fn wired(outputs: &[(&str, &[usize])], size: [usize; 2]) -> Result<Wired, GraphError> {
    chosen(outputs, size, &GraphChoice::default())
}

fn chosen(
    outputs: &[(&str, &[usize])],
    size: [usize; 2],
    choice: &GraphChoice,
) -> Result<Wired, GraphError> {
    let outputs: Vec<(&str, Vec<usize>)> = outputs
        .iter()
        .map(|(name, shape)| (*name, shape.to_vec()))
        .collect();
    wire(&outputs, size, choice)
}

#[test]
fn encoders_that_people_export_are_understood() {
    type Case = (
        &'static [(&'static str, &'static [usize])],
        [usize; 2],
        (ClsSource, PatchSource, usize, [usize; 2]),
    );
    let cases: [Case; 9] = [
        // timm's forward_features of a ViT-S/16, and of one with four registers and patches of 14.
        (
            &[("x", &[1, 197, 384])],
            [224, 224],
            (first("x"), tokens("x", 1), 384, [14, 14]),
        ),
        (
            &[("x", &[1, 1374, 384])],
            [518, 518],
            (first("x"), tokens("x", 5), 384, [37, 37]),
        ),
        // DeiT's class and distillation tokens.
        (
            &[("x", &[1, 198, 192])],
            [224, 224],
            (first("x"), tokens("x", 2), 192, [14, 14]),
        ),
        // transformers' Dinov2Model: the pooled output is the first token again.
        (
            &[
                ("last_hidden_state", &[1, 257, 384]),
                ("pooler_output", &[1, 384]),
            ],
            [224, 224],
            (
                first("last_hidden_state"),
                tokens("last_hidden_state", 1),
                384,
                [16, 16],
            ),
        ),
        // DINOv2's own names, class token apart.
        (
            &[
                ("x_norm_patchtokens", &[1, 256, 384]),
                ("x_norm_clstoken", &[1, 384]),
            ],
            [224, 224],
            (
                vector("x_norm_clstoken"),
                tokens("x_norm_patchtokens", 0),
                384,
                [16, 16],
            ),
        ),
        // A ResNet's last feature map, alone and with its pooled vector; an image that is no square.
        (
            &[("f", &[1, 512, 7, 7])],
            [224, 224],
            (ClsSource::Mean, map("f"), 512, [7, 7]),
        ),
        (
            &[("f", &[1, 512, 7, 10]), ("v", &[1, 512])],
            [224, 320],
            (vector("v"), map("f"), 512, [7, 10]),
        ),
        // A Swin's map with channels last.
        (
            &[("f", &[1, 7, 7, 768])],
            [224, 224],
            (
                ClsSource::Mean,
                PatchSource::MapLast {
                    output: "f".to_owned(),
                },
                768,
                [7, 7],
            ),
        ),
        // Pooled only, as it comes from global average pooling.
        (
            &[("v", &[1, 512, 1, 1])],
            [224, 224],
            (vector("v"), PatchSource::Cls, 512, [1, 1]),
        ),
    ];
    for (outputs, size, expected) in cases {
        let found = wired(outputs, size).unwrap();
        assert_eq!(
            (found.cls, found.patches, found.dim, found.grid),
            expected,
            "{outputs:?}"
        );
    }
}

#[test]
fn what_was_decided_is_told() {
    let notes = |outputs: &[(&str, &[usize])]| wired(outputs, [224, 224]).unwrap().notes;
    assert!(notes(&[("x", &[1, 197, 384])]).is_empty());
    assert!(notes(&[("x", &[1, 201, 384])])[0].contains("registers"));
    assert!(notes(&[("f", &[1, 512, 7, 7])])[0].contains("no class token"));
    assert!(notes(&[("v", &[1, 512])])[0].contains("no patch tokens"));
    let logits = notes(&[("x", &[1, 197, 384]), ("logits", &[1, 1000])]);
    assert_eq!(logits, ["output logits is not used"]);
}

#[test]
fn the_callers_word_goes_first() {
    let outputs: [(&str, &[usize]); 4] = [
        ("stage3", &[1, 256, 14, 14]),
        ("stage4", &[1, 512, 7, 7]),
        ("hidden", &[1, 197, 512]),
        ("pooled", &[1, 512]),
    ];
    let choice = |cls: Option<&str>, patches: Option<&str>, prefix| GraphChoice {
        cls: cls.map(str::to_owned),
        patches: patches.map(str::to_owned),
        prefix,
    };
    let found = chosen(
        &outputs,
        [224, 224],
        &choice(Some("pooled"), Some("stage4"), None),
    );
    let found = found.unwrap();
    assert_eq!(
        (found.cls, found.patches),
        (vector("pooled"), map("stage4"))
    );
    // 197 tokens could also be 148 of a prefix and 7 x 7 patches.
    let found = chosen(
        &outputs,
        [224, 224],
        &choice(None, Some("hidden"), Some(148)),
    );
    assert_eq!(found.unwrap().grid, [7, 7]);

    for (choice, expected) in [
        (
            choice(None, None, None),
            "3 of them could be the patch tokens",
        ),
        (choice(None, Some("absent"), None), "none is called absent"),
        (
            choice(None, Some("pooled"), None),
            "pooled has no patch tokens",
        ),
        (
            choice(None, Some("hidden"), Some(3)),
            "hidden has no patch tokens",
        ),
        (
            choice(Some("stage4"), Some("stage4"), None),
            "no class token",
        ),
        (
            choice(Some("pooled"), Some("stage3"), None),
            "512 values and a patch token 256",
        ),
    ] {
        let message = chosen(&outputs, [224, 224], &choice)
            .unwrap_err()
            .to_string();
        assert!(
            message.contains(expected) && message.contains("stage3 [1, 256, 14, 14]"),
            "{message}"
        );
    }
}

#[test]
fn outputs_that_are_no_tokens_are_refused() {
    for outputs in [
        &[] as &[(&str, &[usize])],
        &[("x", &[1, 250, 384])],
        &[("x", &[2, 197, 384])],
        &[("x", &[1, 3, 100, 9])],
        &[("x", &[1, 0])],
        &[("x", &[7])],
    ] {
        let message = wired(outputs, [224, 224]).unwrap_err().to_string();
        assert!(message.contains("--outputs"), "{outputs:?}: {message}");
    }
    let two: [(&str, &[usize]); 2] = [("a", &[1, 8]), ("b", &[1, 8])];
    let message = wired(&two, [224, 224]).unwrap_err().to_string();
    assert!(
        message.contains("2 of them could be the class token"),
        "{message}"
    );
}
