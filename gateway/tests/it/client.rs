//! An HTTP client that sees what is on the wire: the head as it came, and each chunk of the body by itself.

use std::net::SocketAddr;

use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpSocket, TcpStream},
};

/// A response whose head has come.
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    stream: BufReader<TcpStream>,
}

/// A response that has come as a whole.
pub(crate) struct Whole {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Whole {
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {:?}", self.body))
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        find(&self.headers, name)
    }
}

fn find<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
}

/// Sends what `head` and `body` say, to localhost if they don't, and reads the head of the response.
pub(crate) async fn send(address: SocketAddr, head: &str, body: &[u8]) -> Response {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let host = if head.contains("\nhost: ") { "" } else { "\r\nhost: localhost" };
    let head = head.replace('\n', "\r\n");
    stream.write_all(format!("{head}{host}\r\n\r\n").as_bytes()).await.unwrap();
    stream.write_all(body).await.unwrap();
    Response::read(stream).await
}

pub(crate) async fn open(address: SocketAddr, path: &str) -> Response {
    send(address, &format!("GET {path} HTTP/1.1"), b"").await
}

/// Opens with as small a buffer for what is not read as the system allows.
pub(crate) async fn open_narrow(address: SocketAddr, path: &str) -> Response {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut stream = socket.connect(address).await.unwrap();
    let head = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    Response::read(stream).await
}

pub(crate) async fn get(address: SocketAddr, path: &str) -> Whole {
    open(address, path).await.whole().await
}

pub(crate) async fn post(address: SocketAddr, path: &str, body: &str) -> Response {
    request(address, "POST", path, body).await
}

pub(crate) async fn request(address: SocketAddr, method: &str, path: &str, body: &str) -> Response {
    let head = format!(
        "{method} {path} HTTP/1.1\ncontent-type: application/json\ncontent-length: {}",
        body.len()
    );
    send(address, &head, body.as_bytes()).await
}

impl Response {
    async fn read(stream: TcpStream) -> Self {
        let mut stream = BufReader::new(stream);
        let line = line(&mut stream).await;
        let status = line.split(' ').nth(1).and_then(|status| status.parse().ok());
        let mut headers = Vec::new();
        loop {
            let line = self::line(&mut stream).await;
            let Some((name, value)) = line.split_once(": ") else { break };
            headers.push((name.to_ascii_lowercase(), value.to_owned()));
        }
        Self {
            status: status.unwrap_or_else(|| panic!("not a status line: {line:?}")),
            headers,
            stream,
        }
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        find(&self.headers, name)
    }

    /// The next chunk of the body. `None` at its proper end.
    pub(crate) async fn chunk(&mut self) -> Option<String> {
        let size = line(&mut self.stream).await;
        let size = usize::from_str_radix(&size, 16).unwrap_or_else(|_| panic!("not the size of a chunk: {size:?}"));
        let mut bytes = vec![0; size + 2];
        self.stream.read_exact(&mut bytes).await.unwrap();
        bytes.truncate(size);
        (size > 0).then(|| String::from_utf8(bytes).unwrap())
    }

    /// All that is left of the body.
    pub(crate) async fn rest(&mut self) -> String {
        let mut body = String::new();
        if self.header("transfer-encoding") == Some("chunked") {
            while let Some(chunk) = self.chunk().await {
                body.push_str(&chunk);
            }
        } else if let Some(length) = self.header("content-length") {
            let mut bytes = vec![0; length.parse().unwrap()];
            self.stream.read_exact(&mut bytes).await.unwrap();
            body = String::from_utf8(bytes).unwrap();
        }
        body
    }

    pub(crate) async fn whole(mut self) -> Whole {
        Whole {
            body: self.rest().await,
            status: self.status,
            headers: self.headers,
        }
    }

    /// Waits for the server to close the connection.
    pub(crate) async fn closed(mut self) {
        let mut rest = Vec::new();
        let _ = self.stream.read_to_end(&mut rest).await;
    }
}

async fn line(stream: &mut BufReader<TcpStream>) -> String {
    let mut line = String::new();
    stream.read_line(&mut line).await.unwrap();
    line.truncate(line.trim_end().len());
    line
}
