//! Golden parts that know how much they differ from each other: p-values, a threshold, a fixed scale for heat.

use super::{Golden, GoldenOptions, GoldenVerdict, Learned, Plane, half_squared};
use crate::anomaly::{Conformal, Rates, Threshold, ThresholdSource, TokenGrid, TokenMap};
use crate::error::AdaptError;
use serde::{Deserialize, Serialize};

/// Share of the most different tokens whose mean is the score of a frame.
const TOP_SHARE: f64 = 0.01;
/// Smallest difference that is a heat of 1: golden parts without any noise must not make rounding errors glow.
const LEAST_UNIT: f64 = 1e-6;

/// Golden parts, calibrated. One that was read from a file must pass `check` before it is used.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GoldenModel {
    golden: Golden,
    /// Scores of the golden parts when each was left out; `None` for a single one.
    good: Option<Conformal>,
    report: GoldenReport,
}

/// What calibration found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GoldenReport {
    /// Golden parts.
    pub parts: usize,
    /// Rows and columns of their grids.
    pub size: [usize; 2],
    /// Smallest rate of false alarms that they can promise, `1 / (parts + 1)`; `None` for a single one.
    pub floor: Option<f64>,
    /// Threshold of frame scores; `None` for a single one, which does not say how much good parts differ.
    pub frame: Option<Threshold>,
    /// The difference of a token that is a heat of 1: the threshold of the tokens of left-out golden parts, for a single golden part of the
    /// differences between neighbouring tokens.
    pub unit: f64,
}

/// What is said of a frame.
#[derive(Clone, Debug, PartialEq)]
pub struct GoldenScore {
    /// Mean difference of the hundredth of the tokens that differ most.
    pub score: f64,
    /// Share of golden parts that differ at least as much from the others, never below [`GoldenReport::floor`]; `None` for a single one.
    pub p_value: Option<f64>,
    /// Whether the score is above the threshold; `None` for a single golden part.
    pub differs: Option<bool>,
    /// Differences in units of [`GoldenReport::unit`]: 1 is at the threshold, on every frame.
    pub heat: TokenMap,
    /// As [`GoldenVerdict::shift`].
    pub shift: [isize; 2],
    /// As [`GoldenVerdict::nearest`].
    pub nearest: Option<usize>,
}

impl GoldenModel {
    /// Learns golden parts, all of one grid and each shown once, and compares each with the others ([`Golden`]).
    ///
    /// # Errors
    ///
    /// As [`Golden::fit`]; the same part twice; a rate that is not above 0 and below 1.
    pub fn fit(
        parts: &[TokenGrid<'_>],
        options: &GoldenOptions,
        rates: &Rates,
    ) -> Result<Self, AdaptError> {
        for (name, rate) in [("frame rate", rates.frame), ("token rate", rates.token)] {
            if !(rate > 0.0 && rate < 1.0) {
                return Err(AdaptError::BadOption {
                    name,
                    value: rate.to_string(),
                    range: "above 0 and below 1",
                });
            }
        }
        let learned = Learned::of(parts, options)?;
        check_each_is_shown_once(&learned.planes)?;
        let left_out = learned.left_out()?;
        let tokens: Vec<f64> = match left_out.is_empty() {
            true => between_neighbours(&learned.golden, &learned.planes[0]),
            false => left_out
                .iter()
                .flat_map(|verdict| verdict.differences.kept())
                .map(f64::from)
                .collect(),
        };
        // A grid of one token has no neighbours; 1 is the difference of tokens at right angles.
        let unit = match tokens.is_empty() {
            true => 1.0,
            false => Conformal::new(tokens)?.threshold(rates.token)?.value,
        };
        let scores = left_out.iter().map(score_of).collect::<Vec<f64>>();
        let good = match scores.is_empty() {
            true => None,
            false => Some(Conformal::new(scores)?),
        };
        let frame = good.as_ref().map(|good| good.threshold(rates.frame));
        let report = GoldenReport {
            parts: learned.golden.len(),
            size: learned.golden.size(),
            floor: good.as_ref().map(Conformal::floor),
            frame: frame.transpose()?,
            unit: unit.max(LEAST_UNIT),
        };
        Ok(Self {
            golden: learned.golden,
            good,
            report,
        })
    }

    /// What calibration found.
    pub fn report(&self) -> &GoldenReport {
        &self.report
    }

    /// Compares a frame with the golden parts.
    ///
    /// # Errors
    ///
    /// As [`Golden::compare`].
    pub fn inspect(&self, frame: &TokenGrid<'_>) -> Result<GoldenScore, AdaptError> {
        let found = self.golden.compare(frame)?;
        let score = score_of(&found);
        Ok(GoldenScore {
            score,
            p_value: self.good.as_ref().map(|good| good.p_value(score)),
            differs: self.report.frame.map(|frame| score > frame.value),
            heat: found.differences.scaled(1.0 / self.report.unit),
            shift: found.shift,
            nearest: found.nearest,
        })
    }

    /// Whether all sizes and numbers fit together; if not, what does not.
    pub(super) fn check(&self) -> Result<(), String> {
        let options = self.golden.options.check();
        options.map_err(|error| error.to_string())?;
        if !self.golden.is_whole() {
            return Err("the golden parts are no grids of finite numbers".into());
        }
        let (report, parts) = (&self.report, self.golden.len());
        if report.parts != parts || report.size != self.golden.size() {
            return Err("the report is of other golden parts".into());
        }
        let scores = match &self.good {
            None => parts == 1,
            Some(good) => parts > 1 && good.len() == parts && good.is_whole(),
        };
        let threshold = match &report.frame {
            None => parts == 1,
            Some(frame) => {
                let rate = frame.rate > 0.0 && frame.rate < 1.0;
                parts > 1 && frame.value.is_finite() && rate
            }
        };
        let floor = report.floor == self.good.as_ref().map(Conformal::floor);
        let unit = report.unit.is_finite() && report.unit >= LEAST_UNIT;
        if !(scores && threshold && floor && unit) {
            return Err("the threshold does not fit the golden parts".into());
        }
        Ok(())
    }
}

impl GoldenReport {
    /// What an operator must be told, in a sentence.
    pub fn note(&self) -> String {
        let percent = |share: f64| {
            let text = format!("{:.3}", 100.0 * share);
            text.trim_end_matches('0').trim_end_matches('.').to_owned()
        };
        let (Some(frame), Some(floor)) = (&self.frame, self.floor) else {
            return "one golden part does not say how much good parts differ: frames get a score and heat, and no verdict; add a second golden part"
                .into();
        };
        let (rate, floor, parts) = (percent(frame.rate), percent(floor), self.parts);
        match frame.source {
            ThresholdSource::Conformal => format!(
                "at most {rate} % false alarms on parts like the {parts} golden ones; the lowest rate that they can promise is {floor} %"
            ),
            ThresholdSource::TailExtrapolation => format!(
                "the lowest false-alarm rate that {parts} golden parts can promise is {floor} %; the threshold for {rate} % is extrapolated from the worst third of their scores"
            ),
            ThresholdSource::Prediction => format!(
                "the lowest false-alarm rate that {parts} golden parts can promise is {floor} %; the threshold for {rate} % lies above their largest score, extrapolated with scores taken as log-normal: add golden parts"
            ),
            ThresholdSource::Maximum => format!(
                "the lowest false-alarm rate that {parts} golden parts can promise is {floor} %; the threshold for {rate} % is their largest score: add golden parts"
            ),
        }
    }
}

fn score_of(verdict: &GoldenVerdict) -> f64 {
    verdict.differences.tail_mean(TOP_SHARE)
}

fn check_each_is_shown_once(planes: &[Plane]) -> Result<(), AdaptError> {
    for (second, plane) in planes.iter().enumerate() {
        if let Some(first) = planes[..second].iter().position(|other| other == plane) {
            return Err(AdaptError::SameGolden { first, second });
        }
    }
    Ok(())
}

/// Differences between each kept token and the ones to its right and below.
fn between_neighbours(golden: &Golden, plane: &Plane) -> Vec<f64> {
    let score = |a: usize, b: usize| half_squared(plane.tokens.row(a), plane.tokens.row(b));
    let both = [[0, 1], [1, 0]].map(|shift| golden.scores(plane, plane, shift, score));
    both.into_iter()
        .flatten()
        .flatten()
        .map(f64::from)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::{Rng, SeedableRng};

    const SIZE: [usize; 2] = [6, 8];
    const DIM: usize = 5;

    /// A pattern that is smooth from one position to the next, with noise of a fiftieth.
    fn part(rng: &mut ChaCha8Rng) -> Vec<f32> {
        let noise = |rng: &mut ChaCha8Rng| (rng.next_u32() as f32 / u32::MAX as f32 - 0.5) * 0.04;
        let value = |i: usize| {
            let (j, at) = (i % DIM, i / DIM);
            let (y, x) = ((at / SIZE[1]) as f32, (at % SIZE[1]) as f32);
            (0.5 * x + 1.3 * j as f32).sin() + (0.6 * y - 0.7 * j as f32).cos()
        };
        let values = (0..SIZE[0] * SIZE[1] * DIM).map(|i| value(i) + noise(rng));
        values.collect()
    }

    fn grid(tokens: &[f32]) -> TokenGrid<'_> {
        TokenGrid::new(tokens, SIZE, DIM).unwrap()
    }

    fn fit(parts: &[Vec<f32>], rate: f64) -> GoldenModel {
        let grids: Vec<_> = parts.iter().map(|part| grid(part)).collect();
        let rates = Rates {
            frame: rate,
            token: 0.01,
        };
        GoldenModel::fit(&grids, &GoldenOptions::default(), &rates).unwrap()
    }

    fn parts(seed: u8, n: usize) -> Vec<Vec<f32>> {
        let mut rng = ChaCha8Rng::from_seed([seed; 32]);
        (0..n).map(|_| part(&mut rng)).collect()
    }

    #[test]
    fn a_defect_is_found_where_it_is_by_any_number_of_golden_parts() {
        for n in 1..6 {
            let model = fit(&parts(n as u8, n), 0.4);
            let mut rng = ChaCha8Rng::from_seed([99; 32]);
            let good = model.inspect(&grid(&part(&mut rng))).unwrap();
            let mut bad = part(&mut rng);
            let defect = 2 * SIZE[1] + 5;
            bad[defect * DIM..][..DIM].iter_mut().for_each(|x| *x = -*x);
            let bad = model.inspect(&grid(&bad)).unwrap();
            assert_eq!(bad.differs, (n > 1).then_some(true), "{n}");
            assert_eq!(bad.p_value.is_some(), n > 1);
            assert!(bad.score > 10.0 * good.score, "{n}");
            assert!(bad.heat.values[defect] > 1.0, "{n}");
            let hot = bad.heat.values.iter().filter(|heat| **heat > 1.0).count();
            assert!(hot <= 3, "{n}: {hot}");
            assert_eq!(
                model.report().floor,
                (n > 1).then(|| 1.0 / (n as f64 + 1.0))
            );
            assert!(model.report().note().contains("golden"));
        }
    }

    /// Against models that never saw the part; when the first part is left out the others stay where it put them.
    #[test]
    fn left_out_parts_are_compared_with_the_others_alone() {
        for n in [2, 3, 6] {
            let parts = parts(7, n);
            let grids: Vec<_> = parts.iter().map(|part| grid(part)).collect();
            let learned = Learned::of(&grids, &GoldenOptions::default()).unwrap();
            let left_out = learned.left_out().unwrap();
            for (index, found) in left_out.iter().enumerate() {
                let others: Vec<_> = (0..n).filter(|i| *i != index).map(|i| grids[i]).collect();
                let golden = Golden::fit(&others, &GoldenOptions::default()).unwrap();
                if n == 3 {
                    // Two parts alone are compared one by one, the two that are left of three by their statistics.
                    assert!(found.nearest.is_none());
                    continue;
                }
                let fresh = golden.compare(&grids[index]).unwrap();
                assert_eq!(fresh.shift, found.shift);
                for (a, b) in fresh.differences.kept().zip(found.differences.kept()) {
                    assert!((a - b).abs() <= 1e-5 * b.max(1e-3), "{n} {index}: {a} {b}");
                }
            }
        }
    }

    /// With exchangeable parts the share of good frames with `p <= rate` is at most the rate; the band is 4.5 standard deviations.
    #[test]
    fn p_values_of_good_parts_keep_their_promise() {
        let (n, rate, trials) = (9, 0.2, 400);
        let mut alarms = 0;
        let mut rng = ChaCha8Rng::from_seed([5; 32]);
        for _ in 0..trials {
            let parts: Vec<_> = (0..n).map(|_| part(&mut rng)).collect();
            let found = fit(&parts, rate).inspect(&grid(&part(&mut rng))).unwrap();
            alarms += u32::from(found.p_value.unwrap() <= rate + 1e-9);
        }
        let expected = f64::from(trials) * rate;
        let deviation = (expected * (1.0 - rate)).sqrt();
        assert!(f64::from(alarms) < expected + 4.5 * deviation, "{alarms}");
        assert!(alarms > 0);
    }

    #[test]
    fn bad_input_is_refused() {
        let parts = parts(1, 3);
        let fit = |grids: &[TokenGrid<'_>], frame: f64| {
            let rates = Rates {
                frame,
                ..Rates::default()
            };
            GoldenModel::fit(grids, &GoldenOptions::default(), &rates)
        };
        let grids: Vec<_> = parts.iter().map(|part| grid(part)).collect();
        assert!(fit(&[], 0.1).is_err());
        assert!(fit(&grids, f64::NAN).is_err() && fit(&grids, 0.0).is_err());
        let twice = fit(&[grids[0], grids[1], grids[0]], 0.1).unwrap_err();
        assert!(matches!(
            twice,
            AdaptError::SameGolden {
                first: 0,
                second: 2
            }
        ));
        let other = TokenGrid::new(&parts[0], [8, 6], DIM).unwrap();
        assert!(fit(&[grids[0], other], 0.1).is_err());
        let model = fit(&grids, 0.1).unwrap();
        assert!(matches!(
            model.inspect(&other),
            Err(AdaptError::GridShape { .. })
        ));
    }

    /// As they may be in a file: an endless search, and a promise that is none.
    #[test]
    fn options_and_rates_out_of_range_do_not_pass() {
        let good = fit(&parts(1, 3), 0.1);
        assert_eq!(good.check(), Ok(()));
        let mut shift = good.clone();
        shift.golden.options.max_shift = 17;
        assert!(
            shift
                .check()
                .is_err_and(|why| why.contains("largest shift"))
        );
        let mut window = good.clone();
        window.golden.options.prepare.window = 2;
        assert!(window.check().is_err_and(|why| why.contains("window")));
        for rate in [0.0, 1.0, f64::NAN] {
            let mut other = good.clone();
            other.report.frame.as_mut().unwrap().rate = rate;
            assert!(other.check().is_err_and(|why| why.contains("threshold")));
        }
        let options = GoldenOptions {
            max_shift: 17,
            ..GoldenOptions::default()
        };
        let parts = parts(1, 1);
        assert!(Golden::fit(&[grid(&parts[0])], &options).is_err());
    }

    /// A unit beyond f32, which only a file can have, leaves what is infinitely different so.
    #[test]
    fn heat_is_a_number_for_any_unit() {
        let mut model = fit(&[vec![1.0; SIZE[0] * SIZE[1] * DIM]], 0.1);
        model.golden.options.prepare.unit_norm = false;
        model.report.unit = 1e231;
        assert_eq!(model.check(), Ok(()));
        let far = vec![f32::MAX; SIZE[0] * SIZE[1] * DIM];
        let found = model.inspect(&grid(&far)).unwrap();
        assert!(found.heat.kept().all(|heat| heat == f32::INFINITY));
    }

    #[test]
    fn golden_parts_without_noise_do_not_glow() {
        let flat = |value: f32| vec![value; SIZE[0] * SIZE[1] * DIM];
        let model = fit(&[flat(1.0)], 0.1);
        let found = model.inspect(&grid(&flat(1.001))).unwrap();
        assert!(found.heat.values.iter().all(|heat| *heat < 0.1));
    }
}
