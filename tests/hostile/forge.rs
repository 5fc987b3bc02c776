//! Objects forged from docs/format.md alone: what a writer with the key, or anybody where there is none, could put into a repository.

use futures::{FutureExt, TryStreamExt};
use mailrail::store::{MemoryStore, Store};

/// Forges objects of one repository without protection.
pub(crate) struct Forge {
    domain: [u8; 32],
}

/// A commit taken apart: its head up to the directory, and its sections.
#[derive(Clone, Debug)]
pub(crate) struct Commit {
    pub(crate) front: Vec<u8>,
    /// Where in it the number of messages is.
    messages_at: usize,
    pub(crate) sections: Vec<Section>,
}

/// A section of a commit, compressed, and what the directory is to say of it.
#[derive(Clone, Debug)]
pub(crate) struct Section {
    pub(crate) kind: u8,
    /// With the codec in front.
    pub(crate) payload: Vec<u8>,
    pub(crate) content: u64,
    /// Instead of how long it is.
    pub(crate) stored: Option<u64>,
}

const FRONT: usize = 40;
const TAG: usize = 16;

impl Forge {
    pub(crate) fn of(store: &MemoryStore) -> Self {
        let config = get(store, "config");
        assert_eq!(config[24], 0, "the repository is protected");
        Self { domain: config[25..57].try_into().unwrap() }
    }

    /// Magic, salt, one frame.
    pub(crate) fn small(&self, kind: &str, key: &str, payload: &[u8]) -> Vec<u8> {
        let (mut object, secret) = self.begin(kind, key);
        object.extend(seal(&secret, 0, payload));
        object
    }

    pub(crate) fn commit(&self, key: &str, commit: &Commit) -> Vec<u8> {
        let mut head = commit.front.clone();
        number(commit.sections.len() as u64, &mut head);
        for Section { kind, payload, content, stored } in &commit.sections {
            head.push(*kind);
            number(stored.unwrap_or((payload.len() + TAG) as u64), &mut head);
            number(*content, &mut head);
            head.extend_from_slice(&blake3::keyed_hash(&self.domain, payload).as_bytes()[..16]);
        }
        self.commit_of(key, &head, commit)
    }

    /// A commit with this head.
    pub(crate) fn commit_of(&self, key: &str, head: &[u8], commit: &Commit) -> Vec<u8> {
        let (mut object, secret) = self.begin("MRCOMM", key);
        object.extend_from_slice(&((head.len() + TAG) as u32).to_le_bytes());
        object.extend(seal(&secret, 0, head));
        for (at, section) in commit.sections.iter().enumerate() {
            object.extend(seal(&secret, at as u64 + 1, &section.payload));
        }
        object
    }

    /// A pack of these frames' payloads (codec in front), and a footer and trailer that say what they are told to.
    pub(crate) fn pack(
        &self,
        key: &str,
        frames: &[Vec<u8>],
        footer: &[u8],
        trailer: impl Fn(u64, u32, u32) -> Vec<u8>,
    ) -> Vec<u8> {
        let (mut object, secret) = self.begin("MRPACK", key);
        for (at, frame) in frames.iter().enumerate() {
            object.extend_from_slice(&((frame.len() + TAG) as u32).to_le_bytes());
            object.extend(seal(&secret, at as u64, frame));
        }
        let offset = object.len() as u64;
        object.extend(seal(&secret, frames.len() as u64, footer));
        let length = object.len() as u64 - offset;
        object.extend(trailer(offset, length as u32, frames.len() as u32));
        object
    }

    pub(crate) fn digest(&self, octets: &[u8]) -> [u8; 32] {
        *blake3::keyed_hash(&self.domain, octets).as_bytes()
    }

    fn begin(&self, kind: &str, key: &str) -> (Vec<u8>, [u8; 32]) {
        let magic = [kind.as_bytes(), &[1, 0]].concat();
        let salt = [7; 32];
        let mut hasher = blake3::Hasher::new_keyed(&self.domain);
        hasher.update(b"mailrail object key 1").update(&magic).update(&salt).update(key.as_bytes());
        ([magic, salt.to_vec()].concat(), *hasher.finalize().as_bytes())
    }
}

/// The trailer of a pack.
pub(crate) fn trailer(offset: u64, length: u32, frames: u32) -> Vec<u8> {
    [&offset.to_le_bytes()[..], &length.to_le_bytes(), &frames.to_le_bytes(), b"MRPACKED"].concat()
}

fn seal(secret: &[u8; 32], frame: u64, payload: &[u8]) -> Vec<u8> {
    let mut hasher = blake3::Hasher::new_keyed(secret);
    hasher.update(&frame.to_le_bytes()).update(payload);
    [payload, &hasher.finalize().as_bytes()[..TAG]].concat()
}

/// The payload of a small object.
pub(crate) fn payload(object: &[u8]) -> &[u8] {
    &object[FRONT..object.len() - TAG]
}

impl Commit {
    pub(crate) fn open(object: &[u8]) -> Self {
        let length = u32::from_le_bytes(object[FRONT..FRONT + 4].try_into().unwrap()) as usize;
        let head = &object[FRONT + 4..FRONT + 4 + length - TAG];
        let mut rest = head;
        skip_octets(&mut rest);
        take(&mut rest);
        skip_octets(&mut rest);
        rest = &rest[8..];
        // Time and first ordinal; how many messages; the latest checkpoint.
        take(&mut rest);
        take(&mut rest);
        let messages_at = head.len() - rest.len();
        take(&mut rest);
        take(&mut rest);
        rest = &rest[1..];
        take(&mut rest);
        take(&mut rest);
        rest = &rest[1..];
        for _ in 0..take(&mut rest) {
            let kind = rest[16];
            rest = &rest[17..];
            if kind == 255 {
                skip_octets(&mut rest);
            }
        }
        let front = head[..head.len() - rest.len()].to_vec();
        let mut at = FRONT + 4 + length;
        let mut sections = Vec::new();
        for _ in 0..take(&mut rest) {
            let kind = rest[0];
            rest = &rest[1..];
            let (stored, content) = (take(&mut rest) as usize, take(&mut rest));
            rest = &rest[16..];
            sections.push(Section { kind, payload: object[at..at + stored - TAG].to_vec(), content, stored: None });
            at += stored;
        }
        Self { front, messages_at, sections }
    }

    /// Lets the head say that there are so many messages.
    pub(crate) fn claim_messages(&mut self, messages: u64) {
        let mut rest = &self.front[self.messages_at..];
        take(&mut rest);
        let rest = rest.to_vec();
        self.front.truncate(self.messages_at);
        number(messages, &mut self.front);
        self.front.extend(rest);
    }

    /// The place of a section.
    pub(crate) fn section(&mut self, kind: u8) -> Option<&mut Section> {
        self.sections.iter_mut().find(|section| section.kind == kind)
    }

    /// Its head as it is written.
    pub(crate) fn head(&self, forge: &Forge) -> Vec<u8> {
        let object = forge.commit("", self);
        let length = u32::from_le_bytes(object[FRONT..FRONT + 4].try_into().unwrap()) as usize;
        object[FRONT + 4..FRONT + 4 + length - TAG].to_vec()
    }
}

impl Section {
    pub(crate) fn of(kind: u8, content: &[u8]) -> Self {
        let squeezed = zstd::bulk::compress(content, 1).unwrap();
        let payload = if squeezed.len() < content.len() { [&[1], &squeezed[..]] } else { [&[0], content] }.concat();
        Self { kind, payload, content: content.len() as u64, stored: None }
    }

    pub(crate) fn content(&self) -> Vec<u8> {
        match self.payload[0] {
            0 => self.payload[1..].to_vec(),
            _ => zstd::bulk::decompress(&self.payload[1..], self.content as usize).unwrap(),
        }
    }
}

/// Appends a number as the format has it.
pub(crate) fn number(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

pub(crate) fn take(rest: &mut &[u8]) -> u64 {
    let length = rest.iter().position(|octet| octet & 0x80 == 0).unwrap() + 1;
    let value = rest[..length].iter().rev().fold(0, |value, octet| value << 7 | u64::from(octet & 0x7f));
    *rest = &rest[length..];
    value
}

fn skip_octets(rest: &mut &[u8]) {
    let length = take(rest) as usize;
    *rest = &rest[length..];
}

/// Zeros by the GiB in a few KiB, as one zstd frame that says how long it is, or does not.
pub(crate) fn zstd_bomb(octets: u64, is_told: bool) -> Vec<u8> {
    use std::io::Write;
    let mut encoder = zstd::stream::Encoder::new(vec![1], 1).unwrap();
    if is_told {
        encoder.set_pledged_src_size(Some(octets)).unwrap();
    }
    let zeros = vec![0; 1 << 20];
    for _ in 0..octets >> 20 {
        encoder.write_all(&zeros).unwrap();
    }
    encoder.finish().unwrap()
}

/// A copy of a store that shares nothing with it.
pub(crate) fn copy(store: &MemoryStore) -> MemoryStore {
    let copy = MemoryStore::new();
    for key in keys(store) {
        put(&copy, &key, get(store, &key));
    }
    copy
}

pub(crate) fn get(store: &MemoryStore, key: &str) -> Vec<u8> {
    now(store.read(key, None)).to_vec()
}

pub(crate) fn put(store: &MemoryStore, key: &str, octets: Vec<u8>) {
    now(store.put(key, octets.into()));
}

pub(crate) fn keys(store: &MemoryStore) -> Vec<String> {
    let listed: Vec<_> = now(store.list("").try_collect());
    listed.into_iter().map(|object| object.key).collect()
}

/// A store in memory does not wait.
fn now<T>(future: impl Future<Output = mailrail::Result<T>>) -> T {
    future.now_or_never().unwrap().unwrap()
}
