//! Mail that is made as it is read, so that a bomb is in nobody's memory but its victim's.

use mailrail::Result;
use mailrail::message::{Envelope, Evidence, Folder, FolderPath, Identity, MailboxName};
use mailrail::source::{
    Batch, Body, Entry, Finished, Kind, Known, MailboxIter, MailboxSource, Message, OpenBody, ReadBody, Source,
    SourceId, Unreadable,
};

/// A message: block by block until there is none. Each is at most about a chunk long.
pub(crate) type Make = fn(octets: u64, block: u64) -> Option<Vec<u8>>;

/// A bomb by name.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bomb {
    pub(crate) name: &'static str,
    make: Make,
    octets: u64,
}

const MILLION: u64 = 1_000_000;
/// Octets of a block of filling.
const BLOCK: u64 = 64 << 10;

/// All of them; `octets` is how long those are that can be of any length.
pub(crate) fn bombs(octets: u64) -> Vec<Bomb> {
    let named: &[(&'static str, Make)] = &[
        ("a million nested multiparts", nested),
        ("a million enclosed messages", enclosed),
        ("a million parts", parts),
        ("a million close delimiters", closes),
        ("lines that are nearly delimiters of 64 multiparts", nearly),
        ("short lines that are nearly delimiters of 64 multiparts", nearly_short),
        ("short lines that begin as a boundary that is open 64 times", nearly_same),
        ("a header section without an end", |octets, block| filled(octets, block, b"", header_lines)),
        ("a header line without an end", |octets, block| filled(octets, block, b"Subject: ", letters)),
        ("a field name without an end", |octets, block| filled(octets, block, b"", letters)),
        ("a Content-Type without an end", |octets, block| {
            filled(octets, block, b"Content-Type: multipart/mixed; ", semicolons)
        }),
        ("Content-Types without an end", |octets, block| filled(octets, block, b"", content_types)),
        ("encoded words without an end", |octets, block| {
            filled(octets, block, b"Content-Type: text/plain; name=", words)
        }),
        ("a boundary in a million pieces", |octets, block| {
            filled(octets, block, b"Content-Type: multipart/mixed;", continuations)
        }),
        ("a line without an end", |octets, block| filled(octets, block, b"Subject: x\n\n", letters)),
        ("line ends without an end", |octets, block| filled(octets, block, b"Subject: x\n\n", line_ends)),
        ("carriage returns without an end", |octets, block| filled(octets, block, b"Subject: x\r\n\r\n", returns)),
        ("NULs without an end", |octets, block| filled(octets, block, b"", nuls)),
        ("base64 of another width in every line", |octets, block| filled(octets, block, BASE64, widths)),
        ("base64 with blank lines in between", |octets, block| filled(octets, block, BASE64, gaps)),
        ("base64 of blank lines", |octets, block| filled(octets, block, BASE64, line_ends)),
        ("base64 in one line", |octets, block| filled(octets, block, BASE64, letters)),
        ("base64 padded in every line", |octets, block| filled(octets, block, BASE64, padded)),
        ("base64 parts of a few octets", small_parts),
        ("a blob in every part", blobs),
    ];
    named.iter().map(|(name, make)| Bomb { name, make: *make, octets }).collect()
}

const BASE64: &[u8] = b"Content-Transfer-Encoding: base64\n\n";

fn filled(octets: u64, block: u64, head: &[u8], filling: fn(u64) -> Vec<u8>) -> Option<Vec<u8>> {
    match block {
        0 => Some(head.to_vec()),
        _ if (block - 1) * BLOCK < octets => Some(filling(block)),
        _ => None,
    }
}

fn many(of: u64, block: u64, head: &[u8], each: impl Fn(u64, &mut Vec<u8>)) -> Option<Vec<u8>> {
    const AT_ONCE: u64 = 1000;
    if block == 0 {
        return Some(head.to_vec());
    }
    let from = (block - 1) * AT_ONCE;
    let mut out = Vec::new();
    (from..(from + AT_ONCE).min(of)).for_each(|number| each(number, &mut out));
    (!out.is_empty()).then_some(out)
}

fn nested(_: u64, block: u64) -> Option<Vec<u8>> {
    many(MILLION, block, b"", |number, out| {
        out.extend(format!("Content-Type: multipart/mixed; boundary={number}\n\n--{number}\n").bytes());
    })
}

fn enclosed(_: u64, block: u64) -> Option<Vec<u8>> {
    many(MILLION, block, b"", |_, out| out.extend_from_slice(b"Content-Type: message/rfc822\n\n"))
}

const MULTIPART: &[u8] = b"Content-Type: multipart/mixed; boundary=b\n\n";

fn parts(_: u64, block: u64) -> Option<Vec<u8>> {
    many(MILLION, block, MULTIPART, |number, out| out.extend(format!("--b\n\n{number}\n").bytes()))
}

fn closes(_: u64, block: u64) -> Option<Vec<u8>> {
    many(MILLION, block, MULTIPART, |_, out| out.extend_from_slice(b"--b\n--b--\n"))
}

fn nearly(octets: u64, block: u64) -> Option<Vec<u8>> {
    let boundary = |depth: u64| format!("{}{depth:02}", "a".repeat(900));
    match block {
        0..64 => {
            let (fold, boundary) = ("Content-Type: multipart/mixed;\n boundary=", boundary(block));
            Some(format!("{fold}\"{boundary}\"\n\n--{boundary}\n").into_bytes())
        }
        64 => Some(b"\n".to_vec()),
        _ => filled(octets, block - 64, b"", |_| format!("--{}xx\n", "a".repeat(900)).repeat(72).into_bytes()),
    }
}

/// Opens 64 multiparts of these boundaries; then comes filling.
fn behind_64(octets: u64, block: u64, boundary: impl Fn(u64) -> String, line: &str) -> Option<Vec<u8>> {
    match block {
        0..64 => {
            let boundary = boundary(block);
            Some(format!("Content-Type: multipart/mixed; boundary=\"{boundary}\"\n\n--{boundary}\n").into_bytes())
        }
        64 => Some(b"\n".to_vec()),
        _ if (block - 65) * BLOCK < octets => Some(line.repeat(BLOCK as usize / line.len()).into_bytes()),
        _ => None,
    }
}

fn nearly_short(octets: u64, block: u64) -> Option<Vec<u8>> {
    behind_64(octets, block, |depth| format!("aaaaaaaa{depth:02}"), "--aaaaaaaax\n")
}

fn nearly_same(octets: u64, block: u64) -> Option<Vec<u8>> {
    behind_64(octets, block, |_| "b".to_owned(), "--bx\n")
}

fn header_lines(block: u64) -> Vec<u8> {
    format!("X-Filling-{block:010}: something that is of no interest\n").repeat(1100).into_bytes()
}

fn letters(_: u64) -> Vec<u8> {
    b"abcd".repeat(BLOCK as usize / 4)
}

fn semicolons(_: u64) -> Vec<u8> {
    b"a=\"b\";(c)".repeat(BLOCK as usize / 9)
}

fn content_types(_: u64) -> Vec<u8> {
    b"Content-Type: multipart/mixed; boundary=\"=?utf-8?q?a?=\"\n".repeat(BLOCK as usize / 57)
}

fn words(_: u64) -> Vec<u8> {
    b"=?utf-8?b?".repeat(BLOCK as usize / 10)
}

fn continuations(block: u64) -> Vec<u8> {
    (0..3000).flat_map(|number| format!("\n boundary*{}*=a'b'%41;", block * 3000 + number).into_bytes()).collect()
}

fn line_ends(_: u64) -> Vec<u8> {
    vec![b'\n'; BLOCK as usize]
}

fn returns(_: u64) -> Vec<u8> {
    vec![b'\r'; BLOCK as usize]
}

fn nuls(_: u64) -> Vec<u8> {
    vec![0; BLOCK as usize]
}

fn widths(block: u64) -> Vec<u8> {
    (1..700).flat_map(|line| format!("{}\n", "QUJD".repeat(1 + ((block + line) % 47) as usize)).into_bytes()).collect()
}

fn gaps(_: u64) -> Vec<u8> {
    b"QUJDQUJDQUJDQUJDQUJDQUJDQUJDQUJDQUJDQUJDQUJDQUJDQUJDQUJDQUJDQUJDQUJDQUJDQUJD\n\n".repeat(BLOCK as usize / 78)
}

fn padded(_: u64) -> Vec<u8> {
    b"QUJDQUJDQUJDQUI=\n".repeat(BLOCK as usize / 17)
}

fn small_parts(octets: u64, block: u64) -> Option<Vec<u8>> {
    many(octets / 80, block, MULTIPART, |_, out| {
        out.extend_from_slice(b"--b\nContent-Transfer-Encoding: base64\n\n\n\n\n");
        out.extend_from_slice(b"QUJDQUJDQUJDQUJDQUJDQUJD\nQQ==\n\n\n");
    })
}

fn blobs(octets: u64, block: u64) -> Option<Vec<u8>> {
    const PART: u64 = 5600;
    let head = match block {
        0 => return Some(MULTIPART.to_vec()),
        _ if block * PART > octets => return None,
        _ => b"--b\nContent-Transfer-Encoding: base64\n\n",
    };
    Some([&head[..], &crate::common::base64(&crate::common::noise(block, 4100))].concat())
}

/// A source of one mailbox with one message.
impl Source for Bomb {
    fn id(&self) -> SourceId {
        SourceId::new([9; 16])
    }

    fn kind(&self) -> Kind {
        Kind::Other("bomb".into())
    }

    fn mailboxes(&self) -> Result<MailboxIter> {
        let mailbox = BombMailbox { bomb: *self, name: MailboxName::new("victim") };
        Ok(Box::new(std::iter::once(Ok(Box::new(mailbox) as Box<dyn MailboxSource>))))
    }
}

struct BombMailbox {
    bomb: Bomb,
    name: MailboxName,
}

impl MailboxSource for BombMailbox {
    fn name(&self) -> &MailboxName {
        &self.name
    }

    fn fill(&mut self, _known: &mut dyn Known, batch: &mut Batch) -> Result<bool> {
        batch.push(Entry::Folder(Folder::new(FolderPath { names: vec!["inbox".into()], raw: "inbox".into() })));
        let mut envelope = Envelope::new("inbox", Identity::Named("bomb.eml".into()));
        envelope.evidence = Evidence("settled".into());
        let body = BombBody { bomb: self.bomb, next: 0, block: Vec::new(), at: 0 };
        batch.push(Entry::Message(Message {
            envelope,
            body: Body::Open { length: self.bomb.octets, open: Box::new(body) },
        }));
        Ok(false)
    }
}

/// Its octets, one after the other.
pub(crate) struct BombBody {
    bomb: Bomb,
    next: u64,
    block: Vec<u8>,
    at: usize,
}

impl Bomb {
    /// So many of its first octets, if there are as many.
    pub(crate) fn prefix(&self, octets: usize) -> Vec<u8> {
        let mut prefix = Vec::new();
        for block in 0.. {
            match (self.make)(self.octets, block) {
                Some(block) if prefix.len() < octets => prefix.extend(block),
                _ => break,
            }
        }
        prefix.truncate(octets);
        prefix
    }
}

impl OpenBody for BombBody {
    fn open(self: Box<Self>) -> Result<Box<dyn ReadBody>, Unreadable> {
        Ok(self)
    }
}

impl ReadBody for BombBody {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Unreadable> {
        while self.at == self.block.len() {
            let Some(block) = (self.bomb.make)(self.bomb.octets, self.next) else { return Ok(0) };
            (self.block, self.at, self.next) = (block, 0, self.next + 1);
        }
        let length = buffer.len().min(self.block.len() - self.at);
        buffer[..length].copy_from_slice(&self.block[self.at..self.at + length]);
        self.at += length;
        Ok(length)
    }

    fn finish(&mut self, _length: u64) -> Result<Finished, Unreadable> {
        Ok(Finished::AsEnumerated)
    }
}
