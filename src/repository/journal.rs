//! A mailbox's journal: its commits in order, and the state that they add up to.

use super::columns::RowReader;
use super::commit::{
    CommitRef, FolderRecord, Head, Section, SourceRecord, decode_commits, decode_folders, decode_gone,
};
use super::opened::{Contents, Fetched, number};
use super::{MessageRow, Repository, mailbox_digest};
use crate::digest::Digest;
use crate::error::{Error, ErrorKind, Result};
use crate::message::MailboxName;
use crate::wire::{counter_from_hex, from_hex, hex};
use bytes::Bytes;
use futures::TryStreamExt;
use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

/// The name of a journal: a keyed digest of the mailbox's name, so that a listing of the store names no mailbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct JournalName([u8; 16]);

impl JournalName {
    pub(crate) fn new(repository: &Repository, mailbox: &MailboxName) -> Self {
        let mut name = [0; 16];
        name.copy_from_slice(&mailbox_digest(repository.domain(), mailbox).as_bytes()[..16]);
        Self(name)
    }

    pub(super) fn prefix(self) -> String {
        let name = hex(&self.0);
        format!("mailboxes/{}/{name}/", &name[..2])
    }

    /// The key of a commit.
    pub(crate) fn commit(self, sequence: u64) -> String {
        format!("{}{sequence:016x}", self.prefix())
    }

    /// The journal and sequence in a commit's key.
    pub(crate) fn of_commit(key: &str) -> Option<(Self, u64)> {
        let mut names = key.split('/').skip(2);
        let (journal, sequence) = (from_hex(names.next()?).map(Self)?, counter_from_hex(names.next()?)?);
        (journal.commit(sequence) == key).then_some((journal, sequence))
    }

    /// A journal's name of these octets.
    pub(crate) const fn of(name: [u8; 16]) -> Self {
        Self(name)
    }

    /// Its octets.
    pub(crate) const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// The mailbox whose journal this is.
    pub(crate) async fn mailbox(self, repository: &Repository) -> Result<MailboxName> {
        self.newest(repository).await.map(|(head, _)| head.mailbox)
    }

    /// The mailbox whose journal this is, if there is anything in it that is not forgotten.
    pub(crate) async fn living_mailbox(self, repository: &Repository) -> Result<Option<MailboxName>> {
        let (mailbox, is_void) = self.mailbox_if_any(repository).await?;
        Ok((!is_void).then_some(mailbox))
    }

    /// The mailbox whose journal this is, and whether there is nothing in it that is not forgotten.
    pub(crate) async fn mailbox_if_any(self, repository: &Repository) -> Result<(MailboxName, bool)> {
        let (head, is_last) = self.newest(repository).await?;
        // What is behind it and does not read may be anything.
        Ok((head.mailbox, head.is_void && is_last))
    }

    /// The head of the newest commit that reads (a damaged one hides no mailbox), and whether it is the last.
    async fn newest(self, repository: &Repository) -> Result<(Head, bool)> {
        patiently(repository, self, || self.newest_once(repository)).await
    }

    async fn newest_once(self, repository: &Repository) -> Result<(Head, bool)> {
        let mut failure = None;
        for (sequence, length) in listed(repository, self).await?.into_iter().rev() {
            match Fetched::head(repository, self, sequence, Some(length)).await {
                Ok(head) => return Ok((head, failure.is_none())),
                Err(error) if error.kind() == ErrorKind::Damaged => failure = failure.or(Some(error)),
                Err(error) => return Err(error),
            }
        }
        Err(failure.unwrap_or_else(|| Error::new(ErrorKind::NotFound, "a journal has no commits")))
    }

    /// The last commit.
    pub(crate) async fn last(self, repository: &Repository) -> Result<Option<Fetched>> {
        patiently(repository, self, || self.last_once(repository)).await
    }

    async fn last_once(self, repository: &Repository) -> Result<Option<Fetched>> {
        match listed(repository, self).await?.last() {
            Some(&(sequence, length)) => Fetched::open(repository, self, sequence, Some(length)).await.map(Some),
            None => Ok(None),
        }
    }

    /// The sequences of the objects of this journal, in order: also of those that are forgotten and not deleted yet.
    pub(crate) async fn sequences(self, repository: &Repository) -> Result<Vec<(u64, u64)>> {
        listed(repository, self).await
    }
}

/// A forgetting checkpoint, and the commits that it names: the last is the one of which it carries the state.
#[derive(Debug)]
pub(super) struct Base {
    pub(super) sequence: u64,
    fetched: Fetched,
    commits: Vec<CommitRef>,
}

impl Base {
    pub(super) async fn open(
        repository: &Repository,
        name: JournalName,
        sequence: u64,
        length: Option<u64>,
    ) -> Result<Self> {
        Self::of(repository, Fetched::open(repository, name, sequence, length).await?).await
    }

    async fn of(repository: &Repository, mut fetched: Fetched) -> Result<Self> {
        let sequence = fetched.reader.head.sequence;
        let commits = commits_of(repository, &mut fetched).await?;
        let is_one = fetched.reader.head.is_forgetting() && !commits.is_empty();
        if is_one {
            Ok(Self { sequence, fetched, commits })
        } else {
            Err(Error::damaged("a commit forgets nothing, though others say so"))
        }
    }

    /// The first commit that is not in the state that it carries.
    pub(super) fn next(&self) -> u64 {
        self.commits.last().map_or(0, |last| last.sequence + 1)
    }

    /// The first time whose state is known: of the last commit that is in it; its own, if all was forgotten.
    fn time(&self) -> u64 {
        let head = &self.fetched.reader.head;
        if head.is_void { head.time } else { self.commits.last().map_or(0, |last| last.time) }
    }

    /// What was there at this time can be asked for.
    pub(super) fn allow(&self, at: u64) -> Result<()> {
        if at >= self.time() {
            return Ok(());
        }
        let mailbox = &self.fetched.reader.head.mailbox;
        Err(Error::new(ErrorKind::Forgotten, format!("what '{mailbox}' held at that time is forgotten")))
    }

    /// The commits that it leaves, and which messages of them it forgets.
    pub(super) async fn kept(&mut self, repository: &Repository) -> Result<(Kept, HashSet<u64>)> {
        let mut forgotten = HashSet::new();
        for block in self.fetched.section(repository, Section::Gone).await? {
            forgotten.extend(decode_gone(&block)?);
        }
        Ok((self.leaves(), forgotten))
    }

    fn leaves(&self) -> Kept {
        let needed = self.commits.iter().filter(|commit| !commit.forgotten).map(|commit| commit.sequence).collect();
        Kept { needed, next: self.next() }
    }
}

/// The commits that a forgetting checkpoint leaves.
#[derive(Debug)]
pub(crate) struct Kept {
    needed: HashSet<u64>,
    next: u64,
}

impl Kept {
    /// Whether the commit of this sequence is needed.
    pub(crate) fn contains(&self, sequence: u64) -> bool {
        sequence >= self.next || self.needed.contains(&sequence)
    }
}

/// The commits that a checkpoint names.
async fn commits_of(repository: &Repository, fetched: &mut Fetched) -> Result<Vec<CommitRef>> {
    let mut commits = Vec::new();
    fetched.load(repository, &[Section::Folders, Section::Updates, Section::Gone, Section::Commits]).await?;
    for block in fetched.section(repository, Section::Commits).await? {
        commits.extend(decode_commits(&block)?);
    }
    Ok(commits)
}

/// A journal as it stands, or as it stood.
#[derive(Debug)]
pub(crate) struct Journal {
    pub(crate) name: JournalName,
    pub(crate) mailbox: MailboxName,
    /// All commits, oldest first.
    pub(crate) commits: Vec<CommitRef>,
    /// The sequence of the latest checkpoint.
    pub(crate) checkpoint: Option<u64>,
    /// The sources of all rows and folders, each once.
    pub(crate) sources: Vec<SourceRecord>,
    /// The living folders by raw name.
    pub(crate) folders: BTreeMap<Bytes, FolderRecord>,
    /// Messages that are no longer as the commit that stored them says, and those of commits that a checkpoint inlines.
    updates: BTreeMap<u64, MessageRow>,
    gone: HashSet<u64>,
    /// The next ordinal.
    pub(crate) next_ordinal: u64,
    /// The sequence of the latest forgetting checkpoint, whatever time the journal was loaded for.
    pub(crate) forgotten: Option<u64>,
    /// The epoch of the latest fence; 0 if there is none.
    pub(crate) epoch: u64,
    /// There is nothing in the mailbox, and whatever there was is forgotten.
    pub(crate) is_void: bool,
    /// The last commit of which the latest forgetting checkpoint carries the state. Only known where that was read.
    pub(super) forgotten_until: Option<u64>,
    /// The messages that were gone then: nobody needs them.
    pub(super) forgotten_messages: Arc<HashSet<u64>>,
    /// The newest commit, as far as it was read.
    newest: Mutex<Option<Fetched>>,
}

/// What loading a journal begins with.
struct Begun {
    /// Sequences and lengths of the commits behind the base.
    listed: Vec<(u64, u64)>,
    base: Option<Base>,
    /// The last commit, of which the head was read.
    opened: Option<Fetched>,
}

impl Journal {
    /// A journal without commits.
    pub(crate) fn empty(name: JournalName, mailbox: MailboxName) -> Self {
        Self {
            name,
            mailbox,
            commits: Vec::new(),
            checkpoint: None,
            sources: Vec::new(),
            folders: BTreeMap::new(),
            updates: BTreeMap::new(),
            gone: HashSet::new(),
            next_ordinal: 0,
            forgotten: None,
            epoch: 0,
            is_void: false,
            forgotten_until: None,
            forgotten_messages: Arc::default(),
            newest: Mutex::default(),
        }
    }

    /// Loads a mailbox's journal, up to the last commit not after `at` (nanoseconds since 1970). Without commits it is empty.
    pub(crate) async fn load(repository: &Repository, mailbox: &MailboxName, at: Option<u64>) -> Result<Self> {
        let name = JournalName::new(repository, mailbox);
        patiently(repository, name, || Self::load_once(repository, mailbox, at)).await
    }

    /// Does something that reads a journal, and again while a sweep deletes what it comes to: what is read then is not what was listed.
    pub(crate) async fn patiently<T, F: Future<Output = Result<T>> + Send>(
        repository: &Repository,
        name: JournalName,
        read: impl Fn() -> F + Send,
    ) -> Result<T> {
        patiently(repository, name, read).await
    }

    async fn load_once(repository: &Repository, mailbox: &MailboxName, at: Option<u64>) -> Result<Self> {
        let mut journal = Self::empty(JournalName::new(repository, mailbox), mailbox.clone());
        let Some(Begun { mut listed, base, mut opened }) = journal.begin(repository).await? else { return Ok(journal) };
        if let Some(at) = at {
            base.as_ref().map_or(Ok(()), |base| base.allow(at))?;
            cut_after(repository, journal.name, &mut listed, at).await?;
        }
        let Some(&(last, _)) = listed.last() else {
            if let Some(base) = base {
                journal.restore(repository, base).await?;
            }
            return Ok(journal);
        };
        let head = journal.open(repository, &listed, last, &mut opened).await?;
        // A checkpoint before the latest forgetting one stands on commits that may be deleted.
        journal.checkpoint =
            head.reader.head.checkpoint.filter(|at| base.as_ref().is_none_or(|base| base.sequence < *at));
        opened = Some(head);
        let first = match (journal.checkpoint, base) {
            (Some(checkpoint), _) => {
                let mut fetched = journal.open(repository, &listed, checkpoint, &mut opened).await?;
                journal.commits = commits_of(repository, &mut fetched).await?;
                journal.apply(repository, &mut fetched, false).await?;
                journal.keep_newest(fetched);
                checkpoint + 1
            }
            (None, Some(base)) => journal.restore(repository, base).await?,
            (None, None) => 0,
        };
        for sequence in first..=last {
            let mut fetched = journal.open(repository, &listed, sequence, &mut opened).await?;
            journal.apply(repository, &mut fetched, true).await?;
            journal.keep_newest(fetched);
        }
        Ok(journal)
    }

    /// As [`load`](Self::load), but reads every commit that is not forgotten: a checkpoint is believed nothing that the commits themselves tell.
    pub(crate) async fn load_all(repository: &Repository, mailbox: &MailboxName, at: Option<u64>) -> Result<Self> {
        let name = JournalName::new(repository, mailbox);
        patiently(repository, name, || Self::load_all_once(repository, mailbox, at)).await
    }

    async fn load_all_once(repository: &Repository, mailbox: &MailboxName, at: Option<u64>) -> Result<Self> {
        let mut journal = Self::empty(JournalName::new(repository, mailbox), mailbox.clone());
        let Some(Begun { mut listed, base, mut opened }) = journal.begin(repository).await? else { return Ok(journal) };
        if let Some(at) = at {
            cut_after(repository, journal.name, &mut listed, at).await?;
        }
        if let Some(base) = base {
            journal.restore(repository, base).await?;
        }
        for (sequence, _) in &listed {
            let mut fetched = journal.open(repository, &listed, *sequence, &mut opened).await?;
            journal.apply(repository, &mut fetched, true).await?;
            journal.keep_newest(fetched);
        }
        Ok(journal)
    }

    /// Opens a listed commit, unless it is the one that is open already.
    async fn open(
        &self,
        repository: &Repository,
        listed: &[(u64, u64)],
        sequence: u64,
        opened: &mut Option<Fetched>,
    ) -> Result<Fetched> {
        match opened.take_if(|opened| opened.reader.head.sequence == sequence) {
            Some(opened) => Ok(opened),
            None => Fetched::open(repository, self.name, sequence, Some(length_of(listed, sequence)?)).await,
        }
    }

    /// The newest commit is kept for whoever reads its messages next.
    fn keep_newest(&mut self, mut fetched: Fetched) {
        fetched.keep_front();
        self.newest = Mutex::new(Some(fetched));
    }

    /// Nobody is going to read the messages of the newest commit: its front goes, up to 64 KiB.
    pub(crate) fn drop_newest(&mut self) {
        self.newest = Mutex::default();
    }

    /// The commits that a forgetting checkpoint leaves: those that it names as needed, and all behind the one of which it carries the state.
    pub(crate) async fn kept(repository: &Repository, name: JournalName, checkpoint: u64) -> Result<Kept> {
        Ok(Base::open(repository, name, checkpoint, None).await?.leaves())
    }

    /// Lists the commits behind the base, all of which must be there, and opens the latest forgetting checkpoint. `None` without commits.
    async fn begin(&mut self, repository: &Repository) -> Result<Option<Begun>> {
        let mut listed = listed(repository, self.name).await?;
        let Some(&(last, length)) = listed.last() else { return Ok(None) };
        let mut opened = Some(Fetched::open(repository, self.name, last, Some(length)).await?);
        let Some(head) = opened.as_ref().map(|opened| &opened.reader.head) else { return Ok(None) };
        if head.mailbox != self.mailbox {
            return Err(Error::damaged("a journal is not the one of the mailbox that names it"));
        }
        (self.forgotten, self.epoch, self.is_void) = (head.forgotten, head.epoch, head.is_void);
        let base = match head.forgotten {
            Some(sequence) => {
                let fetched = self.open(repository, &listed, sequence, &mut opened).await?;
                Some(Base::of(repository, fetched).await?)
            }
            None => None,
        };
        let first = base.as_ref().map_or(0, Base::next);
        listed.retain(|(sequence, _)| *sequence >= first);
        for (expected, (sequence, _)) in (first..).zip(&listed) {
            if *sequence != expected {
                return Err(Error::damaged(format!("commit {expected} of a journal is missing")));
            }
        }
        Ok(Some(Begun { listed, base, opened }))
    }

    /// Takes in the state that a forgetting checkpoint carries, and gives the sequence of the first commit to be applied to it.
    pub(super) async fn restore(&mut self, repository: &Repository, base: Base) -> Result<u64> {
        let next = base.next();
        let Base { mut fetched, commits, .. } = base;
        self.next_ordinal = commits.last().map_or(0, |last| last.first_ordinal + u64::from(last.rows));
        self.forgotten_until = commits.last().map(|last| last.sequence);
        self.commits = commits;
        self.apply_state(repository, &mut fetched).await?;
        self.forgotten_messages = Arc::new(self.gone.clone());
        Ok(next)
    }

    /// The last commit.
    pub(crate) fn head(&self) -> Option<&CommitRef> {
        self.commits.last()
    }

    /// Takes in what a commit that was read says.
    pub(super) async fn apply(&mut self, repository: &Repository, fetched: &mut Fetched, chained: bool) -> Result<()> {
        let head = &fetched.reader.head;
        if chained && head.previous != self.head().map(|commit| commit.digest) {
            return Err(Error::damaged(format!("commit {} does not follow the one before it", head.sequence)));
        }
        // The state that a forgetting checkpoint carries is an older one, and is known where it is met.
        if !head.is_forgetting() {
            self.apply_state(repository, fetched).await?;
        }
        self.append(fetched);
        Ok(())
    }

    /// Takes in the folders, updates and gone messages that a commit tells.
    async fn apply_state(&mut self, repository: &Repository, fetched: &mut Fetched) -> Result<()> {
        let numbers = self.adopt_sources(&fetched.reader.head.sources.clone());
        fetched.load(repository, &[Section::Folders, Section::Updates, Section::Gone]).await?;
        self.apply_folders(repository, fetched, &numbers).await?;
        self.apply_updates(repository, fetched, &numbers).await?;
        self.apply_gone(repository, fetched).await
    }

    pub(super) async fn apply_folders(
        &mut self,
        repository: &Repository,
        fetched: &mut Fetched,
        numbers: &[u32],
    ) -> Result<()> {
        for block in fetched.section(repository, Section::Folders).await? {
            for mut record in decode_folders(&block)? {
                record.source = number(numbers, record.source)?;
                if record.gone {
                    self.folders.remove(&record.folder.path.raw);
                } else {
                    self.folders.insert(record.folder.path.raw.clone(), record);
                }
            }
        }
        Ok(())
    }

    pub(super) async fn apply_updates(
        &mut self,
        repository: &Repository,
        fetched: &mut Fetched,
        numbers: &[u32],
    ) -> Result<()> {
        for block in fetched.section(repository, Section::Updates).await? {
            for row in RowReader::new(block, 0)? {
                let mut row = row?;
                row.source = number(numbers, row.source)?;
                if self.gone.contains(&row.ordinal) {
                    continue;
                }
                if let Some(stored) = self.updates.get(&row.ordinal) {
                    row.complete_from(stored);
                }
                self.updates.insert(row.ordinal, row);
            }
        }
        Ok(())
    }

    pub(super) async fn apply_gone(&mut self, repository: &Repository, fetched: &mut Fetched) -> Result<()> {
        for block in fetched.section(repository, Section::Gone).await? {
            for ordinal in decode_gone(&block)? {
                self.updates.remove(&ordinal);
                self.gone.insert(ordinal);
            }
        }
        Ok(())
    }

    /// The commit is one of the journal's.
    pub(super) fn append(&mut self, fetched: &Fetched) {
        let reference = fetched.reader.reference();
        self.next_ordinal = self.next_ordinal.max(reference.first_ordinal + u64::from(reference.rows));
        self.commits.push(reference);
    }

    /// Gives this commit's sources numbers in the journal.
    pub(super) fn adopt_sources(&mut self, sources: &[SourceRecord]) -> Vec<u32> {
        sources
            .iter()
            .map(|source| {
                let number = self.sources.iter().position(|known| known.id == source.id);
                number.unwrap_or_else(|| {
                    self.sources.push(source.clone());
                    self.sources.len() - 1
                }) as u32
            })
            .collect()
    }

    /// What became of a row as its commit stored it: as it is now, or `None` if it is gone.
    pub(crate) fn now(&self, row: MessageRow) -> Option<MessageRow> {
        if self.is_gone(row.ordinal) {
            return None;
        }
        let Some(update) = self.updates.get(&row.ordinal) else { return Some(row) };
        let mut update = update.clone();
        update.complete_from(&row);
        Some(update)
    }

    /// Whether a message that was stored is no longer there. Of a commit that a checkpoint carries, only the living are told.
    fn is_gone(&self, ordinal: u64) -> bool {
        let at = self.commits.partition_point(|commit| commit.first_ordinal <= ordinal).checked_sub(1);
        let is_carried = at.and_then(|at| self.commits.get(at)).is_some_and(|commit| commit.inlined);
        self.gone.contains(&ordinal) || is_carried && !self.updates.contains_key(&ordinal)
    }

    /// Gives every living message, quarantined ones too, in order of their ordinals. Reads no commit whose rows a checkpoint carries.
    pub(crate) async fn living(
        &self,
        repository: &Repository,
        mut each: impl FnMut(MessageRow) -> Result<()> + Send,
    ) -> Result<()> {
        for commit in &self.commits {
            self.living_of(repository, commit, &mut each).await?;
        }
        Ok(())
    }

    /// Gives the living messages of one commit.
    pub(crate) async fn living_of(
        &self,
        repository: &Repository,
        commit: &CommitRef,
        each: &mut (impl FnMut(MessageRow) -> Result<()> + Send),
    ) -> Result<()> {
        if commit.inlined {
            let end = commit.first_ordinal + u64::from(commit.rows);
            return self.updates.range(commit.first_ordinal..end).try_for_each(|(_, row)| each(row.clone()));
        }
        if commit.rows == 0 {
            return Ok(());
        }
        let mut contents = self.contents(repository, commit).await?;
        for row in contents.rows(repository).await?.into_iter().flatten() {
            let mut row = row?;
            row.source = contents.source(row.source)?;
            if let Some(row) = self.now(row) {
                each(row)?;
            }
        }
        Ok(())
    }

    /// The commit that stored the message of this ordinal, if there was such a message.
    pub(crate) fn commit_of(&self, ordinal: u64) -> Option<&CommitRef> {
        let end = |commit: &CommitRef| commit.first_ordinal.saturating_add(u64::from(commit.rows));
        let commit = self.commits.get(self.commits.partition_point(|commit| end(commit) <= ordinal))?;
        (commit.first_ordinal <= ordinal).then_some(commit)
    }

    /// Opens a commit to read its messages with recipes and blob table.
    pub(crate) async fn contents(&self, repository: &Repository, commit: &CommitRef) -> Result<Contents> {
        let is_newest = |newest: &mut Fetched| newest.reader.head.sequence == commit.sequence;
        let newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner).take_if(is_newest);
        let fetched = match newest {
            Some(newest) => newest,
            None => open_needed(repository, self.name, commit.sequence).await?,
        };
        if fetched.reader.digest != commit.digest {
            return Err(Error::damaged(format!("commit {} is not the one that the journal names", commit.sequence)));
        }
        let sources = &fetched.reader.head.sources;
        let numbers = sources
            .iter()
            .map(|source| self.sources.iter().position(|known| known.id == source.id).map_or(u32::MAX, |n| n as u32))
            .collect();
        Ok(Contents::new(fetched, numbers, Arc::clone(&self.forgotten_messages)))
    }

    /// Whether any message of the commit may be living.
    pub(crate) fn may_have_living(&self, commit: &CommitRef) -> bool {
        let end = commit.first_ordinal + u64::from(commit.rows);
        commit.rows > 0 && (!commit.inlined || self.updates.range(commit.first_ordinal..end).next().is_some())
    }

    /// The messages that are not as the commit that stored them says, and those that the checkpoint carries.
    pub(crate) fn updated(&self) -> impl Iterator<Item = &MessageRow> {
        self.updates.values()
    }

    /// Whether a message is not as the commit that stored it says.
    pub(crate) fn is_updated(&self, ordinal: u64) -> bool {
        self.updates.contains_key(&ordinal)
    }

    /// Whether a message is forgotten: no state that can be asked for has it. Of a journal that was loaded with all its commits.
    pub(crate) fn is_forgotten(&self, ordinal: u64) -> bool {
        self.forgotten_messages.contains(&ordinal)
    }

    /// The messages that are forgotten, and are of commits that are not. Of a journal that was loaded with all its commits.
    pub(crate) fn forgotten_messages(&self) -> impl Iterator<Item = &u64> {
        self.forgotten_messages.iter()
    }

    /// Whether everything up to this commit is forgotten but for what was there then. Of a journal that was loaded with all its commits.
    pub(crate) fn is_forgotten_until(&self, sequence: u64) -> bool {
        self.forgotten_until.is_some_and(|until| sequence <= until)
    }

    /// The last commit of which the latest forgetting checkpoint carries the state. Of a journal that was loaded with all its commits.
    pub(crate) fn forgotten_until(&self) -> Option<u64> {
        self.forgotten_until
    }

    /// The blobs of a commit that a state which can be asked for needs. Of a journal that was loaded with all its commits.
    pub(crate) async fn needed_blobs(
        &self,
        repository: &Repository,
        commit: &CommitRef,
    ) -> Result<Vec<crate::pack::Row>> {
        if commit.forgotten {
            return Ok(Vec::new());
        }
        self.contents(repository, commit).await?.needed_blobs(repository).await
    }

    /// The ordinals of messages that are gone.
    pub(crate) fn gone(&self) -> &HashSet<u64> {
        &self.gone
    }
}

/// Opens a commit that must be there.
pub(super) async fn open_needed(repository: &Repository, name: JournalName, sequence: u64) -> Result<Fetched> {
    Fetched::open(repository, name, sequence, None).await.map_err(|error| match error.kind() {
        ErrorKind::NotFound => Error::damaged(format!("commit {sequence} is missing")),
        _ => error,
    })
}

/// Loads a journal, and again if commits of it were forgotten and swept away just then.
async fn patiently<T, F: Future<Output = Result<T>> + Send>(
    repository: &Repository,
    name: JournalName,
    load: impl Fn() -> F + Send,
) -> Result<T> {
    let mut patience = Patience::default();
    loop {
        match load().await {
            Err(error) if error.is_loss() => patience.bear(repository, name, error).await?,
            loaded => return loaded,
        }
    }
}

/// A reader's patience with a journal of which others delete what it has listed.
#[derive(Debug, Default)]
pub(crate) struct Patience {
    seen: Option<Vec<(u64, u64)>>,
    tries: u32,
}

impl Patience {
    /// How often a journal is read before what does not read is damage, however the listings differ.
    const TRIES_MAX: u32 = 64;

    /// After something that was listed did not read: the journal is to be read again if what is listed is no longer the same.
    ///
    /// # Errors
    /// The reader's own otherwise; what the store reports.
    pub(crate) async fn bear(&mut self, repository: &Repository, name: JournalName, error: Error) -> Result<()> {
        let listed = listed(repository, name).await?;
        self.tries += 1;
        if self.seen.as_ref() == Some(&listed) || self.tries >= Self::TRIES_MAX {
            return Err(error);
        }
        self.seen = Some(listed);
        Ok(())
    }
}

/// A writer's tries to be the one who creates the next commit of a journal.
#[derive(Debug, Default)]
pub(crate) struct Contest {
    sequence: u64,
    lost: u32,
}

impl Contest {
    /// How often one place may be lost.
    const LOST_MAX: u32 = 64;

    /// The place was another's. Whoever reads the journal then finds the next place; a store that hides commits would have them try for ever.
    pub(crate) fn lose(&mut self, sequence: u64) -> Result<()> {
        self.lost = if sequence == self.sequence { self.lost + 1 } else { 1 };
        self.sequence = sequence;
        if self.lost > Self::LOST_MAX {
            return Err(Error::damaged(format!(
                "commit {sequence} of a journal is there, says the store, and is not listed"
            )));
        }
        Ok(())
    }
}

/// The sequences and lengths of a journal's commits, in order, as they are.
pub(super) async fn listed(repository: &Repository, name: JournalName) -> Result<Vec<(u64, u64)>> {
    let prefix = name.prefix();
    let mut listed = Vec::new();
    let mut listing = repository.store().list(&prefix);
    while let Some(object) = listing.try_next().await? {
        if let Some((_, sequence)) = JournalName::of_commit(&object.key) {
            listed.push((sequence, object.length));
        }
    }
    listed.sort_unstable();
    Ok(listed)
}

fn length_of(listed: &[(u64, u64)], sequence: u64) -> Result<u64> {
    let found = listed.binary_search_by_key(&sequence, |(sequence, _)| *sequence).map(|at| listed[at].1);
    found.ok().ok_or_else(|| Error::damaged("a commit names a checkpoint that is not there"))
}

/// Leaves the commits that are not after `at`. Times grow along the journal, so the place is searched by halves.
async fn cut_after(repository: &Repository, name: JournalName, listed: &mut Vec<(u64, u64)>, at: u64) -> Result<()> {
    let (mut low, mut high) = (0, listed.len());
    while low < high {
        let middle = usize::midpoint(low, high);
        let (sequence, length) = listed[middle];
        if Fetched::head(repository, name, sequence, Some(length)).await?.time <= at {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    listed.truncate(low);
    Ok(())
}

/// A journal's head, for run records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct JournalHead {
    pub(crate) mailbox: MailboxName,
    pub(crate) sequence: u64,
    pub(crate) digest: Digest,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seal::Protection;
    use crate::store::MemoryStore;
    use futures::executor::block_on;

    #[test]
    fn a_store_whose_listings_never_agree_does_not_keep_a_reader_for_ever() {
        block_on(async {
            let repository = Repository::open_or_create(Arc::new(MemoryStore::new()), Protection::None).await.unwrap();
            let name = JournalName::new(&repository, &MailboxName::new("a"));
            let mut patience = Patience::default();
            for sequence in 1..u64::from(Patience::TRIES_MAX) {
                repository.store().put(&name.commit(sequence), b"never a commit".to_vec().into()).await.unwrap();
                patience.bear(&repository, name, Error::damaged("it does not read")).await.unwrap();
            }
            repository.store().put(&name.commit(0), b"one more".to_vec().into()).await.unwrap();
            let error = patience.bear(&repository, name, Error::damaged("it does not read")).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Damaged);
        });
    }
}
