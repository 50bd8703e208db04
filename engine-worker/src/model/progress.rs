//! How far a download is: a bar on a terminal, a line in the log elsewhere.

use indicatif::{ProgressBar, ProgressStyle};

/// Something that is being fetched. Dropping it takes the bar away.
pub(super) struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// Begins. `total` is in bytes; 0 if it is not known yet.
    pub(super) fn new(what: &str, total: u64) -> Self {
        let bar = ProgressBar::new(total); // draws to stderr, and nothing where that is no terminal
        if let Ok(style) = ProgressStyle::with_template("{msg} [{bar:30}] {bytes}/{total_bytes} {elapsed}") {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.set_message(what.to_owned());
        if bar.is_hidden() {
            tracing::info!(what, megabytes = total / 1_000_000, "fetching the model");
        }
        Self { bar }
    }

    /// So many bytes are there.
    pub(super) fn set(&self, bytes: u64) {
        self.bar.set_position(bytes);
    }

    /// So many there will be.
    #[cfg(feature = "llama")]
    pub(super) fn set_total(&self, bytes: u64) {
        self.bar.set_length(bytes);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
