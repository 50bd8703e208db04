//! Compiles `chat.proto` with protox, so that no `protoc` has to be installed.

use std::{env, error::Error, fs, path::PathBuf};

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=chat.proto");
    let descriptors = protox::compile(["chat.proto"], ["."])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(
        out.join("chat.bin"),
        protox::Compiler::new(["."])?
            .include_imports(true)
            .open_file("chat.proto")?
            .encode_file_descriptor_set(),
    )?;

    tonic_prost_build::configure()
        .codec_path("crate::codec::Plain")
        // An entry is made, kept and copied once for every token: see there.
        .extern_path(".chat.v1.Entry", "crate::entry::Entry")
        // A message comes for every token too, and is moved from hand to hand.
        .boxed(".chat.v1.ChatResponse.head")
        .boxed(".chat.v1.ChatResponse.refused")
        .boxed(".chat.v1.GenerateResponse.head")
        .boxed(".chat.v1.GenerateResponse.refused")
        .boxed(".chat.v1.ChatCommand.command.start")
        .boxed(".chat.v1.EngineCommand.command.start")
        .boxed(".chat.v1.GenerateResponse.request")
        .compile_fds(descriptors)?;
    Ok(())
}
