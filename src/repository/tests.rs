//! Journals as a reader finds them, whatever checkpoints lie in between.

use super::*;
use crate::message::{Envelope, Identity};
use crate::pack::Packer;
use crate::source::{Kind, SourceId};
use crate::store::MemoryStore;
use futures::executor::block_on;

/// The most messages that a commit may have and still be carried by a checkpoint.
const CARRIED: u64 = 4096;

async fn repository() -> Repository {
    Repository::open_or_create(Arc::new(MemoryStore::new()), Protection::None).await.unwrap()
}

/// Commits `messages` new messages and the loss of `gone`, as a checkpoint or not.
async fn commit(repository: &Repository, mailbox: &MailboxName, messages: u64, gone: &[u64], is_checkpoint: bool) {
    let journal = Journal::load(repository, mailbox, None).await.unwrap();
    let mut draft = Draft { gone: gone.to_vec(), ..Draft::default() };
    let source = draft.source(SourceId::new([4; 16]), &Kind::Eml);
    for ordinal in 0..messages {
        draft.messages.push(&row(ordinal, source));
    }
    if is_checkpoint {
        Checkpoint::of(&journal, repository).await.unwrap().unwrap().carry(&mut draft).unwrap();
    }
    let head = journal.head();
    let place = Place {
        mailbox: mailbox.clone(),
        sequence: head.map_or(0, |head| head.sequence + 1),
        previous: head.map(|head| head.digest),
        writer: [9; 8],
        time: head.map_or(1, |head| head.time + 1),
        first_ordinal: journal.next_ordinal,
        checkpoint: journal.checkpoint,
        forgotten: journal.forgotten,
        epoch: journal.epoch,
        is_void: false,
    };
    let (key, salt) = (journal.name.commit(place.sequence), repository.salt().unwrap());
    let mut packer = Packer::new(1).unwrap();
    let encoded = encode_commit(&draft, &place, &key, repository.secrets(), salt, &mut packer).unwrap();
    assert_eq!(repository.store().create(&key, encoded.octets.into()).await.unwrap(), Created::New);
}

fn row(ordinal: u64, source: u32) -> MessageRow {
    let envelope = Envelope::new("inbox", Identity::Named(ordinal.to_string().into()));
    MessageRow {
        ordinal,
        position: ordinal + 1,
        source,
        envelope,
        digest: Digest::new([1; 32]),
        length: 1,
        quarantine: None,
        recipe: RecipeRange { skip: 0, length: 1 },
        pieces: Vec::new(),
    }
}

async fn living(repository: &Repository, mailbox: &MailboxName) -> Vec<u64> {
    let journal = Journal::load(repository, mailbox, None).await.unwrap();
    let mut living = Vec::new();
    let each = |row: MessageRow| {
        living.push(row.ordinal);
        Ok(())
    };
    journal.living(repository, each).await.unwrap();
    living
}

#[test]
fn a_message_that_is_gone_stays_gone_when_checkpoints_no_longer_carry_its_commit() {
    block_on(async {
        let (repository, mailbox) = (repository().await, MailboxName::new("a"));
        for _ in 0..15 {
            commit(&repository, &mailbox, CARRIED, &[], false).await;
        }
        commit(&repository, &mailbox, 0, &[7], false).await;
        commit(&repository, &mailbox, 0, &[8], true).await;
        // Newer commits push the first one out of what a checkpoint carries.
        for _ in 0..2 {
            commit(&repository, &mailbox, CARRIED, &[], false).await;
        }
        commit(&repository, &mailbox, 0, &[9], true).await;
        let expected: Vec<u64> = (0..17 * CARRIED).filter(|ordinal| !(7..10).contains(ordinal)).collect();
        let found = living(&repository, &mailbox).await;
        assert_eq!(found.len(), expected.len());
        assert_eq!(found, expected);
    });
}
