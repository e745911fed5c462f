//! What an augmentation may do, with the presets of the papers.

use serde::{Deserialize, Serialize};

/// Largest blur sigma accepted, in output pixels: it bounds the kernel to 61 taps.
pub(crate) const MAX_SIGMA: f32 = 10.0;

/// Random brightness, contrast, saturation and hue, in random order (torchvision `ColorJitter`).
///
/// A factor is drawn from `[max(0, 1 - x), 1 + x]` for the first three, a shift from `[-x, x]` turns for hue.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Jitter {
    /// Probability of any jitter.
    pub p: f32,
    /// Brightness strength.
    pub brightness: f32,
    /// Contrast strength.
    pub contrast: f32,
    /// Saturation strength; without effect on grey images.
    pub saturation: f32,
    /// Hue strength in turns, at most 0.5; without effect on grey images.
    pub hue: f32,
}

/// Gaussian blur.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Blur {
    /// Probability.
    pub p: f32,
    /// Range of the standard deviation in output pixels.
    pub sigma: [f32; 2],
}

/// One random view: random resized crop, flips, quarter turns, jitter, grey, blur, solarise, normalise, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AugmentConfig {
    /// Rows of the view.
    pub height: u32,
    /// Columns of the view.
    pub width: u32,
    /// Range of the crop's area as a fraction of the image's.
    pub scale: [f32; 2],
    /// Range of the crop's width / height, drawn log-uniformly.
    pub aspect: [f32; 2],
    /// Probability of mirroring left and right.
    pub flip_horizontal: f32,
    /// Probability of mirroring top and bottom.
    pub flip_vertical: f32,
    /// Turn by a random multiple of 90 degrees.
    pub rot90: bool,
    /// Colour jitter.
    pub jitter: Jitter,
    /// Probability of dropping colour.
    pub grayscale: f32,
    /// Blur.
    pub blur: Blur,
    /// Probability of solarising: samples from 0.5 up are inverted.
    pub solarize: f32,
}

/// A parameter outside its range.
#[derive(Debug, thiserror::Error, PartialEq)]
#[error("augmentation parameter `{field}` is {value}; it must be {range}")]
pub struct AugmentError {
    /// Parameter.
    pub field: &'static str,
    /// Its value, printed.
    pub value: String,
    /// What is allowed.
    pub range: &'static str,
}

impl AugmentConfig {
    /// Random resized crop and horizontal flip only, as MAE: area 0.2 to 1.
    pub fn mae(size: u32) -> Self {
        Self {
            height: size,
            width: size,
            scale: [0.2, 1.0],
            aspect: [3.0 / 4.0, 4.0 / 3.0],
            flip_horizontal: 0.5,
            flip_vertical: 0.0,
            rot90: false,
            jitter: Jitter {
                p: 0.0,
                brightness: 0.0,
                contrast: 0.0,
                saturation: 0.0,
                hue: 0.0,
            },
            grayscale: 0.0,
            blur: Blur {
                p: 0.0,
                sigma: [0.1, 2.0],
            },
            solarize: 0.0,
        }
    }

    /// First global view of DINO: always blurred. The paper's `scale` is 0.4 to 1.
    pub fn dino_global1(size: u32, scale: [f32; 2]) -> Self {
        Self::dino(size, scale, 1.0, 0.0)
    }

    /// Second global view of DINO: blurred with probability 0.1, solarised with 0.2.
    pub fn dino_global2(size: u32, scale: [f32; 2]) -> Self {
        Self::dino(size, scale, 0.1, 0.2)
    }

    /// Local view of DINO: blurred with probability 0.5. The paper's `scale` is 0.05 to 0.4.
    pub fn dino_local(size: u32, scale: [f32; 2]) -> Self {
        Self::dino(size, scale, 0.5, 0.0)
    }

    fn dino(size: u32, scale: [f32; 2], blur: f32, solarize: f32) -> Self {
        let mae = Self::mae(size);
        Self {
            scale,
            jitter: Jitter {
                p: 0.8,
                brightness: 0.4,
                contrast: 0.4,
                saturation: 0.2,
                hue: 0.1,
            },
            grayscale: 0.2,
            blur: Blur {
                p: blur,
                ..mae.blur
            },
            solarize,
            ..mae
        }
    }

    /// Values of one view: `3 * height * width`.
    pub fn len(&self) -> usize {
        3 * self.height as usize * self.width as usize
    }

    /// True if a size is zero, which [`validate`](Self::validate) rejects.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Checks every parameter, which may come from a file.
    ///
    /// # Errors
    /// [`AugmentError`] naming the first parameter outside its range.
    pub fn validate(&self) -> Result<(), AugmentError> {
        let check = |ok: bool, field, value: String, range| match ok {
            true => Ok(()),
            false => Err(AugmentError {
                field,
                value,
                range,
            }),
        };
        let ordered =
            |[low, high]: [f32; 2], min: f32, max: f32| min <= low && low <= high && high <= max;
        for (field, size) in [("height", self.height), ("width", self.width)] {
            let ok = (1..=4096).contains(&size);
            check(ok, field, size.to_string(), "1..=4096 pixels")?;
        }
        check(
            ordered(self.scale, f32::MIN_POSITIVE, 1.0),
            "scale",
            format!("{:?}", self.scale),
            "[low, high] with 0 < low <= high <= 1",
        )?;
        check(
            ordered(self.aspect, 0.01, 100.0),
            "aspect",
            format!("{:?}", self.aspect),
            "[low, high] with 0.01 <= low <= high <= 100",
        )?;
        for (field, p) in [
            ("flip_horizontal", self.flip_horizontal),
            ("flip_vertical", self.flip_vertical),
            ("jitter.p", self.jitter.p),
            ("grayscale", self.grayscale),
            ("blur.p", self.blur.p),
            ("solarize", self.solarize),
        ] {
            let ok = (0.0..=1.0).contains(&p);
            check(ok, field, p.to_string(), "a probability in 0..=1")?;
        }
        for (field, strength) in [
            ("jitter.brightness", self.jitter.brightness),
            ("jitter.contrast", self.jitter.contrast),
            ("jitter.saturation", self.jitter.saturation),
        ] {
            let ok = (0.0..=10.0).contains(&strength);
            check(ok, field, strength.to_string(), "a strength in 0..=10")?;
        }
        check(
            (0.0..=0.5).contains(&self.jitter.hue),
            "jitter.hue",
            self.jitter.hue.to_string(),
            "a part of a turn in 0..=0.5",
        )?;
        check(
            ordered(self.blur.sigma, 0.01, MAX_SIGMA),
            "blur.sigma",
            format!("{:?}", self.blur.sigma),
            "[low, high] with 0.01 <= low <= high <= 10 output pixels",
        )
    }
}

/// The views of one image in DINO: two global, `n_locals` local.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MultiCrop {
    /// The two global views, seen by teacher and student.
    pub globals: [AugmentConfig; 2],
    /// The local views, seen by the student only.
    pub local: AugmentConfig,
    /// How many local views.
    pub n_locals: usize,
}

impl MultiCrop {
    /// The views of DINO at any size and scale.
    pub fn dino(
        global: u32,
        global_scale: [f32; 2],
        local: u32,
        local_scale: [f32; 2],
        n_locals: usize,
    ) -> Self {
        Self {
            globals: [
                AugmentConfig::dino_global1(global, global_scale),
                AugmentConfig::dino_global2(global, global_scale),
            ],
            local: AugmentConfig::dino_local(local, local_scale),
            n_locals,
        }
    }

    /// The `2 + n_locals` views in order: globals, then locals.
    pub fn views(&self) -> impl Iterator<Item = &AugmentConfig> {
        self.globals
            .iter()
            .chain(std::iter::repeat_n(&self.local, self.n_locals))
    }

    /// [`AugmentConfig::validate`] on every view.
    ///
    /// # Errors
    /// [`AugmentError`] naming the first parameter outside its range.
    pub fn validate(&self) -> Result<(), AugmentError> {
        self.globals
            .iter()
            .chain([&self.local])
            .try_for_each(AugmentConfig::validate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn presets_are_those_of_the_papers() {
        let crops = MultiCrop::dino(224, [0.4, 1.0], 96, [0.05, 0.4], 8);
        assert_eq!(crops.validate(), Ok(()));
        let views: Vec<_> = crops.views().collect();
        assert_eq!(views.len(), 10);
        let summary = |v: &AugmentConfig| (v.height, v.scale, v.blur.p, v.solarize);
        assert_eq!(summary(views[0]), (224, [0.4, 1.0], 1.0, 0.0));
        assert_eq!(summary(views[1]), (224, [0.4, 1.0], 0.1, 0.2));
        assert_eq!(summary(views[9]), (96, [0.05, 0.4], 0.5, 0.0));
        assert!(
            views
                .iter()
                .all(|v| v.grayscale == 0.2 && v.jitter.p == 0.8)
        );
        let mae = AugmentConfig::mae(64);
        assert_eq!(
            (mae.scale, mae.jitter.p, mae.blur.p),
            ([0.2, 1.0], 0.0, 0.0)
        );
        assert_eq!(mae.len(), 3 * 64 * 64);
    }

    #[test]
    fn every_range_is_checked() {
        let reject = |change: fn(&mut AugmentConfig), field: &str| {
            let mut config = AugmentConfig::dino_global1(32, [0.4, 1.0]);
            change(&mut config);
            let error = config.validate().unwrap_err();
            assert_eq!(error.field, field, "{error}");
        };
        reject(|c| c.height = 0, "height");
        reject(|c| c.width = 5000, "width");
        reject(|c| c.scale = [0.5, 0.4], "scale");
        reject(|c| c.scale = [0.0, 0.4], "scale");
        reject(|c| c.aspect = [f32::NAN, 1.0], "aspect");
        reject(|c| c.flip_horizontal = 1.1, "flip_horizontal");
        reject(|c| c.solarize = -0.1, "solarize");
        reject(|c| c.jitter.contrast = f32::NAN, "jitter.contrast");
        reject(|c| c.jitter.hue = 0.6, "jitter.hue");
        reject(|c| c.blur.sigma = [0.1, 11.0], "blur.sigma");
    }

    #[test]
    fn unknown_keys_are_rejected_and_configs_survive_serde() {
        let crops = MultiCrop::dino(32, [0.4, 1.0], 16, [0.05, 0.4], 2);
        let text = serde_json::to_string(&crops).unwrap();
        assert_eq!(serde_json::from_str::<MultiCrop>(&text).unwrap(), crops);
        let typo = text.replace("solarize", "solarise");
        assert!(serde_json::from_str::<MultiCrop>(&typo).is_err());
    }
}
