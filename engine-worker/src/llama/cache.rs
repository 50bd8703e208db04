//! The context of llama.cpp with its KV cache: how it is made, and what the scheduler does to its sequences.
//!
//! *Exact* means that a token's logits depend on the tokens before it alone, to the last bit: not on what else is in the batch, how the
//! prompt was cut into chunks, or what was in the cache before. Four things of llama.cpp's CPU code break that, and are avoided here:
//!
//! - Flash attention changes to a kernel that rounds differently at 64 rows, and splits the cache among threads for a single row
//!   over 512 cells or more. Both need keys and values of one type (`ggml_compute_forward_flash_attn_ext`), so values get another one.
//! - In a cache that all sequences share, a sequence's cells may come to lie in another order, and so be summed in another order.
//!   Sequences therefore have a part of the cache each, where cell i always holds position i.
//! - Matrix products depend on the rows beside them only past what was measured here, 32 rows: so many go through the model at once.

use std::num::NonZeroU32;

use llama_cpp_2::{
    LlamaStateSeqFlags,
    context::{
        LlamaContext,
        params::{KvCacheType, LlamaContextParams},
    },
};

use super::Loaded;

/// Rows that go through the model at once where that must be exact.
const EXACT_UBATCH: u32 = 32;
/// And where it need not.
const FAST_UBATCH: u32 = 512;

/// A context for the scheduler's sequences, one for each seat.
pub(super) fn parameters(loaded: &Loaded) -> LlamaContextParams {
    let cells = loaded.cells();
    let batch = u32::try_from(loaded.limits().tokens).unwrap_or(u32::MAX);
    let common = LlamaContextParams::default()
        .with_n_ctx(NonZeroU32::new(cells))
        .with_n_batch(batch)
        .with_n_seq_max(loaded.seats)
        .with_n_threads(loaded.threads)
        .with_n_threads_batch(loaded.threads)
        .with_no_perf(true);
    if loaded.exact {
        common
            .with_n_ubatch(EXACT_UBATCH.min(batch))
            .with_kv_unified(false)
            .with_type_k(KvCacheType::F16)
            .with_type_v(KvCacheType::BF16)
    } else {
        common.with_n_ubatch(FAST_UBATCH.min(batch)).with_kv_unified(true)
    }
}

/// Cuts a sequence to its first `keep` tokens. Says how many are left: none, if the model's memory cannot be cut in the middle.
pub(super) fn truncate(context: &mut LlamaContext<'_>, slot: usize, keep: usize) -> usize {
    let (sequence, from) = (u32::try_from(slot).ok(), u32::try_from(keep).ok());
    if context.clear_kv_cache_seq(sequence, from, None).unwrap_or(false) {
        return keep;
    }
    let _ = context.clear_kv_cache_seq(sequence, None, None); // a whole sequence can always be cleared
    0
}

/// Makes a sequence begin with the first `keep` tokens of another. Says how many it holds then.
pub(super) fn share(context: &mut LlamaContext<'_>, exact: bool, from: usize, to: usize, keep: usize) -> usize {
    let (Ok(source), Ok(target)) = (i32::try_from(from), i32::try_from(to)) else {
        return 0;
    };
    if exact {
        // Copies the cells in use; `copy_kv_cache_seq` would copy the whole part of the cache.
        let copied = context
            .state_seq_get(source, LlamaStateSeqFlags::empty())
            .and_then(|state| context.state_seq_set(&state, target));
        return if copied.is_ok() {
            truncate(context, to, keep)
        } else {
            truncate(context, to, 0)
        };
    }
    truncate(context, to, 0);
    match context.copy_kv_cache_seq(source, target, Some(0), u32::try_from(keep).ok()) {
        Ok(()) => keep,
        Err(_) => truncate(context, to, 0),
    }
}
