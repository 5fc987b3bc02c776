//! Any messages, in two runs of which the second changes some: what is restored after each is what the source had, and the ledgers say so.
#![no_main]

use futures::executor::block_on;
use libfuzzer_sys::fuzz_target;
use mailrail::message::MailboxName;
use mailrail::source::{self, Kind, SourceId};
use mailrail::store::MemoryStore;
use mailrail::testing::{ManualClock, SeededRandomness, sink};
use mailrail::{Engine, Key, Protection, Repository, Resources, Settings, repository};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Messages by mailbox, folder and name.
type Model = BTreeMap<(u8, u8, u8), Vec<u8>>;

fuzz_target!(|input: &[u8]| {
    let Some((&shape, rest)) = input.split_first() else { return };
    let protection = if shape & 1 == 0 { Protection::None } else { Protection::Key(Key::new([shape; 32])) };
    let source = source::Memory::new(SourceId::new([1; 16]));
    let mut model = Model::new();
    let half = rest.len() / 2;
    block_on(async {
        let engine = engine(protection, shape).await;
        for part in [&rest[..half], &rest[half..]] {
            change(part, &source, &mut model);
            let report = engine.transfer(source.clone()).finish().await.expect("a push in memory cannot fail");
            assert!(report.ledger.is_complete());
            assert_eq!(report.ledger.messages.seen, model.len() as u64);
            let sink = sink::Memory::new(Kind::Eml);
            let restored = engine.restore(sink.clone()).finish().await.expect("a restore from memory cannot fail");
            assert_eq!((restored.restored, restored.failed), (model.len() as u64, 0), "{restored:?}");
            assert_eq!(delivered(&sink), model);
        }
        let check = engine.check().read_data(true).finish().await.expect("a check in memory cannot fail");
        assert!(check.is_sound(), "{check:?}");
    });
});

/// An engine of small cuts and commits, so that short inputs reach everything.
async fn engine(protection: Protection, shape: u8) -> Engine {
    let seams = {
        let mut seams = repository::Seams::default();
        seams.clock = Arc::new(ManualClock::new(Duration::from_secs(1)));
        seams.randomness = Arc::new(SeededRandomness::new(7));
        seams
    };
    let store = Arc::new(MemoryStore::new());
    let repository = Repository::open_or_create_with(store, protection, seams).await.expect("a store in memory opens");
    let mut settings = Settings::default();
    settings.cuts.base64_blob_min = 16 << (shape >> 1 & 3);
    settings.cuts.verbatim_blob_min = 64 << (shape >> 3 & 3);
    settings.cuts.literal_run_max = 128;
    settings.cuts.piece_max = 32 << (shape >> 5 & 3);
    settings.commit_messages_max = 3;
    let resources = Resources::inline(Resources::MEMORY_BYTES_MIN).expect("the smallest budget is legal");
    Engine::builder(repository).resources(resources).settings(settings).build().expect("the settings are legal")
}

/// Puts and removes messages: each record is a mailbox, a folder, a name, a length, octets; length 0 removes.
fn change(mut input: &[u8], source: &source::Memory, model: &mut Model) {
    while let [mailbox, folder, name, low, high, rest @ ..] = input {
        let length = usize::from(u16::from_le_bytes([*low, *high & 0x0f])).min(rest.len());
        let (octets, behind) = rest.split_at(length);
        let key = (mailbox % 3, folder % 3, name % 8);
        let (box_name, folder, name) = (MailboxName::new([key.0]), vec![b'f', key.1], vec![b'n', key.2]);
        if octets.is_empty() && model.contains_key(&key) {
            source.remove(&box_name, &folder, &mailrail::message::Identity::Named(name.into()));
            model.remove(&key);
        } else {
            source.put(&box_name, folder, name, octets.to_vec());
            model.insert(key, octets.to_vec());
        }
        input = behind;
    }
}

fn delivered(sink: &sink::Memory) -> Model {
    let mut model = Model::new();
    for (name, mailbox) in sink.mailboxes() {
        for message in mailbox.messages {
            let mailrail::message::Identity::Named(identity) = &message.envelope.identity else { panic!("unnamed") };
            let key = (name.as_bytes()[0], message.envelope.folder[1], identity[1]);
            assert!(model.insert(key, message.octets).is_none(), "delivered twice");
        }
    }
    model
}
