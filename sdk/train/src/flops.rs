//! Floating-point operations of a training step: the matrix products, which are all but a few per cent of it.

use ssl_edge_nn::VitConfig;

use crate::config::TrainConfig;
use crate::error::Result;

/// Backward over forward: each product has one for its input's gradient and one for its weight's.
const FORWARD_AND_BACKWARD: f64 = 3.0;

/// Operations (a multiplication and an addition are two) of one step at the configuration's global batch.
pub(crate) fn step_flops(config: &TrainConfig) -> Result<f64> {
    let (encoder, images) = (&config.encoder, config.schedule.batch as f64);
    let dim = encoder.dim as f64;
    let pixels = (3 * encoder.patch * encoder.patch) as f64;
    if let Some(mae) = &config.mae {
        let n = encoder
            .grid(config.encoder.image_size)?
            .iter()
            .product::<usize>() as f64;
        let visible = n - (n * mae.mask_ratio).floor();
        let width = mae.decoder.dim as f64;
        let decoder = VitConfig {
            dim: mae.decoder.dim,
            depth: mae.decoder.depth,
            ..encoder.clone()
        };
        let latent = visible + encoder.n_prefix() as f64;
        let embed = 2.0 * latent * dim * width;
        let predict = 2.0 * (n - visible) * width * pixels;
        // the patch projection's input has no gradient
        let projection = 2.0 * visible * pixels * dim * 2.0;
        let rest = blocks(encoder, latent) + embed + blocks(&decoder, 1.0 + n) + predict;
        return Ok(images * (projection + FORWARD_AND_BACKWARD * rest));
    }
    let dino = config.dino()?;
    let head = {
        let (hidden, bottleneck) = (dino.head.hidden as f64, dino.head.bottleneck as f64);
        let mlp = dim * hidden + hidden * hidden + hidden * bottleneck;
        2.0 * (mlp + bottleneck * dino.head.out_dim as f64)
    };
    let view = |height: u32, width: u32| -> Result<[f64; 2]> {
        let n = encoder
            .grid([height as usize, width as usize])?
            .iter()
            .product::<usize>() as f64;
        let tokens = n + encoder.n_prefix() as f64;
        Ok([
            2.0 * n * pixels * dim,
            blocks_for_cls(encoder, tokens) + head,
        ])
    };
    let mut flops = 0.0;
    for global in &dino.crops.globals {
        let [projection, rest] = view(global.height, global.width)?;
        // student and teacher
        flops += (2.0 + 1.0) * projection + (FORWARD_AND_BACKWARD + 1.0) * rest;
    }
    let [projection, rest] = view(dino.crops.local.height, dino.crops.local.width)?;
    flops += dino.crops.n_locals as f64 * (2.0 * projection + FORWARD_AND_BACKWARD * rest);
    Ok(images * flops)
}

/// Forward pass of all blocks on one image of `tokens` tokens.
fn blocks(config: &VitConfig, tokens: f64) -> f64 {
    let d = config.dim as f64;
    let linear = 2.0 * (4.0 + 2.0 * config.mlp_ratio as f64) * d * d;
    let attention = 4.0 * tokens * d;
    config.depth as f64 * tokens * (linear + attention)
}

/// The same where CLS alone is read: the last block has keys and values of all tokens, and one token of all else.
fn blocks_for_cls(config: &VitConfig, tokens: f64) -> f64 {
    let block = |depth| VitConfig {
        depth,
        ..config.clone()
    };
    let d = config.dim as f64;
    let keys_and_values = 4.0 * d * d;
    let one = blocks(&block(1), 1.0) - keys_and_values - 4.0 * d;
    let last = tokens * (keys_and_values + 4.0 * d) + one;
    blocks(&block(config.depth - 1), tokens) + last
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::MethodName;

    #[test]
    fn a_vit_s_forward_pass_is_the_literatures_4_6_gmac() {
        let config = VitConfig::named("vit_s16").unwrap();
        let projection = 2.0 * 196.0 * 768.0 * 384.0;
        let gmac = (blocks(&config, 197.0) + projection) / 2e9;
        assert!((gmac - 4.6).abs() < 0.05, "{gmac}"); // DeiT-S, Touvron et al. 2021
    }

    #[test]
    fn a_last_block_for_cls_is_what_its_products_are() {
        let config = VitConfig {
            depth: 1,
            ..VitConfig::named("vit_s16").unwrap()
        };
        let (d, t, h) = (384.0, 197.0, 4.0 * 384.0);
        let keys_and_values = t * d * 2.0 * d;
        let attention = 2.0 * t * d;
        let query_projection_and_mlp = d * d + d * d + 2.0 * d * h;
        let wanted = 2.0 * (keys_and_values + attention + query_projection_and_mlp);
        assert!((blocks_for_cls(&config, t) - wanted).abs() < 1e-9 * wanted);
        let whole = VitConfig::named("vit_s16").unwrap();
        let saved = 1.0 - blocks_for_cls(&whole, t) / blocks(&whole, t);
        assert!((0.06..0.075).contains(&saved), "{saved}"); // five sixths of one of 12
    }

    #[test]
    fn a_step_grows_with_the_batch_and_dino_counts_teacher_and_crops() {
        let flops = |method, batch, locals: Option<usize>| {
            let mut config = TrainConfig::preset(method, "vit_n16", 1).unwrap();
            config.schedule.batch = batch;
            if let (Some(dino), Some(n)) = (&mut config.dino, locals) {
                dino.crops.n_locals = n;
            }
            step_flops(&config).unwrap()
        };
        for method in MethodName::ALL {
            assert_eq!(flops(method, 8, None), 2.0 * flops(method, 4, None));
        }
        let (none, two, four) = (
            flops(MethodName::Dino, 4, Some(0)),
            flops(MethodName::Dino, 4, Some(2)),
            flops(MethodName::Dino, 4, Some(4)),
        );
        assert!(none > 0.0 && (four - two - (two - none)).abs() < 1e-6 * four);
    }
}
