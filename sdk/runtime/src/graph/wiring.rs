//! From the shapes of a graph's outputs to class token and patch tokens.

use ssl_edge_bundle::{ClsSource, PatchSource};

use super::GraphError;

/// Class token and registers at most: more tokens before the patches are taken for something else.
const MAX_PREFIX: usize = 17;

/// Outputs that hold patch tokens where several could.
const PATCH_NAMES: [&str; 6] = [
    "patches",
    "patch_tokens",
    "x_norm_patchtokens",
    "last_hidden_state",
    "tokens",
    "features",
];

/// What the caller says of the outputs; the rule decides the rest.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GraphChoice {
    /// Output with the class token: `[B, D]`, or the first token of `[B, T, D]`.
    pub cls: Option<String>,
    /// Output with the patch tokens: `[B, T, D]`, `[B, D, rows, columns]` or `[B, rows, columns, D]`.
    pub patches: Option<String>,
    /// Tokens before the patches in `[B, T, D]`: class token and registers.
    pub prefix: Option<usize>,
}

/// How the outputs are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wired {
    /// Where the class token comes from.
    pub(super) cls: ClsSource,
    /// Where the patch tokens come from.
    pub(super) patches: PatchSource,
    /// Width D of a token.
    pub(super) dim: usize,
    /// Rows and columns of the patch tokens.
    pub(super) grid: [usize; 2],
    /// What a user should know, one sentence each.
    pub(super) notes: Vec<String>,
}

/// What the shape of an output can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// `[1, D]`, also with axes of 1 behind.
    Vector { dim: usize },
    /// `[1, T, D]`.
    Sequence { tokens: usize, dim: usize },
    /// `[1, D, rows, columns]`.
    Map { dim: usize, grid: [usize; 2] },
    /// `[1, rows, columns, D]`.
    MapLast { dim: usize, grid: [usize; 2] },
}

/// Patch tokens that an output can give.
struct Patches {
    source: PatchSource,
    dim: usize,
    grid: [usize; 2],
}

struct Rule<'a> {
    outputs: &'a [(&'a str, Vec<usize>)],
    size: [usize; 2],
    choice: &'a GraphChoice,
}

/// Decides which outputs are class token and patch tokens. `outputs` are names and shapes of f32 outputs for one image of `size` (height, width).
///
/// - `[1, T, D]` with T = P + rows × columns, where the grid is that of square patches which divide the image and P is the least possible, at most 17:
///   without P the sequence has no class token; else its first token is the class token and the others of P are registers.
/// - `[1, D, rows, columns]` and `[1, rows, columns, D]` are feature maps, their positions patch tokens.
/// - `[1, D]` is the class token where it is called so (`cls`, `class`) or no sequence brings one.
/// - Without a class token the mean of the patch tokens stands for it; without patch tokens the class token stands for the only one.
///
/// # Errors
/// [`GraphError::Outputs`] where nothing fits, or several do and the caller did not choose.
pub(super) fn wire(
    outputs: &[(&str, Vec<usize>)],
    size: [usize; 2],
    choice: &GraphChoice,
) -> Result<Wired, GraphError> {
    let rule = Rule {
        outputs,
        size,
        choice,
    };
    let patches = rule.patches()?;
    let cls = rule.cls(patches.as_ref())?;
    let (cls, dim) = match (cls, &patches) {
        (Some((cls, dim)), _) => (cls, dim),
        (None, Some(patches)) => (ClsSource::Mean, patches.dim),
        (None, None) => {
            return Err(rule.refuse(
                "none is a sequence of tokens, a feature map or a vector for one image".to_owned(),
            ));
        }
    };
    let (patches, grid) = match patches {
        Some(patches) => (patches.source, patches.grid),
        None => (PatchSource::Cls, [1, 1]),
    };
    let notes = rule.notes(&cls, &patches);
    Ok(Wired {
        cls,
        patches,
        dim,
        grid,
        notes,
    })
}

impl Rule<'_> {
    fn patches(&self) -> Result<Option<Patches>, GraphError> {
        if let Some(name) = &self.choice.patches {
            let form = self.named(name)?;
            let patches = self.patches_of(name, form);
            return patches.map(Some).ok_or_else(|| {
                self.refuse(format!(
                    "{name} has no patch tokens that fit an image of {} x {}",
                    self.size[1], self.size[0]
                ))
            });
        }
        let all: Vec<Patches> = self
            .outputs
            .iter()
            .filter_map(|(name, shape)| self.patches_of(name, self.form(shape)?))
            .collect();
        let is_called = |patches: &&Patches, name: &str| patches.source.output() == Some(name);
        let known = PATCH_NAMES
            .iter()
            .find_map(|known| all.iter().position(|patches| is_called(&patches, known)));
        match (all.len(), known) {
            (0, _) => Ok(None),
            (1, _) => Ok(all.into_iter().next()),
            (_, Some(index)) => Ok(all.into_iter().nth(index)),
            (count, None) => Err(self.refuse(format!("{count} of them could be the patch tokens"))),
        }
    }

    fn patches_of(&self, name: &str, form: Form) -> Option<Patches> {
        let output = name.to_owned();
        let (source, dim, grid) = match form {
            Form::Vector { .. } => return None,
            Form::Map { dim, grid } => (PatchSource::Map { output }, dim, grid),
            Form::MapLast { dim, grid } => (PatchSource::MapLast { output }, dim, grid),
            Form::Sequence { tokens, dim } => {
                let (skip, grid) = self.prefix(tokens)?;
                (PatchSource::Tokens { output, skip }, dim, grid)
            }
        };
        Some(Patches { source, dim, grid })
    }

    /// Tokens before the patches, and the grid of the patches, in a sequence of `tokens`.
    fn prefix(&self, tokens: usize) -> Option<(usize, [usize; 2])> {
        let [height, width] = self.size;
        let patches = (1..=height.min(width))
            .filter(|patch| height.is_multiple_of(*patch) && width.is_multiple_of(*patch));
        patches
            .filter_map(|patch| {
                let grid = [height / patch, width / patch];
                let skip = tokens.checked_sub(grid[0] * grid[1])?;
                Some((skip, grid))
            })
            .filter(|(skip, _)| match self.choice.prefix {
                Some(prefix) => *skip == prefix,
                None => *skip <= MAX_PREFIX,
            })
            .min_by_key(|(skip, _)| *skip)
    }

    fn cls(&self, patches: Option<&Patches>) -> Result<Option<(ClsSource, usize)>, GraphError> {
        if let Some(name) = &self.choice.cls {
            let output = name.clone();
            let (cls, dim) = match self.named(name)? {
                Form::Vector { dim } => (ClsSource::Vector { output }, dim),
                Form::Sequence { dim, .. } => (ClsSource::First { output }, dim),
                Form::Map { .. } | Form::MapLast { .. } => {
                    return Err(self.refuse(format!("{name} is a feature map, no class token")));
                }
            };
            return match patches {
                Some(patches) if patches.dim != dim => Err(self.refuse(format!(
                    "the class token of {name} has {dim} values and a patch token {}",
                    patches.dim
                ))),
                _ => Ok(Some((cls, dim))),
            };
        }
        let vectors: Vec<(&str, usize)> = self
            .outputs
            .iter()
            .filter_map(|(name, shape)| match self.form(shape)? {
                Form::Vector { dim } => Some((*name, dim)),
                _ => None,
            })
            .filter(|(_, dim)| patches.is_none_or(|patches| patches.dim == *dim))
            .collect();
        let is_called_so = |name: &str| {
            let name = name.to_lowercase();
            name.contains("cls") || name.contains("class_token")
        };
        let called: Vec<_> = vectors
            .iter()
            .filter(|(name, _)| is_called_so(name))
            .collect();
        let vector = |(name, dim): (&str, usize)| {
            let output = name.to_owned();
            Ok(Some((ClsSource::Vector { output }, dim)))
        };
        if let [one] = called[..] {
            return vector(*one);
        }
        if let Some(Patches {
            source: PatchSource::Tokens { output, skip: 1.. },
            dim,
            ..
        }) = patches
        {
            let output = output.clone();
            return Ok(Some((ClsSource::First { output }, *dim)));
        }
        match vectors[..] {
            [] => Ok(None),
            [one] => vector(one),
            _ => Err(self.refuse(format!(
                "{} of them could be the class token",
                vectors.len()
            ))),
        }
    }

    fn named(&self, name: &str) -> Result<Form, GraphError> {
        let shape = self.outputs.iter().find(|(output, _)| *output == name);
        let (_, shape) = shape.ok_or_else(|| self.refuse(format!("none is called {name}")))?;
        self.form(shape)
            .ok_or_else(|| self.refuse(format!("{name} has a shape that holds no tokens")))
    }

    fn form(&self, shape: &[usize]) -> Option<Form> {
        match *shape {
            [1, dim] | [1, dim, 1, 1] => Some(Form::Vector { dim }),
            [1, tokens, dim] => Some(Form::Sequence { tokens, dim }),
            [1, dim, rows, columns] if self.is_grid([rows, columns]) => Some(Form::Map {
                dim,
                grid: [rows, columns],
            }),
            [1, rows, columns, dim] if self.is_grid([rows, columns]) => Some(Form::MapLast {
                dim,
                grid: [rows, columns],
            }),
            _ => None,
        }
        .filter(|_| shape.iter().all(|size| *size > 0))
    }

    /// Whether a stride makes this grid of the image, rounded down or up.
    fn is_grid(&self, grid: [usize; 2]) -> bool {
        let fits = |side: usize, count: usize, stride: usize| {
            count == side / stride || count == side.div_ceil(stride)
        };
        let [height, width] = self.size;
        (1..=height.max(width))
            .any(|stride| fits(height, grid[0], stride) && fits(width, grid[1], stride))
    }

    fn notes(&self, cls: &ClsSource, patches: &PatchSource) -> Vec<String> {
        let mut notes = Vec::new();
        match (cls, patches) {
            (ClsSource::Mean, _) => notes.push(
                "the graph has no class token: the mean of the patch tokens stands for it".to_owned(),
            ),
            (_, PatchSource::Cls) => notes.push(
                "the graph has no patch tokens: frames have one vector, and no place in a frame can be told"
                    .to_owned(),
            ),
            _ => {}
        }
        if let PatchSource::Tokens { output, skip } = patches
            && *skip > 1
        {
            notes.push(format!(
                "{output} has {skip} tokens before its patches: the first is taken for the class token, the others for registers"
            ));
        }
        let used = [cls.output(), patches.output()];
        let ignored = self
            .outputs
            .iter()
            .filter(|(name, _)| !used.contains(&Some(*name)));
        notes.extend(ignored.map(|(name, _)| format!("output {name} is not used")));
        notes
    }

    fn refuse(&self, reason: String) -> GraphError {
        let outputs = self.outputs.iter();
        let outputs: Vec<String> = outputs
            .map(|(name, shape)| format!("{name} {shape:?}"))
            .collect();
        GraphError::Outputs {
            reason,
            outputs: match outputs.is_empty() {
                true => "none in f32".to_owned(),
                false => outputs.join(", "),
            },
        }
    }
}

#[cfg(test)]
mod tests;
