//! Pixel AUROC and AUPRO of heat maps against masks, gathered image by image in constant memory.
//!
//! AUPRO (Bergmann et al. 2020, *Uninformed Students*): the mean share of each connected defect that lies above a threshold, over the
//! false-positive rate of all good pixels, integrated up to a rate of 0.3 and divided by it.

use crate::error::AdaptError;

/// False-positive rate up to which AUPRO integrates.
const FPR_LIMIT: f64 = 0.3;
/// Low bits of a score that are not told apart: bins of one part in 4096.
const DROPPED_BITS: u32 = 11;
const BINS: usize = 1 << (31 - DROPPED_BITS);

/// Heat of pixels, sorted into bins of one part in 4096 of the score, so that no pixel need be kept. Scores in one bin count as equal.
#[derive(Clone, Debug)]
pub struct PixelScores {
    good: Vec<u64>,
    bad: Vec<u64>,
    /// Sum over the defects of the share of their pixels in each bin.
    overlap: Vec<f64>,
    regions: u64,
}

/// Areas under the two curves of pixels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PixelMetrics {
    /// Area under the ROC curve of all pixels.
    pub auroc: f64,
    /// Area under the overlap of defects up to a false-positive rate of 0.3, divided by 0.3.
    pub aupro: f64,
}

impl Default for PixelScores {
    fn default() -> Self {
        Self {
            good: vec![0; BINS],
            bad: vec![0; BINS],
            overlap: vec![0.0; BINS],
            regions: 0,
        }
    }
}

impl PixelScores {
    /// Adds an image: its `heat` and, of a defective one, the pixels of its defects, both `[height, width]`.
    ///
    /// # Errors
    ///
    /// A mask or heat of another size; heat that is negative or not finite.
    pub fn push(
        &mut self,
        heat: &[f32],
        defects: Option<&[bool]>,
        [height, width]: [usize; 2],
    ) -> Result<(), AdaptError> {
        let fits = |len: usize| height.checked_mul(width) == Some(len);
        if !fits(heat.len()) || !defects.is_none_or(|mask| fits(mask.len())) {
            return Err(AdaptError::GridShape {
                what: "heat map and mask",
                expected: format!("{height} x {width} pixels"),
                got: format!("{} and {}", heat.len(), defects.map_or(0, <[bool]>::len)),
                remedy: "make both at the size of the image",
            });
        }
        if let Some(index) = heat.iter().position(|v| !(v.is_finite() && *v >= 0.0)) {
            return Err(AdaptError::NotFinite {
                what: "heat map, which must be finite and not negative".into(),
                index,
                value: heat[index],
            });
        }
        let Some(mask) = defects else {
            heat.iter().for_each(|&v| self.good[bin(v)] += 1);
            return Ok(());
        };
        let (labels, sizes) = regions(mask, width);
        self.regions += sizes.len() as u64;
        for (&value, &label) in heat.iter().zip(&labels) {
            match label {
                0 => self.good[bin(value)] += 1,
                label => {
                    self.bad[bin(value)] += 1;
                    self.overlap[bin(value)] += 1.0 / sizes[label as usize - 1] as f64;
                }
            }
        }
        Ok(())
    }

    /// Both areas; `None` without a good and a defective pixel.
    pub fn metrics(&self) -> Option<PixelMetrics> {
        let (good, bad) = (self.good.iter().sum::<u64>(), self.bad.iter().sum::<u64>());
        if good == 0 || bad == 0 {
            return None;
        }
        let (good, bad) = (good as f64, bad as f64);
        let (mut auroc, mut aupro) = (0.0, 0.0);
        // Rates before and after each bin, from the highest score down.
        let (mut fpr, mut tpr, mut pro) = (0.0, 0.0, 0.0);
        for bin in (0..BINS).rev().filter(|&b| self.good[b] + self.bad[b] > 0) {
            let (old_fpr, old_tpr, old_pro) = (fpr, tpr, pro);
            fpr += self.good[bin] as f64 / good;
            tpr += self.bad[bin] as f64 / bad;
            pro += self.overlap[bin] / self.regions as f64;
            auroc += (fpr - old_fpr) * (tpr + old_tpr) / 2.0;
            if old_fpr < FPR_LIMIT && fpr > old_fpr {
                let part = ((FPR_LIMIT - old_fpr) / (fpr - old_fpr)).min(1.0);
                let end = old_pro + part * (pro - old_pro);
                aupro += part * (fpr - old_fpr) * (old_pro + end) / 2.0;
            }
        }
        Some(PixelMetrics {
            auroc,
            aupro: aupro / FPR_LIMIT,
        })
    }
}

/// Bits of a float that is not negative rise with its value.
fn bin(value: f32) -> usize {
    ((value + 0.0).to_bits() >> DROPPED_BITS) as usize & (BINS - 1)
}

/// Connected regions of `true` pixels, joined over edges and corners: the number of its region, from 1, at each pixel (0 elsewhere), and
/// the pixels of each region.
pub fn regions(mask: &[bool], width: usize) -> (Vec<u32>, Vec<usize>) {
    let mut labels = vec![0u32; mask.len()];
    let mut sizes = Vec::new();
    let mut open = Vec::new();
    let height = mask.len() / width.max(1);
    for start in 0..mask.len() {
        if !mask[start] || labels[start] > 0 {
            continue;
        }
        let label = sizes.len() as u32 + 1;
        labels[start] = label;
        open.push(start);
        let mut size = 0;
        while let Some(at) = open.pop() {
            size += 1;
            let (y, x) = (at / width, at % width);
            for row in y.saturating_sub(1)..(y + 2).min(height) {
                for col in x.saturating_sub(1)..(x + 2).min(width) {
                    let next = row * width + col;
                    if mask[next] && labels[next] == 0 {
                        labels[next] = label;
                        open.push(next);
                    }
                }
            }
        }
        sizes.push(size);
    }
    (labels, sizes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::auroc;
    use proptest::prelude::*;

    /// Components by repeated spreading of the smallest label.
    fn naive_regions(mask: &[bool], width: usize) -> Vec<usize> {
        let mut labels: Vec<usize> = (0..mask.len())
            .map(|i| if mask[i] { i + 1 } else { 0 })
            .collect();
        loop {
            let mut changed = false;
            for a in 0..mask.len() {
                for b in 0..mask.len() {
                    let near = (a / width).abs_diff(b / width) <= 1
                        && (a % width).abs_diff(b % width) <= 1;
                    if near && mask[a] && mask[b] && labels[b] < labels[a] {
                        labels[a] = labels[b];
                        changed = true;
                    }
                }
            }
            if !changed {
                return labels;
            }
        }
    }

    /// From the definition: the curve at every threshold that is a score, by counting.
    fn naive_aupro(images: &[(Vec<f32>, Vec<bool>)], width: usize) -> f64 {
        let mut thresholds: Vec<f32> = images.iter().flat_map(|(heat, _)| heat.clone()).collect();
        thresholds.sort_by(|a, b| b.total_cmp(a));
        thresholds.dedup();
        let mut curve = vec![(0.0, 0.0)];
        for t in thresholds {
            let (mut false_positive, mut good, mut overlaps) = (0.0, 0.0, Vec::new());
            for (heat, mask) in images {
                let labels = naive_regions(mask, width);
                good += labels.iter().filter(|l| **l == 0).count() as f64;
                false_positive += (0..heat.len())
                    .filter(|&i| labels[i] == 0 && heat[i] >= t)
                    .count() as f64;
                let mut names: Vec<usize> = labels.iter().copied().filter(|l| *l > 0).collect();
                names.sort();
                names.dedup();
                for name in names {
                    let own: Vec<usize> = (0..heat.len()).filter(|&i| labels[i] == name).collect();
                    overlaps.push(
                        own.iter().filter(|&&i| heat[i] >= t).count() as f64 / own.len() as f64,
                    );
                }
            }
            curve.push((
                false_positive / good,
                overlaps.iter().sum::<f64>() / overlaps.len() as f64,
            ));
        }
        let mut area = 0.0;
        for pair in curve.windows(2) {
            let ((x0, y0), (x1, y1)) = (pair[0], pair[1]);
            if x0 < 0.3 && x1 > x0 {
                let end = f64::min(x1, 0.3);
                let y_end = y0 + (y1 - y0) * (end - x0) / (x1 - x0);
                area += (end - x0) * (y0 + y_end) / 2.0;
            }
        }
        area / 0.3
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]

        #[test]
        fn both_areas_are_those_of_the_definitions(
            rows in prop::collection::vec((0u8..40, prop::bool::weighted(0.25)), 2 * 6 * 7),
        ) {
            let images: Vec<(Vec<f32>, Vec<bool>)> = rows
                .chunks(42)
                .map(|c| c.iter().map(|r| (f32::from(r.0) / 8.0, r.1)).unzip())
                .collect();
            let mut scores = PixelScores::default();
            for (heat, mask) in &images {
                let defects = mask.contains(&true).then_some(&mask[..]);
                scores.push(heat, defects, [6, 7]).unwrap();
            }
            let flat: Vec<f64> = rows.iter().map(|r| f64::from(r.0)).collect();
            let positive: Vec<bool> = rows.iter().map(|r| r.1).collect();
            match scores.metrics() {
                Some(got) => {
                    prop_assert!((got.auroc - auroc(&flat, &positive).unwrap()).abs() < 1e-12);
                    prop_assert!((got.aupro - naive_aupro(&images, 7)).abs() < 1e-9);
                }
                None => prop_assert!(auroc(&flat, &positive).is_none()),
            }
        }
    }

    #[test]
    fn corners_join_and_rows_do_not_wrap() {
        let mask: Vec<bool> = [1, 0, 0, 1, 0, 1, 0, 0, 0, 0, 0, 1]
            .iter()
            .map(|v| *v == 1)
            .collect();
        let (labels, sizes) = regions(&mask, 4);
        assert_eq!(sizes, [2, 1, 1]);
        assert_eq!((labels[0], labels[5], labels[3], labels[11]), (1, 1, 2, 3));
    }

    #[test]
    fn a_perfect_map_has_areas_of_1_and_bins_are_fine_enough() {
        let mask: Vec<bool> = (0..100).map(|i| i % 10 == 3).collect();
        let heat: Vec<f32> = mask.iter().map(|m| if *m { 1.001 } else { 1.0 }).collect();
        let mut scores = PixelScores::default();
        scores.push(&heat, Some(&mask), [10, 10]).unwrap();
        let metrics = scores.metrics().unwrap();
        assert!((metrics.auroc - 1.0).abs() < 1e-12 && (metrics.aupro - 1.0).abs() < 1e-12);
    }

    #[test]
    fn bad_maps_are_refused() {
        let mut scores = PixelScores::default();
        assert!(scores.push(&[1.0; 3], None, [2, 2]).is_err());
        assert!(scores.push(&[1.0; 4], Some(&[true; 3]), [2, 2]).is_err());
        assert!(scores.push(&[1.0, -1.0], None, [1, 2]).is_err());
        assert!(scores.push(&[1.0, f32::NAN], None, [1, 2]).is_err());
        assert_eq!(scores.metrics(), None);
    }
}
