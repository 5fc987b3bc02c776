//! Where messages are delivered to.
//!
//! A sink is blocking and runs on a worker. What a sink cannot hold (a keyword, a folder's name) is a [`Note`], never silence.

mod dry_run;
mod eml;
mod files;
#[cfg(test)]
mod fixture;
mod from_lines;
mod maildir;
mod mbox;
#[cfg(test)]
mod mirror;
mod names;
mod system;
mod temporary;
mod tree;

pub use dry_run::DryRun;
pub use eml::Eml;
pub use maildir::Maildir;
pub use mbox::Mbox;

use crate::error::Result;
use crate::message::{Envelope, Folder, MailboxName};
use crate::source::Kind;
use std::fmt;
use std::sync::Arc;

/// Where messages are delivered to. Dyn-compatible; mailrail holds it as `Arc<dyn Sink>`.
pub trait Sink: fmt::Debug + Send + Sync + 'static {
    /// The kind of sink. Messages that came from the same kind are put back exactly as they were.
    fn kind(&self) -> Kind;

    /// Whether the messages of a folder must be delivered in order and one at a time (mbox), or in any order and many at once.
    fn is_ordered(&self) -> bool;

    /// Opens a mailbox for delivery, creating it. Called on a worker; may block.
    ///
    /// # Errors
    /// If the mailbox cannot be created.
    fn mailbox(&self, name: &MailboxName, notes: &mut Vec<Note>) -> Result<Box<dyn MailboxSink>>;
}

/// A sink that is shared is one, too.
impl<S: Sink + ?Sized> Sink for Arc<S> {
    fn kind(&self) -> Kind {
        (**self).kind()
    }

    fn is_ordered(&self) -> bool {
        (**self).is_ordered()
    }

    fn mailbox(&self, name: &MailboxName, notes: &mut Vec<Note>) -> Result<Box<dyn MailboxSink>> {
        (**self).mailbox(name, notes)
    }
}

/// One mailbox being filled.
pub trait MailboxSink: Send + Sync {
    /// Creates a folder, which came from a source of kind `origin`. Called for every folder before any message in it.
    ///
    /// # Errors
    /// If the folder cannot be created.
    fn folder(&self, folder: &Folder, origin: &Kind, notes: &mut Vec<Note>) -> Result<()>;

    /// Begins the delivery of a message that came from a source of kind `origin`, of `length` octets.
    ///
    /// `position` is the message's place in its folder's order: no two messages of a folder have the same, and a message has the same
    /// whenever it is restored. A sink makes a name of it for a message that has none.
    ///
    /// For a sink that [is ordered](Sink::is_ordered) the delivery before it in the same folder was committed or dropped.
    ///
    /// # Errors
    /// If it cannot begin.
    fn deliver(
        &self,
        envelope: &Envelope,
        origin: &Kind,
        position: u64,
        length: u64,
        notes: &mut Vec<Note>,
    ) -> Result<Box<dyn Delivery>>;

    /// Called once, after the last delivery: sets times of folders, flushes. What was delivered is as durable as the sink promises
    /// when this returns; each sink says what it promises.
    ///
    /// # Errors
    /// If something delivered may be less durable than promised, or a folder is not what it should be.
    fn finish(&self) -> Result<()>;
}

/// One message being delivered. Dropped without [`commit`](Self::commit), it leaves nothing behind.
pub trait Delivery: Send {
    /// Takes the next octets.
    ///
    /// # Errors
    /// If they cannot be written.
    fn write(&mut self, octets: &[u8]) -> Result<()>;

    /// Makes the message visible under its final name. Called only after the octets written were verified.
    /// Notes tell what could be known only after the last octet.
    ///
    /// # Errors
    /// If it cannot be made visible. Of kind [`Exists`](crate::ErrorKind::Exists) if something else has its name, which is left as it is.
    fn commit(self: Box<Self>, notes: &mut Vec<Note>) -> Result<()>;
}

/// Something that a sink had to change or leave out.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Note {
    /// A mailbox, folder or file got another name, because its own would climb out of the target, clash or cannot be.
    Renamed {
        /// The name it had, for people.
        from: String,
        /// The name it got.
        to: String,
    },
    /// Something that this kind of sink cannot hold was left out.
    Unholdable {
        /// What: "keyword", "internal date", "companion file" and the like.
        what: &'static str,
        /// Of which folder or message, for people.
        of: String,
    },
    /// Octets were changed in the way that this kind of sink demands (mbox: `From ` lines quoted).
    Transformed {
        /// How: "mboxrd quoting" and the like.
        how: &'static str,
        /// Of which folder or message, for people.
        of: String,
    },
}
