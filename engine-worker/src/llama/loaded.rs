//! The model in memory, and all that does not change while it runs.
//!
//! [`Llama::load`](super::Llama::load) calls it once. Makes no context: that is the scheduler's.

use std::{path::Path, sync::Arc};

use llama_cpp_2::{
    llama_backend::LlamaBackend,
    model::{LlamaModel, params::LlamaModelParams},
};
use parking_lot::Mutex;

use super::{
    Error, Settings, batch, log,
    speech::{Dialect, ThoughtMarks},
    template::ChatTemplate,
    tokens::Vocabulary,
    watch::Watch,
};

/// Prompt tokens in one step while answers run: what they wait for a newcomer, on a CPU and where a GPU helps.
const PREFILL_BESIDE: (usize, usize) = (32, 512);
/// And while none runs: what a newcomer waits for the one before it.
const PREFILL_ALONE: (usize, usize) = (128, 2048);

/// The model, and all that does not change while it runs.
pub(super) struct Loaded {
    pub(super) model: LlamaModel,
    pub(super) backend: Arc<LlamaBackend>,
    pub(super) vocabulary: Arc<Vocabulary>,
    pub(super) template: ChatTemplate,
    /// How it writes calls.
    pub(super) dialect: Dialect,
    /// How it marks thoughts, if it thinks.
    pub(super) thoughts: Option<ThoughtMarks>,
    /// Over the compiling of grammars.
    pub(super) watch: Watch,
    /// The text of the token that begins an input.
    pub(super) bos: String,
    pub(super) id: String,
    pub(super) seats: u32,
    /// Tokens that each seat holds.
    pub(super) context: usize,
    pub(super) threads: i32,
    pub(super) exact: bool,
    pub(super) gpu: bool,
    pub(super) chat: bool,
}

impl Loaded {
    /// Cells of the KV cache.
    pub(super) fn cells(&self) -> u32 {
        u32::try_from(self.context).unwrap_or(u32::MAX).saturating_mul(self.seats)
    }

    pub(super) fn limits(&self) -> batch::Limits {
        let of = |(cpu, gpu): (usize, usize)| if self.gpu { gpu } else { cpu };
        // llama.cpp makes n_batch no larger than the context: no more than the smallest context may hold.
        let prefill_alone = of(PREFILL_ALONE).min(self.context / 2);
        batch::Limits {
            tokens: prefill_alone + self.seats as usize,
            prefill_beside: of(PREFILL_BESIDE).min(prefill_alone),
            prefill_alone,
        }
    }
}

/// The processor features that llama.cpp's static build is compiled for; without them it would die of an illegal instruction.
pub(super) fn check_processor() -> Result<(), Error> {
    #[cfg(all(target_arch = "x86_64", not(feature = "dynamic-backends")))]
    for (name, present) in [
        ("AVX2", is_x86_feature_detected!("avx2")),
        ("FMA", is_x86_feature_detected!("fma")),
        ("F16C", is_x86_feature_detected!("f16c")),
        ("BMI2", is_x86_feature_detected!("bmi2")),
    ] {
        if !present {
            return Err(Error::Processor(name));
        }
    }
    Ok(())
}

/// llama.cpp's global state: made once, and there as long as anything uses it. The bench of the engine against a bare loop needs it too.
///
/// # Errors
/// [`Error::Backend`].
pub fn backend() -> Result<Arc<LlamaBackend>, Error> {
    static BACKEND: Mutex<std::sync::Weak<LlamaBackend>> = Mutex::new(std::sync::Weak::new());
    let mut kept = BACKEND.lock();
    if let Some(backend) = kept.upgrade() {
        return Ok(backend);
    }
    log::redirect();
    let backend = Arc::new(LlamaBackend::init().map_err(Error::Backend)?);
    *kept = Arc::downgrade(&backend);
    Ok(backend)
}

/// Loads a model file, onto the GPU as far as the settings say.
///
/// # Errors
/// [`Error::Load`].
pub(super) fn model(backend: &LlamaBackend, settings: &Settings, path: &Path) -> Result<LlamaModel, Error> {
    let mut parameters = LlamaModelParams::default();
    if let Some(layers) = settings.llama_gpu_layers {
        parameters = parameters.with_n_gpu_layers(layers);
    }
    LlamaModel::load_from_file(backend, path, &parameters).map_err(|_| Error::Load {
        path: path.into(),
        said: log::last_error(),
    })
}

pub(super) fn load(settings: &Settings, path: &Path) -> Result<Loaded, Error> {
    let backend = backend()?;
    let gpu = backend.supports_gpu_offload() && settings.llama_gpu_layers != Some(0);
    let model = model(&backend, settings, path)?;
    let vocab = model.vocab();
    let text = |token| String::from_utf8_lossy(&vocab.token_to_piece(token, true, None)).into_owned();
    let special = |token: llama_cpp_2::token::LlamaToken| if token.0 < 0 { String::new() } else { text(token) };
    let (bos, eos) = (special(vocab.bos()), special(vocab.eos()));
    let source = model.meta_val_str("tokenizer.chat_template").ok();
    let shown = source.as_deref().unwrap_or_default();
    let dialect = Dialect::of(settings.llama_tools, shown);
    let thoughts = ThoughtMarks::of(shown);
    let mut marks = dialect.family.marks();
    marks.extend(thoughts.iter().flat_map(|marks| [marks.open, marks.close]));
    let template = ChatTemplate::new(source, [bos.clone(), eos], dialect, settings.llama_thinking).map_err(Error::Template)?;
    let trained = model.n_ctx_train();
    let architecture = model.meta_val_str("general.architecture").unwrap_or_default();
    Ok(Loaded {
        vocabulary: Arc::new(Vocabulary::read(&model, &marks)),
        template,
        dialect,
        thoughts,
        watch: Watch::default(),
        bos,
        id: settings.source.name(path),
        seats: settings.llama_seats,
        context: settings.llama_context.min(trained) as usize,
        threads: settings.threads(),
        exact: settings.llama_exact && !gpu,
        gpu,
        chat: !architecture.contains("bert"),
        backend,
        model,
    })
}
