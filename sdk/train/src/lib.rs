//! Self-supervised pretraining: methods, trainer, checkpoints
