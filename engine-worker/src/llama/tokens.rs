//! The model's vocabulary, read once: what bytes each token stands for, and which ones end an answer.
//!
//! Everything that turns ids into text uses this copy, so that it needs neither the model nor a call into C++ for each token.

use llama_cpp_2::{model::LlamaModel, token::LlamaToken};

/// Bytes by token id.
#[derive(Debug)]
pub(super) struct Vocabulary {
    bytes: Vec<u8>,
    ends: Vec<usize>,
    eog: Vec<bool>,
    /// The token of each byte that is one.
    single: Vec<Option<u32>>,
}

impl Vocabulary {
    /// Reads a model's. Control tokens stand for no bytes, save those that are one of these marks.
    pub(super) fn read(model: &LlamaModel, marks: &[&str]) -> Self {
        let vocab = model.vocab();
        let piece = |token| {
            let piece = vocab.token_to_piece(token, false, None);
            if piece.is_empty() {
                let shown = vocab.token_to_piece(token, true, None);
                if marks.iter().any(|mark| mark.as_bytes() == shown) {
                    return shown;
                }
            }
            piece
        };
        Self::collect(vocab.tokens().map(|token| (piece(token), vocab.is_eog(token))))
    }

    fn collect(tokens: impl Iterator<Item = (Vec<u8>, bool)>) -> Self {
        let mut vocabulary = Self {
            bytes: Vec::new(),
            ends: Vec::new(),
            eog: Vec::new(),
            single: vec![None; 256],
        };
        for (id, (piece, eog)) in (0..).zip(tokens) {
            if let [byte] = *piece.as_slice() {
                vocabulary.single[usize::from(byte)].get_or_insert(id);
            }
            vocabulary.bytes.extend_from_slice(&piece);
            vocabulary.ends.push(vocabulary.bytes.len());
            vocabulary.eog.push(eog);
        }
        vocabulary
    }

    /// A small one: a token for each text, then one that ends an answer.
    #[cfg(test)]
    pub(super) fn of(pieces: &[&[u8]]) -> Self {
        let texts = pieces.iter().map(|piece| (piece.to_vec(), false));
        Self::collect(texts.chain(std::iter::once((Vec::new(), true))))
    }

    /// How many tokens there are.
    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    /// The bytes of a token; none for an id that does not exist.
    pub(super) fn piece(&self, id: u32) -> &[u8] {
        let id = id as usize;
        let Some(&end) = self.ends.get(id) else { return &[] };
        let start = id.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.bytes[start..end]
    }

    /// The token that stands for this byte alone, if one does.
    pub(super) fn single(&self, byte: u8) -> Option<u32> {
        self.single[usize::from(byte)]
    }

    /// Whether an answer ends with this token.
    pub(super) fn is_eog(&self, id: u32) -> bool {
        self.eog.get(id as usize).copied().unwrap_or(false)
    }
}

/// llama.cpp's own type for an id. Ids beyond `i32` do not exist, and become the invalid −1.
pub(super) fn native(id: u32) -> LlamaToken {
    LlamaToken::new(i32::try_from(id).unwrap_or(-1))
}

/// The id of llama.cpp's own type. Its "no such token" is negative, and becomes one that does not exist.
pub(super) fn id(token: LlamaToken) -> u32 {
    u32::try_from(token.0).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_token_has_its_bytes() {
        let vocabulary = Vocabulary::of(&[b"a", b"", b"bc"]);
        let pieces: Vec<&[u8]> = (0..5).map(|id| vocabulary.piece(id)).collect();
        assert_eq!(pieces, [b"a".as_slice(), b"", b"bc", b"", b""]);
        assert!(vocabulary.is_eog(3) && !vocabulary.is_eog(2) && !vocabulary.is_eog(4));
        assert_eq!(vocabulary.len(), 4);
        assert_eq!((vocabulary.single(b'a'), vocabulary.single(b'b')), (Some(0), None));
    }
}
