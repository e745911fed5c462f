//! Trainable parameters by name, in sorted order, so that no result depends on a hash map's order.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use candle_core::{DType, Device, Shape, Tensor, Var};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Normal, Uniform};

use crate::Error;

/// One trainable tensor.
#[derive(Clone, Debug)]
pub struct Param {
    /// The value, updated in place by the optimiser.
    pub var: Var,
    /// Whether weight decay applies: not for biases, norms and other 1-D tensors.
    pub decay: bool,
}

/// How a new parameter starts.
#[derive(Clone, Copy, Debug)]
pub enum Init {
    /// Every value the same.
    Const(f64),
    /// Normal with this standard deviation, cut off at two of them (timm's `trunc_normal_` at ViT scales).
    TruncNormal(f64),
    /// Normal with this standard deviation.
    Normal(f64),
    /// Uniform in ±√(6 / (fan_in + fan_out)) of the tensor seen as a `[first dimension, rest]` matrix.
    XavierUniform,
}

/// Parameters by name, all on one device.
#[derive(Clone, Debug)]
pub struct Params {
    map: BTreeMap<String, Param>,
    device: Device,
}

impl Default for Params {
    fn default() -> Self {
        Self::on(&Device::Cpu)
    }
}

impl Init {
    /// Draws the values of a tensor of this shape.
    pub fn values(self, dims: &[usize], rng: &mut ChaCha8Rng) -> Vec<f32> {
        let n = dims.iter().product();
        match self {
            Self::Const(v) => vec![v as f32; n],
            Self::Normal(std) => draw(n, std, f64::INFINITY, rng),
            Self::TruncNormal(std) => draw(n, std, 2.0 * std, rng),
            Self::XavierUniform => {
                let fan_out = dims.first().copied().unwrap_or(1).max(1);
                let bound = (6.0 / (n / fan_out + fan_out) as f64).sqrt();
                let uniform = Uniform::new_inclusive(-bound, bound).expect("the bound is finite");
                (0..n).map(|_| uniform.sample(rng) as f32).collect()
            }
        }
    }
}

fn draw(n: usize, std: f64, limit: f64, rng: &mut ChaCha8Rng) -> Vec<f32> {
    let normal = Normal::new(0.0, std).expect("the deviation is finite");
    let mut one = || loop {
        let v: f64 = normal.sample(rng);
        if v.abs() <= limit {
            return v as f32;
        }
    };
    (0..n).map(|_| one()).collect()
}

impl Params {
    /// An empty registry of parameters on the CPU.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty registry of parameters on `device`.
    pub fn on(device: &Device) -> Self {
        Self {
            map: BTreeMap::new(),
            device: device.clone(),
        }
    }

    /// Where new parameters are put.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Adds a parameter with values drawn on the host; it decays if it has two dimensions or more. Returns its tensor, which follows later updates.
    ///
    /// # Errors
    /// If the name is taken.
    pub fn create(
        &mut self,
        name: &str,
        dims: &[usize],
        init: Init,
        rng: &mut ChaCha8Rng,
    ) -> Result<Tensor, Error> {
        let value = Tensor::from_vec(init.values(dims, rng), Shape::from(dims), &self.device)?;
        self.insert(name, Var::from_tensor(&value)?, dims.len() >= 2)
    }

    /// Adds a parameter. Returns its tensor, which follows later updates.
    ///
    /// # Errors
    /// If the name is taken.
    pub fn insert(&mut self, name: &str, var: Var, decay: bool) -> Result<Tensor, Error> {
        if self.map.contains_key(name) {
            return Err(Error::DuplicateParam {
                name: name.to_owned(),
            });
        }
        let tensor = var.as_tensor().clone();
        self.map.insert(name.to_owned(), Param { var, decay });
        Ok(tensor)
    }

    /// The parameter of this name.
    pub fn get(&self, name: &str) -> Option<&Param> {
        self.map.get(name)
    }

    /// Name and parameter, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Param)> {
        self.map.iter().map(|(name, param)| (name.as_str(), param))
    }

    /// Number of parameters (tensors).
    pub fn len(&self) -> usize {
        self.map.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.map.is_empty()
    }

    /// Number of values in all parameters.
    pub fn elem_count(&self) -> usize {
        self.map.values().map(|p| p.var.elem_count()).sum()
    }

    /// The values, without gradient, sharing memory with the parameters.
    pub fn to_map(&self) -> BTreeMap<String, Tensor> {
        self.map
            .iter()
            .map(|(n, p)| (n.clone(), p.var.as_detached_tensor()))
            .collect()
    }

    /// A copy with memory of its own.
    pub fn deep_clone(&self) -> Result<Self, Error> {
        let mut copy = Self::on(&self.device);
        for (name, p) in self.iter() {
            copy.insert(
                name,
                Var::from_tensor(&p.var.as_detached_tensor().copy()?)?,
                p.decay,
            )?;
        }
        Ok(copy)
    }

    /// Overwrites every value; `values` must have exactly these names and shapes.
    ///
    /// # Errors
    /// Names the first tensor that is missing, of another shape, or not known here.
    pub fn assign(&self, values: &BTreeMap<String, Tensor>) -> Result<(), Error> {
        if let Some(name) = values.keys().find(|n| !self.map.contains_key(*n)) {
            return Err(Error::UnexpectedTensor { name: name.clone() });
        }
        for (name, param) in &self.map {
            let value = values
                .get(name)
                .ok_or_else(|| Error::MissingTensor { name: name.clone() })?;
            expect_shape(name, value, param.var.dims())?;
            param.var.set(
                &value
                    .to_device(param.var.device())?
                    .to_dtype(param.var.dtype())?
                    .contiguous()?,
            )?;
        }
        Ok(())
    }
}

/// Checks a tensor's shape.
pub(crate) fn expect_shape(name: &str, tensor: &Tensor, dims: &[usize]) -> Result<(), Error> {
    if tensor.dims() == dims {
        return Ok(());
    }
    Err(Error::TensorShape {
        name: name.to_owned(),
        expected: dims.to_vec(),
        found: tensor.dims().to_vec(),
    })
}

/// Reads a safetensors file as f32 tensors on the CPU.
///
/// # Errors
/// If the file cannot be read or is not safetensors; the error names it.
pub fn load_tensors(path: &Path) -> Result<BTreeMap<String, Tensor>, Error> {
    let bytes = std::fs::read(path).map_err(|source| Error::Io {
        path: path.into(),
        source,
    })?;
    tensors_from_bytes(&bytes).map_err(|e| Error::Safetensors {
        path: path.into(),
        reason: e.to_string(),
    })
}

/// Reads safetensors from memory as f32 tensors on the CPU.
pub fn tensors_from_bytes(bytes: &[u8]) -> Result<BTreeMap<String, Tensor>, Error> {
    let tensors = candle_core::safetensors::load_buffer(bytes, &Device::Cpu)?;
    tensors
        .into_iter()
        .map(|(name, t)| Ok((name, t.to_dtype(DType::F32)?)))
        .collect()
}

/// Writes tensors as safetensors bytes, in order of their names.
pub fn tensors_to_bytes(tensors: &BTreeMap<String, Tensor>) -> Result<Vec<u8>, Error> {
    let sorted: Vec<(&String, &Tensor)> = tensors.iter().collect();
    safetensors::serialize(sorted, None::<HashMap<String, String>>)
        .map_err(|e| Error::Candle(candle_core::Error::wrap(e)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_chacha::rand_core::SeedableRng;

    fn params(seed: u64) -> Params {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut p = Params::new();
        p.create("b.weight", &[3, 4], Init::XavierUniform, &mut rng)
            .unwrap();
        p.create("a.bias", &[3], Init::Const(0.5), &mut rng)
            .unwrap();
        p
    }

    #[test]
    fn names_are_sorted_and_one_dimension_does_not_decay() {
        let p = params(1);
        let names: Vec<_> = p.iter().map(|(n, p)| (n.to_owned(), p.decay)).collect();
        assert_eq!(
            names,
            [("a.bias".to_owned(), false), ("b.weight".to_owned(), true)]
        );
        assert_eq!(p.elem_count(), 15);
    }

    #[test]
    fn values_survive_the_file() -> Result<(), Error> {
        let (p, q) = (params(1), params(2));
        let bytes = tensors_to_bytes(&p.to_map())?;
        q.assign(&tensors_from_bytes(&bytes)?)?;
        let flat = |p: &Params| {
            p.get("b.weight")
                .unwrap()
                .var
                .flatten_all()
                .unwrap()
                .to_vec1::<f32>()
                .unwrap()
        };
        assert_eq!(flat(&p), flat(&q));
        Ok(())
    }

    #[test]
    fn deep_clone_does_not_follow() -> Result<(), Error> {
        let p = params(1);
        let copy = p.deep_clone()?;
        p.assign(&params(2).to_map())?;
        let first = |p: &Params| {
            p.get("b.weight")
                .unwrap()
                .var
                .get(0)
                .unwrap()
                .to_vec1::<f32>()
                .unwrap()
        };
        assert_ne!(first(&p), first(&copy));
        Ok(())
    }

    #[test]
    fn wrong_sets_of_tensors_are_named() {
        let p = params(1);
        let mut map = p.to_map();
        map.remove("a.bias");
        assert!(matches!(p.assign(&map), Err(Error::MissingTensor { name }) if name == "a.bias"));
        let mut map = p.to_map();
        map.insert("c".into(), map["a.bias"].clone());
        assert!(matches!(p.assign(&map), Err(Error::UnexpectedTensor { name }) if name == "c"));
        let mut map = p.to_map();
        map.insert("a.bias".into(), map["b.weight"].clone());
        assert!(matches!(p.assign(&map), Err(Error::TensorShape { .. })));
    }

    #[test]
    fn initial_values_follow_their_law() {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let v = Init::TruncNormal(0.02).values(&[100, 100], &mut rng);
        let std = (v.iter().map(|x| (x * x) as f64).sum::<f64>() / v.len() as f64).sqrt();
        assert!(
            v.iter().all(|x| x.abs() <= 0.04) && (std - 0.0176).abs() < 4e-4,
            "{std}"
        );
        let v = Init::XavierUniform.values(&[30, 70], &mut rng);
        let bound = (6.0f32 / 100.0).sqrt();
        assert!(v.iter().all(|x| x.abs() <= bound) && v.iter().any(|x| x.abs() > 0.95 * bound));
    }
}
