//! Few-shot heads over embeddings and the job file
