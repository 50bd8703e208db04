//! A model file from the Hugging Face Hub, for who can reach it. It is kept in the Hub's own cache layout.

use std::path::{Path, PathBuf};

use hf_hub::{
    HFClient,
    progress::{DownloadEvent, ProgressEvent, ProgressHandler},
};

use super::{Error, progress::Progress};

/// The file, fetched if it is not there yet.
pub(super) async fn fetch(cache: &Path, owner: &str, repo: &str, file: &str) -> Result<PathBuf, Error> {
    let name = format!("{owner}/{repo}/{file}");
    let failed = |error: hf_hub::HFError| Error::Hub {
        name: name.clone(),
        said: chain(&error),
    };
    let _ = rustls::crypto::ring::default_provider().install_default(); // an error says that there is one already
    let client = HFClient::builder().cache_dir(cache).build().map_err(failed)?;
    let repository = client.model(owner, repo);
    let kept = repository.download_file().filename(file).local_files_only(true).send().await;
    if let Ok(path) = kept {
        return Ok(path);
    }
    let bar = Bar(Progress::new(&name, 0));
    repository.download_file().filename(file).progress(bar).send().await.map_err(failed)
}

/// An error with what caused it: the Hub's own says only that a request failed.
fn chain(error: &dyn std::error::Error) -> String {
    let mut said = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !said.contains(&more) {
            said = format!("{said}: {more}");
        }
        cause = error.source();
    }
    said
}

struct Bar(Progress);

impl ProgressHandler for Bar {
    fn on_progress(&self, event: &ProgressEvent) {
        match event {
            ProgressEvent::Download(DownloadEvent::Start { total_bytes, .. }) => self.0.set_total(*total_bytes),
            ProgressEvent::Download(DownloadEvent::Progress { files }) => self.0.set(files.iter().map(|file| file.bytes_completed).sum()),
            ProgressEvent::Download(DownloadEvent::AggregateProgress { bytes_completed, .. }) => self.0.set(*bytes_completed),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn without_a_network_the_error_names_the_file() {
        // Nothing listens on port 1 of the loopback interface.
        let dir = tempfile::tempdir().unwrap();
        let client = HFClient::builder()
            .endpoint("http://127.0.0.1:1")
            .cache_dir(dir.path())
            .retry_max_attempts(1)
            .build()
            .unwrap();
        let error = client.model("o", "r").download_file().filename("f.gguf").send().await.unwrap_err();
        let error = Error::Hub {
            name: "o/r/f.gguf".into(),
            said: chain(&error),
        };
        assert!(error.to_string().starts_with("o/r/f.gguf cannot be fetched"), "{error}");
    }
}
