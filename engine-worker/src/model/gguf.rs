//! Whether a file is a GGUF model, by its header (<https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>).
//!
//! llama.cpp reads the rest, and refuses a file whose tensors lie past its end. Much of what is wrong with a file is told more clearly here.

use std::{fs::File, io::Read, path::Path};

use super::Error;

const MAGIC: [u8; 4] = *b"GGUF";
/// The versions that llama.cpp reads.
const VERSIONS: std::ops::RangeInclusive<u32> = 2..=3;
/// Magic, version, and the counts of tensors and of metadata.
const HEADER: usize = 24;
/// More tensors or metadata than any model has.
const MAX_COUNT: u64 = 1 << 20;

/// Checks that it is there, and is a model.
pub(super) fn check(path: &Path) -> Result<(), Error> {
    let unreadable = |cause| Error::Unreadable { path: path.into(), cause };
    let wrong = |why: &str| Error::NotGguf {
        path: path.into(),
        why: why.into(),
    };
    let mut file = File::open(path).map_err(unreadable)?;
    let about = file.metadata().map_err(unreadable)?;
    if !about.is_file() {
        return Err(wrong("it is no file"));
    }
    let mut header = Vec::new();
    file.by_ref().take(HEADER as u64).read_to_end(&mut header).map_err(unreadable)?;
    if !header.starts_with(&MAGIC) {
        return Err(wrong("it does not begin with the letters GGUF"));
    }
    if header.len() < HEADER {
        return Err(wrong("it ends within its header"));
    }
    let version = number(&header[4..8]);
    if !VERSIONS.contains(&u32::try_from(version).unwrap_or(u32::MAX)) {
        return Err(wrong(&format!("its version of GGUF is {version}, and 2 or 3 can be read")));
    }
    let (tensors, metadata) = (number(&header[8..16]), number(&header[16..24]));
    if tensors == 0 {
        return Err(wrong("it has no tensors"));
    }
    if tensors > MAX_COUNT || metadata > MAX_COUNT {
        return Err(wrong("its header is damaged"));
    }
    Ok(())
}

/// A number, the lowest byte first.
fn number(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(version: u32, tensors: u64, metadata: u64) -> Vec<u8> {
        [
            MAGIC.as_slice(),
            &version.to_le_bytes(),
            &tensors.to_le_bytes(),
            &metadata.to_le_bytes(),
        ]
        .concat()
    }

    #[test]
    fn what_is_no_model_is_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model.gguf");
        for (bytes, why) in [
            (b"PK\x03\x04".to_vec(), "letters GGUF"),
            (Vec::new(), "letters GGUF"),
            (header(3, 1, 1)[..20].to_vec(), "within its header"),
            (header(1, 1, 1), "version"),
            (header(3, 0, 1), "no tensors"),
            (header(3, u64::MAX, 1), "damaged"),
        ] {
            std::fs::write(&path, bytes).unwrap();
            let error = check(&path).unwrap_err().to_string();
            assert!(error.contains(why) && error.contains("model.gguf"), "{error}");
        }
        std::fs::write(&path, header(3, 1, 1)).unwrap();
        check(&path).unwrap();
        assert!(check(dir.path()).unwrap_err().to_string().contains("no file"));
    }
}
