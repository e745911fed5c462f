//! A model of good parts that knows its own scores on good parts that it has not learned: p-values, thresholds, a fixed scale for heat.

use super::conformal::{Conformal, Threshold, ThresholdSource};
use super::grid::{TokenGrid, TokenMap};
use super::model::{Method, NormalModel, NormalOptions};
use super::pca::TokenStatistics;
use crate::error::AdaptError;
use crate::linalg::Matrix;
use serde::{Deserialize, Serialize};

/// Most groups of which each is left out alone.
const EXACT_GROUPS: usize = 32;
/// Folds of more groups.
const FOLDS: usize = 16;

/// A frame of a good part.
#[derive(Clone, Copy, Debug)]
pub struct GoodFrame<'a> {
    /// Its tokens.
    pub grid: TokenGrid<'a>,
    /// Number of the part that it shows: frames of one part are left out together.
    pub part: usize,
    /// Index of the frame that this one is a turned or mirrored copy of: a copy is learned with its original and never scored.
    pub copy_of: Option<usize>,
}

/// How good frames were scored without having been learned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HoldOut {
    /// Each part once left out, for up to 32 parts.
    Parts,
    /// 16 folds of parts, part `i` in fold `i mod 16`, for more than 32.
    Folds,
    /// There is one part, with several frames: each frame once left out.
    FramesOfOnePart,
    /// There is one frame: each quarter of it scored by a model of the other three, without copies. Its tokens give a scale for heat; the
    /// single score of the frame says little.
    Quarters,
}

/// Allowed rates of false alarms.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rates {
    /// Share of good frames that may be judged bad.
    pub frame: f64,
    /// Share of the tokens of good frames that may show a heat above 1.
    pub token: f64,
}

impl Default for Rates {
    fn default() -> Self {
        Self {
            frame: 0.05,
            token: 0.001,
        }
    }
}

/// What calibration found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NormalReport {
    /// Good frames scored.
    pub frames: usize,
    /// Parts that they show.
    pub parts: usize,
    /// How they were scored.
    pub hold_out: HoldOut,
    /// Smallest rate of false alarms that these frames can promise, `1 / (frames + 1)`.
    pub floor: f64,
    /// Threshold of frame scores.
    pub frame: Threshold,
    /// Threshold of token scores, the heat of 1. Tokens of a frame depend on each other, so its rate is an estimate whatever its source.
    pub token: Threshold,
    /// Bytes of the model.
    pub bytes: usize,
}

impl NormalReport {
    /// What an operator must be told, in sentences; the first one says what the threshold promises.
    pub fn notes(&self) -> Vec<String> {
        let percent = |share: f64| {
            format!("{:.3}", 100.0 * share)
                .trim_end_matches('0')
                .trim_end_matches('.')
                .to_owned()
        };
        let (rate, floor) = (percent(self.frame.rate), percent(self.floor));
        let frames = if self.frames == 1 {
            "1 good frame".to_owned()
        } else {
            format!("{} good frames", self.frames)
        };
        let mut notes = vec![match self.frame.source {
            ThresholdSource::Conformal => {
                format!(
                    "at most {rate} % false alarms on frames like the {frames}; the lowest rate that they can promise is {floor} %"
                )
            }
            ThresholdSource::TailExtrapolation => format!(
                "the lowest false-alarm rate that {frames} can promise is {floor} %; the threshold for {rate} % is extrapolated from the worst third of their scores"
            ),
            ThresholdSource::Prediction => format!(
                "the lowest false-alarm rate that {frames} can promise is {floor} %; the threshold for {rate} % lies above their largest score, extrapolated with scores taken as log-normal: add good parts"
            ),
            ThresholdSource::Maximum => format!(
                "the lowest false-alarm rate that {frames} can promise is {floor} %; the threshold for {rate} % is their largest score: add good parts"
            ),
        }];
        match self.hold_out {
            HoldOut::Quarters => notes.push(
                "only one good frame: scales come from quarters of it scored by the other three; add a second good part".to_owned(),
            ),
            HoldOut::FramesOfOnePart => notes.push(
                "all good frames show one part: another part may score higher than these rates say; add a second good part".to_owned(),
            ),
            HoldOut::Parts | HoldOut::Folds => {}
        }
        notes
    }
}

/// A model of good parts, calibrated. One that was read from a file must pass [`Normal::check`] before it is used.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Normal {
    model: NormalModel,
    good: Conformal,
    report: NormalReport,
}

/// What is said of a frame.
#[derive(Clone, Debug, PartialEq)]
pub struct NormalVerdict {
    /// Mean of the worst tokens.
    pub score: f64,
    /// Share of good frames that score at least as high; never below [`NormalReport::floor`].
    pub p_value: f64,
    /// Whether the score is above the threshold.
    pub anomalous: bool,
    /// Token scores in units of the token threshold: 1 is at the threshold, on every frame.
    pub heat: TokenMap,
}

impl Normal {
    /// Learns all `frames` and scores each by a model that has not learned it ([`HoldOut`]).
    ///
    /// The p-values of a frame to come are those of a conformal predictor if leaving one part out does not change the model; with few parts
    /// left-out scores are higher than those of new good frames, so that there are fewer false alarms than promised, not more.
    ///
    /// Keeps the prepared tokens of all frames in memory while it works.
    ///
    /// # Errors
    ///
    /// No frame, a copy of a frame that is not there or is itself a copy, tokens of different lengths, or an option out of range.
    pub fn fit(
        frames: &[GoodFrame<'_>],
        options: &NormalOptions,
        rates: &Rates,
    ) -> Result<Self, AdaptError> {
        check_copies(frames)?;
        let tokens = frames
            .iter()
            .map(|frame| options.prepare.apply(&frame.grid))
            .collect::<Result<Vec<_>, _>>()?;
        let model = NormalModel::of_prepared(&tokens.iter().collect::<Vec<_>>(), options)?;
        let held_out = held_out(frames, &tokens, options)?;
        let good = Conformal::new(held_out.frames)?;
        let token_scores = Conformal::new(held_out.tokens)?;
        let mut parts: Vec<usize> = frames.iter().map(|frame| frame.part).collect();
        parts.sort_unstable();
        parts.dedup();
        let report = NormalReport {
            frames: good.len(),
            parts: parts.len(),
            hold_out: held_out.rule,
            floor: good.floor(),
            frame: good.threshold(rates.frame)?,
            token: token_scores.threshold(rates.token)?,
            bytes: model.bytes(),
        };
        Ok(Self {
            model,
            good,
            report,
        })
    }

    /// What calibration found.
    pub fn report(&self) -> &NormalReport {
        &self.report
    }

    /// Checks that all sizes and numbers fit together, after reading one from a file.
    ///
    /// # Errors
    ///
    /// [`AdaptError::GridShape`].
    pub fn check(&self) -> Result<(), AdaptError> {
        let thresholds = [self.report.frame.value, self.report.token.value];
        let fits = self.model.is_whole() && self.good.is_whole();
        if fits && thresholds.iter().all(|value| value.is_finite()) {
            return Ok(());
        }
        Err(AdaptError::GridShape {
            what: "model of good parts",
            expected: "sizes that fit together and finite numbers".into(),
            got: "others".into(),
            remedy: "the file is damaged; copy it again or restore a backup",
        })
    }

    /// The model of all good frames.
    pub fn model(&self) -> &NormalModel {
        &self.model
    }

    /// Scores of the good frames when they were left out.
    pub fn good_scores(&self) -> &Conformal {
        &self.good
    }

    /// Sets another allowed rate of false alarms of frames; nothing is learned again.
    ///
    /// # Errors
    ///
    /// A rate out of range.
    pub fn set_frame_rate(&mut self, rate: f64) -> Result<(), AdaptError> {
        self.report.frame = self.good.threshold(rate)?;
        Ok(())
    }

    /// The verdict on a frame.
    ///
    /// # Errors
    ///
    /// Tokens of another length.
    pub fn inspect(&self, frame: &TokenGrid<'_>) -> Result<NormalVerdict, AdaptError> {
        let scores = self.model.score(frame)?;
        let score = self.model.image_score(&scores);
        // Good tokens that are all the same have a threshold of 0: any deviation is then far beyond it.
        let unit = self.report.token.value.max(f64::from(f32::MIN_POSITIVE));
        let mut heat = scores.scaled(1.0 / unit);
        heat.values.iter_mut().for_each(|v| *v = v.min(f32::MAX));
        Ok(NormalVerdict {
            score,
            p_value: self.good.p_value(score),
            anomalous: score > self.report.frame.value,
            heat,
        })
    }
}

struct HeldOut {
    rule: HoldOut,
    frames: Vec<f64>,
    tokens: Vec<f64>,
}

fn check_copies(frames: &[GoodFrame<'_>]) -> Result<(), AdaptError> {
    if frames.iter().all(|frame| frame.copy_of.is_some()) {
        return Err(AdaptError::NoGoodFrame);
    }
    let wrong = frames.iter().find_map(|frame| {
        let original = frame.copy_of?;
        let known = frames.get(original).is_some_and(|of| of.copy_of.is_none());
        (!known).then_some(original)
    });
    wrong.map_or(Ok(()), |index| {
        Err(AdaptError::BadOption {
            name: "copy_of",
            value: index.to_string(),
            range: "the index of a frame that is no copy itself",
        })
    })
}

fn held_out(
    frames: &[GoodFrame<'_>],
    tokens: &[Matrix<f32>],
    options: &NormalOptions,
) -> Result<HeldOut, AdaptError> {
    let originals: Vec<usize> = (0..frames.len())
        .filter(|&i| frames[i].copy_of.is_none())
        .collect();
    if let [only] = originals[..] {
        return quarters(&frames[only].grid, options);
    }
    let mut parts: Vec<usize> = originals.iter().map(|&i| frames[i].part).collect();
    parts.sort_unstable();
    parts.dedup();
    let original = |i: usize| frames[i].copy_of.unwrap_or(i);
    let rule = match parts.len() {
        1 => HoldOut::FramesOfOnePart,
        n if n <= EXACT_GROUPS => HoldOut::Parts,
        _ => HoldOut::Folds,
    };
    let fold_of = |i: usize| match rule {
        HoldOut::FramesOfOnePart => originals.partition_point(|&o| o < original(i)),
        _ => parts.partition_point(|&p| p < frames[original(i)].part),
    };
    let groups = if rule == HoldOut::FramesOfOnePart {
        originals.len()
    } else {
        parts.len()
    };
    let folds = if groups > EXACT_GROUPS { FOLDS } else { groups };
    let folds_of: Vec<usize> = (0..frames.len()).map(|i| fold_of(i) % folds).collect();
    let fitter = Fitter::new(tokens, options)?;
    let mut out = HeldOut {
        rule,
        frames: Vec::new(),
        tokens: Vec::new(),
    };
    for fold in 0..folds {
        let model = fitter.without(|i| folds_of[i] == fold)?;
        for &i in originals.iter().filter(|&&i| folds_of[i] == fold) {
            let scores = TokenMap::scatter(&frames[i].grid, &model.score_prepared(&tokens[i]));
            out.frames.push(model.image_score(&scores));
            out.tokens.extend(scores.kept().map(f64::from));
        }
    }
    Ok(out)
}

/// Fits models without some frames; for PCA by subtracting their statistics.
struct Fitter<'a> {
    tokens: &'a [Matrix<f32>],
    options: &'a NormalOptions,
    /// Of each frame, and of all.
    statistics: Option<(Vec<TokenStatistics>, TokenStatistics)>,
}

impl<'a> Fitter<'a> {
    fn new(tokens: &'a [Matrix<f32>], options: &'a NormalOptions) -> Result<Self, AdaptError> {
        let mut statistics = None;
        if let Method::Pca(_) = options.method {
            let each: Vec<TokenStatistics> = tokens.iter().map(TokenStatistics::of).collect();
            let mut all = TokenStatistics::new(tokens[0].cols);
            each.iter().try_for_each(|frame| all.merge(frame))?;
            statistics = Some((each, all));
        }
        Ok(Self {
            tokens,
            options,
            statistics,
        })
    }

    fn without(&self, left_out: impl Fn(usize) -> bool) -> Result<NormalModel, AdaptError> {
        if let Some((each, all)) = &self.statistics {
            let mut kept = all.clone();
            for (_, frame) in each.iter().enumerate().filter(|(i, _)| left_out(*i)) {
                kept.subtract(frame)?;
            }
            return NormalModel::of_statistics(&kept, self.options);
        }
        let kept: Vec<&Matrix<f32>> = (0..self.tokens.len())
            .filter(|&i| !left_out(i))
            .map(|i| &self.tokens[i])
            .collect();
        NormalModel::of_prepared(&kept, self.options)
    }
}

/// Scores each quarter of a frame by a model of the others. Quarters are prepared apart, so that no window reaches over their borders.
fn quarters(grid: &TokenGrid<'_>, options: &NormalOptions) -> Result<HeldOut, AdaptError> {
    let quarter_of = |i: usize| {
        let (y, x) = (i / grid.cols(), i % grid.cols());
        2 * (2 * y / grid.rows()) + 2 * x / grid.cols()
    };
    let mut tokens = Vec::new();
    for quarter in 0..4 {
        let keep: Vec<bool> = (0..grid.len())
            .map(|i| grid.keeps(i) && quarter_of(i) == quarter)
            .collect();
        if keep.contains(&true) {
            tokens.push(options.prepare.apply(&grid.with_mask(&keep)?)?);
        }
    }
    if tokens.len() < 2 {
        // A single token, or a mask that keeps one corner: scored by itself, there is nothing else.
        let model = NormalModel::of_prepared(&tokens.iter().collect::<Vec<_>>(), options)?;
        return Ok(of_scores(model.score_prepared(&tokens[0]), &model));
    }
    let fitter = Fitter::new(&tokens, options)?;
    let mut scores = Vec::new();
    let mut last = None;
    for (quarter, own) in tokens.iter().enumerate() {
        let model = fitter.without(|i| i == quarter)?;
        scores.extend(model.score_prepared(own));
        last = Some(model);
    }
    Ok(of_scores(scores, &last.ok_or(AdaptError::NoGoodFrame)?))
}

fn of_scores(scores: Vec<f32>, model: &NormalModel) -> HeldOut {
    let map = TokenMap {
        rows: 1,
        cols: scores.len(),
        values: scores,
        keep: None,
    };
    HeldOut {
        rule: HoldOut::Quarters,
        frames: vec![model.image_score(&map)],
        tokens: map.kept().map(f64::from).collect(),
    }
}
