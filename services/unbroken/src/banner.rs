//! What a newcomer reads once the mesh is up: where to point what they have.

/// Prints it on standard output.
#[allow(clippy::print_stdout)]
pub(crate) fn print(http: &str, grpc: &str) {
    println!(
        r#"
Unbroken is up. An answer that has begun arrives whole.

  Browser     http://{http}/
  curl        curl -N 'http://{http}/v1/chat/stream?q=Hello'
  OpenAI SDK  base_url="http://{http}/v1", api_key="none"
  WebSocket   ws://{http}/ws/chat        send {{"prompt":"Hello"}}
  grpcurl     grpcurl -plaintext -d '{{"prompt":"Hello","max_tokens":20}}' {grpc} chat.v1.ChatService/StreamChat

Ctrl-C stops it, after what runs has finished.
"#
    );
}
