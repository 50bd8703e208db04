//! How tokens are chosen: what a request asks for, and the draws, which depend on nothing but its seed and the place.

/// How likely tokens are chosen. The defaults for what a request leaves open are llama.cpp's.
#[derive(Clone, Debug)]
pub(in crate::llama) struct Settings {
    /// 0 takes the most likely token.
    pub(in crate::llama) temperature: f32,
    /// Keeps the most likely tokens whose probabilities add up to this.
    pub(in crate::llama) top_p: f32,
    /// Keeps this many; 0 all.
    pub(in crate::llama) top_k: usize,
    /// Keeps tokens at least this likely, relative to the most likely one.
    pub(in crate::llama) min_p: f32,
    /// Taken off a logit for each time the token was generated.
    pub(in crate::llama) frequency_penalty: f32,
    /// Taken off a logit once the token was generated.
    pub(in crate::llama) presence_penalty: f32,
    /// Divides the logit of a token that was generated.
    pub(in crate::llama) repetition_penalty: f32,
    /// Added to logits, by token id.
    pub(in crate::llama) bias: Vec<(u32, f32)>,
    /// The key of all draws.
    pub(in crate::llama) seed: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            temperature: 0.8,
            top_p: 0.95,
            top_k: 40,
            min_p: 0.05,
            frequency_penalty: 0.0,
            presence_penalty: 0.0,
            repetition_penalty: 1.0,
            bias: Vec::new(),
            seed: 0,
        }
    }
}

impl Settings {
    /// Whether the most likely token is always taken.
    pub(super) fn is_greedy(&self) -> bool {
        self.temperature <= 0.0
    }

    /// Whether what was made before matters.
    pub(super) fn penalises(&self) -> bool {
        self.frequency_penalty != 0.0 || self.presence_penalty != 0.0 || (self.repetition_penalty - 1.0).abs() > f32::EPSILON
    }

    /// Whether nothing is to be done to what the model says.
    pub(super) fn takes_logits_as_they_are(&self) -> bool {
        self.bias.is_empty() && !self.penalises()
    }

    /// A number in [0, 1) for one token of one choice: a counter-based generator (SplitMix64's finaliser, Steele and others 2014,
    /// over the key and the counters), so that it depends on nothing that was drawn before.
    pub(in crate::llama) fn draw(&self, choice: u32, position: usize) -> f64 {
        let mut state = mix(self.seed);
        state = mix(state ^ u64::from(choice));
        state = mix(state ^ position as u64);
        #[allow(clippy::cast_precision_loss)] // 53 bits fit
        let unit = (state >> 11) as f64 / (1u64 << 53) as f64;
        unit
    }
}

/// SplitMix64's finaliser.
pub(in crate::llama) fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
