//! Loopback ports, and the smallest HTTP client that can read a metrics page.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// A TCP port on loopback that is free now.
pub fn free_port() -> io::Result<u16> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?
        .local_addr()
        .map(|address| address.port())
}

/// A page that a daemon of ours served.
#[derive(Debug, Clone)]
pub struct Page {
    pub status: u16,
    pub body: String,
}

impl Page {
    /// The value of a metric on this page, by its name with its labels as they are printed.
    pub fn metric(&self, name: &str) -> Option<&str> {
        let mut lines = self.body.lines();
        lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))
    }
}

/// Fetches `http://ADDRESS/PATH`, as HTTP/1.0 so that the body has no framing.
pub async fn get(address: SocketAddr, path: &str) -> io::Result<Page> {
    let mut stream = tokio::net::TcpStream::connect(address).await?;
    stream
        .write_all(format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n").as_bytes())
        .await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    parse(&answer).ok_or_else(|| {
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!("{address}{path}: no HTTP answer"),
        )
    })
}

fn parse(answer: &str) -> Option<Page> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split_whitespace().nth(1)?.parse().ok()?;
    Some(Page {
        status,
        body: body.to_owned(),
    })
}
