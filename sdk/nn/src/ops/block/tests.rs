//! The kernels of blocks beside their single ops.

use candle_core::Var;

use super::*;
use crate::compute::{Precision, autocast};
use crate::ops::check::{kernel_equals_reference, random};

/// `x`, then the parameters in the order of [`BlockParams::affines`], weight before bias.
fn args(b: usize, t: usize, d: usize, h: usize) -> Result<Vec<Tensor>> {
    let shapes = [
        vec![b, t, d],
        vec![d],
        vec![d],
        vec![3 * d, d],
        vec![3 * d],
        vec![d, d],
        vec![d],
        vec![d],
        vec![d],
        vec![h, d],
        vec![h],
        vec![d, h],
        vec![d],
    ];
    let shapes = shapes.iter().enumerate();
    shapes
        .map(|(i, shape)| {
            random(shape, i as u64)? / (*shape.last().unwrap_or(&1) as f64).powf(0.25)
        })
        .collect()
}

fn params(args: &[Tensor], heads: usize, gelu: Gelu) -> Arc<BlockParams> {
    let affine = |i: usize| Affine {
        weight: args[1 + 2 * i].clone(),
        bias: args[2 + 2 * i].clone(),
    };
    Arc::new(BlockParams {
        norm1: affine(0),
        qkv: affine(1),
        proj: affine(2),
        norm2: affine(3),
        fc1: affine(4),
        fc2: affine(5),
        heads,
        gelu,
        eps: 1e-6,
    })
}

#[test]
fn equals_the_single_ops_in_f64() -> Result<()> {
    let paths = [vec![0.0, 1.25, 1.25], vec![2.0, 0.0, 2.0]];
    for (b, t, d, h, heads) in [(1, 1, 4, 8, 1), (3, 70, 48, 192, 3), (3, 5, 12, 20, 2)] {
        for gelu in [Gelu::Tanh, Gelu::Erf] {
            for paths in [None, (b == 3).then_some(&paths)] {
                kernel_equals_reference(
                    &|a| block(&a[0], &params(a, heads, gelu), paths),
                    &|a| block_reference(&a[0], &params(a, heads, gelu), paths),
                    &args(b, t, d, h)?,
                    2e-5,
                )?;
            }
        }
    }
    Ok(())
}

#[test]
fn in_bf16_it_is_the_block_but_for_rounding() -> Result<()> {
    let args = args(3, 37, 48, 96)?;
    let run = |precision| -> Result<Vec<Tensor>> {
        let vars: Vec<Var> = args.iter().map(Var::from_tensor).collect::<Result<_>>()?;
        let tensors: Vec<Tensor> = vars.iter().map(|v| v.as_tensor().clone()).collect();
        let params = params(&tensors, 3, Gelu::Tanh);
        let y = autocast(precision, || block(&tensors[0], &params, None))?;
        let grads = crate::backward(&y.sqr()?.sum_all()?)?;
        let grads = vars
            .iter()
            .map(|v| grads.get(v).expect("a gradient").clone());
        Ok([y].into_iter().chain(grads).collect())
    };
    let pairs = run(Precision::Bf16)?.into_iter().zip(run(Precision::F32)?);
    for (i, (got, want)) in pairs.enumerate() {
        let largest = |t: &Tensor| t.abs()?.max_all()?.to_scalar::<f32>();
        let off = largest(&(&got - &want)?)? / largest(&want)?;
        assert!((1e-5..2e-2).contains(&off), "output {i}: {off:e}");
    }
    Ok(())
}

#[test]
fn the_first_token_alone_is_the_blocks() -> Result<()> {
    let paths = [vec![0.0, 1.25, 1.25], vec![2.0, 0.0, 2.0]];
    for paths in [None, Some(&paths)] {
        kernel_equals_reference(
            &|a| block_first_token(&a[0], &params(a, 3, Gelu::Tanh), paths),
            &|a| block_reference(&a[0], &params(a, 3, Gelu::Tanh), paths)?.narrow(1, 0, 1),
            &args(3, 37, 48, 96)?,
            2e-5,
        )?;
    }
    Ok(())
}

#[test]
fn weights_used_twice_sum_their_gradients_and_a_graph_can_be_walked_again() -> Result<()> {
    let args = args(2, 6, 12, 24)?;
    let twice = |f: &dyn Fn(&Tensor) -> Result<Tensor>, x: &Tensor| f(&f(x)?);
    kernel_equals_reference(
        &|a| twice(&|x| block(x, &params(a, 2, Gelu::Tanh), None), &a[0]),
        &|a| {
            twice(
                &|x| block_reference(x, &params(a, 2, Gelu::Tanh), None),
                &a[0],
            )
        },
        &args,
        5e-5,
    )?;
    let weight = candle_core::Var::from_tensor(&args[3])?;
    let mut all = args.clone();
    all[3] = weight.as_tensor().clone();
    let loss = block(&all[0], &params(&all, 2, Gelu::Tanh), None)?
        .sqr()?
        .sum_all()?;
    let walk = || -> Result<Vec<Vec<f32>>> {
        crate::backward(&loss)?
            .get(&weight)
            .expect("a gradient")
            .to_vec2()
    };
    assert_eq!(walk()?, walk()?);
    let error = loss
        .backward()
        .expect_err("parameters need our own backward pass");
    assert!(
        error.to_string().contains("ssl_edge_nn::backward"),
        "{error}"
    );
    Ok(())
}

/// Output and gradients of two blocks in one type, where `x`, the first and the second may be trained.
fn two_blocks(dtype: DType, trained: [bool; 3], paths: &[PathFactors]) -> Result<Vec<Tensor>> {
    let (mut vars, mut tensors) = (Vec::new(), Vec::new());
    let second = args(2, 7, 12, 20)?.split_off(1);
    for (i, tensor) in args(2, 7, 12, 20)?.into_iter().chain(second).enumerate() {
        let var = Var::from_tensor(&tensor.to_dtype(dtype)?)?;
        let learns = trained[i.div_ceil(12)];
        tensors.push(match learns {
            true => var.as_tensor().clone(),
            false => var.as_detached_tensor(),
        });
        if learns {
            vars.push(var);
        }
    }
    let both = [
        params(&tensors, 3, Gelu::Tanh),
        params(&tensors[12..], 3, Gelu::Tanh),
    ];
    let y = blocks(&tensors[0], &both, paths)?;
    let grads = crate::backward(&y.sqr()?.sum_all()?)?;
    let grads = vars.iter().map(|var| grads.get(var).expect("a gradient"));
    [&y].into_iter()
        .chain(grads)
        .map(|t| t.to_dtype(DType::F64))
        .collect()
}

#[test]
fn whatever_is_frozen_the_others_gradients_are_those_of_the_single_ops() -> Result<()> {
    let dropped = [
        [vec![0.0, 1.25], vec![2.0, 0.0]],
        [vec![1.5, 0.0], vec![1.0, 3.0]],
    ];
    for trained in [
        [true, true, true],
        [false, true, true],
        [false, false, true],
        [false, true, false],
        [true, false, false],
    ] {
        for paths in [&dropped[..], &[]] {
            let found = two_blocks(DType::F32, trained, paths)?;
            let wanted = two_blocks(DType::F64, trained, paths)?;
            assert_eq!(found.len(), wanted.len());
            for (i, (found, wanted)) in found.iter().zip(&wanted).enumerate() {
                let largest = |t: &Tensor| t.abs()?.max_all()?.to_scalar::<f64>();
                let off = largest(&(found - wanted)?)? / largest(wanted)?;
                assert!(off < 2e-5, "{trained:?}, {i}: {off:e}");
            }
        }
    }
    Ok(())
}

#[test]
fn parameters_that_do_not_fit_are_errors() -> Result<()> {
    let mut wrong = args(1, 2, 8, 16)?;
    wrong[9] = random(&[16, 9], 1)?;
    assert!(block(&wrong[0], &params(&wrong, 2, Gelu::Tanh), None).is_err());
    let right = args(1, 2, 8, 16)?;
    let few = [vec![1.0], vec![]];
    assert!(block(&right[0], &params(&right, 2, Gelu::Tanh), Some(&few)).is_err());
    Ok(())
}
