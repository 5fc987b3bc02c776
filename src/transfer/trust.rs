//! Which packs of others new commits may point at: those that exist and are not marked bad. (Sweeps are [`Registration`](super::registration)'s business.)

use crate::error::{Error, Result};
use crate::index::Index;
use crate::repository::{Draft, Repository};
use futures::{StreamExt, TryStreamExt, stream};

/// Packs that are looked for at once.
const LOOKS_MAX: usize = 16;

/// Whether every pack that `draft` points at is there. Those that this process has not written are looked for, each once. What is not there is pointed
/// at never again.
pub(super) async fn see_packs(repository: &Repository, index: &Index, draft: &Draft) -> Result<bool> {
    let packs = draft.blobs.packs();
    let unseen = packs.into_iter().filter(|(pack, _)| !index.is_seen(*pack));
    let looks = stream::iter(unseen).map(|(pack, end)| async move {
        let length = repository.store().length(&pack.key()).await?;
        Ok::<_, Error>((pack, length.is_some_and(|length| length >= end)))
    });
    let mut looks = looks.buffer_unordered(LOOKS_MAX);
    let mut are_there = true;
    while let Some((pack, is_there)) = looks.try_next().await? {
        if is_there {
            index.saw(pack);
        } else {
            index.refuse(pack);
            are_there = false;
        }
    }
    Ok(are_there)
}
