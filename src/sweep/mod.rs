//! Forgetting, and sweeping: deleting what nobody needs any more, while anybody writes.
//!
//! docs/decisions/0003-trust.md, "Forgetting and sweeping", has the protocol and why it is safe. In short: a sweep writes anew what is needed of packs
//! that are mostly dead, marks what it condemns, fences the writers that may not know of the mark, reads again what was committed until then, and
//! deletes what is still not needed, or is elsewhere.

mod fence;
mod forget;
mod rewrite;
mod scan;
mod tidy;

pub use forget::{Forget, ForgetReport};

use crate::error::{Error, ErrorKind, Result};
use crate::pack::{Location, PackId};
use crate::repository::{
    BAD, HOPS_MAX, Journal, JournalName, Latest, MARKED_MAX, MOVES, Mark, Repository, Token, bad_packs, create_done,
    create_mark, create_verdict, latest_sweep, marked, moved_pack, read_mark, read_moves, read_verdict,
};
use crate::resources::Resources;
use fence::Live;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use rewrite::{CONTENTS_OCTETS, Contents, Old, Rewrite};
use scan::Scan;
use std::collections::{BTreeSet, HashSet};
use std::ops::AddAssign;

/// How often a sweep begins anew because of others.
const LOOKS_MAX: u32 = 64;
/// Objects deleted at once.
const DELETES_AT_ONCE: usize = 8;
/// What a pack takes in a listing that is kept, in octets of memory.
const LISTED_OCTETS: u64 = 24;

/// A sweep to be. Nothing happens until [`finish`](Self::finish).
#[derive(Debug)]
pub struct Sweep {
    repository: Repository,
    resources: Resources,
    dry_run: bool,
    is_alone: bool,
    runs_kept: usize,
    needed_percent_min: u64,
}

/// What a sweep did, or would do.
#[derive(Clone, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct SweepReport {
    /// The version of this report's shape.
    pub schema: u32,
    /// Nothing was written or deleted: the report says what would be deleted.
    pub dry_run: bool,
    /// The sweep's epoch; 0 if there was nothing to mark, and nobody to fence.
    pub epoch: u64,
    /// Sweeps of others that were open, and were carried out first.
    pub resumed: u64,
    /// Packs before.
    pub packs: Counted,
    /// Packs that were deleted: no message that can be asked for needs anything of them.
    pub deleted_packs: Counted,
    /// Packs that are needed only in part, with the octets that are needed of them.
    pub partly_needed: Counted,
    /// Packs of which less is needed than the setting says, with all their octets. What is needed of them is written anew.
    pub mostly_dead: Counted,
    /// Packs that were deleted because all that is needed of them is elsewhere by now.
    pub moved_packs: Counted,
    /// Packs that were written, with what was needed of those.
    pub written_packs: Counted,
    /// Packs that nothing points at, and that are left because their writers may be about to.
    pub spared: Counted,
    /// Packs that were condemned, and then pointed at by commits that were under way.
    pub pardoned: u64,
    /// Commits that were deleted.
    pub deleted_commits: Counted,
    /// Index segments that were deleted, or written anew without rows of packs that are gone.
    pub deleted_segments: Counted,
    /// Run records that were deleted.
    pub deleted_records: Counted,
    /// Writers that had not ended, and were fenced: those that live on register anew.
    pub fenced_writers: u64,
    /// Journals that were fenced.
    pub fenced_journals: u64,
}

/// Objects and their octets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Counted {
    /// How many.
    pub objects: u64,
    /// Octets of all of them.
    pub bytes: u64,
}

/// What a sweep sees before it marks anything.
struct View {
    packs: Vec<(PackId, u64)>,
    scan: Scan,
    mark: Mark,
    /// Packs that are mostly dead.
    mostly_dead: Vec<Old>,
    /// No blob is moved there: packs that are marked as damaged, and those that go. Told only if any pack is mostly dead.
    shunned: HashSet<PackId>,
    /// Packs are left because their writers may be about to point at them; or a chain is to be fenced whose last record was lost.
    is_waiting: bool,
    /// A pack that is needed, and neither there nor moved.
    missing: Option<PackId>,
}

/// The packs that something is to be done about.
#[derive(Default)]
struct Sorted {
    /// Nobody needs them. Sorted.
    needless: Vec<PackId>,
    /// Of them few octets are needed.
    few: Vec<Old>,
    /// See [`View`].
    is_waiting: bool,
}

impl Sweep {
    /// Run records of this many runs are kept unless another number is set.
    pub const RUNS_KEPT_DEFAULT: usize = 1000;

    pub(crate) fn new(repository: Repository, resources: Resources) -> Self {
        let runs_kept = Self::RUNS_KEPT_DEFAULT;
        Self { repository, resources, dry_run: false, is_alone: false, runs_kept, needed_percent_min: 50 }
    }

    /// Only tells what it would do.
    #[must_use]
    pub fn dry_run(mut self, dry_run: bool) -> Self {
        self.dry_run = dry_run;
        self
    }

    /// The caller vouches that no other process writes to this repository, and that none which was interrupted will go on. Only where the record of a
    /// run was damaged, so that nobody knows whether that run goes on, a sweep needs to be told this.
    #[must_use]
    pub fn alone(mut self, is_alone: bool) -> Self {
        self.is_alone = is_alone;
        self
    }

    /// Keeps the records of the last `runs` runs that ended, not of the last [`RUNS_KEPT_DEFAULT`](Self::RUNS_KEPT_DEFAULT).
    #[must_use]
    pub fn runs_kept(mut self, runs: usize) -> Self {
        self.runs_kept = runs;
        self
    }

    /// A pack is mostly dead if less than this percentage of its octets is needed; 50 unless another is set. With 0 no pack is written anew.
    #[must_use]
    pub fn needed_percent_min(mut self, percent: u64) -> Self {
        self.needed_percent_min = percent.min(100);
        self
    }

    /// Sweeps. Others may write, sweep and forget at the same time. Memory: a bit for each blob that is needed, 24 octets for each pack, and 160 more for each that is needed.
    ///
    /// A restore or a check that runs at the same time is not waited for: it may find that what has just been forgotten is gone.
    ///
    /// # Cancel safety
    /// Dropping the future, or a crash, leaves a sweep that the next one carries out first.
    ///
    /// # Errors
    /// Damage of any journal, of moves, or of the last record of a run, before anything is deleted: what cannot be read may need anything. [`Limit`](ErrorKind::Limit) if there is not enough memory in the
    /// budget to tell what is needed; what the store reports.
    pub fn finish(self) -> BoxFuture<'static, Result<SweepReport>> {
        self.sweep().boxed()
    }

    async fn sweep(self) -> Result<SweepReport> {
        let mut report = SweepReport { schema: 1, dry_run: self.dry_run, ..SweepReport::default() };
        // For the tables of one pack. Not waited for: other sweeps may wait for what this one holds.
        let budget = self.resources.budget();
        let _tables = budget
            .try_acquire(CONTENTS_OCTETS.min(budget.octets() / 8))
            .ok_or_else(|| Error::new(ErrorKind::Limit, "the sweep needs more memory than the budget has now"))?;
        if self.dry_run {
            return self.told(report).await;
        }
        let mut fenced = BTreeSet::new();
        for _ in 0..LOOKS_MAX {
            if self.turn(&mut report, &mut fenced).await? {
                return self.tidied(report, &fenced).await;
            }
        }
        Err(overtaken())
    }

    /// Carries out what another left open, or looks, marks what goes and carries that out. False if it is to be done again, because of others.
    async fn turn(&self, report: &mut SweepReport, fenced: &mut BTreeSet<Token>) -> Result<bool> {
        let latest = latest_sweep(&self.repository).await?;
        if latest.is_open {
            report.resumed += 1;
            fenced.extend(self.carry_out(latest.epoch, None, report).await?);
            return Ok(false);
        }
        let Some(mut view) = self.view(latest, report).await? else { return Ok(false) };
        if !self.rewrite(&mut view, latest.epoch, report).await? {
            return Ok(false);
        }
        // Writers whose packs are spared are fenced, even if nothing else is to be done: else what the dead left would stay.
        if view.mark == Mark::default() && !view.is_waiting {
            return Ok(true);
        }
        let epoch = latest.epoch + 1;
        if !create_mark(&self.repository, epoch, &view.mark).await? {
            return Ok(false);
        }
        report.epoch = epoch;
        fenced.extend(self.carry_out(epoch, Some(view.scan), report).await?);
        Ok(true)
    }

    /// Only tells what would go.
    async fn told(&self, mut report: SweepReport) -> Result<SweepReport> {
        for _ in 0..LOOKS_MAX {
            let latest = latest_sweep(&self.repository).await?;
            let Some(view) = self.view(latest, &mut report).await? else { continue };
            let condemned: HashSet<PackId> = view.mark.packs.into_iter().collect();
            let going = view.packs.iter().filter(|(pack, _)| condemned.contains(pack));
            going.for_each(|(_, length)| report.deleted_packs.count(*length));
            for (name, sequence) in view.mark.journals {
                for (_, length) in forgotten_commits(&self.repository, name, sequence).await? {
                    report.deleted_commits.count(length);
                }
            }
            return Ok(report);
        }
        Err(overtaken())
    }

    /// What there is, and what of it nobody needs. `None` if another sweep, later than `latest`, has moved something away meanwhile.
    async fn view(&self, latest: Latest, report: &mut SweepReport) -> Result<Option<View>> {
        let view = self.look(report).await?;
        match view.missing {
            None => Ok(Some(view)),
            Some(_) if latest_sweep(&self.repository).await? != latest => Ok(None),
            Some(pack) => Err(Error::damaged(format!("pack {pack} is missing: repair before anything is swept"))),
        }
    }

    async fn look(&self, report: &mut SweepReport) -> Result<View> {
        let mut scan = Scan::new(self.repository.clone(), self.resources.clone());
        // This order: a pack that is listed is of a writer who registered before; and what a writer committed who has ended since is read after.
        let packs = self.packs(&mut scan).await?;
        let live = fence::live(&self.repository, self.is_alone).await?;
        scan.advance().await?;
        let missing = self.missing(&scan, &packs).await?;
        let Sorted { needless, few, is_waiting } = self.sort(&packs, &scan, &live, report);
        let mut mark = Mark { packs: needless, journals: self.forgotten_journals(&scan).await?, ..Mark::default() };
        // A verdict may find that what was to be moved is not needed at all: both together are no more than a record holds.
        mark.packs.truncate(MARKED_MAX / 2);
        let shunned = if few.is_empty() { HashSet::new() } else { bad_packs(&self.repository).await? };
        let mut view = View { packs, scan, mark, mostly_dead: Vec::new(), shunned, is_waiting, missing };
        view.mostly_dead = self.mostly_dead(few, &view, report).await?;
        Ok(view)
    }

    /// Tells packs that nobody needs from those of which little is needed, and counts.
    fn sort(&self, packs: &[(PackId, u64)], scan: &Scan, live: &Live, report: &mut SweepReport) -> Sorted {
        (report.packs, report.spared, report.partly_needed) = Default::default();
        let mut sorted = Sorted { is_waiting: live.is_any_lost, ..Sorted::default() };
        for (pack, length) in packs {
            report.packs.count(*length);
            let is_live = live.writers.contains(&pack.writer());
            match scan.needed(pack) {
                Some(needed) => {
                    if needed.octets * 100 < length * self.needed_percent_min {
                        sorted.is_waiting |= is_live;
                        sorted.few.extend((!is_live).then_some(Old { pack: *pack, length: *length }));
                    }
                    // Header and footer are no blob's.
                    if needed.octets < length - length / 16 {
                        report.partly_needed.count(needed.octets);
                    }
                }
                None if is_live => {
                    sorted.is_waiting = true;
                    report.spared.count(*length);
                }
                None => sorted.needless.push(*pack),
            }
        }
        // What is said of packs that are gone, and that nobody needs any more, goes as well.
        let is_needless = |pack: &&PackId| {
            length_of(packs, pack).is_none() && scan.needed(pack).is_none() && !live.writers.contains(&pack.writer())
        };
        sorted.needless.extend(scan.moved().filter(is_needless));
        sorted.needless.sort_unstable();
        sorted
    }

    /// The journals in which commits are left that are forgotten, each with its latest forgetting checkpoint.
    async fn forgotten_journals(&self, scan: &Scan) -> Result<Vec<(JournalName, u64)>> {
        let mut journals = Vec::new();
        for (name, sequence) in &scan.forgotten {
            let forgotten = match forgotten_commits(&self.repository, *name, *sequence).await {
                Ok(forgotten) => forgotten,
                // Another has forgotten more and swept since: what it has deleted needs no mark.
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            if !forgotten.is_empty() && journals.len() < MARKED_MAX {
                journals.push((*name, *sequence));
            }
        }
        Ok(journals)
    }

    /// A needed pack that is not there, nor is all that is needed of it in packs that are: a repair may find it in a pack that nobody seems to need. Those that are
    /// marked as bad have been looked for.
    async fn missing(&self, scan: &Scan, packs: &[(PackId, u64)]) -> Result<Option<PackId>> {
        let mut missing: Vec<PackId> =
            scan.pointed_at().filter(|pack| length_of(packs, pack).is_none()).copied().collect();
        if missing.is_empty() {
            return Ok(None);
        }
        missing.sort_unstable();
        let bad = bad_packs(&self.repository).await?;
        for pack in missing.into_iter().filter(|pack| !bad.contains(pack)) {
            // It may have been written since packs were listed.
            if self.repository.store().length(&pack.key()).await?.is_some() {
                continue;
            }
            let moves = read_moves(&self.repository, pack).await?;
            let is_there = |offset: &u64| {
                let places = moves.places.get(offset);
                places.is_some_and(|places| places.iter().any(|row| length_of(packs, &row.at.pack).is_some()))
            };
            if !scan.needed(&pack).is_some_and(|needed| needed.offsets_known() && needed.offsets().all(is_there)) {
                return Ok(Some(pack));
            }
        }
        Ok(None)
    }

    /// Of packs of which few octets are needed, those that hold much else.
    async fn mostly_dead(&self, few: Vec<Old>, view: &View, report: &mut SweepReport) -> Result<Vec<Old>> {
        report.mostly_dead = Counted::default();
        let mut mostly_dead = Vec::new();
        // What is known to be damaged is for a repair.
        for old in few.into_iter().filter(|old| !view.shunned.contains(&old.pack)).take(MARKED_MAX / 2) {
            let Some(contents) = view.contents(&self.repository, &old).await? else { continue };
            if contents.needed * 100 < contents.octets * self.needed_percent_min {
                report.mostly_dead.count(old.length);
                mostly_dead.push(old);
            }
        }
        Ok(mostly_dead)
    }

    /// Writes anew what is needed of mostly dead packs, and marks these. False if another sweep has begun meanwhile.
    async fn rewrite(&self, view: &mut View, known: u64, report: &mut SweepReport) -> Result<bool> {
        if view.mostly_dead.is_empty() {
            return Ok(true);
        }
        let Some(mut rewrite) = Rewrite::new(self.repository.clone(), self.resources.clone(), known)? else {
            // They wait for a sweep that has more memory.
            return Ok(true);
        };
        // No blob is moved to a pack that goes, too.
        let going = view.mostly_dead.iter().map(|old| old.pack).chain(view.mark.condemned());
        view.shunned.extend(going.collect::<Vec<_>>());
        let mut moved = Vec::new();
        for old in &view.mostly_dead {
            let Some(contents) = view.contents(&self.repository, old).await? else { continue };
            if rewrite.pack(old.pack, &contents.unmoved).await? {
                moved.push(old.pack);
            }
        }
        let Some(written) = rewrite.finish().await? else { return Ok(false) };
        view.mark.moved = moved;
        report.written_packs += written;
        Ok(true)
    }

    async fn packs(&self, scan: &mut Scan) -> Result<Vec<(PackId, u64)>> {
        let mut packs = Vec::new();
        let mut listing = self.repository.store().list("packs/");
        while let Some(object) = listing.try_next().await? {
            if let Some(pack) = PackId::from_key(&object.key) {
                scan.pay(LISTED_OCTETS)?;
                packs.push((pack, object.length));
            }
        }
        packs.sort_unstable();
        Ok(packs)
    }

    /// Carries out a sweep whose mark is made, by this one or another. `scan` has what was needed before the mark was made. Gives the writers that are fenced.
    async fn carry_out(&self, epoch: u64, scan: Option<Scan>, report: &mut SweepReport) -> Result<BTreeSet<Token>> {
        let mark = read_mark(&self.repository, epoch).await?;
        let found = match read_verdict(&self.repository, epoch).await {
            // Found anew, it has all that was in it: nobody points at what was not needed then, as long as the sweep is open.
            Err(error) if error.kind() == ErrorKind::Damaged => None,
            found => found?,
        };
        // Also if there is a verdict: a repair makes an empty one where the mark was lost, before anybody has made the fences that later sweeps rely on.
        let fenced = fence::fence(&self.repository, epoch, self.is_alone).await?;
        report.fenced_writers += fenced.writers.len() as u64;
        report.fenced_journals += fenced.journals;
        let verdict = match found {
            Some(verdict) => verdict,
            None => {
                let mut scan = scan.unwrap_or_else(|| Scan::new(self.repository.clone(), self.resources.clone()));
                scan.advance().await?;
                let verdict = self.judge(&mark, &scan).await?;
                let pardoned = mark.condemned().count() - verdict.condemned().count();
                report.pardoned += pardoned as u64;
                // Decided once: whoever else carries out this sweep may find that less is needed by then.
                create_verdict(&self.repository, epoch, verdict).await?
            }
        };
        let lengths = self.delete(verdict.packs.iter().map(PackId::key)).await?;
        lengths.into_iter().for_each(|length| report.deleted_packs.count(length));
        let lengths = self.delete(verdict.moved.iter().map(PackId::key)).await?;
        lengths.into_iter().for_each(|length| report.moved_packs.count(length));
        let remedies = self.remedies(verdict.packs.into_iter().collect()).await?;
        self.delete(remedies).await?;
        for (name, sequence) in mark.journals {
            let commits = match forgotten_commits(&self.repository, name, sequence).await {
                Ok(commits) => commits,
                // The checkpoint itself is forgotten by now.
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            let lengths = self.delete(commits.into_iter().map(|(sequence, _)| name.commit(sequence))).await?;
            lengths.into_iter().for_each(|length| report.deleted_commits.count(length));
        }
        create_done(&self.repository, epoch).await?;
        Ok(fenced.writers)
    }

    /// What of a mark may go: what is not needed; and what is needed, if all of that is in packs that stay.
    async fn judge(&self, mark: &Mark, scan: &Scan) -> Result<Mark> {
        let mut verdict = Mark::default();
        verdict.packs.extend(mark.packs.iter().filter(|pack| scan.needed(pack).is_none()));
        if mark.moved.is_empty() {
            return Ok(verdict);
        }
        let (packs, mut going) = (self.repository.packs().await?, bad_packs(&self.repository).await?);
        going.extend(mark.condemned());
        let stays =
            |at: &Location| packs.get(&at.pack).is_some_and(|length| at.end() <= *length) && !going.contains(&at.pack);
        for pack in &mark.moved {
            let Some(needed) = scan.needed(pack) else {
                verdict.packs.push(*pack);
                continue;
            };
            let Some(length) = packs.get(pack) else { continue };
            let old = Old { pack: *pack, length: *length };
            let contents = Contents::of(&self.repository, old, needed, stays).await?;
            if contents.is_some_and(|contents| contents.unmoved.is_empty()) {
                verdict.moved.push(*pack);
            }
        }
        verdict.packs.sort_unstable();
        Ok(verdict)
    }

    /// The marks and moves of packs that are deleted: nothing points at these packs any more, or ever will.
    async fn remedies(&self, packs: HashSet<PackId>) -> Result<Vec<String>> {
        let mut keys = Vec::new();
        for prefix in [BAD, MOVES] {
            let mut listing = self.repository.store().list(prefix);
            while let Some(object) = listing.try_next().await? {
                let pack = marked(&object.key).or_else(|| moved_pack(&object.key));
                if pack.is_some_and(|pack| packs.contains(&pack)) {
                    keys.push(object.key);
                }
            }
        }
        Ok(keys)
    }

    /// Deletes objects, and gives the lengths of those that were there.
    async fn delete(&self, keys: impl IntoIterator<Item = String>) -> Result<Vec<u64>> {
        let store = self.repository.store();
        let deletes = stream::iter(keys).map(|key| async move {
            let length = store.length(&key).await?;
            if length.is_some() {
                store.delete(&key).await?;
            }
            Ok::<_, Error>(length)
        });
        deletes.buffer_unordered(DELETES_AT_ONCE).try_filter_map(|length| async move { Ok(length) }).try_collect().await
    }

    /// The last step: what is derived, or told only to be looked at. None of it bears on any mail.
    async fn tidied(&self, mut report: SweepReport, fenced: &BTreeSet<Token>) -> Result<SweepReport> {
        report.deleted_segments = tidy::segments(&self.repository).await?;
        report.deleted_records = tidy::records(&self.repository, self.runs_kept, fenced).await?;
        Ok(report)
    }
}

impl View {
    /// What a pack holds of which something is needed; `None` if it is to be left as it is.
    async fn contents(&self, repository: &Repository, old: &Old) -> Result<Option<Contents>> {
        match self.scan.needed(&old.pack).filter(|needed| needed.hops < HOPS_MAX) {
            Some(needed) => {
                let stays = |at: &Location| {
                    length_of(&self.packs, &at.pack).is_some_and(|length| at.end() <= length)
                        && !self.shunned.contains(&at.pack)
                };
                Contents::of(repository, *old, needed, stays).await
            }
            None => Ok(None),
        }
    }
}

fn overtaken() -> Error {
    let what = "other sweeps come between again and again, or the store does not keep what is written";
    Error::new(ErrorKind::Unavailable, what)
}

fn length_of(packs: &[(PackId, u64)], pack: &PackId) -> Option<u64> {
    packs.binary_search_by_key(pack, |(pack, _)| *pack).ok().map(|at| packs[at].1)
}

impl SweepReport {
    /// Octets of everything that was deleted, or would be, less those of packs that were written. A dry run does not tell what would become of packs
    /// that are mostly dead.
    #[must_use]
    pub fn bytes_freed(&self) -> u64 {
        let gone =
            [self.deleted_packs, self.moved_packs, self.deleted_commits, self.deleted_segments, self.deleted_records];
        let gone: u64 = gone.iter().map(|counted| counted.bytes).sum();
        gone.saturating_sub(self.written_packs.bytes)
    }

    /// Packs that are left, but for what others write. A dry run counts packs that are mostly dead as they are.
    #[must_use]
    pub fn packs_left(&self) -> u64 {
        let there = self.packs.objects + self.written_packs.objects;
        there.saturating_sub(self.deleted_packs.objects + self.moved_packs.objects)
    }
}

impl Counted {
    fn count(&mut self, length: u64) {
        *self += Self { objects: 1, bytes: length };
    }
}

impl AddAssign for Counted {
    fn add_assign(&mut self, other: Self) {
        self.objects += other.objects;
        self.bytes += other.bytes;
    }
}

/// The commits, with their lengths, that the forgetting checkpoint at this sequence makes needless.
async fn forgotten_commits(repository: &Repository, name: JournalName, sequence: u64) -> Result<Vec<(u64, u64)>> {
    let kept = Journal::kept(repository, name, sequence).await?;
    let listed = name.sequences(repository).await?.into_iter();
    Ok(listed.filter(|(sequence, _)| !kept.contains(*sequence)).collect())
}
