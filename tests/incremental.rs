//! Runs after the first: what is unchanged is told without reading it, what changed is recorded, nothing is ever deleted, and every
//! state that there was can be restored.
#![cfg(feature = "testing")]

mod common;

use common::{Tree, World, assert_same, mbox, message, numbers, set_time, tree, with_attachment, write};
use futures::TryStreamExt;
use futures::executor::block_on;
use mailrail::ledger::Ledger;
use mailrail::message::MailboxName;
use mailrail::runtime::Clock;
use mailrail::sink::Sink;
use mailrail::source::Source;
use mailrail::store::Store;
use mailrail::testing::{CountingStore, ManualClock, Operation};
use mailrail::{Resources, Settings, sink, source};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;

/// A source's tree, a repository, and every state in which the tree was transferred.
struct Nights {
    world: World,
    directory: TempDir,
    open: fn(&Path, &ManualClock) -> Arc<dyn Source>,
    sink: fn(&Path) -> Arc<dyn Sink>,
    history: Vec<(u64, Tree)>,
}

impl Nights {
    fn maildir() -> Self {
        Self::of(
            World::inline(),
            |path, _| Arc::new(source::Maildir::open(path).unwrap()),
            |path| Arc::new(sink::Maildir::new(path)),
        )
    }

    fn mbox() -> Self {
        Self::of(
            World::inline(),
            |path, clock| Arc::new(source::Mbox::open(path).unwrap().with_clock(Arc::new(clock.clone()))),
            |path| Arc::new(sink::Mbox::new(path)),
        )
    }

    fn eml() -> Self {
        Self::of(
            World::inline(),
            |path, clock| Arc::new(source::Eml::open(path).unwrap().with_clock(Arc::new(clock.clone()))),
            |path| Arc::new(sink::Eml::new(path)),
        )
    }

    fn of(world: World, open: fn(&Path, &ManualClock) -> Arc<dyn Source>, sink: fn(&Path) -> Arc<dyn Sink>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("source")).unwrap();
        Self { world, directory, open, sink, history: Vec::new() }
    }

    fn root(&self) -> PathBuf {
        self.directory.path().join("source")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root().join(name)
    }

    fn source(&self) -> Arc<dyn Source> {
        (self.open)(&self.root(), &self.world.clock)
    }

    /// Transfers; the restored tree must be the source's, octet for octet.
    fn night(&mut self) -> Ledger {
        let ledger = self.push();
        let now = tree(&self.root());
        assert_same(&now, &self.restored(None), "the latest state");
        self.history.push((self.world.now(), now));
        ledger
    }

    fn push(&self) -> Ledger {
        self.world.clock.advance(Duration::from_secs(86_400));
        let report = block_on(self.world.engine.transfer(self.source()).finish()).unwrap();
        report.ledger.verify().unwrap();
        report.ledger
    }

    fn restored(&self, at: Option<u64>) -> Tree {
        let target = tempfile::tempdir_in(self.directory.path()).unwrap();
        let restore = self.world.engine.restore((self.sink)(target.path()));
        let restore = match at {
            Some(at) => restore.at(at),
            None => restore,
        };
        let report = block_on(restore.finish()).unwrap();
        assert!(report.is_complete(), "{report:#?}");
        tree(target.path())
    }

    /// Every state that there was comes back.
    fn every_state_comes_back(&self) {
        for (at, state) in &self.history {
            assert_same(state, &self.restored(Some(*at)), "an earlier state");
        }
    }
}

fn maildir(nights: &Nights, folders: &[&str]) {
    for folder in folders {
        for directory in ["cur", "new", "tmp"] {
            fs::create_dir_all(nights.path(folder).join(directory)).unwrap();
        }
    }
}

/// Alice's INBOX with ten messages and her Sent folder with two.
fn alice() -> Nights {
    let nights = Nights::maildir();
    maildir(&nights, &["alice", "alice/.Sent"]);
    for number in 0..8 {
        let octets = if number % 2 == 0 { message(number, 2000) } else { with_attachment(number, number, 30_000) };
        write(&nights.path(&format!("alice/cur/{number}.host:2,S")), &octets, number);
    }
    write(&nights.path("alice/new/8.host"), &message(8, 500), 8);
    write(&nights.path("alice/new/9.host"), &message(9, 500), 9);
    write(&nights.path("alice/.Sent/cur/10.host:2,S"), &message(10, 500), 10);
    write(&nights.path("alice/.Sent/cur/11.host:2,S"), &with_attachment(11, 1, 30_000), 11);
    nights
}

fn move_file(nights: &Nights, from: &str, to: &str) {
    fs::rename(nights.path(from), nights.path(to)).unwrap();
}

#[test]
fn a_run_that_writes_to_more_journals_than_a_record_tells_notes_them_on_the_way() {
    const MAILBOXES: usize = 300;
    let world = World::inline();
    let source = source::Memory::new(source::SourceId::new([1; 16]));
    let name = |number: usize| MailboxName::new(format!("{number:0>60000}"));
    for number in 0..MAILBOXES {
        source.put(&name(number), "INBOX", "1", message(number as u64, 300));
    }
    let report = block_on(world.engine.transfer(source).finish()).unwrap();
    assert_eq!(report.ledger.messages.stored, MAILBOXES as u64);
    assert!(block_on(world.engine.check().finish()).unwrap().is_sound());
    assert_eq!(block_on(world.engine.runs()).unwrap().len(), 1, "notes are no runs");
    // A repair tells it again, where records are lost.
    let records: Vec<_> = block_on(world.memory.list("runs/").try_collect()).unwrap();
    records.iter().for_each(|record| block_on(world.memory.delete(&record.key)).unwrap());
    let repaired = block_on(world.engine.repair().finish()).unwrap();
    assert!(repaired.is_whole() && repaired.records_written > 1, "{repaired:#?}");
    assert!(block_on(world.engine.check().finish()).unwrap().is_sound());
    // Some record tells of each: whatever journal is gone, it is missed.
    let commits: Vec<_> = block_on(world.memory.list("mailboxes/").try_collect()).unwrap();
    assert_eq!(commits.len(), MAILBOXES);
    commits.iter().for_each(|commit| block_on(world.memory.delete(&commit.key)).unwrap());
    let check = block_on(world.engine.check().finish()).unwrap();
    assert_eq!(check.damages, MAILBOXES as u64);
}

#[test]
fn an_unchanged_maildir_is_not_read_again() {
    let mut nights = alice();
    let first = nights.night();
    assert_eq!(numbers(&first)[..6], [12, 12, 0, 0, 0, 0]);
    assert_eq!(numbers(&nights.night()), [12, 0, 12, 0, 0, 0, 0]);
    assert_eq!(numbers(&nights.night()), [12, 0, 12, 0, 0, 0, 0]);
}

#[test]
fn a_night_without_changes_writes_no_commit() {
    let mut nights = alice();
    nights.night();
    let objects = nights.world.memory.clone();
    let count = |prefix: &str| {
        use futures::StreamExt;
        use mailrail::store::Store;
        block_on(objects.list(prefix).count())
    };
    let before = (count("mailboxes/"), count("packs/"), count("index/"));
    nights.night();
    assert_eq!(before, (count("mailboxes/"), count("packs/"), count("index/")));
}

#[test]
fn flags_changed_by_renaming_are_recorded_without_reading() {
    let mut nights = alice();
    nights.night();
    move_file(&nights, "alice/cur/0.host:2,S", "alice/cur/0.host:2,FS");
    move_file(&nights, "alice/cur/1.host:2,S", "alice/cur/1.host:2,");
    assert_eq!(numbers(&nights.night()), [12, 0, 12, 2, 0, 0, 0]);
    move_file(&nights, "alice/cur/0.host:2,FS", "alice/cur/0.host:2,S");
    assert_eq!(numbers(&nights.night()), [12, 0, 12, 1, 0, 0, 0]);
    assert_eq!(numbers(&nights.night()), [12, 0, 12, 0, 0, 0, 0]);
    nights.every_state_comes_back();
}

#[test]
fn a_message_that_goes_from_new_to_cur_is_a_change_of_flags() {
    let mut nights = alice();
    nights.night();
    move_file(&nights, "alice/new/8.host", "alice/cur/8.host:2,S");
    assert_eq!(numbers(&nights.night()), [12, 0, 12, 1, 0, 0, 0]);
    nights.every_state_comes_back();
}

#[test]
fn a_message_moved_to_another_folder_is_moved_and_not_read() {
    let mut nights = alice();
    nights.night();
    // To a folder that is enumerated later, and from one that is.
    move_file(&nights, "alice/cur/3.host:2,S", "alice/.Sent/cur/3.host:2,RS");
    move_file(&nights, "alice/.Sent/cur/11.host:2,S", "alice/cur/11.host:2,S");
    assert_eq!(numbers(&nights.night()), [12, 0, 12, 0, 2, 0, 0]);
    assert_eq!(numbers(&nights.night()), [12, 0, 12, 0, 0, 0, 0]);
    move_file(&nights, "alice/.Sent/cur/3.host:2,RS", "alice/cur/3.host:2,S");
    assert_eq!(numbers(&nights.night()), [12, 0, 12, 0, 1, 0, 0]);
    nights.every_state_comes_back();
}

#[test]
fn a_copy_in_another_folder_is_a_message_of_its_own() {
    let mut nights = alice();
    nights.night();
    let octets = fs::read(nights.path("alice/cur/3.host:2,S")).unwrap();
    write(&nights.path("alice/.Sent/cur/3.host:2,S"), &octets, 3);
    let second = nights.night();
    assert_eq!(numbers(&second), [13, 1, 12, 0, 0, 0, octets.len() as u64]);
    assert_eq!(second.bytes.duplicate, second.bytes.content);
    fs::remove_file(nights.path("alice/cur/3.host:2,S")).unwrap();
    assert_eq!(numbers(&nights.night()), [12, 0, 12, 0, 0, 1, 0]);
    nights.every_state_comes_back();
}

#[test]
fn what_is_deleted_is_marked_gone_and_can_be_restored_as_of_before() {
    let mut nights = alice();
    nights.night();
    fs::remove_file(nights.path("alice/cur/1.host:2,S")).unwrap();
    fs::remove_file(nights.path("alice/.Sent/cur/10.host:2,S")).unwrap();
    assert_eq!(numbers(&nights.night()), [10, 0, 10, 0, 0, 2, 0]);
    assert_eq!(numbers(&nights.night()), [10, 0, 10, 0, 0, 0, 0]);
    nights.every_state_comes_back();
}

#[test]
fn what_is_delivered_is_stored() {
    let mut nights = alice();
    nights.night();
    let octets = message(50, 3000);
    write(&nights.path("alice/new/50.host"), &octets, 50);
    assert_eq!(numbers(&nights.night()), [13, 1, 12, 0, 0, 0, octets.len() as u64]);
    nights.every_state_comes_back();
}

#[test]
fn a_name_that_is_used_again_for_other_octets_is_another_message() {
    let mut nights = alice();
    nights.night();
    let octets = message(51, 3000);
    write(&nights.path("alice/cur/0.host:2,S"), &octets, 51);
    let second = nights.night();
    assert_eq!((second.messages.stored, second.messages.unchanged), (1, 11));
    assert_eq!(second.bytes.read, octets.len() as u64);
    nights.every_state_comes_back();
}

#[test]
fn a_folder_that_is_removed_is_gone_with_its_messages() {
    let mut nights = alice();
    nights.night();
    fs::remove_dir_all(nights.path("alice/.Sent")).unwrap();
    assert_eq!(numbers(&nights.night()), [10, 0, 10, 0, 0, 2, 0]);
    maildir(&nights, &["alice/.Sent"]);
    assert_eq!(numbers(&nights.night()), [10, 0, 10, 0, 0, 0, 0]);
    nights.every_state_comes_back();
}

#[test]
fn a_folder_that_is_renamed_is_moved_and_not_read() {
    let mut nights = alice();
    nights.night();
    move_file(&nights, "alice/.Sent", "alice/.Gesendet");
    assert_eq!(numbers(&nights.night()), [12, 0, 12, 0, 2, 0, 0]);
    nights.every_state_comes_back();
}

#[test]
fn a_mailbox_that_is_no_longer_there_stays_restorable() {
    let mut nights = alice();
    maildir(&nights, &["bob"]);
    write(&nights.path("bob/cur/1.host:2,"), &message(70, 100), 70);
    nights.night();
    let before = tree(&nights.root());
    fs::remove_dir_all(nights.path("bob")).unwrap();
    assert_eq!(numbers(&nights.push()), [12, 0, 12, 0, 0, 0, 0]);
    assert_same(&before, &nights.restored(None), "both mailboxes");
}

#[test]
fn rereading_trusts_nothing() {
    let mut nights = alice();
    let first = nights.night();
    // The same name and size: the evidence of a Maildir does not show it.
    let path = nights.path("alice/cur/2.host:2,S");
    let mut octets = fs::read(&path).unwrap();
    octets[0] ^= 0x20;
    write(&path, &octets, 2);
    assert_eq!(numbers(&nights.push()), [12, 0, 12, 0, 0, 0, 0]);
    let mut settings = Settings::default();
    settings.reread = true;
    let engine = nights.world.another(Resources::inline(64 << 20).unwrap(), settings, 2);
    nights.world.clock.advance(Duration::from_secs(60));
    let reread = block_on(engine.transfer(nights.source()).finish()).unwrap().ledger;
    assert_eq!(numbers(&reread), [12, 1, 11, 0, 0, 0, first.bytes.read]);
    assert_same(&tree(&nights.root()), &nights.restored(None), "what was read again");
    // And flags, which reading again sees as well.
    move_file(&nights, "alice/cur/4.host:2,S", "alice/cur/4.host:2,RS");
    let reread = block_on(engine.transfer(nights.source()).finish()).unwrap().ledger;
    assert_eq!(numbers(&reread), [12, 0, 12, 1, 0, 0, first.bytes.read]);
    assert_same(&tree(&nights.root()), &nights.restored(None), "flags");
}

#[test]
fn an_mbox_is_read_again_only_when_it_changed() {
    let mut nights = Nights::mbox();
    let messages: Vec<Vec<u8>> = (0..20).map(|number| message(number, 1500)).collect();
    write(&nights.path("alice/inbox"), &mbox(&messages), 1);
    assert_eq!(numbers(&nights.night())[..6], [20, 20, 0, 0, 0, 0]);
    assert_eq!(numbers(&nights.night()), [20, 0, 20, 0, 0, 0, 0]);
}

#[test]
fn an_mbox_that_only_grew_is_continued() {
    let mut nights = Nights::mbox();
    let mut messages: Vec<Vec<u8>> = (0..200).map(|number| message(number, 1500)).collect();
    let path = nights.path("alice/inbox");
    write(&path, &mbox(&messages), 1);
    nights.night();
    for night in 0..3 {
        let fresh: Vec<Vec<u8>> = (0..5).map(|number| message(1000 + night * 10 + number, 900)).collect();
        fs::File::options().append(true).open(&path).unwrap().write_all(&mbox(&fresh)).unwrap();
        set_time(&path, 100 + night);
        let read: usize = fresh.iter().map(Vec::len).sum();
        let known = messages.len() as u64;
        messages.extend(fresh);
        assert_eq!(numbers(&nights.night()), [known + 5, 5, known, 0, 0, 0, read as u64]);
    }
    assert_eq!(numbers(&nights.night()), [215, 0, 215, 0, 0, 0, 0]);
    nights.every_state_comes_back();
}

#[test]
fn what_an_mbox_grew_by_is_stored_once_although_the_run_was_cut_off() {
    let mut settings = Settings::default();
    settings.commit_messages_max = 8;
    let mut nights = Nights::mbox();
    nights.world = World::with(Resources::inline(64 << 20).unwrap(), settings, |store| Arc::new(store));
    let path = nights.path("alice/inbox");
    write(&path, &mbox(&(0..3).map(|number| message(number, 900)).collect::<Vec<_>>()), 1);
    nights.night();
    let fresh: Vec<Vec<u8>> = (0..600).map(|number| message(1000 + number, 9000)).collect();
    fs::File::options().append(true).open(&path).unwrap().write_all(&mbox(&fresh)).unwrap();
    set_time(&path, 100);
    nights.world.clock.advance(Duration::from_secs(86_400));
    let mut transfer = nights.world.engine.transfer(nights.source());
    while transfer.ledger().messages.stored == 0 {
        assert!(block_on(transfer.next()).is_some(), "it ended before it could be cut off");
    }
    let stored = transfer.ledger().messages.stored;
    drop(transfer);
    assert!(stored < 600);
    let ledger = nights.night();
    assert_eq!((ledger.messages.seen, ledger.messages.stored), (603, 600 - stored));
    assert_eq!(numbers(&nights.night())[..3], [603, 0, 603]);
}

#[test]
fn messages_without_names_from_two_sources_in_one_folder_all_come_back() {
    let nights = [Nights::mbox(), Nights::mbox()];
    let world = &nights[0].world;
    for (at, nights) in nights.iter().enumerate() {
        let messages: Vec<Vec<u8>> = (0..5).map(|number| message(100 * at as u64 + number, 700)).collect();
        write(&nights.path("alice/inbox"), &mbox(&messages), 1);
        world.clock.advance(Duration::from_secs(86_400));
        let report = block_on(world.engine.transfer(nights.source()).finish()).unwrap();
        assert_eq!(report.ledger.messages.stored, 5);
    }
    let target = tempfile::tempdir().unwrap();
    let report = block_on(world.engine.restore(sink::Eml::new(target.path())).finish()).unwrap();
    assert_eq!((report.restored, report.failed), (10, 0), "{report:#?}");
}

#[test]
fn an_mbox_that_grew_and_was_changed_before_its_old_end_is_read_again() {
    let mut nights = Nights::mbox();
    let mut messages: Vec<Vec<u8>> = (0..20).map(|number| message(number, 1500)).collect();
    let path = nights.path("alice/inbox");
    write(&path, &mbox(&messages), 1);
    nights.night();
    messages.remove(15);
    messages.extend((0..5).map(|number| message(2000 + number, 900)));
    write(&path, &mbox(&messages), 2);
    let ledger = nights.night();
    assert_eq!(numbers(&ledger)[..6], [24, 5, 19, 0, 0, 1]);
    nights.every_state_comes_back();
}

#[test]
fn a_status_rewritten_in_place_is_a_new_version_of_one_message() {
    let mut nights = Nights::mbox();
    let mut messages: Vec<Vec<u8>> = (0..20).map(|number| message(number, 1500)).collect();
    let path = nights.path("alice/inbox");
    write(&path, &mbox(&messages), 1);
    nights.night();
    let text = String::from_utf8(messages[7].clone()).unwrap().replace("Status: O ", "Status: RO");
    messages[7] = text.into_bytes();
    // The same length and time; the inode's change time tells.
    let octets = mbox(&messages);
    let mut file = fs::File::options().write(true).open(&path).unwrap();
    file.write_all(&octets).unwrap();
    drop(file);
    set_time(&path, 1);
    assert_eq!(numbers(&nights.night())[..6], [20, 1, 19, 0, 0, 1]);
    assert_eq!(numbers(&nights.night()), [20, 0, 20, 0, 0, 0, 0]);
    nights.every_state_comes_back();
}

#[test]
fn expunged_and_inserted_and_reordered_messages_of_an_mbox_come_back_in_order() {
    let mut nights = Nights::mbox();
    let mut messages: Vec<Vec<u8>> = (0..20).map(|number| message(number, 1500)).collect();
    let path = nights.path("alice/inbox");
    write(&path, &mbox(&messages), 1);
    nights.night();
    messages.drain(3..6);
    write(&path, &mbox(&messages), 2);
    assert_eq!(numbers(&nights.night())[..6], [17, 0, 17, 0, 0, 3]);
    messages.insert(0, message(3000, 700));
    messages.insert(8, message(3001, 700));
    messages.insert(9, message(3002, 700));
    write(&path, &mbox(&messages), 3);
    assert_eq!(numbers(&nights.night())[..6], [20, 3, 17, 0, 0, 0]);
    // Again at the same places, between what was put there and what was there before.
    messages.insert(0, message(3003, 700));
    messages.insert(9, message(3004, 700));
    write(&path, &mbox(&messages), 4);
    let ledger = nights.night();
    assert_eq!(ledger.messages.seen, 22);
    messages.swap(2, 12);
    write(&path, &mbox(&messages), 5);
    assert_eq!(nights.night().messages.seen, 22);
    messages.reverse();
    write(&path, &mbox(&messages), 6);
    assert_eq!(nights.night().messages.seen, 22);
    assert_eq!(numbers(&nights.night()), [22, 0, 22, 0, 0, 0, 0]);
    nights.every_state_comes_back();
}

#[test]
fn equal_messages_in_an_mbox_stay_as_many_as_there_are() {
    let mut nights = Nights::mbox();
    let mut messages = vec![message(1, 800); 5];
    let path = nights.path("alice/inbox");
    write(&path, &mbox(&messages), 1);
    nights.night();
    messages.pop();
    write(&path, &mbox(&messages), 2);
    assert_eq!(numbers(&nights.night())[..6], [4, 0, 4, 0, 0, 1]);
    messages.extend([message(1, 800), message(1, 800)]);
    write(&path, &mbox(&messages), 3);
    let ledger = nights.night();
    assert_eq!((ledger.messages.seen, ledger.messages.stored), (6, 2));
    nights.every_state_comes_back();
}

#[test]
fn an_mbox_that_is_emptied_removed_and_made_again_follows() {
    let mut nights = Nights::mbox();
    let messages: Vec<Vec<u8>> = (0..20).map(|number| message(number, 1500)).collect();
    write(&nights.path("alice/inbox"), &mbox(&messages), 1);
    write(&nights.path("alice/sent"), &mbox(&messages[..3]), 1);
    nights.night();
    write(&nights.path("alice/inbox"), b"", 2);
    assert_eq!(numbers(&nights.night())[..6], [3, 0, 3, 0, 0, 20]);
    fs::remove_file(nights.path("alice/inbox")).unwrap();
    assert_eq!(numbers(&nights.night())[..6], [3, 0, 3, 0, 0, 0]);
    write(&nights.path("alice/inbox"), &mbox(&messages[..10]), 3);
    assert_eq!(numbers(&nights.night())[..6], [13, 10, 3, 0, 0, 0]);
    nights.every_state_comes_back();
}

#[test]
fn an_mbox_looked_at_just_after_it_was_written_is_read_again() {
    let mut nights = Nights::mbox();
    let mut messages: Vec<Vec<u8>> = (0..20).map(|number| message(number, 1500)).collect();
    let path = nights.path("alice/inbox");
    write(&path, &mbox(&messages), 1);
    // The clock shows the time of the last change of the inode, so what is written in the same moment cannot be told by times.
    stand_at(&nights.world.clock, &path);
    assert_eq!(numbers(&push_now(&nights))[..3], [20, 20, 0]);
    messages[3][0] ^= 0x20;
    write(&path, &mbox(&messages), 1);
    stand_at(&nights.world.clock, &path);
    assert_eq!(numbers(&push_now(&nights))[..6], [20, 1, 19, 0, 0, 1]);
    assert_same(&tree(&nights.root()), &nights.restored(None), "the edit");
    assert_eq!(numbers(&nights.night())[..6], [20, 0, 20, 0, 0, 0]);
    assert_eq!(numbers(&nights.night()), [20, 0, 20, 0, 0, 0, 0]);
}

#[test]
fn a_file_looked_at_just_after_it_was_written_is_read_again() {
    let mut nights = Nights::eml();
    let path = nights.path("alice/inbox/1.eml");
    let mut octets = message(1, 1000);
    let length = octets.len() as u64;
    write(&path, &octets, 1);
    stand_at(&nights.world.clock, &path);
    assert_eq!(numbers(&push_now(&nights)), [1, 1, 0, 0, 0, 0, length]);
    // Read again, and found to be the same.
    assert_eq!(numbers(&push_now(&nights)), [1, 0, 1, 0, 0, 0, length]);
    octets[0] ^= 0x20;
    write(&path, &octets, 1);
    stand_at(&nights.world.clock, &path);
    assert_eq!(numbers(&push_now(&nights)), [1, 1, 0, 0, 0, 0, length]);
    assert_same(&tree(&nights.root()), &nights.restored(None), "the edit");
    assert_eq!(numbers(&nights.night()), [1, 0, 1, 0, 0, 0, length]);
    assert_eq!(numbers(&nights.night()), [1, 0, 1, 0, 0, 0, 0]);
}

#[test]
fn files_are_known_by_size_times_and_inode() {
    let mut nights = Nights::eml();
    for number in 0..10 {
        write(&nights.path(&format!("alice/inbox/{number}.eml")), &message(number, 1000), number);
    }
    nights.night();
    assert_eq!(numbers(&nights.night()), [10, 0, 10, 0, 0, 0, 0]);
    let path = nights.path("alice/inbox/4.eml");
    let mut octets = fs::read(&path).unwrap();
    octets[9] ^= 1;
    write(&path, &octets, 4);
    assert_eq!(numbers(&nights.night()), [10, 1, 9, 0, 0, 0, octets.len() as u64]);
    // Put in the place of the old one, with the old time: another inode.
    let other = nights.path("alice/inbox/other");
    octets[9] ^= 3;
    write(&other, &octets, 4);
    fs::rename(&other, &path).unwrap();
    assert_eq!(numbers(&nights.night()), [10, 1, 9, 0, 0, 0, octets.len() as u64]);
    // A new time and the same octets: nothing to store, and the new time comes back.
    set_time(&path, 400);
    let ledger = nights.night();
    assert_eq!((ledger.messages.stored, ledger.messages.unchanged), (0, 10));
    assert_eq!(numbers(&nights.night()), [10, 0, 10, 0, 0, 0, 0]);
    fs::rename(nights.path("alice/inbox"), nights.path("alice/archive")).unwrap();
    assert_eq!(nights.night().messages.seen, 10);
    nights.every_state_comes_back();
}

#[test]
fn a_hundred_nights_open_in_a_few_reads_and_all_come_back() {
    let mut nights = alice();
    let mut counting = None;
    nights.world = World::with(Resources::inline(64 << 20).unwrap(), Settings::default(), |memory| {
        let store = CountingStore::new(Arc::new(memory));
        counting = Some(store.clone());
        Arc::new(store)
    });
    let counting = counting.unwrap();
    nights.push();
    let mut reads = Vec::new();
    for night in 0..100_u64 {
        change(&nights, night);
        counting.reset();
        let ledger = nights.push();
        reads.push(counting.count(Operation::Read, "mailboxes").operations);
        assert!(ledger.is_complete());
        assert!(ledger.messages.stored <= 2, "night {night}: {ledger:?}");
        if night % 7 == 0 || night > 95 {
            assert_same(&tree(&nights.root()), &nights.restored(None), &format!("night {night}"));
            nights.history.push((nights.world.now(), tree(&nights.root())));
        }
    }
    assert!(reads.windows(2).any(|pair| pair[1] < pair[0] / 2), "there was no checkpoint: {reads:?}");
    assert!(reads.iter().all(|reads| *reads < 150), "{reads:?}");
    nights.every_state_comes_back();
    let mut checked = block_on(nights.world.engine.check().read_data(true).finish()).unwrap();
    assert!(checked.is_sound(), "{checked:#?}");
    checked.commits -= 101;
    assert_eq!(checked.commits, 0);
    let compared = block_on(nights.world.engine.compare(nights.source()).finish()).unwrap();
    assert!(compared.is_same(), "{compared:#?}");
}

/// What happens to a mailbox in a day: a delivery, and one thing or another with an older message.
fn change(nights: &Nights, night: u64) {
    let (from, to) = (nights.path("alice/cur"), nights.path("alice/.Sent/cur"));
    write(
        &nights.path(&format!("alice/cur/{}.host:2,", 1000 + night)),
        &with_attachment(night, night % 9, 20_000),
        night,
    );
    let names = |path: &Path| {
        let mut names: Vec<_> = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    let mut inbox = names(&from);
    let mut draw = |step: u64| {
        let at = common::random(night, step) as usize % inbox.len();
        inbox.remove(at)
    };
    let (flagged, moved, gone) = (draw(0), draw(1), draw(2));
    match night % 4 {
        0 => {
            let name = flagged.to_str().unwrap();
            let other =
                if name.ends_with(":2,S") { name.replace(":2,S", ":2,FS") } else { name.replace(":2,", ":2,R") };
            fs::rename(from.join(name), from.join(other)).unwrap();
        }
        1 => fs::rename(from.join(&moved), to.join(&moved)).unwrap(),
        2 => fs::remove_file(from.join(gone)).unwrap(),
        _ => {
            if let Some(back) = names(&to).pop() {
                fs::rename(to.join(&back), from.join(&back)).unwrap();
            }
        }
    }
}

fn push_now(nights: &Nights) -> Ledger {
    let report = block_on(nights.world.engine.transfer(nights.source()).finish()).unwrap();
    report.ledger.verify().unwrap();
    report.ledger
}

/// Sets the clock to the time of the file's last change.
fn stand_at(clock: &ManualClock, path: &Path) {
    use std::os::unix::fs::MetadataExt;
    let metadata = fs::metadata(path).unwrap();
    clock.set(Duration::new(metadata.ctime() as u64, metadata.ctime_nsec() as u32));
    assert!(clock.now() > Duration::ZERO);
}
