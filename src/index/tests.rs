//! Tests of the index on disk: against a map, with damage, after crashes.

use super::directory::{Directory, Manifest};
use super::disk::{DiskRows, Extent, SHARDS, Segments};
use super::merge::FAN_IN;
use super::packs::Packs;
use super::ram::RamRows;
use super::run::{Run, RunReader, RunWriter};
use super::*;
use crate::digest::Domain;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use tempfile::TempDir;

const MINE: RepositoryId = [1; 16];
const LENGTH: u32 = 20_000;

fn digest(number: u64) -> Digest {
    Domain::new([0; 32]).digest(&number.to_le_bytes())
}

fn pack(number: u64) -> PackId {
    let mut id = [0; 32];
    id[24..].copy_from_slice(&number.to_le_bytes());
    PackId::new(id)
}

/// A hundred blobs in a pack.
fn row(number: u64) -> Row {
    let at = Location {
        pack: pack(number / 100),
        offset: 40 + number % 100 * 1000,
        stored: 900,
        content: LENGTH,
        frame: (number % 100) as u32,
    };
    Row { digest: digest(number), at }
}

fn rows(numbers: std::ops::Range<u64>) -> Vec<Row> {
    numbers.map(row).collect()
}

fn open(place: &TempDir) -> Index {
    // Recent rows and tables as small as they can be: most rows come from files.
    Index::on_disk(place.path(), 0, Index::DISK_OCTETS_MIN, &Acquisitions::default()).unwrap()
}

fn listed(numbers: std::ops::Range<u64>) -> HashMap<PackId, u64> {
    numbers.map(|number| (pack(number / 100), 1 << 20)).collect()
}

fn extent(index: &Index) -> Extent {
    index.disk().unwrap().extent()
}

fn flush(index: &Index) {
    index.disk().unwrap().flush();
}

fn is_hit(index: &Index, number: u64) -> bool {
    let found = index.look_up(&[(digest(number), LENGTH)], 0)[0];
    assert!(found.is_none_or(|at| at == row(number).at), "row {number} is wrong");
    found.is_some()
}

fn files(place: &TempDir, suffix: &str) -> Vec<PathBuf> {
    let paths = fs::read_dir(place.path()).unwrap().map(|entry| entry.unwrap().path());
    let mut paths: Vec<_> = paths.filter(|path| path.to_str().unwrap().ends_with(suffix)).collect();
    paths.sort();
    paths
}

#[test]
fn many_rows_are_found_in_files_and_absent_ones_are_not() {
    let place = tempfile::tempdir().unwrap();
    let index = open(&place);
    index.fill(&MINE, None, &rows(0..300_000), (0, true));
    flush(&index);
    let told = extent(&index);
    assert_eq!((told.rows, told.dropped), (300_000, 0));
    // Ten tables and more of each shard were merged.
    assert!(told.runs < 8 * SHARDS, "{} runs", told.runs);
    assert!((0..300_000).step_by(7).all(|number| is_hit(&index, number)));
    assert!((300_000..310_000).all(|number| !is_hit(&index, number)));
    assert_eq!(index.look_up(&[(digest(5), LENGTH + 1)], 0)[0], None, "a blob of another length");
}

#[test]
fn short_blobs_are_kept_in_memory_only() {
    let place = tempfile::tempdir().unwrap();
    let index = Index::on_disk(place.path(), 1 << 20, Index::DISK_OCTETS_MIN, &Acquisitions::default()).unwrap();
    let mut short = row(1);
    short.at.content = LASTING_MIN - 1;
    index.insert(&MINE, &[short, row(2)], 0);
    flush(&index);
    assert_eq!(index.look_up(&[(short.digest, short.at.content)], 0)[0], Some(short.at));
    assert_eq!(extent(&index).rows, 1);
}

#[test]
fn rows_of_an_earlier_process_are_hits_when_their_packs_were_seen_in_a_listing() {
    let place = tempfile::tempdir().unwrap();
    let index = open(&place);
    index.fill(&MINE, Some(&[7; 16]), &rows(0..1000), (0, true));
    drop(index);
    let index = open(&place);
    assert!(!index.wants(&MINE, &[7; 16]) && index.wants(&MINE, &[8; 16]) && index.wants(&[2; 16], &[7; 16]));
    assert!((0..1000).all(|number| !is_hit(&index, number)), "nothing is believed before it was looked for");
    index.believe(&MINE, &listed(0..500), (0, true));
    assert!((0..500).all(|number| is_hit(&index, number)));
    assert!((500..1000).all(|number| !is_hit(&index, number)), "their packs are gone");
    assert_eq!(index.look_up(&[(digest(1), LENGTH)], 1)[0], None, "a later sweep may have condemned it");
}

#[test]
fn rows_of_packs_that_are_gone_go_with_the_next_merge() {
    let place = tempfile::tempdir().unwrap();
    let index = open(&place);
    index.fill(&MINE, None, &rows(0..8000), (0, true));
    drop(index);
    let index = open(&place);
    index.believe(&MINE, &listed(0..4000), (0, true));
    // Tables that are written before they are full are runs, too: eight of them are merged.
    for turn in 0..8 {
        index.fill(&MINE, None, &rows(10_000 + turn * 100..10_100 + turn * 100), (0, true));
        flush(&index);
    }
    assert_eq!(extent(&index).rows, 4800);
    assert!((0..4000).chain(10_000..10_800).all(|number| is_hit(&index, number)));
}

#[test]
fn of_rows_of_one_blob_the_newest_counts_unless_only_an_older_one_is_believed() {
    let place = tempfile::tempdir().unwrap();
    let index = open(&place);
    let mut newer = row(1);
    newer.at.pack = pack(77);
    for rows in [&[row(1)], &[newer]] {
        index.insert(&MINE, rows, 0);
        flush(&index);
    }
    assert_eq!(index.look_up(&[(digest(1), LENGTH)], 0)[0], Some(newer.at));
    index.refuse(pack(77));
    assert_eq!(index.look_up(&[(digest(1), LENGTH)], 0)[0], Some(row(1).at));
}

#[test]
fn of_rows_of_one_blob_a_merge_keeps_the_newest() {
    let place = tempfile::tempdir().unwrap();
    let index = open(&place);
    for turn in 0..FAN_IN as u64 {
        let mut one = row(1);
        one.at.pack = pack(70 + turn);
        index.insert(&MINE, &[one], 0);
        flush(&index);
    }
    assert_eq!((extent(&index).rows, extent(&index).runs), (1, 1));
    assert_eq!(index.look_up(&[(digest(1), LENGTH)], 0)[0].map(|at| at.pack), Some(pack(69 + FAN_IN as u64)));
}

#[test]
fn segments_that_are_gone_are_forgotten_and_those_with_refused_rows_are_wanted_again() {
    let place = tempfile::tempdir().unwrap();
    let index = open(&place);
    index.refuse(pack(5));
    index.fill(&MINE, Some(&[1; 16]), &rows(0..100), (0, true));
    index.fill(&MINE, Some(&[2; 16]), &rows(100..200), (0, true));
    index.fill(&MINE, Some(&[3; 16]), &rows(500..600), (0, true));
    index.fill(&MINE, Some(&[4; 16]), &rows(600..700), (0, false));
    drop(index);
    let index = open(&place);
    let wanted = |index: &Index| [1, 2, 3, 4].map(|octet| index.wants(&MINE, &[octet; 16]));
    assert_eq!(wanted(&index), [false, false, true, true]);
    index.keep_segments(&MINE, &HashSet::from([[1; 16]]));
    drop(index);
    assert_eq!(wanted(&open(&place)), [false, true, true, true]);
}

#[test]
fn after_a_crash_what_was_not_written_is_wanted_again_and_what_was_left_is_removed() {
    let place = tempfile::tempdir().unwrap();
    let index = open(&place);
    index.fill(&MINE, Some(&[1; 16]), &rows(0..100), (0, true));
    flush(&index);
    index.fill(&MINE, Some(&[2; 16]), &rows(100..200), (0, true));
    assert!(!index.wants(&MINE, &[2; 16]), "they are in memory");
    // What a process that is killed now leaves, and one that was killed while it wrote a run.
    let copy = tempfile::tempdir().unwrap();
    for path in files(&place, "") {
        fs::copy(&path, copy.path().join(path.file_name().unwrap())).unwrap();
    }
    let left = ["mailrail-00000000000000ff.rows", "mailrail-00000000000000ff.filter", "mailrail-index.new"];
    for name in left {
        fs::write(copy.path().join(name), "half of it").unwrap();
    }
    let killed = open(&copy);
    assert!(!killed.wants(&MINE, &[1; 16]) && killed.wants(&MINE, &[2; 16]));
    killed.believe(&MINE, &listed(0..200), (0, true));
    assert!((0..100).all(|number| is_hit(&killed, number)));
    assert!((100..200).all(|number| !is_hit(&killed, number)));
    drop(killed);
    assert!(left.iter().all(|name| !copy.path().join(name).exists()));
}

#[test]
fn a_segment_counts_as_written_when_the_last_table_with_its_rows_is() {
    let mut segments = Segments::default();
    let mut until = [0; SHARDS];
    until[3] = 2;
    segments.pending = vec![(MINE, [1; 16], [0; SHARDS]), (MINE, [2; 16], until)];
    let mut written = [7; SHARDS];
    written[3] = 1;
    segments.advance(&written);
    assert!(segments.is_changed);
    assert_eq!(segments.durable[&MINE], HashSet::from([[1; 16]]));
    written[3] = 2;
    segments.advance(&written);
    assert_eq!(segments.durable[&MINE], HashSet::from([[1; 16], [2; 16]]));
    assert!(segments.pending.is_empty());
}

#[test]
fn runs_of_every_level_are_merged_and_none_of_another_is_lost() {
    let place = tempfile::tempdir().unwrap();
    let index = open(&place);
    // All of one shard, so that each table that is written is one run.
    let rows: Vec<Row> = (0..).map(row).filter(|row| row.digest.as_bytes()[7] % SHARDS as u8 == 0).take(150).collect();
    for (turn, two) in rows.chunks(2).enumerate() {
        index.fill(&MINE, None, two, (0, true));
        flush(&index);
        let told = extent(&index);
        assert_eq!(told.rows, (turn as u64 + 1) * 2);
        assert!(told.runs < 3 * FAN_IN, "{} runs", told.runs);
    }
    assert!(rows.iter().all(|row| index.look_up(&[(row.digest, LENGTH)], 0)[0] == Some(row.at)));
    drop(index);
    assert_eq!(extent(&open(&place)).rows, 150);
}

#[test]
fn two_processes_do_not_share_a_directory() {
    let place = tempfile::tempdir().unwrap();
    let first = open(&place);
    let refused = Index::on_disk(place.path(), 0, Index::DISK_OCTETS_MIN, &Acquisitions::default()).unwrap_err();
    assert!(refused.to_string().contains("in use"), "{refused}");
    drop(first);
    open(&place);
}

#[test]
fn rows_that_come_faster_than_the_disk_takes_them_are_counted_and_nobody_waits() {
    let place = tempfile::tempdir().unwrap();
    let index = open(&place);
    // The keeper waits for this lock as soon as it has something to write.
    let shared = index.disk().unwrap().stalled();
    let inserted = std::thread::scope(|scope| scope.spawn(|| index.insert(&MINE, &rows(0..200_000), 0)).join());
    inserted.unwrap();
    drop(shared);
    flush(&index);
    let told = extent(&index);
    assert!(told.dropped > 0 && told.rows > 0, "{told:?}");
    assert_eq!(told.rows + told.dropped, 200_000);
}

#[test]
fn rows_are_found_at_every_moment_while_they_are_written_and_merged() {
    let place = tempfile::tempdir().unwrap();
    let index = open(&place);
    let filled = AtomicU64::new(0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for from in (0..200_000).step_by(500) {
                index.fill(&MINE, None, &rows(from..from + 500), (0, true));
                filled.store(from + 500, Ordering::Release);
            }
        });
        for reader in 0..3 {
            let (index, filled) = (&index, &filled);
            scope.spawn(move || {
                let mut number = reader;
                loop {
                    let until = filled.load(Ordering::Acquire);
                    if until > 0 {
                        number = (number * 1_103_515_245 + 12_345) % until;
                        assert!(is_hit(index, number), "row {number} of {until}");
                    }
                    if until == 200_000 {
                        break;
                    }
                }
            });
        }
    });
    assert_eq!(extent(&index).dropped, 0);
}

#[test]
fn when_memory_for_filters_is_used_up_the_oldest_rows_are_forgotten() {
    let place = tempfile::tempdir().unwrap();
    let packs = Arc::new(Packs::default());
    // Tables and buffers take nearly all of it.
    let octets = DiskRows::OCTETS_MIN / 2;
    let index = Index {
        packs: Arc::clone(&packs),
        acquisitions: Acquisitions::default(),
        rows: Box::new(DiskRows::open(place.path(), packs, RamRows::new(0, &Acquisitions::default()), octets).unwrap()),
    };
    index.fill(&MINE, None, &rows(0..100_000), (0, true));
    flush(&index);
    let told = extent(&index);
    assert_eq!(told.rows + told.dropped, 100_000);
    assert!(told.rows < 100_000, "{told:?}");
    assert!((0..100_000).filter(|number| is_hit(&index, *number)).count() as u64 >= told.rows);
}

#[test]
fn a_directory_that_is_lost_or_not_ours_is_made_anew() {
    let place = tempfile::tempdir().unwrap();
    let index = open(&place);
    index.fill(&MINE, Some(&[1; 16]), &rows(0..100), (0, true));
    drop(index);
    fs::write(place.path().join("mailrail-index"), "something else").unwrap();
    let index = open(&place);
    assert!(index.wants(&MINE, &[1; 16]));
    assert_eq!(extent(&index).rows, 0);
    assert_eq!(files(&place, ".rows").len(), 0);
}

#[test]
fn a_run_that_is_missing_or_torn_is_dropped_and_its_segments_are_wanted_again() {
    for suffix in [".rows", ".filter"] {
        for is_torn in [false, true] {
            let place = tempfile::tempdir().unwrap();
            let index = open(&place);
            index.fill(&MINE, Some(&[1; 16]), &rows(0..10_000), (0, true));
            drop(index);
            let path = &files(&place, suffix)[3];
            if is_torn {
                let file = OpenOptions::new().write(true).open(path).unwrap();
                file.set_len(file.metadata().unwrap().len() - 100).unwrap();
            } else {
                fs::remove_file(path).unwrap();
            }
            let index = open(&place);
            assert!(index.wants(&MINE, &[1; 16]));
            index.believe(&MINE, &listed(0..10_000), (0, true));
            let hits = (0..10_000).filter(|number| is_hit(&index, *number)).count();
            assert!((5000..10_000).contains(&hits), "{hits} of 10,000");
            // What is read again is found again.
            index.fill(&MINE, Some(&[1; 16]), &rows(0..10_000), (0, true));
            drop(index);
            assert!(!open(&place).wants(&MINE, &[1; 16]));
        }
    }
}

#[test]
fn a_damaged_page_is_never_believed_and_found_by_a_merge_as_well() {
    for is_merged in [false, true] {
        let place = tempfile::tempdir().unwrap();
        let index = open(&place);
        index.fill(&MINE, Some(&[1; 16]), &rows(0..4000), (0, true));
        drop(index);
        for path in files(&place, ".rows") {
            let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
            let mut octet = [0];
            file.read_exact_at(&mut octet, 4096 + 18).unwrap();
            file.write_all_at(&[octet[0] ^ 1], 4096 + 18).unwrap();
        }
        let index = open(&place);
        index.believe(&MINE, &listed(0..4000), (0, true));
        if is_merged {
            for turn in 0..8 {
                index.fill(&MINE, None, &rows(10_000 + turn * 100..10_100 + turn * 100), (0, true));
                flush(&index);
            }
            assert!((10_000..10_800).all(|number| is_hit(&index, number)));
        }
        let hits = (0..4000).filter(|number| is_hit(&index, *number)).count();
        assert!(hits < 4000, "{hits} of 4,000");
        drop(index);
        assert!(open(&place).wants(&MINE, &[1; 16]), "what was lost is to be read again");
    }
}

/// A run of these rows, in a directory of its own.
fn run(place: &TempDir, slots: &BTreeMap<Key, Slot>) -> (Directory, Packs) {
    let (directory, _) = Directory::open(place.path()).unwrap();
    let packs = Packs::default();
    let mut writer = RunWriter::create(&directory, 0, slots.len() as u64).unwrap();
    for (key, slot) in slots {
        let id = PackId::new([slot.pack as u8; 32]);
        let row = Row { digest: digest(0), at: Location { pack: id, ..row(0).at } };
        let pack = packs.numbers_unless_refused(&MINE, &[row], 0)[0];
        let slot = Slot { pack: pack.unwrap(), ..*slot };
        writer.push(key, &slot).unwrap();
    }
    assert_eq!(writer.finish(&packs).unwrap(), slots.len() as u64);
    let mut manifest = Manifest { next: 1, ..Manifest::default() };
    manifest.shards[0].push((0, 0));
    directory.save(&manifest).unwrap();
    (directory, packs)
}

fn slots() -> impl Strategy<Value = BTreeMap<Key, Slot>> {
    let numbers = any::<[u32; 4]>();
    let slot = (any::<u8>(), numbers).prop_map(|(pack, [offset, stored, content, frame])| Slot {
        pack: pack.into(),
        offset,
        stored,
        content,
        frame,
    });
    // Keys that crowd, and keys that do not.
    let key = prop_oneof![any::<Key>(), any::<u8>().prop_map(|octet| [octet; KEY])];
    proptest::collection::btree_map(key, slot, 0..400)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn a_run_gives_the_rows_that_were_written(slots in slots(), absent: Vec<Key>) {
        let place = tempfile::tempdir().unwrap();
        let (directory, packs) = run(&place, &slots);
        let run = Run::open(&directory, (0, 0), &packs).unwrap();
        for (key, slot) in &slots {
            let found = run.find(key, &|_| true).unwrap().unwrap();
            prop_assert_eq!(packs.id(found.pack), Some((MINE, PackId::new([slot.pack as u8; 32]))));
            prop_assert_eq!(Slot { pack: slot.pack, ..found }, *slot);
        }
        for key in absent.iter().filter(|key| !slots.contains_key(*key)) {
            prop_assert_eq!(run.find(key, &|_| true).unwrap(), None);
        }
        let mut reader = RunReader::new(&run, &directory, &packs).unwrap();
        let mut keys = Vec::new();
        while let Some((key, _)) = reader.next().unwrap() {
            keys.push(key);
        }
        prop_assert_eq!(keys, slots.keys().copied().collect::<Vec<_>>());
    }

    #[test]
    fn a_damaged_run_gives_right_rows_or_none(slots in slots(), is_filter: bool, at: prop::sample::Index, flip in 1_u8.., cut in any::<Option<prop::sample::Index>>()) {
        let place = tempfile::tempdir().unwrap();
        let (directory, packs) = run(&place, &slots);
        let path = if is_filter { directory.filter_path(0) } else { directory.rows_path(0) };
        let mut octets = fs::read(&path).unwrap();
        prop_assume!(!octets.is_empty());
        match cut {
            Some(cut) => octets.truncate(cut.index(octets.len())),
            None => { let at = at.index(octets.len()); octets[at] ^= flip; }
        }
        fs::write(&path, octets).unwrap();
        let opened = Run::open(&directory, (0, 0), &packs);
        prop_assert!(opened.is_err() || !is_filter, "the filter was believed");
        let Ok(run) = opened else { return Ok(()) };
        for (key, slot) in &slots {
            if let Ok(found) = run.find(key, &|_| true) {
                let found = found.unwrap();
                prop_assert_eq!(Slot { pack: slot.pack, ..found }, *slot);
            }
        }
        if let Ok(mut reader) = RunReader::new(&run, &directory, &packs) {
            while let Ok(Some((key, slot))) = reader.next() {
                prop_assert_eq!(Slot { pack: slot.pack, ..slots[&key] }, slot);
            }
        }
    }

    #[test]
    fn whatever_is_done_the_index_is_the_map_that_it_should_be(
        steps in proptest::collection::vec((0_u8..6, 0_u64..3000, 1_u64..1500), 1..12),
    ) {
        let place = tempfile::tempdir().unwrap();
        let mut index = open(&place);
        let mut model = HashSet::new();
        for (step, from, count) in steps {
            match step {
                0..=2 => {
                    index.fill(&MINE, None, &rows(from..from + count), (0, true));
                    model.extend(from..from + count);
                }
                3 => flush(&index),
                4 => {
                    drop(index);
                    index = open(&place);
                    index.believe(&MINE, &listed(0..4500), (0, true));
                }
                _ => {
                    for number in from..from + count {
                        prop_assert_eq!(is_hit(&index, number), model.contains(&number));
                    }
                }
            }
        }
        prop_assert!((0..4500).all(|number| is_hit(&index, number) == model.contains(&number)));
    }
}
