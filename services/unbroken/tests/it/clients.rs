//! The clients that people have, against the whole mesh with the scripted engine: each reads a whole answer and a streamed one, calls a
//! function, and meets an error. What they are is in `tests/clients`.
//!
//! The official SDKs and the fuzz run are part of `make test`; the frameworks above them, which take minutes to install, of `make clients`.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

use crate::{doors::tool, processes::AllInOne};

/// Runs a program to its end, which must be a good one.
fn run(program: impl AsRef<Path>, arguments: &[&str]) {
    let output = Command::new(program.as_ref()).args(arguments).output().unwrap();
    assert!(
        output.status.success(),
        "{arguments:?}\n{}\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

/// A script of `tests/clients`.
fn script(name: &str) -> String {
    format!("{}/tests/clients/{name}", env!("CARGO_MANIFEST_DIR"))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_anthropic_sdk_streams_and_does_not_stream() {
    let mesh = AllInOne::scripted().await;
    run(tool("python3"), &[&script("with_anthropic.py"), &format!("http://{}", mesh.http)]);
}

/// No status of 5xx, none that is not documented, and no body of another shape: bounded to about a minute, and the same in each run.
#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_asked_is_answered_as_the_document_says() {
    const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,\
                          response_schema_conformance,unsupported_method,allow_header_conformance";
    let mesh = AllInOne::scripted().await;
    let address = format!("http://{}", mesh.http);
    let document = format!("{address}/openapi.json");
    let mut arguments = vec!["run", document.as_str(), "--url", address.as_str(), "--checks", CHECKS];
    arguments.extend([
        "--phases",
        "examples,coverage,fuzzing",
        "--max-examples",
        "15",
        "--generation-deterministic",
    ]);
    arguments.extend([
        "--continue-on-failure",
        "--request-timeout",
        "30",
        "--warnings",
        "off",
        "--no-color",
    ]);
    run(tool("schemathesis"), &arguments);
}

/// Something that `.ci/setup clients` has installed.
fn installed(name: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap();
    let path = root.join("target/clients").join(name);
    assert!(
        path.exists(),
        "{} is missing: `make clients` installs it (.ci/setup clients)",
        path.display()
    );
    path
}

fn python() -> PathBuf {
    installed("venv/bin/python")
}

/// Runs a script of Node's, from where its packages are.
fn node(name: &str, address: &str) {
    let copy = installed("node_modules").with_file_name(name);
    std::fs::copy(script(name), &copy).unwrap();
    run("node", &[copy.to_str().unwrap(), address]);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "`make clients` runs it: its packages take minutes to install"]
async fn an_older_openai_sdk_streams_and_does_not_stream() {
    let mesh = AllInOne::scripted().await;
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/openai_sdk.py");
    run(python(), &[script, &format!("http://{}/v1", mesh.http)]);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "`make clients` runs it: its packages take minutes to install"]
async fn the_openai_sdk_of_node_streams_and_does_not_stream() {
    let mesh = AllInOne::scripted().await;
    node("openai.mjs", &format!("http://{}", mesh.http));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "`make clients` runs it: its packages take minutes to install"]
async fn the_anthropic_sdk_of_node_streams_and_does_not_stream() {
    let mesh = AllInOne::scripted().await;
    node("anthropic.mjs", &format!("http://{}", mesh.http));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "`make clients` runs it: its packages take minutes to install"]
async fn vercels_ai_sdk_streams_thinks_calls_and_embeds() {
    let mesh = AllInOne::scripted().await;
    node("ai_sdk.mjs", &format!("http://{}", mesh.http));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "`make clients` runs it: its packages take minutes to install"]
async fn langchain_streams_calls_completes_and_embeds() {
    let mesh = AllInOne::scripted().await;
    run(python(), &[&script("with_langchain.py"), &format!("http://{}/v1", mesh.http)]);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "`make clients` runs it: its packages take minutes to install"]
async fn llama_index_streams_and_calls() {
    let mesh = AllInOne::scripted().await;
    run(python(), &[&script("with_llama_index.py"), &format!("http://{}/v1", mesh.http)]);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "`make clients` runs it: its packages take minutes to install"]
async fn instructor_reads_structures_whole_and_in_parts() {
    let mesh = AllInOne::scripted().await;
    run(python(), &[&script("with_instructor.py"), &format!("http://{}/v1", mesh.http)]);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "`make clients` runs it: its packages take minutes to install"]
async fn litellm_speaks_both_apis() {
    let mesh = AllInOne::scripted().await;
    run(python(), &[&script("with_litellm.py"), &format!("http://{}", mesh.http)]);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "`make clients` runs it: its packages take minutes to install"]
async fn llm_comply_finds_only_what_is_explained_here() {
    let mesh = AllInOne::scripted().await;
    // The scripted model has no eyes, and says so. A missing model is the first one: the README's curl needs none. Of
    // the Responses API there is no compaction here, so its two tests are not asked for.
    let responses = "basic-response,system-prompt,multi-turn,tool-calling,streaming-response,streaming-usage,image-input,assistant-phase,\
                     response-output-phase-schema,error-handling";
    let explained = [
        ("openai-chat", "", BTreeSet::from(["chat-image-input", "chat-error-handling"])),
        ("anthropic", "", BTreeSet::from(["anth-image-input"])),
        ("open-responses", responses, BTreeSet::from(["image-input", "error-handling"])),
    ];
    for (format, only, explained) in explained {
        let output = Command::new(installed("venv/bin/llm-comply"))
            .args(["run", "-u", &format!("http://{}/v1", mesh.http), "-k", "none", "-m", "scripted"])
            .args(["--format", format, "--json", "--filter", only])
            .output()
            .unwrap();
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        let results = report["results"].as_array().unwrap();
        assert!(results.len() > 5, "{report}");
        let failed = results.iter().filter(|result| result["status"] == "failed");
        let failed: BTreeSet<&str> = failed.filter_map(|result| result["id"].as_str()).collect();
        assert_eq!(failed, explained, "{format}: {report:#}");
    }
}
