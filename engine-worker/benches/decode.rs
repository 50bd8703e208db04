//! The engine beside a bare loop over llama.cpp with the same batches: what the scheduler, the sampler and the journal cost.
//!
//! `cargo bench --workspace --bench decode` prints lines of JSON: decode tokens per second of both, at 1 answer and at as many as there are
//! seats, and their ratio, the median of rounds that take turns. Run it where nothing else runs: threads that wait for each other measure
//! the neighbours. After `--` come the worker's own flags, for another model, say, or more seats.

use std::{
    num::NonZeroU32,
    sync::Arc,
    time::{Duration, Instant},
};

use clap::Parser;
use engine_worker::{
    answer::Answer,
    engine::Engine,
    llama::{self, Llama, Settings},
    model,
};
use journal::{Journal, Limits};
use llama_cpp_2::{
    context::{
        LlamaContext,
        params::{KvCacheType, LlamaContextParams},
    },
    llama_batch::LlamaBatch,
    model::{LlamaModel, params::LlamaModelParams},
    token::LlamaToken,
};
use proto::v1::{ChatRequest, GenerateRequest, Sampling};
use tokio_util::sync::CancellationToken;

const PROMPT: &str = "Write a very long story about the sea.";
/// That prompt as the default model's template writes it.
const WRITTEN: &str = "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n\
                       <|im_start|>user\nWrite a very long story about the sea.<|im_end|>\n<|im_start|>assistant\n";
const TOKENS: u32 = 64;
const ROUNDS: usize = 7;
const CONTEXT: u32 = 512;

/// Measures the llama engine.
#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    engine: Settings,
    /// Choose tokens by the default sampling, and not the most likely ones. The bare loop takes the most likely ones in any case
    #[arg(long)]
    sampled: bool,
    /// Cargo's own
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let Arguments {
        engine: settings, sampled, ..
    } = Arguments::parse();
    let settings = Settings {
        llama_context: CONTEXT,
        ..settings
    };
    let seats = settings.llama_seats;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let threads = std::thread::available_parallelism()?;
    let engine = runtime.block_on(Llama::load(settings.clone()))?;
    let backend = llama::backend()?;
    let path = runtime.block_on(model::locate(&settings.source))?;
    let model = LlamaModel::load_from_file(&backend, path, &LlamaModelParams::default())?;
    let parameters = LlamaContextParams::default()
        .with_n_ctx(NonZeroU32::new(CONTEXT * seats))
        .with_n_seq_max(seats)
        .with_n_threads(i32::try_from(threads.get())?)
        .with_n_threads_batch(i32::try_from(threads.get())?);
    let parameters = if backend.supports_gpu_offload() {
        parameters.with_n_batch(512 + seats).with_kv_unified(true)
    } else {
        parameters
            .with_n_batch(128 + seats)
            .with_n_ubatch(32)
            .with_kv_unified(false)
            .with_type_k(KvCacheType::F16)
            .with_type_v(KvCacheType::BF16)
    };
    let mut bare = Bare {
        prompt: model.vocab().tokenize(WRITTEN.as_bytes(), false, true),
        context: model.new_context(&backend, parameters)?,
        batch: LlamaBatch::new(256, 1),
    };
    for answers in [1, seats] {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for round in 0..=ROUNDS {
            let (one, other) = (runtime.block_on(through_engine(&engine, answers, sampled)), bare.run(answers)?);
            if round > 0 {
                ours.push(one); // the first fills the cache
                theirs.push(other);
            }
        }
        let rate = |times: &mut Vec<Duration>| {
            times.sort_unstable();
            f64::from(answers * TOKENS) / times[times.len() / 2].as_secs_f64()
        };
        let (ours, theirs) = (rate(&mut ours), rate(&mut theirs));
        let line = serde_json::json!({
            "bench": "llama", "answers": answers, "tokens_per_second": ours.round(), "bare_tokens_per_second": theirs.round(),
            "ratio": (ours / theirs * 1000.0).round() / 1000.0,
        });
        #[allow(clippy::print_stdout)] // its output
        {
            println!("{line}");
        }
    }
    Ok(())
}

/// The time that the engine takes for so many answers. Their prompt is in the cache but for its last token.
async fn through_engine(engine: &Arc<Llama>, answers: u32, sampled: bool) -> Duration {
    let request = GenerateRequest {
        stream_id: "bench".into(),
        request: Some(ChatRequest {
            prompt: PROMPT.into(),
            max_tokens: Some(TOKENS),
            sampling: Some(Sampling {
                temperature: (!sampled).then_some(0.0),
                seed: Some(1),
                ..Sampling::default()
            }),
            ..ChatRequest::default()
        }),
        ..GenerateRequest::default()
    };
    let mut prepared = Vec::new();
    for _ in 0..answers {
        prepared.extend(engine.prepare(request.clone()).await.ok());
    }
    let began = Instant::now();
    let mut readers = Vec::new();
    for one in prepared {
        let journal = Journal::new(Limits::default());
        readers.push(journal.reader(0));
        if let Ok(writer) = journal.claim(1) {
            one.begin(Answer::new(writer, CancellationToken::new(), 0, &[], None));
        }
    }
    let mut tokens = 0;
    for mut reader in readers {
        while let Some(more) = reader.read(1000).await {
            tokens += more.iter().map(|entry| entry.tokens).sum::<u32>();
        }
    }
    let took = began.elapsed();
    assert_eq!(tokens, answers * TOKENS, "an answer ended early: another prompt is needed");
    took
}

/// The loop that anybody would write.
struct Bare<'model> {
    prompt: Vec<LlamaToken>,
    context: LlamaContext<'model>,
    batch: LlamaBatch<'static>,
}

impl Bare<'_> {
    /// The time that it takes for so many answers, from the last token of their prompt on.
    fn run(&mut self, answers: u32) -> Result<Duration, Box<dyn std::error::Error>> {
        self.context.clear_kv_cache();
        let sequences = i32::try_from(answers)?;
        let last = self.prompt.len() - 1;
        for sequence in 0..sequences {
            self.batch.clear();
            for (position, &token) in self.prompt[..last].iter().enumerate() {
                self.batch.add(token, i32::try_from(position)?, &[sequence], false)?;
            }
            self.context.decode(&mut self.batch)?;
        }
        self.context.synchronize();
        let mut next = vec![self.prompt[last]; answers as usize];
        let began = Instant::now();
        for step in 0..TOKENS {
            self.batch.clear();
            for (sequence, &token) in (0..sequences).zip(&next) {
                self.batch
                    .add(token, i32::try_from(last)? + i32::try_from(step)?, &[sequence], true)?;
            }
            self.context.decode(&mut self.batch)?;
            for (row, next) in (0..sequences).zip(&mut next) {
                *next = most_likely(self.context.get_logits_ith(row));
            }
        }
        Ok(began.elapsed())
    }
}

fn most_likely(logits: &[f32]) -> LlamaToken {
    let mut best = (0, f32::NEG_INFINITY);
    for (id, &logit) in (0..).zip(logits) {
        if logit > best.1 {
            best = (id, logit);
        }
    }
    LlamaToken::new(best.0)
}
