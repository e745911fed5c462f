//! Differentiable ops, vision transformers, optimisers and schedules on candle
