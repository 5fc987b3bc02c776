//! A disk that is full, and one that may not be written: a clear error, nothing lost, and the next push goes on.
//!
//! The disks are of memory, in a mount namespace of the test's own (`unshare`). Where that is not allowed, the test is skipped.
#![cfg(all(feature = "cli", target_os = "linux"))]

use mailrail::organisation::Organisation;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

/// Octets of mail: more than the full disk takes, and less than the one that has grown.
const MAIL: u64 = 12 << 20;

#[test]
fn a_push_to_a_full_disk_says_so_and_goes_on_when_there_is_room() {
    let Some(told) = run(&format!(
        "mount -t tmpfs -o size=3m disk \"$PLACE/disk\"
         {PUSH}
         {CHECK}
         mount -o remount,size=64m \"$PLACE/disk\"
         {PUSH}
         {CHECK}
         {COMPARE}"
    )) else {
        return;
    };
    let statuses = statuses(&told);
    assert!(statuses[0] != 0 && statuses[1..] == [0, 0, 0, 0], "{statuses:?}\n{told}");
    assert!(told.contains("No space left on device"), "{told}");
}

#[test]
fn a_store_that_may_not_be_written_is_read_and_a_push_to_it_is_an_error() {
    let Some(told) = run(&format!(
        "mount -t tmpfs -o size=64m disk \"$PLACE/disk\"
         {PUSH}
         rm -r \"$(find \"$PLACE/mail\" -mindepth 1 -maxdepth 1 | head -n 1)/cur\"
         mount -o remount,ro \"$PLACE/disk\"
         {PUSH}
         {CHECK}
         \"$MAILRAIL\" restore \"$PLACE/disk/repository\" \"maildir:$PLACE/restored\"; echo \"status $?\"
         \"$MAILRAIL\" ls \"$PLACE/disk/repository\" --quiet; echo \"status $?\"
         mount -o remount,rw \"$PLACE/disk\"
         {PUSH}
         {COMPARE}"
    )) else {
        return;
    };
    let statuses = statuses(&told);
    assert!(statuses[1] != 0, "{told}");
    assert!(told.contains("Read-only file system"), "{told}");
    let others = [0, 2, 3, 4, 5, 6].map(|at| statuses[at]);
    assert_eq!(others, [0; 6], "{statuses:?}\n{told}");
}

const PUSH: &str = "\"$MAILRAIL\" push \"maildir:$PLACE/mail\" \"$PLACE/disk/repository\"; echo \"status $?\"";
const CHECK: &str = "\"$MAILRAIL\" check --read-data \"$PLACE/disk/repository\"; echo \"status $?\"";
const COMPARE: &str = "\"$MAILRAIL\" compare \"maildir:$PLACE/mail\" \"$PLACE/disk/repository\"; echo \"status $?\"";

/// Runs a script where `$PLACE` has mail and an empty directory for a disk; gives all that it prints. `None` where nothing may be mounted.
fn run(script: &str) -> Option<String> {
    let may_mount = Command::new("unshare").args(["-rm", "mount", "-t", "tmpfs", "none", "/mnt"]).output();
    if !may_mount.is_ok_and(|output| output.status.success()) {
        println!("skipped: no file system may be mounted here");
        return None;
    }
    let place = tempfile::tempdir().unwrap();
    mail(place.path());
    let output = Command::new("unshare")
        .args(["-rm", "sh", "-c", &format!("exec 2>&1\n{script}")])
        .env("PLACE", place.path())
        .env("MAILRAIL", env!("CARGO_BIN_EXE_mailrail"))
        .env("MAILRAIL_KEY_FILE", place.path().join("key"))
        .env_remove("MAILRAIL_PASSWORD")
        .output()
        .unwrap();
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn mail(place: &Path) {
    fs::create_dir(place.join("disk")).unwrap();
    fs::write(place.join("key"), [7; 32]).unwrap();
    fs::set_permissions(place.join("key"), Permissions::from_mode(0o600)).unwrap();
    Organisation::new(5).mailboxes(3).bytes(MAIL).build().write_maildirs(&place.join("mail")).unwrap();
}

/// The statuses that the script told, in order.
fn statuses(told: &str) -> Vec<i32> {
    told.lines().filter_map(|line| line.strip_prefix("status ")?.parse().ok()).collect()
}
