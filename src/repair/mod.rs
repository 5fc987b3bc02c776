//! Repair: what is derived is made anew, and what a damaged pack held is found elsewhere, if it is anywhere.
//!
//! Nothing that can still be read is deleted. Memory, from the budget: a few packs or blobs at a time, and the rows of as many damaged packs at once as a part of
//! it holds; for more, commits and footers are read again. All of it is reserved at once: who held some and waited for more could wait for another who does the same.
//! Beside the budget: the names of packs (about 50 octets each), and at the end the digest of each commit of all journals, twice (about 100 octets each time).

mod commits;
mod copies;
mod packs;
mod records;

use crate::budget::{Budget, Permit};
use crate::error::{Error, ErrorKind, Result};
use crate::ledger::{Ledger, describe};
use crate::message::MailboxName;
use crate::pack::{Location, PackId, ROWS_MAX, Row};
use crate::repository::{
    Active, AllCommits, Contents, Ended, JournalHead, MOVES, Mark, Move, Moves, Repository, RunRecord,
    SEGMENT_CONTENT_MIN, Token, bad_packs, check_moves, count_segments, create_run_record, latest_sweep, mark_bad,
    mend_config, mend_sweeps, note_heads, parts_of_heads, read_footer, read_mark, read_moves, read_verdict, told_names,
    unless_lost, unmark_bad, write_all_segments, write_full_segments, write_moves,
};
use crate::resources::Resources;
use crate::restore::{Failure, Finds, Restore, RestoreReport};
use crate::sink::Sink;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use packs::{Examined, examine};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

/// The most losses that a report names; beyond it counts.
const NAMED_MAX: usize = 10_000;
/// What a row of a damaged pack takes in memory, about, with all tables that it is in.
const ROW_OCTETS: u64 = 256;
/// Footers that are read at once.
const FOOTERS_MAX: usize = 4;
/// What is permitted besides, in octets: footers, a commit's table; and a segment being gathered, where anything is written.
const WORKING_SET: u64 = 8 << 20;
const SEGMENT_SET: u64 = 4 << 20;
/// The parts of the budget that rows of damaged packs have, and what a recovery finds; reading packs and blobs has three of these.
const SHARE: u64 = 8;

/// A repair to be. Nothing happens until [`finish`](Self::finish).
#[derive(Debug)]
pub struct Repair {
    repository: Repository,
    resources: Resources,
    read_data: bool,
    give_up: bool,
}

/// What a repair did.
#[derive(Clone, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct RepairReport {
    /// The version of this report's shape.
    pub schema: u32,
    /// Packs in the store when the repair began.
    pub packs: u64,
    /// Packs that are damaged or missing.
    pub packs_bad: u64,
    /// Packs that were marked as bad and are sound: the mark is gone.
    pub packs_unmarked: u64,
    /// Packs written, with what could still be read of packs whose end is lost.
    pub packs_written: u64,
    /// Blobs in them.
    pub blobs_salvaged: u64,
    /// Damaged or missing blobs that were found elsewhere: messages that need them are whole again.
    pub blobs_found: u64,
    /// Blobs that commits need, and that are nowhere. A push of the same mail brings them back; then repair again.
    pub blobs_lost: u64,
    /// Index segments written.
    pub segments_written: u64,
    /// Run records written.
    pub records_written: u64,
    /// Mailboxes of which commits that cannot be read were given up.
    pub given_up: u64,
    /// Damaged objects that were replaced, or that nobody needs any more, by key.
    pub replaced: Vec<String>,
    /// Messages that are still lost or damaged, also those that are gone by now.
    pub messages_lost: u64,
    /// These messages, up to 10,000 entries, sorted. Those of a commit that cannot be read have only ordinals.
    pub lost: Vec<Failure>,
    /// Packs that the store does not give, by key, with its reason. They were passed over: what is in them is neither sound nor lost, as far as is known.
    pub unreadable: Vec<String>,
}

/// A recovery to be: a restore that also looks for damaged content in every other pack. Nothing happens until [`finish`](Self::finish).
#[derive(Debug)]
pub struct Recover {
    repository: Repository,
    resources: Resources,
    sink: Arc<dyn Sink>,
}

/// A repair under way.
struct Repairing {
    repository: Repository,
    resources: Resources,
    /// Nothing is written: what is found is gathered in `finds`.
    is_dry: bool,
    /// The token that this repair has registered with, if it needed to.
    writer: Option<Token>,
    /// The packs there are, with their lengths.
    packs: HashMap<PackId, u64>,
    /// Packs that a sweep which is under way may delete: nothing is to lead there.
    condemned: HashSet<PackId>,
    /// The latest sweep that is done and whose verdict is in there.
    swept: u64,
    marked: HashSet<PackId>,
    /// Packs whose rows nobody tells: footer or trailer do not open.
    endless: BTreeSet<PackId>,
    /// Rows for the next segment.
    rows: Vec<Row>,
    finds: Finds,
    /// Packs that the store does not give, and why.
    unreadable: BTreeMap<PackId, String>,
    report: RepairReport,
}

/// What a repair or a recovery may hold in memory, all at once.
struct Reserved {
    permit: Permit,
    /// The resources, with that part of the budget from which packs and blobs are read.
    reading: Resources,
    /// The octets of what is found elsewhere.
    finds: u64,
}

impl Repair {
    pub(crate) fn new(repository: Repository, resources: Resources) -> Self {
        Self { repository, resources, read_data: false, give_up: false }
    }

    /// Gives up what of commits cannot be read any more, so that their mailboxes can be pushed to again: what can be read is carried on, and everything else up
    /// to now is forgotten: also older states, and messages that had gone from the source. Try to get the damaged objects back first, and
    /// [recover](crate::Engine::recover) what you may still want; the next sweep deletes it. Messages that are lost are stored again by the next push.
    #[must_use]
    pub fn give_up(mut self, give_up: bool) -> Self {
        self.give_up = give_up;
        self
    }

    /// Reads every pack to find what is damaged. Without, those are looked at that are marked as bad (by a check), that are missing, or that have no end.
    #[must_use]
    pub fn read_data(mut self, read_data: bool) -> Self {
        self.read_data = read_data;
        self
    }

    /// Repairs.
    ///
    /// # Cancel safety
    /// Dropping the future ends it; what was repaired stays, and another repair goes on.
    ///
    /// # Errors
    /// What the store reports, but for packs that it does not give: those are in the report. [`Unavailable`](ErrorKind::Unavailable) if a sweep ran meanwhile: what was repaired stays, and another repair goes on.
    /// [`Damaged`](ErrorKind::Damaged) if no commit opens, and no run record that names one of the journals: with another repository's config everything looks damaged, so nothing is
    /// touched then. What cannot be repaired is in the report.
    pub fn finish(self) -> BoxFuture<'static, Result<RepairReport>> {
        self.repair().boxed()
    }

    async fn repair(self) -> Result<RepairReport> {
        let journals = self.repository.journals().await?;
        let is_blind = !journals.is_empty() && AllCommits::of(&self.repository).await?.next().await?.is_none();
        // A run record that opens and names one of the journals tells as well that the config is the right one.
        if is_blind && told_names(&self.repository, journals.into_iter().collect()).await?.is_empty() {
            return Err(Error::damaged("no commit opens; is the config another repository's?"));
        }
        let Reserved { permit, reading, .. } = Reserved::of(&self.resources, false).await;
        let mut repairing = Repairing::new(self.repository, reading, None).await?;
        repairing.packs(self.read_data).await?;
        if self.give_up {
            repairing.give_up().await?;
        }
        repairing.records().await?;
        repairing.report.unreadable =
            repairing.unreadable.iter().map(|(pack, reason)| format!("{}: {reason}", pack.key())).collect();
        drop(permit);
        Ok(repairing.report)
    }
}

impl Recover {
    pub(crate) fn new(repository: Repository, resources: Resources, sink: Arc<dyn Sink>) -> Self {
        Self { repository, resources, sink }
    }

    /// Reads every pack to know what is damaged, looks for it elsewhere, then restores all that can be had. Writes nothing but to the sink.
    ///
    /// # Cancel safety
    /// Dropping the future ends it; no message is left half delivered under its name.
    ///
    /// # Errors
    /// What the store reports of listings. [`Limit`](ErrorKind::Limit) if more is found than an eighth of the budget remembers, at 64 octets a blob. What the store
    /// does not give, and what cannot be recovered, is in the report, as of a [restore](crate::restore::Restore::finish).
    pub fn finish(self) -> BoxFuture<'static, Result<RestoreReport>> {
        self.recover().boxed()
    }

    async fn recover(self) -> Result<RestoreReport> {
        let Reserved { permit, reading, finds } = Reserved::of(&self.resources, true).await;
        let mut repairing = Repairing::new(self.repository.clone(), reading, Some(finds)).await?;
        repairing.packs(true).await?;
        let found = std::mem::take(&mut repairing.finds);
        // Its memory is the restore's now, but for what was found.
        drop(repairing);
        let resources = self.resources.within(Budget::new(permit.octets().saturating_sub(finds)));
        let restore = Restore::new(self.repository, resources, self.sink);
        restore.keep(found);
        let restored = restore.finish().await;
        drop(permit);
        restored
    }
}

impl Reserved {
    async fn of(resources: &Resources, is_dry: bool) -> Self {
        let budget = resources.budget();
        // In whole KiB, as permits are.
        let share = budget.octets() / SHARE / 1024 * 1024;
        // Rows and reading; and finds, where nothing is written.
        let rest = if is_dry { share } else { SEGMENT_SET };
        let permit = budget.acquire(WORKING_SET + 4 * share + rest).await;
        Self { permit, reading: resources.within(Budget::new(3 * share)), finds: share }
    }
}

impl Repairing {
    /// With room for so many octets of what is found, nothing is written.
    async fn new(repository: Repository, resources: Resources, finds: Option<u64>) -> Result<Self> {
        let is_dry = finds.is_some();
        let mut report = RepairReport { schema: 1, ..RepairReport::default() };
        if !is_dry {
            report.replaced.extend(mend_config(&repository).await?.into_iter().map(str::to_owned));
            report.replaced.extend(mend_sweeps(&repository).await?);
        }
        let (packs, marked) = (repository.packs().await?, bad_packs(&repository).await?);
        report.packs = packs.len() as u64;
        Ok(Self {
            repository,
            resources,
            is_dry,
            writer: None,
            packs,
            condemned: HashSet::new(),
            swept: 0,
            marked,
            endless: BTreeSet::new(),
            rows: Vec::new(),
            finds: Finds::new(finds.unwrap_or_default()),
            unreadable: BTreeMap::new(),
            report,
        })
    }

    /// Repairs packs, and what is derived from them.
    async fn packs(&mut self, read_data: bool) -> Result<()> {
        let mut suspects = self.look_at_packs(read_data).await?;
        let batches = self.batches(&mut suspects).await?;
        if !self.is_dry && !batches.is_empty() {
            self.register().await?;
        }
        for batch in batches {
            self.batch(&batch).await?;
        }
        if !self.is_dry {
            self.write_all_segments().await?;
            self.drop_moves().await?;
        }
        self.report.lost.sort_unstable();
        Ok(())
    }

    /// Registers as a writer does before it writes packs or leads to them, so that sweeps spare what this repair writes, and leads to nothing that a sweep
    /// condemns which may not know of this repair. A later sweep fences it: then [`close`](Self::close) fails.
    async fn register(&mut self) -> Result<()> {
        let token = self.repository.new_token()?;
        let now = self.repository.now();
        let record = RunRecord::Active(Active { started: now, written: now, mailboxes: Vec::new() });
        if create_run_record(&self.repository, &token, 0, &record).await?.is_none() {
            return Err(Error::internal("a token was drawn twice"));
        }
        self.learn_condemned().await?;
        self.packs = self.repository.packs().await?;
        self.writer = Some(token);
        Ok(())
    }

    /// Notes what sweeps condemn, or have deleted.
    async fn learn_condemned(&mut self) -> Result<()> {
        // This order, as for every writer: what sweeps deleted that are done is not listed any more.
        let latest = latest_sweep(&self.repository).await?;
        if latest.is_open {
            self.condemned.extend(read_mark(&self.repository, latest.epoch).await?.condemned());
        }
        // A dead writer's pack may be written again after it was deleted, and deleted again at any time.
        for epoch in self.swept + 1..=latest.epoch {
            match read_verdict(&self.repository, epoch).await {
                // That of an open sweep: all that it may name is in the mark.
                Err(error) if error.kind() == ErrorKind::Damaged && latest.is_open && epoch == latest.epoch => {}
                verdict => self.condemned.extend(verdict?.iter().flat_map(Mark::condemned)),
            }
        }
        self.swept = latest.epoch - u64::from(latest.is_open);
        Ok(())
    }

    /// Writes the last record, with these ends of journals, if there is anything to say.
    ///
    /// # Errors
    /// If a sweep has fenced this repair: it may have deleted what moves lead to that were written after it looked at them.
    async fn close(&mut self, heads: Option<Vec<JournalHead>>) -> Result<()> {
        let (token, number) = match (self.writer, &heads) {
            (Some(token), _) => (token, 1),
            (None, Some(_)) => (self.repository.new_token()?, 0),
            (None, None) => return Ok(()),
        };
        let now = self.repository.now();
        self.report.records_written += u64::from(heads.is_some());
        let mut parts = parts_of_heads(heads.unwrap_or_default());
        let heads = parts.pop().unwrap_or_default();
        for part in parts {
            note_heads(&self.repository, now, part).await?;
            self.report.records_written += 1;
        }
        let noted = Ended { started: now, written: now, ledger: Ledger::default(), heads };
        let record = RunRecord::Noted(Box::new(noted));
        match create_run_record(&self.repository, &token, number, &record).await? {
            Some(_) => Ok(()),
            None => Err(Error::new(ErrorKind::Unavailable, "a sweep ran while this repair did; repair again")),
        }
    }

    /// Reads the end of every pack, or all of it. Gives those to be examined, and writes segments for those whose rows are in none.
    async fn look_at_packs(&mut self, read_data: bool) -> Result<BTreeSet<PackId>> {
        if !self.is_dry {
            // Before rows are told of what a dead writer's late try put there again.
            self.learn_condemned().await?;
        }
        let (counts, damaged) = if self.is_dry { Default::default() } else { count_segments(&self.repository).await? };
        let mut suspects: BTreeSet<PackId> = self.marked.iter().copied().collect();
        let (repository, resources, marked) = (self.repository.clone(), self.resources.clone(), self.marked.clone());
        let looks = stream::iter(self.listed()).map(|(pack, length)| {
            let (repository, resources) = (repository.clone(), resources.clone());
            let is_examined = read_data && !marked.contains(&pack);
            async move {
                let rows = match read_footer(&repository, pack, length).await {
                    Err(error) if error.is_loss() => return Ok((pack, None, false, None)),
                    Err(error) if is_of_object(&error) => return Ok((pack, None, false, Some(error))),
                    rows => rows?,
                };
                if !is_examined {
                    return Ok((pack, Some(rows), true, None));
                }
                let examined = examine(&repository, &resources, pack, length, Vec::new(), false).await?;
                Ok::<_, Error>((pack, Some(rows), examined.is_sound, examined.failure))
            }
        });
        let mut looks = looks.buffered(FOOTERS_MAX);
        while let Some(look) = looks.next().await {
            let (pack, rows, is_sound, failure) = look?;
            if !is_sound {
                suspects.insert(pack);
            }
            if let Some(error) = failure {
                self.pass_over(pack, &error);
                continue;
            }
            let Some(rows) = rows else {
                self.endless.insert(pack);
                continue;
            };
            let lasting = rows.into_iter().filter(|row| row.at.content >= SEGMENT_CONTENT_MIN);
            let lasting: Vec<Row> = lasting.collect();
            let is_told = counts.get(&pack).is_some_and(|count| *count as usize >= lasting.len());
            if !self.is_dry && !is_told && !suspects.contains(&pack) && !self.condemned.contains(&pack) {
                self.rows.extend(lasting);
                self.write_full_segments().await?;
            }
        }
        if !self.is_dry {
            // First what takes their place, then they go.
            self.write_all_segments().await?;
            for key in damaged {
                self.repository.store().delete(&key).await?;
                self.report.replaced.push(key);
            }
        }
        Ok(suspects)
    }

    /// The packs that are there, in order.
    fn listed(&self) -> Vec<(PackId, u64)> {
        let mut packs: Vec<(PackId, u64)> = self.packs.iter().map(|(pack, length)| (*pack, *length)).collect();
        packs.sort_unstable();
        packs
    }

    async fn write_full_segments(&mut self) -> Result<()> {
        self.report.segments_written += write_full_segments(&self.repository, &mut self.rows).await?;
        Ok(())
    }

    async fn write_all_segments(&mut self) -> Result<()> {
        let rows = std::mem::take(&mut self.rows);
        self.report.segments_written += write_all_segments(&self.repository, rows).await?;
        Ok(())
    }

    /// Adds to the suspects what commits point at and is not there, and parts them so that the rows of each part fit in memory.
    async fn batches(&mut self, suspects: &mut BTreeSet<PackId>) -> Result<Vec<BTreeSet<PackId>>> {
        let mut counts: BTreeMap<PackId, u64> = suspects.iter().map(|pack| (*pack, 0)).collect();
        let mut commits = AllCommits::of(&self.repository).await?;
        while let Some(mut contents) = self.next_commit(&mut commits).await? {
            for row in self.needed(&mut contents).await? {
                let is_there = self.packs.get(&row.at.pack).is_some_and(|length| row.at.end() <= *length);
                if !is_there || counts.contains_key(&row.at.pack) {
                    *counts.entry(row.at.pack).or_default() += 1;
                }
            }
        }
        // As much as a third of what there is to read with.
        let room = self.resources.budget().octets() / 3 / ROW_OCTETS;
        let (mut batches, mut batch, mut rows) = (Vec::new(), BTreeSet::new(), 0);
        for (pack, count) in counts {
            // Many commits may point at the same blob.
            let count = count.min(ROWS_MAX as u64);
            if rows + count > room && !batch.is_empty() {
                batches.push(std::mem::take(&mut batch));
                rows = 0;
            }
            batch.insert(pack);
            rows += count;
        }
        batches.extend((!batch.is_empty()).then_some(batch));
        Ok(batches)
    }

    /// The next commit. A recovery goes on behind what the store does not give: the restore tells of it.
    async fn next_commit(&self, commits: &mut AllCommits) -> Result<Option<Contents>> {
        loop {
            match commits.next().await {
                Err(error) if self.is_dry && is_of_object(&error) => {}
                next => return Ok(next?.map(|(_, contents)| contents)),
            }
        }
    }

    /// The blobs that a commit needs; none, if that is lost: what of a journal does not read is told apart.
    async fn needed(&self, contents: &mut Contents) -> Result<Vec<Row>> {
        match contents.needed_blobs(&self.repository).await {
            Err(error) if self.is_dry && is_of_object(&error) => Ok(Vec::new()),
            needed => unless_lost(needed),
        }
    }

    /// Repairs some packs.
    async fn batch(&mut self, batch: &BTreeSet<PackId>) -> Result<()> {
        let mut wanted: BTreeMap<PackId, BTreeMap<u64, Row>> = BTreeMap::new();
        let mut commits = AllCommits::of(&self.repository).await?;
        while let Some(mut contents) = self.next_commit(&mut commits).await? {
            for row in self.needed(&mut contents).await? {
                if batch.contains(&row.at.pack) {
                    wanted.entry(row.at.pack).or_default().insert(row.at.offset, row);
                }
            }
        }
        let mut missing: Vec<Row> = Vec::new();
        for pack in batch {
            let rows: Vec<Row> = wanted.remove(pack).unwrap_or_default().into_values().collect();
            missing.extend(self.pack(*pack, rows).await?);
        }
        let lost = self.find(missing).await?;
        self.report.blobs_lost += lost.len() as u64;
        if !lost.is_empty() && !self.is_dry {
            self.name_lost(&lost).await?;
        }
        Ok(())
    }

    /// Repairs one pack, and gives the rows that can be read neither in it nor where its moves say.
    async fn pack(&mut self, pack: PackId, wanted: Vec<Row>) -> Result<Vec<Row>> {
        let moves = read_moves(&self.repository, pack).await?;
        if !self.packs.contains_key(&pack) {
            // A writer beside this repair may have written it since packs were listed.
            let length = self.repository.store().length(&pack.key()).await?;
            self.packs.extend(length.map(|length| (pack, length)));
        }
        let Some(length) = self.packs.get(&pack).copied() else {
            let unmoved = self.unmoved(&moves, wanted).await?;
            // Else a sweep deleted it when all that is needed of it had been written anew.
            if !unmoved.is_empty() || self.marked.contains(&pack) {
                self.report.packs_bad += 1;
                self.mark(pack, "the pack is missing").await?;
            }
            return Ok(unmoved);
        };
        let with_contents = self.endless.contains(&pack) && !self.is_dry;
        let (repository, resources) = (self.repository.clone(), self.resources.clone());
        let examine = |wanted, with| examine(&repository, &resources, pack, length, wanted, with);
        let mut examined = examine(wanted.clone(), with_contents).await?;
        if examined.is_headless && !with_contents {
            // Nobody needs its front to read it, but it is never sound again.
            self.endless.insert(pack);
            examined = examine(wanted, !self.is_dry).await?;
        }
        let is_endless = self.endless.contains(&pack);
        let Examined { is_sound, unreadable, salvage, failure, .. } = examined;
        if let Some(error) = failure {
            self.pass_over(pack, &error);
            return self.unmoved(&moves, unreadable).await;
        }
        if is_sound && unreadable.is_empty() {
            if !self.is_dry && self.marked.remove(&pack) {
                unmark_bad(&self.repository, pack).await?;
                self.report.packs_unmarked += 1;
            }
            return Ok(Vec::new());
        }
        self.report.packs_bad += 1;
        self.mark(pack, if is_endless { "the pack's front or end is lost" } else { "the pack is damaged" }).await?;
        if let Some(salvage) = salvage {
            let known: HashSet<u64> = self.moved(&moves).await?;
            self.write_anew(pack, salvage, &known).await?;
        }
        self.unmoved(&moves, unreadable).await
    }

    async fn mark(&mut self, pack: PackId, reason: &str) -> Result<()> {
        if self.is_dry || !self.marked.insert(pack) {
            return Ok(());
        }
        self.resources.index().refuse(pack);
        mark_bad(&self.repository, pack, reason).await
    }

    /// The rows that moves do not bring back.
    async fn unmoved(&mut self, moves: &Moves, rows: Vec<Row>) -> Result<Vec<Row>> {
        if moves.places.is_empty() || rows.is_empty() {
            return Ok(rows);
        }
        let moved = self.moved(moves).await?;
        Ok(rows.into_iter().filter(|row| !moved.contains(&row.at.offset)).collect())
    }

    /// The offsets of blobs that read where moves say.
    async fn moved(&mut self, moves: &Moves) -> Result<HashSet<u64>> {
        let mut moved = HashSet::new();
        for (offset, rows) in &moves.places {
            for row in rows {
                if self.reads(row).await? {
                    moved.insert(*offset);
                    break;
                }
            }
        }
        Ok(moved)
    }

    /// Whether a blob is where a row says.
    async fn reads(&mut self, row: &Row) -> Result<bool> {
        if self.condemned.contains(&row.at.pack)
            || self.packs.get(&row.at.pack).is_none_or(|length| row.at.end() > *length)
        {
            return Ok(false);
        }
        match copies::reads(&self.repository, &self.resources, row).await {
            Err(error) if is_of_object(&error) => {
                self.pass_over(row.at.pack, &error);
                Ok(false)
            }
            reads => reads,
        }
    }

    /// Notes that the store does not give a pack.
    fn pass_over(&mut self, pack: PackId, error: &Error) {
        self.unreadable.entry(pack).or_insert_with(|| describe(error));
    }

    /// Says in moves where blobs are.
    async fn tell(&mut self, pack: PackId, moves: Vec<Move>) -> Result<()> {
        if self.is_dry {
            return self.finds.add(pack, &moves);
        }
        write_moves(&self.repository, pack, &moves).await.map(drop)
    }

    /// Drops moves that do not open.
    async fn drop_moves(&mut self) -> Result<()> {
        let store = self.repository.store();
        let mut damaged = Vec::new();
        let mut listing = store.list(MOVES);
        while let Some(object) = listing.try_next().await? {
            match check_moves(&self.repository, &object).await {
                Err(error) if error.kind() == ErrorKind::Damaged => damaged.push(object.key),
                // A sweep deleted it with its pack since it was listed.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                checked => drop(checked?),
            }
        }
        drop(listing);
        for key in damaged {
            store.delete(&key).await?;
            self.report.replaced.push(key);
        }
        Ok(())
    }

    /// Names the messages that need what is lost.
    async fn name_lost(&mut self, lost: &HashSet<(PackId, u64)>) -> Result<()> {
        let is_lost = |at: &Location| lost.contains(&(at.pack, at.offset));
        let mut commits = AllCommits::of(&self.repository).await?;
        while let Some((mailbox, mut contents)) = commits.next().await? {
            let blobs = unless_lost(contents.blobs(&self.repository).await)?;
            if !blobs.iter().any(|row| is_lost(&row.at)) {
                continue;
            }
            for row in unless_lost(contents.rows(&self.repository).await)?.into_iter().flatten() {
                let Ok(row) = row else { break };
                if contents.is_forgotten(row.ordinal) {
                    continue;
                }
                let mut pieces = row.pieces.iter().filter_map(|piece| blobs.get(*piece as usize));
                if let Some(blob) = pieces.find(|blob| is_lost(&blob.at)) {
                    let at = format!("pack {}, at {}..{}: lost", blob.at.pack, blob.at.offset, blob.at.end());
                    self.report.lose(Failure::of(&mailbox, Some(&row.envelope), &Error::damaged(at)), 1);
                }
            }
        }
        Ok(())
    }
}

/// Whether an error is about the object that was asked for, so that others may be had all the same; not about who asked.
fn is_of_object(error: &Error) -> bool {
    use ErrorKind::{Damaged, Denied, NotFound, Throttled, Unavailable, Unsupported};
    matches!(error.kind(), Damaged | NotFound | Unsupported | Denied | Unavailable | Throttled)
}

impl RepairReport {
    /// Whether nothing is lost, as far as the store gives it.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.messages_lost == 0 && self.lost.is_empty() && self.unreadable.is_empty()
    }

    fn lose(&mut self, failure: Failure, messages: u64) {
        self.messages_lost += messages;
        if self.lost.len() < NAMED_MAX {
            self.lost.push(failure);
        }
    }

    /// A journal that is damaged.
    fn lose_journal(&mut self, mailbox: &MailboxName, error: &Error) {
        let failure = Failure::of(mailbox, None, &Error::damaged(describe(error)));
        self.lose(failure, 0);
    }
}
