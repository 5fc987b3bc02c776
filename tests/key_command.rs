//! Keys on the command line: passphrases, and `mailrail key`.
#![cfg(feature = "cli")]

use serde_json::Value;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use tempfile::TempDir;

/// A directory with a little mail, keys and passwords, and room for a repository.
struct Place(TempDir);

/// How a run of the command ended.
#[derive(Debug)]
struct Run {
    status: Option<i32>,
    out: String,
    err: String,
}

impl Place {
    fn new() -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        fs::create_dir_all(place.path("mail/anna")).unwrap();
        fs::write(place.path("mail/anna/1.eml"), "Subject: one\r\n\r\nOne\r\n").unwrap();
        for (name, octets) in [
            ("key", &[7; 32][..]),
            ("other-key", &[8; 32]),
            ("password", b"correct horse\nand a second line\n"),
            ("same-password", b"correct horse\r\n"),
            ("bare-password", b"correct horse"),
            ("other-password", b"battery staple\n"),
            ("empty-password", b"\nno first line\n"),
            ("long-password", &[b'a'; 5000]),
        ] {
            fs::write(place.path(name), octets).unwrap();
            #[cfg(unix)]
            fs::set_permissions(place.path(name), std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        }
        place
    }

    /// With a repository that the key opens.
    fn with_key() -> Self {
        let place = Self::new();
        place.run("push eml:@/mail @/repository --key-file @/key").ended(0);
        place
    }

    /// With a repository that the password opens.
    fn with_password() -> Self {
        let place = Self::new();
        place.run("push eml:@/mail @/repository --password-file @/password").ended(0);
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Runs the command with these words; `@` stands for the directory.
    fn run(&self, words: &str) -> Run {
        self.run_in(words, &[])
    }

    fn run_in(&self, words: &str, environment: &[(&str, &str)]) -> Run {
        let directory = self.0.path().to_str().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_mailrail"));
        command.args(words.split(' ').map(|word| word.replace('@', directory)));
        command.env_remove("MAILRAIL_KEY_FILE").env_remove("MAILRAIL_PASSWORD").stdin(Stdio::null());
        command.envs(environment.iter().map(|(name, value)| (name, value.replace('@', directory))));
        let output = command.output().unwrap();
        Run {
            status: output.status.code(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// The keys, as the key `with` sees them.
    fn keys(&self, with: &str) -> Vec<Value> {
        let run = self.run(&format!("key ls @/repository --json {with}")).ended(0);
        let value: Value = serde_json::from_str(&run.out).unwrap();
        assert_eq!(value["schema"], 1);
        value["keys"].as_array().unwrap().clone()
    }
}

impl Run {
    #[track_caller]
    fn ended(self, status: i32) -> Self {
        assert_eq!(self.status, Some(status), "{self:?}");
        self
    }

    #[track_caller]
    fn failed(self, status: i32, what: &str) -> Self {
        let run = self.ended(status);
        assert!(run.err.contains(what), "{run:?}");
        run
    }
}

#[test]
fn a_password_comes_from_the_first_line_of_a_file_or_from_the_environment() {
    let place = Place::with_password();
    for file in ["password", "same-password", "bare-password"] {
        let run = place.run(&format!("check @/repository --read-data --password-file @/{file}")).ended(0);
        assert_eq!(run.err, "");
    }
    place.run_in("check @/repository", &[("MAILRAIL_PASSWORD", "correct horse")]).ended(0);
    place.run_in("check @/repository", &[("MAILRAIL_PASSWORD", "correct horse\n")]).failed(1, "does not open");
    place.run("check @/repository --password-file @/other-password").failed(1, "the passphrase does not open");
    place.run("check @/repository --key-file @/key").failed(1, "no key file opens this repository");
    place.run("check @/repository").failed(1, "give --key-file FILE or --password-file FILE");
    for (file, why) in [("empty-password", "empty"), ("long-password", "4,096"), ("absent", "caused by")] {
        place.run(&format!("check @/repository --password-file @/{file}")).failed(1, why);
    }
}

#[test]
fn the_command_line_goes_before_the_environment_and_two_keys_are_one_too_many() {
    let place = Place::with_password();
    let both = [("MAILRAIL_KEY_FILE", "@/key"), ("MAILRAIL_PASSWORD", "correct horse")];
    place.run_in("check @/repository", &both).failed(2, "are both set");
    place.run_in("check @/repository --password-file @/password", &both).ended(0);
    place.run_in("check @/repository --password-file @/password", &[("MAILRAIL_PASSWORD", "wrong")]).ended(0);
    place.run_in("check @/repository --key-file @/key", &[("MAILRAIL_PASSWORD", "correct horse")]).failed(1, "no key");
    place.run_in("check @/repository", &[("MAILRAIL_KEY_FILE", ""), ("MAILRAIL_PASSWORD", "correct horse")]).ended(0);
    for words in [
        "check @/repository --key-file @/key --password-file @/password",
        "--key-file @/key check @/repository --password-file @/password",
    ] {
        place.run(words).failed(2, "--key-file and --password-file exclude each other");
    }
    for key in ["--key-file @/key", "--password-file @/password"] {
        place.run(&format!("push eml:@/mail @/new --no-encryption {key}")).failed(2, "exclude each other");
    }
    place.run_in("push eml:@/mail @/new --no-encryption", &both).ended(0);
}

#[test]
fn keys_are_added_listed_and_removed() {
    let place = Place::with_key();
    place.run("key add @/repository --key-file @/key --new-password-file @/password --label for-anna").ended(0);
    place.run("check @/repository --read-data --password-file @/password").ended(0);
    let keys = place.keys("--password-file @/password");
    let of = |kind: &str| keys.iter().find(|key| key["kind"] == kind).unwrap().clone();
    let (file, password) = (of("key file"), of("passphrase"));
    assert_eq!(
        (&password["label"], &password["in_use"], &file["in_use"]),
        (&"for-anna".into(), &true.into(), &false.into())
    );
    let listed = place.run("key ls @/repository --key-file @/key").ended(0);
    assert_eq!(listed.out.lines().count(), 3, "{listed:?}");
    assert!(listed.out.contains(&format!(" * {}", file["id"].as_str().unwrap())), "{listed:?}");
    assert!(listed.out.lines().any(|line| line.contains("passphrase") && line.ends_with("for-anna")), "{listed:?}");

    let (file, password) = (file["id"].as_str().unwrap(), password["id"].as_str().unwrap());
    let own = place.run(&format!("key remove @/repository {file} --key-file @/key")).failed(1, "in use");
    assert!(own.err.contains("--even-in-use"), "{own:?}");
    place.run(&format!("key remove @/repository {file} --password-file @/password")).ended(0);
    place.run("check @/repository --key-file @/key").failed(1, "key");
    let last = format!("key rm @/repository {password} --even-in-use --password-file @/password");
    place.run(&last).failed(1, "the last key cannot be removed");
    place.run("key rm @/repository 0123456789abcdef --password-file @/password").failed(1, "there is no key");
    assert_eq!(place.keys("--password-file @/password").len(), 1);
}

#[test]
fn a_rotated_key_opens_nothing_and_the_new_one_does() {
    let place = Place::with_password();
    place.run("key rotate @/repository --password-file @/password --new-password-file @/other-password").ended(0);
    place.run("ls @/repository --password-file @/password").failed(1, "does not open");
    place.run("ls @/repository --password-file @/other-password").ended(0);
    place.run("key rotate @/repository --password-file @/other-password --new-key-file @/key --label new").ended(0);
    let keys = place.keys("--key-file @/key");
    assert_eq!((keys.len(), &keys[0]["kind"], &keys[0]["label"]), (1, &"key file".into(), &"new".into()));
    place.run("push eml:@/mail @/repository --key-file @/key").ended(0);
}

#[test]
fn wrong_usage_of_keys_ends_with_2_and_changes_nothing() {
    let place = Place::with_key();
    for words in [
        "key",
        "key add",
        "key add @/repository",
        "key add @/repository --new-key-file @/other-key --new-password-file @/password",
        "key rotate @/repository --label only",
        "key remove @/repository",
        "key remove @/repository not-an-id",
    ] {
        place.run(&format!("{words} --key-file @/key")).ended(2);
    }
    place.run("key add @/repository --key-file @/other-key --new-password-file @/password").failed(1, "does not open");
    place.run("key add @/repository --key-file @/key --new-key-file @/other-password").failed(1, "exactly 32");
    place.run("key ls @/absent --key-file @/key").failed(1, "there is no repository");
    assert_eq!(place.keys("--key-file @/key").len(), 1);
}

#[test]
fn a_damaged_key_slot_is_listed_as_such_and_ends_with_3() {
    let place = Place::with_key();
    place.run("key add @/repository --key-file @/key --new-key-file @/other-key").ended(0);
    let own = place.keys("--key-file @/key").into_iter().find(|key| key["in_use"] == true).unwrap();
    let mut slots = fs::read_dir(place.path("repository/keys")).unwrap().map(|entry| entry.unwrap().path());
    let other = slots.find(|path| !path.ends_with(own["id"].as_str().unwrap())).unwrap();
    fs::write(other, b"MRSLOT\x01\x00").unwrap();
    let listed = place.run("key ls @/repository --key-file @/key").ended(3);
    assert!(listed.out.contains("unreadable"), "{listed:?}");
}

#[cfg(unix)]
#[test]
fn a_password_file_that_others_can_read_is_warned_of() {
    let place = Place::with_password();
    fs::set_permissions(place.path("password"), std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    let run = place.run("ls @/repository --password-file @/password").ended(0);
    assert!(run.err.starts_with("warning: ") && run.err.contains("chmod 600"), "{run:?}");
}
