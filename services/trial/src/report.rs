//! The figures of a run: a table for people, JSON for everything else.

use std::{fmt, fs, path::Path};

use serde_json::{Value, json};

/// All figures of one run.
#[derive(Debug, Default)]
pub struct Report {
    rows: Vec<Row>,
}

/// One figure.
#[derive(Debug)]
struct Row {
    case: String,
    subject: String,
    value: f64,
    unit: &'static str,
    target: Option<Target>,
    note: String,
}

/// What a figure should be.
#[derive(Clone, Copy, Debug)]
enum Target {
    AtMost(f64),
    AtLeast(f64),
}

impl Target {
    fn met(self, value: f64) -> bool {
        match self {
            Self::AtMost(most) => value <= most,
            Self::AtLeast(least) => value >= least,
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtMost(most) => write!(out, "≤ {most}"),
            Self::AtLeast(least) => write!(out, "≥ {least}"),
        }
    }
}

impl Report {
    /// Adds a figure.
    pub fn add(&mut self, case: &str, subject: &str, value: f64, unit: &'static str) {
        self.rows.push(Row {
            case: case.to_owned(),
            subject: subject.to_owned(),
            value,
            unit,
            target: None,
            note: String::new(),
        });
    }

    /// Says what the last figure should be, at most.
    pub fn at_most(&mut self, most: f64) {
        self.target(Target::AtMost(most));
    }

    /// Says what the last figure should be, at least.
    pub fn at_least(&mut self, least: f64) {
        self.target(Target::AtLeast(least));
    }

    fn target(&mut self, target: Target) {
        if let Some(row) = self.rows.last_mut() {
            row.target = Some(target);
        }
    }

    /// Says more of the last figure.
    pub fn note(&mut self, note: impl Into<String>) {
        if let Some(row) = self.rows.last_mut() {
            row.note = note.into();
        }
    }

    /// Whether there is a figure for anything.
    pub fn complete(&self) -> bool {
        !self.rows.is_empty() && self.rows.iter().all(|row| row.value.is_finite())
    }

    /// A table in Markdown.
    #[allow(clippy::print_stdout)]
    pub fn print(&self) {
        println!("| case | what | figure | target |\n|---|---|---:|---|");
        for row in &self.rows {
            let target = row.target.map_or_else(String::new, |target| {
                format!("{target} {}", if target.met(row.value) { "✓" } else { "✗" })
            });
            let note = if row.note.is_empty() {
                String::new()
            } else {
                format!(" ({})", row.note)
            };
            println!(
                "| {} | {}{note} | {:.2} {} | {target} |",
                row.case, row.subject, row.value, row.unit
            );
        }
    }

    /// The same as JSON.
    pub fn write(&self, path: &Path) -> anyhow::Result<()> {
        let rows: Vec<Value> = self
            .rows
            .iter()
            .map(|row| {
                let met = row.target.map(|target| target.met(row.value));
                json!({"case": row.case, "subject": row.subject, "value": row.value, "unit": row.unit, "target_met": met, "note": row.note})
            })
            .collect();
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        Ok(fs::write(path, serde_json::to_vec_pretty(&rows)?)?)
    }
}

/// The middle one.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The value below which `share` of all lie.
pub fn percentile(mut values: Vec<f64>, share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
    let index = (share * (values.len().saturating_sub(1)) as f64).round() as usize;
    values.get(index).copied().unwrap_or(f64::NAN)
}
