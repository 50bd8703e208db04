//! What a newcomer reads once the mesh is up: where to point what they have, and whether they need a key.

/// Prints it on standard output. `asks`: a request needs a key.
#[allow(clippy::print_stdout)]
pub(crate) fn print(http: &str, grpc: &str, asks: bool) {
    let (key, curl, auth) = if asks {
        (
            "ub_…",
            " -H 'Authorization: Bearer ub_…'",
            "AUTH IS ON: make a key with   unbroken keys create --user me",
        )
    } else {
        (
            "none",
            "",
            "AUTH IS OFF (UNBROKEN_AUTH): whoever reaches these addresses is served, all as the same anonymous user.",
        )
    };
    println!(
        r#"
Unbroken is up. An answer that has begun arrives whole.

  Browser     http://{http}/
  curl        curl -N 'http://{http}/v1/chat/stream?q=Hello'{curl}
  OpenAI SDK  base_url="http://{http}/v1", api_key="{key}"
  WebSocket   ws://{http}/ws/chat        send {{"prompt":"Hello"}}
  grpcurl     grpcurl -plaintext -d '{{"prompt":"Hello","max_tokens":20}}' {grpc} chat.v1.ChatService/StreamChat

{auth}
Ctrl-C stops it, after what runs has finished.
"#
    );
}
