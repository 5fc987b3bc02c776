//! The engine: what an embedder holds.

use crate::check::Check;
use crate::compare::Compare;
use crate::error::{Error, Result};
use crate::message::MailboxName;
use crate::reading::{self, MailboxListing, MessageInfo, Run, Statistics};
use crate::recipe::Part;
use crate::repair::{Recover, Repair};
use crate::repository::{Approval, Repository, RunId};
use crate::resources::Resources;
use crate::restore::Restore;
use crate::settings::Settings;
use crate::sink::Sink;
use crate::source::{Kind, Source, SourceId};
use crate::sweep::{Forget, Sweep};
use crate::transfer::{Appender, Transfer, memory_needed};
use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use std::sync::Arc;

/// Moves mail into a repository and out of it. Cloning shares everything; engines over one [`Resources`] share its memory and workers.
#[derive(Clone, Debug)]
pub struct Engine {
    repository: Repository,
    resources: Resources,
    settings: Settings,
}

/// Joins a repository, resources and settings.
#[derive(Debug)]
pub struct Builder {
    repository: Repository,
    resources: Option<Resources>,
    settings: Settings,
}

impl Engine {
    /// An engine for this repository.
    #[must_use]
    pub fn builder(repository: Repository) -> Builder {
        Builder { repository, resources: None, settings: Settings::default() }
    }

    /// Moves all that is new in `source` into the repository. Nothing happens until the transfer is polled.
    #[must_use]
    pub fn transfer(&self, source: impl Source) -> Transfer {
        let (repository, resources) = (self.repository.clone(), self.resources.clone());
        Transfer::new(repository, resources, self.settings.clone(), Arc::new(source))
    }

    /// Opens a mailbox for appending. `source` tells this embedder's messages from those of other sources in the same mailbox.
    ///
    /// The transfer does the work: drive it, in a task of its own or beside the appends. It ends when the appender and its clones are dropped.
    #[must_use]
    pub fn append_to(&self, mailbox: MailboxName, source: SourceId) -> (Appender, Transfer) {
        let kind = Kind::Other("append".to_owned());
        let (repository, resources) = (self.repository.clone(), self.resources.clone());
        Transfer::appending(repository, resources, self.settings.clone(), mailbox, (source, kind))
    }

    /// Restores what is in the repository into `sink`. Nothing happens until the restore is finished.
    #[must_use]
    pub fn restore(&self, sink: impl Sink) -> Restore {
        Restore::new(self.repository.clone(), self.resources.clone(), Arc::new(sink))
    }

    /// The folders and living messages of a mailbox, as of `at` (nanoseconds since 1970) or now. Memory: about 300 octets a message.
    ///
    /// # Cancel safety
    /// Cancel safe: nothing is written.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound) if there is no such mailbox; damage of its journal; what the store reports.
    pub fn messages<'a>(&'a self, mailbox: &'a MailboxName, at: Option<u64>) -> BoxFuture<'a, Result<MailboxListing>> {
        reading::list(&self.repository, mailbox, at).boxed()
    }

    /// One message's octets, by its [ordinal](crate::reading::MessageInfo::ordinal). Verified as they come: the stream ends with an error if they are not the
    /// ones that were stored, so nothing may be believed before its end. Memory: up to about 24 MiB, which is not charged to the budget.
    ///
    /// # Cancel safety
    /// Cancel safe: nothing is written.
    ///
    /// # Errors
    /// As [`messages`](Self::messages).
    pub fn read<'a>(
        &'a self,
        mailbox: &'a MailboxName,
        ordinal: u64,
    ) -> BoxFuture<'a, Result<BoxStream<'static, Result<Bytes>>>> {
        reading::read(self.repository.clone(), self.resources.clone(), mailbox, ordinal).boxed()
    }

    /// One message's octets, by the [sequence](crate::reading::MessageInfo::sequence) of the commit that stored it and its [ordinal](crate::reading::MessageInfo::ordinal), without
    /// reading the mailbox's journal. Verified as with [`read`](Self::read). Memory: as there, and the rows of the one commit.
    ///
    /// It takes at most four reads of the store, of which one is of a pack, and one more for each further pack that the message has content in (and for
    /// further stretches of a pack that are more than a MiB apart, or 8 MiB long); two if the commit is short; nothing is listed.
    ///
    /// The message is read as that commit stored it, whatever became of it since: also if it is gone, or has other flags by now, which the journal alone tells. If it was in quarantine
    /// then, these are the octets that could be read of it, though it may have been read in full since, under another ordinal. A message that is forgotten reads until a sweep takes it
    /// away; then its commit is not found, or its content is damaged or missing, whichever went first.
    ///
    /// # Cancel safety
    /// Cancel safe: nothing is written.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound) if there is no such commit, or no such message in it; damage of the commit; what the store reports.
    pub fn read_stored<'a>(
        &'a self,
        mailbox: &'a MailboxName,
        sequence: u64,
        ordinal: u64,
    ) -> BoxFuture<'a, Result<BoxStream<'static, Result<Bytes>>>> {
        reading::read_stored(self.repository.clone(), self.resources.clone(), mailbox, sequence, ordinal).boxed()
    }

    /// The parts of a message: media types, names, sizes. Reads no content.
    ///
    /// # Cancel safety
    /// Cancel safe: nothing is written.
    ///
    /// # Errors
    /// As [`messages`](Self::messages).
    pub fn parts<'a>(&'a self, mailbox: &'a MailboxName, ordinal: u64) -> BoxFuture<'a, Result<Vec<Part>>> {
        reading::parts(&self.repository, mailbox, ordinal).boxed()
    }

    /// The content of one part, by its place in [`parts`](Self::parts); reads no other part's. Exact base64 comes decoded, everything else in
    /// the part's transfer encoding, as [`Part::body`] tells. Every piece is verified before it comes. Memory: one piece, sealed and opened.
    ///
    /// # Cancel safety
    /// Cancel safe: nothing is written.
    ///
    /// # Errors
    /// As [`messages`](Self::messages).
    pub fn read_part<'a>(
        &'a self,
        mailbox: &'a MailboxName,
        ordinal: u64,
        part: usize,
    ) -> BoxFuture<'a, Result<BoxStream<'static, Result<Bytes>>>> {
        reading::read_part(self.repository.clone(), self.resources.clone(), mailbox, ordinal, part).boxed()
    }

    /// What the repository holds and takes. Reads every mailbox's rows.
    ///
    /// # Cancel safety
    /// Cancel safe: nothing is written.
    ///
    /// # Errors
    /// Damage of a run record; what the store reports of listings. Mailboxes whose journals do not read are in the report.
    pub fn statistics(&self) -> BoxFuture<'_, Result<Statistics>> {
        reading::statistics(&self.repository).boxed()
    }

    /// The runs that recorded their end, oldest first.
    ///
    /// # Cancel safety
    /// Cancel safe: nothing is written.
    ///
    /// # Errors
    /// Damage of a record; what the store reports.
    pub fn runs(&self) -> BoxFuture<'_, Result<Vec<Run>>> {
        reading::runs(&self.repository).boxed()
    }

    /// Records that somebody looked at a run whose [grade](crate::ledger::Grade) asks for it, and why it is good enough. It cannot be taken back.
    ///
    /// # Cancel safety
    /// The approval is written or it is not.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound) if there is no such run; [`Invalid`](crate::ErrorKind::Invalid) if it needs no approval or no reason is given;
    /// [`Exists`](crate::ErrorKind::Exists) if it is approved already.
    pub fn approve<'a>(&'a self, run: RunId, why: &'a str) -> BoxFuture<'a, Result<Approval>> {
        reading::approve(&self.repository, run, why).boxed()
    }

    /// The living messages of a mailbox that are in quarantine: length and digest are of what could be read.
    ///
    /// # Cancel safety
    /// Cancel safe: nothing is written.
    ///
    /// # Errors
    /// As [`messages`](Self::messages).
    pub fn quarantined<'a>(&'a self, mailbox: &'a MailboxName) -> BoxFuture<'a, Result<Vec<MessageInfo>>> {
        reading::quarantined(&self.repository, mailbox).boxed()
    }

    /// Checks the repository. Nothing happens until the check is finished.
    #[must_use]
    pub fn check(&self) -> Check {
        Check::new(self.repository.clone(), self.resources.clone())
    }

    /// Repairs what can be repaired. Nothing happens until the repair is finished.
    #[must_use]
    pub fn repair(&self) -> Repair {
        Repair::new(self.repository.clone(), self.resources.clone())
    }

    /// Restores all that can still be had of a damaged repository into `sink`. Nothing happens until the recovery is finished.
    #[must_use]
    pub fn recover(&self, sink: impl Sink) -> Recover {
        Recover::new(self.repository.clone(), self.resources.clone(), Arc::new(sink))
    }

    /// Compares `source` with the repository. Nothing happens until the comparison is finished.
    #[must_use]
    pub fn compare(&self, source: impl Source) -> Compare {
        Compare::new(self.repository.clone(), self.resources.clone(), Arc::new(source))
    }

    /// Forgets a mailbox, or what was before a time. Nothing happens until it is finished; what is forgotten goes with the next [sweep](Self::sweep).
    #[must_use]
    pub fn forget(&self) -> Forget {
        Forget::new(self.repository.clone())
    }

    /// Deletes what nobody needs any more. Nothing happens until the sweep is finished. Transfers may run meanwhile, anywhere.
    #[must_use]
    pub fn sweep(&self) -> Sweep {
        Sweep::new(self.repository.clone(), self.resources.clone())
    }

    /// The repository.
    #[must_use]
    pub fn repository(&self) -> &Repository {
        &self.repository
    }

    /// What this engine shares with others.
    #[must_use]
    pub fn resources(&self) -> &Resources {
        &self.resources
    }
}

impl Builder {
    /// Shares these resources. Without, the engine gets [its own](Resources::new).
    #[must_use]
    pub fn resources(mut self, resources: Resources) -> Self {
        self.resources = Some(resources);
        self
    }

    /// Works by these settings.
    #[must_use]
    pub fn settings(mut self, settings: Settings) -> Self {
        self.settings = settings;
        self
    }

    /// The engine.
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid) for settings that cannot work together, or not in the budget; if the operating system refuses threads.
    pub fn build(self) -> Result<Engine> {
        self.settings.verify()?;
        let resources = self.resources.map_or_else(Resources::new, Ok)?;
        let (needed, available) = (memory_needed(&resources, &self.settings), resources.available());
        if needed > available {
            let more = (needed - available).div_ceil(1 << 20);
            return Err(Error::invalid(format!(
                "with these settings the memory budget is too small by about {more} MiB"
            )));
        }
        Ok(Engine { repository: self.repository, resources, settings: self.settings })
    }
}
