//! What reading asks of the store: requests for one message and for a mailbox, octets for a restore of much mail.
#![cfg(feature = "testing")]

mod common;

use bytes::Bytes;
use common::{World, base64, message, noise};
use futures::executor::block_on;
use futures::{StreamExt, TryStreamExt};
use mailrail::message::MailboxName;
use mailrail::reading::MessageInfo;
use mailrail::source::{Memory, SourceId};
use mailrail::store::{MemoryStore, Payload, Store};
use mailrail::testing::{CountingStore, Operation};
use mailrail::{Engine, ErrorKind, Resources, Result, Settings};
use std::sync::Arc;

const SOURCE: SourceId = SourceId::new([7; 16]);
/// So many octets of an attachment that it is stored at once, not with others, and that a pack of the smallest size is full with one.
const ATTACHMENT: usize = 150_000;

#[test]
fn a_message_of_a_short_commit_is_one_read_of_the_commit_and_one_of_each_pack() {
    let (world, store) = counted(packs_of_one_attachment());
    let mut mails = in_packs_of_their_own();
    mails.extend((0..4).map(|packs| attachments(100 + packs, 0..packs)));
    push(&world, &mails);
    let listed = list(&world.engine);
    for (packs, ordinal) in (0..4).zip(4..) {
        store.reset();
        let info = &listed[ordinal];
        assert_eq!(read_stored(&world.engine, info.sequence, info.ordinal).unwrap(), mails[ordinal]);
        assert_eq!(requests(&store), (1, packs, 0), "a message with content in {packs} packs");
    }
}

#[test]
fn a_message_of_a_long_commit_is_three_reads_of_the_commit_and_one_of_each_pack() {
    let (world, store) = counted(packs_of_one_attachment());
    let mut mails = in_packs_of_their_own();
    mails.extend((4..4000).map(|number| message(number, 300)));
    (0..3).for_each(|packs| mails.push(attachments(100 + packs, 0..packs)));
    mails.extend((4000..8000).map(|number| message(number, 300)));
    push(&world, &mails);
    let listed = list(&world.engine);
    assert!(listed.iter().all(|info| info.sequence == 0), "one commit");
    let of = |ordinal: usize| listed.iter().find(|info| info.ordinal == ordinal as u64).unwrap();
    for (ordinal, packs) in [(0, 1), (3999, 0), (4000, 0), (4001, 1), (4002, 2), (8002, 0)] {
        store.reset();
        let info = of(ordinal);
        assert_eq!(read_stored(&world.engine, info.sequence, info.ordinal).unwrap(), mails[ordinal]);
        // Its front, what tells of messages and blobs, a block of recipes.
        assert_eq!(requests(&store), (3, packs, 0), "message {ordinal}");
    }
}

#[test]
fn pieces_of_a_message_that_lie_near_one_another_in_a_pack_are_one_read_of_it() {
    let (world, store) = counted(Settings::default());
    let shared: Vec<Vec<u8>> = (0..20).map(|content| attachments(content, [content])).collect();
    let both = attachments(77, [1, 6]);
    push(&world, &[shared, vec![both.clone()]].concat());
    let info = list(&world.engine).pop().unwrap();
    store.reset();
    assert_eq!(read_stored(&world.engine, info.sequence, info.ordinal).unwrap(), both);
    assert_eq!(requests(&store), (1, 1, 0));
}

#[test]
fn what_a_commit_stored_reads_from_it_also_when_it_is_gone_and_nothing_else_does() {
    let (world, _) = counted(Settings::default());
    let (source, mailbox) = (Memory::new(SOURCE), mailbox());
    source.put(&mailbox, "INBOX", "0", with_attachments(0, 1));
    source.put(&mailbox, "INBOX", "1", with_attachments(1, 1));
    world.push(source.clone());
    source.remove(&mailbox, b"INBOX", &mailrail::message::Identity::Named("0".into()));
    source.put(&mailbox, "INBOX", "2", with_attachments(2, 1));
    world.push(source);
    let listed: Vec<(u64, u64)> = list(&world.engine).iter().map(|info| (info.sequence, info.ordinal)).collect();
    assert_eq!(listed, [(0, 1), (1, 2)]);
    assert_eq!(block_on(world.engine.read(&mailbox, 0)).err().unwrap().kind(), ErrorKind::NotFound, "it is gone");
    for number in 0..3 {
        let sequence = number / 2;
        assert_eq!(read_stored(&world.engine, sequence, number).unwrap(), with_attachments(number, 1));
    }
    for (sequence, ordinal) in [(0, 2), (1, 1), (1, 3), (2, 2), (2, 3), (u64::MAX, 0), (0, u64::MAX)] {
        let absent = read_stored(&world.engine, sequence, ordinal).unwrap_err();
        assert_eq!(absent.kind(), ErrorKind::NotFound, "{sequence} {ordinal}");
    }
    let other = MailboxName::new("other");
    assert_eq!(block_on(world.engine.read_stored(&other, 0, 0)).err().unwrap().kind(), ErrorKind::NotFound);
}

#[test]
fn a_message_read_from_its_commit_is_verified_like_any_other() {
    let (world, _) = counted(Settings::default());
    push(&world, &[with_attachments(0, 1)]);
    let (pack, octets) = block_on(async {
        let pack = world.memory.list("packs/").next().await.unwrap().unwrap().key;
        let octets = world.memory.read(&pack, None).await.unwrap();
        (pack, octets)
    });
    for at in [60, 10_000] {
        let mut damaged = octets.to_vec();
        damaged[at] ^= 1;
        block_on(world.memory.put(&pack, Payload::from(damaged))).unwrap();
        assert_eq!(read_stored(&world.engine, 0, 0).unwrap_err().kind(), ErrorKind::Damaged);
    }
    block_on(world.memory.put(&pack, octets.into())).unwrap();
    assert_eq!(read_stored(&world.engine, 0, 0).unwrap(), with_attachments(0, 1));
}

/// Reads (of commits), lists and looks, of the store's mailboxes.
#[test]
fn a_mailbox_is_listed_and_pushed_to_in_as_few_requests_as_its_commits_allow() {
    let (world, store) = counted(Settings::default());
    let source = Memory::new(SOURCE);
    for number in 0..10_u64 {
        source.put(&mailbox(), "INBOX", number.to_string(), message(number, 300));
    }
    world.push(source.clone());
    let counted = |what: &str, work: &dyn Fn()| {
        store.reset();
        work();
        let of = |operation| store.count(operation, "mailboxes").operations;
        println!(
            "{what}: {} reads, {} lists, {} looks",
            of(Operation::Read),
            of(Operation::List),
            of(Operation::Length)
        );
        (of(Operation::Read), of(Operation::List), of(Operation::Length))
    };
    assert_eq!(counted("list, one commit", &|| drop(list(&world.engine))), (1, 1, 0));
    assert_eq!(counted("push of nothing", &|| drop(world.push(source.clone()))), (1, 1, 0));
    source.put(&mailbox(), "INBOX", "new", message(99, 300));
    assert_eq!(counted("push of one message", &|| drop(world.push(source.clone()))), (1, 1, 0));
    assert_eq!(counted("list, two commits", &|| drop(list(&world.engine))), (3, 1, 0));
    assert_eq!(
        counted("read by the journal", &|| drop(collect(block_on(world.engine.read(&mailbox(), 10))))),
        (2, 1, 0)
    );
}

/// A restore reads what mailboxes share once, and little else besides.
#[cfg(feature = "organisation")]
mod restores {
    use super::*;
    use mailrail::organisation::Organisation;
    use mailrail::sink::{Eml, Maildir, Mbox, Sink};

    /// Octets that a restore read, and octets that there are to be read.
    fn octets(sink: impl Fn(&std::path::Path) -> Arc<dyn Sink>) -> (f64, f64) {
        let store = CountingStore::new(Arc::new(MemoryStore::new()));
        let resources = Resources::inline(32 << 20).unwrap();
        let world = World::with(resources, Settings::default(), |_| Arc::new(store.clone()));
        world.push(Organisation::new(3).mailboxes(6).bytes(24_000_000).build());
        let all: Vec<_> = block_on(store.list("").try_collect()).unwrap();
        let of = |class: &str| all.iter().filter(|one| one.key.starts_with(class)).map(|one| one.length).sum::<u64>();
        let needed = of("packs/") + of("mailboxes/");
        let directory = tempfile::tempdir().unwrap();
        store.reset();
        let report = block_on(world.engine.restore(sink(directory.path())).finish()).unwrap();
        assert_eq!(report.failed, 0, "{report:#?}");
        let read = store.count(Operation::Read, "packs").octets + store.count(Operation::Read, "mailboxes").octets;
        assert!(report.bytes_read <= read && report.bytes_read * 10 >= read * 9, "{} of {read}", report.bytes_read);
        (read as f64, needed as f64)
    }

    #[test]
    fn to_a_sink_without_order_read_at_most_a_fifth_more_than_there_is() {
        let (read, needed) = octets(|path| Arc::new(Maildir::new(path)));
        assert!(read <= needed * 1.2, "Maildir: {read} of {needed}");
        let (read, needed) = octets(|path| Arc::new(Eml::new(path)));
        assert!(read <= needed * 1.2, "eml: {read} of {needed}");
    }

    #[test]
    fn to_a_sink_with_order_read_at_most_twice_what_there_is() {
        let (read, needed) = octets(|path| Arc::new(Mbox::new(path)));
        assert!(read <= needed * 2.0, "{read} of {needed}");
    }
}

fn mailbox() -> MailboxName {
    MailboxName::new("user")
}

fn counted(settings: Settings) -> (World, CountingStore) {
    let mut counting = None;
    let world = World::with(Resources::inline(64 << 20).unwrap(), settings, |memory| {
        let store = CountingStore::new(Arc::new(memory));
        counting = Some(store.clone());
        Arc::new(store)
    });
    (world, counting.unwrap())
}

fn packs_of_one_attachment() -> Settings {
    let mut settings = Settings::default();
    settings.pack_bytes_max = 1 << 14;
    settings
}

/// Four messages with one attachment each, of which each fills a pack.
fn in_packs_of_their_own() -> Vec<Vec<u8>> {
    (0..4).map(|content| attachments(content, [content])).collect()
}

fn push(world: &World, mails: &[Vec<u8>]) {
    let source = Memory::new(SOURCE);
    for (number, mail) in mails.iter().enumerate() {
        source.put(&mailbox(), "INBOX", format!("{number:06}"), mail.clone());
    }
    assert_eq!(world.push(source).messages.stored, mails.len() as u64);
}

fn list(engine: &Engine) -> Vec<MessageInfo> {
    block_on(engine.messages(&mailbox(), None)).unwrap().messages
}

fn read_stored(engine: &Engine, sequence: u64, ordinal: u64) -> Result<Vec<u8>> {
    collect(block_on(engine.read_stored(&mailbox(), sequence, ordinal)))
}

fn collect(octets: Result<futures::stream::BoxStream<'static, Result<Bytes>>>) -> Result<Vec<u8>> {
    block_on(octets?.try_collect::<Vec<Bytes>>()).map(|pieces| pieces.concat())
}

/// Reads of commits, reads of packs, and requests of any other kind.
fn requests(store: &CountingStore) -> (u64, u64, u64) {
    let of = |class| store.count(Operation::Read, class).operations;
    let (commits, packs) = (of("mailboxes"), of("packs"));
    let all =
        [Operation::Read, Operation::List, Operation::Length, Operation::Put, Operation::Create, Operation::Delete];
    let all: u64 = all.into_iter().map(|operation| store.total(operation).operations).sum();
    (commits, packs, all - commits - packs)
}

/// A message with so many attachments, all of them its own.
fn with_attachments(number: u64, count: u64) -> Vec<u8> {
    attachments(number, (0..count).map(|content| 1000 * (number + 1) + content))
}

/// A message with these attachments.
fn attachments(number: u64, contents: impl IntoIterator<Item = u64>) -> Vec<u8> {
    let head = "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=\"b\"\n\n";
    let mut octets = format!("Subject: attachments {number}\n{head}").into_bytes();
    for content in contents {
        let head = "--b\nContent-Type: application/octet-stream\nContent-Transfer-Encoding: base64\n\n";
        octets.extend_from_slice(head.as_bytes());
        octets.extend_from_slice(&base64(&noise(content, ATTACHMENT)));
    }
    octets.extend_from_slice(b"--b--\n");
    octets
}
