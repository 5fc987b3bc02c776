//! Settings: plain data, apart from the components that they are joined with in [`Engine::builder`](crate::Engine::builder).

use crate::error::{Error, Result};
use crate::mime::Limits;
use crate::pack;
use crate::recipe::Cuts;

/// How an engine works. Two engines with different settings read each other's repositories.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Settings {
    /// Where messages are cut into blobs. A worker holds one piece in memory, decoded, and once more compressed.
    pub cuts: Cuts,
    /// The limits beyond which MIME structure is taken for plain octets.
    pub limits: Limits,
    /// How hard content is compressed. Adaptive by default.
    pub compression: Compression,
    /// The most octets in a pack; an eighth of the budget is never exceeded. 64 MiB by default.
    pub pack_bytes_max: usize,
    /// A commit is closed when its recipes are this long, compressed. 8 MiB by default.
    pub commit_bytes_max: usize,
    /// A commit is closed when it has this many messages. 65,536 by default, 262,144 at most: who reads a commit has all of its rows in memory.
    pub commit_messages_max: u32,
    /// Octets of recipes that are compressed together. 1 MiB by default.
    pub recipe_block_bytes: usize,
    /// With more messages than this in quarantine, a run that is going wrong ends: what has begun is committed, no new message is begun. No limit by default.
    pub quarantined_max: Option<u64>,
    /// Trust no evidence: read every message again, and store what differs. If packs are marked as bad, content that only they held is stored again, too.
    pub reread: bool,
}

/// How hard content is compressed, by zstd. Whatever it is, the same content comes back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Compression {
    /// As hard as there is time for: at level 1 while workers are what a transfer waits for, at levels up to 5 while it waits for the store.
    #[default]
    Adaptive,
    /// At this level, 1 to 19. With one worker the same mail makes packs of the same content. A worker takes two of zstd's contexts of the budget: 6 MiB
    /// up to level 6, 22 MiB at level 9, 164 MiB at level 19.
    Level(i32),
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            cuts: Cuts::default(),
            limits: Limits::default(),
            compression: Compression::Adaptive,
            pack_bytes_max: 64 << 20,
            commit_bytes_max: 8 << 20,
            commit_messages_max: 1 << 16,
            recipe_block_bytes: 1 << 20,
            quarantined_max: None,
            reread: false,
        }
    }
}

impl Settings {
    /// That the settings can work together.
    pub(crate) fn verify(&self) -> Result<()> {
        let refuse = |what: &'static str| Err(Error::invalid(what));
        match self {
            Self { compression: Compression::Level(level), .. } if !(1..=19).contains(level) => {
                refuse("the compression level must be from 1 to 19")
            }
            Self { pack_bytes_max, .. } if !(1 << 14..=1 << 30).contains(pack_bytes_max) => {
                refuse("a pack must be from 16 KiB to 1 GiB")
            }
            Self { commit_bytes_max, .. } if !(1 << 16..=32 << 20).contains(commit_bytes_max) => {
                refuse("a commit must be from 64 KiB to 32 MiB")
            }
            Self { commit_messages_max, .. } if !(1..=1 << 18).contains(commit_messages_max) => {
                refuse("a commit must have from 1 to 262,144 messages")
            }
            Self { recipe_block_bytes, .. } if !(1 << 12..=16 << 20).contains(recipe_block_bytes) => {
                refuse("a block of recipes must be from 4 KiB to 16 MiB")
            }
            Self { cuts, .. } if !(1..=pack::CONTENT_MAX).contains(&cuts.piece_max) => {
                refuse("a piece must be from 1 octet to 16 MiB")
            }
            _ => Ok(()),
        }
    }
}
