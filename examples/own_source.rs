//! A source of one's own: mail out of a mail system that mailrail has never heard of, and the nightly run that reads only what is new.
//!
//! The system is a made-up one: a post office, with a box for each customer and letters in trays. It has what many systems have: each
//! letter has a number that stays, and a revision that grows when its text changes. From these two, mailrail knows without reading it
//! whether it has a letter already.
//!
//! Run it with `cargo run --example own_source --features testing`.

use bytes::Bytes;
use mailrail::message::{Envelope, Evidence, Flags, Folder, FolderPath, Identity, MailboxName, SystemFlags};
use mailrail::source::{
    Batch, Body, Entry, Finished, Kind, Known, MailboxIter, MailboxSource, Message, OpenBody, ReadBody, Reason, Source,
    SourceId, Unreadable,
};
use mailrail::store::MemoryStore;
use mailrail::testing::sink;
use mailrail::transfer::Report;
use mailrail::{Engine, Error, ErrorKind, Protection, Repository, Resources, Result};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::vec;

/// The mail system. Clones are the same post office.
#[derive(Clone, Debug, Default)]
struct PostOffice(Arc<Mutex<Rooms>>);

#[derive(Debug, Default)]
struct Rooms {
    boxes: BTreeMap<String, BTreeMap<u32, Letter>>,
    /// How many letters were fetched: what is slow and costly in this system.
    fetched: u64,
}

#[derive(Clone, Debug)]
struct Letter {
    tray: String,
    revision: u32,
    is_read: bool,
    text: Bytes,
}

impl PostOffice {
    fn rooms(&self) -> MutexGuard<'_, Rooms> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a letter into a box; one of the same number makes way for it.
    fn put(&self, customer: &str, number: u32, tray: &str, text: &str) {
        let mut rooms = self.rooms();
        let letters = rooms.boxes.entry(customer.to_owned()).or_default();
        let revision = letters.get(&number).map_or(1, |letter| letter.revision + 1);
        let text = Bytes::copy_from_slice(text.as_bytes());
        letters.insert(number, Letter { tray: tray.to_owned(), revision, is_read: false, text });
    }

    fn mark_read(&self, customer: &str, number: u32) {
        if let Some(letter) = self.rooms().boxes.get_mut(customer).and_then(|letters| letters.get_mut(&number)) {
            letter.is_read = true;
        }
    }

    fn throw_away(&self, customer: &str, number: u32) {
        if let Some(letters) = self.rooms().boxes.get_mut(customer) {
            letters.remove(&number);
        }
    }

    fn fetched(&self) -> u64 {
        self.rooms().fetched
    }
}

/// A source says who it is and which mailboxes it has.
impl Source for PostOffice {
    /// The same on every run. Only what came from this id is marked gone when it is no longer found.
    fn id(&self) -> SourceId {
        SourceId::of("post office", b"office.example.org")
    }

    /// Messages that go back to a sink of the same kind get back names and places exactly as they were.
    fn kind(&self) -> Kind {
        Kind::Other("post office".to_owned())
    }

    fn mailboxes(&self) -> Result<MailboxIter> {
        let customers: Vec<String> = self.rooms().boxes.keys().cloned().collect();
        let office = self.clone();
        Ok(Box::new(customers.into_iter().map(move |customer| {
            let letters = office.rooms().boxes.get(&customer).cloned().unwrap_or_default();
            Ok(Box::new(CustomerBox::new(office.clone(), customer, letters)) as Box<dyn MailboxSource>)
        })))
    }
}

/// One customer's box, being gone through. Nothing here reads a letter's text: a listing is all it needs.
struct CustomerBox {
    office: PostOffice,
    customer: String,
    name: MailboxName,
    trays: vec::IntoIter<String>,
    letters: vec::IntoIter<(u32, Letter)>,
}

impl CustomerBox {
    fn new(office: PostOffice, customer: String, letters: BTreeMap<u32, Letter>) -> Self {
        let mut trays: Vec<String> = letters.values().map(|letter| letter.tray.clone()).collect();
        trays.sort_unstable();
        trays.dedup();
        let name = MailboxName::new(customer.as_bytes());
        let letters: Vec<_> = letters.into_iter().collect();
        Self { office, customer, name, trays: trays.into_iter(), letters: letters.into_iter() }
    }

    /// A letter in mailrail's words.
    fn message(&self, number: u32, letter: Letter) -> Message {
        let mut envelope = Envelope::new(letter.tray, Identity::Named(number.to_string().into()));
        // Whatever the source can see without reading the text, and which changes when the text does.
        envelope.evidence = Evidence(Bytes::copy_from_slice(&letter.revision.to_le_bytes()));
        envelope.flags = Flags::from(if letter.is_read { SystemFlags::SEEN } else { SystemFlags::default() });
        let length = letter.text.len() as u64;
        let fetch =
            Fetch { office: self.office.clone(), customer: self.customer.clone(), number, revision: letter.revision };
        Message { envelope, body: Body::Open { length, open: Box::new(fetch) } }
    }
}

impl MailboxSource for CustomerBox {
    fn name(&self) -> &MailboxName {
        &self.name
    }

    /// Called again and again until it says that there is no more. What `Known` offers is for sources without names, such as mbox.
    fn fill(&mut self, _known: &mut dyn Known, batch: &mut Batch) -> Result<bool> {
        while !batch.is_full() {
            // Folders come before the messages in them.
            if let Some(tray) = self.trays.next() {
                let path = FolderPath { names: vec![tray.clone()], raw: tray.into() };
                batch.push(Entry::Folder(Folder::new(path)));
            } else if let Some((number, letter)) = self.letters.next() {
                batch.push(Entry::Message(self.message(number, letter)));
            } else {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// The way to one letter's text. Opened on a worker, and only if the letter must be read.
struct Fetch {
    office: PostOffice,
    customer: String,
    number: u32,
    revision: u32,
}

impl Fetch {
    /// The letter as it is now.
    fn letter(&self) -> Option<Letter> {
        self.office.rooms().boxes.get(&self.customer)?.get(&self.number).cloned()
    }
}

impl OpenBody for Fetch {
    /// What goes wrong here concerns one message: it goes to quarantine with the reason, and the transfer goes on.
    fn open(self: Box<Self>) -> Result<Box<dyn ReadBody>, Unreadable> {
        let letter = self.letter().ok_or_else(|| Unreadable {
            reason: Reason::Vanished,
            error: Error::new(ErrorKind::NotFound, format!("letter {} was taken away", self.number)),
        })?;
        self.office.rooms().fetched += 1;
        Ok(Box::new(Fetching { rest: letter.text, fetch: *self }))
    }
}

/// A letter's text, being read.
struct Fetching {
    fetch: Fetch,
    rest: Bytes,
}

impl ReadBody for Fetching {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Unreadable> {
        let count = buffer.len().min(self.rest.len());
        buffer[..count].copy_from_slice(&self.rest.split_to(count));
        Ok(count)
    }

    /// Somebody may have changed the letter since it was listed. Its text would then not be the one that the evidence speaks of,
    /// so the message is quarantined, and the next run reads it again.
    fn finish(&mut self, _length: u64) -> Result<Finished, Unreadable> {
        match self.fetch.letter() {
            Some(letter) if letter.revision == self.fetch.revision => Ok(Finished::AsEnumerated),
            _ => Err(Unreadable {
                reason: Reason::Changed,
                error: Error::new(ErrorKind::Unavailable, "the letter changed while it was read"),
            }),
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let office = PostOffice::default();
    office.put("ada", 1, "In", "Subject: engines\r\n\r\nThe engine weaves patterns.\r\n");
    office.put("ada", 2, "In", "Subject: notes\r\n\r\nSee note G.\r\n");
    office.put("ada", 3, "Kept", "Subject: tea\r\n\r\nAt four.\r\n");
    office.put("grace", 1, "In", "Subject: moths\r\n\r\nFound one in the relay.\r\n");

    let repository = Repository::open_or_create(Arc::new(MemoryStore::new()), Protection::None).await?;
    let engine = Engine::builder(repository).resources(Resources::with(64 << 20, 2)?).build()?;

    let first = night(&engine, &office).await?;
    assert_eq!(first.ledger.messages.stored, 4);
    assert_eq!(office.fetched(), 4);

    // Nothing happened: nothing is fetched.
    let second = night(&engine, &office).await?;
    assert_eq!(second.ledger.messages.unchanged, 4);
    assert_eq!(office.fetched(), 4);

    // One letter came, one was written anew, one was read, one was thrown away: two are fetched.
    office.put("grace", 2, "In", "Subject: compilers\r\n\r\nIt can be done.\r\n");
    office.put("ada", 2, "In", "Subject: notes\r\n\r\nSee note G, and mind the table.\r\n");
    office.mark_read("ada", 1);
    office.throw_away("ada", 3);
    let third = night(&engine, &office).await?;
    assert_eq!(third.ledger.messages.stored, 2);
    assert_eq!(third.ledger.messages.unchanged, 2);
    assert_eq!(third.ledger.changes.flags, 1);
    assert_eq!(third.ledger.changes.gone, 1);
    assert_eq!(office.fetched(), 6);

    // What is restored is what is in the office now. (What is gone is kept as well: `restore(..).at(..)` goes back in time.)
    let sink = sink::Memory::new(office.kind());
    let restored = engine.restore(sink.clone()).finish().await?;
    assert!(restored.is_complete());
    for (name, mailbox) in sink.mailboxes() {
        for message in mailbox.messages {
            let Identity::Named(number) = &message.envelope.identity else { continue };
            println!("restored {name}/{}: {} octets", String::from_utf8_lossy(number), message.octets.len());
        }
    }
    assert_eq!(restored.restored, 4);
    Ok(())
}

/// What a service does every night.
async fn night(engine: &Engine, office: &PostOffice) -> Result<Report> {
    let report = engine.transfer(office.clone()).finish().await?;
    let messages = &report.ledger.messages;
    println!("{} seen: {} stored, {} unchanged", messages.seen, messages.stored, messages.unchanged);
    assert!(report.ledger.is_complete());
    Ok(report)
}
