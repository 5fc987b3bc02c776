//! Which packs of others new commits may point at: those that exist and are not marked bad.

use crate::error::{Error, Result, Retry};
use crate::index::{Index, RamIndex};
use crate::pack::PackId;
use crate::repository::{Draft, Repository, bad_packs, read_segments};
use futures::{StreamExt, TryStreamExt, stream};

/// Packs that are looked for at once.
const LOOKS_MAX: usize = 16;

/// Fills the index from the repository's segments, once, with the rows of packs that are listed and not marked bad. Marks are read whenever a transfer begins:
/// they may be new. Gives whether there are any.
pub(super) async fn load_index(repository: &Repository, index: &RamIndex) -> Result<bool> {
    let bad = bad_packs(repository).await?;
    bad.iter().for_each(|pack| index.refuse(*pack));
    if repository.claim_index_load() {
        let packs = repository.packs().await?;
        read_segments(repository, &packs, |rows| index.insert(rows)).await?;
    }
    Ok(!bad.is_empty())
}

/// Sees to it that every pack of another writer that `draft` points at is there, each once a process. What is not there is pointed at never again.
pub(super) async fn see_packs(repository: &Repository, index: &RamIndex, draft: &Draft) -> Result<()> {
    let packs = draft.blobs.packs();
    let unseen = packs.into_iter().filter(|(pack, _)| !pack.is_of(repository.writer()) && !index.is_seen(*pack));
    let looks = stream::iter(unseen).map(|(pack, end)| async move {
        let length = repository.store().length(&pack.key()).await?;
        Ok::<_, Error>((pack, length.is_some_and(|length| length >= end)))
    });
    let mut looks = looks.buffer_unordered(LOOKS_MAX);
    let mut absent: Option<PackId> = None;
    while let Some((pack, is_there)) = looks.try_next().await? {
        if is_there {
            index.saw(pack);
        } else {
            index.refuse(pack);
            absent = Some(pack);
        }
    }
    match absent {
        None => Ok(()),
        Some(pack) => {
            let what = format!("pack {pack}, which another run wrote, is gone; the next run stores its content again");
            Err(Error::damaged(what).retry_as(Retry::Backoff))
        }
    }
}
