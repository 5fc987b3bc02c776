//! As much of HTTP/1.1 (RFC 9112) as tells where a message ends.

use std::io;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt};

/// The longest head that is read, in octets.
const HEAD_MAX: usize = 64 << 10;
/// The longest line that says how long a chunk is.
const CHUNK_LINE_MAX: usize = 1 << 10;
const PIECE: usize = 64 << 10;

/// A request's or an answer's first line and fields, with the empty line behind them.
pub(crate) struct Head {
    octets: Vec<u8>,
}

/// Reads a head; `None` if the stream ends before it.
pub(crate) async fn head(from: &mut (impl AsyncBufRead + Unpin)) -> io::Result<Option<Head>> {
    let mut octets = Vec::new();
    while !octets.ends_with(b"\r\n\r\n") {
        let before = octets.len();
        from.read_until(b'\n', &mut octets).await?;
        if octets.len() == before {
            return if before == 0 { Ok(None) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
        }
        if octets.len() > HEAD_MAX {
            return Err(io::ErrorKind::InvalidData.into());
        }
    }
    Ok(Some(Head { octets }))
}

impl Head {
    pub(crate) fn octets(&self) -> &[u8] {
        &self.octets
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.octets).into_owned()
    }

    fn field(&self, name: &str) -> Option<String> {
        self.text().lines().skip(1).find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim().to_ascii_lowercase())
        })
    }

    fn status(&self) -> u16 {
        self.text().split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0)
    }

    /// Whether another head follows (1xx).
    pub(crate) fn is_interim(&self) -> bool {
        (100..200).contains(&self.status())
    }

    /// Whether the connection ends with this answer to `request`.
    pub(crate) fn closes(&self, request: &Self) -> bool {
        self.field("connection").is_some_and(|value| value.contains("close"))
            || matches!(self.body_of_answer(request), Body::UntilClose)
    }

    fn framed(&self, otherwise: Body) -> Body {
        if self.field("transfer-encoding").is_some_and(|value| value.contains("chunked")) {
            return Body::Chunked { left: 0, is_last: false };
        }
        self.field("content-length").and_then(|length| length.parse().ok()).map_or(otherwise, Body::Length)
    }

    pub(crate) fn body_of_request(&self) -> Body {
        self.framed(Body::Length(0))
    }

    pub(crate) fn body_of_answer(&self, request: &Self) -> Body {
        let has_none = request.octets.starts_with(b"HEAD ") || matches!(self.status(), 204 | 304);
        if has_none { Body::Length(0) } else { self.framed(Body::UntilClose) }
    }
}

/// What of a body is still to come.
pub(crate) enum Body {
    Length(u64),
    /// `left` octets of this chunk, with the line end behind it; `is_last` once the chunk of no octets has come.
    Chunked {
        left: u64,
        is_last: bool,
    },
    UntilClose,
}

impl Body {
    /// The next octets as they are on the wire, `None` behind the last.
    pub(crate) async fn next(&mut self, from: &mut (impl AsyncBufRead + Unpin)) -> io::Result<Option<Vec<u8>>> {
        match self {
            Self::Length(0) | Self::Chunked { left: 0, is_last: true } => Ok(None),
            Self::Length(left) => some_of(left, from).await.map(Some),
            Self::Chunked { left: 0, .. } => {
                let line = chunk_line(from).await?;
                let digits = String::from_utf8_lossy(&line);
                let digits = digits.trim().split(';').next().unwrap_or_default();
                let length = u64::from_str_radix(digits, 16).map_err(|_| io::ErrorKind::InvalidData)?;
                // Trailers are sent by none of the servers: behind the last chunk is an empty line.
                *self = Self::Chunked { left: length + 2, is_last: length == 0 };
                Ok(Some(line))
            }
            Self::Chunked { left, .. } => some_of(left, from).await.map(Some),
            Self::UntilClose => {
                let octets = from.fill_buf().await?.to_vec();
                from.consume(octets.len());
                Ok((!octets.is_empty()).then_some(octets))
            }
        }
    }

    /// All that is still to come, as it is on the wire.
    pub(crate) async fn all(mut self, from: &mut (impl AsyncBufRead + Unpin)) -> io::Result<Vec<u8>> {
        let mut all = Vec::new();
        while let Some(piece) = self.next(from).await? {
            all.extend_from_slice(&piece);
        }
        Ok(all)
    }
}

async fn some_of(left: &mut u64, from: &mut (impl AsyncBufRead + Unpin)) -> io::Result<Vec<u8>> {
    let mut piece = vec![0; PIECE.min(usize::try_from(*left).unwrap_or(PIECE))];
    let count = from.read(&mut piece).await?;
    if count == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    piece.truncate(count);
    *left -= count as u64;
    Ok(piece)
}

async fn chunk_line(from: &mut (impl AsyncBufRead + Unpin)) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    (&mut *from).take(CHUNK_LINE_MAX as u64).read_until(b'\n', &mut line).await?;
    if line.ends_with(b"\n") { Ok(line) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}
