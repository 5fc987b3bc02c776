//! The command is killed (`kill -9`) at a drawn operation of the system; then the repository is sound, and the next push does the rest.
//!
//! The operations of a first run are counted by strace. Other runs are killed when they come to one of them, drawn uniformly from those of one phase
//! of the first run, the phases in turn. Without strace the test is skipped. `MAILRAIL_KILLS` says how often (six times if not set); with `MAILRAIL_KILLS_EACH` it goes on until there were as many kills in each
//! phase. `docs/reliability.md` has a histogram.
#![cfg(all(feature = "cli", target_os = "linux"))]

use mailrail::organisation::Organisation;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// What makes or changes a file, and what reads mail.
const OPERATIONS: &str = "openat,read,pread64,write,writev,fsync,fdatasync,linkat,rename,mkdir,unlink,unlinkat";

/// What the command was about when it was killed: told by the object that it was writing, or else by the last one that it wrote.
const PHASES: [&str; 5] = ["intake", "pack", "commit", "records", "idle"];

#[test]
fn a_command_that_is_killed_anywhere_leaves_a_sound_repository_and_the_next_one_does_the_rest() {
    let traced = Command::new("strace").args(["-f", "-o", "/dev/null", "true"]).output();
    if !traced.is_ok_and(|output| output.status.success()) {
        println!("skipped: there is no strace, or it may not trace");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let place = Place::new(directory.path());
    let operations = place.operations();
    assert!(operations.len() > 100, "strace sees too little: {}", operations.len());
    let (kills, each) = (number("MAILRAIL_KILLS", 6), number("MAILRAIL_KILLS_EACH", 0));
    let mut histogram: BTreeMap<&str, u64> = PHASES.iter().map(|phase| (*phase, 0)).collect();
    for attempt in 0.. {
        let total: u64 = histogram.values().sum();
        let is_enough = total >= kills && histogram.values().all(|count| *count >= each);
        if is_enough || attempt > 40 * kills.max(each * 5) {
            break;
        }
        let rarest = PHASES.iter().min_by_key(|phase| histogram[*phase]).unwrap();
        let phase = if each == 0 { PHASES[attempt as usize % PHASES.len()] } else { rarest };
        let candidates: Vec<usize> = (0..operations.len()).filter(|at| operations[*at] == phase).collect();
        if let Some(phase) = place.kill(candidates[random(attempt) as usize % candidates.len()]) {
            // With a number for each phase, those that have theirs are not looked at any further.
            if each == 0 || histogram[phase] < each {
                place.is_sound_and_goes_on();
                *histogram.get_mut(phase).unwrap() += 1;
            }
        }
        place.clear();
    }
    println!("{histogram:?}");
    assert!(histogram.values().sum::<u64>() >= kills, "{histogram:?}");
    assert!(histogram.values().all(|count| *count >= each), "{histogram:?}");
}

struct Place {
    root: PathBuf,
    source: String,
}

impl Place {
    /// A small organisation, and a key.
    fn new(root: &Path) -> Self {
        let mail = root.join("mail");
        Organisation::new(9).mailboxes(6).bytes(5 << 20).build().write_maildirs(&mail).unwrap();
        fs::write(root.join("key"), [7; 32]).unwrap();
        Self { root: root.to_owned(), source: format!("maildir:{}", mail.display()) }
    }

    fn path(&self, name: &str) -> String {
        self.root.join(name).display().to_string()
    }

    fn mailrail(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mailrail"));
        self.with_options(command.args(arguments));
        command.output().unwrap()
    }

    fn with_options(&self, command: &mut Command) {
        command.args(["--key-file", &self.path("key"), "--quiet", "--threads", "2"]);
        command.env_remove("MAILRAIL_KEY_FILE").env_remove("MAILRAIL_PASSWORD");
    }

    /// A push under strace, which writes its operations to `log`.
    fn traced(&self) -> Command {
        let mut command = Command::new("strace");
        command.args(["-f", "-qq", "-e", &format!("trace={OPERATIONS}"), "-o", &self.path("log")]);
        command.arg(env!("CARGO_BIN_EXE_mailrail")).args(["push", &self.source, &self.path("repository")]);
        self.with_options(&mut command);
        command
    }

    /// The phase of each operation of a run that is not killed.
    fn operations(&self) -> Vec<&'static str> {
        let output = self.traced().output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let log = fs::read_to_string(self.root.join("log")).unwrap();
        let (mut has_commits, mut phase) = (false, "intake");
        let phases = log.lines().map(|line| {
            if let Some(class) = self.named_by(line) {
                has_commits |= class == "mailboxes";
                phase = phase_behind(&class, has_commits);
            }
            phase
        });
        let phases = phases.collect();
        self.clear();
        phases
    }

    /// Kills a push when it comes to this operation; `None` if it came to its end first.
    fn kill(&self, operation: usize) -> Option<&'static str> {
        fs::remove_file(self.root.join("log")).unwrap();
        assert!(Command::new("mkfifo").arg(self.path("log")).status().unwrap().success());
        // Who kills stands ready, for the command does not wait.
        let mut killer =
            Command::new("sh").args(["-c", "read pid && kill -9 $pid"]).stdin(Stdio::piped()).spawn().unwrap();
        let mut push = self.traced().stderr(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
        let mut order = killer.stdin.take();
        let mut process = None;
        let mut seen = String::new();
        for (at, line) in BufReader::new(File::open(self.root.join("log")).unwrap()).lines().enumerate() {
            let line = line.unwrap();
            let first = process.get_or_insert_with(|| line.split(' ').next().unwrap().to_owned());
            if at == operation
                && let Some(mut order) = order.take()
            {
                // It may have come to its end by now.
                let _ = writeln!(order, "{first}");
            }
            seen.push_str(&line);
            seen.push('\n');
        }
        drop(order);
        let _ = killer.wait().unwrap();
        let status = push.wait().unwrap();
        fs::remove_file(self.root.join("log")).unwrap();
        fs::write(self.root.join("log"), seen).unwrap();
        (!status.success()).then(|| self.phase())
    }

    fn phase(&self) -> &'static str {
        let repository = self.root.join("repository");
        let has_commits = has_file(&repository.join("mailboxes"));
        match being_written(&repository.join(".tmp")).as_deref() {
            Some("MRPACK") => "pack",
            Some("MRCOMM") => "commit",
            Some("MRINDX" | "MRRUNS") if has_commits => "records",
            _ => {
                let log = fs::read_to_string(self.root.join("log")).unwrap();
                let last = log.lines().rev().find_map(|line| self.named_by(line));
                last.map_or("intake", |class| phase_behind(&class, has_commits))
            }
        }
    }

    /// The first name in the key of the object that was given its name by the call in this line of a log.
    fn named_by(&self, line: &str) -> Option<String> {
        let names = line.contains(" linkat(") || line.contains(" rename(");
        let prefix = format!("{}/", self.path("repository"));
        Some(line.rsplit(prefix.as_str()).next().filter(|_| names)?.split('/').next()?.to_owned())
    }

    /// What is there is whole; a push comes to its end, and then everything is there.
    fn is_sound_and_goes_on(&self) {
        let repository = self.path("repository");
        if self.root.join("repository/config").exists() {
            self.succeeds(&["check", &repository, "--read-data", "--no-marks"]);
        }
        self.succeeds(&["push", &self.source, &repository]);
        self.succeeds(&["check", &repository, "--read-data", "--no-marks"]);
        self.succeeds(&["compare", &self.source, &repository]);
    }

    fn succeeds(&self, arguments: &[&str]) {
        let output = self.mailrail(arguments);
        assert!(output.status.success(), "{arguments:?}: {output:?}");
    }

    fn clear(&self) {
        let _ = fs::remove_dir_all(self.root.join("repository"));
    }
}

/// What a run is about when an object of this class was the last that it wrote.
fn phase_behind(class: &str, has_commits: bool) -> &'static str {
    match class {
        "packs" => "pack",
        "mailboxes" => "commit",
        "index" => "records",
        "runs" if has_commits => "idle",
        _ => "intake",
    }
}

/// The kind of the object that a temporary file was to become.
fn being_written(temporaries: &Path) -> Option<String> {
    let files = fs::read_dir(temporaries).ok()?.filter_map(|entry| fs::read(entry.ok()?.path()).ok());
    files.filter_map(|octets| String::from_utf8(octets.get(..6)?.to_vec()).ok()).max()
}

fn has_file(directory: &Path) -> bool {
    let Ok(entries) = fs::read_dir(directory) else { return false };
    entries.flatten().any(|entry| entry.path().is_file() || has_file(&entry.path()))
}

fn number(variable: &str, otherwise: u64) -> u64 {
    std::env::var(variable).map_or(otherwise, |value| value.parse().unwrap())
}

fn random(number: u64) -> u64 {
    let digest = blake3::hash(&number.to_le_bytes());
    u64::from_le_bytes(digest.as_bytes()[..8].try_into().unwrap())
}
