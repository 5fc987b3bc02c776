//! The command, run as people run it.
#![cfg(feature = "cli")]

use mailrail::organisation::Organisation;
use mailrail::runtime::{Clock, SystemClock};
use serde_json::Value;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;

const COMMANDS: [&str; 14] = [
    "push",
    "restore",
    "compare",
    "check",
    "repair",
    "recover",
    "ls",
    "stats",
    "quarantine",
    "approve",
    "forget",
    "sweep",
    "key",
    "demo",
];

/// A directory with mail, a key, and room for a repository.
struct Place {
    directory: TempDir,
    messages: u64,
}

/// How a run of the command ended.
#[derive(Debug)]
struct Run {
    status: Option<i32>,
    out: String,
    err: String,
}

impl Place {
    fn new(bytes: u64) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let organisation = Organisation::new(3).mailboxes(3).bytes(bytes).build();
        organisation.write_maildirs(&directory.path().join("mail")).unwrap();
        write_private(&directory.path().join("key"), &[7; 32]);
        Self { directory, messages: organisation.message_count() }
    }

    fn small() -> Self {
        Self::new(1_000_000)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The command with these arguments; `@` in them stands for the directory. Without a key.
    fn command(&self, arguments: &[&str]) -> Command {
        let directory = self.directory.path().to_str().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_mailrail"));
        command.args(arguments.iter().map(|argument| argument.replace('@', directory)));
        command.env_remove("MAILRAIL_KEY_FILE").env_remove("MAILRAIL_PASSWORD").stdin(Stdio::null());
        command
    }

    fn run_plain(&self, arguments: &[&str]) -> Run {
        run(&mut self.command(arguments))
    }

    /// Runs the command with the key.
    fn run(&self, arguments: &[&str]) -> Run {
        run(self.command(arguments).arg("--key-file").arg(self.path("key")))
    }

    fn push(&self) -> Run {
        self.run(&["push", "maildir:@/mail", "@/repository", "--json"])
    }

    /// Runs the command with the key and `--json`.
    fn json(&self, arguments: &[&str]) -> (Run, Value) {
        let run = self.run(&[arguments, &["--json"]].concat());
        let value = run.json();
        (run, value)
    }

    /// The first message of the mail, by path.
    fn a_message(&self) -> PathBuf {
        files(&self.path("mail")).into_iter().find(|path| path.metadata().unwrap().len() > 0).unwrap()
    }
}

impl Run {
    #[track_caller]
    fn ended(self, status: i32) -> Self {
        assert_eq!(self.status, Some(status), "{self:?}");
        self
    }

    /// Failed with one line that says `what`.
    #[track_caller]
    fn failed(self, status: i32, what: &str) -> Self {
        let run = self.ended(status);
        let errors: Vec<&str> = run.err.lines().filter(|line| line.starts_with("error: ")).collect();
        assert_eq!(errors.len(), 1, "{run:?}");
        assert!(run.err.contains(what), "{run:?}");
        run
    }

    /// The one object on standard output.
    #[track_caller]
    fn json(&self) -> Value {
        let value: Value = serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"));
        assert!(value["schema"].is_u64(), "{self:?}");
        value
    }

    /// The number in the row of this label.
    #[track_caller]
    fn row(&self, label: &str) -> String {
        let mut rows = self.out.lines().filter_map(|line| line.trim_start().strip_prefix(label));
        let row = rows.find(|rest| rest.starts_with(' ')).unwrap_or_else(|| panic!("no '{label}' in {}", self.out));
        row.split_whitespace().next().unwrap().to_owned()
    }
}

fn run(command: &mut Command) -> Run {
    let output = command.output().unwrap();
    Run {
        status: output.status.code(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

fn write_private(path: &Path, octets: &[u8]) {
    fs::write(path, octets).unwrap();
    set_mode(path, 0o600);
}

#[cfg(unix)]
fn set_mode(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[cfg(not(unix))]
fn set_mode(_: &Path, _: u32) {}

/// All files below a directory, sorted.
fn files(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut waiting = vec![directory.to_owned()];
    while let Some(directory) = waiting.pop() {
        for entry in fs::read_dir(directory).into_iter().flatten().map(Result::unwrap) {
            match entry.file_type().unwrap().is_dir() {
                true => waiting.push(entry.path()),
                false => files.push(entry.path()),
            }
        }
    }
    files.sort();
    files
}

/// Relative paths and octets of all files below a directory.
fn tree(directory: &Path) -> Vec<(OsString, Vec<u8>)> {
    let relative = |path: &Path| path.strip_prefix(directory).unwrap().as_os_str().to_owned();
    files(directory).into_iter().map(|path| (relative(&path), fs::read(path).unwrap())).collect()
}

/// Waits until there is a file below the directory, while the child runs; false if the child ended.
fn wait_for_file(directory: &Path, child: &mut Child) -> bool {
    while files(directory).is_empty() {
        if child.try_wait().unwrap().is_some() {
            return false;
        }
        std::thread::yield_now();
    }
    true
}

#[cfg(unix)]
fn interrupt(child: &Child) {
    // A child that has ended by itself is no error here.
    Command::new("kill").arg("-INT").arg(child.id().to_string()).stderr(Stdio::null()).status().unwrap();
}

#[test]
fn mail_goes_in_and_comes_back_byte_for_byte() {
    let place = Place::small();
    let pushed = place.run(&["push", "maildir:@/mail", "@/repository"]).ended(0);
    assert_eq!(pushed.row("seen").replace(',', ""), place.messages.to_string());
    assert_eq!((pushed.row("stored"), pushed.row("pending").as_str()), (pushed.row("seen"), "0"));
    assert_eq!(pushed.err, "");
    let checked = place.run(&["check", "@/repository", "--read-data"]).ended(0);
    assert_eq!((checked.row("rebuilt"), checked.row("damages").as_str()), (pushed.row("seen"), "0"));
    let restored = place.run(&["restore", "@/repository", "maildir:@/restored"]).ended(0);
    assert_eq!(restored.row("restored"), pushed.row("seen"));
    assert_eq!(tree(&place.path("mail")), tree(&place.path("restored")));
    let compared = place.run(&["compare", "maildir:@/restored", "@/repository"]).ended(0);
    assert_eq!(compared.row("same"), pushed.row("seen"));
    let again = place.run(&["push", "maildir:@/mail", "@/repository"]).ended(0);
    assert_eq!((again.row("unchanged"), again.row("read").as_str()), (pushed.row("seen"), "0"));
    let reread = place.run(&["push", "maildir:@/mail", "@/repository", "--reread"]).ended(0);
    assert_ne!(reread.row("read"), "0");
}

#[test]
fn a_push_in_json_has_the_whole_ledger() {
    let place = Place::small();
    let value = place.push().ended(0).json();
    for field in ["seen", "stored", "unchanged", "quarantined", "excluded", "pending"] {
        assert!(value["messages"][field].is_u64(), "{field}: {value}");
    }
    for field in ["read", "content", "duplicate", "compressed", "written"] {
        assert!(value["bytes"][field].is_u64(), "{field}: {value}");
    }
    assert!(value["objects"].as_u64() > Some(0), "{value}");
    assert!(value["elapsed_seconds"].as_f64() > Some(0.0), "{value}");
    assert!(value["peak_budget_bytes"].as_u64() > Some(0), "{value}");
    assert_eq!(value["messages"]["stored"], place.messages);
    assert_eq!(value["stopped"], false);
}

#[test]
fn every_command_prints_one_json_object_with_a_schema() {
    let place = Place::small();
    place.push().ended(0);
    for arguments in [
        &["restore", "@/repository", "maildir:@/restored"][..],
        &["compare", "maildir:@/mail", "@/repository"],
        &["check", "@/repository"],
        &["check", "@/repository", "--read-data"],
    ] {
        let (run, value) = place.json(arguments);
        assert!(value["elapsed_seconds"].is_f64(), "{value}");
        run.ended(0);
    }
    let (run, value) = place.json(&["restore", "@/repository", "maildir:@/other", "--mailbox", "nobody"]);
    run.failed(1, "there is no mailbox 'nobody'");
    assert!(value["error"].is_string());
}

#[test]
fn mailboxes_and_messages_are_listed() {
    let place = Place::small();
    let file = place.a_message();
    let relative = file.strip_prefix(place.path("mail")).unwrap().to_owned();
    place.push().ended(0);
    let mailbox = relative.iter().next().unwrap().to_str().unwrap();
    let all = place.run(&["ls", "@/repository"]).ended(0);
    assert_eq!(all.out.lines().count(), 1 + 3, "{all:?}");
    assert!(all.out.lines().any(|line| line.ends_with(mailbox)), "{all:?}");
    let one = place.run(&["ls", "@/repository", mailbox]).ended(0);
    let messages = files(&place.path("mail").join(mailbox)).len();
    assert_eq!(one.out.lines().count(), 1 + messages, "{one:?}");
    let unique = relative.file_name().unwrap().to_str().unwrap().split(':').next().unwrap();
    assert!(one.out.contains(unique), "{one:?}");
    let (run, value) = place.json(&["ls", "@/repository", mailbox]);
    run.ended(0);
    let listed = value["messages"].as_array().unwrap();
    let message = listed.iter().find(|message| message["name"] == unique).unwrap();
    assert_eq!(message["bytes"].as_u64(), Some(file.metadata().unwrap().len()));
    let (run, value) = place.json(&["ls", "@/repository"]);
    run.ended(0);
    let counts = value["mailboxes"].as_array().unwrap().iter().map(|mailbox| mailbox["messages"].as_u64().unwrap());
    assert_eq!(counts.sum::<u64>(), place.messages);
    place.run(&["ls", "@/repository", "nobody"]).failed(1, "there is no mailbox 'nobody'");
    let before = place.run(&["ls", "@/repository", "--at", "1999-01-01T00:00:00Z"]).ended(0);
    assert_eq!(before.out.lines().count(), 1, "{before:?}");
}

#[test]
fn statistics_count_what_is_held_and_taken() {
    let place = Place::small();
    let pushed = place.push().ended(0).json();
    place.push().ended(0);
    let (run, value) = place.json(&["stats", "@/repository"]);
    run.ended(0);
    assert_eq!(value["messages"], place.messages);
    assert_eq!(value["message_bytes"], pushed["bytes"]["read"]);
    let taken: u64 = files(&place.path("repository")).iter().map(|path| path.metadata().unwrap().len()).sum();
    assert_eq!(value["stored_bytes"].as_u64(), Some(taken));
    assert_eq!(value["history"].as_array().unwrap().len(), 2);
    let stats = place.run(&["stats", "@/repository"]).ended(0);
    assert_eq!(stats.row("messages"), place.messages.to_string());
    assert!(stats.out.contains("Runs (2)"), "{stats:?}");
}

#[test]
fn what_is_forgotten_goes_with_the_next_sweep() {
    let place = Place::small();
    place.push().ended(0);
    let all = place.run(&["ls", "@/repository"]).ended(0);
    let mailbox = all.out.lines().last().unwrap().split_whitespace().last().unwrap().to_owned();
    place.run(&["forget", "@/repository"]).failed(2, "say what to forget");
    place.run(&["forget", "@/repository", "--mailbox", "nobody"]).failed(1, "there is no mailbox 'nobody'");
    place.run(&["forget", "@/repository", "--mailbox", &mailbox, "--all"]).ended(2);
    let forgot = place.run(&["forget", "@/repository", "--mailbox", &mailbox]).ended(0);
    assert_eq!(forgot.row("mailboxes"), "1");
    assert!(forgot.out.contains("goes with the next `mailrail sweep`"), "{forgot:?}");
    let left = place.run(&["ls", "@/repository"]).ended(0);
    assert!(!left.out.lines().any(|line| line.ends_with(&mailbox)), "{left:?}");
    let older = place.run(&["ls", "@/repository", &mailbox, "--at", "2020-01-01T00:00:00Z"]);
    older.failed(1, "is forgotten");
    let before = tree(&place.path("repository"));
    let dry = place.run(&["sweep", "@/repository", "--dry-run"]).ended(0);
    assert!(dry.out.contains("Would go") && dry.row("commits") == "1", "{dry:?}");
    assert!(tree(&place.path("repository")) == before, "a dry run changed something");
    place.run(&["sweep", "@/repository"]).ended(0);
    place.run(&["check", "@/repository", "--read-data"]).ended(0);
    place.run(&["forget", "@/repository", "--all"]).ended(0);
    let (run, value) = place.json(&["sweep", "@/repository"]);
    run.ended(0);
    assert_eq!(value["packs"], value["deleted_packs"]);
    assert!(value["bytes_freed"].as_u64() > Some(100_000), "{value}");
    assert_eq!(files(&place.path("repository/packs")).len(), 0);
    place.run(&["check", "@/repository", "--read-data"]).ended(0);
    let again = place.run(&["push", "maildir:@/mail", "@/repository"]).ended(0);
    assert_eq!(again.row("stored").replace(',', ""), place.messages.to_string());
}

#[test]
fn mbox_and_eml_are_sources_and_sinks_too() {
    let place = Place::small();
    let mbox = "From a@b.c Mon Jan  5 10:00:00 2026\nSubject: one\n\nOne\n\nFrom a@b.c Mon Jan  5 10:00:01 2026\nSubject: two\n\nTwo\n\n";
    fs::create_dir_all(place.path("boxes")).unwrap();
    fs::write(place.path("boxes/box"), mbox).unwrap();
    fs::create_dir_all(place.path("letters/a")).unwrap();
    fs::write(place.path("letters/a/1.eml"), "Subject: three\r\n\r\nThree").unwrap();
    for (source, sink, from, to) in [
        ("mbox:@/boxes", "mbox:@/boxes-again", "boxes", "boxes-again"),
        ("eml:@/letters", "eml:@/letters-again", "letters", "letters-again"),
    ] {
        let repository = format!("@/repository-of-{from}");
        place.run(&["push", source, &repository]).ended(0);
        place.run(&["restore", &repository, sink]).ended(0);
        assert_eq!(tree(&place.path(from)), tree(&place.path(to)));
        place.run(&["compare", source, &repository]).ended(0);
    }
    let single = place.run(&["push", "mbox:@/boxes/box", "@/repository-of-one"]).ended(0);
    assert_eq!(single.row("stored"), "2");
}

#[test]
fn what_a_sink_cannot_hold_is_told_and_ends_with_3() {
    let place = Place::small();
    place.push().ended(0);
    let restored = place.run(&["restore", "@/repository", "mbox:@/boxes"]).ended(3);
    assert_eq!(restored.row("restored"), place.messages.to_string());
    assert!(restored.out.contains(" more\n"), "{}", restored.out);
    assert_eq!(restored.row("failed"), "0");
}

#[test]
fn something_in_the_way_of_a_restore_is_named_and_left_alone() {
    let place = Place::small();
    place.push().ended(0);
    let message = place.a_message();
    let relative = message.strip_prefix(place.path("mail")).unwrap();
    let there = place.path("restored").join(relative);
    fs::create_dir_all(there.parent().unwrap()).unwrap();
    fs::write(&there, "mine").unwrap();
    let restored = place.run(&["restore", "@/repository", "maildir:@/restored"]).ended(3);
    assert_eq!(restored.row("failed"), "1");
    let unique = relative.file_name().unwrap().to_str().unwrap().split(':').next().unwrap().to_owned();
    assert!(restored.out.contains(&unique), "{}", restored.out);
    assert_eq!(fs::read(&there).unwrap(), b"mine");
}

#[test]
fn one_mailbox_can_be_restored_alone() {
    let place = Place::small();
    place.push().ended(0);
    let mut names: Vec<_> = fs::read_dir(place.path("mail")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    let name = names[1].to_str().unwrap();
    place.run(&["restore", "@/repository", "maildir:@/restored", "--mailbox", name]).ended(0);
    assert_eq!(tree(&place.path("mail").join(name)), tree(&place.path("restored").join(name)));
    assert_eq!(fs::read_dir(place.path("restored")).unwrap().count(), 1);
}

#[test]
fn an_earlier_state_can_be_restored() {
    let place = Place::small();
    let before = SystemClock.now();
    place.push().ended(0);
    let then = SystemClock.now();
    let mail = tree(&place.path("mail"));
    fs::remove_file(place.a_message()).unwrap();
    let again = place.push().ended(0).json();
    assert_eq!(again["changes"]["gone"], 1);
    let at = format!("@{}.{:09}", then.as_secs(), then.subsec_nanos());
    place.run_at("then", &at).ended(0);
    assert_eq!(tree(&place.path("then")), mail);
    place.run(&["restore", "@/repository", "maildir:@/now"]).ended(0);
    assert_eq!(tree(&place.path("now")), tree(&place.path("mail")));
    let nothing = place.run_at("before", &format!("@{}", before.as_secs())).ended(0);
    assert!(nothing.out.contains("there was nothing"), "{nothing:?}");
    place.run_at("rfc", "2100-01-01T00:00:00+02:00").ended(0);
    assert_eq!(tree(&place.path("rfc")), tree(&place.path("mail")));
}

impl Place {
    /// Restores the state at a time. (`@` in the time is no directory.)
    fn run_at(&self, to: &str, at: &str) -> Run {
        let mut command = self.command(&["restore", "@/repository", &format!("maildir:@/{to}"), "--at"]);
        run(command.arg(at).arg("--key-file").arg(self.path("key")))
    }
}

#[test]
fn a_source_that_changed_differs_and_ends_with_3() {
    let place = Place::small();
    place.push().ended(0);
    let message = place.a_message();
    let mut octets = fs::read(&message).unwrap();
    octets[0] ^= 1;
    fs::write(&message, octets).unwrap();
    let (run, value) = place.json(&["compare", "maildir:@/mail", "@/repository"]);
    run.ended(3);
    assert_eq!((&value["different"], value["differences"].as_array().unwrap().len()), (&1.into(), 1), "{value}");
    let compared = place.run(&["compare", "maildir:@/mail", "@/repository"]).ended(3);
    assert!(compared.out.contains("Source and repository differ."), "{compared:?}");
}

#[test]
fn damage_is_found_named_and_ends_with_3() {
    let place = Place::small();
    place.push().ended(0);
    let pack = files(&place.path("repository/packs")).pop().unwrap();
    let mut octets = fs::read(&pack).unwrap();
    let middle = octets.len() / 2;
    octets[middle] ^= 1;
    fs::write(&pack, octets).unwrap();
    place.run(&["check", "@/repository"]).ended(0);
    let (run, value) = place.json(&["check", "@/repository", "--read-data"]);
    run.ended(3);
    assert!(value["damages"].as_u64() > Some(0), "{value}");
    let checked = place.run(&["check", "@/repository", "--read-data"]).ended(3);
    let name = pack.file_name().unwrap().to_str().unwrap();
    assert!(checked.out.contains(name) && checked.out.contains("Not sound"), "{checked:?}");
    let (run, value) = place.json(&["restore", "@/repository", "maildir:@/restored"]);
    run.ended(3);
    let (restored, failed) = (value["restored"].as_u64().unwrap(), value["failed"].as_u64().unwrap());
    assert!(failed > 0 && restored + failed == place.messages, "{value}");
    fs::remove_file(&pack).unwrap();
    place.run(&["check", "@/repository"]).ended(3);
}

#[test]
fn a_mailbox_of_which_nothing_reads_is_told_with_3_and_keeps_nobody_from_the_others() {
    let place = Place::small();
    place.push().ended(0);
    let mailboxes = place.run(&["ls", "@/repository"]).ended(0);
    let names: Vec<&str> = mailboxes.out.lines().skip(1).filter_map(|line| line.split_whitespace().last()).collect();
    let commits = files(&place.path("repository/mailboxes"));
    let journal = commits[0].parent().unwrap();
    commits
        .iter()
        .filter(|commit| commit.starts_with(journal))
        .for_each(|commit| fs::write(commit, "damaged").unwrap());

    let listed = place.run(&["ls", "@/repository"]).ended(3);
    let (there, damaged): (Vec<&str>, Vec<&str>) = names.iter().partition(|name| listed.out.contains(*name));
    assert!(there.len() == 2 && listed.err.starts_with(&format!("warning: {}: ", damaged[0])), "{listed:?}");
    assert!(place.run(&["quarantine", "ls", "@/repository"]).ended(3).err.contains(damaged[0]));
    let counted = place.run(&["stats", "@/repository"]).ended(3);
    assert!(counted.row("mailboxes") == "3" && counted.out.contains(&format!("  {}: ", damaged[0])), "{counted:?}");
    assert!(place.run(&["compare", "maildir:@/mail", "@/repository"]).ended(3).out.contains(damaged[0]));
    place.run(&["forget", "@/repository", "--mailbox", there[0]]).ended(0);
    let forgot = place.run(&["forget", "@/repository", "--all"]).ended(3);
    assert!(forgot.row("mailboxes") == "1" && forgot.out.contains(&format!("  {}: ", damaged[0])), "{forgot:?}");
    place.run(&["sweep", "@/repository"]).ended(1);

    place.run(&["repair", "@/repository"]).ended(3);
    let given_up = place.run(&["repair", "@/repository", "--give-up"]).ended(3);
    assert_eq!(given_up.row("mailboxes that go on without"), "1");
    place.run(&["sweep", "@/repository"]).ended(0);
    place.push().ended(0);
    assert_eq!(place.run(&["ls", "@/repository"]).ended(0).out, mailboxes.out);
    place.run(&["check", "@/repository", "--read-data"]).ended(0);
}

#[test]
fn a_damaged_pack_heals_with_the_mail_and_is_recovered_as_far_as_it_goes_without() {
    let place = Place::small();
    place.push().ended(0);
    let pack = files(&place.path("repository/packs")).pop().unwrap();
    let mut octets = fs::read(&pack).unwrap();
    let middle = octets.len() / 2;
    octets[middle] ^= 1;
    fs::write(&pack, octets).unwrap();
    fs::remove_file(place.path("repository/config")).unwrap();

    let checked = place.run(&["check", "@/repository", "--read-data", "--no-marks"]).ended(3);
    assert_eq!(checked.row("packs marked"), "0");
    let (run, value) = place.json(&["recover", "@/repository", "maildir:@/recovered"]);
    run.ended(3);
    let (restored, failed) = (value["restored"].as_u64().unwrap(), value["failed"].as_u64().unwrap());
    assert!(failed > 0 && restored + failed == place.messages, "{value}");
    place.run(&["recover", "@/repository", "maildir:@/repository/mail"]).failed(2, "into the repository");

    let checked = place.run(&["check", "@/repository", "--read-data"]).ended(3);
    assert_eq!(checked.row("packs marked"), "1");
    let (run, value) = place.json(&["repair", "@/repository"]);
    run.ended(3);
    assert!(value["messages_lost"].as_u64() == Some(failed) && value["replaced"][0] == "config", "{value}");
    place.run(&["push", "maildir:@/mail", "@/repository", "--reread"]).ended(0);
    let repaired = place.run(&["repair", "@/repository"]).ended(0);
    assert!(repaired.out.contains("Nothing is lost") && repaired.row("found elsewhere") != "0", "{repaired:?}");
    let checked = place.run(&["check", "@/repository", "--read-data"]).ended(0);
    assert_eq!((checked.row("packs healed"), checked.row("damages")), ("1".into(), "0".into()));
    let (run, value) = place.json(&["restore", "@/repository", "maildir:@/restored"]);
    run.ended(0);
    assert_eq!(value["restored"].as_u64(), Some(place.messages));
}

#[test]
fn what_is_no_message_is_counted_with_its_reason() {
    let place = Place::small();
    let temporary = place.a_message().parent().unwrap().parent().unwrap().join("tmp/half");
    fs::write(temporary, "Subject: ha").unwrap();
    let value = place.push().ended(0).json();
    assert_eq!((&value["messages"]["excluded"], &value["messages"]["exclusions"]["temporary"]), (&1.into(), &1.into()));
    let again = place.run(&["push", "maildir:@/mail", "@/repository"]).ended(0);
    assert_eq!((again.row("excluded").as_str(), again.row("temporary").as_str()), ("1", "1"));
}

#[test]
fn a_new_repository_needs_a_key_or_an_explicit_no() {
    let place = Place::small();
    let refused =
        place.run_plain(&["push", "maildir:@/mail", "@/repository"]).failed(1, "--key-file FILE, or --no-encryption");
    assert!(refused.err.contains("head -c 32 /dev/urandom"), "{refused:?}");
    assert!(!place.path("repository").exists());
    place.run(&["push", "maildir:@/mail", "@/repository", "--no-encryption"]).failed(2, "exclude each other");
    place.run_plain(&["push", "maildir:@/mail", "@/repository", "--no-encryption"]).ended(0);
    place.run_plain(&["check", "@/repository", "--read-data"]).ended(0);
    place.run(&["check", "@/repository"]).failed(1, "not encrypted");
}

#[test]
fn an_index_on_disk_is_made_kept_and_made_anew() {
    let place = Place::small();
    place.run(&["push", "maildir:@/mail", "@/repository", "--index", "@/index"]).ended(0);
    assert!(place.path("index/mailrail-index").exists());
    for damage in [false, true] {
        if damage {
            fs::write(place.path("index/mailrail-index"), "octets").unwrap();
        }
        // All content is there, so nothing of it is stored again.
        let again = ["push", "maildir:@/mail", "@/repository", "--reread", "--index", "@/index"];
        let (run, value) = place.json(&again);
        run.ended(0);
        assert_eq!(value["bytes"]["compressed"], 0, "{value}");
    }
    place.run(&["check", "@/repository", "--read-data"]).ended(0);
    place
        .run(&["push", "maildir:@/mail", "@/repository", "--index", "@/index", "--memory", "32MiB"])
        .failed(1, "budget");
}

#[test]
fn a_sealed_repository_opens_with_its_key_only() {
    let place = Place::small();
    place.push().ended(0);
    write_private(&place.path("wrong"), &[8; 32]);
    for arguments in [
        &["push", "maildir:@/mail", "@/repository"][..],
        &["restore", "@/repository", "maildir:@/restored"],
        &["compare", "maildir:@/mail", "@/repository"],
        &["check", "@/repository"],
        &["ls", "@/repository"],
        &["stats", "@/repository"],
    ] {
        place.run_plain(arguments).failed(1, "give --key-file FILE");
        place.run_plain(&[arguments, &["--key-file", "@/wrong"]].concat()).failed(1, "key");
    }
    assert!(!place.path("restored").exists());
    place.run_plain(&["push", "maildir:@/mail", "@/repository", "--no-encryption"]).failed(1, "encrypted");
    let by_environment = run(place.command(&["check", "@/repository"]).env("MAILRAIL_KEY_FILE", place.path("key")));
    by_environment.ended(0);
}

#[test]
fn a_key_file_has_exactly_32_octets_and_is_its_owners_alone() {
    let place = Place::small();
    for (octets, has) in [(&[7; 31][..], "has 31"), (&[7; 33], "has more"), (&[], "has 0")] {
        write_private(&place.path("odd"), octets);
        let pushed = place.run_plain(&["push", "maildir:@/mail", "@/repository", "--key-file", "@/odd"]);
        pushed.failed(1, has);
    }
    let absent = place.run_plain(&["push", "maildir:@/mail", "@/repository", "--key-file", "@/absent"]);
    absent.failed(1, "caused by");
    assert!(!place.path("repository").exists());
    if cfg!(unix) {
        for mode in [0o640, 0o604] {
            set_mode(&place.path("key"), mode);
            let pushed = place.push().ended(0);
            assert!(pushed.err.starts_with("warning: ") && pushed.err.contains("chmod 600"), "{pushed:?}");
        }
    }
}

#[test]
fn no_repository_is_made_where_something_else_is() {
    let place = Place::small();
    fs::create_dir(place.path("somebodys")).unwrap();
    fs::write(place.path("somebodys/thesis"), "chapter one").unwrap();
    place.run(&["push", "maildir:@/mail", "@/somebodys"]).failed(1, "other things");
    assert_eq!(files(&place.path("somebodys")).len(), 1);
    place.run(&["push", "maildir:@/mail", "@/somebodys/thesis"]).failed(1, "Not a directory");
    fs::create_dir(place.path("git")).unwrap();
    fs::write(place.path("git/config"), "[core]\n").unwrap();
    place.run(&["push", "maildir:@/mail", "@/git"]).failed(1, "config");
    fs::create_dir(place.path("empty")).unwrap();
    for repository in ["@/absent", "@/empty", "@/somebodys"] {
        for command in ["check", "ls", "stats"] {
            place.run(&[command, repository]).failed(1, "there is no repository");
        }
        place.run(&["restore", repository, "maildir:@/restored"]).failed(1, "there is no repository");
        place.run(&["compare", "maildir:@/mail", repository]).failed(1, "there is no repository");
    }
    assert!(!place.path("absent").exists() && !place.path("restored").exists());
    place.run(&["push", "maildir:@/mail", "@/empty"]).ended(0);
    // A creation that was cut off left this.
    fs::create_dir_all(place.path("begun/keys")).unwrap();
    place.run(&["push", "maildir:@/mail", "@/begun"]).ended(0);
}

#[test]
fn repositories_have_file_urls_too() {
    let place = Place::small();
    place.run(&["push", "maildir:@/mail", "file://@/my%20repository"]).ended(0);
    place.run(&["check", "@/my repository"]).ended(0);
}

#[test]
fn a_source_that_is_not_there_fails_before_a_repository_is_made() {
    let place = Place::small();
    for source in ["maildir:@/absent", "mbox:@/absent", "eml:@/absent", "maildir:@/key"] {
        let pushed = place.run(&["push", source, "@/repository"]).failed(1, &place.path("").display().to_string());
        assert_eq!(pushed.err.lines().count(), 1, "{pushed:?}");
    }
    assert!(!place.path("repository").exists());
}

#[test]
fn wrong_usage_ends_with_2() {
    let place = Place::small();
    for arguments in [
        &[][..],
        &["fetch"],
        &["push", "@/mail", "@/repository"],
        &["push", "imap:@/mail", "@/repository"],
        &["push", "maildir:", "@/repository"],
        &["push", "maildir:@/mail", "ftp://bucket"],
        &["push", "maildir:@/mail", "s3://"],
        &["push", "maildir:@/mail", "s3://key:secret@bucket"],
        &["push", "maildir:@/mail"],
        &["push", "maildir:@/mail", "@/repository", "--memory", "1MiB"],
        &["push", "maildir:@/mail", "@/repository", "--memory", "much"],
        &["push", "maildir:@/mail", "@/repository", "--threads", "0"],
        &["push", "maildir:@/mail", "@/mail/repository"],
        &["restore", "@/repository", "maildir:@/restored", "--at", "yesterday"],
        &["restore", "@/repository", "maildir:@/repository/mail"],
        &["restore", "@/repository", "@/restored"],
    ] {
        place.run(arguments).ended(2);
    }
    assert!(!place.path("repository").exists());
}

#[test]
fn every_command_has_a_help_text() {
    let place = Place::small();
    let help = place.run_plain(&["--help"]).ended(0);
    assert!(help.out.contains("Exit status:"), "{help:?}");
    for command in COMMANDS {
        assert!(help.out.contains(&format!("\n  {command} ")), "{command}: {}", help.out);
        let own = place.run_plain(&[command, "--help"]).ended(0);
        assert!(own.out.contains("Usage:") && own.out.contains("--json"), "{command}: {}", own.out);
        for line in own.out.lines() {
            let is_undescribed = line.trim_start().starts_with("--") && !line.trim_start().contains("  ");
            assert!(!is_undescribed || own.out.contains(&format!("{line}\n          ")), "{command}: {line}");
        }
    }
    assert!(place.run_plain(&["--version"]).ended(0).out.starts_with("mailrail "));
}

#[test]
fn quiet_is_quiet_and_small_budgets_and_many_threads_work() {
    let place = Place::small();
    let push = ["push", "maildir:@/mail", "@/repository", "--quiet", "--memory", "32MiB", "--threads", "5"];
    let pushed = place.run(&push).ended(0);
    assert_eq!((pushed.out.as_str(), pushed.err.as_str()), ("", ""));
}

#[test]
fn the_demonstration_shows_that_mail_comes_back_and_leaves_nothing_unless_asked() {
    let place = Place::small();
    fs::create_dir(place.path("tmp")).unwrap();
    let demo = run(place.command(&["demo"]).env("TMPDIR", place.path("tmp"))).ended(0);
    assert!(demo.out.contains("Every message came back byte for byte: yes"), "{demo:?}");
    assert_eq!(fs::read_dir(place.path("tmp")).unwrap().count(), 0);
    let (run, value) = place.json(&["demo", "@/demo"]);
    run.ended(0);
    assert_eq!(value["byte_for_byte"], true);
    let bytes = &value["bytes"];
    let saved = ["saved_by_deduplication", "saved_by_compression", "stored"].map(|name| bytes[name].as_u64().unwrap());
    assert_eq!(bytes["mail"].as_u64().unwrap(), saved.iter().sum::<u64>());
    assert_eq!(tree(&place.path("demo/mail")), tree(&place.path("demo/restored")));
    place.run_plain(&["check", "@/demo/repository", "--key-file", "@/demo/mailrail.key"]).ended(0);
    place.run_plain(&["demo", "@/demo"]).failed(1, "not empty");
}

/// The first interrupt ends a push in good order. How far it gets is not fixed, so mail is added until it is caught in the midst.
#[cfg(unix)]
#[test]
fn an_interrupted_push_commits_what_it_began_and_the_next_goes_on() {
    for megabytes in [30, 120, 480] {
        let place = Place::new(megabytes * 1_000_000);
        let mut command = place.command(&["push", "maildir:@/mail", "@/repository", "--json", "--threads", "1"]);
        command.args(["--memory", "32MiB", "--key-file"]).arg(place.path("key"));
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        wait_for_file(&place.path("repository/packs"), &mut child);
        interrupt(&child);
        let output = child.wait_with_output().unwrap();
        let value: Value = serde_json::from_slice(&output.stdout).unwrap();
        if output.status.code() == Some(0) {
            continue;
        }
        assert_eq!((output.status.code(), &value["stopped"]), (Some(3), &true.into()), "{value}");
        assert_eq!(output.stderr, b"");
        let counts = ["stored", "pending"].map(|name| value["messages"][name].as_u64().unwrap());
        assert_eq!(value["messages"]["seen"].as_u64().unwrap(), counts.iter().sum::<u64>(), "{value}");
        assert!(counts[0] > 0 && counts[0] < place.messages, "{value}");
        place.run(&["check", "@/repository", "--read-data"]).ended(0);
        let next = place.push().ended(0).json();
        assert_eq!(next["messages"]["unchanged"].as_u64().unwrap(), counts[0]);
        assert_eq!(next["messages"]["stored"].as_u64().unwrap(), place.messages - counts[0]);
        place.run(&["restore", "@/repository", "maildir:@/restored", "--quiet"]).ended(0);
        return assert!(tree(&place.path("mail")) == tree(&place.path("restored")));
    }
    panic!("a push of 480 MB was over before it could be interrupted");
}

/// A pipe that is full keeps the command from ending by itself.
#[cfg(target_os = "linux")]
#[test]
fn the_second_interrupt_ends_the_command_at_once() {
    use std::io::Write;
    const PIPE_OCTETS: usize = 1 << 16;
    let place = Place::small();
    let (_reader, mut writer) = std::io::pipe().unwrap();
    writer.write_all(&[0; PIPE_OCTETS]).unwrap();
    let mut command = place.command(&["push", "maildir:@/mail", "@/repository", "--no-encryption"]);
    let mut child = command.stdout(Stdio::from(writer)).spawn().unwrap();
    assert!(wait_for_file(&place.path("repository/runs"), &mut child));
    let status = loop {
        interrupt(&child);
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
    };
    assert_eq!(status.code(), Some(130));
}

/// A reader that goes away early (`| head`) is no failure.
#[test]
fn a_closed_pipe_is_no_failure() {
    let place = Place::small();
    let mut command = place.command(&["push", "maildir:@/mail", "@/repository", "--no-encryption"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]));
}
