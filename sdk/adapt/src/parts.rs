//! Parts of a feature: what a sample holds side by side, of which a head uses some.

use crate::error::AdaptError;
use serde::{Deserialize, Serialize};

/// A part of every feature of a job, such as the class token or a texture descriptor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Its name, unique in the job.
    pub name: String,
    /// Its length.
    pub dim: usize,
}

impl Part {
    /// A part.
    pub fn new(name: &str, dim: usize) -> Self {
        Self {
            name: name.into(),
            dim,
        }
    }
}

/// Most parts of a feature: every combination of them may be tried.
const MAX_PARTS: usize = 5;

/// Which parts, by rising index.
pub(crate) type Selection = Vec<usize>;

/// What every feature of a job consists of, and the parts that a head looks at until others prove better.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layout {
    parts: Vec<Part>,
    preferred: Selection,
}

impl Layout {
    /// Up to five parts, in the order in which features hold them, and the names of those that are preferred.
    ///
    /// # Errors
    ///
    /// [`AdaptError::BadOption`] for no part, too many, empty ones, or two with one name; [`AdaptError::UnknownPart`].
    pub fn new(parts: Vec<Part>, preferred: &[&str]) -> Result<Self, AdaptError> {
        check(&parts)?;
        let mut layout = Self {
            parts,
            preferred: Vec::new(),
        };
        let names: Vec<String> = preferred.iter().map(|name| name.to_string()).collect();
        layout.preferred = layout.named(&names)?;
        Ok(layout)
    }

    /// One part, `embedding`, of `dim` values.
    pub fn single(dim: usize) -> Self {
        Self {
            parts: vec![Part::new("embedding", dim)],
            preferred: vec![0],
        }
    }

    /// The parts, in order.
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// Names of the preferred parts.
    pub fn preferred_names(&self) -> Vec<&str> {
        let name = |&i: &usize| self.parts[i].name.as_str();
        self.preferred.iter().map(name).collect()
    }

    /// Indices of the preferred parts.
    pub(crate) fn preferred(&self) -> &[usize] {
        &self.preferred
    }

    /// Length of a feature.
    pub fn dim(&self) -> usize {
        self.parts.iter().map(|part| part.dim).sum()
    }

    /// Whether it could have been made by [`Self::new`].
    pub(crate) fn check(&self) -> Result<(), AdaptError> {
        check(&self.parts)?;
        let rising = self.preferred.is_sorted_by(|a, b| a < b);
        let known = self.preferred.iter().all(|&i| i < self.parts.len());
        if rising && known && !self.preferred.is_empty() {
            return Ok(());
        }
        Err(AdaptError::BadOption {
            name: "preferred parts",
            value: format!("{:?}", self.preferred),
            range: "rising indices of parts",
        })
    }

    /// The indices of `names`, rising.
    pub(crate) fn named(&self, names: &[String]) -> Result<Selection, AdaptError> {
        let index = |name: &String| {
            let found = self.parts.iter().position(|part| part.name == *name);
            found.ok_or_else(|| AdaptError::UnknownPart {
                name: name.clone(),
                parts: names_of(&self.parts).join(", "),
            })
        };
        let mut selection = names.iter().map(index).collect::<Result<Selection, _>>()?;
        selection.sort_unstable();
        selection.dedup();
        if selection.is_empty() {
            return Err(AdaptError::BadOption {
                name: "parts",
                value: "none".into(),
                range: "at least one name of a part",
            });
        }
        Ok(selection)
    }
}

fn names_of(parts: &[Part]) -> Vec<&str> {
    parts.iter().map(|part| part.name.as_str()).collect()
}

fn check(parts: &[Part]) -> Result<(), AdaptError> {
    let sized = parts
        .iter()
        .try_fold(0usize, |sum, part| sum.checked_add(part.dim))
        .is_some();
    let unique = (1..parts.len()).all(|i| parts[..i].iter().all(|p| p.name != parts[i].name));
    let named = parts
        .iter()
        .all(|part| !part.name.trim().is_empty() && part.dim > 0);
    if !parts.is_empty() && parts.len() <= MAX_PARTS && unique && named && sized {
        return Ok(());
    }
    Err(AdaptError::BadOption {
        name: "parts",
        value: names_of(parts).join(", "),
        range: "1 to 5 parts with different names, each of at least one value",
    })
}

/// Every combination of `n` parts: single ones first, then pairs, and so on.
pub(crate) fn combinations(n: usize) -> Vec<Selection> {
    let mut all: Vec<Selection> = (1..1usize << n)
        .map(|bits| (0..n).filter(|i| bits >> i & 1 == 1).collect())
        .collect();
    all.sort_by_key(|selection: &Selection| (selection.len(), selection.clone()));
    all
}

/// What a head sees of a feature: some parts, scaled so that each varies as much as the others over the samples.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct View {
    /// Of the parts, by rising index.
    pub(crate) selection: Selection,
    /// Factor of each selected part: the inverse of the root mean square distance of the samples from their mean; 0 for a part that is the same
    /// for all samples, 1 where it is the only one. Where all are the same (a job of one sample) the inverse of their root mean square norm.
    pub(crate) scales: Vec<f64>,
}

impl View {
    /// The view of `rows`, full features.
    pub(crate) fn new(rows: &[&[f32]], parts: &[Part], selection: Selection) -> Self {
        if let [_] = selection[..] {
            return Self {
                selection,
                scales: vec![1.0],
            };
        }
        let starts = starts(parts);
        let moments: Vec<(f64, f64)> = selection
            .iter()
            .map(|&part| {
                let range = starts[part]..starts[part] + parts[part].dim;
                spread(rows.iter().map(|row| &row[range.clone()]), range.len())
            })
            .collect();
        // Differences at the level of f32 rounding carry no information.
        let varies = |&(spread, square): &(f64, f64)| spread > 1e-13 * square;
        let any_varies = moments.iter().any(varies);
        let inverse = |x: f64| if x > 0.0 { 1.0 / x.sqrt() } else { 0.0 };
        let scale = |&(spread, square): &(f64, f64)| match any_varies {
            true if varies(&(spread, square)) => inverse(spread),
            true => 0.0,
            false => inverse(square),
        };
        let scales = moments.iter().map(scale).collect();
        Self { selection, scales }
    }

    /// Names of the selected parts.
    pub(crate) fn names(&self, parts: &[Part]) -> Vec<String> {
        let name = |&i: &usize| parts[i].name.clone();
        self.selection.iter().map(name).collect()
    }

    /// Whether it is a view of `parts`.
    pub(crate) fn is_sound(&self, parts: &[Part]) -> bool {
        !self.selection.is_empty()
            && self.selection.len() == self.scales.len()
            && self.selection.is_sorted_by(|a, b| a < b)
            && self.selection.iter().all(|&i| i < parts.len())
            && self.scales.iter().all(|scale| scale.is_finite())
    }

    /// Length of what is seen.
    pub(crate) fn dim(&self, parts: &[Part]) -> usize {
        self.selection.iter().map(|&i| parts[i].dim).sum()
    }

    /// What is seen of a full feature.
    pub(crate) fn of(&self, feature: &[f32], parts: &[Part]) -> Vec<f32> {
        let starts = starts(parts);
        let mut out = Vec::with_capacity(self.dim(parts));
        for (&part, &scale) in self.selection.iter().zip(&self.scales) {
            let values = &feature[starts[part]..starts[part] + parts[part].dim];
            out.extend(values.iter().map(|x| (f64::from(*x) * scale) as f32));
        }
        out
    }
}

fn starts(parts: &[Part]) -> Vec<usize> {
    let mut start = 0;
    let next = |part: &Part| {
        start += part.dim;
        start - part.dim
    };
    parts.iter().map(next).collect()
}

/// Mean squared distance of `rows` `[dim]` from their mean, and mean squared norm.
fn spread<'r>(rows: impl Iterator<Item = &'r [f32]> + Clone, dim: usize) -> (f64, f64) {
    let mut mean = vec![0.0f64; dim];
    let (mut n, mut square) = (0.0f64, 0.0f64);
    for row in rows.clone() {
        n += 1.0;
        for (m, x) in mean.iter_mut().zip(row) {
            *m += f64::from(*x);
            square += f64::from(*x).powi(2);
        }
    }
    mean.iter_mut().for_each(|m| *m /= n.max(1.0));
    let around = |row: &[f32]| -> f64 {
        let differences = row.iter().zip(&mean).map(|(x, m)| f64::from(*x) - m);
        differences.map(|d| d * d).sum()
    };
    (
        rows.map(around).sum::<f64>() / n.max(1.0),
        square / n.max(1.0),
    )
}
