//! What all these tests do with a repository: put mail into it, forget, sweep, and look which objects there are.

use crate::common::{self, Delivered, with_attachment};
use futures::TryStreamExt;
use futures::executor::block_on;
use mailrail::message::MailboxName;
use mailrail::source::{Memory, SourceId};
use mailrail::store::{Listed, MemoryStore, Store};
use mailrail::sweep::SweepReport;
use mailrail::testing::ManualClock;
use mailrail::{Engine, Resources, Settings};
use std::sync::Arc;
use std::time::Duration;

pub(crate) const SOURCE: SourceId = SourceId::new([1; 16]);

pub(crate) fn name(mailbox: &str) -> MailboxName {
    MailboxName::new(mailbox)
}

pub(crate) fn resources() -> Resources {
    Resources::inline(64 << 20).unwrap()
}

/// One message a commit.
pub(crate) fn settings() -> Settings {
    let mut settings = Settings::default();
    settings.commit_messages_max = 1;
    settings
}

pub(crate) fn sweep(engine: &Engine) -> SweepReport {
    block_on(engine.sweep().finish()).unwrap()
}

pub(crate) fn forget(engine: &Engine, mailbox: &str) {
    let report = block_on(engine.forget().mailboxes([name(mailbox)]).finish()).unwrap();
    assert_eq!((report.mailboxes, report.untouched), (1, 0));
}

pub(crate) fn keys(store: &MemoryStore, prefix: &str) -> Vec<String> {
    let listed: Vec<Listed> = block_on(store.list(prefix).try_collect()).unwrap();
    listed.into_iter().map(|object| object.key).collect()
}

pub(crate) fn is_there(store: &MemoryStore, key: &str) -> bool {
    block_on(store.length(key)).unwrap().is_some()
}

/// Another process over the same objects.
pub(crate) fn process(store: &MemoryStore, clock: &ManualClock, seed: u64) -> Engine {
    clock.advance(Duration::from_secs(60));
    common::engine(Arc::new(store.clone()), clock, resources(), settings(), seed)
}

/// Puts messages with attachments, one for each content, into a source; gives them as a restore must deliver them.
pub(crate) fn mail(source: &Memory, mailbox: &str, contents: &[u64]) -> Delivered {
    let mut expected = Delivered::new();
    for content in contents {
        let octets = with_attachment(*content + 1000, *content, 40_000);
        source.put(&name(mailbox), "INBOX", content.to_string(), octets.clone());
        expected.insert((mailbox.into(), "INBOX".into(), content.to_string()), octets);
    }
    expected
}
