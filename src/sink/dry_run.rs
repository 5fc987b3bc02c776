//! A sink that keeps nothing.

use super::{Delivery, MailboxSink, Note, Sink};
use crate::error::Result;
use crate::message::{Envelope, Folder, MailboxName};
use crate::source::Kind;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Takes every message and keeps none: a restore into it proves that everything could be restored.
///
/// Clones count together.
#[derive(Clone, Debug, Default)]
pub struct DryRun(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    messages: AtomicU64,
    octets: AtomicU64,
}

impl DryRun {
    /// A sink that has taken nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How many messages were committed.
    #[must_use]
    pub fn messages(&self) -> u64 {
        self.0.messages.load(Ordering::Relaxed)
    }

    /// How many octets the committed messages have together.
    #[must_use]
    pub fn octets(&self) -> u64 {
        self.0.octets.load(Ordering::Relaxed)
    }
}

impl Sink for DryRun {
    fn kind(&self) -> Kind {
        Kind::Other("dry run".to_owned())
    }

    fn is_ordered(&self) -> bool {
        false
    }

    fn mailbox(&self, _name: &MailboxName, _notes: &mut Vec<Note>) -> Result<Box<dyn MailboxSink>> {
        Ok(Box::new(self.clone()))
    }
}

impl MailboxSink for DryRun {
    fn folder(&self, _folder: &Folder, _origin: &Kind, _notes: &mut Vec<Note>) -> Result<()> {
        Ok(())
    }

    fn deliver(
        &self,
        _envelope: &Envelope,
        _origin: &Kind,
        _position: u64,
        _length: u64,
        _notes: &mut Vec<Note>,
    ) -> Result<Box<dyn Delivery>> {
        Ok(Box::new(Counting { counts: Arc::clone(&self.0), octets: 0 }))
    }

    fn finish(&self) -> Result<()> {
        Ok(())
    }
}

struct Counting {
    counts: Arc<Counts>,
    octets: u64,
}

impl Delivery for Counting {
    fn write(&mut self, octets: &[u8]) -> Result<()> {
        self.octets += octets.len() as u64;
        Ok(())
    }

    fn commit(self: Box<Self>, _notes: &mut Vec<Note>) -> Result<()> {
        self.counts.messages.fetch_add(1, Ordering::Relaxed);
        self.counts.octets.fetch_add(self.octets, Ordering::Relaxed);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Identity;

    #[test]
    fn only_what_was_committed_is_counted() {
        let sink = DryRun::new();
        let mailbox = sink.mailbox(&MailboxName::new("a"), &mut Vec::new()).unwrap();
        let envelope = Envelope::new("", Identity::Content);
        for is_committed in [true, false] {
            let mut delivery = mailbox.deliver(&envelope, &Kind::Eml, 0, 3, &mut Vec::new()).unwrap();
            delivery.write(b"abc").unwrap();
            if is_committed {
                delivery.commit(&mut Vec::new()).unwrap();
            }
        }
        assert_eq!((sink.messages(), sink.octets()), (1, 3));
    }
}
