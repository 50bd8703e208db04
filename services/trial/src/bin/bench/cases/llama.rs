//! The llama engine's scheduler beside a bare loop over llama.cpp: measured by a bench of the worker, as it needs the engine in its
//! own process; here its figures join the table.

use std::{fs, path::Path};

use anyhow::Context as _;
use serde_json::Value;

use trial::report::Report;

/// Adds what `file` says: a JSON object a line.
pub(crate) fn add(file: &Path, report: &mut Report) -> anyhow::Result<()> {
    let text = fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
    for line in text.lines().filter(|line| line.starts_with('{')) {
        let figures: Value = serde_json::from_str(line).with_context(|| format!("{} is not JSON lines", file.display()))?;
        let number = |name: &str| figures[name].as_f64().with_context(|| format!("{name} is missing in {line}"));
        let case = format!("llama: decode at {} concurrent answers", number("answers")?);
        report.add(&case, "the engine", number("tokens_per_second")?, "tokens/s");
        report.add(&case, "a bare loop over llama.cpp", number("bare_tokens_per_second")?, "tokens/s");
        report.add(&case, "the engine / the bare loop", number("ratio")?, "×");
        report.at_least(0.95);
    }
    Ok(())
}
