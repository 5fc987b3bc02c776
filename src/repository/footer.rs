//! Reading what a pack says is in it.

use super::Repository;
use crate::error::{Error, Result};
use crate::pack::{HEADER, PackId, PackReader, Row, TRAILER, Trailer};
use crate::store::read_exact;

/// Octets of a pack's end that are read at first: most footers are in it.
const FIRST_READ: u64 = 64 << 10;

/// The rows in a pack's footer.
pub(crate) async fn read_footer(repository: &Repository, pack: PackId, length: u64) -> Result<Vec<Row>> {
    let (store, key) = (&**repository.store(), pack.key());
    if length < (HEADER + TRAILER) as u64 {
        return Err(Error::damaged("a pack is too short"));
    }
    let reader = PackReader::new(pack, repository.secrets())?;
    let tail = read_exact(store, &key, length - length.min(FIRST_READ)..length).await?;
    let trailer = Trailer::parse(&tail, length)?;
    let footer = trailer.footer_offset..trailer.footer_offset + u64::from(trailer.footer_length);
    let from = footer.start.checked_sub(length - tail.len() as u64);
    let mut footer = match from.and_then(|from| tail.get(from as usize..from as usize + trailer.footer_length as usize))
    {
        Some(footer) => footer.to_vec(),
        None => read_exact(store, &key, footer).await?.to_vec(),
    };
    reader.footer(&trailer, &mut footer)
}
