//! Forgetting checkpoints: commits that carry the state of a mailbox, so that what was before can go.

use super::Repository;
use super::columns::RecipeRange;
use super::commit::{CommitRef, Draft, Place, encode as encode_commit};
use super::journal::{Journal, JournalName};
use crate::error::{Error, ErrorKind, Result};
use crate::pack::{self, Packer};
use std::collections::HashSet;

/// The most messages with changes of their own, and the most that are gone, that a forgetting checkpoint carries.
const UPDATES_MAX: usize = 1 << 18;
const GONE_MAX: usize = 1 << 21;

/// The state of a journal as it was, with those commits alone that living messages need.
/// The last commit named is `base`, up to which all is forgotten; messages that are `lost` count as gone. Gives how many messages are forgotten, too.
pub(crate) async fn carry(
    repository: &Repository,
    past: &Journal,
    base: CommitRef,
    lost: &HashSet<u64>,
) -> Result<(Draft, u64)> {
    let mut draft = Draft { sources: past.sources.clone(), ..Draft::default() };
    let mut forgot = 0;
    for commit in past.commits.iter().filter(|commit| !commit.forgotten && commit.rows > 0) {
        let mut living = Vec::new();
        past.living_of(repository, commit, &mut |row| {
            living.extend(Some(row.ordinal).filter(|ordinal| !lost.contains(ordinal)));
            Ok(())
        })
        .await?;
        let ordinals = commit.first_ordinal..commit.first_ordinal + u64::from(commit.rows);
        let gone: Vec<u64> = ordinals.filter(|ordinal| living.binary_search(ordinal).is_err()).collect();
        forgot += gone.iter().filter(|ordinal| !past.is_forgotten(**ordinal)).count() as u64;
        if !living.is_empty() {
            draft.commits.push(CommitRef { inlined: false, ..*commit });
            draft.gone.extend(gone);
        }
    }
    let is_kept = |ordinal: u64| {
        let at = draft.commits.partition_point(|commit| commit.first_ordinal <= ordinal).checked_sub(1);
        at.is_some_and(|at| ordinal < draft.commits[at].first_ordinal + u64::from(draft.commits[at].rows))
    };
    let mut updates = 0;
    for row in past.updated().filter(|row| is_kept(row.ordinal) && !lost.contains(&row.ordinal)) {
        let mut row = row.clone();
        (row.recipe, row.pieces) = (RecipeRange::default(), Vec::new());
        draft.updates.push(&row);
        updates += 1;
    }
    if updates > UPDATES_MAX || draft.gone.len() > GONE_MAX {
        return Err(Error::new(
            ErrorKind::Limit,
            format!("more of '{}' has changed than a checkpoint carries; it can be forgotten as a whole", past.mailbox),
        ));
    }
    draft.folders = past.folders.values().cloned().collect();
    if draft.commits.last().map(|kept| kept.sequence) != Some(base.sequence) {
        draft.commits.push(CommitRef { first_ordinal: past.next_ordinal, ..only_named(base) });
    }
    Ok((draft, forgot))
}

/// A commit that is named because the next one follows it, and for nothing else.
pub(crate) fn only_named(commit: CommitRef) -> CommitRef {
    CommitRef { rows: 0, inlined: false, forgotten: true, ..commit }
}

/// Creates a commit of little content; false if another's is in its place.
pub(crate) async fn create_commit(
    repository: &Repository,
    name: JournalName,
    draft: &Draft,
    place: &Place,
) -> Result<bool> {
    let key = name.commit(place.sequence);
    let salt = repository.salt()?;
    let encoded = encode_commit(draft, place, &key, repository.secrets(), salt, &mut Packer::new(pack::LEVEL)?)?;
    repository.create(&key, &encoded.octets.into()).await
}
